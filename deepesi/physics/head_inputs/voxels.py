"""Sources on a regular grid of voxels, for convolutional networks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs.declaration import Array, Axes, HeadInput


@dataclass(frozen=True)
class _Grid:
    """A grid of fixed shape along the axes of the head frame, centred on the sources.

    Attributes:
        spacing: Edge of a voxel, m.
        n_x: Number of voxels along x (left to right).
        n_y: Number of voxels along y (back to front).
        n_z: Number of voxels along z (upwards).

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
        """Number of voxels along each axis."""
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
        """Source locations ``(S, 3)`` in units of voxels; 0 is the centre of the first voxel.

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
        return np.asarray(np.clip(inside, 0.0, last))


#: The eight corners of a cell, in voxels from the lowest one.
CORNERS = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), axis=-1).reshape(8, 3)


@dataclass(frozen=True)
class VoxelCorners(_Grid, HeadInput):
    """Indices ``(S, 8)`` of the voxels around each source, the last axis of the grid fastest."""

    def compute(self, head: HeadModel) -> NDArray[Any]:
        """Return the array."""
        corners = _lowest(self, head)[:, None] + CORNERS
        return np.asarray(np.ravel_multi_index(tuple(np.moveaxis(corners, -1, 0)), self.shape))


@dataclass(frozen=True)
class VoxelWeights(_Grid, HeadInput):
    """Trilinear weights ``(S, 8)`` of these voxels, with sum 1.

    Several sources can share a voxel (both banks of a sulcus), but no two sources share all
    weights. Scatter and gather blur sources but do not merge them.
    """

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        share = (self.coordinates(head) - _lowest(self, head))[:, None]
        return np.asarray(np.where(CORNERS == 1, share, 1 - share).prod(axis=-1))


def _lowest(grid: _Grid, head: HeadModel) -> NDArray[np.int64]:
    """Corner with the lowest indices of the cell around each source ``(S, 3)``."""
    floor = np.floor(grid.coordinates(head)).astype(np.int64)
    return np.asarray(np.minimum(floor, np.array(grid.shape) - 2))
