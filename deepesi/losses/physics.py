"""Forward consistency: the estimate, projected to the scalp, should give the recording back."""

from jaxtyping import Float
from torch import Tensor

from deepesi.contracts import Batch, Estimate
from deepesi.losses.base import LossTerm
from deepesi.physics.head_inputs import Gain


class Reprojection(LossTerm):
    r"""Scalp misfit ``‖v − L ĵ‖² / ‖v‖²`` (no unit) through the nominal lead field ``L``.

    Blind to the null space of ``L``: a small value does not mean correct sources, so use it
    beside a source-space term. It cannot fall below the share of noise and head mismatch in ``v``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gain = Gain()
        self.head_inputs = (self.gain,)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """See the class."""
        misfit = batch.eeg - batch.inputs[self.gain.key] @ estimate.mean
        return misfit.square().sum((1, 2)) / batch.eeg.square().sum((1, 2))
