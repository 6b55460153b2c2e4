"""Noise covariances of any rank, and whitening."""

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.sensors import SensorArray

Array = NDArray[np.float64]

#: Share of the typical variance below which a dimension holds only rounding errors. Measured
#: covariances of up to 128 channels are above 1e-5; single precision gives 1e-14 of the power, or
#: 4e-9 where offsets are a thousand times the signal.
NO_VARIANCE = 1e-7
#: Least typical variance, as a share of the largest variance.
MIN_TYPICAL = 1e-6
#: Least ratio of the powers of two successive dimensions at which the rank of data ends.
STEP = 1e3
#: Least SNR (power ratio, -30 dB) estimated from a recording; noise alone may have less power.
MIN_SNR = 1e-3


def white_noise_cov(sensors: SensorArray, noise_level: float) -> Array:
    """Covariance ``(C, C)`` of white noise in the reference of the sensors, of full rank there.

    Args:
        sensors: The sensors.
        noise_level: Standard deviation per channel before referencing, in their unit.

    """
    return noise_level**2 * sensors.reference_operator


def brain_noise_cov(
    leadfield: Array, sensors: SensorArray, noise_level: float, power: Array
) -> Array:
    """Covariance ``(C, C)`` of independent activity everywhere on the cortex.

    Args:
        leadfield: ``(C, D)``, in the reference of the sensors.
        sensors: The sensors.
        noise_level: The result has the RMS over channels of `white_noise_cov` at this level.
        power: Relative power of each source component ``(D,)``, not negative.

    """
    cov = (leadfield * power) @ leadfield.T
    return np.asarray(cov * noise_level**2 * sensors.rank / np.trace(cov))


def leading_eigh(matrix: Array, rank: int) -> tuple[Array, Array]:
    """The `rank` largest eigenvalues ``(R,)`` and eigenvectors ``(C, R)`` of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    first = len(values) - rank
    return values[first:], vectors[:, first:]


def rank_of(noise_cov: Array) -> int:
    """Number of dimensions that a noise covariance ``(C, C)`` spans.

    Fewer than channels where a reference was subtracted, components were removed from the recording
    (ICA, projectors) or channels were interpolated from others. A dimension counts if its variance
    is more than `NO_VARIANCE` of the typical one: the upper quartile of all, or `MIN_TYPICAL` of
    the largest if that is more. The largest alone is not a good measure: one loud channel or
    blinks have a million times the power of the rest.
    """
    values = np.linalg.eigvalsh(noise_cov)
    typical = max(values[len(values) * 3 // 4], MIN_TYPICAL * values[-1])
    return int((values > NO_VARIANCE * typical).sum())


def spanned_eigh(noise_cov: Array) -> tuple[Array, Array]:
    """Eigenvalues ``(R,)`` and eigenvectors ``(C, R)`` of the `rank_of` dimensions spanned."""
    return leading_eigh(noise_cov, rank_of(noise_cov))


def spanned_projector(noise_cov: Array) -> Array:
    """Orthogonal projector ``(C, C)`` onto the dimensions that a noise covariance spans."""
    _, vectors = spanned_eigh(noise_cov)
    return np.asarray(vectors @ vectors.T)


def of_rank(noise_cov: Array, rank: int) -> Array:
    """The covariance ``(C, C)`` without its smallest dimensions, so that it spans `rank`."""
    values, vectors = leading_eigh(noise_cov, rank)
    return np.asarray((vectors * values) @ vectors.T)


def whitener(noise_cov: Array) -> Array:
    """Symmetric whitening matrix ``W`` ``(C, C)``, one over the unit of the data.

    ``W noise_cov Wᵀ`` is the projector onto the dimensions that the covariance spans (`rank_of`).
    All other dimensions of recordings and lead fields become zero, as in MNE-Python. The symmetric
    matrix commutes with reordering of channels.
    """
    values, vectors = spanned_eigh(noise_cov)
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)


def whitened_power(whitened: Array, rank: int) -> Array:
    """Power of whitened data ``(..., C, T)`` per dimension, ``(..., T)``: of noise alone 1."""
    return np.asarray((whitened**2).sum(axis=-2) / rank)


def snr_db_of_power(power: Array) -> Array:
    """SNR (dB) of recordings from their whitened power, ``10 log10(p − 1)``; at least -30 dB.

    Args:
        power: Whitened power, mean over time, any shape: 1 for noise alone.

    """
    return np.asarray(10 * np.log10(np.maximum(power - 1, MIN_SNR)))


def spanned_by_data(whitened: Array, rank: int) -> int:
    """Number of the `rank` dimensions of the noise that whitened data ``(C, T)`` reach into.

    Fewer than `rank` if the recording was cleaned or interpolated after its noise covariance was
    computed: removed dimensions hold only rounding errors of single precision. A filter lowers the
    power gradually over dimensions, so only a step of more than `STEP` below `NO_VARIANCE` counts.
    Short data, ``T <= 2 C``, count as full rank.
    """
    if whitened.shape[1] <= 2 * len(whitened):
        return rank
    power = np.linalg.eigvalsh(whitened @ whitened.T)[::-1][:rank]
    quiet = power < NO_VARIANCE * power[rank // 4]
    first = int(quiet.argmax())
    if not quiet.any() or power[first] * STEP > power[first - 1]:
        return rank
    return first


def denoiser(leadfield: Array, noise_cov: Array, snr_db: float) -> Array:
    """Posterior mean of the signal under noise ``C``: ``S Q (Qᵀ (S + C) Q)⁻¹ Qᵀ``, ``(C, C)``.

    ``S`` is the covariance of the signal of independent sources of equal strength, scaled so
    that whitened signal and noise have the power ratio `snr_db`, as in `linear_inverse`; ``Q`` are
    the dimensions that the noise spans. The others, which a cleaning removed, are predicted from
    these. The result has the unit of the data.
    """
    white, (_, span) = whitener(noise_cov), spanned_eigh(noise_cov)
    signal = leadfield @ leadfield.T
    signal *= 10 ** (snr_db / 10) * span.shape[1] / np.trace(white @ signal @ white)
    measured = span.T @ (signal + noise_cov) @ span
    return np.asarray(signal @ span @ np.linalg.solve(measured, span.T))
