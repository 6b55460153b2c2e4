"""Recalibration: intervals as wide as the errors on validation recordings say they must be."""

import numpy as np
from scipy.stats import norm

from deepesi.calibration.intervals import Array, Intervals, StandardizedErrors


def fit_temperature(error: Array, levels: Array, by: str = "coverage") -> float:
    """One factor on all standard deviations.

    Args:
        error: ``|estimate - target| / std`` ``(N,)``.
        levels: Nominal levels ``(L,)``.
        by: ``"likelihood"``: the largest likelihood of normal errors, their RMS, which a few large
            errors decide; ``"coverage"``: the least mean absolute deviation of coverage.

    Raises:
        ValueError: Unknown `by`, or no finite error to learn from.

    Source: Guo et al. 2017, arXiv:1706.04599, for classification; Levi et al. 2022,
    doi:10.3390/s22155540, for regression.

    """
    _check(error)
    if by == "likelihood":
        return float(np.sqrt((error[np.isfinite(error)] ** 2).mean()))
    if by != "coverage":
        raise ValueError(f"fit_temperature: by must be 'likelihood' or 'coverage', got {by!r}.")
    # The best factor puts one level's quantile where it belongs, or lies between such factors.
    exact = np.quantile(error, levels, method="higher") / norm.ppf((1 + levels) / 2)
    exact = exact[np.isfinite(exact) & (exact > 0)]
    if not len(exact):
        return 1.0
    candidates = np.geomspace(exact.min(), exact.max(), 200)
    ranked = np.sort(error)
    widths = candidates[:, None] * norm.ppf((1 + levels) / 2)
    covered = np.searchsorted(ranked, widths, side="right") / len(ranked)
    return float(candidates[np.abs(covered - levels).mean(axis=1).argmin()])


def fit_isotonic(error: Array, levels: Array) -> Intervals:
    """The half-width that holds a share of the errors, for every level.

    Coverage of nested intervals cannot fall with the level, so the isotonic regression of the
    observed points is the empirical quantile function. It is kept in deviations instead of nominal
    levels, which have no digits left where intervals were far too narrow.

    Raises:
        ValueError: No finite error to learn from.

    Source: Kuleshov et al. 2018, arXiv:1807.00263.

    """
    _check(error)
    quantiles = np.quantile(error, levels, method="higher")
    largest = error[np.isfinite(error)].max()
    return Intervals(levels, np.array([]), np.minimum(quantiles, largest)[None])


def fit_balanced(observed: StandardizedErrors, levels: Array) -> Intervals:
    """Half-widths with which active, neighbouring and inactive sources are each covered as asked.

    An analyst does not know which sources are active, but sees ``|mean| / std``. It is cut into
    three bins; the first has the half-width with which, given the others, the inactive are covered
    at the level, the second that of the neighbouring, the last that of the active.

    Raises:
        ValueError: A group is missing, or nothing finite to learn from.

    Source: ours; isotonic recalibration (Kuleshov et al. 2018) with one map per bin.

    """
    _check(observed.error)
    signals = [observed.signal[observed.group == group] for group in (2, 1, 0)]
    if not all(map(len, signals)):
        raise ValueError(
            "fit_balanced: needs active, neighbouring and inactive sources to learn from, got "
            f"{[len(signal) for signal in signals][::-1]} dipoles of each."
        )
    fits = []
    for upper in (
        np.quantile(signals[2], 0.05, method="lower"),
        _separation(signals[1], signals[2]),
    ):
        edges = np.array([min(_separation(signals[0], signals[1]), upper), upper])
        fits.append(_solve(observed, edges, levels))

    def worst(intervals: Intervals) -> float:
        parts = [
            StandardizedErrors(*(a[observed.group == group] for a in observed))
            for group in range(3)
        ]
        return max(float(np.abs(intervals.coverage(p) - levels).mean()) for p in parts)

    return min(fits, key=worst)


def _separation(low: Array, high: Array) -> float:
    """Where to cut so that most of one sample are below and most of the other above."""
    cuts = np.quantile(high, np.linspace(0.01, 0.9, 60), method="lower")
    below = np.searchsorted(np.sort(low), cuts, side="right") / len(low)
    missed = np.searchsorted(np.sort(high), cuts, side="right") / len(high)
    return float(cuts[(below - missed).argmax()])


def _solve(
    observed: StandardizedErrors, edges: Array, levels: Array, n_rounds: int = 60
) -> Intervals:
    """Alternate over the bins until each meets its group, or cannot."""
    bins = np.searchsorted(edges, observed.signal)
    # Errors of group (2 - b), which bin b is to satisfy, within every bin.
    errors = [
        [np.sort(observed.error[(observed.group == 2 - b) & (bins == other)]) for other in range(3)]
        for b in range(3)
    ]
    half_widths = np.zeros((3, len(levels)))
    for column, level in enumerate(levels):
        widths = half_widths[:, column]
        for _ in range(n_rounds):
            for b in (2, 1, 0):
                elsewhere = sum(
                    np.searchsorted(errors[b][other], widths[other], side="right")
                    for other in range(3)
                    if other != b
                )
                needed = level * sum(map(len, errors[b])) - elsewhere
                widths[b] = _rank(errors[b][b], needed)
    return Intervals(levels, edges, np.maximum.accumulate(half_widths, axis=1))


def _rank(ranked: Array, needed: float) -> float:
    """The width that holds so many of the finite errors, or all of them."""
    finite = int(np.searchsorted(ranked, np.inf))
    if needed <= 0 or finite == 0:
        return 0.0
    return float(ranked[min(int(np.ceil(needed)), finite) - 1])


def _check(error: Array) -> None:
    if not np.isfinite(error).any():
        raise ValueError(
            f"recalibration: no finite error among {len(error)} dipoles, nothing to learn from."
        )
