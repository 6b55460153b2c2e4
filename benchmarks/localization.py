"""Localization error alone, of many methods: ``python -m benchmarks.localization``.

``deepesi evaluate`` computes every metric of every example. This computes one, a batch at a time,
which takes less time where every batch has an anatomy and a set-up of its own.
Recordings, methods and numbers are those of ``deepesi evaluate``; the differences to the reference
are left out. The CSV has the columns of ``benchmark.csv``. ``--by-source`` adds means over the
recordings of sources in a range of depths, and of angles to the scalp.
"""

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.baselines.tuned import Tuned
from deepesi.cli.loading import load_baselines, load_named, load_scenarios
from deepesi.composition import compose
from deepesi.evaluation.benchmark import Row, write_csv
from deepesi.evaluation.first_sources import FirstSources, first_sources
from deepesi.evaluation.intervals import bootstrap_interval
from deepesi.evaluation.methods import Model
from deepesi.evaluation.parallel import one_thread
from deepesi.evaluation.scenario import Scenario
from deepesi.evaluation.scores import apply_model
from deepesi.metrics.example import Geometry
from deepesi.metrics.source_metric import examples
from deepesi.metrics.table import METRICS
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import load_template

Array = NDArray[np.float64]

METRIC = "localization_error"
#: Inner edges of ranges of depth, mm, and of angle, degrees: 90 is tangential.
DEPTHS, ANGLES = (26, 32, 42), (25, 45, 65)


class Errors(NamedTuple):
    """Errors of every method at every SNR, mm, and where the sources of the recordings lie."""

    values: dict[tuple[str, float], Array]
    sources: FirstSources


def errors(scenario: Scenario, cohort: Cohort, models: dict[str, Model]) -> Errors:
    """Errors of every method on the same recordings at every SNR."""
    recordings = scenario.recordings(cohort, list(models.values()))
    found: dict[tuple[str, float], list[float]] = {}
    where = []
    for step, size in enumerate(scenario.sizes):
        for snr_db in map(float, scenario.snr_db):
            parts = recordings.at_snr(snr_db).parts(step)
            geometry = Geometry(parts.batch.head)
            for name, model in models.items():
                scored = list(examples(apply_model(model, parts.batch), parts.batch))[:size]
                own = [METRICS[METRIC].function(example, geometry) for example in scored]
                found.setdefault((name, snr_db), []).extend(own)
        where.append([values[:size] for values in first_sources(parts)])
    sources = FirstSources(*map(np.concatenate, zip(*where, strict=True)))
    return Errors({key: np.array(values) for key, values in found.items()}, sources)


def ranges(sources: FirstSources) -> dict[str, NDArray[np.bool_]]:
    """Name of every range of depth or angle, and which sources lie in it."""
    found = {}
    for values, (first, *inner, last), texts in (
        (sources.depth, DEPTHS, ("below {:g} mm", "{:g}-{:g} mm", "above {:g} mm")),
        (sources.angle, ANGLES, ("0-{:g}°", "{:g}-{:g}°", "{:g}-90°")),
    ):
        found[texts[0].format(first)] = values < first
        for low, high in pairwise((first, *inner, last)):
            found[texts[1].format(low, high)] = (values >= low) & (values < high)
        found[texts[2].format(last)] = values >= last
    return found


def rows(
    scenario: Scenario, cohort: Cohort, models: dict[str, Model], by_source: bool = False
) -> Iterator[Row]:
    """One line per method and SNR of a test set; `by_source`: and per range of `ranges`."""
    measured = errors(scenario, cohort, models)
    level = scenario.level
    parts = {level: np.ones(len(measured.sources.depth), dtype=bool)}
    if by_source:
        own = ranges(measured.sources)
        parts |= {", ".join(filter(None, (level, name))): rows for name, rows in own.items()}
    for name, inside in parts.items():
        for (method, snr_db), values in measured.values.items():
            if inside.any():
                yield mean_row(scenario, method, snr_db, name, values[inside])


def mean_row(scenario: Scenario, method: str, snr_db: float, level: str, values: Array) -> Row:
    """Mean, interval and median of errors of a method."""
    low, high = (float(end) if np.isfinite(end) else None for end in bootstrap_interval(values))
    return Row(
        method=method,
        scenario=scenario.name,
        snr_db=snr_db,
        n_sources=scenario.n_sources,
        metric=METRIC,
        value=float(values.mean()),
        ci_low=low,
        ci_high=high,
        median=float(np.median(values)),
        n=len(values),
        axis=scenario.axis,
        level=level or f"{snr_db:g}",
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", default="fsaverage-ico3-free")
    parser.add_argument("--scenario", default="stranger")
    parser.add_argument("--examples", type=int, default=120)
    parser.add_argument("--snr", nargs="*", type=float, help="dB; those of the scenario by default")
    parser.add_argument("--by-source", action="store_true", help="also by depth and angle")
    parser.add_argument("--levels", nargs="*", default=[], help="all by default")
    parser.add_argument("--models", nargs="*", default=["default", "ensemble", "convdip"])
    parser.add_argument("--baselines", default="dipole_scan,dipole_scan_fixed,bayes_single_patch")
    parser.add_argument("--out", type=Path, default=Path("localization.csv"))
    arguments = parser.parse_args()
    template = load_template(arguments.head)
    named, _ = load_named(arguments.models, template, "localization")
    config = compose("evaluate", [f"baselines=[{arguments.baselines}]"])
    models: dict[str, Model] = dict(named)
    for name, model in load_baselines(config).items():
        if isinstance(model, Tuned):
            parser.error(f"{name} is tuned per scenario: use 'deepesi evaluate'.")
        models[name] = model
    chosen = [f"scenario={arguments.scenario}", f"scenario.n_examples={arguments.examples}"]
    chosen += [f"scenario.snr_db={arguments.snr}"] if arguments.snr else []
    written = list[Row]()
    with one_thread():
        for scenario in load_scenarios([compose("evaluate", chosen).scenario]):
            if arguments.levels and scenario.level not in arguments.levels:
                continue
            for row in rows(scenario, Cohort.single(template), models, arguments.by_source):
                written.append(row)
                print(f"{row.level:24} {row.snr_db:3g} dB  {row.value:5.1f} mm  {row.method}")
            write_csv(written, arguments.out)


if __name__ == "__main__":
    main()
