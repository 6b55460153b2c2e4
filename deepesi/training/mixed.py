"""MixedRecordings: simulated batches, each with a batch of recordings without targets."""

import torch

from deepesi.core.batch import Batch
from deepesi.core.unlabelled import Mixed, Unlabelled
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.training.expected_responses import ExpectedResponses
from deepesi.training.real import RealRecordings


class MixedRecordings:
    """Every batch has a simulated part with targets and a part without.

    The batch sizes of the two streams set the ratio. Targets of simulated recordings in the second
    part are removed, so no task can use them.

    Args:
        simulated: Recordings with targets.
        unlabelled: Real recordings or responses, or simulated recordings of another domain.

    """

    def __init__(
        self,
        simulated: SimulatedRecordings,
        unlabelled: RealRecordings | ExpectedResponses | SimulatedRecordings,
    ) -> None:
        self.simulated, self.unlabelled = simulated, unlabelled
        self.split, self.batch_size = simulated.split, simulated.batch_size
        self.curriculum, self.widths = simulated.curriculum, simulated.widths
        self.limits = [*simulated.limits, *unlabelled.limits]
        self.recordings = recordings_of(unlabelled)

    def batch(self, step: int, rank: int = 0) -> Mixed:
        """The batch of one step and rank."""
        other = self.unlabelled.batch(step, rank)
        if isinstance(other, Batch):
            other = without_targets(other, self.unlabelled.sfreq)
        return Mixed(self.simulated.batch(step, rank), other)


def without_targets(batch: Batch, sfreq: float) -> Unlabelled:
    """Simulated recordings without sources, true lead field and simulation parameters."""
    return Unlabelled(
        data=batch.data,
        head=batch.head,
        inputs=batch.inputs,
        sfreq=float(sfreq),
        origin=batch.scene.head_name,
        starts=torch.full((len(batch.data),), -1),
        key=batch.key,
    )


def recordings_of(stream: object) -> dict[str, int]:
    """Windows of every real recording of a stream; empty if there is none."""
    return stream.recordings if isinstance(stream, RealRecordings | MixedRecordings) else {}


#: Streams that a training can take its batches from.
Stream = SimulatedRecordings | RealRecordings | MixedRecordings
