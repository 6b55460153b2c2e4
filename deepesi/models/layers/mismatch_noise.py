"""Noise level of a recording if a share of its power is head mismatch."""

import torch
from jaxtyping import Float
from torch import Tensor


def mismatch_noise(
    recording: Float[Tensor, "B C T"], rank: Float[Tensor, " 1"], log_share: Float[Tensor, ""]
) -> Float[Tensor, " B"]:
    """Standard deviation of noise and head mismatch, in units of that of the noise alone.

    Args:
        recording: Whitened data.
        rank: Rank of the noise covariance.
        log_share: Logarithm of the share of the power beyond the noise that is mismatch.

    """
    power = recording.square().sum((1, 2)) / (recording.shape[2] * rank)
    return torch.sqrt(1 + log_share.exp() * (power - 1).clamp_min(0))
