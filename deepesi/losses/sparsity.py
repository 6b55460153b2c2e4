"""Sparsity: few active sources, with any orientation and time course."""

from jaxtyping import Float
from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.core.quantities import magnitude
from deepesi.losses.base import LossTerm


class GroupSparsity(LossTerm):
    r"""``Σ_s ‖ĵ_s‖ / Σ_s ‖j_s‖`` (no unit): mixed ℓ21 norm, divided by that of the target.

    ``‖·‖`` is the norm over orientation and time, so that a source is active or not as a whole.
    Not a distance to the target: 0 for an estimate of zero, 1 for one as large as the target. Use
    it with a small weight and a supervised term.

    Source: Ou, Hämäläinen & Golland 2009, doi:10.1016/j.neuroimage.2008.05.063 (ℓ1ℓ2 norm of
    sources over time); Gramfort, Kowalski & Hämäläinen 2012, doi:10.1088/0031-9155/57/7/1937.
    """

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Ratio of the norms per example."""
        n_orient = batch.head.space.n_orient
        estimated = magnitude(estimate.mean, n_orient).sum(1)
        return estimated / magnitude(batch.sources, n_orient).sum(1)
