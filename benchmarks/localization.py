"""Localization error alone, of many methods: ``python -m benchmarks.localization``.

``deepesi evaluate`` computes every metric of every example. This computes one, a batch at a time,
which takes less time where every batch has an anatomy and a set-up of its own.
Recordings, methods and numbers are those of ``deepesi evaluate``; the differences to the reference
are left out. The CSV has the columns of ``benchmark.csv``.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepesi.baselines.tuned import Tuned
from deepesi.cli.loading import load_baselines, load_named, load_scenarios
from deepesi.composition import compose
from deepesi.evaluation.benchmark import Row, write_csv
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

METRIC = "localization_error"


def errors(
    scenario: Scenario, cohort: Cohort, models: dict[str, Model]
) -> dict[tuple[str, float], list[float]]:
    """Errors of every method at every SNR, mm."""
    recordings = scenario.recordings(cohort, list(models.values()))
    found: dict[tuple[str, float], list[float]] = {}
    for step, size in enumerate(scenario.sizes):
        for snr_db in map(float, scenario.snr_db):
            batch = recordings.at_snr(snr_db).batch(step)
            geometry = Geometry(batch.head)
            for name, model in models.items():
                scored = list(examples(apply_model(model, batch), batch))[:size]
                own = [METRICS[METRIC].function(example, geometry) for example in scored]
                found.setdefault((name, snr_db), []).extend(own)
    return found


def rows(scenario: Scenario, cohort: Cohort, models: dict[str, Model]) -> Iterator[Row]:
    """One line per method and SNR of a test set."""
    for (name, snr_db), values in errors(scenario, cohort, models).items():
        known = np.array(values)
        low, high = bootstrap_interval(known[:, None])[:, 0].tolist()
        yield Row(
            method=name,
            scenario=scenario.name,
            snr_db=snr_db,
            n_sources=scenario.n_sources,
            metric=METRIC,
            value=float(known.mean()),
            ci_low=low,
            ci_high=high,
            median=float(np.median(known)),
            n=len(known),
            axis=scenario.axis,
            level=scenario.level or f"{snr_db:g}",
        )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", default="fsaverage-ico3-free")
    parser.add_argument("--scenario", default="stranger")
    parser.add_argument("--examples", type=int, default=120)
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
    written = list[Row]()
    with one_thread():
        for scenario in load_scenarios([compose("evaluate", chosen).scenario]):
            if arguments.levels and scenario.level not in arguments.levels:
                continue
            for row in rows(scenario, Cohort.single(template), models):
                written.append(row)
                print(f"{row.level:24} {row.snr_db:3g} dB  {row.value:5.1f} mm  {row.method}")
            write_csv(written, arguments.out)


if __name__ == "__main__":
    main()
