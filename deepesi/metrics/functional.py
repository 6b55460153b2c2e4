"""Metrics of one example, as pure functions of magnitudes per source location.

``estimate`` and ``truth`` are magnitudes ``(S,)`` (norm over orientation, RMS over time, any common
unit, not negative), ``positions`` the sources ``(S, 3)`` in m, ``peaks`` the numbers of the true
peaks ``(K,)``. Distances come back in mm. An estimate that is zero everywhere says nothing about
the place; it is scored as the uniform map.
"""

import numpy as np
import ot
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

Array = NDArray[np.float64]


def distances_mm(a: Array, b: Array) -> Array:
    """Euclidean distances ``(A, B)``, mm, between points ``(A, 3)`` and ``(B, 3)``, m."""
    return np.asarray(1e3 * cdist(a, b))


def _or_uniform(estimate: Array) -> Array:
    return estimate if estimate.any() else np.ones_like(estimate)


def local_maxima(values: Array, neighbours: csr_array, n_most: int) -> NDArray[np.int64]:
    """Numbers of the strongest local maxima on the mesh, strongest first, at most ``n_most``.

    A vertex is a maximum if it is positive and no neighbour exceeds it.
    """
    around = neighbours.multiply(values[None, :]).max(axis=1)
    is_maximum = (values > 0) & (values >= np.asarray(around.todense()).ravel())
    candidates = np.flatnonzero(is_maximum)
    return candidates[np.argsort(-values[candidates], kind="stable")][:n_most]


def localization_error(
    estimate: Array, peaks: NDArray[np.int64], positions: Array, neighbours: csr_array
) -> float:
    """Distance from the peaks of the estimate to the true peaks, mm.

    One source: the strongest vertex. K sources: the K strongest local maxima are matched to the K
    true peaks by the Hungarian method; a true peak left without a maximum costs the distance to
    the nearest maximum there is.

    Args:
        estimate: Magnitudes ``(S,)``.
        peaks: True peaks ``(K,)``.
        positions: ``(S, 3)``, m.
        neighbours: Adjacency of the mesh ``(S, S)``.

    """
    estimate = _or_uniform(estimate)
    if len(peaks) == 1:
        found = np.array([estimate.argmax()])
    else:
        found = local_maxima(estimate, neighbours, len(peaks))
    cost = distances_mm(positions[peaks], positions[found])
    rows, columns = linear_sum_assignment(cost)
    left = np.setdiff1d(np.arange(len(peaks)), rows)
    return float((cost[rows, columns].sum() + cost[left].min(axis=1).sum()) / len(peaks))


def nemd(estimate: Array, truth: Array, ground_mm: Array) -> float:
    """Earth mover's distance of the normalized maps over that of the uniform map (no unit).

    Exact optimal transport with the ground distance ``(S, S)``, mm: `distances_mm` of the sources.
    """
    support = np.flatnonzero(truth)
    target = truth[support] / truth[support].sum()
    estimate = _or_uniform(estimate)

    def transport(source: Array) -> float:
        holds = np.flatnonzero(source)
        cost = np.ascontiguousarray(ground_mm[np.ix_(holds, support)])
        return float(ot.emd2(source[holds] / source[holds].sum(), target, cost, numItermax=10**6))

    return transport(estimate) / transport(np.ones_like(estimate))


def spatial_dispersion(estimate: Array, peaks: NDArray[np.int64], positions: Array) -> float:
    """``sqrt(Σ m̂² d² / Σ m̂²)`` with ``d`` the distance to the nearest true peak, mm.

    Squares the map, as `mne.minimum_norm.resolution_metrics` does in ``sd_ext``.
    """
    weight = _or_uniform(estimate) ** 2
    distance = distances_mm(positions, positions[peaks]).min(axis=1)
    return float(np.sqrt((weight * distance**2).sum() / weight.sum()))


def auc(estimate: Array, truth: Array) -> float:
    """Area under the ROC curve of the estimate for "the truth is active here" (0.5: chance)."""
    active = truth > 0
    n_active = int(active.sum())
    ranks = rankdata(estimate)[active].sum()
    return float((ranks - n_active * (n_active + 1) / 2) / (n_active * (len(truth) - n_active)))
