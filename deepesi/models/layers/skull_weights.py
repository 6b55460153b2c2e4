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
        self.log_doubt = nn.Parameter(torch.tensor([-2.0, -4.0]))  # of what is left, of all

    def forward(
        self,
        residual: Float[Tensor, "C T B"],
        total: Float[Tensor, " B"],
        n_free: Float[Tensor, " 1"],
        nominal: PatchDictionary,
        filters: Float[Tensor, "M C C"],
        norms: Float[Tensor, "M K S B"],
        trust: Float[Tensor, "C B"],
    ) -> Float[Tensor, "M B"]:
        """Weights that sum to 1.

        Args:
            residual: What one patch is to explain, weighted by `trust`.
            total: Energy of the whole recording, weighted so.
            n_free: Rank of the noise times number of samples.
            nominal: Topographies under the nominal skull, unweighted.
            filters: What they are seen through under each skull.
            norms: Their norms then, weighted by `trust`.
            trust: Weights of the electrodes, see `ElectrodeTrust`.

        """
        # Skulls are weighed by what is there; the residual is made by the sweep before.
        residual = residual.detach()
        trusted = trust[:, None] * residual
        seen = torch.einsum("mce,ctb->etmb", filters, trusted)
        strongest = (nominal.energy(seen) / norms.square().permute(1, 2, 0, 3)).amax((0, 1))
        best = strongest.amax(0)
        left = (residual.square().sum((0, 1)) - best).clamp_min(0) / n_free
        of_left, of_all = self.log_doubt.exp()
        doubt = 1 + of_left * left + of_all * total / TYPICAL_FREEDOM
        logits = self.prior[:, None] + 0.5 * (strongest - best) / doubt
        return torch.softmax(logits, dim=0)
