"""Sources on a regular grid: where each lies among the voxels, for networks that convolve."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs.declaration import Array, Axes, HeadInput


@dataclass(frozen=True)
class _Grid:
    """A grid of fixed shape along the axes of the head frame, centred on the sources' box.

    Attributes:
        spacing: Edge of a voxel, m.
        n_x: Voxels to the right.
        n_y: Voxels to the front.
        n_z: Voxels upwards.

    """

    spacing: float = 0.010
    n_x: int = 16
    n_y: int = 20
    n_z: int = 16

    def __post_init__(self) -> None:
        if not self.spacing > 0 or min(self.n_x, self.n_y, self.n_z) < 2:
            raise ValueError(
                f"{type(self).__name__}: needs a positive spacing and 2 voxels or more along every "
                f"axis, got spacing={self.spacing} and {self.n_x} x {self.n_y} x {self.n_z}."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return (self.n_x, self.n_y, self.n_z)

    @property
    def n_voxels(self) -> int:
        """All voxels."""
        return self.n_x * self.n_y * self.n_z

    @property
    def axes(self) -> Axes:
        """``(S, 8)``."""
        return ("sources", 8)

    def coordinates(self, head: HeadModel) -> Array:
        """Sources ``(S, 3)`` in voxels; 0 is the centre of the first.

        Raises:
            ValueError: The sources do not fit between the centres of the outermost voxels.

        """
        low, high = head.source_pos.min(axis=0), head.source_pos.max(axis=0)
        last = np.array(self.shape) - 1
        reach = self.spacing * last
        if (high - low > reach + 1e-9).any():
            spans = " x ".join(f"{1e3 * x:.0f}" for x in high - low)
            reaches = " x ".join(f"{1e3 * x:.0f}" for x in reach)
            raise ValueError(
                f"{type(self).__name__}: the sources of {head.space.name} span {spans} mm, the "
                f"grid of {self.n_x} x {self.n_y} x {self.n_z} voxels reaches over {reaches} mm. "
                "Take more voxels or a larger spacing."
            )
        inside = (head.source_pos - (low + high) / 2) / self.spacing + last / 2
        return np.clip(inside, 0.0, last)


#: The eight corners of a cell, in voxels from the lowest one.
CORNERS = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), axis=-1).reshape(8, 3)


@dataclass(frozen=True)
class VoxelCorners(_Grid, HeadInput):
    """Numbers ``(S, 8)`` of the voxels around each source, the last axis of the grid fastest."""

    def compute(self, head: HeadModel) -> NDArray[Any]:
        """See the class."""
        corners = _lowest(self, head)[:, None] + CORNERS
        return np.asarray(np.ravel_multi_index(tuple(np.moveaxis(corners, -1, 0)), self.shape))


@dataclass(frozen=True)
class VoxelWeights(_Grid, HeadInput):
    """Trilinear weights ``(S, 8)`` of those voxels, of sum 1.

    Several sources share a voxel (both banks of a sulcus do), but no two places share all weights,
    so a map scattered and gathered with them blurs sources into each other without merging them.
    """

    def compute(self, head: HeadModel) -> Array:
        """See the class."""
        share = (self.coordinates(head) - _lowest(self, head))[:, None]
        return np.where(CORNERS == 1, share, 1 - share).prod(axis=-1)


def _lowest(grid: _Grid, head: HeadModel) -> NDArray[np.int64]:
    """The corner of the cell of each source ``(S, 3)`` that has the lowest numbers."""
    floor = np.floor(grid.coordinates(head)).astype(np.int64)
    return np.minimum(floor, np.array(grid.shape) - 2)
