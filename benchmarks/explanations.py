"""Grades of attributions in simulation: ``python -m benchmarks.explanations --models RUN ...``.

``--shuffled RUN ...`` gives runs of the same networks on shuffled targets, see
`benchmarks.shuffled_targets`, for the last of ``--models`` and in their order; ``none`` where there
is none.

``--methods NAME ...`` takes some of the methods only; without a name, the second CSV alone is
written, in seconds.

``--head fsaverage-ico3-free`` grades networks of free orientation, such as ``experiment=stranger``.

Single patches of 10-25 mm at one SNR, as in ``scenario=snr``, at the electrodes of a cap. Every
method of `deepesi.interpret` explains the share of the power near the strongest source of an
estimate, and is graded by `deepesi.interpret.networks.grading`. The CSV has one line for each
model and method, means with 95 % intervals over the recordings. A second CSV, ``NAME_errors.csv``,
says how far from the target each model finds the source: as it is, with random weights and on
shuffled targets.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from deepesi.cli.loading import load_baselines, load_named, load_scenarios
from deepesi.composition import compose
from deepesi.core.contracts import InverseModel, as_tensors
from deepesi.evaluation.intervals import bootstrap_interval, interval_text
from deepesi.evaluation.parallel import one_thread
from deepesi.interpret.any_model.frames import Explained, Frame, Run, frame_at
from deepesi.interpret.any_model.occlusion import filled, occlusion
from deepesi.interpret.any_model.targets import Share, explained, neighbourhood
from deepesi.interpret.networks import gradients
from deepesi.interpret.networks.grading import (
    LARGEST_CORRELATION,
    bayes_sensitivity,
    curves,
    rank_correlation,
    with_random_weights,
)
from deepesi.physics.channel_check import channel_precision
from deepesi.physics.cohort import Cohort
from deepesi.physics.head import HeadModel, magnitudes
from deepesi.physics.head_inputs import PatchTopographies, prepare
from deepesi.physics.noise import whitener
from deepesi.physics.template import Template, load_template
from deepesi.training.saved import load_any
from deepesi.utils.rows import write_rows

Array = NDArray[np.float64]

#: The recording itself, which no model has anything to do with: a control that must fail.
CONTROL = "map of the recording (control)"
METHODS = {
    name: name.replace("_", " ")
    for name in ("saliency", "integrated_gradients", "deep_lift", "occlusion")
} | {"control": CONTROL}
PATCHES = PatchTopographies(0.010, 0.025, 4)
#: Columns of the randomization check, and what a cell says where a model has no such map.
CHECKS = {"random weights": "no weights", "shuffled targets": "-", "another target": "-"}
#: Least distance of the other target, m; random orders per recording; baselines.
ANOTHER, N_ORDERS, N_BASELINES = 0.06, 8, 2
COLUMNS = (
    "model",
    "method",
    "rank correlation with Bayes",
    "deletion, gain over chance",
    "insertion, gain over chance",
    "random weights, rank correlation",
    "shuffled targets, rank correlation",
    "another target, rank correlation",
    "randomization check",
)
#: What the second CSV compares, and its columns, mm.
VERSIONS = ("as trained", "random weights", "shuffled targets")
ERRORS = ("model", *(f"localization error (mm), {version}" for version in VERSIONS))


class Case(NamedTuple):
    """One recording with what is known of it."""

    data: Array
    head: HeadModel
    precision: Array
    seed: int
    peak: int  # source number of the target


class Maps(NamedTuple):
    """A model on a recording: what is explained, in torch and in NumPy."""

    tensors: Explained
    arrays: Explained


def cases(n: int, snr_db: float, montage: str, template: Template) -> Iterator[Case]:
    """Recordings, each in a reference of its own head."""
    chosen = [
        "scenario=snr",
        f"scenario.n_examples={max(n, 2)}",
        f"scenario.setups.montages=[{montage}]",
    ]
    (scenario,) = load_scenarios([compose("evaluate", chosen).scenario])
    stream = scenario.recordings(Cohort.single(template), []).at_snr(snr_db)
    for step, size in enumerate(scenario.sizes):
        batch = stream.batch(step)
        precision = channel_precision(batch.head)
        for number in range(size):
            data, peak = batch.data[number].double().numpy(), int(batch.scene.peaks[number, 0])
            yield Case(data, batch.head, precision, number, peak)


def run_in_numpy(run: Run) -> Run:
    """The same model on arrays, without gradients."""

    def on_arrays(data: Array) -> Array:
        with torch.no_grad():
            return np.asarray(run(torch.tensor(data, dtype=torch.float32)).double().numpy())

    return on_arrays


def attribution(method: str, maps: Maps, case: Case) -> Array:
    """One map ``(C,)``."""
    data, noise_std = case.data, np.sqrt(case.head.noise_cov.diagonal())
    if method == "control":
        return np.abs(data / noise_std[:, None]).sum(1)
    if method == "occlusion":
        fill = filled(data, case.precision)
        return occlusion(maps.arrays, data, fill, case.head.sensors)[:, 0]
    if method == "saliency":
        return gradients.saliency(maps.tensors, data, noise_std).sum(1)
    baselines = gradients.noise_recordings(case.head.noise_cov, data.shape[1], N_BASELINES)
    return gradients.AGAINST_BASELINES[method](maps.tensors, data, baselines).sum(1)


def maps_of(run: Run, frame: Frame, target: Share) -> Maps:
    """What is explained of a model on one recording."""
    return Maps(explained(frame, run, target), explained(frame, run_in_numpy(run), target))


def with_others(
    model: InverseModel, shuffled: InverseModel | None, case: Case
) -> list[InverseModel | None]:
    """The model as in `VERSIONS`; None where there is no such version."""
    has_weights = any(True for _ in model.parameters())
    return [model, with_random_weights(model, case.seed) if has_weights else None, shuffled]


def estimated_peak(run: Run, case: Case) -> int:
    """Number of the strongest source of an estimate."""
    moments = frame_at(case.data, 0, None).moments(run_in_numpy(run), case.data[None])[0]
    return int(magnitudes(moments, case.head.space.n_orient).argmax())


def errors(runs: Sequence[Run | None], case: Case) -> list[float]:
    """Distance from the target to the strongest source, mm; NaN where there is no model."""
    positions = case.head.source_pos
    return [
        np.nan
        if run is None
        else 1e3
        * float(np.linalg.norm(positions[estimated_peak(run, case)] - positions[case.peak]))
        for run in runs
    ]


def grades(
    runs: Sequence[Run | None], case: Case, topographies: Array, methods: Sequence[str]
) -> dict[str, list[float]]:
    """Grades of every method on one recording, in the order of the columns."""
    head, positions, n_orient = case.head, case.head.source_pos, case.head.space.n_orient
    run, frame = runs[0], frame_at(case.data, 0, None)
    assert run is not None
    peak = estimated_peak(run, case)
    rng = np.random.default_rng(case.seed)
    far = np.flatnonzero(np.linalg.norm(positions - positions[peak], axis=1) > ANOTHER)
    near, away = (
        Share(neighbourhood(positions, place), n_orient) for place in (peak, rng.choice(far))
    )
    maps, another = maps_of(run, frame, near), maps_of(run, frame, away)
    random, of_shuffled = (
        None if other is None else maps_of(other, frame, near) for other in runs[1:]
    )
    inside = np.zeros(len(positions), dtype=bool)
    inside[list(near.sources)] = True
    exact = bayes_sensitivity(case.data, inside, topographies, whitener(head.noise_cov))
    by_noise = (exact * np.sqrt(head.noise_cov.diagonal())[:, None]).sum(1)
    by_value = (exact * case.data).sum(1)
    orders = [rng.permutation(len(case.data)) for _ in range(N_ORDERS)]
    by_chance = np.mean(
        [curves(maps.arrays, case.data, case.precision, head.sensors, order) for order in orders],
        axis=0,
    )
    found = {}
    for method in methods:
        own = attribution(method, maps, case)
        if not np.isfinite(own).all():
            found[method] = [np.nan] * (len(COLUMNS) - 3)
            continue
        # Saliency ranks by what a change would do, the others by what the recording did.
        wanted = by_noise if method == "saliency" else by_value
        order = np.argsort(-own * (case.data.sum(1) if method == "saliency" else 1.0))
        deleted, inserted = curves(maps.arrays, case.data, case.precision, head.sensors, order)
        checks = [
            np.nan
            if other is None
            else rank_correlation(np.abs(own), np.abs(attribution(method, other, case)))
            for other in (random, of_shuffled, another)
        ]
        found[method] = [
            rank_correlation(own, wanted),
            by_chance[0] - deleted,
            inserted - by_chance[1],
            *checks,
        ]
    return found


def lines(
    name: str,
    model: InverseModel,
    shuffled: InverseModel | None,
    chosen: Sequence[Case],
    methods: Sequence[str],
) -> tuple[list[list[str]], list[str]]:
    """Means and intervals of one model, a line for each method, and its line of `ERRORS`."""
    head = chosen[0].head
    inputs = as_tensors(prepare(model.head_inputs, head))
    topographies = np.asarray(prepare([PATCHES], head)[PATCHES.key])
    of_all, distances = [], []
    for case in chosen:
        runs = [
            None if version is None else gradients.run_of_model(version, inputs)
            for version in with_others(model, shuffled, case)
        ]
        distances.append(errors(runs, case))
        if methods:
            of_all.append(grades(runs, case, topographies, methods))
    graded = []
    for method in methods:
        columns = np.array([found[method] for found in of_all]).T
        cells, fails = [], list[str]()
        for values, title in zip(columns, COLUMNS[2:-1], strict=True):
            check = title.split(",")[0]
            text, above = mean_text(values, 2)
            cells.append(text or CHECKS.get(check, "-"))
            fails += [check] if check in CHECKS and above >= LARGEST_CORRELATION else []
        verdict = f"fails: {', '.join(fails)}" if fails else "passes"
        if not np.isfinite(columns).any():
            verdict = "no finite map"
        graded.append([name, METHODS[method], *cells, verdict])
    texts = (mean_text(values, 1)[0] or "-" for values in np.array(distances).T)
    return graded, [name, *texts]


def mean_text(values: Array, decimals: int) -> tuple[str, float]:
    """Mean and interval of the finite values, empty if there is none; and the upper end."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "", -np.inf
    low, high = (None if np.isnan(end) else end for end in bootstrap_interval(known).tolist())
    mean = float(known.mean())
    return interval_text(mean, low, high, decimals), mean if high is None else high


