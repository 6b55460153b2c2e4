"""Simulated recordings as a Lightning data module that resumes where it stopped."""

import time
from collections.abc import Iterator

from lightning import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from deepesi.core.contracts import Batch
from deepesi.data_gen.generator import SimulatedRecordings


class TrainStream:
    """The batches from one step to the end of its epoch; a loader for Lightning.

    A step of all processes together takes ``processes x trainer.accumulate`` batches, numbered
    ``rank + processes * m`` for the ``m``-th of a process. The number stands for the rank in the
    key of a batch, so the same data are seen however they are shared out.
    """

    def __init__(self, recordings: SimulatedRecordings, data: "RecordingStream") -> None:
        self.recordings, self.data = recordings, data

    def __len__(self) -> int:
        return self.data.steps_per_epoch * self._trainer.accumulate_grad_batches

    @property
    def _trainer(self) -> Trainer:
        trainer = self.data.trainer
        assert trainer is not None, "Lightning sets the trainer before it asks for batches."
        return trainer

    def state_dict(self) -> dict[str, int]:
        """Nothing to keep: the place in the stream is the global step."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to restore; tells Lightning that the stream resumes in mid-epoch."""

    def __iter__(self) -> Iterator[Batch]:
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

    Lightning counts the batches of an interrupted epoch but starts its loader anew, so the stream
    itself begins at the global step: a resumed run sees the batches the killed one would have.
    Every process validates on the whole set, so all agree on what is best.

    Args:
        train: Draws the training batches.
        validation: Draws the validation batches, from its own split.
        steps_per_epoch: Optimizer steps between validations.
        n_validation_batches: Size of the validation set.

    Attributes:
        seconds_drawing: Time this process has spent drawing training batches, s. On a GPU, drawing
            runs on while Python does: there it is the time until the work was handed over.

    Raises:
        ValueError: A split is not the one expected, or a count is not positive.

    """

    def __init__(
        self,
        train: SimulatedRecordings,
        validation: SimulatedRecordings,
        steps_per_epoch: int = 400,
        n_validation_batches: int = 4,
    ) -> None:
        super().__init__()
        if (train.split, validation.split) != ("train", "validation"):
            raise ValueError(
                "RecordingStream: expected the splits 'train' and 'validation', got "
                f"{train.split!r} and {validation.split!r}; they must never mix."
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
        """The stream from the current global step on."""
        return TrainStream(self.train, self)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The same batches every time."""
        return DataLoader(self.validation_set, batch_size=None)  # type: ignore[arg-type]
