"""Distributed linear inverses with closed-form kernels: MNE, dSPM, sLORETA, eLORETA.

Same definitions and scaling of ``lambda2`` as `mne.minimum_norm` with identity source covariance
and no depth weighting, orientation fixed (``fixed=True``) or free (``loose=1``, all three
components kept: ``pick_ori="vector"``); tests compare the kernels.
"""

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.noise import leading_eigh, rank_of, spanned_eigh, whitener

Array = NDArray[np.float64]

METHODS = ("MNE", "dSPM", "sLORETA", "eLORETA")


def linear_inverse(
    leadfield: Array, noise_cov: Array, lambda2: float, method: str, n_orient: int = 1
) -> Array:
    """Kernel ``(D, C)`` of a linear inverse: A m per V (MNE, eLORETA) or 1/V (dSPM, sLORETA).

    With free orientation dSPM and sLORETA divide the three components of a source by one number,
    the root of their summed variances, which keeps the direction. eLORETA weighs every source by a
    full ``3 x 3`` matrix (MNE's default, ``method_params=dict(force_equal=False)``).

    Args:
        leadfield: ``(C, D)``, in the reference of its sensors; column ``n_orient * s + o``.
        noise_cov: ``(C, C)``, in the same reference, of any rank.
        lambda2: Regularization, 1 / SNR with SNR the power ratio of whitened signal and noise.
        method: One of `METHODS`.
        n_orient: 1 (fixed orientation) or 3 (free).

    Raises:
        ValueError: Unknown method, ``lambda2`` is not positive, ``n_orient`` is not 1 or 3, or the
            number of columns of the lead field is no multiple of ``n_orient``.

    Source: Hämäläinen & Ilmoniemi 1994 doi:10.1007/BF02512476 (MNE); Dale et al. 2000
    doi:10.1016/S0896-6273(00)81138-1 (dSPM); Pascual-Marqui 2002 (sLORETA); Pascual-Marqui 2007
    arXiv:0710.3341 (eLORETA).

    """
    if method not in METHODS:
        raise ValueError(f"linear_inverse: unknown method {method!r}, expected one of {METHODS}.")
    if not lambda2 > 0:
        raise ValueError(f"linear_inverse: lambda2 must be positive, got {lambda2}.")
    if n_orient not in (1, 3) or leadfield.shape[1] % n_orient:
        raise ValueError(
            f"linear_inverse: n_orient={n_orient} with {leadfield.shape[1]} columns of the lead "
            "field; expected 1, or 3 with three columns for every source."
        )
    whiten, rank = whitener(noise_cov), rank_of(noise_cov)
    gain = (whiten @ leadfield).T.reshape(-1, n_orient, len(whiten))
    if method == "eLORETA":
        prior = _eloreta_prior(gain, lambda2, rank)
    else:
        prior = _uniform_prior(gain, rank)
    kernel = (prior @ gain) @ _regularized_inverse(gain, prior, lambda2, rank)
    if method == "dSPM":
        kernel /= np.sqrt((kernel**2).sum(axis=(1, 2), keepdims=True))
    elif method == "sLORETA":
        resolution = (kernel * gain).sum(axis=(1, 2), keepdims=True)
        kernel /= np.sqrt(prior[0, 0, 0] * resolution / lambda2)
    return kernel.reshape(-1, len(whiten)) @ whiten


def hat_matrix(
    leadfield: Array, noise_cov: Array, lambda2: float, method: str, n_orient: int = 1
) -> Array:
    """Hat matrix of a linear inverse, from whitened to explained data, ``W G K W⁻¹`` ``(C, C)``.

    dSPM and sLORETA are standardized MNE: they have the matrix of MNE.
    """
    current = "eLORETA" if method == "eLORETA" else "MNE"
    kernel = linear_inverse(leadfield, noise_cov, lambda2, current, n_orient)
    values, vectors = spanned_eigh(noise_cov)
    colour = (vectors * np.sqrt(values)) @ vectors.T  # undoes the whitener
    return np.asarray(whitener(noise_cov) @ leadfield @ kernel @ colour)


