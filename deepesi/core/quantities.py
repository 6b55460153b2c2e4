"""Quantities of batches of signals in torch: differentiable, and on the device of the batch.

Quantities that parts without torch need, too, have a NumPy version there, which is named here. A
test compares both.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.physics.noise import MIN_SNR


def magnitude(values: Float[Tensor, "B D T"], n_orient: int) -> Float[Tensor, "B S"]:
    """Magnitude of every source: norm over orientation, RMS over time.

    The gradient at a source of zero is zero; a plain square root would give NaN.
    NumPy: `deepesi.physics.head.HeadModel.magnitude`.
    """
    by_source = values.unflatten(1, (-1, n_orient))
    magnitudes: Tensor = torch.linalg.vector_norm(by_source, dim=(2, 3)) / values.shape[2] ** 0.5
    return magnitudes


def summed_power(whitened: Float[Tensor, "B C T"]) -> Float[Tensor, " B"]:
    """Power of whitened recordings, mean over time, summed over channels: of noise the rank."""
    return whitened.square().mean(2).sum(1)


def whitened_power(
    whitened: Float[Tensor, "B C T"], rank: Float[Tensor, " 1"]
) -> Float[Tensor, " B"]:
    """Power of whitened data per dimension, mean over time: of noise alone 1.

    NumPy: `deepesi.physics.noise.whitened_power`, without the mean.
    """
    return summed_power(whitened) / rank


def snr_db_of_power(power: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """SNR (dB) of recordings from their whitened power, ``10 log10(p − 1)``; at least -30 dB.

    NumPy: `deepesi.physics.noise.snr_db_of_power`.
    """
    return 10 * torch.log10(torch.clamp(power - 1, min=MIN_SNR))


def residual_variance(
    estimate: Float[Tensor, "B C T"], target: Float[Tensor, "B C T"]
) -> Float[Tensor, " B"]:
    """Squared error over the squared target of every example, ``‖a − b‖² / ‖b‖²`` (no unit).

    NumPy: `deepesi.physics.similarity.residual_variance`.
    """
    return (estimate - target).square().sum((1, 2)) / target.square().sum((1, 2))


def scale_to_db(
    power: Float[Tensor, " B"], reference: float, decibel: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Factors that scale signals to a power in dB relative to a reference.

    Args:
        power: Power of the signals, not 0.
        reference: Reference power, in the same unit.
        decibel: Power of the scaled signals relative to the reference, dB.

    """
    return (reference * 10 ** (decibel / 10) / power).sqrt()
