"""Reduction of potentials at the nodes of a tissue grid to a `ScalpPotentialFamily`."""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.family import TissueGrid
from deepesi.physics.sensors import average_reference

Array = NDArray[np.float64]


class Reduced(NamedTuple):
    """Result of `compress`: fields of a `ScalpPotentialFamily`."""

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

    Columns are first scaled to equal norm, so that deep and superficial sources have the same
    relative error.

    Args:
        adjoints: Matrix ``A`` at every node ``(N, m)``, read one by one; potentials are
            ``A @ sources``.
        sources: Right-hand sides of all sources ``(m, D)``.
        eyes: Potentials of the eye dipoles at every node ``(N, 6)``; no columns without eyes.
        grid: Grid of tissues.
        n_patterns: Number of scalp patterns ``p`` to keep.
        rank: Number of source modes ``r`` to keep.
        tolerance: Smallest size of a polynomial term to keep, relative to the largest.

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
        # The six columns get a higher weight, so that their error is as small as for the brain.
        columns = average_reference(eye) / eye_norm
        scalp_gram += sources.shape[1] / 100 * columns @ columns.T
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
    """Degrees ``(K, 3)``, and matrix ``(K, nodes)`` from values at nodes to coefficients."""
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
