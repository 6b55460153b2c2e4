"""How much to believe in skulls of several conductivities, read off the recording."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepesi.core.patches import PatchDictionary

#: Mismatch is learned as a share of the recording's energy, in units of 1 over this.
TYPICAL_FREEDOM = 64


class SkullWeights(nn.Module):
    """How much to believe in each conductivity of the skull, from how well one patch fits.

    A recording of several sources fits no patch, so what is left of it tempers the evidence, as
    does what else of a strong recording the wrong head may fake.
    """

    def __init__(self, n_skulls: int) -> None:
        super().__init__()
        self.prior = nn.Parameter(torch.zeros(n_skulls))
        self.log_mismatch = nn.Parameter(torch.tensor([-2.0, -4.0]))  # of what is left, of all

    def forward(
        self,
        residual: Float[Tensor, "C T B"],
        total: Float[Tensor, " B"],
        n_free: Float[Tensor, " 1"],
        nominal: PatchDictionary,
        filters: Float[Tensor, "M C C"],
        norms: Float[Tensor, "M K S B"],
        reliability: Float[Tensor, "C B"],
    ) -> Float[Tensor, "M B"]:
        """Weights that sum to 1.

        Args:
            residual: What one patch is to explain, weighted by `reliability`.
            total: Energy of the whole recording, weighted so.
            n_free: Rank of the noise times number of samples.
            nominal: Topographies under the nominal skull, unweighted.
            filters: What they are seen through under each skull.
            norms: Their norms then, weighted by `reliability`.
            reliability: Weights of the electrodes, see `SensorReliability`.

        """
        # Skulls are weighed by what is there; the residual is made by the sweep before.
        residual = residual.detach()
        weighted = reliability[:, None] * residual
        filtered = torch.einsum("mce,ctb->etmb", filters, weighted)
        strongest = (nominal.energy(filtered) / norms.square().permute(1, 2, 0, 3)).amax((0, 1))
        best = strongest.amax(0)
        unexplained = (residual.square().sum((0, 1)) - best).clamp_min(0) / n_free
        of_residual, of_all = self.log_mismatch.exp()
        mismatch_variance = 1 + of_residual * unexplained + of_all * total / TYPICAL_FREEDOM
        logits = self.prior[:, None] + 0.5 * (strongest - best) / mismatch_variance
        return torch.softmax(logits, dim=0)
