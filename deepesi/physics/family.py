"""LeadFieldFamily: every lead field a head can have, as one small reduced basis.

``L = average_reference(B(electrodes) E sum_k c_k(tissues) G_k) Vᵀ``: the potential at the vertices
of the scalp mesh is expanded in ``p`` patterns ``E`` of the scalp and ``r`` modes ``V`` of the
sources; the core ``G`` between them is a Chebyshev polynomial in the logarithm of the skull's
conductivity, its thickness and the logarithm of the scalp's conductivity. Electrodes are
barycentric combinations ``B`` of three vertices, exactly as the BEM places them. Conductivity of
the brain needs no polynomial: potentials depend on ratios, and fall as all conductivities rise.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import average_reference
from deepesi.physics.montage import ScalpPoints

Array = NDArray[np.float64]

#: Conductivity of the brain at which families are built, S/m.
BRAIN_CONDUCTIVITY = 0.33


@dataclass(frozen=True)
class Tissues:
    """What a lead field depends on beside the shape of the head.

    Args:
        skull_conductivity: S/m.
        skull_thickness: Mean over the calvaria, m.
        scalp_conductivity: S/m.
        brain_conductivity: S/m.

    """

    skull_conductivity: float = 0.01
    skull_thickness: float = 0.006
    scalp_conductivity: float = 0.33
    brain_conductivity: float = BRAIN_CONDUCTIVITY


NOMINAL = Tissues()


@dataclass(frozen=True)
class TissueGrid:
    """The box of tissues a family covers, and the Chebyshev nodes it is built from.

    Conductivities are those at `BRAIN_CONDUCTIVITY`: with a more conductive brain the covered
    conductivities of skull and scalp rise in proportion.

    Args:
        skull_conductivity: Lowest and highest, S/m.
        skull_thickness: Lowest and highest, m.
        scalp_conductivity: Lowest and highest, S/m.
        n_nodes: Nodes along each of the three.

    """

    skull_conductivity: tuple[float, float] = (0.002, 0.03)
    skull_thickness: tuple[float, float] = (0.0035, 0.0085)
    scalp_conductivity: tuple[float, float] = (0.19, 0.62)
    n_nodes: tuple[int, int, int] = (5, 4, 3)

    @property
    def bounds(self) -> Array:
        """Lowest and highest log conductivity, thickness, log conductivity ``(3, 2)``."""
        return np.array(
            [
                np.log(self.skull_conductivity),
                self.skull_thickness,
                np.log(self.scalp_conductivity),
            ]
        )

    @property
    def axes(self) -> list[Array]:
        """Nodes (first kind) along each axis, in the units of `Tissues`."""
        low, high = self.bounds.T
        nodes = [
            (a + b) / 2 + (b - a) / 2 * np.cos((2 * np.arange(n, 0, -1) - 1) * np.pi / (2 * n))
            for a, b, n in zip(low, high, self.n_nodes, strict=True)
        ]
        return [np.exp(nodes[0]), nodes[1], np.exp(nodes[2])]

    @property
    def nodes(self) -> list[Tissues]:
        """Every node, thickness slowest: one geometry serves all its conductivities."""
        skull, thickness, scalp = self.axes
        return [Tissues(k, t, s) for t, k, s in itertools.product(thickness, skull, scalp)]


@dataclass(frozen=True)
class LeadFieldFamily:
    """All lead fields of one head over its tissues and the places of the electrodes.

    A head that is known by one lead field alone (a forward solution) is a family with one term.

    Attributes:
        scalp_pos: Vertices of the scalp mesh ``(N, 3)``, m, head frame.
        scalp_faces: Triangles ``(F, 3)`` of the scalp on which electrodes can lie.
        bounds: Box covered ``(3, 2)``: log skull conductivity, thickness, log scalp conductivity.
        terms: Degrees of the Chebyshev polynomials ``(K, 3)``.
        scalp_modes: ``E`` ``(N, p)``.
        core: ``G`` ``(K, p, r)``, V.
        source_modes: ``V`` ``(D, r)``, 1/(A m).
        eye_core: The same core for the eyes ``(K, p, 6)``, V/(A m): left x, y, z, right x, y, z;
            no columns where the eyes are not known.

    """

    scalp_pos: Array
    scalp_faces: NDArray[np.int64]
    bounds: Array
    terms: NDArray[np.int64]
    scalp_modes: Array
    core: Array
    source_modes: Array
    eye_core: Array

    @property
    def varies(self) -> bool:
        """Whether the tissues change the lead field."""
        return len(self.terms) > 1

    def polynomials(self, log_skull: Any, thickness: Any, log_scalp: Any) -> list[Any]:
        """The ``K`` terms at tissues of a brain at `BRAIN_CONDUCTIVITY`; arrays or tensors."""
        values: list[list[Any]] = []
        for value, (low, high), degree in zip(
            (log_skull, thickness, log_scalp), self.bounds, self.terms.max(axis=0), strict=True
        ):
            x = (value - (low + high) / 2) * (2 / (high - low))
            chebyshev = [1.0 + 0 * x, x]
            while len(chebyshev) <= degree:
                chebyshev.append(2 * x * chebyshev[-1] - chebyshev[-2])
            values.append(chebyshev)
        return [values[0][a] * values[1][b] * values[2][c] for a, b, c in self.terms.tolist()]

    def coefficients(self, tissues: Tissues) -> Array:
        """Weights ``(K,)`` of the core.

        Raises:
            ValueError: The tissues lie outside what the family covers.

        """
        if not self.varies:
            return np.ones(1)
        ratio = BRAIN_CONDUCTIVITY / tissues.brain_conductivity
        point = np.array(
            [
                np.log(tissues.skull_conductivity * ratio),
                tissues.skull_thickness,
                np.log(tissues.scalp_conductivity * ratio),
            ]
        )
        low, high = self.bounds.T
        slack = 1e-6 * (high - low)  # of float32
        if not ((point >= low - slack) & (point <= high + slack)).all():
            raise ValueError(f"LeadFieldFamily: {tissues} lies outside {self.covered(ratio)}.")
        return ratio * np.array(self.polynomials(*point.clip(low, high)))

    def covered(self, ratio: float = 1.0) -> str:
        """What the family covers, in words; `ratio` is that of 0.33 S/m to the brain's."""
        (k0, k1), (t0, t1), (s0, s1) = self.bounds
        return (
            f"what this head covers: skull {np.exp(k0) / ratio:.3g}-{np.exp(k1) / ratio:.3g} S/m, "
            f"thickness {t0:.4g}-{t1:.4g} m, scalp {np.exp(s0) / ratio:.3g}-"
            f"{np.exp(s1) / ratio:.3g} S/m. Conductivities are in S/m (not mS/m), thickness in m"
        )

    def patterns(self, electrodes: ScalpPoints) -> Array:
        """Scalp patterns at electrodes ``(C, p)``, average-referenced."""
        rows = self.scalp_modes[electrodes.vertices]
        return average_reference(np.einsum("cv,cvp->cp", electrodes.weights, rows))

    def operator(self, tissues: Tissues, electrodes: ScalpPoints) -> Array:
        """Reduced lead field ``U`` ``(C, r)``, average-referenced; ``U source_modesᵀ`` is ``L``."""
        core = np.einsum("k,kpr->pr", self.coefficients(tissues), self.core)
        return self.patterns(electrodes) @ core

    def leadfield(self, tissues: Tissues, electrodes: ScalpPoints) -> Array:
        """Lead field ``(C, D)``, V/(A m), average-referenced."""
        return self.operator(tissues, electrodes) @ self.source_modes.T

    def eye_leadfield(self, tissues: Tissues, electrodes: ScalpPoints) -> Array:
        """Lead field of the eyes ``(C, 6)``, V/(A m), average-referenced."""
        core = np.einsum("k,kpe->pe", self.coefficients(tissues), self.eye_core)
        return self.patterns(electrodes) @ core


