"""Noise level, signal power and energy of head mismatch of a recording."""

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.quantities import whitened_power

#: Signal power that is assumed at least, as a share of the power of the recording.
MIN_SIGNAL = 0.1
#: Least signal power, noise power 1 per channel: silence has finite logarithms.
MIN_POWER = 1e-6


def mismatch_noise(
    recording: Float[Tensor, "B C T"], rank: Float[Tensor, " 1"], log_share: Float[Tensor, ""]
) -> Float[Tensor, " B"]:
    """Standard deviation of noise and head mismatch, in units of that of the noise alone.

    Args:
        recording: Whitened data.
        rank: Rank of the noise covariance.
        log_share: Logarithm of the share of mismatch in the power above the noise.

    """
    power = whitened_power(recording, rank)
    return torch.sqrt(1 + log_share.exp() * (power - 1).clamp_min(0))


def mismatch_energy(
    energy: Float[Tensor, " B"], noise: Float[Tensor, " 1"], of_one_sample: Float[Tensor, " 1"]
) -> Float[Tensor, " B"]:
    """Energy of whitened recordings of which a share counts as head mismatch.

    The energy above the noise, and the noise of one sample: for single samples it is the energy.
    A share of all noise would grow with the length of a window, and hide weak sources in a long
    one.

    Args:
        energy: Energy of whitened data, or its mean over samples.
        noise: The same of noise alone: the rank of its covariance times the number of samples.
        of_one_sample: The part of one sample in it: the rank.

    """
    return (energy - (noise - of_one_sample)).clamp_min(0)


def signal_power(power: Float[Tensor, " B"], rank: Float[Tensor, " 1"]) -> Float[Tensor, " B"]:
    """Power of whitened recordings above the noise, summed over channels, with a lower bound.

    Args:
        power: Mean over samples of the squared norm of the whitened data.
        rank: Rank of the noise covariance.

    """
    return (power - rank).maximum(MIN_SIGNAL * power) + MIN_POWER
