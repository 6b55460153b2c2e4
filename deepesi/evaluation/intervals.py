"""Bootstrap intervals of means, and comparisons of several methods that hold together.

Localization errors are skewed and have many zeros, and examples are few. Percentile intervals of
such means contain the mean in 86 to 92 % of runs instead of 95 %. Studentized intervals have the
nominal coverage (a test measures both). In 2,000 simulated runs with 20 to 100 examples they
contained the mean in 95 to 97 % (normal values), 94 to 97 % (lognormal, or exponential with 70 %
zeros) and 96 to 99 % (two values only), but in 93 to 95 % with the heavy tails of Student's t of 3
degrees of freedom.

``scipy.stats.bootstrap`` has percentile, basic and BCa intervals, none of
them studentized.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

LEVEL = 0.95
N_RESAMPLES = 2000
#: Fewer examples give no interval.
MIN_EXAMPLES = 20
#: Fewer examples that differ between two methods give no interval of their difference: with fewer
#: no test could tell the methods apart once it is corrected for the other comparisons of a table.
MIN_DIFFERENT = 10
#: Least standard error of a resample, over that of the sample: a resample may hold one value only.
MIN_SPREAD = 0.2
#: Columns that are resampled at once, to bound the memory.
BLOCK = 512


class _Studentized(NamedTuple):
    """Resampled means of columns, as distances from the sample's mean in standard errors."""

    mean: Array  # (m,)
    error: Array  # standard error of the mean (m,)
    distance: Array  # (N_RESAMPLES, m)
    usable: NDArray[np.bool_]  # enough examples, not all alike (m,)


