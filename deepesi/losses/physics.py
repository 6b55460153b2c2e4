"""Forward consistency: the estimate, projected to the scalp, should give the recording back."""

from jaxtyping import Float
from torch import Tensor

from deepesi.contracts import Batch, Estimate
from deepesi.losses.base import LossTerm
from deepesi.physics.head_inputs import Gain, Whitener


class Reprojection(LossTerm):
    r"""Whitened scalp misfit ``‖W(v − L ĵ)‖² / ‖W v‖²`` (no unit) through the nominal ``L``.

    Whitening weighs every direction by how well it is known, so that strong coloured noise is not
    fitted. Blind to the null space of ``L``: a small value does not mean correct sources, so use
    it beside a source-space term. It cannot fall below the share of noise and head mismatch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.whitener, self.gain = Whitener(), Gain(whitened=True)
        self.head_inputs = (self.whitener, self.gain)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """See the class."""
        observed = batch.inputs[self.whitener.key] @ batch.eeg
        misfit = observed - batch.inputs[self.gain.key] @ estimate.mean
        return misfit.square().sum((1, 2)) / observed.square().sum((1, 2))
