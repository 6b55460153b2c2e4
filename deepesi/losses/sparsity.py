"""Sparsity: few active sources, each free in orientation and time."""

from jaxtyping import Float
from torch import Tensor

from deepesi.core.contracts import Batch, Estimate
from deepesi.core.quantities import magnitude
from deepesi.losses.base import LossTerm


class GroupSparsity(LossTerm):
    r"""``Σ_s ‖ĵ_s‖ / Σ_s ‖j_s‖`` (no unit), the mixed ℓ21 norm over that of the truth.

    ``‖·‖`` is the norm over orientation and time, so that a source is off or on as a whole. No
    distance to the truth: 0 for an estimate of zero and 1 for one as large as the truth, so use it
    with a small weight beside a supervised term that asks for size or shape.

    Source: Ou, Hämäläinen & Golland 2009, doi:10.1016/j.neuroimage.2008.05.063 (ℓ1ℓ2 norm of
    sources over time); Gramfort, Kowalski & Hämäläinen 2012, doi:10.1088/0031-9155/57/7/1937.
    """

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """See the class."""
        n_orient = batch.head.space.n_orient
        found = magnitude(estimate.mean, n_orient).sum(1)
        return found / magnitude(batch.sources, n_orient).sum(1)
