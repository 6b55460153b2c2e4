"""Calibration of posteriors and of other methods: ``python -m benchmarks.posteriors SETTINGS``.

Settings are those of ``deepesi calibrate`` (``models=[...] baselines=[...] scenario=several``).
Written are CSV files whose names begin with ``--out``, each with a ``.yaml`` of its origin, as
``docs/tables.py`` reads them:

- ``NAME.csv``: for every method the share of recordings whose conformal set of 90 % holds all
  sources, its mean area, proper scores, simulation-based calibration, and the accuracy of a
  classifier between its draws and those of a reference (C2ST), with one source and with two or
  three;
- ``NAME_joint.csv``: coverage and area of joint sets from draws, by number of sources;
- ``NAME_skull.csv``: coverage and length of 90 % intervals of the skull conductivity.

With ``--recalibrated`` every posterior model has a second line: its samples with the distances from
their mean multiplied by the temperature, which is fitted on the validation recordings. A column has
the deviation of expected coverage with levels that are corrected by the coverage there.

With ``--refined`` C2ST also has lines of structured posteriors with draws that `refine` corrects
for the known head and skull, and of the reference itself with other random numbers. A column has
the median of the effective numbers of draws.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from omegaconf import DictConfig

from deepesi.baselines.bayes_patches import BayesPatches
from deepesi.baselines.bayes_single_patch import BayesSinglePatch
from deepesi.calibration.conformal import proportion, reach_kernel
from deepesi.calibration.coverage_tests import c2st, coverage_deviation, expected_coverage
from deepesi.calibration.sample_sources import NEAR, are_sparse, joint_set, source_peaks
from deepesi.calibration.sbc import half_width
from deepesi.cli.calibrate import heads_of, load_models, one_scenario
from deepesi.composition import compose
from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate, InverseModel, PosteriorModel
from deepesi.core.quantities import magnitude
from deepesi.evaluation.calibration import ALL, RECORDING, CalibrationRow, cell, fit, measure
from deepesi.evaluation.intervals import bootstrap_interval, interval_text
from deepesi.evaluation.leaderboard import commit
from deepesi.evaluation.observation import (
    N_DRAWS,
    RANKED,
    Observations,
    batches_to_fit,
    batches_to_test,
    observe,
)
from deepesi.evaluation.parallel import one_thread
from deepesi.evaluation.scenario import Scenario
from deepesi.metrics.example import Geometry
from deepesi.models.posterior.configuration import on_sources
from deepesi.models.posterior.importance import refine
from deepesi.models.posterior.structured import StructuredPosterior
from deepesi.physics.cohort import Cohort
from deepesi.uncertainty.tempered import tempered
from deepesi.utils.files import atomic
from deepesi.utils.rows import write_rows

Array = NDArray[np.float64]
Batches = Sequence[tuple[Batch, int]]

LEVEL = 0.9
#: Name of the reference with other random numbers.
ITSELF = "the reference itself"
#: Settings of recordings for the two references, which take the nominal lead field as the true one.
NOMINAL_HEAD = ("scenario.setups.displacement=0", "scenario.tissues.skull_conductivity=[0.01,0.01]")
CM2 = 1e4


def drawn(model: InverseModel, batch: Batch, n: int, seed: int = 0) -> Estimate:
    """The estimate of a model, with `n` draws of a posterior model."""
    with torch.no_grad():
        estimate = model.eval()(batch.data, batch.inputs)
        if isinstance(model, PosteriorModel):
            samples = model.draw(batch.data, batch.inputs, n, seed)
            estimate = estimate._replace(samples=samples)
    return estimate


def summaries(samples: Array, positions: Array) -> Array:
    """Position of the strongest source (cm) and logarithm of the norm of samples ``(N, 4)``.

    Args:
        samples: Magnitudes ``(N, S)``, A m.
        positions: Source locations ``(S, 3)``, m.

    """
    norms = np.log(np.linalg.norm(samples, axis=1).clip(1e-15))
    return np.column_stack([100 * positions[samples.argmax(axis=1)], norms])


def single_source_draws(model: BayesSinglePatch, batch: Batch, n: int, seed: int) -> Array:
    """Positions of the source (cm) ``(N, B, 3)``, by the exact posterior."""
    with torch.no_grad():
        by_source = model.probabilities(batch.data, batch.inputs).sum(0)
    generator = torch.Generator().manual_seed(seed)
    sites = torch.multinomial(by_source.T.double(), n, replacement=True, generator=generator)
    return np.asarray(100 * batch.head.source_pos[sites.T.numpy()])


def refined_draws(model: StructuredPosterior, batch: Batch, n: int) -> tuple[torch.Tensor, Array]:
    """Samples that are corrected for the nominal head, and effective numbers of draws ``(B,)``."""
    found = refine(model, batch.data, batch.inputs, n, log_skull=0.0)
    inputs = batch.inputs
    directions = inputs[model.directions.key]
    samples = on_sources(
        found.configuration, inputs[model.members.key], inputs[model.shares.key], directions
    )
    return samples, found.n_effective.numpy()


class Comparison(NamedTuple):
    """Comparison of draws with those of a reference, by method, for recordings ``(B,)``."""

    accuracies: dict[str, Array]  # of a classifier between both
    effective: dict[str, Array]  # effective numbers of draws of refined methods


def distances_to_reference(
    models: Mapping[str, InverseModel], batch: Batch, n: int, several: bool, refined: bool
) -> Comparison:
    """Accuracy of a classifier between draws of each posterior model and of the reference.

    With one source the positions are compared, else the `summaries`.

    Args:
        models: Models by name.
        batch: Recordings.
        n: Number of draws per recording.
        several: Whether there are two or three sources.
        refined: Also compare refined draws, and the reference with other random numbers.

    """
    positions, n_orient = batch.head.source_pos, batch.head.space.n_orient

    def own(samples: torch.Tensor, number: int) -> Array:
        maps = magnitude(samples[:, number], n_orient).double().numpy()
        return summaries(maps, positions)[:, : 4 if several else 3]

    def of_reference(seed: int) -> Array:
        if not several:
            return single_source_draws(BayesSinglePatch(), batch, n, seed=seed + 1)
        with torch.no_grad():
            samples = BayesPatches(n_samples=n, seed=seed)(batch.data, batch.inputs).samples
        assert samples is not None
        return np.stack([own(samples, i) for i in range(len(batch.data))], axis=1)

    reference = of_reference(0)

    def accuracies(draws: Sequence[Array]) -> Array:
        return np.array([c2st(reference[:, i], values) for i, values in enumerate(draws)])

    numbers = range(len(batch.data))
    found, effective = {}, {}
    for name, model in models.items():
        if isinstance(model, PosteriorModel):
            samples = drawn(model, batch, n).samples
            assert samples is not None
            found[name] = accuracies([own(samples, i) for i in numbers])
        if refined and isinstance(model, StructuredPosterior):
            label = f"{name}, refined"
            samples, effective[label] = refined_draws(model, batch, n)
            found[label] = accuracies([own(samples, i) for i in numbers])
    if refined:
        found[ITSELF] = accuracies(list(of_reference(1).transpose(1, 0, 2)))
    return Comparison(found, effective)


def joint_set_rows(
    name: str, magnitudes: Iterable[Array], batches: Batches, level: float = LEVEL
) -> list[tuple[Any, ...]]:
    """Method, number of sources, coverage and median area of joint sets, number of recordings.

    Args:
        name: Name of the method.
        magnitudes: Magnitudes of draws ``(N, S)`` of every recording, in the order of the batches.
        batches: Recordings, and how many of each batch count.
        level: Probability of the sets.

    """
    counts, hits, areas = [], [], []
    kernels: dict[bytes, tuple[Array, Array]] = {}
    examples = ((batch, i) for batch, n in batches for i in range(n))
    for values, (batch, i) in zip(magnitudes, examples, strict=True):
        key = batch.head.source_pos.tobytes()
        if key not in kernels:
            kernels[key] = Geometry(batch.head).areas, reach_kernel(batch.head.source_pos, NEAR)
        area, kernel = kernels[key]
        inside = joint_set(source_peaks(values, batch.head.space.edges), kernel, level)
        peaks = batch.scene.peaks[i].numpy()
        peaks = peaks[peaks >= 0]
        counts.append(len(peaks))
        hits.append(inside[peaks].all())
        areas.append(CM2 * area[inside].sum())
    number, hit, cm2 = np.array(counts), np.array(hits), np.array(areas)
    rows = []
    for label in (ALL, *np.unique(number)):
        there = np.ones(len(number), bool) if label == ALL else number == label
        covered = proportion(int(hit[there].sum()), int(there.sum()))
        area_text = f"{np.median(cm2[there]):.0f}"
        rows.append((name, label, interval_text(*covered, 3), area_text, int(there.sum())))
    return rows


def skull_row(
    label: str, model: StructuredPosterior, batches: Batches, n: int
) -> tuple[str, str, str, int]:
    """Coverage of 90 % intervals of the skull conductivity, and length over that of the prior."""
    hits, lengths = [], []
    for step, (batch, keep) in enumerate(batches):
        size = int(model.noise_size(batch.data, batch.inputs))
        noise = torch.randn(
            (n, len(batch.data), size), generator=torch.Generator().manual_seed(step)
        )
        with torch.no_grad():
            found = model.sample_configurations(batch.data, batch.inputs, noise)
        values = found.log_skull[:, :keep].double().numpy()
        true = model.target(batch).log_skull[0, :keep].double().numpy()
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        hits += list((low <= true) & (true <= high))
        lengths += list(half_width(values, LEVEL))
    # The logarithm is uniform between the ends of the range before the recording.
    share = np.array(lengths) / (LEVEL * model.log_widest)
    covered = interval_text(*proportion(int(np.sum(hits)), len(hits)), 3)
    return label, covered, with_interval(share, 2), len(hits)


def with_interval(values: Array, decimals: int) -> str:
    """Mean with its 95 % interval over recordings; ``-`` without values."""
    values = values[np.isfinite(values)]
    if not len(values):
        return "-"
    low, high = bootstrap_interval(values)
    ends = (low, high) if np.isfinite((low, high)).all() else (None, None)
    return interval_text(float(values.mean()), *ends, decimals)


def calibration_cells(rows: Sequence[CalibrationRow]) -> list[str]:
    """Coverage and area of sets, scores, deviation of expected coverage, p values; all SNRs."""
    found = {(row.group, row.metric): row for row in rows if row.snr_db == ALL}
    scores = [found.get((RECORDING, metric)) for metric in ("crps", "energy_score")]
    off = found.get(("distance", "tarp_deviation"))
    p_values = [found.get((group, "sbc_p")) for group in ("peak", "norm")]
    return [
        cell(found["prediction_set", "coverage"], 3),
        cell(found["prediction_set", "area_cm2"], 0),
        *("-" if score is None else cell(score, 3) for score in scores),
        "-" if off is None else f"{off.value:.3f}",
        " / ".join("-" if p is None else f"{p.value:.2g}" for p in p_values),
    ]


def at_all_snrs(
    scenario: Scenario, cohort: Cohort, models: Sequence[InverseModel]
) -> list[tuple[Batch, int]]:
    """Test batches at every SNR, with how many of their recordings count."""
    return [
        pair
        for snr_db in scenario.snr_db
        for pair in batches_to_test(scenario, cohort, float(snr_db), models)
    ]


def compared(
    settings: Sequence[str],
    cohort: Cohort,
    models: Mapping[str, InverseModel],
    n: int,
    draws: int,
    refined: bool,
) -> list[Comparison]:
    """C2ST of every posterior model, with one source and with two or three, on nominal heads."""
    found = []
    for several, n_sources in ((False, "[1,1]"), (True, "[2,3]")):
        own = [*settings, *NOMINAL_HEAD, f"scenario.sources.n_sources={n_sources}"]
        config = compose("calibrate", [*own, f"scenario.n_examples={n}"])
        references: list[InverseModel] = [BayesSinglePatch(), BayesPatches(n_samples=draws)]
        batches = at_all_snrs(
            one_scenario(config.scenario), cohort, [*models.values(), *references]
        )
        parts = [
            distances_to_reference(models, batch.part(slice(keep)), draws, several, refined)
            for batch, keep in batches
        ]
        joined = (
            {name: np.concatenate([values[name] for values in column]) for name in column[0]}
            for column in zip(*parts, strict=True)
        )
        found.append(Comparison(*joined))
    return found


def calibrated(
    config: DictConfig,
    scenario: Scenario,
    cohort: Cohort,
    models: dict[str, InverseModel],
    recalibrated: bool,
) -> tuple[dict[str, list[CalibrationRow]], dict[str, str]]:
    """Rows of ``deepesi calibrate``, and TARP deviation with corrected levels, by method.

    Recalibrated posteriors are added to `models`.
    """
    several = list(models.values())
    observed = observe(
        models,
        lambda snr: batches_to_fit(scenario, cohort, snr, several, config.n_validation),
        scenario.snr_db,
        config.covers,
    )
    fitted = {name: fit(observed[name], LEVEL, config.n_bins) for name in models}
    for name, model in list(models.items()) if recalibrated else []:
        temperature = fitted[name].temperature
        if isinstance(model, PosteriorModel) and temperature is not None:
            own = f"{name}, recalibrated ({temperature:.2f})"
            # The mean stays, and with it the prediction sets.
            models[own], fitted[own] = tempered(model, temperature), fitted[name]
    tests = observe(
        models,
        lambda snr: batches_to_test(scenario, cohort, snr, several),
        scenario.snr_db,
        config.covers,
    )
    heads = ", ".join(head.name for head in scenario.true_heads(cohort))
    rows = {name: measure(name, scenario.name, heads, fitted[name], tests[name]) for name in models}
    return rows, {name: corrected_deviation(observed[name], tests[name]) for name in observed}


def corrected_deviation(validation: Observations, tests: Observations) -> str:
    """TARP deviation where a level is replaced by its expected coverage in validation."""
    if validation.ranks is None or tests.ranks is None:
        return "-"
    fitted, ranks = (
        found[:, RANKED.index("distance")] / N_DRAWS for found in (validation.ranks, tests.ranks)
    )
    return f"{coverage_deviation(expected_coverage(fitted, ranks)):.3f}"


def keep(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]], seed: int) -> None:
    """Write a CSV, and a ``.yaml`` file that describes its origin."""
    write_rows(path, columns, rows)
    facts = {
        "command": " ".join([f"python -m benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "commit": commit(),
        "seed": seed,
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
    }
    with atomic(path.with_suffix(".yaml")) as partial:
        partial.write_text(yaml.safe_dump(facts, sort_keys=False), encoding="utf-8")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", help="settings of deepesi calibrate")
    parser.add_argument("--draws", type=int, default=200, help="draws per recording")
    parser.add_argument(
        "--compared", type=int, default=10, help="recordings of C2ST, per SNR; 0: no C2ST"
    )
    parser.add_argument(
        "--recalibrated", action="store_true", help="also samples with a fitted temperature"
    )
    parser.add_argument(
        "--refined", action="store_true", help="C2ST also of draws corrected for the known head"
    )
    parser.add_argument("--out", type=Path, default=Path("posteriors"), help="name of the results")
    arguments = parser.parse_args()
    config = compose("calibrate", arguments.settings)
    cohort, scenario = heads_of(config.head), one_scenario(config.scenario)
    models, _ = load_models(config, cohort)
    out: Path = arguments.out
    with one_thread():
        rows, corrected = calibrated(config, scenario, cohort, models, arguments.recalibrated)
        tests = at_all_snrs(scenario, cohort, list(models.values()))
        lines, joint, skull = [], [], []
        accuracies = (
            compared(
                arguments.settings,
                cohort,
                models,
                arguments.compared,
                arguments.draws,
                arguments.refined,
            )
            if arguments.compared
            else []
        )

        def of_comparison(name: str) -> Iterator[str]:
            yield from (with_interval(a.accuracies.get(name, np.empty(0)), 2) for a in accuracies)
            if arguments.refined:
                numbers = [a.effective[name] for a in accuracies if name in a.effective]
                yield " / ".join(f"{np.median(values):.0f}" for values in numbers) or "-"

        for name, model in models.items():
            maps = []
            for batch, n in tests:
                estimate = drawn(model, batch.part(slice(n)), arguments.draws)
                if estimate.samples is not None:
                    first = magnitude(
                        estimate.samples[..., :1].flatten(0, 1), batch.head.space.n_orient
                    )
                    by_recording = first.unflatten(0, (-1, n)).transpose(0, 1)
                    maps += list(by_recording.double().numpy())
            *first_cells, tarp, p_values = calibration_cells(rows[name])
            tarps = (tarp, corrected.get(name, "-")) if arguments.recalibrated else (tarp,)
            lines.append((name, *first_cells, *tarps, p_values, *of_comparison(name)))
            print(*lines[-1], sep=" | ", flush=True)
            if maps and are_sparse(maps[0]):
                joint += joint_set_rows(name, maps, tests)
            if isinstance(model, StructuredPosterior):
                skull.append(skull_row(name, model, tests, arguments.draws))
        unmeasured = ["-"] * (6 + arguments.recalibrated)
        for name in accuracies[0].accuracies if accuracies else []:
            if name not in models:
                lines.append((name, *unmeasured, *of_comparison(name)))
                print(*lines[-1], sep=" | ", flush=True)
    columns = ["method", "sets hold all sources", "mean area (cm²)", "CRPS (nA m)"]
    columns += ["energy score (nA m)", "TARP deviation"]
    columns += ["TARP deviation, corrected levels"] if arguments.recalibrated else []
    columns += ["SBC p, peak / norm"]
    columns += ["C2ST, one source", "C2ST, two or three"] if accuracies else []
    columns += ["effective draws"] if arguments.refined else []
    keep(out.with_suffix(".csv"), columns, lines, scenario.seed)
    columns = ["method", "sources", "joint sets hold all", "median area (cm²)", "recordings"]
    keep(out.with_name(f"{out.name}_joint.csv"), columns, joint, scenario.seed)
    columns = ["method", "90 % interval holds the skull", "length over the prior's", "recordings"]
    keep(out.with_name(f"{out.name}_skull.csv"), columns, skull, scenario.seed)


if __name__ == "__main__":
    main()
