"""Data consistency: the data of the estimate should equal the recording."""

from jaxtyping import Float
from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.core.quantities import residual_variance
from deepesi.losses.base import LossTerm
from deepesi.physics.head_inputs import Gain, Whitener

LEAD_FIELDS = ("nominal", "true")


class Reprojection(LossTerm):
    r"""Whitened misfit of the data ``‖W(v − L ĵ)‖² / ‖W v‖²`` (no unit): 1 for an estimate of zero.

    Whitening gives noisy directions a low weight, so that strong coloured noise is not fitted.
    The null space of ``L`` has no effect on this term: a small value does not mean correct
    sources. Use it with a term in source space.

    Args:
        leadfield: Lead field ``L``. ``"nominal"``: the one an analyst has. The misfit of the
            target is then the share of noise and head mismatch, and training may move sources to
            fit the data with the wrong head. ``"true"``: the one that rendered the example, known
            in simulations only. The misfit of the target is then the share of noise. ``W`` is
            nominal in both cases.

    Raises:
        ValueError: The lead field is unknown.

    """

    def __init__(self, leadfield: str = "nominal") -> None:
        super().__init__()
        if leadfield not in LEAD_FIELDS:
            raise ValueError(
                f"Reprojection: leadfield must be one of {list(LEAD_FIELDS)}, got {leadfield!r}."
            )
        self.leadfield = leadfield
        self.whitener, self.gain = Whitener(), Gain(whitened=True)
        nominal = leadfield == "nominal"
        self.head_inputs = (self.whitener, self.gain) if nominal else (self.whitener,)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Misfit per example."""
        whitener = batch.inputs[self.whitener.key]
        observed = whitener @ batch.data
        if self.leadfield == "nominal":
            explained = batch.inputs[self.gain.key] @ estimate.mean
        else:
            explained = whitener @ batch.true_leadfield.project(estimate.mean)
        return residual_variance(explained, observed)
