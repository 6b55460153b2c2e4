"""Distances between the estimate and the target."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.losses.base import LossTerm


class NormalizedL1(LossTerm):
    r"""``‖ĵ − j‖₁ / ‖j‖₁``: 1 for an estimate of zero; favours sparse estimates."""

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Distance per example."""
        error = (estimate.mean - batch.sources).abs().sum((1, 2))
        return error / batch.sources.abs().sum((1, 2))


class NormalizedL2(LossTerm):
    r"""``‖ĵ − j‖² / ‖j‖²``: 1 for an estimate of zero; minimized by the posterior mean."""

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Distance per example."""
        error = (estimate.mean - batch.sources).square().sum((1, 2))
        return error / batch.sources.square().sum((1, 2))


class CosineDistance(LossTerm):
    r"""``1 − ⟨ĵ, j⟩ / (‖ĵ‖ ‖j‖)``: independent of the scale of ``ĵ``; 1 for an estimate of zero."""

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Distance per example."""
        # Scaled to the target: moments of 1e-9 A m would be smaller than the epsilon.
        scale = batch.sources.abs().amax((1, 2), keepdim=True)
        return 1 - functional.cosine_similarity(
            (estimate.mean / scale).flatten(1), (batch.sources / scale).flatten(1), dim=1
        )
