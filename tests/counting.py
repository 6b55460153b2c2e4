"""A small model that counts sources."""

import torch
from torch import nn

from deepesi.baselines.minimum_norm import MinimumNorm


class Counting(MinimumNorm):
    """A minimum norm estimate, and probabilities of 1 to `most` sources that follow its shape.

    Args:
        seed: Seed of the weights.
        most: Largest number of sources.

    """

    def __init__(self, seed=0, most=3):
        super().__init__("MNE")
        rng = torch.Generator().manual_seed(seed)
        self.weights = nn.Parameter(3 * torch.randn(most, generator=rng))

    def forward(self, data, inputs):
        estimate = super().forward(data, inputs)
        power = estimate.mean.square().sum(2)
        largest = power.amax(1, keepdim=True) / power.sum(1, keepdim=True)
        return estimate._replace(source_counts=torch.softmax(20 * largest * self.weights, dim=1))
