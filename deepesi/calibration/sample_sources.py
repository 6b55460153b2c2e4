"""Sources of posterior samples: probabilities of their number, and of a source near a location.

Samples of few sources are zero elsewhere; their sources are the local maxima. Samples of a model
without sources, such as minimum norm, have activity everywhere; only their strongest source counts.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist

from deepesi.calibration.conformal import min_examples, reach_kernel, threshold

Array = NDArray[np.float64]
Peaks = NDArray[np.bool_]

#: Distance within which a source counts as near, m.
NEAR = 0.010
#: Parts of the samples, for cross-validation of the size of the joint set.
N_FOLDS = 4
#: Smallest share of the largest magnitude of a sample at which a maximum is a source.
MIN_SHARE = 0.02
#: Share of zeros from which samples are those of few sources.
SPARSE = 0.5


def are_sparse(magnitudes: Array) -> bool:
    """Whether samples ``(N, S)`` are zero at most sources."""
    return bool((magnitudes == 0).mean() > SPARSE)


def source_peaks(magnitudes: Array, edges: NDArray[np.int64]) -> Peaks:
    """Which sources are centres of activity in each sample ``(N, S)``.

    A source is larger than its neighbours on the mesh; of equal neighbours the first counts.
    Patches that overlap may be counted wrongly, mostly as one.

    Args:
        magnitudes: Magnitudes of the samples ``(N, S)``, not negative, any unit.
        edges: Edges of the source mesh ``(E, 2)``, each once.

    """
    largest = magnitudes.max(axis=1, keepdims=True)
    if not are_sparse(magnitudes):
        first = magnitudes.argmax(axis=1)[:, None] == np.arange(magnitudes.shape[1])
        return np.asarray(first & (largest > 0))
    low, high = np.sort(edges, axis=1).T
    first_wins = magnitudes[:, low] >= magnitudes[:, high]
    beaten = np.zeros(magnitudes.T.shape, dtype=bool)
    for losers, lost in ((high, first_wins), (low, ~first_wins)):
        counts = _by_vertex(losers, len(beaten)) @ lost.T.astype(np.float64)
        beaten |= counts > 0
    return np.asarray(~beaten.T & (magnitudes > MIN_SHARE * largest))


def _by_vertex(vertices: NDArray[np.int64], n_vertices: int) -> csr_array:
    """Matrix that adds values of edges at one of their ends ``(S, E)``, sparse."""
    rows = (np.ones(len(vertices)), (vertices, np.arange(len(vertices))))
    return csr_array(rows, shape=(n_vertices, len(vertices)))


def probability_near(peaks: Peaks, positions: Array, reach: float = NEAR) -> Array:
    """Share of the samples with a source within a distance of each source location ``(S,)``.

    Args:
        peaks: Result of `source_peaks` ``(N, S)``.
        positions: Source locations ``(S, 3)``, m.
        reach: The distance, m.

    """
    near = (cdist(positions, positions) <= reach).astype(np.float64)
    return np.asarray((peaks.astype(np.float64) @ near > 0).mean(axis=0))


def number_probabilities(peaks: Peaks) -> Array:
    """Share of the samples with 0, 1, 2, ... sources."""
    counts = np.bincount(peaks.sum(axis=1))
    return np.asarray(counts / len(peaks))


def joint_set(peaks: Peaks, kernel: Array, level: float = 0.9) -> Peaks:
    """Source locations that hold *all* sources of a configuration with a probability ``(S,)``.

    A set of highest density for the whole configuration. For each quarter of the samples, the
    others give the density of locations, and the quarter gives the number of locations that the set
    needs. All samples together rank the locations. So one more sample of the same posterior has all
    of its sources inside with about this probability. If the posterior is calibrated, this is also
    true of the target. If there are few samples, the set holds all locations.

    Args:
        peaks: Result of `source_peaks` ``(N, S)``.
        kernel: Result of `deepesi.calibration.conformal.reach_kernel`: locations near a source are
            likely, too.
        level: Probability, between 0 and 1.

    Raises:
        ValueError: The level is out of range.

    Source: cross-conformal prediction, Vovk 2015, doi:10.1007/s10472-013-9368-4, with
    `deepesi.calibration.conformal.threshold`.

    """
    if not 0 < level < 1:
        raise ValueError(f"joint_set: level must be between 0 and 1, got {level}.")
    if len(peaks) < min_examples(level):
        return np.ones(peaks.shape[1], dtype=bool)
    fold, least = np.arange(len(peaks)) % N_FOLDS, np.empty(len(peaks))
    for number in range(N_FOLDS):
        own, density = peaks[fold == number], _density(peaks[fold != number], kernel)
        least[fold == number] = np.where(own, density, np.inf).min(axis=1)
    return np.asarray(_density(peaks, kernel) >= -threshold(-least, level))


def _density(peaks: Peaks, kernel: Array) -> Array:
    return np.asarray(peaks.astype(np.float64).mean(axis=0) @ kernel)


class SampleSources(NamedTuple):
    """Sources of the samples of one recording."""

    peaks: Peaks  # centres of activity in each sample (N, S)
    probability: Array  # that a source is within NEAR of here (S,)
    count_probabilities: Array | None  # of 0, 1, 2, ... sources; None: they cannot be counted
    joint_set: Peaks  # the joint set (S,)
    level: float  # of the set


def sources_of(
    magnitudes: Array, positions: Array, edges: NDArray[np.int64], level: float = 0.9
) -> SampleSources:
    """Sources of samples: args as in `source_peaks`, `probability_near` and `joint_set`."""
    peaks = source_peaks(magnitudes, edges)
    probability = probability_near(peaks, positions)
    counts = number_probabilities(peaks) if are_sparse(magnitudes) else None
    return SampleSources(
        peaks, probability, counts, joint_set(peaks, reach_kernel(positions, NEAR), level), level
    )
