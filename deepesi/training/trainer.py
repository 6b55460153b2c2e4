"""Lightning trainer of a run, from the configuration."""

from pathlib import Path
from typing import NamedTuple

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from omegaconf import DictConfig

from deepesi.training.callbacks import (
    CurriculumLog,
    ExpectedTime,
    Throughput,
    ValidationLine,
    progress_bar,
    weight_average,
)
from deepesi.training.checkpoints import BestCheckpoint, LastCheckpoint
from deepesi.training.criterion import CRITERION, MODE

#: Supported precisions. Not float16: gradients may overflow.
PRECISIONS = ("auto", "32-true", "bf16-mixed")


#: Settings that must be whole numbers of 1 or more.
COUNTS = (
    "max_steps",
    "steps_per_epoch",
    "n_validation_batches",
    "validation_batch_size",
    "checkpoint_every",
    "log_every",
    "accumulate",
    "patience",
)


def check_trainer(settings: DictConfig) -> None:
    """Refuse settings that would fail later or make no sense.

    Raises:
        ValueError: The message names the setting and the expected values.

    """
    for name in COUNTS:
        value = settings[name]
        if not (value is None and name == "patience") and (
            not isinstance(value, int) or isinstance(value, bool) or value < 1
        ):
            raise ValueError(f"train: trainer.{name} must be 1 or more, got {value}.")
    if settings.warmup_steps < 0 or not settings.stop_within > 0:
        raise ValueError(
            "train: trainer.warmup_steps must be 0 or more and trainer.stop_within above 0 s, got "
            f"{settings.warmup_steps} and {settings.stop_within}."
        )
    if settings.precision not in PRECISIONS:
        raise ValueError(
            f"train: trainer.precision={settings.precision} is unknown, expected one of "
            f"{PRECISIONS}. bf16-mixed is for GPUs; auto uses it there."
        )


def resolve_max_steps(settings: DictConfig) -> list[str]:
    """Adapt validation interval and warm-up to the number of steps.

    There are at most `steps_per_epoch` steps between validations, and the last step is always
    validated. The warm-up takes at most a quarter of the training.

    Returns:
        Sentences that say what was changed.

    Raises:
        ValueError: No suitable interval divides the number of steps.

    """
    steps, asked, warmup = settings.max_steps, settings.steps_per_epoch, settings.warmup_steps
    between = next((n for n in range(min(asked, steps), 0, -1) if steps % n == 0), 1)
    if between < min(asked, steps) / 4:
        raise ValueError(
            f"train: trainer.max_steps={steps} has no divisor near trainer.steps_per_epoch={asked},"
            f" so the last steps would not be validated. Use trainer.max_steps="
            f"{max(steps // asked, 1) * asked}, or another steps_per_epoch."
        )
    settings.steps_per_epoch = between
    settings.log_every = min(settings.log_every, between)
    settings.warmup_steps = min(warmup, max(steps // 4, 1))
    notes = {
        f"validated every {between} steps instead of {asked}": between != asked,
        f"warm-up of {settings.warmup_steps} steps instead of {warmup}": settings.warmup_steps
        != warmup,
    }
    return [
        f"{text}, because of trainer.max_steps={steps}" for text, is_so in notes.items() if is_so
    ]


def check_sweep(settings: DictConfig) -> None:
    """Refuse a sweep in which runs start further processes: each would run the whole sweep.

    Raises:
        ValueError: The message says what to do instead.

    """
    started_by_cluster = SLURMEnvironment.detect() or TorchElasticEnvironment.detect()
    if settings.strategy != "auto" and not started_by_cluster:
        raise ValueError(
            f"train: a sweep (-m) cannot start the processes of trainer.strategy="
            f"{settings.strategy} itself. Let the cluster start them (hydra/launcher="
            "submitit_slurm hydra.launcher.tasks_per_node=N), or give each process one run "
            "(trainer=gpu)."
        )


def precision_of(settings: DictConfig) -> str:
    """Precision of the trainer; ``auto`` is bfloat16 on a GPU and float32 elsewhere."""
    if settings.precision != "auto":
        return str(settings.precision)
    on_gpu = settings.accelerator in ("gpu", "cuda") or (
        settings.accelerator == "auto" and torch.cuda.is_available()
    )
    return "bf16-mixed" if on_gpu else "32-true"


def device_of(named: str, own: torch.device) -> torch.device:
    """Device on which a process draws data; ``cuda`` is the GPU that it trains on."""
    return own if named == own.type else torch.device(named)


class Run(NamedTuple):
    """Trainer, and the callbacks that are read after training."""

    trainer: Trainer
    best: BestCheckpoint
    stopper: EarlyStopping | None


def make_trainer(
    settings: DictConfig,
    folder: Path,
    loggers: list[Logger],
    callbacks: list[Callback],
    criterion: str = CRITERION,
) -> Run:
    """Create the trainer.

    Args:
        settings: Configuration group ``trainer``.
        folder: Folder for checkpoints.
        loggers: Loggers of the curves.
        callbacks: Further callbacks.
        criterion: Logged value that chooses ``best.ckpt``.

    Raises:
        ValueError: A setting is invalid.

    """
    check_trainer(settings)
    stopper = None
    if settings.patience is not None:
        stopper = EarlyStopping(
            criterion, patience=settings.patience, mode=MODE, check_on_train_epoch_end=False
        )
    average = [] if settings.ema_decay is None else [weight_average(settings.ema_decay)]
    best = BestCheckpoint(folder, criterion)
    trainer = Trainer(
        accelerator=settings.accelerator,
        strategy=settings.strategy,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        precision=precision_of(settings),  # type: ignore[arg-type] # a Literal, checked above
        max_steps=settings.max_steps,
        max_epochs=settings.max_steps // settings.steps_per_epoch,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.gradient_clip_val,
        logger=loggers,
        callbacks=[
            *average,  # first, so that the other callbacks see the averaged weights
            *callbacks,
            ExpectedTime(),
            Throughput(),
            CurriculumLog(),
            ValidationLine(),
            progress_bar(),
            *([] if stopper is None else [stopper]),
            best,
            # Last, because it stores the state of the other callbacks.
            LastCheckpoint(folder, settings.checkpoint_every, settings.stop_within),
        ],
        log_every_n_steps=settings.log_every,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        use_distributed_sampler=False,
        # `LastCheckpoint` handles signals of SLURM; Lightning would save within a step.
        plugins=[SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None,
    )
    return Run(trainer, best, stopper)
