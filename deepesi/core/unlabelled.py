"""Batches of recordings without targets, alone or beside simulated ones."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepesi.core.batch import Batch, Tensors
from deepesi.physics.head import HeadModel

Key = tuple[int, str, int, int]


@dataclass(frozen=True)
class Unlabelled(Tensors):
    """Recordings whose sources are not known, under one set-up.

    Attributes:
        data: Referenced recordings ``(B, C, T)``, `SensorArray.head_units`.
        head: The nominal head, which the analyst assumes.
        inputs: Prepared head inputs of the nominal head.
        sfreq: Sampling rate, Hz.
        origin: File or head that the recordings are from.
        starts: First sample of every window in its file ``(B,)``; -1 for simulated recordings.
        key: ``(seed, split, rank, step)``, from which the batch can be drawn again.
        regions: Expected areas of the activity ``(B, S)``, as weak labels; None: unknown.

    """

    data: Float[Tensor, "B C T"]
    head: HeadModel
    inputs: dict[str, Tensor]
    sfreq: float
    origin: str
    starts: Int[Tensor, " B"]
    key: Key
    regions: Bool[Tensor, "B S"] | None = None


@dataclass(frozen=True)
class Mixed(Tensors):
    """Simulated recordings with targets, and others without; each part has a set-up of its own."""

    simulated: Batch
    unlabelled: Unlabelled

    @property
    def data(self) -> Float[Tensor, "B C T"]:
        """The simulated recordings, which count as the examples of a step."""
        return self.simulated.data

    @property
    def key(self) -> Key:
        """``(seed, split, rank, step)``."""
        return self.simulated.key
