"""What happens beside training: progress bar, throughput, checkpoints."""

import shutil
import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme

from deepesi.contracts import Batch
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.physics.files import atomic


class Throughput(Callback):
    """Logs examples per second of wall time, all ranks together, since the epoch began."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock: also here, as an epoch resumed in its middle does not start."""
        self._start, self._examples = time.perf_counter(), 0

    on_train_epoch_start = on_train_start

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


class CurriculumLog(Callback):
    """Logs how far the ranges of the training data are opened, ``curriculum/<aspect>``."""

    def __init__(self, recordings: SimulatedRecordings) -> None:
        self.recordings = recordings

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """The widths the batch was drawn with."""
        widths = self.recordings.widths(batch.scene.key[-1])
        pl_module.log_dict({f"curriculum/{k}": v for k, v in widths.items()}, on_step=True)


class ValidationLine(Callback):
    """Prints one line per validation, which a log file or a cluster keeps."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Step, objective, metrics, speed."""
        names = ("loss", "val/loss", "val/localization_error", "val/nemd", "samples/s")
        logged = trainer.callback_metrics
        values = (f"{name} {float(logged[name]):.4g}" for name in names if name in logged)
        if trainer.is_global_zero:
            print(f"step {trainer.global_step}/{trainer.max_steps}: {', '.join(values)}")


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt`` by validation nEMD; a resumed run takes the best so far along."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder, "best", monitor="val/nemd", mode="min", enable_version_counter=False
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy the best weights of the run that is resumed, and their score."""
        before = Path(state_dict["best_model_path"])
        if before.is_file() and self.dirpath is not None:
            now = Path(self.dirpath) / "best.ckpt"
            if before != now:
                with atomic(now) as partial:
                    shutil.copyfile(before, partial)
            state_dict = state_dict | {
                "dirpath": self.dirpath,
                "best_model_path": str(now),
                "kth_best_model_path": str(now),
                "best_k_models": dict.fromkeys([str(now)], state_dict["best_model_score"]),
            }
        super().load_state_dict(state_dict)


class LastCheckpoint(Checkpoint):
    """``last.ckpt`` every few steps and after each validation, from which a run resumes.

    At the end of an epoch it waits for the validation, or a resumed run would skip that one.
    """

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        self.path, self.every_n_steps = folder / "last.ckpt", every_n_steps

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Save in mid-epoch."""
        if trainer.global_step % self.every_n_steps == 0 and not trainer.is_last_batch:
            trainer.save_checkpoint(self.path)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after the best checkpoint was updated."""
        trainer.save_checkpoint(self.path)


def checkpoints(folder: Path, every_n_steps: int) -> tuple[BestCheckpoint, LastCheckpoint]:
    """The two checkpoints of a run; the second records the state of the first."""
    return BestCheckpoint(folder), LastCheckpoint(folder, every_n_steps)


def progress_bar() -> RichProgressBar:
    """Rich progress bar that keeps finished epochs out of the way."""
    return RichProgressBar(leave=False, theme=RichProgressBarTheme(metrics_format=".3g"))
