"""Chooses the constant of a classical method on validation recordings of a scenario.

The criterion is the mean localization error over the validation recordings of all test sets of the
scenario (all levels and SNRs together), one constant per scenario. Recordings are of the split
``"validation"`` and of validation heads, so nothing of a test set enters. What was chosen is kept
in the user's cache.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.baselines.tuned import Tuned, Value
from deepesi.evaluation.methods import Method, Model, PerScenario, check_head, identity_of
from deepesi.evaluation.observation import Streams, batches_at, heads_to_fit, streams_to_fit
from deepesi.evaluation.parallel import share_out
from deepesi.evaluation.scenario import Scenario
from deepesi.evaluation.scores import apply_model
from deepesi.metrics.example import Geometry
from deepesi.metrics.source_metric import examples
from deepesi.metrics.table import METRICS
from deepesi.physics.cohort import Cohort
from deepesi.utils.cache import cache_folder
from deepesi.utils.code_digest import code_digest
from deepesi.utils.files import atomic
from deepesi.utils.rows import write_rows

Array = NDArray[np.float64]

#: The metric whose mean is least at the constant chosen.
CRITERION = "localization_error"
#: Folders whose code decides what is drawn, inverted and measured: part of the key of the cache.
FOLDERS = ("physics", "core", "data_gen", "baselines", "metrics")


@dataclass(frozen=True)
class Choice:
    """The constant of one method in one scenario.

    Attributes:
        method: Name of the method.
        scenario: Name of the scenario.
        parameter: Name of the parameter, or the names of several with commas.
        values: Tried, of several parameters their combinations.
        errors_mm: Mean localization error of each.
        n: Validation recordings, all test sets together.
        value: The one of least error; where several have it, the middle one of these.

    """

    method: str
    scenario: str
    parameter: str
    values: tuple[Value, ...]
    errors_mm: tuple[float, ...]
    n: int

    @property
    def value(self) -> Value:
        """The value of least error."""
        best = np.flatnonzero(np.array(self.errors_mm) == min(self.errors_mm))
        return self.values[best[(len(best) - 1) // 2]]

    @property
    def is_at_an_end(self) -> bool:
        """Whether a value beyond those tried might be better still; none is beyond ``loose=1``."""
        names = self.parameter.split(", ")
        tried = list(zip(*map(_each, self.values), strict=True))
        return any(
            value in (min(own), max(own)) and (name, value) != ("loose", 1.0)
            for name, value, own in zip(names, _each(self.value), tried, strict=True)
        )

    @property
    def range_tried(self) -> str:
        """Number and range of the values tried, in words."""
        tried = zip(*map(_each, self.values), strict=True)
        return f"{len(self.values)} from " + " and ".join(
            f"{min(own):g} to {max(own):g}" for own in tried
        )


def _each(value: Value) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


def in_words(value: Value) -> str:
    """Value of the parameter, or those of several with commas."""
    return ", ".join(f"{v:g}" for v in _each(value))


class _Task(NamedTuple):
    """The validation recordings of one test set."""

    test_set: int
    snr_db: float


@dataclass(frozen=True)
class _Trial:
    """Errors of every value of a constant on the recordings of a task."""

    tuned: Tuned
    scenarios: Sequence[Scenario]
    cohort: Cohort
    streams: dict[int, Streams] = field(default_factory=dict)  # of the last test set

    def __call__(self, task: _Task) -> tuple[_Task, Array]:
        """Errors ``(n, V)``, mm."""
        candidates, error, errors = self.tuned.candidates, METRICS[CRITERION].function, []
        for batch, kept in batches_at(self._streams(task.test_set), task.snr_db):
            geometry = Geometry(batch.head)
            by_candidate = [
                [error(e, geometry) for e in examples(apply_model(c, batch), batch)]
                for c in candidates
            ]
            errors.append(np.array(by_candidate).T[:kept])
        return task, np.concatenate(errors)

    def _streams(self, test_set: int) -> Streams:
        """Recordings of a test set; its SNRs have the same set-ups, which are prepared once."""
        if test_set not in self.streams:
            self.streams.clear()
            self.streams[test_set] = streams_to_fit(
                self.scenarios[test_set], self.cohort, self.tuned.candidates, self.tuned.n_examples
            )
        return self.streams[test_set]


def choose(
    method: str,
    tuned: Tuned,
    scenarios: Sequence[Scenario],
    cohort: Cohort,
    processes: int = 1,
    cache: Path | None = None,
) -> Choice:
    """The constant of a method for one scenario, from the cache if it was chosen before.

    Args:
        method: Name of the method.
        tuned: The method.
        scenarios: All test sets of the scenario.
        cohort: The heads of the run; see `heads_to_fit` for which are used.
        processes: Number of processes; the choice does not depend on it.
        cache: Folder; by default the user's.

    """
    key = _key(tuned, scenarios, cohort)
    path = (cache or cache_folder("tuning")) / f"{scenarios[0].name}-{key}.json"
    if path.is_file():
        kept = json.loads(path.read_text())
        return _from(method, scenarios[0].name, tuned, kept["errors_mm"], kept["n"])
    tasks = [_Task(number, float(snr)) for number, s in enumerate(scenarios) for snr in s.snr_db]
    by_task = dict(share_out(_Trial(tuned, scenarios, cohort), tasks, processes))
    errors = np.concatenate([by_task[task] for task in tasks])
    choice = _from(method, scenarios[0].name, tuned, errors.mean(axis=0).tolist(), len(errors))
    with atomic(path) as partial:
        partial.write_text(json.dumps(asdict(choice), indent=1) + "\n")
    return choice


def _from(method: str, scenario: str, tuned: Tuned, errors_mm: Sequence[float], n: int) -> Choice:
    return Choice(method, scenario, tuned.parameter, tuned.values, tuple(errors_mm), n)


def _key(tuned: Tuned, scenarios: Sequence[Scenario], cohort: Cohort) -> str:
    """Digest of all that the choice depends on."""
    heads = [cohort.template, *(h for s in scenarios for h in heads_to_fit(s, cohort))]
    parts = {
        "code": code_digest(FOLDERS),
        "method": [identity_of(candidate) for candidate in tuned.candidates],
        "values": tuned.values,
        "n_examples": tuned.n_examples,
        # How many test recordings there are, and how they are cut, decides nothing here.
        "scenarios": [repr(replace(s, n_examples=2, batch_size=1)) for s in scenarios],
        "heads": [head.fingerprint for head in heads],
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def tune(
    models: Mapping[str, Model | Tuned],
    scenarios: Sequence[Scenario],
    cohort: Cohort,
    processes: int = 1,
    on_progress: Callable[[str], None] = lambda line: None,
    cache: Path | None = None,
) -> tuple[dict[str, Method], list[Choice]]:
    """Put in place of every `Tuned` what was chosen for each scenario.

    Args:
        models: Name to model.
        scenarios: The test sets.
        cohort: The heads of the run.
        processes: Number of processes.
        on_progress: Called with a line for each method and scenario.
        cache: Folder of earlier choices, as of `choose`.

    Returns:
        The methods, in the same order, and what was chosen.

    Raises:
        ValueError: The head of the analyst does not have what a method needs.

    """
    check_head(models, cohort.template)
    methods, choices = dict[str, Method](), []
    names = dict.fromkeys(scenario.name for scenario in scenarios)
    for method, model in models.items():
        if not isinstance(model, Tuned):
            methods[method] = model
            continue
        chosen = {}
        for name in names:
            on_progress(f"{method}: {model.parameter} on validation recordings of {name}")
            own = [scenario for scenario in scenarios if scenario.name == name]
            choices.append(choose(method, model, own, cohort, processes, cache))
            chosen[name] = model.at(choices[-1].value)
        methods[method] = PerScenario(chosen)
    return methods, choices


def write_csv(choices: Sequence[Choice], path: Path) -> None:
    """Write ``tuning.csv``: every value tried, its error, and which was chosen."""
    columns = ["method", "scenario", "parameter", "value", CRITERION, "n", "chosen"]
    rows = (
        (c.method, c.scenario, c.parameter, in_words(value), error, c.n, value == c.value)
        for c in choices
        for value, error in zip(c.values, c.errors_mm, strict=True)
    )
    write_rows(path, columns, rows)
