"""``python evaluate.py``: any networks, exported files and baselines side by side."""

import platform
from collections.abc import Mapping
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from deepesi import __version__
from deepesi.contracts import InverseModel, Oracle
from deepesi.evaluation.benchmark import Benchmark, Scenario, run_benchmark, write_csv
from deepesi.evaluation.report import write_report
from deepesi.evaluation.table import rich_table
from deepesi.export.adapter import OnnxModel
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import Template
from deepesi.training.weights import load_ensemble, load_network, save_network

console = Console()


def compare(
    models: Mapping[str, InverseModel | Oracle],
    scenario: Scenario,
    cohort: Cohort,
    run_dir: Path,
) -> Benchmark:
    """Run the benchmark, print its table, write ``benchmark.csv`` and ``report.html``."""
    with console.status("Evaluating") as status:
        benchmark = run_benchmark(
            models, scenario, cohort, lambda line: status.update(f"Evaluating {line}")
        )
        write_csv(benchmark.rows, run_dir / "benchmark.csv")
        status.update("Writing the report")
        facts = {
            "scenario": f"{scenario.name}, seed {scenario.seed}",
            "examples per SNR": str(scenario.n_examples),
            "sources": str(scenario.sources),
            "set-ups": str(scenario.setups),
            "true tissues": str(scenario.tissues),
            "held out": "lead fields, electrode displacements, sources and noise: split 'test'",
            "noise": "one covariance for every method; regularization follows from the whitened "
            "power of each recording",
            "versions": f"deepesi {__version__}, torch {torch.__version__}, Python "
            f"{platform.python_version()}",
            "heads": ", ".join(f"{h.name} ({h.fingerprint[:16]})" for h in cohort.of("test")),
        }
        write_report(benchmark, cohort.template.display, facts, run_dir / "report.html")
    # Never narrower than the table: a wrapped table cannot be read, a long line can.
    Console(width=max(console.width, 112)).print(rich_table(benchmark.rows))
    return benchmark


def load_heads(config: DictConfig) -> Cohort:
    """The heads of a configuration: a cohort, or one head for every split."""
    heads: Cohort | Template = hydra.utils.instantiate(config)
    return Cohort.single(heads) if isinstance(heads, Template) else heads


def load_baselines(config: DictConfig) -> dict[str, InverseModel | Oracle]:
    """The baselines of a configuration; ``baselines=[]`` leaves none.

    Networks may be among them, to see what they do untrained; their first weights are drawn here.
    """
    torch.manual_seed(0)
    chosen: dict[str, InverseModel | Oracle] = hydra.utils.instantiate(
        config.get("baselines", {}), _convert_="all"
    )
    return chosen


def load_any(path: Path, template: Template) -> InverseModel:
    """A network or an exported file, by its path."""
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


def run(config: DictConfig, run_dir: Path) -> None:
    """Evaluate what the configuration names."""
    cohort = load_heads(config.head)
    scenario: Scenario = hydra.utils.instantiate(config.scenario, _convert_="all")
    models: dict[str, InverseModel | Oracle] = {}
    models |= {str(path): load_any(Path(path), cohort.template) for path in config.models}
    if config.ensemble:
        paths = [Path(path) for path in config.ensemble]
        models["DeepEnsemble"], identity = load_ensemble(paths, cohort.template.space)
        save_network(models["DeepEnsemble"], identity, run_dir / "model")
    models |= load_baselines(config)
    if not models:
        raise ValueError(
            "evaluate: nothing to evaluate. Name files with models=[path,...] or baselines with "
            "baselines=[eloreta,...]."
        )
    compare(models, scenario, cohort, run_dir)
    console.print(f"Results in {run_dir}: report.html, benchmark.csv", soft_wrap=True)


@hydra.main(version_base="1.3", config_path="pkg://deepesi.configs", config_name="evaluate")
def main(config: DictConfig) -> None:
    """Hydra entry of ``deepesi evaluate``."""
    run(config, Path(HydraConfig.get().runtime.output_dir))
