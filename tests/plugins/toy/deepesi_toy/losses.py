"""A term of the objective."""

from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.losses.base import LossTerm


class Amplitude(LossTerm):
    """Squared error of the norm of all moments, relative to the true one."""

    def forward(self, estimate: Estimate, batch: Batch) -> Tensor:
        """One value per example."""
        found, true = (x.flatten(1).norm(dim=1) for x in (estimate.mean, batch.sources))
        return (found / true - 1).square()
