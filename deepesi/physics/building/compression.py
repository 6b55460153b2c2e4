"""Potentials at the nodes of a tissue grid, reduced to a `ScalpPotentialFamily`."""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.family import TissueGrid
from deepesi.physics.sensors import average_reference

Array = NDArray[np.float64]


class Reduced(NamedTuple):
    """What `compress` makes: fields of a `ScalpPotentialFamily`."""

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