class Reduced(NamedTuple):
    """What `compress` makes: fields of a `LeadFieldFamily`."""

    terms: NDArray[np.int64]
    scalp_modes: Array
    core: Array
    source_modes: Array
    eye_core: Array


def compress(
    adjoints: Sequence[Array],
    sources: Array,
    eyes: Sequence[Array],
    grid: TissueGrid,
    n_patterns: int,
    rank: int,
    tolerance: float = 5e-4,
) -> Reduced:
    """Reduce potentials at the nodes of a grid to the arrays of a family.

    Columns are brought to equal norm first, so that deep sources are kept as well as superficial
    ones, relative to their own size.

    Args:
        adjoints: ``A`` at every node ``(N, m)``; potentials are ``A @ sources``. Read one by one.
        sources: Right-hand sides ``(m, D)``.
        eyes: Potentials of the eyes at every node ``(N, 6)``, or of no columns.
        grid: The grid.
        n_patterns: Scalp patterns ``p`` kept.
        rank: Source modes ``r`` kept.
        tolerance: Terms of the polynomial smaller than this, relative to the largest, are dropped.

    """
    m, n = len(sources), len(adjoints[0])
    gram = np.zeros((m, m))
    for adjoint in adjoints:
        centred = average_reference(np.asarray(adjoint, np.float64))
        gram += centred.T @ centred
    norms = np.sqrt(np.einsum("md,md->d", sources, gram @ sources))
    even = sources / norms
    tall, triangle = np.linalg.qr(even.T)
    _, vectors = np.linalg.eigh(triangle @ gram @ triangle.T)
    basis = tall @ vectors[:, ::-1][:, :rank]
    outer, reduced = even @ even.T, even @ basis
    scalp_gram = np.zeros((n, n))
    eye_norm = np.sqrt(sum((average_reference(e) ** 2).sum(axis=0) for e in eyes))
    for adjoint, eye in zip(adjoints, eyes, strict=True):
        centred = average_reference(np.asarray(adjoint, np.float64))
        scalp_gram += centred @ outer @ centred.T
        # Six columns among thousands: their weight keeps their error as small as the others'.
        seen = average_reference(eye) / eye_norm
        scalp_gram += sources.shape[1] / 100 * seen @ seen.T
    scalp_modes = np.linalg.eigh(scalp_gram)[1][:, ::-1][:, :n_patterns]
    at_nodes = np.stack([scalp_modes.T @ (np.asarray(a, np.float64) @ reduced) for a in adjoints])
    eyes_at_nodes = np.stack([scalp_modes.T @ e for e in eyes])
    terms, transform = _chebyshev_transform(grid)
    core, eye_core = (np.tensordot(transform, x, axes=1) for x in (at_nodes, eyes_at_nodes))
    size = np.linalg.norm(core, axis=(1, 2))
    kept = size > tolerance * size.max()
    source_modes = basis * norms[:, None]
    return Reduced(terms[kept], scalp_modes, core[kept], source_modes, eye_core[kept])


def _chebyshev_transform(grid: TissueGrid) -> tuple[NDArray[np.int64], Array]:
    """Degrees ``(K, 3)`` and the matrix ``(K, nodes)`` from values at nodes to coefficients."""
    single = []
    for count in grid.n_nodes:
        angles = (2 * np.arange(count, 0, -1) - 1) * np.pi / (2 * count)
        matrix = 2 / count * np.cos(np.arange(count)[:, None] * angles)
        matrix[0] /= 2
        single.append(matrix)
    skull, thickness, scalp = single
    transform = np.einsum("bt,ak,cs->bactks", thickness, skull, scalp)
    n_terms = int(np.prod(grid.n_nodes))
    degrees: Iterable[tuple[int, int, int]] = (
        (a, b, c) for b, a, c in itertools.product(*(range(grid.n_nodes[i]) for i in (1, 0, 2)))
    )
    return np.array(list(degrees)), transform.reshape(n_terms, n_terms)
