"""Runs inverse models side by side on scenarios and summarizes each metric with an interval."""

import csv
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from deepesi import __version__
from deepesi.contracts import InverseModel, Oracle
from deepesi.evaluation.scenario import Scenario
from deepesi.evaluation.scores import (
    METRICS,
    Score,
    Scorer,
    Unit,
    file_of,
    read_scores,
    units_of,
)
from deepesi.physics.cohort import Cohort
from deepesi.physics.files import atomic
from deepesi.physics.parallel import LostWorkerError, spread

Array = NDArray[np.float64]

#: The method that all others are compared with, example by example, where it is among them.
REFERENCE = "eLORETA"


#: Where an exported file lies and its session: its weights are told by its content.
OF_A_FILE = ("path", "opened")


@dataclass(frozen=True)
class Row:
    """One line of ``benchmark.csv``: a mean with its 95 % bootstrap interval, and the median.

    ``difference`` is the mean over the same examples of this method's value less the reference's,
    with its own interval: examples differ far more than methods do on one, so it tells methods
    apart whose own intervals overlap. None without the reference. ``level`` is where on the axis
    of its scenario the test set lies.
    """

    method: str
    scenario: str
    snr_db: float
    n_sources: str
    metric: str
    value: float
    ci_low: float
    ci_high: float
    median: float
    n: int
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    axis: str = "SNR (dB)"
    level: str = ""


class Cell(NamedTuple):
    """All scores of one test set at one SNR."""

    scenario: Scenario
    snr_db: float
    scores: dict[str, list[Score]]  # by method, the same examples in the same order

    def values(self, method: str, metric: str) -> Array:
        """Of every example ``(n,)``."""
        column = list(METRICS).index(metric)
        return np.array([score.values[column] for score in self.scores[method]])


class Benchmark(NamedTuple):
    """What a run of the benchmark gives."""

    rows: list[Row]
    cells: list[Cell]

    @property
    def latencies(self) -> dict[str, float]:
        """Median time of inverting one example of the first test set, ms, by method."""
        scores = self.cells[0].scores
        return {m: float(np.median([s.latency_ms for s in own])) for m, own in scores.items()}


def bootstrap_interval(values: Array, seed: int = 0, n_resamples: int = 2000) -> Array:
    """95 % percentile bootstrap interval of the mean.

    Args:
        values: ``(n,)``, or several columns of the same examples ``(n, m)``.
        seed: Of the resampling.
        n_resamples: Number of resamples.

    Returns:
        Low and high end ``(2,)`` or ``(2, m)``.

    """
    counts = _resamples(len(values), seed, n_resamples)
    return np.asarray(np.percentile(counts @ values / len(values), [2.5, 97.5], axis=0))


@functools.lru_cache(maxsize=2)
def _resamples(n: int, seed: int, n_resamples: int) -> Array:
    """How often every resample holds every example ``(n_resamples, n)``."""
    picks = np.random.default_rng(seed).integers(0, n, size=(n_resamples, n))
    picks += n * np.arange(n_resamples)[:, None]
    counts = np.bincount(picks.ravel(), minlength=n_resamples * n)
    return counts.reshape(n_resamples, n).astype(np.float64)


