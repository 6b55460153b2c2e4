"""``python evaluate.py``: compares networks, exported files and baselines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from deepesi.baselines.tuned import Tuned
from deepesi.cli.loading import load_baselines, load_heads, load_named, load_scenarios
from deepesi.cli.overrides import check_effect, chosen_scenarios, this_command, typed_keys
from deepesi.core.contracts import InverseModel
from deepesi.evaluation.calibration import read_csv
from deepesi.evaluation.compare import compare, console
from deepesi.evaluation.methods import Model
from deepesi.physics.head import SourceSpace
from deepesi.training.weights import (
    load_by_cortex,
    load_ensemble,
    load_mc_dropout,
    save_network,
)
from deepesi.utils.files import atomic


def run(config: DictConfig, run_dir: Path) -> None:
    """Evaluate the models of a configuration; `scenarios` holds one configuration per scenario."""
    cohort = load_heads(config.head)
    scenarios = load_scenarios(config.scenarios)
    found = config.get("calibration")
    calibration = [] if found is None else read_csv(Path(found) / "calibration.csv")
    named, paths = load_named(config.models, cohort.template, "evaluate")
    models: dict[str, Model | Tuned] = {**named}
    joined = _joined(config, cohort.template.space)
    if joined is not None:
        name, network, identity = joined
        save_network(network, identity, run_dir / "model")
        models[name] = network
    models |= load_baselines(config)
    if not models:
        raise ValueError(
            "evaluate: nothing to evaluate. Name files with models=[path,...] or baselines with "
            "baselines=[eloreta,...]."
        )
    compare(
        models, scenarios, cohort, run_dir, config.processes, config.command, calibration, paths
    )
    console.print(
        f"Results in {run_dir}: report.html, examples.html, benchmark.md, benchmark.csv, "
        "leaderboard.csv, tuning.csv, scores/ of every example",
        markup=False,
        soft_wrap=True,
    )


def _joined(
    config: DictConfig, space: SourceSpace
) -> tuple[str, InverseModel, dict[str, Any]] | None:
    """Name of the model that this evaluation makes of trained networks, the model, its identity."""
    # An evaluation of an earlier version can resume: it lacks what was added later.
    dropped_out, by_cortex = config.get("mc_dropout"), config.get("by_cortex") or {}
    paths = {name: path for name, path in by_cortex.items() if path}
    given = {"ensemble": config.ensemble, "mc_dropout": dropped_out, "by_cortex": paths}
    asked = [name for name, value in given.items() if value]
    if len(asked) > 1:
        raise ValueError(
            f"evaluate: {' and '.join(asked)} both write a network to model/. Use one at a time; "
            "the written network can be a member of the other."
        )
    if config.ensemble:
        members = [Path(path) for path in config.ensemble]
        return "DeepEnsemble", *load_ensemble(members, space)
    if dropped_out:
        return "MCDropout", *load_mc_dropout(Path(dropped_out), space, config.mc_samples)
    if not paths:
        return None
    if len(paths) < 2:
        raise ValueError(
            f"evaluate: by_cortex needs two networks, got {[*paths]} only. Give "
            "by_cortex.template=RUN and by_cortex.own=RUN."
        )
    return "ByCortex", *load_by_cortex(paths["template"], paths["own"], space)


def expanded(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration with all the scenarios that were named, and what was typed."""
    whole = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(whole, DictConfig)
    del whole.scenario
    whole.scenarios, whole.command = chosen_scenarios(overrides), this_command()
    return whole


def started_run(run_dir: Path) -> DictConfig:
    """The configuration of an interrupted evaluation.

    Raises:
        ValueError: The folder contains none.

    """
    record = run_dir / "config.yaml"
    if not record.is_file():
        raise ValueError(
            f"evaluate: there is nothing to resume in {run_dir}: it holds no config.yaml. Give the "
            "run directory of an evaluation, or leave resume out to start one."
        )
    config = OmegaConf.load(record)
    if not isinstance(config, DictConfig) or "scenarios" not in config:
        raise ValueError(
            f"evaluate: {record} is not of an evaluation. Give the run directory of 'deepesi "
            "evaluate'; a training resumes with 'deepesi train ckpt=...'."
        )
    return config


def main(config: DictConfig) -> None:
    """Hydra entry of ``deepesi evaluate``."""
    active = HydraConfig.get()
    run_dir = Path(config.resume or active.runtime.output_dir)
    typed = typed_keys(list(active.overrides.task))
    if config.mc_dropout is None:
        check_effect(typed & {"mc_samples"}, "evaluate", "because no mc_dropout=PATH is given")
    if config.resume:
        others = typed - {"resume", "processes"}
        check_effect(others, "evaluate", f"because resume uses the settings of {run_dir}")
        processes, config = config.processes, started_run(run_dir)
        config.processes = processes  # may differ from before; it does not change results
    else:
        config = expanded(config, list(active.overrides.task))
        with atomic(run_dir / "config.yaml") as partial:
            OmegaConf.save(config, partial, resolve=True)
    run(config, run_dir)
