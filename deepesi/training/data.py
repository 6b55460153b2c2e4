"""Recordings as a Lightning data module that can be resumed."""

import time
from collections.abc import Iterator

from lightning import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from deepesi.core.batch import Batch
from deepesi.core.unlabelled import Mixed, Unlabelled
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.training.mixed import Stream
from deepesi.training.real import RealRecordings


class TrainStream:
    """Loader for Lightning: the batches from the current step to the end of its epoch.

    A step uses ``processes x trainer.accumulate`` batches in total. The ``m``-th batch of a process
    has the number ``rank + processes * m``, which is used as the rank in the random key. So the
    data of a step do not depend on the number of processes.
    """

    def __init__(self, recordings: Stream, data: "RecordingStream") -> None:
        self.recordings, self.data = recordings, data

    def __len__(self) -> int:
        return self.data.steps_per_epoch * self._trainer.accumulate_grad_batches

    @property
    def _trainer(self) -> Trainer:
        trainer = self.data.trainer
        assert trainer is not None, "Lightning sets the trainer before it requests batches."
        return trainer

    def state_dict(self) -> dict[str, int]:
        """Return nothing: the position in the stream is the global step."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore nothing; with this method Lightning resumes within an epoch."""

    def __iter__(self) -> Iterator[Batch | Unlabelled | Mixed]:
        trainer, epoch = self._trainer, self.data.steps_per_epoch
        first = trainer.global_step
        for step in range(first, (first // epoch + 1) * epoch):
            for m in range(trainer.accumulate_grad_batches):
                started = time.perf_counter()
                number = trainer.global_rank + trainer.world_size * m
                batch = self.recordings.batch(step, rank=number)
                self.data.seconds_drawing += time.perf_counter() - started
                yield batch


class RecordingStream(LightningDataModule):
    """Training batches keyed by the global step, and a fixed validation set.

    Lightning counts the batches of an interrupted epoch but restarts the loader. The stream starts
    at the global step, so a resumed run gets the same batches as an uninterrupted one. Every
    process validates on the whole set, so all choose the same best checkpoint.

    Args:
        train: Generator of the training batches.
        validation: Generator of the validation batches.
        steps_per_epoch: Optimizer steps between validations.
        n_validation_batches: Number of validation batches.

    Attributes:
        seconds_drawing: Time spent on drawing training batches in this process, s. On a GPU only
            the time to launch the work, which then runs in parallel to Python.

    Raises:
        ValueError: A split is not the expected one, or a count is not positive.

    """

    def __init__(
        self,
        train: Stream,
        validation: SimulatedRecordings | RealRecordings,
        steps_per_epoch: int = 400,
        n_validation_batches: int = 4,
    ) -> None:
        super().__init__()
        if (train.split, validation.split) != ("train", "validation"):
            raise ValueError(
                "RecordingStream: expected the splits 'train' and 'validation', got "
                f"{train.split!r} and {validation.split!r}."
            )
        if steps_per_epoch < 1 or n_validation_batches < 1:
            raise ValueError(
                "RecordingStream: steps_per_epoch and n_validation_batches must be 1 or more, got "
                f"{steps_per_epoch} and {n_validation_batches}."
            )
        self.train, self.steps_per_epoch = train, steps_per_epoch
        self.validation_set = [validation.batch(step) for step in range(n_validation_batches)]
        self.seconds_drawing = 0.0

    def train_dataloader(self) -> TrainStream:
        """Return the stream from the current global step on."""
        return TrainStream(self.train, self)

    def val_dataloader(self) -> DataLoader[Batch | Unlabelled]:
        """Return the validation batches, the same every time."""
        return DataLoader(self.validation_set, batch_size=None)  # type: ignore[arg-type] # batches
