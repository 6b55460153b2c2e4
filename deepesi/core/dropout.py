"""Dropout of features: random in training, or with fixed masks for MC dropout."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class FeatureDropout(nn.Module):
    """Dropout on the last axis in training; else a factor per feature, 1 by default.

    Args:
        p: Share of the features dropped in training, no unit.
        n_features: Size ``F`` of the last axis.

    Raises:
        ValueError: The share is outside 0 to 1.

    """

    mask: Tensor

    def __init__(self, p: float, n_features: int) -> None:
        super().__init__()
        if not 0 < p < 1:
            raise ValueError(f"FeatureDropout: p must lie between 0 and 1, got {p}.")
        self.p = p
        self.register_buffer("mask", torch.ones(n_features), persistent=False)

    def forward(self, values: Float[Tensor, "*shape F"]) -> Float[Tensor, "*shape F"]:
        """Thinned values."""
        return functional.dropout(values, self.p) if self.training else values * self.mask
