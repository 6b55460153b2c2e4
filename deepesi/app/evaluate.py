"""``python evaluate.py``: any networks, exported files and baselines side by side."""

import difflib
import importlib.resources
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deepesi import __version__
from deepesi.app.naming import n_weights, names_of
from deepesi.baselines.tuned import Tuned
from deepesi.contracts import InverseModel, Told
from deepesi.evaluation.benchmark import Benchmark, run_benchmark, write_csv
from deepesi.evaluation.calibration import CalibrationRow, read_csv
from deepesi.evaluation.gallery import gallery
from deepesi.evaluation.leaderboard import leaderboard, write_leaderboard
from deepesi.evaluation.methods import Model, of_scenario
from deepesi.evaluation.report import write_report
from deepesi.evaluation.scenario import Scenario
from deepesi.evaluation.table import (
    Layout,
    by_scenario,
    markdown_table,
    write_markdown,
)
from deepesi.evaluation.terminal import print_table
from deepesi.evaluation.tuning import Choice, tune
from deepesi.evaluation.tuning import write_csv as write_choices
from deepesi.evaluation.words import scenario_in_words
from deepesi.export.adapter import OnnxModel
from deepesi.export.packaged import model_path
from deepesi.physics.cohort import Cohort
from deepesi.physics.files import atomic
from deepesi.physics.template import Template
from deepesi.training.weights import load_ensemble, load_mc_dropout, load_network, save_network

console = Console()


