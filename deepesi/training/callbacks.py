"""What happens beside training: averaged weights, progress bar, throughput, curriculum."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar, WeightAveraging
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from torch import Tensor

from deepesi.core.contracts import Batch
from deepesi.data_gen.curriculum import OPEN
from deepesi.training.criterion import VALIDATED


def weight_average(decay: float) -> WeightAveraging:
    """Exponential moving average of the weights: what is validated and what checkpoints hold.

    ``a <- a + (1 − d) (w − a)`` after every optimizer step ``n = 1, 2, ...`` but the first, with
    ``d = min(decay, n / (n + 9))``, so that a young average forgets where it began. Checkpoints
    keep the weights ``w`` beside it (``current_model_state``).

    Args:
        decay: Largest ``d``, between 0 and 1, no unit; 0.999 averages over a thousand steps.

    Raises:
        ValueError: `decay` out of range.

    Source: Polyak & Juditsky 1992, doi:10.1137/0330046; the growing ``d`` as in TensorFlow's
    ExponentialMovingAverage.

    """
    if not 0 < decay < 1:
        raise ValueError(
            f"train: trainer.ema_decay must lie between 0 and 1, got {decay}; null switches the "
            "average off."
        )

    def follow(averages: list[Tensor], weights: list[Tensor], n_averaged: Tensor) -> None:
        n = n_averaged.item() + 1
        torch._foreach_lerp_(averages, weights, 1 - min(decay, n / (n + 9)))

    return WeightAveraging(use_buffers=False, multi_avg_fn=follow)


class Throughput(Callback):
    """Logs examples per second of wall time, all ranks together, since the epoch began.

    Also the share of that time that went into drawing batches, `data_share` (no unit).
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock: also here, as an epoch resumed in its middle does not start."""
        self._start, self._examples = time.perf_counter(), 0
        self._drawn_before = self._drawn(trainer)

    on_train_epoch_start = on_train_start

    def _drawn(self, trainer: Trainer) -> float:
        return trainer.datamodule.seconds_drawing  # type: ignore[attr-defined]

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count the batch; show the rate and the learning rate."""
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
    """Says after the first seconds how fast training is, and how long the rest of it will take.

    Args:
        seconds: After how many; the first step, in which much is made once, does not count.

    """

    def __init__(self, seconds: float = 5.0) -> None:
        self.seconds, self.said = seconds, False
        self._start: float | None = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Measure; speak once."""
        if self._start is None:
            self._start, self._examples, self._first = time.perf_counter(), 0, trainer.global_step
            return
        self._examples += len(batch.data) * trainer.world_size
        elapsed, done = time.perf_counter() - self._start, trainer.global_step - self._first
        if self.said or elapsed < self.seconds or done == 0:
            return
        self.said = True
        if trainer.is_global_zero:
            left = elapsed / done * (trainer.max_steps - trainer.global_step)
            rate = self._examples / elapsed
            print(f"{rate:,.0f} examples/s: {describe(left)} of training to go", flush=True)


def describe(seconds: float) -> str:
    """A duration as it is said: about 40 s, 7 min, 2 h 05 min."""
    if seconds < 90:
        return f"about {seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} min"
    return f"about {minutes // 60} h {minutes % 60:02} min"


class CurriculumLog(Callback):
    """Logs how far the ranges of the training data are opened, ``curriculum/<aspect>``."""

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """The widths the batch was drawn with, where there is a curriculum."""
        recordings = trainer.datamodule.train  # type: ignore[attr-defined]
        if recordings.curriculum is OPEN:
            return
        widths = recordings.widths(batch.scene.key[-1])
        pl_module.log_dict({f"curriculum/{k}": v for k, v in widths.items()}, on_step=True)


class ValidationLine(Callback):
    """Prints one line per validation, which a log file or a cluster keeps."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Step, objective, metrics, speed."""
        metrics = (f"val/{name}" for name in VALIDATED)
        names = ("loss", "val/loss", *metrics, "samples/s", "data_share")
        logged = trainer.callback_metrics
        values = (f"{name} {float(logged[name]):.4g}" for name in names if name in logged)
        if trainer.is_global_zero:
            print(f"step {trainer.global_step}/{trainer.max_steps}: {', '.join(values)}")


def progress_bar() -> RichProgressBar:
    """Rich progress bar that keeps finished epochs out of the way."""
    return RichProgressBar(leave=False, theme=RichProgressBarTheme(metrics_format=".3g"))