def of_shuffled(
    runs: Sequence[str], names: Sequence[str], template: Template
) -> dict[str, InverseModel]:
    """Networks on shuffled targets, by the names of the models that they belong to.

    Untrained networks are the first of the models.
    """
    pairs = zip(reversed(names), reversed(runs), strict=False)
    return {name: load_any(Path(run), template) for name, run in pairs if run != "none"}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=[], help="run directories, untrained:NAME")
    parser.add_argument("--shuffled", nargs="*", default=[], help="the same on shuffled targets")
    parser.add_argument("--baselines", default="", help="linear baselines, comma-separated")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--snr-db", type=float, default=10.0)
    parser.add_argument("--montage", default="biosemi32")
    parser.add_argument("--head", default="fsaverage-ico3", help="head of the recordings")
    parser.add_argument("--out", type=Path, default=Path("explanations.csv"))
    arguments = parser.parse_args()
    template = load_template(arguments.head)
    models, _ = load_named(arguments.models, template, "explanations")
    shuffled = of_shuffled(arguments.shuffled, list(models), template)
    config = compose("evaluate", [f"baselines=[{arguments.baselines}]"])
    for name, model in load_baselines(config).items():
        if not isinstance(model, InverseModel) or not model.exportable:
            parser.error(f"{name} has no gradients.")
        models[name] = model
    chosen = list(cases(arguments.examples, arguments.snr_db, arguments.montage, template))
    written, distances = list[list[str]](), list[list[str]]()
    out: Path = arguments.out
    with one_thread():
        for name, model in models.items():
            started = time.perf_counter()
            graded, errors_of = lines(name, model, shuffled.get(name), chosen, arguments.methods)
            for line in (*graded, errors_of):
                print(" | ".join(line), flush=True)
            print(f"{time.perf_counter() - started:.0f} s", flush=True)
            written += graded
            distances.append(errors_of)
            if written:
                write_rows(out, COLUMNS, written)
            write_rows(out.with_stem(f"{out.stem}_errors"), ERRORS, distances)


if __name__ == "__main__":
    main()
