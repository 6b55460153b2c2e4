"""Coverage of intervals and prediction sets: fitted on validation recordings, measured on test."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.calibration.conformal import PredictionSets, proportion
from deepesi.calibration.coverage_tests import (
    contraction,
    coverage_deviation,
    expected_coverage,
    misspecification_p,
    z_scores,
)
from deepesi.calibration.intervals import Intervals, StandardizedErrors, gaussian
from deepesi.calibration.recalibration import fit_balanced, fit_isotonic, fit_temperature
from deepesi.calibration.sbc import FEWEST, uniformity
from deepesi.evaluation.intervals import bootstrap_interval, interval_text
from deepesi.evaluation.observation import N_DRAWS, PROPER_SCORES, RANKED, Observations
from deepesi.metrics.calibration import GROUPS, LEVELS
from deepesi.utils.rows import read_rows, write_rows

Array = NDArray[np.float64]

#: Level of the intervals whose width is reported.
WIDTH_LEVEL = 0.9
ALL = "all"
#: Group of the rows about prediction sets; the others are about `GROUPS` of sources.
PREDICTION_SET = "prediction_set"
#: Group of the rows about recordings, and the p value up to which they are unlike the others.
RECORDING, UNLIKE = "recording", 0.05


@dataclass(frozen=True)
class CalibrationRow:
    """One line of ``calibration.csv``.

    ``recalibration`` is ``none``, ``temperature``, ``isotonic`` or ``balanced`` where ``group`` is
    a kind of sources, ``conformal`` where it is ``prediction_set``. ``metric`` is ``coverage`` (at
    ``level``), ``deviation``, ``signed_deviation`` (mean over levels), ``width`` (of the 90 %
    interval, over the largest true moment) or ``area_cm2``. Where ``group`` is ``recording``,
    ``misspecified`` is the share of recordings that are unlike those of validation with p at most
    ``level``. Posterior models also have ``sbc_p``, the p value of uniform ranks of the target
    among samples (``group`` is what is ranked, see `deepesi.evaluation.observation.RANKED`),
    ``tarp_coverage``, expected coverage at ``level``, ``tarp_deviation``, how far it is from
    its level, ``contraction``, one minus the variance of the samples over that of the target among
    these recordings, both relative to the noise, and ``z_score``, the root mean square of
    the difference between mean of the samples and target, over their standard deviation (1 if
    calibrated; recordings whose samples are all equal are left out). Scores of recordings are
    ``crps`` and ``energy_score`` (nA m), and ``log_score`` (nats) of models with a density. The
    interval is of 95 %: exact for the coverage of prediction sets, for ``tarp_coverage`` and for
    ``misspecified``, else by studentized bootstrap over recordings, as the dipoles of one are not
    independent; None with too few
    recordings, see `deepesi.evaluation.intervals`.
    """

    method: str
    scenario: str
    heads: str
    snr_db: str
    recalibration: str
    group: str
    metric: str
    level: float | None
    value: float
    ci_low: float | None
    ci_high: float | None
    n: int


class Fitted(NamedTuple):
    """What is learned from validation recordings."""

    intervals: dict[str, Intervals]  # by recalibration; empty without standard deviations
    temperature: float | None
    prediction_sets: PredictionSets
    unexplained: list[Array]  # share of the power that estimates leave, by bin of estimated SNR


def fit(observed: Observations, level: float, n_bins: int) -> Fitted:
    """Learn from validation recordings.

    The temperature is that of the active sources, as zeros fit into any interval around zero.

    Args:
        observed: Observations of split ``"validation"``.
        level: Probability of the prediction sets.
        n_bins: Bins of the estimated SNR.

    """
    prediction_sets = PredictionSets.fit(
        observed.target_scores, observed.estimated_db, level, n_bins
    )
    bins = prediction_sets.bins(observed.estimated_db)
    unexplained = [observed.unexplained[bins == number] for number in range(n_bins)]
    if not observed.standardized_errors:
        return Fitted({}, None, prediction_sets, unexplained)
    pooled = StandardizedErrors(
        *(np.concatenate(parts) for parts in zip(*observed.standardized_errors, strict=True))
    )
    temperature = fit_temperature(pooled.error[pooled.group == 0], LEVELS)
    intervals = {
        "none": gaussian(LEVELS),
        "temperature": gaussian(LEVELS, temperature),
        "isotonic": fit_isotonic(pooled.error, LEVELS),
        "balanced": fit_balanced(pooled, LEVELS),
    }
    return Fitted(intervals, temperature, prediction_sets, unexplained)


def measure(
    method: str, scenario: str, heads: str, fitted: Fitted, observed: Observations
) -> list[CalibrationRow]:
    """All rows of one method.

    Args:
        method: Name of the method.
        scenario: Name of the scenario.
        heads: Names of the heads.
        fitted: What was learned from validation recordings.
        observed: Observations of split ``"test"``.

    """
    rows = []
    levels: list[float | None] = [None, *np.unique(observed.snr_db.round(3))]
    for snr_db in levels:
        there = np.arange(len(observed.snr_db))
        if snr_db is not None:
            there = np.flatnonzero(observed.snr_db.round(3) == snr_db)
        level = ALL if snr_db is None else f"{snr_db:g}"
        row = functools.partial(CalibrationRow, method, scenario, heads, level)
        for name, intervals in fitted.intervals.items():
            own = [observed.standardized_errors[i] for i in there]
            for number, group in enumerate(GROUPS):
                rows += _group_rows(functools.partial(row, name, group), intervals, own, number)
        of_sets = functools.partial(row, "conformal", PREDICTION_SET)
        rows += _prediction_set_rows(of_sets, fitted.prediction_sets, observed, there)
        of_recordings = functools.partial(row, "none", RECORDING)
        rows.append(_misspecified_row(of_recordings, fitted, observed, there))
        rows += _score_rows(of_recordings, observed.proper_scores[there])
        rows += _rank_rows(functools.partial(row, "none"), observed, there)
        rows += _quantity_rows(functools.partial(row, "none"), observed, there)
    return rows


#: Makes a row from metric, level, value, ends of the interval, and number of recordings.
RowMaker = Callable[..., CalibrationRow]


def _group_rows(
    row: RowMaker,
    intervals: Intervals,
    observed: Sequence[StandardizedErrors],
    number: int,
) -> list[CalibrationRow]:
    """Coverage, the deviation of it, and the width, with intervals over recordings."""
    parts = [StandardizedErrors(*(a[c.group == number] for a in c)) for c in observed]
    parts = [part for part in parts if len(part.error)]
    if not parts:
        return []
    sizes = np.array([len(part.error) for part in parts], dtype=np.float64)
    hits = np.array([intervals.coverage(part) for part in parts]) * sizes[:, None]
    covered = _linearized(hits, sizes[:, None])
    off = covered - LEVELS
    direction = np.sign(off.mean(axis=0))  # the mean absolute value, linear about what it is
    widths = np.array([2 * (intervals.at(WIDTH_LEVEL, p.signal) * p.width).sum() for p in parts])
    measured: list[tuple[str, float | None, Array]] = [
        ("coverage", float(level), covered[:, i]) for i, level in enumerate(LEVELS)
    ]
    measured += [
        ("deviation", None, (direction * off).mean(axis=1)),
        ("signed_deviation", None, off.mean(axis=1)),
        ("width", WIDTH_LEVEL, _linearized(widths, sizes)),
    ]
    ends = bootstrap_interval(np.stack([values for *_, values in measured], axis=1))
    return [
        row(metric, level, float(values.mean()), *_within(end, BOUNDS.get(metric)), len(sizes))
        for (metric, level, values), end in zip(measured, ends.T, strict=True)
    ]


#: What a metric cannot leave.
BOUNDS = {"coverage": (0.0, 1.0), "deviation": (0.0, 1.0)}


def _linearized(totals: Array, sizes: Array) -> Array:
    """Values of recordings whose mean is ``sum(totals) / sum(sizes)`` and varies as that does.

    Source: the ratio estimator, Cochran 1977, ISBN 0-471-16240-X, section 2.11.
    """
    ratio = totals.sum(axis=0) / sizes.sum(axis=0)
    return np.asarray(ratio + (totals - ratio * sizes) / sizes.mean(axis=0))


def _within(
    ends: Array, bounds: tuple[float, float] | None
) -> tuple[float, float] | tuple[None, None]:
    """Ends of an interval, None if there is none."""
    if not np.isfinite(ends).all():
        return None, None
    low, high = ends if bounds is None else ends.clip(*bounds)
    return float(low), float(high)


def _prediction_set_rows(
    row: RowMaker,
    prediction_sets: PredictionSets,
    observed: Observations,
    there: NDArray[np.int64],
) -> list[CalibrationRow]:
    """Coverage with its exact interval, and the mean area."""
    threshold = prediction_sets.of(observed.estimated_db)
    right = int((observed.target_scores <= threshold)[there].sum())
    area = np.array(
        [1e4 * observed.areas[i][observed.scores[i] <= threshold[i]].sum() for i in there]
    )
    n, level = len(there), prediction_sets.level
    return [
        row("coverage", level, *proportion(right, n), n),
        row("area_cm2", level, float(area.mean()), *_within(bootstrap_interval(area), None), n),
    ]


def _misspecified_row(
    row: RowMaker, fitted: Fitted, observed: Observations, there: NDArray[np.int64]
) -> CalibrationRow:
    """Share of recordings of which the estimate leaves more than of those of validation."""
    bins = fitted.prediction_sets.bins(observed.estimated_db)
    p = [misspecification_p(observed.unexplained[i], fitted.unexplained[bins[i]]) for i in there]
    unlike = int((np.array(p) <= UNLIKE).sum())
    return row("misspecified", UNLIKE, *proportion(unlike, len(there)), len(there))


def _rank_rows(
    row: RowMaker, observed: Observations, there: NDArray[np.int64]
) -> list[CalibrationRow]:
    """P value of uniform ranks of the target, of posterior models on enough recordings.

    For ranks of distances also the mean deviation of expected coverage from its level.
    """
    n = len(there)
    if observed.ranks is None or n < 2 * FEWEST:
        return []
    ranks = observed.ranks[there]
    distance = ranks[:, RANKED.index("distance")] / N_DRAWS
    off = coverage_deviation(distance)
    covered = expected_coverage(distance, LEVELS)
    return [
        row(group, "sbc_p", None, uniformity(ranks[:, i], N_DRAWS), None, None, n)
        for i, group in enumerate(RANKED)
    ] + [
        row("distance", "tarp_deviation", None, off, None, None, n),
        *(
            row("distance", "tarp_coverage", float(level), *proportion(round(share * n), n), n)
            for level, share in zip(LEVELS, covered, strict=True)
        ),
    ]


def _score_rows(row: RowMaker, scores: Array) -> list[CalibrationRow]:
    """Means of the proper scores ``(N, PROPER_SCORES)`` that the model has."""
    rows = []
    for name, values in zip(PROPER_SCORES, scores.T, strict=True):
        if not np.isnan(values).any():
            ends = _within(bootstrap_interval(values), None)
            rows.append(row(name, None, float(values.mean()), *ends, len(values)))
    return rows


#: Quantities with contraction and z-score.
MEASURED = ("peak", "norm")


def _quantity_rows(
    row: RowMaker, observed: Observations, there: NDArray[np.int64]
) -> list[CalibrationRow]:
    """Contraction and root mean square of z-scores, of posterior models."""
    if observed.quantities is None:
        return []
    rows = []
    for name in MEASURED:
        values = observed.quantities[there, :, RANKED.index(name)].T[..., None]
        samples, targets = values[:-1], values[-1]
        if targets.std() > 0:
            narrower = float(contraction(samples, targets.var(axis=0))[0])
            rows.append(row(name, "contraction", None, narrower, None, None, len(there)))
        varied = samples.std(axis=0)[:, 0] > 0
        if varied.any():
            squares = z_scores(samples[:, varied], targets[varied])[:, 0] ** 2
            ends = np.sqrt(bootstrap_interval(squares).clip(0))
            size = float(np.sqrt(squares.mean()))
            rows.append(row(name, "z_score", None, size, *_within(ends, None), len(squares)))
    return rows


def cell(row: CalibrationRow, decimals: int) -> str:
    """``value [low, high]``, or ``value [-]`` where there is no interval."""
    return interval_text(row.value, row.ci_low, row.ci_high, decimals)


COLUMNS = tuple(field.name for field in fields(CalibrationRow))


def write_csv(rows: Sequence[CalibrationRow], path: Path) -> None:
    """Write ``calibration.csv``, long format."""
    write_rows(path, COLUMNS, map(astuple, rows))


def read_csv(path: Path) -> list[CalibrationRow]:
    """Read what `write_csv` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not of a calibration, or of one by an older version.

    """
    advice = "Give the run directory of 'deepesi calibrate' of this version."
    if not path.is_file():
        raise FileNotFoundError(f"calibration: there is no {path}. {advice}")
    rows = read_rows(path, COLUMNS, advice)
    known = [*GROUPS, PREDICTION_SET, RECORDING, *RANKED]
    groups = sorted({row["group"] for row in rows} - set(known))
    if groups:
        raise ValueError(f"{path} has the groups {groups}, expected some of {known}. {advice}")
    return [_row(row) for row in rows]


def _row(cells: Mapping[str, str]) -> CalibrationRow:
    return CalibrationRow(
        **{name: cells[name] for name in COLUMNS[:7]},
        level=_optional(cells["level"]),
        value=float(cells["value"]),
        ci_low=_optional(cells["ci_low"]),
        ci_high=_optional(cells["ci_high"]),
        n=int(cells["n"]),
    )


def _optional(cell: str) -> float | None:
    return float(cell) if cell else None
