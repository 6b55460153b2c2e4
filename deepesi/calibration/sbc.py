"""Simulation-based calibration: ranks of targets, equivalent errors, test of uniformity.

Source: Talts et al. 2018, arXiv:1804.06788 (simulation-based calibration); Modrak et al. 2023,
doi:10.1214/23-BA1404 (test quantities that depend on the data).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chisquare, norm

Array = NDArray[np.float64]

#: Largest number of bins of the ranks, and least expected number of ranks per bin.
MAX_BINS, FEWEST = 20, 5


def ranks(samples: Array, target: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """Number of samples below the target; uniform from 0 to ``N`` for a calibrated posterior.

    Samples equal to the target (zeros of sparse sources) are ordered at random.

    Args:
        samples: Posterior samples ``(N, ...)``.
        target: Target ``(...)``, in the same unit.
        rng: Random generator for ties.

    """
    below, equal = (samples < target).sum(axis=0), (samples == target).sum(axis=0)
    return np.asarray(below + rng.integers(0, equal + 1))


def normal_errors(samples: Array, target: Array) -> Array:
    """Errors ``(...)`` in standard deviations of the normal distribution with the same ranks.

    The target lies in the central interval of a level, between quantiles of the samples, where its
    error is at most the half-width of the normal interval of that level. So measures in standard
    deviations also apply to samples of any distribution. ``N`` samples give no interval above a
    level of ``(N - 1) / (N + 1)``. A tie counts half.

    Args:
        samples: Posterior samples ``(N, ...)``.
        target: Target ``(...)``, in the same unit.

    """
    rank = (samples < target).sum(axis=0) + 0.5 * (samples == target).sum(axis=0)
    return np.asarray(np.abs(norm.ppf((rank + 0.5) / (len(samples) + 1))))


def half_width(samples: Array, level: float) -> Array:
    """Half-width ``(...)`` of the central interval of samples ``(N, ...)`` at a level."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.asarray((high - low) / 2)


def uniformity(ranks: NDArray[np.int64], n_samples: int) -> float:
    """P value of a chi-square test that ranks ``(R,)`` of `n_samples` samples are uniform.

    The ranks must be independent: one of each simulated recording.

    Raises:
        ValueError: Too few ranks for two bins.

    """
    n_bins = min(MAX_BINS, n_samples + 1, len(ranks) // FEWEST)
    if n_bins < 2:
        raise ValueError(
            f"uniformity: {len(ranks)} ranks of {n_samples} samples, expected {2 * FEWEST} ranks "
            "or more. Simulate more recordings."
        )
    parts = np.array_split(np.arange(n_samples + 1), n_bins)
    counts = np.bincount(ranks, minlength=n_samples + 1)
    observed = [counts[part].sum() for part in parts]
    expected = [len(ranks) * len(part) / (n_samples + 1) for part in parts]
    return float(chisquare(observed, expected).pvalue)
