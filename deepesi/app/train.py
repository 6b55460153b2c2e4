"""``python train.py``: train a network, compare it with classical inverses, export it."""

import logging
import re
import time
import warnings
from pathlib import Path
from typing import Any, cast

import hydra
import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from deepesi.app.evaluate import compare, console, load_baselines, load_heads
from deepesi.contracts import InverseModel
from deepesi.data_gen.generator import SimulatedRecordings, limits_of
from deepesi.data_gen.setups import SetupRanges
from deepesi.evaluation.benchmark import Scenario
from deepesi.evaluation.card import write_card
from deepesi.export.runtime import Inverse
from deepesi.export.to_onnx import Parity, check_parity, export_onnx
from deepesi.losses.base import WeightedSum
from deepesi.physics.cohort import SPLITS, Cohort
from deepesi.physics.files import atomic
from deepesi.physics.template import Template
from deepesi.training.callbacks import (
    CurriculumLog,
    Throughput,
    ValidationLine,
    checkpoints,
    progress_bar,
)
from deepesi.training.data import RecordingStream
from deepesi.training.module import InverseTraining
from deepesi.training.weights import load_network, save_network


def plain(config: Any) -> Any:
    """A configuration node as plain Python values."""
    return OmegaConf.to_container(config, resolve=True)


def build_model(config: DictConfig, template: Template) -> tuple[InverseModel, dict[str, Any]]:
    """The network of a configuration, and that configuration with the head's sizes filled in."""
    if OmegaConf.is_missing(config, "n_dipoles"):
        config.n_dipoles = template.space.n_dipoles
    return hydra.utils.instantiate(config, _convert_="all"), plain(config)


def fit(config: DictConfig, cohort: Cohort, run_dir: Path) -> Path:
    """Train and return the path of the best checkpoint."""
    torch.manual_seed(config.seed)
    template = cohort.template
    model, model_config = build_model(config.model, template)
    with atomic(run_dir / "config.yaml") as partial:
        OmegaConf.save(config, partial, resolve=True)
    loss: WeightedSum = hydra.utils.instantiate(config.loss)
    declarations = [*model.head_inputs, *loss.head_inputs]
    draw = hydra.utils.instantiate(config.data, _convert_="all")

    def recordings(split: str, batch_size: int) -> SimulatedRecordings:
        return cast(
            SimulatedRecordings,
            draw(
                heads=cohort.of(split),
                analyst=template,
                declarations=declarations,
                batch_size=batch_size,
                seed=config.seed,
                split=split,
            ),
        )

    settings = config.trainer
    if settings.max_steps % settings.steps_per_epoch:
        raise ValueError(
            f"train: trainer.max_steps={settings.max_steps} is not a multiple of "
            f"trainer.steps_per_epoch={settings.steps_per_epoch}, so the last steps would never be "
            "validated. Change one of them."
        )
    train = recordings("train", config.data.batch_size)
    for note in train.limits:
        console.print(note, style="yellow", soft_wrap=True)
    data = RecordingStream(
        train,
        recordings("validation", settings.validation_batch_size),
        settings.steps_per_epoch,
        settings.n_validation_batches,
    )
    module = InverseTraining(
        model,
        loss,
        model_config,
        template.space,
        settings.learning_rate,
        settings.weight_decay,
        settings.warmup_steps,
        settings.max_steps,
        config.seed,
        {name: plain(config[name]) for name in ("data", "loss", "trainer")},
    )
    callbacks = [Throughput(), ValidationLine(), progress_bar()]
    if config.data.curriculum is not None:
        callbacks.append(CurriculumLog(train))
    best, last = checkpoints(run_dir / "checkpoints", settings.checkpoint_every)
    trainer = lightning.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=settings.precision,
        max_steps=settings.max_steps,
        max_epochs=settings.max_steps // settings.steps_per_epoch,
        gradient_clip_val=settings.gradient_clip_val,
        logger=hydra.utils.instantiate(config.logger),
        callbacks=[best, last, *callbacks],
        log_every_n_steps=settings.log_every,
        num_sanity_val_steps=0,
        enable_model_summary=False,
    )
    n_weights = sum(p.numel() for p in model.parameters())
    console.print(
        f"Training {type(model).__name__}, {n_weights:,} weights, {settings.max_steps} steps"
    )
    trainer.fit(module, data, ckpt_path=config.ckpt, weights_only=True)
    return Path(best.best_model_path)