def posterior_std(leadfield: Array, noise_cov: Array, lambda2: float) -> Array:
    """Posterior standard deviation ``(D,)``, A m, of sources with one prior variance.

    Sources are independent with the variance that MNE's `lambda2` stands for; the posterior
    covariance is ``P − P Gᵀ (G P Gᵀ + C)⁻¹ G P``, its mean MNE's estimate.
    """
    gain = whitener(noise_cov) @ leadfield
    prior = prior_std(gain, rank_of(noise_cov), lambda2)
    kernel = linear_inverse(leadfield, noise_cov, lambda2, "MNE")
    explained = np.einsum("dc,cd->d", kernel, leadfield)
    return np.asarray(prior * np.sqrt((1 - explained).clip(0)))


def posterior_root(leadfield: Array, noise_cov: Array, lambda2: float) -> Array:
    """Matrix ``M`` ``(C, C)``, (A m)², of the symmetric square root of the posterior covariance.

    With whitened lead field ``G`` and prior standard deviation ``s`` (`prior_std`) the covariance
    of `posterior_std` is ``R Rᵀ`` with ``R = s (I − Gᵀ M G)``. So one matrix of channels stands for
    one of sources.
    """
    gain = whitener(noise_cov) @ leadfield
    rank = rank_of(noise_cov)
    variance = prior_std(gain, rank, lambda2) ** 2
    snr, vectors = leading_eigh(variance * gain @ gain.T, rank)
    # (1 − 1 / √(1 + x)) / x without the difference, which is inaccurate where x is small.
    root = np.sqrt(1 + snr.clip(0))
    spectrum = variance / (root * (1 + root))
    return np.asarray((vectors * spectrum) @ vectors.T)


def prior_std(gain: Array, rank: int, lambda2: float) -> float:
    """Prior standard deviation of every source, A m, that MNE's `lambda2` stands for.

    Args:
        gain: Whitened lead field ``(C, D)``, 1/(A m).
        rank: Number of dimensions of the noise.
        lambda2: Regularization, as in `linear_inverse`.

    """
    return float(np.sqrt(rank / (gain**2).sum() / lambda2))


def _uniform_prior(gain: Array, rank: int) -> Array:
    """Equal source covariance blocks ``(S, O, O)``, scaled to equal signal and noise power."""
    n_places, n_orient, _ = gain.shape
    variance = rank / (gain**2).sum()
    return np.tile(variance * np.eye(n_orient), (n_places, 1, 1))


def _signal_covariance(gain: Array, prior: Array) -> Array:
    """``G R Gᵀ`` ``(C, C)`` of whitened gain blocks ``(S, O, C)`` and prior blocks."""
    n_channels = gain.shape[-1]
    return gain.reshape(-1, n_channels).T @ (prior @ gain).reshape(-1, n_channels)


def _regularized_inverse(gain: Array, prior: Array, lambda2: float, rank: int) -> Array:
    """``(G R Gᵀ + lambda2 I)⁻¹`` on the `rank` dimensions of whitened data."""
    values, vectors = leading_eigh(_signal_covariance(gain, prior), rank)
    return (vectors / (values + lambda2)) @ vectors.T


def _inverse_root(blocks: Array) -> Array:
    """``M^(-1/2)`` of positive blocks ``(S, O, O)``; zero along silent directions."""
    values, vectors = np.linalg.eigh(blocks)
    seen = values > 1e-7 * values[:, -1:]
    powers = np.where(seen, 1 / np.sqrt(np.where(seen, values, 1.0)), 0.0)
    return (vectors * powers[:, None]) @ vectors.swapaxes(1, 2)


def _eloreta_prior(gain: Array, lambda2: float, rank: int) -> Array:
    """Source covariance blocks at which standardization and regularization agree (eLORETA)."""
    prior = _uniform_prior(gain, rank)
    for _ in range(20):
        inverse = _regularized_inverse(gain, prior, lambda2, rank)
        new = _inverse_root(gain @ inverse @ gain.swapaxes(1, 2))
        new *= rank / np.trace(_signal_covariance(gain, new))
        change = np.linalg.norm(new - prior) / np.linalg.norm(prior)
        prior = new
        if change < 1e-6:
            break
    return prior
