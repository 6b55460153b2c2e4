"""Dipoles at any position and orientation, as weighted sums of the fixed dipoles of a cortex.

The potential of a dipole changes smoothly with its position and is linear in its moment. So a
dipole near the cortex is a combination of the nearest dipoles normal to the cortex, whose lead
field is known, and no boundary elements are needed. With 5,124 dipoles (ico-4) the relative
difference measure of a dipole that was left out is 0.013 in the median and 0.03 at the 90th
percentile; with 1,284 (ico-3) it is 0.03 and 0.09.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

Array = NDArray[np.float64]

#: Largest distance from the cortex at which a combination is accurate, m.
REACH = 4e-3
N_NEAREST, WIDTH, UNIT, RIDGE = 32, 8e-3, 1e-2, 1e-3


@dataclass(frozen=True)
class DipoleWeights:
    """Weights of the fixed dipoles near some anchors, for dipoles at and around the anchors.

    The combination is exact for potentials that are linear in position and orientation. Among
    these it has the smallest weights, with a preference for near dipoles.

    Attributes:
        anchors: Positions ``(A, 3)``, m.
        nearest: Numbers of the fixed dipoles that are combined ``(A, k)``.
        response: Weights per unit of orientation ``n`` (3 columns) and of ``n offsetᵀ / 10 mm``
            (9 columns, row by row), no unit ``(A, k, 12)``.

    """

    anchors: Array
    nearest: NDArray[np.int64]
    response: Array

    @classmethod
    def around(cls, anchors: Array, positions: Array, normals: Array) -> "DipoleWeights":
        """Solve for the weights.

        Args:
            anchors: Positions ``(A, 3)``, m.
            positions: Positions of the fixed dipoles ``(S, 3)``, m.
            normals: Unit orientations of the fixed dipoles ``(S, 3)``.

        """
        distance, nearest = cKDTree(positions).query(anchors, k=min(N_NEAREST, len(positions)))
        offset = (positions[nearest] - anchors[:, None]) / UNIT
        by_offset = normals[nearest][..., :, None] * offset[..., None, :]
        moments = np.concatenate([normals[nearest], by_offset.reshape(*nearest.shape, 9)], axis=2)
        local = np.exp(-((distance / WIDTH) ** 2) / 2)[..., None] * moments
        gram = local.transpose(0, 2, 1) @ moments + RIDGE * np.eye(12)
        return cls(anchors, nearest, local @ np.linalg.inv(gram))

    def weights(self, anchor: NDArray[np.int64], orientation: Array, offset: Array) -> Array:
        """Weights ``(N, k)`` of the dipoles ``nearest[anchor]``.

        Args:
            anchor: Number of the anchor of every dipole ``(N,)``.
            orientation: Moments ``(N, 3)`` per unit of the combined dipole.
            offset: Positions relative to the anchors ``(N, 3)``, m; at most `REACH` long.

        """
        moments = [orientation, (orientation[:, :, None] * offset[:, None] / UNIT).reshape(-1, 9)]
        return np.asarray(
            np.einsum("nkj,nj->nk", self.response[anchor], np.concatenate(moments, axis=1))
        )


def free_orientation_modes(anchors: Array, positions: Array, normals: Array, modes: Array) -> Array:
    """Modes ``(3 A, r)`` of x, y and z dipoles at the anchors, from those of fixed dipoles.

    Args:
        anchors: Positions ``(A, 3)``, m.
        positions: Positions of the fixed dipoles ``(S, 3)``, m.
        normals: Unit orientations of the fixed dipoles ``(S, 3)``.
        modes: Modes of the fixed dipoles ``(S, r)``, or columns of any lead field.

    """
    own = DipoleWeights.around(anchors, positions, normals)
    n_rows, n_nearest = 3 * len(anchors), own.nearest.shape[1]
    values = own.response[..., :3].transpose(0, 2, 1).ravel()
    columns = np.repeat(own.nearest, 3, axis=0).ravel()
    ends = np.arange(n_rows + 1) * n_nearest
    return np.asarray(csr_array((values, columns, ends), shape=(n_rows, len(modes))) @ modes)
