"""Explanation of topographies by the best one, two or more sources of free orientation.

Not to be confused with the dipole scan of `deepesi.baselines.music`, which is an inverse model.
Here many recordings of one sample are explained at once, because the residuals depend on the head.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Share of a topography below which it counts as explained by the other sources.
EXPLAINED = 0.01
#: Rounds in which every source is chosen again while the others stay.
N_ROUNDS = 2
#: Topographies that are explained at once.
AT_ONCE = 64


def few_sources(gain: Array, data: Array, n_sources: int = 3) -> tuple[NDArray[np.int64], Array]:
    """Sources with a small joint residual, chosen one after the other and then in turns.

    For one source this is the best one. Several may not be the best set, but the search is the same
    for every recording, so that the residuals can be compared.

    Args:
        gain: Whitened lead field of free orientation ``(C, 3S)``; column ``3 s + o``.
        data: Whitened topographies ``(N, C)``, not zero.
        n_sources: Largest number of sources ``K``.

    Returns:
        The best single source ``(N,)``, and the share of the power that the best one, two, ... and
        `n_sources` sources do not explain ``(N, K)``.

    Raises:
        ValueError: The lead field has no free orientation, or other channels than the data.

    Source: alternating projections, Ziskind & Wax 1988, doi:10.1109/29.7543. Difference: sources
    have a free orientation, and the number of rounds is fixed.

    """
    if gain.shape[1] % 3 or len(gain) != data.shape[1]:
        raise ValueError(
            f"few_sources: lead field of shape {gain.shape} and data of shape {data.shape}, "
            "expected (channels, 3 sources) and (examples, channels)."
        )
    blocks = gain.T.reshape(-1, 3, len(gain))
    spans = np.linalg.svd(blocks, full_matrices=False)[2]  # orthonormal topographies (S, 3, C)
    parts = [
        _explained(spans, data[first : first + AT_ONCE], n_sources)
        for first in range(0, len(data), AT_ONCE)
    ]
    best, residual = zip(*parts, strict=True)
    return np.concatenate(best), np.concatenate(residual)


def _explained(spans: Array, data: Array, n_sources: int) -> tuple[NDArray[np.int64], Array]:
    chosen = np.empty((len(data), 0), dtype=np.int64)
    residual = []
    for number in range(n_sources):
        chosen = np.column_stack([chosen, _best(spans, data, chosen)])
        for turn in range(N_ROUNDS * chosen.shape[1] if number else 0):
            row = turn % chosen.shape[1]
            chosen[:, row] = _best(spans, data, np.delete(chosen, row, axis=1))
        if number == 0:
            first = chosen[:, 0].copy()
        rest = _residual(_basis(spans, chosen), data)
        residual.append((rest**2).sum(1) / (data**2).sum(1))
    return first, np.stack(residual, axis=1)


def _best(spans: Array, data: Array, others: NDArray[np.int64]) -> NDArray[np.int64]:
    """The source that explains most of the residual of the others ``(N,)``."""
    basis = _basis(spans, others)  # (N, C, J)
    rest = _residual(basis, data)
    fitted = np.einsum("soc,nc->nso", spans, rest, optimize=True)
    if not others.shape[1]:
        return np.asarray((fitted**2).sum(2).argmax(1))
    shared = np.einsum("soc,ncj->nsoj", spans, basis, optimize=True)
    own = (1 + EXPLAINED) * np.eye(3) - shared @ shared.swapaxes(2, 3)
    explained = (fitted * np.linalg.solve(own, fitted[..., None])[..., 0]).sum(2)
    return np.asarray(explained.argmax(1))


def _basis(spans: Array, sources: NDArray[np.int64]) -> Array:
    """Orthonormal topographies ``(N, C, J)`` of the sources of every example ``(N, K)``."""
    together = spans[sources].reshape(len(sources), -1, spans.shape[2])
    return np.linalg.svd(together.swapaxes(1, 2), full_matrices=False)[0]


def _residual(basis: Array, data: Array) -> Array:
    return np.asarray(data - (basis @ (basis.swapaxes(1, 2) @ data[..., None]))[..., 0])
