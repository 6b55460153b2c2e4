"""Uncertainty: the standard deviation a model claims should fit the errors it makes."""

import math

from jaxtyping import Float
from torch import Tensor

from deepesi.core.contracts import Batch, Estimate
from deepesi.losses.base import LossTerm


class GaussianNLL(LossTerm):
    r"""Mean over dipoles and samples of ``½ [log v + (ĵ − j)² / (f² v)]``, ``v = 1 + σ² / f²``.

    The negative log-likelihood (nats, no unit) of the true moments under independent normal
    distributions of mean ``ĵ`` and variance ``σ² + f²``, up to a constant: 0 for an estimate that
    is exact and claims to be. ``f`` is a floor, a fraction of the largest true moment of the
    example. Most true moments are exactly zero; without the floor the likelihood of those has no
    bound, and a network would learn nothing but to be sure of them. The floor says that errors
    below that fraction do not matter; it is no part of the ``σ`` a model gives.

    Args:
        floor: ``f``, as a fraction of the largest true moment, above 0.

    Raises:
        ValueError: The floor is not a positive number; the model gives no standard deviation (in
            `forward`).

    Source: Nix & Weigend 1994, doi:10.1109/ICNN.1994.374138. Ours deviates: a floor, added to the
    variance instead of clamping it, so that the gradient does not end there. Weights that even
    out the share of uncertain outputs (Seitzer et al. 2022, arXiv:2203.09168) did not help in
    short trainings.

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
        """See the class."""
        if estimate.std is None:
            raise ValueError(
                "GaussianNLL: the model gives no standard deviation. Set "
                "model.heteroscedastic=true, or choose a loss without this term (loss=default)."
            )
        floor = self.floor * batch.sources.abs().amax((1, 2), keepdim=True)
        variance = 1 + (estimate.std / floor).square()
        error = ((estimate.mean - batch.sources) / floor).square()
        return 0.5 * (variance.log() + error / variance).mean((1, 2))
