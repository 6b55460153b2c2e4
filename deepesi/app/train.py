"""``python train.py``: train a network, compare it with classical inverses, export it."""

import hashlib
import logging
import re
import shlex
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from deepesi.app.evaluate import (
    build_model,
    check_effect,
    check_one_scenario,
    compare,
    console,
    load_any,
    load_baselines,
    load_heads,
    load_scenarios,
    this_command,
    typed_keys,
)
from deepesi.app.export import describe, export_checked
from deepesi.contracts import InverseModel
from deepesi.data_gen.generator import limits_of
from deepesi.data_gen.setups import channel_range
from deepesi.evaluation.card import how_good
from deepesi.evaluation.scenario import Scenario
from deepesi.export.runtime import Inverse
from deepesi.physics.cohort import Cohort
from deepesi.physics.files import atomic
from deepesi.physics.template import Template
from deepesi.training.checkpoints import chosen_by
from deepesi.training.data import RecordingStream
from deepesi.training.failures import explained
from deepesi.training.initial import start_from
from deepesi.training.loggers import make_loggers
from deepesi.training.module import InverseTraining
from deepesi.training.overrides import typed
from deepesi.training.pictures import ValidationPictures
from deepesi.training.pruning import start_from_strongest
from deepesi.training.resume import checkpoint_of, keep_curves
from deepesi.training.trainer import (
    check_sweep,
    check_trainer,
    device_of,
    make_trainer,
    settle_steps,
)
from deepesi.training.weights import load_network, save_network

#: Of several processes, the first speaks.
say = rank_zero_only(console.print)


def chosen(group: str, *, _root_: DictConfig) -> str:
    """What was chosen of a group of the configuration: ``${chosen:model}``.

    A sweep asks for its folder before there is any run; its own configuration tells it then.
    """
    composed = _root_.get("hydra") or HydraConfig.get()
    return str(composed.runtime.choices[group])


OmegaConf.register_new_resolver("chosen", chosen, replace=True)


def plain(config: Any) -> Any:
    """A configuration node as plain Python values."""
    return OmegaConf.to_container(config, resolve=True)


def build_module(config: DictConfig, cohort: Cohort) -> InverseTraining:
    """Network, objective and how it is trained; with what a run must share to be resumed."""
    torch.manual_seed(config.seed)
    settings = config.trainer
    model, model_config = build_model(config.model, cohort.template)
    heads = {
        split: [f"{head.name} ({head.fingerprint[:16]})" for head in cohort.of(split)]
        for split in ("train", "validation")
    }
    return InverseTraining(
        model,
        hydra.utils.instantiate(config.loss),
        model_config,
        cohort.template.space,
        settings.learning_rate,
        settings.weight_decay,
        settings.warmup_steps,
        settings.max_steps,
        {k: plain(config)[k] for k in ("seed", "data", "loss", "trainer")} | {"heads": heads},
        trained_on(config.data, cohort.template),
    )


def load_teacher(path: str, head: Cohort | Template) -> InverseModel:
    """The network of ``experiment=distill teacher=PATH``; see `deepesi.app.evaluate.load_any`."""
    return load_any(Path(path), head if isinstance(head, Template) else head.template)


def trained_on(data: DictConfig, template: Template) -> dict[str, Any]:
    """Fields of `deepesi.export.contract.TrainingRanges`, as plain lists and numbers."""
    lengths = [data.n_times] if isinstance(data.n_times, int) else list(data.n_times)
    sources = hydra.utils.instantiate(data.sources, _convert_="all")
    band_hz = sources.kind.band(max(lengths), data.sfreq)
    return {
        "n_channels": list(channel_range(template, hydra.utils.instantiate(data.setups))),
        "n_times": [min(lengths), max(lengths)],
        "sfreq": float(data.sfreq),
        "band_hz": band_hz and list(band_hz),
        "snr_db": None if data.snr_db is None else [float(snr) for snr in data.snr_db],
    }


