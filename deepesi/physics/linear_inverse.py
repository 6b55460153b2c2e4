"""Distributed linear inverses with closed-form kernels: MNE, dSPM, sLORETA, eLORETA.

Same definitions and scaling of ``lambda2`` as `mne.minimum_norm` with fixed orientation, identity
source covariance and no depth weighting, to which tests hold the kernels.
"""

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.noise import referenced_eigh, whitener

Array = NDArray[np.float64]

METHODS = ("MNE", "dSPM", "sLORETA", "eLORETA")


def linear_inverse(leadfield: Array, noise_cov: Array, lambda2: float, method: str) -> Array:
    """Kernel ``(S, C)`` of a linear inverse: A m per V (MNE, eLORETA) or 1/V (dSPM, sLORETA).

    Args:
        leadfield: Fixed-orientation lead field ``(C, S)``, V/(A m), average-referenced.
        noise_cov: ``(C, C)``, V², average-referenced.
        lambda2: Regularization, 1 / SNR with SNR the power ratio of whitened signal and noise.
        method: One of `METHODS`.

    Raises:
        ValueError: Unknown method, or ``lambda2`` is not positive.

    Source: Hämäläinen & Ilmoniemi 1994 doi:10.1007/BF02512476 (MNE); Dale et al. 2000
    doi:10.1016/S0896-6273(00)81138-1 (dSPM); Pascual-Marqui 2002 (sLORETA); Pascual-Marqui 2007
    arXiv:0710.3341 (eLORETA).

    """
    if method not in METHODS:
        raise ValueError(f"linear_inverse: unknown method {method!r}, expected one of {METHODS}.")
    if not lambda2 > 0:
        raise ValueError(f"linear_inverse: lambda2 must be positive, got {lambda2}.")
    whiten = whitener(noise_cov)
    gain = whiten @ leadfield
    rank = len(gain) - 1
    if method == "eLORETA":
        prior = _eloreta_weights(gain, lambda2, rank)
    else:
        prior = np.full(gain.shape[1], rank / (gain**2).sum())
    kernel = prior[:, None] * (gain.T @ _regularized_inverse(gain, prior, lambda2))
    if method == "dSPM":
        kernel /= np.linalg.norm(kernel, axis=1, keepdims=True)
    elif method == "sLORETA":
        kernel /= np.sqrt(prior * (kernel * gain.T).sum(axis=1) / lambda2)[:, None]
    return kernel @ whiten


def _regularized_inverse(gain: Array, prior: Array, lambda2: float) -> Array:
    """``(G R Gᵀ + lambda2 I)⁻¹`` on the subspace that the average reference leaves."""
    values, vectors = referenced_eigh((gain * prior) @ gain.T)
    return (vectors / (values + lambda2)) @ vectors.T


def _eloreta_weights(gain: Array, lambda2: float, rank: int) -> Array:
    """Source variances ``(S,)`` at which standardization and regularization agree (eLORETA)."""
    prior = np.full(gain.shape[1], rank / (gain**2).sum())
    for _ in range(20):
        inverse = _regularized_inverse(gain, prior, lambda2)
        new = 1 / np.sqrt(((inverse @ gain) * gain).sum(axis=0))
        new *= rank / ((gain**2).sum(axis=0) * new).sum()
        change = np.linalg.norm(new - prior) / np.linalg.norm(prior)
        prior = new
        if change < 1e-6:
            break
    return prior
