"""Checkpoints of a run: the best, the last, and the one after a stop or an error."""

import os
import shutil
import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from deepesi.core.batch import Batch
from deepesi.training.criterion import CRITERION, MODE
from deepesi.training.overrides import typed
from deepesi.training.resume import rewind_counts
from deepesi.utils.files import atomic

#: Signals that request a stop, from a cluster or Ctrl-C.
SIGNALS = [getattr(signal, n) for n in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, n)]


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt`` by a validation criterion; a resumed run keeps the best one so far."""

    def __init__(self, folder: Path, criterion: str = CRITERION) -> None:
        super().__init__(
            folder,
            "best",
            monitor=criterion,
            mode=MODE,
            enable_version_counter=False,
            # Directly after validation, so that the last checkpoint stores this state.
            save_on_train_epoch_end=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy the best checkpoint of the resumed run, and its score."""
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


def best_checkpoint_text(checkpoint: Path) -> str:
    """Text that says how a ``best.ckpt`` was chosen."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    scores = [
        (state["monitor"], float(state["best_model_score"]))
        for key, state in content["callbacks"].items()
        if key.startswith("BestCheckpoint")
    ]
    best, (criterion, score) = "lowest" if MODE == "min" else "highest", scores[0]
    return f"step {content['global_step']}, {best} {criterion}: {score:.4g}"


class Stopped(SystemExit):
    """Ends the process without a traceback after a requested stop."""


class LastCheckpoint(Checkpoint):
    """``last.ckpt``, to resume a run: written every few steps and after each validation.

    At the end of an epoch it is written after the validation; otherwise a resumed run would skip
    the validation.

    On SIGTERM, SIGUSR1 or Ctrl-C, all processes finish the step, write the checkpoint and exit
    with status 128 + number of the signal. After an error in a step (out of memory, a lost
    process) every process that is still able to writes the state before the step. A loss that is
    not finite would occur again from that state, because the data depend on the step only. The
    state is then written to ``failed.ckpt`` for inspection, and ``last.ckpt`` is kept.

    If a step or a validation takes longer than `stop_within`, the process exits at once and
    ``last.ckpt`` is the previous one.

    Args:
        folder: Folder of the checkpoints.
        every_n_steps: Optimizer steps between writes.
        stop_within: Longest time between a signal and the exit, s.

    Raises:
        ValueError: The processes of a run do not share the folder.

    """

    def __init__(self, folder: Path, every_n_steps: int, stop_within: float = 3.0) -> None:
        self.folder, self.every_n_steps, self.stop_within = folder, every_n_steps, stop_within
        self.path = folder / "last.ckpt"
        self.asked: signal.Signals | None = None
        self._patience = threading.Timer(stop_within, self._give_up)
        self.training = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse processes with different folders."""
        first = trainer.strategy.broadcast(str(self.folder.resolve()))
        if not trainer.strategy.reduce_boolean_decision(first == str(self.folder.resolve())):
            raise ValueError(
                "train: the processes of this run do not share one run directory (the first has "
                f"{first}, this one {self.folder.resolve()}). Name it: hydra.run.dir=PATH."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers. Lightning restores the previous ones at the end."""
        self.training = True
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None and number == signal.SIGINT:
            self._patience.cancel()
            raise KeyboardInterrupt  # second Ctrl-C: exit at once
        if self.asked is None:
            self._patience = threading.Timer(self.stop_within, self._give_up, (number,))
            self._patience.daemon = True
            self._patience.start()
        self.asked = signal.Signals(number)

    def _give_up(self, number: int) -> None:
        """Exit at once within a step, without writing a checkpoint."""
        advice = self._advice() if self.path.is_file() else "There was no checkpoint yet."
        print(
            f"\ntrain: stopped by {signal.Signals(number).name}; the step took longer than "
            f"trainer.stop_within={self.stop_within:g} s and is lost. {advice}",
            flush=True,
        )
        os._exit(128 + number)

    def _advice(self) -> str:
        return f"Resume with {typed('ckpt', self.path)}"

    def _must_stop(self, trainer: Trainer) -> bool:
        """Whether any process received a signal."""
        return trainer.strategy.reduce_boolean_decision(self.asked is not None, all=False)

    def _stop(self, trainer: Trainer) -> None:
        self._patience.cancel()
        # Other processes exit with 0; otherwise the launcher would kill the first one too early.
        if not trainer.is_global_zero:
            raise Stopped(0)
        name = (self.asked or signal.SIGTERM).name
        print(
            f"\ntrain: stopped by {name} after step {trainer.global_step}. {self._advice()}",
            flush=True,
        )
        raise Stopped(128 + signal.Signals[name])

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Save between two steps within an epoch."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches or trainer.is_last_batch:
            return
        stop = self._must_stop(trainer)
        if stop or trainer.global_step % self.every_n_steps == 0:
            trainer.save_checkpoint(self.path)
        if stop:
            self._stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, after the best checkpoint was updated."""
        trainer.save_checkpoint(self.path)
        if self._must_stop(trainer):
            self._stop(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Write the state before a failed step. In validation ``last.ckpt`` is up to date."""
        self._patience.cancel()
        if not (self.training and trainer.training and isinstance(exception, Exception)):
            return
        accumulate = trainer.accumulate_grad_batches
        done = trainer.global_step % (int(trainer.num_training_batches) // accumulate)
        if done == 0:  # nothing since the last validation
            return
        name = "failed.ckpt" if isinstance(exception, FloatingPointError) else "last.ckpt"
        # Not Trainer.save_checkpoint: it waits for the other processes, which may be gone.
        # An error here (for example a full disk) must not hide the original error.
        with suppress(OSError, RuntimeError):
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            rewind_counts(checkpoint, done, accumulate)
            trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, self.folder / name)
