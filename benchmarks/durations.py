"""Error against the number of samples of a constant course: ``python -m benchmarks.durations``.

The mean of T samples of a constant has 10 log10 T dB more signal relative to noise that is white in
time, and nothing else in the window tells about the source. So a model that uses a window fully has
the error that it has on one sample of that SNR. Rows of the CSV have the columns of
``benchmark.csv``; level ``T``: windows; ``mean of T``: one sample with the SNR of the mean.
"""

import argparse
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from benchmarks.localization import METRIC, mean_row
from deepesi.cli.loading import load_baselines, load_named, load_scenarios
from deepesi.composition import compose
from deepesi.core.batch import Batch
from deepesi.data_gen.waveforms import Shape, TimeCourse
from deepesi.evaluation.benchmark import Row, write_csv
from deepesi.evaluation.methods import Model, of_scenario
from deepesi.evaluation.parallel import one_thread
from deepesi.evaluation.scenario import Scenario
from deepesi.evaluation.scores import apply_model
from deepesi.evaluation.tuning import tune
from deepesi.metrics.example import Geometry
from deepesi.metrics.source_metric import examples
from deepesi.metrics.table import METRICS
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import load_template

#: Examples inverted at once.
AT_ONCE = 4


@dataclass(frozen=True)
class Constant(TimeCourse):
    """A constant."""

    @property
    def highest_frequency(self) -> float:
        """Zero."""
        return 0.0

    def _time_courses(self, shape: Shape, n_times: int, sfreq: float, rng: Generator) -> Tensor:
        return torch.ones(*shape, n_times, device=rng.device)


def constant_scenario(snr_db: float, n_examples: int) -> Scenario:
    """One source as in ``scenario=snr``, of a constant time course."""
    words = ["scenario=snr", f"scenario.n_examples={n_examples}", f"scenario.snr_db=[{snr_db:g}]"]
    (scenario,) = load_scenarios([compose("evaluate", words).scenario])
    sources = replace(scenario.sources, time_course=Constant())
    return replace(scenario, name="constant", axis="samples", sources=sources)


def rows(
    scenario: Scenario, cohort: Cohort, models: dict[str, Model], lengths: Sequence[int]
) -> Iterator[Row]:
    """One line per method for every length, and for one sample with the SNR of the mean."""
    recordings = scenario.recordings(cohort, list(models.values()))
    (snr_db,) = map(float, scenario.snr_db)
    for n_times in lengths:
        window = copy.copy(recordings)  # with the same set-up
        window.lengths = [n_times]
        mean = recordings.at_snr(snr_db + 10 * np.log10(n_times))
        batches = {
            f"{n_times}": window.at_snr(snr_db).batch(0),
            f"mean of {n_times}": mean.batch(0),
        }
        for name, model in models.items():
            for level, batch in batches.items():
                yield mean_row(scenario, name, snr_db, level, errors(model, batch))


def errors(model: Model, batch: Batch) -> np.ndarray:
    """Localization error of every example, mm."""
    geometry, found = Geometry(batch.head), list[float]()
    for first in range(0, len(batch.data), AT_ONCE):
        part = batch.part(slice(first, first + AT_ONCE))
        for example in examples(apply_model(model, part), part):
            found.append(METRICS[METRIC].function(example, geometry))
    return np.array(found)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snr", type=float, default=-10.0, help="of a sample, dB")
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--lengths", nargs="*", type=int, default=[1, 5, 20, 100, 500])
    parser.add_argument("--models", nargs="*", default=[], help="as models= of deepesi evaluate")
    parser.add_argument("--baselines", default="", help="names with commas")
    parser.add_argument("--out", type=Path, default=Path("constant.csv"))
    arguments = parser.parse_args()
    template = load_template("fsaverage-ico3")
    cohort, scenario = Cohort.single(template), constant_scenario(arguments.snr, arguments.examples)
    named, _ = load_named(arguments.models, template, "durations")
    config = compose("evaluate", [f"baselines=[{arguments.baselines}]"])
    levels = [replace(scenario, n_times=n, level=str(n)) for n in arguments.lengths[:-1]]
    written = list[Row]()
    with one_thread():
        methods, _ = tune({**named, **load_baselines(config)}, levels, cohort)
        known = of_scenario(methods, scenario.name)
        for found in rows(scenario, cohort, known, arguments.lengths):
            written.append(found)
            print(f"{found.level:12} {found.value:5.1f} mm  {found.method}", flush=True)
            write_csv(written, arguments.out)


if __name__ == "__main__":
    main()