def run_benchmark(
    models: Mapping[str, InverseModel | Oracle],
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
            is named twice; no process.
        FloatingPointError: A model gave NaN.

    """
    _check(scenarios, processes)
    _claim(folder, models, scenarios, cohort)
    units = units_of(scenarios)
    total, done = sum(unit.last - unit.first for unit in units), 0
    for finished in _work(Scorer(models, scenarios, cohort, folder), units, processes):
        done += finished
        on_progress(done, total)
    return summarize(scenarios, list(models), folder)


def _check(scenarios: Sequence[Scenario], processes: int) -> None:
    if processes < 1:
        raise ValueError(f"benchmark: processes must be 1 or more, got {processes}.")
    files = Counter(file_of(unit, scenarios[unit.scenario]) for unit in units_of(scenarios))
    twice = [name for name, count in files.items() if count > 1]
    if twice:
        raise ValueError(
            f"benchmark: two test sets would share the scores {twice[0]}. Name every scenario "
            "once, and every level and SNR of it."
        )


def _work(scorer: Scorer, units: Sequence[Unit], processes: int) -> Iterator[int]:
    for _, result in spread(_score, scorer, units, processes):
        if isinstance(result, LostWorkerError):
            raise result
        yield result


def _score(scorer: Scorer, unit: Unit) -> int:
    with one_thread():
        return scorer.score(unit)


@contextmanager
def one_thread() -> Iterator[None]:
    """Everything on one thread: sums come out alike, and latencies can be compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _claim(
    folder: Path,
    models: Mapping[str, InverseModel | Oracle],
    scenarios: Sequence[Scenario],
    cohort: Cohort,
) -> None:
    """Make sure that scores in a folder are of these models, scenarios and heads."""
    heads = [cohort.template, *(h for s in scenarios for h in s.true_heads(cohort))]
    settings = {
        "version": __version__,
        "models": {name: _identity(model) for name, model in models.items()},
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


def _identity(model: InverseModel | Oracle) -> str:
    """Class, settings, weights and what is asked of heads, as a digest."""
    model.eval()
    kinds, digest = bool | int | float | str | tuple | list, hashlib.sha256()
    for name, part in model.named_modules():
        settings = {k: v for k, v in vars(part).items() if k not in OF_A_FILE}
        plain = {k: v for k, v in settings.items() if isinstance(v, kinds)}
        digest.update(f"{name} {type(part).__name__} {sorted(plain.items(), key=str)}".encode())
    for name, weights in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.cpu().numpy().tobytes())
    for declaration in model.head_inputs:
        digest.update(declaration.key.encode())
    return digest.hexdigest()[:16]


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
        found = read_scores(folder / file_of(unit, scenario), methods)
        expected = (unit.last - unit.first) * len(methods)
        if len(found) != expected:
            raise ValueError(
                f"benchmark: {folder / file_of(unit, scenario)} holds {len(found)} scores, "
                f"expected {expected}. Go on with resume=..."
            )
        cell = Cell(scenario, unit.snr_db, {m: [] for m in methods})
        cell = cells.setdefault((unit.scenario, unit.snr_db), cell)
        for score in sorted(found, key=lambda score: score.example):
            cell.scores[score.method].append(score)
    ordered = list(cells.values())
    return Benchmark([row for cell in ordered for row in _rows(cell)], ordered)


def _rows(cell: Cell) -> Iterator[Row]:
    """Summary of a cell; a metric that says nothing here (one sample has no course) has no row."""
    scenario = cell.scenario
    where = {"axis": scenario.axis, "level": scenario.level or f"{cell.snr_db:g}"}
    for method in cell.scores:
        for metric in METRICS:
            values = cell.values(method, metric)
            known = np.isfinite(values)
            if not known.any():
                continue
            difference = _difference(cell, method, metric) if REFERENCE in cell.scores else ()
            yield Row(
                method, scenario.name, cell.snr_db, scenario.n_sources, metric,
                float(values[known].mean()), *map(float, bootstrap_interval(values[known])),
                float(np.median(values[known])), int(known.sum()), *difference, **where,
            )  # fmt: skip


def _difference(cell: Cell, method: str, metric: str) -> tuple[float, ...]:
    """Mean paired difference to the reference with its interval."""
    paired = cell.values(method, metric) - cell.values(REFERENCE, metric)
    paired = paired[np.isfinite(paired)]
    if not len(paired):
        return ()
    return (float(paired.mean()), *map(float, bootstrap_interval(paired)))


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write ``benchmark.csv``, long format, one line per method, test set, SNR and metric."""
    with atomic(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
