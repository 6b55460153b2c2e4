"""Conformal region sets: where on the cortex the source is, with a probability that is kept."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import betaincinv

from deepesi.physics.noise import snr_db_of_power, whitened_power

Array = NDArray[np.float64]

#: Distance at which a place no longer speaks for another, m.
REACH = 0.005
#: Which true places a set must hold to count as right.
COVERS = ("all", "strongest")


def reach_kernel(positions: Array, reach: float = REACH) -> Array:
    """``1 / (1 + (d / reach)²)^1.5`` of the distance between every two sources ``(S, S)``.

    Its tail is that of a power law: far from all activity, nearer places still come first.

    Args:
        positions: ``(S, 3)``, m.
        reach: m.

    Raises:
        ValueError: The reach is not positive.

    """
    if not reach > 0:
        raise ValueError(f"reach_kernel: reach must be above 0 (m), got {reach}.")
    kernel: Array = (1 + (cdist(positions, positions) / reach) ** 2) ** -1.5
    return kernel


def source_scores(maps: Array, kernel: Array) -> Array:
    """How much evidence lies on places at least as likely as each one ``(N, S)``, from 0 to 1.

    The evidence of a place is the power of the map around it, weighted by the kernel: an estimate
    of a few points, or one that is a little off, also speaks for what is near. Places of equal
    evidence get the same score, which counts all of them. All get 1 if the map is zero.

    Args:
        maps: Magnitudes ``(N, S)``, any unit.
        kernel: Of `reach_kernel`, ``(S, S)``.

    Source: cumulative mass as in adaptive prediction sets, Romano, Sesia & Candes 2020,
    arXiv:2006.02544. Ours deviates: no randomization of ties, so sets may hold more than asked
    for, never less.

    """
    power = (maps / np.maximum(maps.max(axis=1, keepdims=True), np.finfo(float).tiny)) ** 2
    evidence = power @ kernel
    order = np.argsort(-evidence, axis=1)
    falling = np.take_along_axis(evidence, order, axis=1)
    mass = falling.cumsum(axis=1)
    # From the right: the mass up to the last of all places that are tied with this one.
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
    """Score of the target of every recording ``(N,)``: the set holds it from that threshold on.

    One number per recording, so that recordings are exchangeable whatever the number of sources.

    Args:
        scores: Of `source_scores`, ``(N, S)``.
        peaks: True places ``(N, K)``, -1 where there are fewer.
        moments: Their total moments ``(N, K)``.
        covers: ``"all"``: a set is right if it holds every true place; ``"strongest"``: that of the
            largest moment.

    Raises:
        ValueError: Unknown `covers`.

    """
    if covers not in COVERS:
        raise ValueError(f"target_scores: covers must be one of {COVERS}, got {covers!r}.")
    there = peaks >= 0
    at_peaks = np.take_along_axis(scores, np.maximum(peaks, 0), axis=1)
    if covers == "all":
        return np.where(there, at_peaks, -np.inf).max(axis=1)
    strongest = np.where(there, moments, -np.inf).argmax(axis=1)
    return at_peaks[np.arange(len(at_peaks)), strongest]


def fewest(level: float) -> int:
    """Fewest recordings from which a threshold of this level follows."""
    return math.ceil(level / (1 - level) - 1e-9)


def threshold(scores: Array, level: float) -> float:
    """The ``ceil((n + 1) level)``-th smallest score: a new one is not above it so often, or more.

    Source: Vovk, Gammerman & Shafer 2005, doi:10.1007/b106715; Lei et al. 2018,
    doi:10.1080/01621459.2017.1307116.

    Raises:
        ValueError: The level is not between 0 and 1, or too few scores for it.

    """
    if not 0 < level < 1:
        raise ValueError(f"threshold: level must be between 0 and 1, got {level}.")
    if len(scores) < fewest(level):
        raise ValueError(
            f"threshold: {len(scores)} recordings are too few for a level of {level:g}: it needs "
            f"{fewest(level)} or more. Take fewer bins, or more validation recordings."
        )
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    return float(np.sort(scores)[rank - 1])


@dataclass(frozen=True)
class PredictionSets:
    """Thresholds of the scores, one per bin of the estimated SNR.

    Attributes:
        level: Probability asked for.
        edges: Between the bins ``(B - 1,)``, dB, rising.
        thresholds: ``(B,)``.

    """

    level: float
    edges: Array
    thresholds: Array

    @classmethod
    def fit(
        cls, scores: Array, snr_db: Array, level: float = 0.9, n_bins: int = 4
    ) -> "PredictionSets":
        """Split conformal within bins that hold equally many of the validation recordings.

        What is kept: of recordings exchangeable with these, within every bin, at least `level`
        have their target in the set. The bins are of the SNR that an analyst can read off, see
        `estimated_snr_db`.

        Args:
            scores: Of `target_scores`, on recordings that no network was trained on, ``(N,)``.
            snr_db: Estimated SNR of the same ``(N,)``, dB.
            level: Between 0 and 1.
            n_bins: 1 or more.

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
        return np.asarray(self.thresholds[np.searchsorted(self.edges, snr_db)])

    def prediction_sets(self, scores: Array, snr_db: Array) -> NDArray[np.bool_]:
        """Which places ``(N, S)`` the sets of these recordings hold.

        Args:
            scores: Of `source_scores`, ``(N, S)``.
            snr_db: Estimated SNR ``(N,)``, dB.

        """
        return np.asarray(scores <= self.of(snr_db)[:, None])


def estimated_snr_db(whitened: Array, rank: int) -> Array:
    """SNR read off the power of whitened recordings ``(N, C, T)``, ``(N,)``, dB; -30 at least.

    Whitened noise has power 1 in as many directions as its covariance spans, its `rank`.
    """
    return snr_db_of_power(whitened_power(whitened, rank).mean(axis=1))


class Proportion(NamedTuple):
    """A share and its exact interval."""

    value: float
    low: float
    high: float


def proportion(hits: int, n: int, confidence: float = 0.95) -> Proportion:
    """Share of hits with the interval of Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404.

    Raises:
        ValueError: No trial, or more hits than trials.

    """
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"proportion: needs 0 <= hits <= n and n >= 1, got {hits} of {n}.")
    tail = (1 - confidence) / 2
    low = betaincinv(hits, n - hits + 1, tail) if hits > 0 else 0.0
    high = betaincinv(hits + 1, n - hits, 1 - tail) if hits < n else 1.0
    return Proportion(hits / n, float(low), float(high))
