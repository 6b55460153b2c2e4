"""Scores of single examples, written one by one, so that an interrupted run can go on."""

import csv
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate, Oracle, PosteriorModel
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.evaluation.first_sources import FirstSources, first_sources
from deepesi.evaluation.methods import Method, Model, of_scenario
from deepesi.evaluation.scenario import Scenario
from deepesi.metrics.example import Geometry
from deepesi.metrics.source_metric import examples
from deepesi.metrics.table import METRICS
from deepesi.physics.cohort import Cohort
from deepesi.physics.head import HeadModel
from deepesi.utils.nearest import nearest
from deepesi.utils.rows import append_rows, write_rows

#: Examples of a unit of work.
UNIT = 20
COLUMNS = ("example", "method", "depth_mm", "angle", "latency_ms", *METRICS)


class Score(NamedTuple):
    """What one method scored on one example."""

    example: int
    method: str
    depth_mm: float  # depth of the first true source below the scalp
    angle: float  # of the first true source to the scalp, degrees: 0 radial, 90 tangential
    latency_ms: float  # time of inverting this one example
    values: tuple[float, ...]  # in the order of `METRICS`


class Unit(NamedTuple):
    """A few examples of one batch of a scenario at one SNR."""

    scenario: int
    snr_db: float
    step: int
    first: int
    last: int


def units_of(scenarios: Sequence[Scenario]) -> list[Unit]:
    """All work, so that what needs the same set-up comes together."""
    units = []
    for number, scenario in enumerate(scenarios):
        for step, size in enumerate(scenario.sizes):
            firsts = range(0, size, UNIT)
            units += [
                Unit(number, float(snr_db), step, first, min(first + UNIT, size))
                for snr_db in scenario.snr_db
                for first in firsts
            ]
    return units


def file_start(scenario: str, level: str, snr_db: float) -> str:
    """First part of the names of the files of a test set at one SNR; no level: empty."""
    return re.sub(r"[^\w.+-]", "-", f"{scenario}_{level or 'all'}_{snr_db:g}dB_")


def file_of(unit: Unit, scenario: Scenario) -> str:
    """Name of the file with the scores of a unit."""
    start = file_start(scenario.name, scenario.level, unit.snr_db)
    return f"{start}{unit.step}_{unit.first:03d}.csv"


def read_scores(path: Path, methods: Sequence[str]) -> list[Score]:
    """The examples of a file that every method has been scored on, in order.

    An unfinished line or example, after an interruption, is left out.

    Raises:
        ValueError: The file holds other metrics than this version has.

    """
    if not path.is_file():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    header, *rows = csv.reader(whole) if whole else [list(COLUMNS)]
    if header != list(COLUMNS):
        raise ValueError(
            f"benchmark: {path} holds the columns {', '.join(header)}, expected "
            f"{', '.join(COLUMNS)}: it is of another version of deepesi. Choose another "
            "hydra.run.dir, or delete the folder to begin anew."
        )
    scored: dict[int, list[Score]] = {}
    for row in rows:
        if len(row) == len(COLUMNS):
            score = _score(row)
            scored.setdefault(score.example, []).append(score)
    return [s for own in scored.values() if [s.method for s in own] == list(methods) for s in own]


def _score(row: Sequence[str]) -> Score:
    example, method, *values = row
    depth_mm, angle, latency_ms, *metrics = map(float, values)
    return Score(int(example), method, depth_mm, angle, latency_ms, tuple(metrics))


