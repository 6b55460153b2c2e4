"""``python train.py``: trains a network, compares it with classical inverses, exports it."""

import hashlib
import logging
import re
import shlex
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from deepesi.cli.export import describe, export_checked
from deepesi.cli.loading import load_baselines, load_heads, load_scenarios
from deepesi.cli.overrides import check_effect, check_one_scenario, this_command, typed_keys
from deepesi.core.contracts import InverseModel
from deepesi.data_gen.fine_cortex import has_other_anatomies
from deepesi.data_gen.generator import limits_of
from deepesi.data_gen.setups import drawn_kinds
from deepesi.evaluation.card import how_good
from deepesi.evaluation.compare import compare, console
from deepesi.evaluation.scenario import Scenario
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import Template
from deepesi.runtime.inverse import Inverse
from deepesi.training.checkpoints import best_checkpoint_text
from deepesi.training.overrides import typed
from deepesi.training.run import fit, is_first_process, is_simulated, plain, print_once
from deepesi.training.trainer import (
    check_sweep,
)
from deepesi.training.weights import load_network, save_network


def export(
    model: InverseModel,
    identity: dict[str, Any],
    scenario: Scenario,
    template: Template,
    folder: Path,
    config: DictConfig,
    results: str,
) -> None:
    """Export, check against torch at another batch size, duration and montage, prepare a head.

    Args:
        model: The network.
        identity: Metadata of the weights.
        scenario: Scenario with the montage and the sources of the check.
        template: The head.
        folder: Folder for ``model.onnx``, ``head.npz`` and ``card.md``.
        config: Configuration of the run, for the card.
        results: Results of the evaluation, Markdown, for the card.

    """
    montage = scenario.setups.montages[0] if template.cap is None else "its own"
    path, name = folder / "model.onnx", type(model).__name__
    contract, parity = export_checked(model, template, montage, path, identity, scenario.sources)
    about = f"an example: {montage} electrodes on {template.name}, white noise of 1 µV"
    head = template.montage_head(montage)
    Inverse.load(path).prepare_for(head, 1, about).save(folder / "head.npz")
    card, settings = folder / "card.md", plain(config)
    describe(card, path.name, name, model, contract, parity, identity, settings, results)
    console.print(
        f"Export: largest difference from torch {parity.max_difference:.1e} of the largest "
        f"estimate; one frame on one core {parity.latency_ms:.2f} ms"
    )


def run(
    config: DictConfig,
    run_dir: Path,
    cohort: Cohort | None = None,
    model: InverseModel | None = None,
    command: str | None = None,
) -> Path:
    """Train, compare, export, and print the paths of all files.

    Args:
        config: Configuration of ``deepesi train``.
        run_dir: Run directory for all files.
        cohort: Heads in place of the configured ones.
        model: Network in place of the configured one; it is trained in place.
        command: Command line; by default that of this process.

    Returns:
        The best checkpoint.

    """
    started = time.perf_counter()
    cohort, command = cohort or load_heads(config.head), command or this_command()
    template = cohort.template
    print_once(
        f"Head {template.name}: {template.space.n_sources} sources, loaded in "
        f"{time.perf_counter() - started:.1f} s"
    )
    sets = [config.scenario]
    if config.strangers is not None and has_other_anatomies(template):
        sets.append(config.strangers)
    scenarios = load_scenarios(sets)
    baselines = load_baselines(config) if config.compare else {}
    if is_first_process() and config.compare:
        # Errors in the comparison should appear before hours of training, so it is prepared here.
        for level in scenarios:
            next(level.batches(cohort, level.snr_db[0], list(baselines.values())))
    best = fit(config, cohort, run_dir, model)
    if not is_first_process():  # only the first process compares and exports
        return best
    trained = time.perf_counter() - started

    model, identity = load_network(best, template.space, model)
    identity |= origin(config, cohort, run_dir, command)
    save_network(model, identity, run_dir / "model")
    results = "Not measured: the run has compare=false."
    if config.compare:
        # A reused run directory may contain the scores of another network.
        shutil.rmtree(run_dir / "scores", ignore_errors=True)
        models = {type(model).__name__: model} | baselines
        benchmark = compare(models, scenarios, cohort, run_dir, config.processes, command)
        results = "\n\n".join(
            how_good([row for row in benchmark.rows if row.scenario == own["name"]], own)
            for own in map(plain, reversed(sets))
        )
    if config.export:
        export(model, identity, scenarios[0], template, run_dir / "export", config, results)
    took = f"Training {trained:.0f} s, all {time.perf_counter() - started:.0f} s."
    summary = "\n".join([took, f"Results in {run_dir}:", *run_contents(config, run_dir, best)])
    console.print(summary, highlight=False, markup=False, soft_wrap=True)
    return best


