"""Forward consistency: the estimate, projected to the scalp, should give the recording back."""

from jaxtyping import Float
from torch import Tensor

from deepesi.core.contracts import Batch, Estimate
from deepesi.core.quantities import residual_variance
from deepesi.losses.base import LossTerm
from deepesi.physics.head_inputs import Gain, Whitener

LEAD_FIELDS = ("nominal", "true_leadfield")


class Reprojection(LossTerm):
    r"""Whitened scalp misfit ``‖W(v − L ĵ)‖² / ‖W v‖²`` (no unit): 1 for an estimate of zero.

    Whitening weighs every direction by how well it is known, so that strong coloured noise is not
    fitted. Blind to the null space of ``L``: a small value does not mean correct sources, so use
    it beside a source-space term.

    Args:
        through: The lead field ``L``. ``"nominal"``, the one an analyst has: the misfit of true
            sources is then the share of noise and of head mismatch, and training may trade places
            for a better fit through the wrong head. ``"true_leadfield"``, the one that rendered the
            example, which only a simulation knows: the misfit of the true sources is then noise.
            ``W`` is the nominal one in both.

    Raises:
        ValueError: Unknown lead field.

    """

    def __init__(self, through: str = "nominal") -> None:
        super().__init__()
        if through not in LEAD_FIELDS:
            raise ValueError(
                f"Reprojection: through must be one of {list(LEAD_FIELDS)}, got {through!r}."
            )
        self.through = through
        self.whitener, self.gain = Whitener(), Gain(whitened=True)
        self.head_inputs = (self.whitener, self.gain) if through == "nominal" else (self.whitener,)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """See the class."""
        whitener = batch.inputs[self.whitener.key]
        observed = whitener @ batch.data
        if self.through == "nominal":
            explained = batch.inputs[self.gain.key] @ estimate.mean
        else:
            explained = whitener @ batch.true_leadfield.project(estimate.mean)
        return residual_variance(explained, observed)
