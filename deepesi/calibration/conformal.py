"""Conformal prediction sets of source locations, with a guaranteed probability."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import betaincinv

from deepesi.physics.noise import snr_db_of_power, whitened_power

Array = NDArray[np.float64]

#: Distance over which the power of sources is pooled, m.
REACH = 0.005
#: Target sources that a set must contain.
COVERS = ("all", "strongest")


def reach_kernel(positions: Array, reach: float = REACH) -> Array:
    """``1 / (1 + (d / reach)²)^1.5`` of the distance between every two sources ``(S, S)``.

    The tail is a power law, so that far from all activity nearer sources still rank first.

    Args:
        positions: Source locations ``(S, 3)``, m.
        reach: Width of the kernel, m.

    Raises:
        ValueError: The reach is not positive.

    """
    if not reach > 0:
        raise ValueError(f"reach_kernel: reach must be above 0 (m), got {reach}.")
    kernel: Array = (1 + (cdist(positions, positions) / reach) ** 2) ** -1.5
    return kernel


def source_scores(maps: Array, kernel: Array) -> Array:
    """Share of the evidence on sources at least as likely as each one ``(N, S)``, 0 to 1.

    The evidence of a source is the power of the map around it, weighted by the kernel. So sources
    near a sparse or slightly displaced estimate have evidence, too. Sources of equal evidence get
    the same score, which counts all of them. All get 1 if the map is zero.

    Args:
        maps: Magnitudes ``(N, S)``, any unit.
        kernel: Result of `reach_kernel` ``(S, S)``.

    Source: cumulative mass as in adaptive prediction sets, Romano, Sesia & Candes 2020,
    arXiv:2006.02544. Difference: no randomization of ties, so sets may contain the target more
    often than the level, never less often.

    """
    power = (maps / np.maximum(maps.max(axis=1, keepdims=True), np.finfo(float).tiny)) ** 2
    evidence = power @ kernel
    order = np.argsort(-evidence, axis=1)
    falling = np.take_along_axis(evidence, order, axis=1)
    mass = falling.cumsum(axis=1)
    # From the right: the mass up to the last of all sources tied with this one.
    last = np.ones_like(falling, dtype=bool)
    last[:, :-1] = falling[:, 1:] < falling[:, :-1]
    tied = np.where(last, mass, np.inf)[:, ::-1]
    tied = np.minimum.accumulate(tied, axis=1)[:, ::-1]
    scores = np.empty_like(mass)
    np.put_along_axis(scores, order, tied / np.where(mass[:, -1:] > 0, mass[:, -1:], np.inf), 1)
    return np.where(mass[:, -1:] > 0, scores, 1.0)


def target_scores(
    scores: Array, peaks: NDArray[np.int64], moments: Array, covers: str = "all"
) -> Array:
    """Score of the target of every recording ``(N,)``: least threshold whose set contains it.

    One number per recording, so that recordings are exchangeable for any number of sources.

    Args:
        scores: Result of `source_scores` ``(N, S)``.
        peaks: Target sources ``(N, K)``, -1 where there are fewer.
        moments: Total moments of the targets ``(N, K)``.
        covers: ``"all"``: a set must contain all target sources; ``"strongest"``: the one of the
            largest moment.

    Raises:
        ValueError: Unknown `covers`.

    """
    if covers not in COVERS:
        raise ValueError(f"target_scores: covers must be one of {COVERS}, got {covers!r}.")
    there = peaks >= 0
    at_peaks = np.take_along_axis(scores, np.maximum(peaks, 0), axis=1)
    if covers == "all":
        return np.asarray(np.where(there, at_peaks, -np.inf).max(axis=1))
    strongest = np.where(there, moments, -np.inf).argmax(axis=1)
    return np.asarray(at_peaks[np.arange(len(at_peaks)), strongest])


def min_examples(level: float) -> int:
    """Smallest number of recordings for a threshold of this level."""
    return math.ceil(level / (1 - level) - 1e-9)


def threshold(scores: Array, level: float) -> float:
    """The ``ceil((n + 1) level)``-th smallest score; a new score is below it at least at `level`.

    Source: Vovk, Gammerman & Shafer 2005, doi:10.1007/b106715; Lei et al. 2018,
    doi:10.1080/01621459.2017.1307116.

    Raises:
        ValueError: The level is not between 0 and 1, or too few scores for it.

    """
    if not 0 < level < 1:
        raise ValueError(f"threshold: level must be between 0 and 1, got {level}.")
    if len(scores) < min_examples(level):
        raise ValueError(
            f"threshold: {len(scores)} recordings are too few for a level of {level:g}: it needs "
            f"{min_examples(level)} or more. Take fewer bins, or more validation recordings."
        )
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    return float(np.sort(scores)[rank - 1])


@dataclass(frozen=True)
class PredictionSets:
    """Thresholds of the scores, one per bin of the estimated SNR.

    Attributes:
        level: Nominal probability.
        edges: Edges between the bins ``(B - 1,)``, dB, ascending.
        thresholds: Threshold of every bin ``(B,)``.

    """

    level: float
    edges: Array
    thresholds: Array

    @classmethod
    def fit(
        cls, scores: Array, snr_db: Array, level: float = 0.9, n_bins: int = 4
    ) -> "PredictionSets":
        """Split conformal prediction within bins of equal numbers of validation recordings.

        Guarantee: for recordings exchangeable with these, within every bin, the set contains the
        target with probability `level` or more. Bins are of the SNR estimated from the recording,
        `estimated_snr_db`.

        Args:
            scores: Result of `target_scores`, on recordings outside the training data ``(N,)``.
            snr_db: Estimated SNR of the same ``(N,)``, dB.
            level: Nominal probability, between 0 and 1.
            n_bins: Number of bins, 1 or more.

        Raises:
            ValueError: A bin has too few recordings, or a setting is out of range.

        Source: Mondrian conformal prediction, Vovk et al. 2003; see `threshold`.

        """
        if n_bins < 1:
            raise ValueError(f"PredictionSets: n_bins must be 1 or more, got {n_bins}.")
        edges = np.quantile(snr_db, np.arange(1, n_bins) / n_bins)
        bins = np.searchsorted(edges, snr_db)
        parts = [scores[bins == number] for number in range(n_bins)]
        return cls(level, edges, np.array([threshold(part, level) for part in parts]))

    def of(self, snr_db: Array) -> Array:
        """Threshold of every recording ``(N,)``."""
        return np.asarray(self.thresholds[self.bins(snr_db)])

    def bins(self, snr_db: Array) -> NDArray[np.int64]:
        """Number of the bin of every estimated SNR ``(N,)``."""
        return np.asarray(np.searchsorted(self.edges, snr_db))

    def prediction_sets(self, scores: Array, snr_db: Array) -> NDArray[np.bool_]:
        """Whether a source is in the set of each recording ``(N, S)``.

        Args:
            scores: Result of `source_scores` ``(N, S)``.
            snr_db: Estimated SNR ``(N,)``, dB.

        """
        return np.asarray(scores <= self.of(snr_db)[:, None])


def estimated_snr_db(whitened: Array, rank: int) -> Array:
    """SNR estimated from the power of whitened recordings ``(N, C, T)``: ``(N,)``, dB, least -30.

    Whitened noise has power 1 in the `rank` dimensions that its covariance spans.
    """
    return snr_db_of_power(whitened_power(whitened, rank).mean(axis=1))


class Proportion(NamedTuple):
    """A proportion and its exact confidence interval."""

    value: float
    low: float
    high: float


def proportion(hits: int, n: int, confidence: float = 0.95) -> Proportion:
    """Proportion of hits with the interval of Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404.

    Raises:
        ValueError: No trial, or more hits than trials.

    """
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"proportion: needs 0 <= hits <= n and n >= 1, got {hits} of {n}.")
    tail = (1 - confidence) / 2
    low = betaincinv(hits, n - hits + 1, tail) if hits > 0 else 0.0
    high = betaincinv(hits + 1, n - hits, 1 - tail) if hits < n else 1.0
    return Proportion(hits / n, float(low), float(high))
