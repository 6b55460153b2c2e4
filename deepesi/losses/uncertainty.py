"""Uncertainty: the estimated standard deviation should match the errors of the estimate."""

import math

from jaxtyping import Float
from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.losses.base import LossTerm


class GaussianNLL(LossTerm):
    r"""Mean over dipoles and samples of ``½ [log v + (ĵ − j)² / (f² v)]``, ``v = 1 + σ² / f²``.

    Negative log-likelihood (nats, no unit) of the target under independent normal distributions
    with mean ``ĵ`` and variance ``σ² + f²``, up to a constant: 0 for an exact estimate with
    ``σ = 0``. ``f`` is a floor, a fraction of the largest target moment of the example. Most
    target moments are exactly zero. Without the floor their likelihood has no bound, and a network
    would only learn ``σ = 0`` for them. With the floor, errors below ``f`` do not matter. It is
    not part of the ``σ`` that the model returns.

    Args:
        floor: ``f``, as a fraction of the largest target moment, above 0.

    Raises:
        ValueError: The floor is not a positive number; the model gives no standard deviation (in
            `forward`).

    Source: Nix & Weigend 1994, doi:10.1109/ICNN.1994.374138. Difference: a floor is added to
    the variance instead of clamping it, so that the gradient is never zero. Weights that balance
    uncertain outputs (Seitzer et al. 2022, arXiv:2203.09168) did not help in short trainings.

    """

    def __init__(self, floor: float = 0.01) -> None:
        super().__init__()
        if not (floor > 0 and math.isfinite(floor)):
            raise ValueError(
                f"GaussianNLL: floor must be a fraction above 0, got {floor}. Without a floor the "
                "likelihood of sources that are exactly zero has no bound."
            )
        self.floor = floor

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Negative log-likelihood per example."""
        if estimate.std is None:
            raise ValueError(
                "GaussianNLL: the model gives no standard deviation. Set "
                "model.heteroscedastic=true, or choose a loss without this term (loss=default)."
            )
        floor = self.floor * batch.sources.abs().amax((1, 2), keepdim=True)
        variance = 1 + (estimate.std / floor).square()
        error = ((estimate.mean - batch.sources) / floor).square()
        return 0.5 * (variance.log() + error / variance).mean((1, 2))
