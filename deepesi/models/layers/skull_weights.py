"""Posterior weights of several skull conductivities, from the data."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepesi.core.patches import PatchDictionary

#: Mismatch is learned as a share of the energy of the recording, in units of 1 / 64.
TYPICAL_FREEDOM = 64


class SkullWeights(nn.Module):
    """Posterior weights of skull conductivities, from how well a single patch fits the data.

    No single patch fits a recording of several sources. The residual is therefore added to the
    variance that divides the evidence, and so is a share of the total energy, for head mismatch.

    Args:
        n_skulls: Number ``M`` of conductivities.

    """

    def __init__(self, n_skulls: int) -> None:
        super().__init__()
        self.prior = nn.Parameter(torch.zeros(n_skulls))
        self.log_mismatch = nn.Parameter(torch.tensor([-2.0, -4.0]))  # factors: residual, excess

    def forward(
        self,
        residual: Float[Tensor, "C T B"],
        excess: Float[Tensor, " B"],
        n_free: Float[Tensor, " 1"],
        nominal: PatchDictionary,
        filters: Float[Tensor, "M C C"],
        norms: Float[Tensor, "M K S B"],
        reliability: Float[Tensor, "C B"],
    ) -> Float[Tensor, "M B"]:
        """Compute weights that sum to 1.

        Args:
            residual: Whitened data to be explained by one patch, weighted by `reliability`.
            excess: `mismatch_energy` of the whole recording, weighted by `reliability`.
            n_free: Rank of the noise covariance times number of samples.
            nominal: Topographies under the nominal skull, not weighted.
            filters: Matrices that turn these topographies into those under each skull.
            norms: Norms of the topographies under each skull, weighted by `reliability`.
            reliability: Weights of the sensors from `SensorReliability`.

        """
        # No gradient flows into the previous sweep, which computed the residual.
        residual = residual.detach()
        weighted = reliability[:, None] * residual
        filtered = torch.einsum("mce,ctb->etmb", filters, weighted)
        strongest = (nominal.energy(filtered) / norms.square().permute(1, 2, 0, 3)).amax((0, 1))
        best = strongest.amax(0)
        unexplained = (residual.square().sum((0, 1)) - best).clamp_min(0) / n_free
        residual_factor, excess_factor = self.log_mismatch.exp()
        mismatch_variance = (
            1 + residual_factor * unexplained + excess_factor * excess / TYPICAL_FREEDOM
        )
        logits = self.prior[:, None] + 0.5 * (strongest - best) / mismatch_variance
        return torch.softmax(logits, dim=0)
