"""Metrics of where one estimate lies, as pure functions of magnitudes per source location.

``estimate`` and ``target`` are magnitudes ``(S,)`` (norm over orientation, RMS over time, any
common unit, not negative), ``positions`` the sources ``(S, 3)`` in m, ``peaks`` the numbers of the
true peaks ``(K,)``. Distances come back in mm. An estimate that is zero everywhere says nothing
about the source; it is scored as the uniform map.
"""

from typing import NamedTuple

import numpy as np
import ot
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from deepesi.physics.graph import distances_mm

Array = NDArray[np.float64]


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
    true peaks by the Hungarian method; a true peak without a maximum costs the distance to the
    nearest maximum.

    Args:
        estimate: Magnitudes ``(S,)``.
        peaks: True peaks ``(K,)``.
        positions: ``(S, 3)``, m.
        neighbours: Adjacency of the mesh ``(S, S)``.

    """
    estimate = _or_uniform(estimate)
    if len(peaks) == 1:
        maxima = np.array([estimate.argmax()])
    else:
        maxima = local_maxima(estimate, neighbours, len(peaks))
    cost = distances_mm(positions[peaks], positions[maxima])
    rows, columns = linear_sum_assignment(cost)
    unmatched = np.setdiff1d(np.arange(len(peaks)), rows)
    return float((cost[rows, columns].sum() + cost[unmatched].min(axis=1).sum()) / len(peaks))


def nemd(
    estimate: Array, target: Array, ground_mm: Array, of_uniform: float | None = None
) -> float:
    """Earth mover's distance of the normalized maps over that of the uniform map (no unit).

    Exact optimal transport with the ground distance ``(S, S)``, mm: `distances_mm` of the sources.
    `of_uniform` is `transport` of the uniform map, mm, where it is known already.
    """
    if of_uniform is None:
        of_uniform = transport(np.ones_like(target), target, ground_mm)
    return transport(_or_uniform(estimate), target, ground_mm) / of_uniform


def transport(estimate: Array, target: Array, ground_mm: Array) -> float:
    """Earth mover's distance of two normalized maps, mm."""
    origin, support = np.flatnonzero(estimate), np.flatnonzero(target)
    cost = np.ascontiguousarray(ground_mm[np.ix_(origin, support)])
    weights = (v[at] / v[at].sum() for v, at in ((estimate, origin), (target, support)))
    return float(ot.emd2(*weights, cost, numItermax=10**6, center_dual=False))


def spatial_dispersion(estimate: Array, peaks: NDArray[np.int64], positions: Array) -> float:
    """``sqrt(Σ m̂² d² / Σ m̂²)`` with ``d`` the distance to the nearest true peak, mm.

    Squares the map, as `mne.minimum_norm.resolution_metrics` does in ``sd_ext``.
    """
    weight = _or_uniform(estimate) ** 2
    distance = distances_mm(positions, positions[peaks]).min(axis=1)
    return float(np.sqrt((weight * distance**2).sum() / weight.sum()))


def half_maximum_area(values: Array) -> NDArray[np.int64]:
    """Numbers of the sources that reach half the maximum of a map."""
    return np.flatnonzero(values >= 0.5 * values.max())


def half_maximum_area_distance(estimate: Array, target: Array, ground_mm: Array) -> float:
    """Distance between the half-maximum areas of estimate and target, mm.

    Half the sum of two means: from every true source to the nearest estimated one, and back. As
    `mne.simulation.metrics.region_localization_error` with a threshold of 50 %; its default keeps
    only what exceeds 90 % of the maximum, which is little more than the peak.
    """
    areas = half_maximum_area(target), half_maximum_area(_or_uniform(estimate))
    between = ground_mm[np.ix_(*areas)]
    return float(between.min(axis=1).mean() + between.min(axis=0).mean()) / 2


def full_width_at_half_maximum(estimate: Array, areas: Array, neighbours: csr_array) -> float:
    """Diameter of the disc that is as large as the half-maximum area around the peak, mm.

    ``2 sqrt(A / π)`` with ``A`` the cortical area of the connected component of the mesh that holds
    the strongest vertex. For a point-spread function this is its width along the cortex. No
    definition is canonical; ours ignores a second peak far away and follows folds.

    Args:
        estimate: Magnitudes ``(S,)``.
        areas: Areas of the vertices ``(S,)``, m²: `deepesi.physics.graph.vertex_areas`.
        neighbours: Adjacency of the mesh ``(S, S)``.

    """
    estimate = _or_uniform(estimate)
    above = half_maximum_area(estimate)
    _, label = connected_components(neighbours[above][:, above], directed=False)
    around_peak = above[label == label[estimate[above].argmax()]]
    return float(2e3 * np.sqrt(areas[around_peak].sum() / np.pi))


def auc(estimate: Array, target: Array) -> float:
    """Area under the ROC curve of the estimate for "the target is active here" (0.5: chance)."""
    return _auc(estimate, target > 0, target == 0)


def _auc(estimate: Array, positive: NDArray[np.bool_], negative: NDArray[np.bool_]) -> float:
    n_positive, n_negative = int(positive.sum()), int(negative.sum())
    if not n_positive or not n_negative:
        return 0.5
    others = np.sort(estimate[negative])
    below, up_to = (np.searchsorted(others, estimate[positive], side) for side in ("left", "right"))
    return float((below + up_to).sum() / (2 * n_positive * n_negative))


#: Inactive sources at most so far from an active one are close, mm.
CLOSE_MM = 30.0


def balanced_auc(estimate: Array, target: Array, ground_mm: Array) -> float:
    """Mean of two areas under the ROC curve: against close and against far inactive sources.

    Most of the cortex is far from the source, so a blurred map hardly changes the plain area. The
    close sources lie within 30 mm of the active ones; the far ones are the strongest of those
    further away, in equal number.

    Source: Grova et al. 2006, doi:10.1016/j.neuroimage.2005.08.053, who draws both at random, the
    far ones around spurious maxima; ours takes all the close and the strongest far ones.
    """
    active = target > 0
    to_active = ground_mm[:, active].min(axis=1)
    close = ~active & (to_active <= CLOSE_MM)
    further = np.flatnonzero(to_active > CLOSE_MM)
    far = np.zeros_like(active)
    far[further[np.argsort(-estimate[further], kind="stable")][: close.sum()]] = True
    return (_auc(estimate, active, close) + _auc(estimate, active, far)) / 2


def otsu_threshold(values: Array) -> float:
    """The value from which on a map counts as active: two classes, farthest apart for their size.

    Exact over all splits of the sorted values, where an image histogram has bins.

    Source: Otsu 1979, doi:10.1109/TSMC.1979.4310076.
    """
    ordered = np.sort(values)[::-1]
    above = np.cumsum(ordered)[:-1]
    counts = np.arange(1, len(values))
    rest = len(values) - counts
    between = counts * rest * (above / counts - (ordered.sum() - above) / rest) ** 2
    return float(ordered[between.argmax()])


class Detection(NamedTuple):
    """How well the sources called active agree with those that are (no unit)."""

    precision: float
    recall: float
    f1: float


def detection(estimate: Array, target: Array) -> Detection:
    """Precision, recall and their harmonic mean, a source being called active by Otsu's threshold.

    An estimate without contrast calls every source active.
    """
    called, active = estimate >= otsu_threshold(estimate), target > 0
    hits = float((called & active).sum())
    precision, recall = hits / called.sum(), hits / active.sum()
    return Detection(precision, recall, 2 * hits / (called.sum() + active.sum()))
