"""Checkpoints of a run: the best, the last, and what is left when it is stopped or fails."""

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

from deepesi.core.contracts import Batch
from deepesi.training.criterion import CRITERION, MODE
from deepesi.training.overrides import typed
from deepesi.training.resume import rewind
from deepesi.utils.files import atomic

#: What asks a run to stop: a cluster (before it takes a machine away) or Ctrl-C.
SIGNALS = [getattr(signal, n) for n in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, n)]


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt`` by validation nEMD; a resumed run takes the best so far along."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            "best",
            monitor=CRITERION,
            mode=MODE,
            enable_version_counter=False,
            # Right after the validation, so that the last checkpoint knows of it.
            save_on_train_epoch_end=False,
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


def chosen_by(checkpoint: Path) -> str:
    """By what a ``best.ckpt`` was chosen, in words."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    scores = [
        state["best_model_score"]
        for key, state in content["callbacks"].items()
        if key.startswith("BestCheckpoint")
    ]
    best = "lowest" if MODE == "min" else "highest"
    return f"step {content['global_step']}, {best} {CRITERION}: {float(scores[0]):.4g}"


class Stopped(SystemExit):
    """A run was asked to stop, and did: ends the process without a traceback."""


class LastCheckpoint(Checkpoint):
    """``last.ckpt``, from which a run resumes: every few steps and after each validation.

    At the end of an epoch it waits for the validation, or a resumed run would skip that one.

    Asked to stop (SIGTERM, SIGUSR1, Ctrl-C), all processes finish their step, write it, and end
    with the exit status 128 + the number of the signal. After an error in a step (out of memory,
    another process lost) any process that can writes the state before that step. A loss that is
    not finite would come back from there, as data are keyed by the step; so that state is
    ``failed.ckpt``, to look into, and ``last.ckpt`` stays.

    A step or a validation that takes longer than `stop_within` is not waited for: the process ends
    then, and ``last.ckpt`` is the one of before.

    Args:
        folder: Where to write.
        every_n_steps: Optimizer steps between writes.
        stop_within: Longest time from being asked to stop to the end, s.

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
        """Refuse processes that would each write elsewhere."""
        first = trainer.strategy.broadcast(str(self.folder.resolve()))
        if not trainer.strategy.reduce_boolean_decision(first == str(self.folder.resolve())):
            raise ValueError(
                "train: the processes of this run do not share one run directory (the first has "
                f"{first}, this one {self.folder.resolve()}). Name it: hydra.run.dir=PATH."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there is something to keep. Lightning restores the handlers of before."""
        self.training = True
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None and number == signal.SIGINT:
            self._patience.cancel()
            raise KeyboardInterrupt  # Ctrl-C again: at once
        if self.asked is None:
            self._patience = threading.Timer(self.stop_within, self._give_up, (number,))
            self._patience.daemon = True
            self._patience.start()
        self.asked = signal.Signals(number)

    def _give_up(self, number: int) -> None:
        """End at once, in mid-step; nothing is written that could be half of it."""
        advice = self._advice() if self.path.is_file() else "There was no checkpoint yet."
        print(
            f"\ntrain: stopped by {signal.Signals(number).name}; the step took longer than "
            f"trainer.stop_within={self.stop_within:g} s and is lost. {advice}",
            flush=True,
        )
        os._exit(128 + number)

    def _advice(self) -> str:
        return f"Go on with {typed('ckpt', self.path)}"

    def _must_stop(self, trainer: Trainer) -> bool:
        """Whether any process was asked to."""
        return trainer.strategy.reduce_boolean_decision(self.asked is not None, all=False)

    def _stop(self, trainer: Trainer) -> None:
        self._patience.cancel()
        # Other processes end well, or the one that started them would be killed in its last words.
        if not trainer.is_global_zero:
            raise Stopped(0)
        why = (self.asked or signal.SIGTERM).name
        print(
            f"\ntrain: stopped by {why} after step {trainer.global_step}. {self._advice()}",
            flush=True,
        )
        raise Stopped(128 + signal.Signals[why])

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Save between two steps in mid-epoch."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches or trainer.is_last_batch:
            return
        stop = self._must_stop(trainer)
        if stop or trainer.global_step % self.every_n_steps == 0:
            trainer.save_checkpoint(self.path)
        if stop:
            self._stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after the best checkpoint was updated."""
        trainer.save_checkpoint(self.path)
        if self._must_stop(trainer):
            self._stop(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Write the state before a step that failed; in validation ``last.ckpt`` is recent."""
        self._patience.cancel()
        if not (self.training and trainer.training and isinstance(exception, Exception)):
            return
        accumulate = trainer.accumulate_grad_batches
        done = trainer.global_step % (int(trainer.num_training_batches) // accumulate)
        if done == 0:  # nothing since the last validation
            return
        name = "failed.ckpt" if isinstance(exception, FloatingPointError) else "last.ckpt"
        # Not Trainer.save_checkpoint, which waits for the other processes: they may be gone.
        # A full disk, say, must not hide what went wrong first.
        with suppress(OSError, RuntimeError):
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            rewind(checkpoint, done, accumulate)
            trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, self.folder / name)
