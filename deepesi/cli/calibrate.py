"""``deepesi calibrate``: recalibrated intervals and conformal prediction sets, with tests."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from deepesi import __version__
from deepesi.baselines.tuned import Tuned
from deepesi.calibration.conformal import min_examples
from deepesi.cli.loading import load_baselines, load_heads, load_named, load_scenarios
from deepesi.cli.overrides import check_one_scenario
from deepesi.core.contracts import InverseModel
from deepesi.evaluation.benchmark import check_windows
from deepesi.evaluation.calibration import (
    CalibrationRow,
    Fitted,
    fit,
    measure,
    write_csv,
)
from deepesi.evaluation.calibration_report import (
    DEVIATIONS,
    PREDICTION_SETS,
    SCORES,
    UNIFORMITY,
    UNLIKE_OTHERS,
    calibration_markdown,
    deviation_layout,
    prediction_set_layout,
    scores_layout,
    uniformity_layout,
    unlike_layout,
    write_report,
)
from deepesi.evaluation.descriptions import describe_scenario
from deepesi.evaluation.methods import Model
from deepesi.evaluation.observation import batches_to_fit, batches_to_test, observe
from deepesi.evaluation.scenario import Scenario
from deepesi.evaluation.terminal import print_layout
from deepesi.physics.cohort import Cohort
from deepesi.runtime.contract import CALIBRATION_FILE, CALIBRATION_TABLES, Calibration
from deepesi.training.weights import load_network, save_network
from deepesi.uncertainty.tempered import tempered
from deepesi.utils.files import atomic

console = Console()

#: Descriptions of the sources that prediction sets must contain.
SOURCES = {"all": "all sources", "strongest": "the strongest source"}


def heads_of(config: DictConfig) -> Cohort:
    """The heads of a configuration.

    Raises:
        FileNotFoundError: One was not built yet; the message also says what is packaged.
        ValueError: There are no heads to fit or to test on.

    """
    try:
        cohort = load_heads(config)
    except (FileNotFoundError, hydra.errors.InstantiationException) as error:
        cause = error.__cause__ or error
        if not isinstance(cause, FileNotFoundError):
            raise
        raise FileNotFoundError(
            f"calibrate: {cause} Or take head=held_out: it fits on the three packaged validation "
            "heads and tests on the three packaged test heads."
        ) from error
    for split in ("validation", "test"):
        if not cohort.of(split):
            raise ValueError(
                f"calibrate: these heads have none of the split {split!r}. Take head=fsaverage, "
                f"head=held_out, or name some: head=cohort head.{split}=[...]."
            )
    return cohort


def one_scenario(config: DictConfig) -> Scenario:
    """The one test set of a scenario.

    Raises:
        ValueError: It has several test sets, along an axis.

    """
    scenario, *others = load_scenarios([config])
    if others:
        raise ValueError(
            f"calibrate: the scenario {scenario.name!r} has a test set for each "
            f"{scenario.axis}: {', '.join(s.level for s in (scenario, *others))}. Take one without "
            "an axis (scenario=snr, several, several_window, neural_mass)."
        )
    return scenario


def load_models(
    config: DictConfig, cohort: Cohort
) -> tuple[dict[str, InverseModel], dict[str, Path]]:
    """The models of a configuration by name, and the paths of those from files.

    Raises:
        ValueError: There is no model, or one is an oracle.

    """
    named, paths = load_named(config.models, cohort.template, "calibrate")
    chosen: dict[str, Model | Tuned] = {**named}
    models: dict[str, InverseModel] = {}
    for name, model in (chosen | load_baselines(config)).items():
        if isinstance(model, Tuned):
            raise ValueError(
                f"calibrate: {name!r} is tuned separately for every scenario, but a "
                "calibrated method must be the same in all. Leave it out, or name a method with "
                "fixed parameters."
            )
        if not isinstance(model, InverseModel):
            raise ValueError(
                f"calibrate: {name!r} is an oracle: it uses the target, so it cannot be "
                "calibrated. Leave it out of baselines."
            )
        models[name] = model
    if not models:
        raise ValueError(
            "calibrate: nothing to calibrate. Name files with models=[path,...] or baselines with "
            "baselines=[bayesian_minimum_norm,...]."
        )
    return models, paths


def keep(
    path: Path | None, fitted: Fitted, covers: str, fitted_on: str, cohort: Cohort, folder: Path
) -> None:
    """Write the fitted intervals and prediction sets of a model and, if it is a network, itself.

    `path` is the path of the model; None for a classical method.
    """
    prediction_sets = fitted.prediction_sets
    calibration = Calibration(
        prediction_sets.level,
        covers,
        tuple(prediction_sets.edges.tolist()),
        tuple(prediction_sets.thresholds.tolist()),
        fitted.temperature,
        fitted_on,
    )
    with atomic(folder / CALIBRATION_FILE) as partial:
        partial.write_text(json.dumps(asdict(calibration), indent=1) + "\n")
    if fitted.temperature is not None:
        fitted.intervals["balanced"].save(folder / "intervals.json")
    if path is None or not path.exists() or path.suffix == ".onnx":
        return
    network, identity = load_network(path, cohort.template.space)
    if fitted.temperature is not None:
        network = tempered(network, fitted.temperature)
        kind = f"{type(network).__module__}.{type(network).__qualname__}"
        identity = identity | {"model": {"_target_": kind, "model": identity["model"]}}
    save_network(network, identity, folder / "model")


def print_summary(rows: Sequence[CalibrationRow]) -> None:
    """The tables of the page and their headings."""
    print_layout(console, prediction_set_layout(rows), "Prediction sets", PREDICTION_SETS)
    deviations = deviation_layout(rows)
    if deviations.lines:
        print_layout(console, deviations, "Intervals, all SNRs", DEVIATIONS)
    scores = scores_layout(rows)
    if scores.lines:
        print_layout(console, scores, "Scores", SCORES)
    uniformity = uniformity_layout(rows)
    if uniformity.lines:
        print_layout(console, uniformity, "Posterior samples", UNIFORMITY)
    unlike = unlike_layout(rows)
    if unlike.lines:
        print_layout(console, unlike, "Other recordings", UNLIKE_OTHERS)


def check(config: DictConfig, n_snrs: int) -> None:
    """Check settings before any computation.

    Raises:
        ValueError: Unknown `covers`, a level outside 0 to 1, or too few recordings for it.

    """
    if config.covers not in SOURCES:
        raise ValueError(
            f"calibrate: covers={config.covers} is unknown. Take {' or '.join(SOURCES)}."
        )
    if not 0 < config.level < 1:
        raise ValueError(f"calibrate: level must be between 0 and 1, got {config.level}.")
    if config.n_bins < 1 or config.n_validation < 1:
        raise ValueError(
            f"calibrate: n_bins and n_validation must be 1 or more, got {config.n_bins} and "
            f"{config.n_validation}."
        )
    in_a_bin, needed = config.n_validation * n_snrs // config.n_bins, min_examples(config.level)
    if in_a_bin < needed:
        raise ValueError(
            f"calibrate: {in_a_bin} validation recordings in each of n_bins={config.n_bins} bins "
            f"of the SNR are too few for level={config.level:g}, which needs {needed}. Take fewer "
            "bins, a larger n_validation or a lower level."
        )


def run(config: DictConfig, run_dir: Path) -> None:
    """Fit on validation recordings, measure on test recordings, write the results."""
    scenario = one_scenario(config.scenario)
    check(config, len(scenario.snr_db))
    cohort = heads_of(config.head)
    models, paths = load_models(config, cohort)
    check_windows(models, scenario)
    several, n = list(models.values()), config.n_validation
    tested = ", ".join(head.name for head in scenario.true_heads(cohort))
    nominal = "" if scenario.setups.own_anatomy else f", nominal head {cohort.template.name}"
    with console.status("Calibrating") as status:
        observed = observe(
            models,
            lambda snr: batches_to_fit(scenario, cohort, snr, several, n),
            scenario.snr_db,
            config.covers,
            lambda line: status.update(f"Fitting, {line}"),
        )
        fitted = {name: fit(observed.pop(name), config.level, config.n_bins) for name in models}
        tests = observe(
            models,
            lambda snr: batches_to_test(scenario, cohort, snr, several),
            scenario.snr_db,
            config.covers,
            lambda line: status.update(f"Measuring, {line}"),
        )
        rows = [
            row
            for name in models
            for row in measure(name, scenario.name, tested, fitted[name], tests[name])
        ]
        write_csv(rows, run_dir / "calibration.csv")
        read = "\n".join(f"{name}: {path.absolute()}" for name, path in paths.items())
        facts = {
            "scenario": scenario.name,
            "fitted on": f"{n} recordings per SNR of split 'validation', "
            + ", ".join(head.name for head in cohort.of("validation"))
            + nominal,
            "measured on": f"{scenario.n_examples} recordings per SNR of split 'test', {tested}"
            + nominal,
            "prediction sets": f"contain {SOURCES[config.covers]} with probability "
            f"{config.level:g}; one threshold for each of {config.n_bins} bins of the SNR "
            "estimated from the recording",
            **describe_scenario([scenario], cohort),
            **({"read from": read} if paths else {}),
            "versions": f"deepesi {__version__}, torch {torch.__version__}, Python "
            f"{platform.python_version()}",
        }
        write_report(rows, facts, run_dir / "calibration.html")
    for number, name in enumerate(models):
        folder = run_dir / "fitted" / str(number)
        keep(
            paths.get(name),
            fitted[name],
            config.covers,
            f"scenario {scenario.name}, {list(scenario.snr_db)} dB, {facts['fitted on']}",
            cohort,
            folder,
        )
        own = [row for row in rows if row.method == name]
        with atomic(folder / CALIBRATION_TABLES) as partial:
            partial.write_text(calibration_markdown(own) + "\n")
    print_summary(rows)
    console.print(
        f"Results in {run_dir}: calibration.html, calibration.csv, fitted/",
        markup=False,
        soft_wrap=True,
    )


def main(config: DictConfig) -> None:
    """Hydra entry of ``deepesi calibrate``."""
    check_one_scenario(list(HydraConfig.get().overrides.task), "calibrate")
    run(config, Path(HydraConfig.get().runtime.output_dir))
