"""The Lightning trainer of a run, from its settings."""

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

#: float16 is not among them: its gradients overflow now and then, and are not finite.
PRECISIONS = ("auto", "32-true", "bf16-mixed")


#: Settings that count something.
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
    """Refuse settings that would fail later, or do what nobody wants.

    Raises:
        ValueError: Which one, what is expected.

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
            f"{PRECISIONS}; bf16-mixed is for GPUs, auto takes it there."
        )


def settle_steps(settings: DictConfig) -> list[str]:
    """Make validations and warm-up follow the number of steps, where that asks for it.

    There are `steps_per_epoch` steps at most between validations, and the last one is always
    validated; the learning rate rises for a quarter of the training at most.

    Returns:
        What was changed, in words.

    Raises:
        ValueError: No suitable number divides the steps.

    """
    steps, asked, warmup = settings.max_steps, settings.steps_per_epoch, settings.warmup_steps
    between = next((n for n in range(min(asked, steps), 0, -1) if steps % n == 0), 1)
    if between < min(asked, steps) / 4:
        raise ValueError(
            f"train: trainer.max_steps={steps} has no divisor near trainer.steps_per_epoch={asked},"
            f" so the last steps would never be validated. Take trainer.max_steps="
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
        f"{text}, as trainer.max_steps={steps} asks for" for text, is_so in notes.items() if is_so
    ]


def check_sweep(settings: DictConfig) -> None:
    """Refuse a sweep whose runs would start further processes: each would run the whole sweep.

    Raises:
        ValueError: What to do instead.

    """
    outside = SLURMEnvironment.detect() or TorchElasticEnvironment.detect()
    if settings.strategy != "auto" and not outside:
        raise ValueError(
            f"train: a sweep (-m) cannot start the processes of trainer.strategy="
            f"{settings.strategy} itself. Let the cluster start them (hydra/launcher="
            "submitit_slurm hydra.launcher.tasks_per_node=N), or give each process one run "
            "(trainer=gpu)."
        )


def precision_of(settings: DictConfig) -> str:
    """``auto`` is bfloat16 on a GPU and float32 elsewhere."""
    if settings.precision != "auto":
        return str(settings.precision)
    on_gpu = settings.accelerator in ("gpu", "cuda") or (
        settings.accelerator == "auto" and torch.cuda.is_available()
    )
    return "bf16-mixed" if on_gpu else "32-true"


def device_of(named: str, own: torch.device) -> torch.device:
    """Where a process draws its data: ``cuda`` means the GPU that it trains on itself."""
    return own if named == own.type else torch.device(named)


class Run(NamedTuple):
    """A trainer and those of its callbacks that are asked afterwards."""

    trainer: Trainer
    best: BestCheckpoint
    stopper: EarlyStopping | None


def make_trainer(
    settings: DictConfig, folder: Path, loggers: list[Logger], callbacks: list[Callback]
) -> Run:
    """The trainer.

    Args:
        settings: The group ``trainer`` of the configuration.
        folder: For checkpoints.
        loggers: Of the curves.
        callbacks: More of them.

    Raises:
        ValueError: Settings that cannot be.

    """
    check_trainer(settings)
    stopper = None
    if settings.patience is not None:
        stopper = EarlyStopping(
            CRITERION, patience=settings.patience, mode=MODE, check_on_train_epoch_end=False
        )
    average = [] if settings.ema_decay is None else [weight_average(settings.ema_decay)]
    best = BestCheckpoint(folder)
    trainer = Trainer(
        accelerator=settings.accelerator,
        strategy=settings.strategy,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        precision=precision_of(settings),  # type: ignore[arg-type]
        max_steps=settings.max_steps,
        max_epochs=settings.max_steps // settings.steps_per_epoch,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.gradient_clip_val,
        logger=loggers,
        callbacks=[
            *average,  # first: others see the weights it followed
            *callbacks,
            ExpectedTime(),
            Throughput(),
            CurriculumLog(),
            ValidationLine(),
            progress_bar(),
            *([] if stopper is None else [stopper]),
            best,
            # Records the state of the others.
            LastCheckpoint(folder, settings.checkpoint_every, settings.stop_within),
        ],
        log_every_n_steps=settings.log_every,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        use_distributed_sampler=False,
        # Lightning would write its own checkpoints on SLURM's signals, in mid-step; ours waits.
        plugins=[SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None,
    )
    return Run(trainer, best, stopper)
