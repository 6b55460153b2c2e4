"""Noise covariances and whitening."""

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import average_reference

Array = NDArray[np.float64]


def white_noise_cov(n_channels: int, noise_level: float) -> Array:
    """Covariance ``(C, C)`` (V²) of white sensor noise after average referencing, rank ``C - 1``.

    Args:
        n_channels: Number of channels ``C``.
        noise_level: Standard deviation per channel before referencing, V.

    """
    return noise_level**2 * average_reference(np.eye(n_channels))


def whitener(noise_cov: Array) -> Array:
    """Symmetric whitening matrix ``W`` ``(C, C)``, 1/V.

    ``W noise_cov Wᵀ`` is the projector onto the ``C - 1`` dimensions that an average reference
    leaves. The symmetric choice keeps a channel a channel: it commutes with reordering.
    """
    values, vectors = np.linalg.eigh(noise_cov)
    values, vectors = values[1:], vectors[:, 1:]
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)
