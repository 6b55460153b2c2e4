"""Runs inverse models side by side on scenarios and summarizes each metric with an interval."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi import __version__
from deepesi.core.contracts import InverseModel
from deepesi.evaluation.intervals import (
    MIN_EXAMPLES,
    beats_all_others,
    bootstrap_interval,
    differences,
)
from deepesi.evaluation.methods import Method, identity_of, of_scenario
from deepesi.evaluation.parallel import share_out
from deepesi.evaluation.scenario import Scenario
from deepesi.evaluation.scores import Score, Scorer, file_of, read_scores, units_of
from deepesi.metrics.table import IN_TABLES, METRICS
from deepesi.physics.cohort import Cohort
from deepesi.utils.files import atomic
from deepesi.utils.rows import write_rows

Array = NDArray[np.float64]

#: The method that all others are compared with, example by example, where it is among them: its
#: regularization is chosen on validation recordings, as networks are.
REFERENCE = "eLORETA (tuned)"


@dataclass(frozen=True)
class Row:
    """One line of ``benchmark.csv``: a mean with its 95 % interval, and the median.

    ``difference`` is the mean over the same examples of this method's value less the reference's:
    examples differ far more than methods do on one, so it tells methods apart whose own intervals
    overlap. Its interval holds together with those of all methods and test sets of the scenario,
    over the metrics of the tables (those of the other metrics likewise). None without the
    reference. An interval is None where `deepesi.evaluation.intervals` gives none: with few
    examples or few that differ. ``level`` is where on the axis of its scenario the test set lies.
    ``best``: better than every other method, see `beats_all_others`; only of metrics of the tables.
    """

    method: str
    scenario: str
    snr_db: float
    n_sources: str
    metric: str
    value: float
    ci_low: float | None
    ci_high: float | None
    median: float
    n: int
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    axis: str = "SNR (dB)"
    level: str = ""
    best: bool = False


class Cell(NamedTuple):
    """All scores of one test set at one SNR."""

    scenario: Scenario
    snr_db: float
    scores: dict[str, list[Score]]  # by method, the same examples in the same order

    def values(self, method: str, metric: str) -> Array:
        """Values of one metric, one per example ``(n,)``."""
        column = list(METRICS).index(metric)
        return np.array([score.values[column] for score in self.scores[method]])


class Benchmark(NamedTuple):
    """What a run of the benchmark gives."""

    rows: list[Row]
    cells: list[Cell]

    @property
    def latencies(self) -> dict[str, float | None]:
        """Median time of inverting one example of the first test set, ms, by method.

        None with fewer than `MIN_EXAMPLES` examples. Every process has inverted one example with
        every method before it takes a time.
        """
        scores = self.cells[0].scores
        times = {m: [score.latency_ms for score in own] for m, own in scores.items()}
        return {
            m: float(np.median(t)) if len(t) >= MIN_EXAMPLES else None for m, t in times.items()
        }


def run_benchmark(
    models: Mapping[str, Method],
    scenarios: Sequence[Scenario],
    cohort: Cohort,
    folder: Path,
    processes: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Benchmark:
    """Score every model on the scenarios.

    What is in the folder already is not computed again. The results do not depend on the number of
    processes: every example is inverted on its own, on one thread.

    Args:
        models: Name to model; all get the same recordings and the same nominal head.
        scenarios: The test sets.
        cohort: The heads; the test is on its test heads where a scenario names none.
        folder: Where the scores of every example are kept.
        processes: Number of processes; 1: this one.
        on_progress: Called with the examples done and all there are, now and then.

    Raises:
        ValueError: The folder holds the scores of other models, scenarios or heads; a scenario
            is named twice; no process; windows that filters in a model cannot use; as in
            `Scenario.check`.
        FloatingPointError: A model gave NaN.

    """
    _check(scenarios)
    for scenario in scenarios:
        check_windows(models, scenario)
        scenario.check(cohort)
    _check_settings(folder, models, scenarios, cohort)
    units = units_of(scenarios)
    total, done = sum(unit.last - unit.first for unit in units), 0
    scorer = Scorer(models, scenarios, cohort, folder)
    for finished in share_out(scorer.score, units, processes):
        done += finished
        on_progress(done, total)
    return summarize(scenarios, list(models), folder)


def check_windows(methods: Mapping[str, Method], scenario: Scenario) -> None:
    """Check before any computation that the windows of a test set suit the filters of all methods.

    Raises:
        ValueError: A window is shorter than a filter, or of another sampling rate.

    """
    for name, model in of_scenario(methods, scenario.name).items():
        if isinstance(model, InverseModel):
            what = f"scenario {scenario.name!r} cannot test {name!r}: a window"
            model.window_needs.check_length(scenario.n_times, what)
            model.window_needs.check_rate(scenario.sfreq, what)


def _check(scenarios: Sequence[Scenario]) -> None:
    files = Counter(file_of(unit, scenarios[unit.scenario]) for unit in units_of(scenarios))
    twice = [name for name, count in files.items() if count > 1]
    if twice:
        raise ValueError(
            f"benchmark: two test sets would share the scores {twice[0]}. Name every scenario "
            "once, and every level and SNR of it."
        )


def _check_settings(
    folder: Path,
    models: Mapping[str, Method],
    scenarios: Sequence[Scenario],
    cohort: Cohort,
) -> None:
    """Make sure that scores in a folder are of these models, scenarios and heads."""
    heads = [cohort.template, *(h for s in scenarios for h in s.true_heads(cohort))]
    settings = {
        "version": __version__,
        "metrics": list(METRICS),
        "models": {
            scenario: {
                name: identity_of(model) for name, model in of_scenario(models, scenario).items()
            }
            for scenario in dict.fromkeys(scenario.name for scenario in scenarios)
        },
        "scenarios": [repr(scenario) for scenario in scenarios],
        "heads": [head.fingerprint for head in dict.fromkeys(heads)],
    }
    record = folder / "settings.json"
    if record.is_file():
        before = json.loads(record.read_text())
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            raise ValueError(
                f"benchmark: {folder} holds scores of other {' and '.join(changed)}. Choose "
                "another hydra.run.dir, or delete the folder to begin anew."
            )
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(record) as partial:
        partial.write_text(json.dumps(settings, indent=1))


def summarize(scenarios: Sequence[Scenario], methods: Sequence[str], folder: Path) -> Benchmark:
    """Rows of all scores in a folder.

    Raises:
        ValueError: There are no scores, or not of all examples.

    """
    if not list(folder.glob("*.csv")):
        raise ValueError(
            f"benchmark: {folder} holds no scores. Give the folder of a run that was begun, or "
            "leave resume out to begin one."
        )
    cells: dict[tuple[int, float], Cell] = {}
    for unit in units_of(scenarios):
        scenario = scenarios[unit.scenario]
        scores = read_scores(folder / file_of(unit, scenario), methods)
        expected = (unit.last - unit.first) * len(methods)
        if len(scores) != expected:
            raise ValueError(
                f"benchmark: {folder / file_of(unit, scenario)} holds {len(scores)} scores, "
                f"expected {expected}. Go on with resume=..."
            )
        cell = Cell(scenario, unit.snr_db, {m: [] for m in methods})
        cell = cells.setdefault((unit.scenario, unit.snr_db), cell)
        for score in sorted(scores, key=lambda score: score.example):
            cell.scores[score.method].append(score)
    ordered = list(cells.values())
    by_scenario = groupby(ordered, key=lambda cell: cell.scenario.name)
    return Benchmark([row for _, own in by_scenario for row in _rows(list(own))], ordered)


def _rows(cells: Sequence[Cell]) -> Iterator[Row]:
    """Summary of a scenario; a metric without a value has no row.

    One sample has no temporal correlation, an estimate without uncertainty no score of it.
    """
    methods, others = list(cells[0].scores), [m for m in METRICS if m not in IN_TABLES]
    compared = {
        number: columns
        for metrics in (list(IN_TABLES), others)
        for number, columns in _comparisons(cells, methods, metrics)
    }
    limits = np.array([metric.limits for metric in METRICS.values()]).T
    for test_set, cell in enumerate(cells):
        scenario = cell.scenario
        level = scenario.level or f"{cell.snr_db:g}"
        for number, method in enumerate(methods):
            values = np.stack([cell.values(method, metric) for metric in METRICS], axis=1)
            ends = bootstrap_interval(values).clip(*limits)
            for column, metric in enumerate(METRICS):
                known = values[np.isfinite(values[:, column]), column]
                if not len(known):
                    continue
                low, high = map(_number, ends[:, column])
                difference, best = compared[test_set, number, metric]
                yield Row(
                    method,
                    scenario.name,
                    cell.snr_db,
                    scenario.n_sources,
                    metric,
                    float(known.mean()),
                    low,
                    high,
                    float(np.median(known)),
                    len(known),
                    *difference,
                    scenario.axis,
                    level,
                    best,
                )


Compared = tuple[tuple[float | None, float | None, float | None], bool]


def _comparisons(
    cells: Sequence[Cell], methods: Sequence[str], metrics: Sequence[str]
) -> Iterator[tuple[tuple[int, int, str], Compared]]:
    """Difference to the reference, and whether it is best, for each test set, method and metric.

    The test sets of a scenario are one family: they have the same examples as far as they draw the
    same, so their examples are resampled together; of those with fewer, the rest is NaN.
    """
    largest = max(len(cell.scores[methods[0]]) for cell in cells)
    values = np.full((len(methods), largest, len(cells), len(metrics)), np.nan)
    for test_set, cell in enumerate(cells):
        for number, method in enumerate(methods):
            own = np.stack([cell.values(method, metric) for metric in metrics], axis=1)
            values[number, : len(own), test_set] = own
    columns = values.reshape(len(methods), largest, -1)
    higher = np.tile([METRICS[metric].higher_is_better for metric in metrics], len(cells))
    best = np.zeros((len(methods), columns.shape[2]), dtype=bool)
    if metrics[0] in IN_TABLES:
        best = beats_all_others(columns, higher)
    paired, ends = None, np.full((2, *best.shape), np.nan)
    if REFERENCE in methods:
        reference = methods.index(REFERENCE)
        paired, ends = columns - columns[reference], differences(columns, reference)
    for (number, column), is_best in np.ndenumerate(best):
        test_set, which = divmod(column, len(metrics))
        mean = None if paired is None else _mean(paired[number, :, column])
        low, high = map(_number, ends[:, number, column])
        yield (test_set, number, metrics[which]), ((mean, low, high), bool(is_best))


def _mean(values: Array) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write ``benchmark.csv``, long format, one line per method, test set, SNR and metric."""
    write_rows(path, [f.name for f in fields(Row)], map(astuple, rows))