class Scorer:
    """Scores models on units of work, each example on its own, as a deployer inverts it.

    Args:
        models: Name to method; all get the same recordings and the same nominal head.
        scenarios: The test sets.
        cohort: The heads of the run.
        folder: Where the scores are written, a file per unit.

    """

    def __init__(
        self,
        models: Mapping[str, Method],
        scenarios: Sequence[Scenario],
        cohort: Cohort,
        folder: Path,
    ) -> None:
        self.models, self.scenarios, self.cohort = models, scenarios, cohort
        self.folder = folder
        self._stream: tuple[int, SimulatedRecordings] | None = None
        self._batch: tuple[tuple[int, float, int], Batch, FirstSources] | None = None
        self._geometry: tuple[HeadModel, Geometry] | None = None

    def score(self, unit: Unit) -> int:
        """Score what is not scored yet; gives the number of examples of the unit."""
        scenario = self.scenarios[unit.scenario]
        path = self.folder / file_of(unit, scenario)
        done = read_scores(path, list(self.models))
        missing = set(range(unit.first, unit.last)) - {score.example for score in done}
        if missing:
            write_rows(path, COLUMNS, map(_row, done))
            (batch, first), models = self.batch(unit), self._models(unit)
            for number in sorted(missing):  # all methods of an example at once, or none
                where = float(first.depth[number]), float(first.angle[number])
                scores = self._example(models, batch.example(number), number, where)
                append_rows(path, map(_row, scores))
        return unit.last - unit.first

    def batch(self, unit: Unit) -> tuple[Batch, FirstSources]:
        """The whole batch a unit belongs to, and where its first true sources lie."""
        key = (unit.scenario, unit.snr_db, unit.step)
        if self._batch is None or self._batch[0] != key:
            models = self._models(unit)
            new = self._stream is None or self._stream[0] != unit.scenario
            if self._stream is None or new:
                recordings = self.scenarios[unit.scenario].recordings(
                    self.cohort, list(models.values())
                )
                self._stream = unit.scenario, recordings
            parts = self._stream[1].at_snr(unit.snr_db).parts(unit.step)
            self._batch = key, parts.batch, first_sources(parts)
            if new:  # no time is to hold what only the first estimate takes
                for model in models.values():
                    apply_model(model, self._batch[1].example(0))
        return self._batch[1:]

    def _models(self, unit: Unit) -> dict[str, Model]:
        return of_scenario(self.models, self.scenarios[unit.scenario].name)

    def _example(
        self, models: Mapping[str, Model], example: Batch, number: int, where: tuple[float, float]
    ) -> Iterator[Score]:
        geometry = self._geometry_of(example.head)
        for name, model in models.items():
            started = time.perf_counter()
            estimate = apply_model(model, example)
            latency_ms = 1e3 * (time.perf_counter() - started)
            (case,) = examples(with_samples(estimate, model, example, number), example)
            values = tuple(metric.function(case, geometry) for metric in METRICS.values())
            yield Score(number, name, *where, latency_ms, values)

    def _geometry_of(self, head: HeadModel) -> Geometry:
        """Geometry of the head under its set-up."""
        if self._geometry is None or self._geometry[0] is not head:
            self._geometry = head, Geometry(head)
        return self._geometry[1]


def metric_values(
    model: Model, batch: Batch, metric: str = "localization_error"
) -> NDArray[np.float64]:
    """A metric of a model on every example of a batch ``(B,)``.

    >>> from deepesi import SimulatedRecordings
    >>> from deepesi.baselines.minimum_norm import MinimumNorm
    >>> model = MinimumNorm("sLORETA")
    >>> batch = SimulatedRecordings(declarations=model.head_inputs, batch_size=4).batch(0)
    >>> metric_values(model, batch).shape
    (4,)

    Args:
        model: An inverse model or an oracle.
        batch: Recordings with the head inputs that the model declares.
        metric: A key of `deepesi.metrics.table.METRICS`.

    Raises:
        ValueError: There is no such metric.

    """
    if metric not in METRICS:
        raise ValueError(f"metric_values: no metric {metric!r}. {nearest(metric, list(METRICS))}")
    geometry, cases = Geometry(batch.head), examples(apply_model(model, batch), batch)
    return np.array([METRICS[metric].function(case, geometry) for case in cases])


def apply_model(model: Model, batch: Batch) -> Estimate:
    """The estimate of a model, or an error that names the model.

    Raises:
        FloatingPointError: The estimate is not finite.

    """
    model.eval()
    with torch.no_grad():
        shown = (batch,) if isinstance(model, Oracle) else (batch.data, batch.inputs)
        estimate: Estimate = model(*shown)
    if not all(torch.isfinite(part).all() for part in estimate if part is not None):
        raise FloatingPointError(
            f"benchmark: {type(model).__name__} gave NaN or infinite dipole moments at "
            f"{batch.scene.snr_db[0]:g} dB. Its training diverged or its file is damaged."
        )
    return estimate


def with_samples(estimate: Estimate, model: Model, example: Batch, seed: int) -> Estimate:
    """The estimate with draws of a posterior model whose `forward` has none, in closed form."""
    if not isinstance(model, PosteriorModel) or estimate.samples is not None:
        return estimate
    with torch.no_grad():
        samples = model.draw(example.data, example.inputs, model.n_draws, seed)
    return estimate._replace(samples=samples)


def _row(score: Score) -> tuple[object, ...]:
    """A score as a line of its file."""
    return (*score[:-1], *score.values)