def initialize(config: DictConfig, module: InverseTraining, template: Template) -> None:
    """Start from the weights of another run, where the configuration names one.

    Raises:
        FileNotFoundError: There is none.
        ValueError: Two are named, or it does not fit; see `start_from` and `start_from_strongest`.

    """
    if config.init_from is not None and config.pruned_from is not None:
        raise ValueError(
            "train: init_from takes all weights of a run and pruned_from the strongest ones. Give "
            "one of them."
        )
    if config.init_from is not None:
        settings = module.identity["model"]
        start_from(module.model, settings, Path(config.init_from), template.space)
    if config.pruned_from is not None:
        wide, _ = load_network(Path(config.pruned_from), template.space)
        head = template.montage_head(plain(config.data.setups.montages)[0])
        start_from_strongest(module.model, wide, head)


def build_data(
    config: DictConfig, cohort: Cohort, module: InverseTraining, device: torch.device
) -> RecordingStream:
    """What to train and to validate on, drawn on a device."""
    settings, draw = config.trainer, hydra.utils.instantiate(config.data, _convert_="all")
    sizes = {"train": config.data.batch_size, "validation": settings.validation_batch_size}
    train, validation = (
        draw(
            heads=cohort.of(split),
            analyst=cohort.template,
            declarations=[*module.model.head_inputs, *module.loss.head_inputs],
            batch_size=batch_size,
            seed=config.seed,
            split=split,
            device=device_of(config.data.device, device),
        )
        for split, batch_size in sizes.items()
    )
    for note in train.limits:
        say(note, style="yellow", soft_wrap=True)
    return RecordingStream(
        train, validation, settings.steps_per_epoch, settings.n_validation_batches
    )


def fit(config: DictConfig, cohort: Cohort, run_dir: Path) -> Path:
    """Train and return the path of the best checkpoint."""
    settings, folder = config.trainer, run_dir / "checkpoints"
    check_trainer(settings)
    for note in settle_steps(settings):
        say(f"Training: {note}.", soft_wrap=True)
    module = build_module(config, cohort)
    ckpt = checkpoint_of(config.ckpt, folder)
    if ckpt is None:
        initialize(config, module, cohort.template)
    if rank_zero_only.rank == 0:
        keep_curves(run_dir, ckpt)
        with atomic(run_dir / "config.yaml") as partial:
            OmegaConf.save(config, partial, resolve=True)
    loggers, watchers = make_loggers(config.logger, run_dir), list[Callback]()
    wandb = next((logger for logger in loggers if isinstance(logger, WandbLogger)), None)
    if wandb is not None:
        watchers.append(ValidationPictures(wandb, settings.pictures, cohort.template.display))
    for logger in loggers[1:]:  # metrics.csv lies beside config.yaml
        # Not the baselines: their titles are no names of parameters to MLflow.
        logger.log_hyperparams({k: v for k, v in plain(config).items() if k != "baselines"})
    trainer, best, stopper = make_trainer(settings, folder, loggers, watchers)
    data = build_data(config, cohort, module, trainer.strategy.root_device)
    if settings.compile:
        module.model.compile(dynamic=True)  # any montage and duration; in place, so keys stay
    n_weights = sum(p.numel() for p in module.model.parameters())
    say(
        f"Training {type(module.model).__name__}, {n_weights:,} weights, {settings.max_steps} steps"
    )
    try:
        trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    except Exception as error:
        advice = explained(error, folder, config.data.batch_size, settings.accumulate)
        if advice is None:
            raise
        raise advice from error
    if stopper is not None and stopper.stopped_epoch:
        say(
            f"Stopped early after step {trainer.global_step}: {settings.patience} validations "
            "without a better val/nemd."
        )
    if wandb is not None:
        wandb.experiment.finish()  # the next run of a sweep gets curves of its own
    return Path(best.best_model_path)


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
        identity: What its weights were saved with.
        scenario: Whose first montage and sources it is checked on.
        template: The head.
        folder: For ``model.onnx``, ``head.npz`` and ``card.md``.
        config: Of the run, for the card.
        results: How good it is, Markdown, for the card.

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
        f"Export: largest deviation from torch {parity.deviation:.1e} of the largest estimate; "
        f"one frame on one core {parity.latency_ms:.2f} ms"
    )


