"""``python evaluate.py``: compares networks, exported files and baselines."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from deepesi.baselines.tuned import Tuned
from deepesi.cli.loading import load_baselines, load_heads, load_named, load_scenarios
from deepesi.cli.overrides import check_effect, chosen_scenarios, this_command, typed_keys
from deepesi.evaluation.calibration import read_csv
from deepesi.evaluation.compare import compare, console
from deepesi.evaluation.methods import Model
from deepesi.training.weights import load_ensemble, load_mc_dropout, save_network
from deepesi.utils.files import atomic


def run(config: DictConfig, run_dir: Path) -> None:
    """Evaluate the models of a configuration; `scenarios` holds one configuration per scenario."""
    cohort = load_heads(config.head)
    scenarios = load_scenarios(config.scenarios)
    found = config.get("calibration")
    calibration = [] if found is None else read_csv(Path(found) / "calibration.csv")
    named, paths = load_named(config.models, cohort.template, "evaluate")
    models: dict[str, Model | Tuned] = {**named}
    dropped_out = config.get("mc_dropout")  # an evaluation of an earlier version can resume
    if dropped_out and config.ensemble:
        raise ValueError(
            "evaluate: ensemble and mc_dropout both write a network to model/. Use one at a "
            "time; the written network can be a member of the other."
        )
    if config.ensemble:
        members = [Path(path) for path in config.ensemble]
        ensemble, identity = load_ensemble(members, cohort.template.space)
        save_network(ensemble, identity, run_dir / "model")
        models["DeepEnsemble"] = ensemble
    if dropped_out:
        dropout, identity = load_mc_dropout(
            Path(dropped_out), cohort.template.space, config.mc_samples
        )
        save_network(dropout, identity, run_dir / "model")
        models["MCDropout"] = dropout
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