def origin(config: DictConfig, cohort: Cohort, run_dir: Path, command: str) -> dict[str, Any]:
    """Origin of the weights of a run, to be saved with them."""
    template, config_file = cohort.template, (run_dir / "config.yaml").read_bytes()
    simulated = is_simulated(config.data)
    montages = plain(config.data.setups.montages) if simulated else []
    artifacts = hydra.utils.instantiate(config.data.artifacts, _convert_="all") if simulated else []
    kinds: Sequence[str] = ["eeg"]  # of real recordings
    if simulated:
        kinds = drawn_kinds(template, hydra.utils.instantiate(config.data.setups))
    own = f"the {len(template.cap or ())} electrodes of {template.name}"
    return {
        "config_sha256": hashlib.sha256(config_file).hexdigest(),
        "montages": [own] if template.cap else montages,
        "sensor_kinds": list(kinds),
        "command": command,
        "limits": limits_of(cohort.train, artifacts),
    }


def run_contents(config: DictConfig, run_dir: Path, best: Path) -> list[str]:
    """Description of the files in a run directory, and of next steps."""
    lines = [f"  checkpoints/best.ckpt   weights of {best_checkpoint_text(best)}"]
    last = typed("ckpt", run_dir / "checkpoints" / "last.ckpt")
    lines += [f"  checkpoints/last.ckpt   resumes with {last}"]
    if config.compare:
        lines += [
            "  report.html             tables, curves, examples, point spreads",
            "  examples.html           the examples on a cortex to turn",
            "  benchmark.csv           the same numbers, long format",
        ]
    if not config.export:
        export_command = shlex.join(["deepesi", "export", str(run_dir), "--out", "model.onnx"])
        return [*lines, "Next: export the network with", f"  {export_command}"]
    model = shlex.quote(str(run_dir / "export" / "model.onnx"))
    return [
        *lines,
        "  export/model.onnx       runs without torch; with head.npz and card.md",
        "Next: localize a recording with",
        f"  deepesi apply {model} EVOKED.fif --noise-cov COV.fif --out stc",
    ]


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide messages of Lightning and torch that do not help the user."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # The run directory already contains files of Hydra; and torch's own
            # deprecation.
            for message in ("Experiment logs directory", "`isinstance(treespec, LeafSpec)`"):
                warnings.filterwarnings("ignore", message=re.escape(message))
            yield
    finally:
        logger.setLevel(before)


def main(config: DictConfig) -> None:
    """Hydra entry of ``deepesi train``."""
    active = HydraConfig.get()
    check_one_scenario(list(active.overrides.task), "train")
    if config.ckpt not in (None, "auto"):
        useless = typed_keys(list(active.overrides.task)) & {"init_from", "pruned_from"}
        check_effect(useless, "train", f"because ckpt={config.ckpt} contains the weights")
    if active.mode == RunMode.MULTIRUN:
        check_sweep(config.trainer)
    with quiet_lightning():
        run(config, Path(active.runtime.output_dir))