def export(
    model: InverseModel,
    model_config: dict[str, Any],
    scenario: Scenario,
    template: Template,
    folder: Path,
    montages: list[str],
) -> Parity:
    """Export, check against torch at another batch size, duration and montage, prepare a head."""
    montage = scenario.setups.montages[0] if template.cap is None else "its own"
    head = template.montage_head(montage)
    probe = SimulatedRecordings(
        template,
        scenario.sources,
        SetupRanges(montages=["biosemi32"]),
        model.head_inputs,
        batch_size=5,
        n_times=7,
        sfreq=scenario.sfreq,
        split=next(split for split in SPLITS if Cohort.single(template).of(split)),
        pool_size=1,
        pool_period=1,
    )
    path = folder / "model.onnx"
    with atomic(path) as partial:
        export_onnx(model, head, partial, montages, model_config, template.fingerprint)
        parity = check_parity(model, partial, probe.batch(0))
    origin = f"an example: {montage} electrodes on {template.name}, white noise of 1 µV"
    Inverse.load(path).prepare_for(head, 1, origin).save(folder / "head.npz")
    return parity


def run(config: DictConfig, run_dir: Path) -> None:
    """Train, compare, export, and say where everything is."""
    started = time.perf_counter()
    cohort = load_heads(config.head)
    template = cohort.template
    console.print(
        f"Head {template.name}: {template.space.n_sources} sources, loaded in "
        f"{time.perf_counter() - started:.1f} s"
    )
    scenario: Scenario = hydra.utils.instantiate(config.scenario, _convert_="all")
    baselines = load_baselines(config)
    # What the comparison will need is prepared once before training, not after hours of it.
    next(scenario.batches(cohort, scenario.snr_db[0], list(baselines.values())))
    best = fit(config, cohort, run_dir)
    if rank_zero_only.rank != 0:  # the other processes of a distributed run have done their part
        return
    trained = time.perf_counter() - started

    model, identity = load_network(best, template.space)
    save_network(model, identity, run_dir / "model")
    benchmark = compare({type(model).__name__: model} | baselines, scenario, cohort, run_dir)
    own = f"the {len(template.cap or ())} electrodes of {template.name}"
    montages = [own] if template.cap else plain(config.data.setups.montages)
    parity = export(model, identity["model"], scenario, template, run_dir / "export", montages)
    write_card(
        run_dir / "export" / "card.md",
        type(model).__name__,
        plain(config),
        benchmark.rows,
        parity._asdict(),
        limits_of(cohort.train, hydra.utils.instantiate(config.data.artifacts)),
    )
    console.print(
        f"Export: largest deviation from torch {parity.deviation:.1e} of the largest estimate; "
        f"one frame on one core {parity.latency_ms:.2f} ms"
    )
    console.print(
        f"Training {trained:.0f} s, all {time.perf_counter() - started:.0f} s.\n"
        f"Results in {run_dir}:\n"
        "  report.html             table, curves, a worked example\n"
        "  benchmark.csv           the same numbers, long format\n"
        "  checkpoints/best.ckpt   weights; last.ckpt resumes with ckpt=PATH\n"
        "  export/model.onnx       runs without torch; head.npz and card.md beside it\n"
        "Next: localize a recording with\n"
        f"  deepesi apply {run_dir}/export/model.onnx EVOKED.fif --noise-cov COV.fif --out stc",
        highlight=False,
        soft_wrap=True,
    )


@hydra.main(version_base="1.3", config_path="pkg://deepesi.configs", config_name="train")
def main(config: DictConfig) -> None:
    """Hydra entry of ``deepesi train``."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # Ours is the run directory, which holds Hydra's files already; and torch's own deprecation.
    for message in ("Experiment logs directory", "`isinstance(treespec, LeafSpec)`"):
        warnings.filterwarnings("ignore", message=re.escape(message))
    run(config, Path(HydraConfig.get().runtime.output_dir))
