"""Callbacks: averaged weights, progress bar, throughput, curriculum."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar, WeightAveraging
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.data_gen.curriculum import OPEN
from deepesi.training.criterion import VALIDATED


def weight_average(decay: float) -> WeightAveraging:
    """Exponential moving average of the weights, used in validation and checkpoints.

    ``a <- a + (1 − d) (w − a)`` after every optimizer step ``n = 1, 2, ...`` but the first, with
    ``d = min(decay, n / (n + 9))``, so that the initial weights soon have no effect. Checkpoints
    also store the current weights ``w`` (``current_model_state``).

    Args:
        decay: Largest ``d``, between 0 and 1, no unit. 0.999 averages over about 1,000 steps.

    Raises:
        ValueError: `decay` is out of range.

    Source: Polyak & Juditsky 1992, doi:10.1137/0330046; growing ``d`` as in TensorFlow's
    ExponentialMovingAverage.

    """
    if not 0 < decay < 1:
        raise ValueError(
            f"train: trainer.ema_decay must lie between 0 and 1, got {decay}. Use null for no "
            "average."
        )

    def follow(averages: list[Tensor], weights: list[Tensor], n_averaged: Tensor) -> None:
        n = n_averaged.item() + 1
        torch._foreach_lerp_(averages, weights, 1 - min(decay, n / (n + 9)))

    return WeightAveraging(use_buffers=False, multi_avg_fn=follow)


class Throughput(Callback):
    """Logs examples per second since the start of the epoch, all processes together.

    Also logs the share of this time that was spent on drawing batches, `data_share` (no unit).
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock. A run that resumes within an epoch has no start of the epoch."""
        self._start, self._examples = time.perf_counter(), 0
        self._drawn_before = self._drawn(trainer)

    on_train_epoch_start = on_train_start

    def _drawn(self, trainer: Trainer) -> float:
        return trainer.datamodule.seconds_drawing  # type: ignore[attr-defined] # set later

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count the batch; log speed and learning rate."""
        self._examples += len(batch.data) * trainer.world_size
        elapsed = time.perf_counter() - self._start
        rate = {
            "samples/s": self._examples / elapsed,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
        }
        pl_module.log_dict(rate, prog_bar=True, on_step=True)
        drawing = self._drawn(trainer) - self._drawn_before
        pl_module.log("data_share", drawing / elapsed, on_step=True)


class ExpectedTime(Callback):
    """Prints the speed and the remaining training time once, after a few seconds.

    Args:
        seconds: Time to measure, s. The first step does not count, because it is slower.

    """

    def __init__(self, seconds: float = 5.0) -> None:
        self.seconds, self.printed = seconds, False
        self._start: float | None = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Measure the speed; print it once."""
        if self._start is None:
            self._start, self._examples, self._first = time.perf_counter(), 0, trainer.global_step
            return
        self._examples += len(batch.data) * trainer.world_size
        elapsed, done = time.perf_counter() - self._start, trainer.global_step - self._first
        if self.printed or elapsed < self.seconds or done == 0:
            return
        self.printed = True
        if trainer.is_global_zero:
            remaining = elapsed / done * (trainer.max_steps - trainer.global_step)
            rate = self._examples / elapsed
            print(f"{rate:,.0f} examples/s: {describe(remaining)} of training to go", flush=True)


def describe(seconds: float) -> str:
    """Text of a duration: about 40 s, 7 min, 2 h 05 min."""
    if seconds < 90:
        return f"about {seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} min"
    return f"about {minutes // 60} h {minutes % 60:02} min"


class CurriculumLog(Callback):
    """Logs the widths of the curriculum, ``curriculum/<aspect>``."""

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Log the widths of this batch, if there is a curriculum."""
        recordings = trainer.datamodule.train  # type: ignore[attr-defined] # set later
        if recordings.curriculum is OPEN:
            return
        widths = recordings.widths(batch.key[-1])
        pl_module.log_dict({f"curriculum/{k}": v for k, v in widths.items()}, on_step=True)


class ValidationLine(Callback):
    """Prints one line per validation, for log files."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print step, objective, metrics and speed."""
        metrics = (f"val/{name}" for name in VALIDATED)
        names = ("loss", "val/loss", *metrics, "samples/s", "data_share")
        logged = trainer.callback_metrics
        values = (f"{name} {float(logged[name]):.4g}" for name in names if name in logged)
        if trainer.is_global_zero:
            print(f"step {trainer.global_step}/{trainer.max_steps}: {', '.join(values)}")


def progress_bar() -> RichProgressBar:
    """Rich progress bar that removes finished epochs."""
    return RichProgressBar(leave=False, theme=RichProgressBarTheme(metrics_format=".3g"))
