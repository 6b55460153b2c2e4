"""LeadFieldFamily: every lead field a head can have, as one small reduced basis.

``L(sigma, electrodes) = average_reference(sum_k c_k(sigma) B(electrodes) A_k) Vᵀ``: the potential
at the vertices of the scalp mesh is kept at Chebyshev nodes ``k`` of the logarithm of the skull
conductivity, compressed to ``r`` modes shared by all nodes; electrodes are barycentric
combinations ``B`` of three vertices, exactly as the BEM places them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import average_reference
from deepesi.physics.montage import ScalpPoints

Array = NDArray[np.float64]


def chebyshev_nodes(low: float, high: float, n_nodes: int) -> Array:
    """Chebyshev nodes of the first kind in the logarithm, as conductivities, ascending."""
    angles = (2 * np.arange(n_nodes, 0, -1) - 1) * np.pi / (2 * n_nodes)
    middle, half = np.log(low * high) / 2, np.log(high / low) / 2
    return np.asarray(np.exp(middle + half * np.cos(angles)))


@dataclass(frozen=True)
class LeadFieldFamily:
    """All lead fields of one head over skull conductivity and electrode position.

    Attributes:
        scalp_pos: Vertices of the scalp mesh ``(N, 3)``, m, head frame.
        scalp_faces: Triangles ``(F, 3)`` of the scalp on which electrodes can lie.
        conductivities: Skull conductivity at the nodes ``(K,)``, S/m.
        conductivity_range: Lowest and highest conductivity the nodes cover, S/m.
        scalp_modes: ``A`` ``(K, N, r)``, V.
        source_modes: ``V`` ``(D, r)``, 1/(A m).

    """

    scalp_pos: Array
    scalp_faces: NDArray[np.int64]
    conductivities: Array
    conductivity_range: tuple[float, float]
    scalp_modes: Array
    source_modes: Array

    def coefficients(self, conductivity: Array | float) -> Array:
        """Lagrange coefficients ``(..., K)`` of the nodes at skull conductivities ``(...)``, S/m.

        Raises:
            ValueError: A conductivity lies outside `conductivity_range`.

        """
        value = np.asarray(conductivity, dtype=np.float64)
        low, high = self.conductivity_range
        if value.min() < low * (1 - 1e-9) or value.max() > high * (1 + 1e-9):
            raise ValueError(
                f"LeadFieldFamily: skull conductivity {value.min():.4g}-{value.max():.4g} S/m "
                f"lies outside {low:g}-{high:g} S/m. Conductivities are in S/m, not mS/m."
            )
        x, nodes = np.log(value)[..., None], np.log(self.conductivities)
        factors = [
            np.prod((x - np.delete(nodes, k)) / (node - np.delete(nodes, k)), axis=-1)
            for k, node in enumerate(nodes)
        ]
        return np.stack(factors, axis=-1)

    def operator(self, conductivity: float, electrodes: ScalpPoints) -> Array:
        """Reduced lead field ``U`` ``(C, r)``, average-referenced; ``U source_modesᵀ`` is ``L``."""
        modes = np.einsum("k,knr->nr", self.coefficients(conductivity), self.scalp_modes)
        return average_reference(
            np.einsum("cv,cvr->cr", electrodes.weights, modes[electrodes.vertices])
        )

    def leadfield(self, conductivity: float, electrodes: ScalpPoints) -> Array:
        """Lead field ``(C, D)``, V/(A m), average-referenced."""
        return self.operator(conductivity, electrodes) @ self.source_modes.T


def compress(potentials: Array, rank: int) -> tuple[Array, Array]:
    """Reduce potentials ``(K, N, D)`` to ``scalp_modes (K, N, r)`` and ``source_modes (D, r)``.

    Columns are brought to equal norm first, so that deep sources are kept as well as
    superficial ones, relative to their own size.
    """
    stacked = average_reference(potentials, axis=1).reshape(-1, potentials.shape[-1])
    norms = np.linalg.norm(stacked, axis=0)
    even = stacked / norms
    _, vectors = np.linalg.eigh(even.T @ even)
    basis = vectors[:, ::-1][:, :rank]
    modes = even @ basis
    return modes.reshape(*potentials.shape[:2], -1), basis * norms[:, None]
