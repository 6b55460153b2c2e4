"""What happens beside training: progress bar, throughput, checkpoints."""

import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme

from deepesi.contracts import Batch


class Throughput(Callback):
    """Logs examples per second of wall time, all ranks together, since the epoch began."""

    def __init__(self) -> None:
        self._start, self._examples = time.perf_counter(), 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock (a resumed epoch does not start anew)."""
        self._start, self._examples = time.perf_counter(), 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, validation left out."""
        self._start, self._examples = time.perf_counter(), 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count the batch; show the rate and the learning rate."""
        self._examples += len(batch.eeg) * trainer.world_size
        elapsed = time.perf_counter() - self._start
        rate = {
            "samples/s": self._examples / elapsed,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
        }
        pl_module.log_dict(rate, prog_bar=True, on_step=True)


class ValidationLine(Callback):
    """Prints one line per validation, which a log file or a cluster keeps."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Step, objective, metrics, speed."""
        names = ("loss", "val/loss", "val/localization_error", "val/nemd", "samples/s")
        logged = trainer.callback_metrics
        values = (f"{name} {float(logged[name]):.4g}" for name in names if name in logged)
        if trainer.is_global_zero:
            print(f"step {trainer.global_step}/{trainer.max_steps}: {', '.join(values)}")


def checkpoints(folder: Path, every_n_steps: int) -> list[ModelCheckpoint]:
    """``last.ckpt`` every few steps and ``best.ckpt`` by validation nEMD."""
    last = ModelCheckpoint(
        folder, "last", every_n_train_steps=every_n_steps, enable_version_counter=False
    )
    best = ModelCheckpoint(
        folder, "best", monitor="val/nemd", mode="min", enable_version_counter=False
    )
    return [last, best]


def progress_bar() -> RichProgressBar:
    """Rich progress bar that keeps finished epochs out of the way."""
    return RichProgressBar(leave=False, theme=RichProgressBarTheme(metrics_format=".3g"))
