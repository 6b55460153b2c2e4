"""Recalibration: fits the width of intervals to the errors on validation recordings."""

import numpy as np
from scipy.stats import norm

from deepesi.calibration.intervals import Array, Intervals, StandardizedErrors


def fit_temperature(error: Array, levels: Array, by: str = "coverage") -> float:
    """One factor on all standard deviations.

    Args:
        error: ``|estimate - target| / std`` ``(N,)``.
        levels: Nominal levels ``(L,)``.
        by: ``"likelihood"``: largest likelihood of normal errors (their RMS, sensitive to
            outliers); ``"coverage"``: least mean absolute deviation of coverage.

    Raises:
        ValueError: Unknown `by`, or no finite error.

    Source: Guo et al. 2017, arXiv:1706.04599, for classification; Levi et al. 2022,
    doi:10.3390/s22155540, for regression.

    """
    _check(error)
    if by == "likelihood":
        return float(np.sqrt((error[np.isfinite(error)] ** 2).mean()))
    if by != "coverage":
        raise ValueError(f"fit_temperature: by must be 'likelihood' or 'coverage', got {by!r}.")
    # The best factor makes the quantile of one level exact, or lies between such factors.
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
    """The half-width that contains a share of the errors, for every level.

    Coverage of nested intervals cannot fall with the level, so the isotonic regression of the
    observed points is the empirical quantile function. It is stored in standard deviations instead
    of nominal levels, which lose precision where intervals are far too narrow.

    Raises:
        ValueError: No finite error.

    Source: Kuleshov et al. 2018, arXiv:1807.00263.

    """
    _check(error)
    quantiles = np.quantile(error, levels, method="higher")
    largest = error[np.isfinite(error)].max()
    return Intervals(levels, np.array([]), np.minimum(quantiles, largest)[None])


def fit_balanced(observed: StandardizedErrors, levels: Array) -> Intervals:
    """Half-widths with nominal coverage of active, neighbouring and inactive sources each.

    An analyst does not know which sources are active, but knows ``|mean| / std``, which is divided
    into three bins. Given the other bins, the half-width of the first is fitted to the inactive
    sources, that of the second to the neighbouring, that of the last to the active ones.

    Raises:
        ValueError: A group is missing, or there is no finite error.

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
    """Threshold with most of one sample below and most of the other above."""
    cuts = np.quantile(high, np.linspace(0.01, 0.9, 60), method="lower")
    below = np.searchsorted(np.sort(low), cuts, side="right") / len(low)
    missed = np.searchsorted(np.sort(high), cuts, side="right") / len(high)
    return float(cuts[(below - missed).argmax()])


def _solve(
    observed: StandardizedErrors, edges: Array, levels: Array, n_rounds: int = 60
) -> Intervals:
    """Alternate over the bins until the coverage of each group is nominal or does not improve."""
    bins = np.searchsorted(edges, observed.signal)
    # Errors of group (2 - b), to which bin b is fitted, within every bin.
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
    """The width that contains this number of the finite errors, or all of them."""
    finite = int(np.searchsorted(ranked, np.inf))
    if needed <= 0 or finite == 0:
        return 0.0
    return float(ranked[min(int(np.ceil(needed)), finite) - 1])


def _check(error: Array) -> None:
    if not np.isfinite(error).any():
        raise ValueError(
            f"recalibration: no finite error among {len(error)} dipoles, nothing to learn from."
        )