def compare(
    models: Mapping[str, Model | Tuned],
    scenarios: Sequence[Scenario],
    cohort: Cohort,
    run_dir: Path,
    processes: int,
    command: str,
    calibration: Sequence[CalibrationRow] = (),
    paths: Mapping[str, Path] | None = None,
) -> Benchmark:
    """Choose constants, run the benchmark, print its tables, write CSV, Markdown and report.

    `paths` says of methods that were read from a file where it lies.
    """
    with console.status("Tuning") as status:
        methods, choices = tune(models, scenarios, cohort, processes, status.update)
    write_choices(choices, run_dir / "tuning.csv")
    columns = (TextColumn("Evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("")
        benchmark = run_benchmark(
            methods, scenarios, cohort, run_dir / "scores", processes,
            lambda done, total: progress.update(task, completed=done, total=total),
        )  # fmt: skip
    write_csv(benchmark.rows, run_dir / "benchmark.csv")
    told = told_table(models)
    with atomic(run_dir / "benchmark.md") as partial:
        text = write_markdown(benchmark.rows, benchmark.latencies, command)
        partial.write_text(f"{text}\n## {TOLD}\n\n{markdown_table(told)}\n")
    paths = {name: path.absolute() for name, path in (paths or {}).items()}
    by_name = {
        name: [s for s in scenarios if s.name == name] for name in [s.name for s in scenarios]
    }
    heads = {
        name: ", ".join(head.name for head in own[0].true_heads(cohort))
        for name, own in by_name.items()
    }
    first = of_scenario(methods, scenarios[0].name)
    weights = {name: n_weights(model) for name, model in first.items()}
    write_leaderboard(
        leaderboard(benchmark, weights, paths, heads, command), run_dir / "leaderboard.csv"
    )
    with console.status("Writing the report"):
        write_report(
            benchmark,
            gallery(first, benchmark, cohort),
            {name: scenario_in_words(own, cohort) for name, own in by_name.items()},
            _facts(paths, command),
            {TOLD: told, **({TUNED: tuned_table(choices)} if choices else {})},
            run_dir / "report.html",
            calibration,
        )
    for rows in by_scenario(benchmark.rows).values():
        print_table(console, rows)
    return benchmark


def _facts(paths: Mapping[str, Path], command: str) -> dict[str, str]:
    read = {"read from": "\n".join(f"{name}: {path}" for name, path in paths.items())}
    return {
        "held out": "lead fields, electrode displacements, sources and noise: split 'test'; a "
        "warped head (warp...) is in no training",
        "noise": "one covariance for every method; regularization follows from the whitened "
        "power of each recording, where a method does not choose it itself",
        **(read if paths else {}),
        "versions": f"deepesi {__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}",
        "command": command,
    }


#: Heading of `told_table`.
TOLD = "What each method is told beside the recording and the nominal lead field"


def told_table(models: Mapping[str, Model | Tuned]) -> Layout:
    """One line per method."""
    lines = []
    for name, model in models.items():
        chosen = f"{model.knob} on validation recordings" if isinstance(model, Tuned) else "none"
        lines.append([(text, False) for text in (name, *model.told, chosen)])
    return Layout(
        ["method", *(field.replace("n_", "number of ") for field in Told._fields), "tuned"], lines
    )


#: Heading of `tuned_table`.
TUNED = "Constants chosen on validation recordings"


def tuned_table(choices: Sequence[Choice]) -> Layout:
    """One line per method and scenario."""
    header = ["method", "scenario", "constant", "chosen", "tried", "loc. error (mm)", "recordings"]
    lines = [
        (
            choice.method, choice.scenario, choice.knob,
            f"{choice.value:g}" + (", the last on that side" if choice.is_at_an_end else ""),
            f"{len(choice.values)} from {choice.values[0]:g} to {choice.values[-1]:g}",
            f"{min(choice.errors_mm):.1f}", str(choice.n),
        )
        for choice in choices
    ]  # fmt: skip
    return Layout(header, [[(text, False) for text in line] for line in lines])


def load_heads(config: DictConfig) -> Cohort:
    """The heads of a configuration: a cohort, or one head for every split."""
    heads: Cohort | Template = hydra.utils.instantiate(config)
    return Cohort.single(heads) if isinstance(heads, Template) else heads


def load_scenarios(configs: Sequence[DictConfig]) -> list[Scenario]:
    """The test sets of scenarios: one each, or one per level of its axis."""
    found: list[Scenario] = []
    for config in configs:
        base = OmegaConf.create({k: v for k, v in config.items() if k not in ("axis", "levels")})
        for level, changes in (config.get("levels") or {"": {}}).items():
            axis = {"axis": config.axis, "level": str(level)} if level != "" else {}
            merged = OmegaConf.merge(base, changes, axis)
            found.append(hydra.utils.instantiate(merged, _convert_="all"))
    return found


def known_scenarios() -> list[str]:
    """Names of the scenarios that come with deepesi."""
    return names_in("scenario")


def names_in(group: str) -> list[str]:
    """What a group of the configuration offers."""
    folder = importlib.resources.files("deepesi.configs") / group
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml"))


def _parsed(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def named_scenarios(overrides: Sequence[str]) -> list[str]:
    """The scenarios that a command names.

    Raises:
        ValueError: There is no such scenario.

    """
    parsed = _parsed(overrides)
    named = [o.value() for o in parsed if o.key_or_group == "scenario"]
    names = named[-1] if named else "snr"
    known = [name for name in known_scenarios() if name != "all"]
    names = known if names == "all" else [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or known
            raise ValueError(
                f"evaluate: no scenario {name!r}. Nearest: {', '.join(near)}; all: "
                f"{', '.join(known)}."
            )
    return names


def chosen_scenarios(overrides: Sequence[str]) -> list[DictConfig]:
    """Configurations of the scenarios a command names, each with its other overrides."""
    parsed = _parsed(overrides)
    others = [
        text for text, o in zip(overrides, parsed, strict=True) if o.key_or_group != "scenario"
    ]
    return [
        hydra.compose("evaluate", [*others, f"scenario={name}"]).scenario
        for name in named_scenarios(overrides)
    ]


def check_one_scenario(overrides: Sequence[str], command: str) -> None:
    """Refuse a command that names several scenarios where one is used.

    Raises:
        ValueError: It names several.

    """
    names = named_scenarios(overrides)
    if len(names) > 1:
        raise ValueError(
            f"{command}: takes one scenario, got {names}. Name one (scenario=snr); 'deepesi "
            "evaluate' takes several."
        )


def typed_keys(overrides: Sequence[str]) -> set[str]:
    """First parts of the keys that a command names: ``scenario`` of ``scenario.snr_db=[5]``."""
    parsed = _parsed(overrides)
    return {override.key_or_group.split(".")[0] for override in parsed}


def check_effect(useless: set[str], command: str, because: str) -> None:
    """Refuse overrides of keys that would change nothing, in place of ignoring them.

    Raises:
        ValueError: There are some.

    """
    if useless:
        raise ValueError(
            f"{command}: {', '.join(sorted(useless))} would change nothing, {because}. Leave it "
            "out."
        )


def load_baselines(config: DictConfig) -> dict[str, Model | Tuned]:
    """The baselines of a configuration; ``baselines=[]`` leaves none."""
    torch.manual_seed(0)  # of networks among them, first weights are drawn
    chosen: dict[str, Model | Tuned] = hydra.utils.instantiate(
        config.get("baselines", {}), _convert_="all"
    )
    return chosen


def build_model(config: DictConfig, template: Template) -> tuple[InverseModel, dict[str, Any]]:
    """The network of a configuration, and that configuration with the head's sizes filled in."""
    for part in (config, config.get("member"), *config.get("members", [])):
        if part is not None and OmegaConf.is_missing(part, "n_dipoles"):
            part.n_dipoles = template.space.n_dipoles
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return hydra.utils.instantiate(config, _convert_="all"), plain


#: ``models=[untrained:NAME]``: the network of ``model=NAME`` with its first weights.
UNTRAINED = "untrained:"


def load_untrained(name: str, template: Template) -> InverseModel:
    """A network of `deepesi train` before any training: what its physics alone reaches.

    Raises:
        ValueError: There is no such network.

    """
    known = names_in("model")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1) or known
        raise ValueError(
            f"evaluate: no network {name!r} for models=[{UNTRAINED}{name}]. Nearest: {near[0]}; "
            f"all: {', '.join(known)}."
        )
    torch.manual_seed(0)
    return build_model(hydra.compose("train", [f"model={name}"]).model, template)[0]


def load_any(path: str | Path, template: Template) -> InverseModel:
    """A network or an exported file, by its path, or a packaged file by its name."""
    path = Path(path)
    path = path if path.exists() else model_path(path)
    if path.suffix == ".onnx":
        model = OnnxModel(path)
        fingerprint = model.opened.contract.space_fingerprint
        if fingerprint not in (None, template.space.fingerprint):
            raise ValueError(
                f"evaluate: {path} belongs to the source space "
                f"{model.opened.contract.space_name} ({fingerprint}), this head has "
                f"{template.space.name} ({template.space.fingerprint}). Choose its head "
                "(head.name=...)."
            )
        return model
    return load_network(path, template.space)[0]


def load_named(
    paths: Sequence[str], template: Template, who: str
) -> tuple[dict[str, InverseModel], dict[str, Path]]:
    """Models by a short name, see `deepesi.app.naming.names_of`, and where those of files lie.

    ``untrained:NAME`` stands for the network of ``model=NAME`` with its first weights.
    """
    typed = [str(path) for path in paths]
    found: dict[str, InverseModel] = {}
    for name in typed:
        if name.startswith(UNTRAINED):
            network = name.removeprefix(UNTRAINED)
            found[f"{network} (untrained)"] = load_untrained(network, template)
    places = [Path(name) for name in typed if not name.startswith(UNTRAINED)]
    models = [load_any(path, template) for path in places]
    names = names_of(models, places, who)
    read = [path if path.exists() else model_path(path) for path in places]
    return found | dict(zip(names, models, strict=True)), dict(zip(names, read, strict=True))


def run(config: DictConfig, run_dir: Path) -> None:
    """Evaluate what the configuration names; `scenarios` holds those of its scenarios."""
    cohort = load_heads(config.head)
    scenarios = load_scenarios(config.scenarios)
    found = config.get("calibration")
    calibration = [] if found is None else read_csv(Path(found) / "calibration.csv")
    named, paths = load_named(config.models, cohort.template, "evaluate")
    models: dict[str, Model | Tuned] = {**named}
    dropped_out = config.get("mc_dropout")  # an evaluation begun before there was any goes on
    if dropped_out and config.ensemble:
        raise ValueError(
            "evaluate: ensemble and mc_dropout each leave a network in model/. Take one at a "
            "time; what is left there can be a member of the other."
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
    compare(models, scenarios, cohort, run_dir, config.processes, config.command, calibration,
            paths)  # fmt: skip
    console.print(
        f"Results in {run_dir}: report.html, benchmark.md, benchmark.csv, leaderboard.csv, "
        "tuning.csv, scores/ of every example",
        markup=False,
        soft_wrap=True,
    )


def expanded(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration with all the scenarios that were named, and what was typed."""
    config = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    del config.scenario
    config.scenarios, config.command = chosen_scenarios(overrides), this_command()
    return config


def this_command() -> str:
    """What was typed, as it can be typed again elsewhere."""
    first, *typed = sys.argv
    name = Path(first).name
    entry = ["python", name] if name in ("train.py", "evaluate.py") else ["deepesi"]
    return shlex.join([*entry, *typed])


def begun(run_dir: Path) -> DictConfig:
    """The configuration of an evaluation that was begun.

    Raises:
        ValueError: The folder holds none.

    """
    record = run_dir / "config.yaml"
    if not record.is_file():
        raise ValueError(
            f"evaluate: there is nothing to resume in {run_dir}: it holds no config.yaml. Give the "
            "run directory of an evaluation, or leave resume out to begin one."
        )
    config = OmegaConf.load(record)
    if not isinstance(config, DictConfig) or "scenarios" not in config:
        raise ValueError(
            f"evaluate: {record} is not of an evaluation. Give the run directory of 'deepesi "
            "evaluate'; a training goes on with 'deepesi train ckpt=...'."
        )
    return config


def main(config: DictConfig) -> None:
    """Hydra entry of ``deepesi evaluate``."""
    active = HydraConfig.get()
    run_dir = Path(config.resume or active.runtime.output_dir)
    typed = typed_keys(list(active.overrides.task))
    if config.mc_dropout is None:
        check_effect(typed & {"mc_samples"}, "evaluate", "as no mc_dropout=PATH is given")
    if config.resume:
        others = typed - {"resume", "processes"}
        check_effect(others, "evaluate", f"as resume goes on with the settings of {run_dir}")
        processes, config = config.processes, begun(run_dir)
        config.processes = processes  # may differ from before, the results do not
    else:
        config = expanded(config, list(active.overrides.task))
        with atomic(run_dir / "config.yaml") as partial:
            OmegaConf.save(config, partial, resolve=True)
    run(config, run_dir)