def run(config: DictConfig, run_dir: Path) -> None:
    """Train, compare, export, and say where everything is."""
    started = time.perf_counter()
    cohort = load_heads(config.head)
    template = cohort.template
    say(
        f"Head {template.name}: {template.space.n_sources} sources, loaded in "
        f"{time.perf_counter() - started:.1f} s"
    )
    scenarios = load_scenarios([config.scenario])
    baselines = load_baselines(config) if config.compare else {}
    if rank_zero_only.rank == 0 and config.compare:
        # What the comparison will need is prepared once before training, not after hours of it.
        for level in scenarios:
            next(level.batches(cohort, level.snr_db[0], list(baselines.values())))
    best = fit(config, cohort, run_dir)
    if rank_zero_only.rank != 0:  # the other processes have done their part
        return
    trained = time.perf_counter() - started

    model, identity = load_network(best, template.space)
    identity |= origin(config, cohort, run_dir)
    save_network(model, identity, run_dir / "model")
    results = "Not measured: the run was told compare=false."
    if config.compare:
        # A run directory used before may hold the scores of another network.
        shutil.rmtree(run_dir / "scores", ignore_errors=True)
        models = {type(model).__name__: model} | baselines
        command = identity["command"]
        benchmark = compare(models, scenarios, cohort, run_dir, config.processes, command)
        results = how_good(benchmark.rows, plain(config.scenario))
    if config.export:
        export(model, identity, scenarios[0], template, run_dir / "export", config, results)
    took = f"Training {trained:.0f} s, all {time.perf_counter() - started:.0f} s."
    said = "\n".join([took, f"Results in {run_dir}:", *left_behind(config, run_dir, best)])
    console.print(said, highlight=False, markup=False, soft_wrap=True)


def origin(config: DictConfig, cohort: Cohort, run_dir: Path) -> dict[str, Any]:
    """How the weights of a run came about, to be saved with them."""
    template, config_file = cohort.template, (run_dir / "config.yaml").read_bytes()
    own = f"the {len(template.cap or ())} electrodes of {template.name}"
    return {
        "config_sha256": hashlib.sha256(config_file).hexdigest(),
        "montages": [own] if template.cap else plain(config.data.setups.montages),
        "command": this_command(),
        "limits": limits_of(
            cohort.train, hydra.utils.instantiate(config.data.artifacts, _convert_="all")
        ),
    }


def left_behind(config: DictConfig, run_dir: Path, best: Path) -> list[str]:
    """What a run directory holds, and what to do with it."""
    lines = [f"  checkpoints/best.ckpt   weights of {chosen_by(best)}"]
    last = typed("ckpt", run_dir / "checkpoints" / "last.ckpt")
    lines += [f"  checkpoints/last.ckpt   resumes with {last}"]
    if config.compare:
        lines += [
            "  report.html             tables, curves, examples, point spreads",
            "  benchmark.csv           the same numbers, long format",
        ]
    if not config.export:
        export_command = shlex.join(["deepesi", "export", str(run_dir), "--out", "model.onnx"])
        return [*lines, "Next: export the network with", f"  {export_command}"]
    model = shlex.quote(str(run_dir / "export" / "model.onnx"))
    return [
        *lines,
        "  export/model.onnx       runs without torch; head.npz and card.md beside it",
        "Next: localize a recording with",
        f"  deepesi apply {model} EVOKED.fif --noise-cov COV.fif --out stc",
    ]


def main(config: DictConfig) -> None:
    """Hydra entry of ``deepesi train``."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # Ours is the run directory, which holds Hydra's files already; and torch's own deprecation.
    for message in ("Experiment logs directory", "`isinstance(treespec, LeafSpec)`"):
        warnings.filterwarnings("ignore", message=re.escape(message))
    active = HydraConfig.get()
    check_one_scenario(list(active.overrides.task), "train")
    if config.ckpt not in (None, "auto"):
        useless = typed_keys(list(active.overrides.task)) & {"init_from", "pruned_from"}
        check_effect(useless, "train", f"as ckpt={config.ckpt} goes on with the weights it holds")
    if active.mode == RunMode.MULTIRUN:
        check_sweep(config.trainer)
    run(config, Path(active.runtime.output_dir))
