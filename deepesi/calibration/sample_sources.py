"""What samples of a posterior say about sources: how many, and how likely there is one near here.

Samples of few sources are zero elsewhere; their sources are the local maxima. Samples of a model
without sources, such as minimum norm, are nowhere zero; only their strongest source counts.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]
Peaks = NDArray[np.bool_]

#: Distance within which a source counts as near, m.
NEAR = 0.010
#: Smallest share of the largest magnitude of a sample at which a maximum is a source.
LEAST_SHARE = 0.02
#: Share of zeros from which samples are those of few sources.
SPARSE = 0.5


def are_sparse(magnitudes: Array) -> bool:
    """Whether samples ``(N, S)`` are zero at most sources."""
    return bool((magnitudes == 0).mean() > SPARSE)


def source_peaks(magnitudes: Array, edges: NDArray[np.int64]) -> Peaks:
    """Which sources are centres of activity in each sample ``(N, S)``.

    A source is larger than its neighbours on the mesh; of equal neighbours the first counts. Two
    patches that overlap may have one maximum, so the number of sources is a lower bound.

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
    return np.asarray(~beaten.T & (magnitudes > LEAST_SHARE * largest))


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


def joint_set(peaks: Peaks, probability: Array, level: float = 0.9) -> Peaks:
    """The source locations that hold *all* sources of a share `level` of the samples ``(S,)``.

    Locations in the order of their probability, as many as needed: a set of highest density for
    the whole configuration. It contains all true sources with this probability if the samples are
    calibrated.

    Args:
        peaks: Result of `source_peaks` ``(N, S)``.
        probability: Result of `probability_near` ``(S,)``.
        level: Probability, above 0, at most 1.

    Raises:
        ValueError: The level is out of range.

    """
    if not 0 < level <= 1:
        raise ValueError(f"joint_set: level must be above 0 and at most 1, got {level}.")
    least = np.where(peaks, probability, np.inf).min(axis=1)
    needed = int(np.ceil(level * len(peaks) - 1e-9))
    return np.asarray(probability >= np.sort(least)[::-1][needed - 1])


class SampleSources(NamedTuple):
    """Sources of the samples of one recording."""

    peaks: Peaks  # centres of activity in each sample (N, S)
    probability: Array  # that a source is within NEAR of here (S,)
    numbers: Array | None  # probability of 0, 1, 2, ... sources; None: samples without sources
    inside: Peaks  # the joint set (S,)
    level: float  # of the set


def sources_of(
    magnitudes: Array, positions: Array, edges: NDArray[np.int64], level: float = 0.9
) -> SampleSources:
    """Sources of samples: args as in `source_peaks`, `probability_near` and `joint_set`."""
    peaks = source_peaks(magnitudes, edges)
    probability = probability_near(peaks, positions)
    numbers = number_probabilities(peaks) if are_sparse(magnitudes) else None
    return SampleSources(peaks, probability, numbers, joint_set(peaks, probability, level), level)