@functools.lru_cache(maxsize=4)
def _resamples(n: int, seed: int) -> Array:
    """How often every resample holds every example ``(N_RESAMPLES, n)``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES).astype(np.float64)


def _studentized(values: Array, seed: int) -> _Studentized:
    """Resample the examples of all columns ``(n, m)`` at once; NaN is no example."""
    known = np.isfinite(values)
    n_known = known.sum(axis=0)
    usable = n_known >= MIN_EXAMPLES
    mean = np.where(known, values, 0.0).sum(axis=0) / np.maximum(n_known, 1)
    centred = np.where(known, values - mean, 0.0)
    error = np.sqrt((centred**2).sum(axis=0) / (n_known - 1.0).clip(1) / n_known.clip(1))
    usable &= error > 1e-12 * np.abs(mean)
    counts = _resamples(len(values), seed)
    drawn = np.maximum(counts @ known, 2.0)
    moved = counts @ centred / drawn
    variance = (counts @ centred**2 / drawn - moved**2) / (drawn - 1)
    spread = np.sqrt(np.maximum(variance, (MIN_SPREAD * error) ** 2))
    distance = np.divide(moved, spread, out=np.zeros_like(moved), where=usable & (spread > 0))
    return _Studentized(mean, error, distance, usable)


def bootstrap_interval(values: Array, seed: int = 0) -> Array:
    """95 % interval of the mean: studentized bootstrap with equal, expanded tails.

    Args:
        values: ``(n,)``, or several columns of the same examples ``(n, m)``; NaN is no example.
        seed: Seed of the resampling.

    Returns:
        Low and high end ``(2,)`` or ``(2, m)``; NaN with fewer than `MIN_EXAMPLES` examples, or if
        all are alike.

    Source: Efron & Tibshirani 1993, doi:10.1201/9780429246593, section 12.5, with the expanded
    tails of Hesterberg 2015, doi:10.1080/00031305.2015.1089789, against the narrowness that is left
    with few skewed examples. Difference: standard errors of resamples are at least `MIN_SPREAD`
    of the sample's, so that resamples that hold one value only do not make the interval infinite.

    """
    columns = values[:, None] if values.ndim == 1 else values
    mean, error, distance, usable = _studentized(columns, seed)
    tail = _tail(np.isfinite(columns).sum(axis=0))
    first = (tail * (N_RESAMPLES - 1)).round().astype(int)
    ranks = np.stack([N_RESAMPLES - 1 - first, first])
    ends = mean - np.take_along_axis(np.sort(distance, axis=0), ranks, axis=0) * error
    ends = np.where(usable, ends, np.nan)
    return ends[:, 0] if values.ndim == 1 else ends


def _tail(n: NDArray[np.int64]) -> Array:
    """Share of the resamples on either side: for few examples less than half of ``1 - LEVEL``."""
    n = np.maximum(n, MIN_EXAMPLES)
    return np.asarray(stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf((1 - LEVEL) / 2, n - 1)))


def interval_text(
    value: float, low: float | None, high: float | None, decimals: int, sign: str = ""
) -> str:
    """``mean [low, high]``, or ``mean [-]`` where there is no interval; `sign` as in formats."""
    form = f"{sign}.{decimals}f"
    ends = "-" if low is None or high is None else f"{low:{form}}, {high:{form}}"
    return f"{value:{form}} [{ends}]"


def simultaneous_intervals(values: Array, seed: int = 0) -> Array:
    """Intervals of the means of paired differences that all hold together with 95 %.

    The largest distance over all columns, in standard errors, is resampled: its 95 % quantile is
    the half width of every interval. So the chance that any of them misses its mean is 5 %,
    whatever the columns have to do with each other.

    Args:
        values: Differences ``(n, m)`` of the same examples; NaN is no example.
        seed: Seed of the resampling.

    Returns:
        Low and high ends ``(2, m)``; NaN with fewer than `MIN_EXAMPLES` examples, or fewer than
        `MIN_DIFFERENT` that are not 0. Such a column is not in the family.

    Source: Westfall & Young 1993, ISBN 0-471-55761-7 (the single-step maximum); symmetric
    studentized intervals: Hall 1988, doi:10.1111/j.2517-6161.1988.tb01706.x.

    """
    values = values.astype(np.float64)
    n_different = (np.isfinite(values) & (values != 0)).sum(axis=0)
    largest = np.zeros(N_RESAMPLES)
    means, half = np.zeros(values.shape[1]), np.full(values.shape[1], np.nan)
    for first in range(0, values.shape[1], BLOCK):
        here = slice(first, first + BLOCK)
        mean, error, distance, usable = _studentized(values[:, here], seed)
        usable &= n_different[here] >= MIN_DIFFERENT
        if usable.any():
            largest = np.maximum(largest, np.abs(distance[:, usable]).max(axis=1))
        means[here], half[here] = mean, np.where(usable, error, np.nan)
    half *= np.quantile(largest, LEVEL)
    return np.stack([means - half, means + half])


def differences(values: Array, reference: int) -> Array:
    """Ends ``(2, M, K)`` of the paired differences of every method to one of them.

    They hold together, over all methods and columns. NaN where there is none, as of the reference.

    Args:
        values: ``(M, n, K)`` of methods, examples and columns (metrics at test sets).
        reference: Number of the method.

    """
    paired = (values - values[reference]).swapaxes(0, 1)
    ends = simultaneous_intervals(paired.reshape(len(paired), -1))
    return ends.reshape(2, len(values), -1)


def beats_all_others(values: Array, higher_is_better: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which method is better than each of the others ``(M, K)``, if one is.

    The differences of all pairs hold together, over all columns, with 95 %: where methods are
    alike, the chance that any is marked anywhere is at most 5 %. An interval that touches 0 tells
    no difference.

    Args:
        values: ``(M, n, K)`` of methods, examples and columns (metrics at test sets).
        higher_is_better: Direction of the columns ``(K,)``.

    """
    n_methods, _, n_columns = values.shape
    beaten = np.zeros((n_methods, n_columns), dtype=int)
    if n_methods > 1:
        first, second = np.triu_indices(n_methods, 1)
        better = np.where(higher_is_better, 1.0, -1.0) * (values[first] - values[second])
        pairs = better.swapaxes(0, 1)
        low, high = simultaneous_intervals(pairs.reshape(len(pairs), -1)).reshape(
            2, len(first), n_columns
        )
        np.add.at(beaten, first, low > 0)
        np.add.at(beaten, second, high < 0)
    return (beaten == n_methods - 1) & (n_methods > 1)
