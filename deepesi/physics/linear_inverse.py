"""Distributed linear inverses with closed-form kernels: MNE, dSPM, sLORETA, eLORETA.

Same definitions and scaling of ``lambda2`` as `mne.minimum_norm` with no depth weighting,
orientation fixed (``fixed=True``), free (``loose=1``) or loose (``loose=0.2``), with all three
components (``pick_ori="vector"``); tests compare the kernels.
"""

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.noise import leading_eigh, rank_of, spanned_eigh, whitener

Array = NDArray[np.float64]

METHODS = ("MNE", "dSPM", "sLORETA", "eLORETA")


def linear_inverse(
    leadfield: Array,
    noise_cov: Array,
    lambda2: float,
    method: str,
    n_orient: int = 1,
    root: Array | None = None,
) -> Array:
    """Kernel ``(D, C)`` of a linear inverse: A m per V (MNE, eLORETA) or 1/V (dSPM, sLORETA).

    With free orientation dSPM and sLORETA divide the three components of a source by one number,
    the root of their summed variances, which keeps the direction. eLORETA weighs every source by a
    full ``3 x 3`` matrix (MNE's default, ``method_params=dict(force_equal=False)``). With loose
    orientation eLORETA multiplies its weights by the prior in every iteration, as MNE does.

    Args:
        leadfield: ``(C, D)``, in the reference of its sensors; column ``n_orient * s + o``.
        noise_cov: ``(C, C)``, in the same reference, of any rank.
        lambda2: Regularization, 1 / SNR with SNR the power ratio of whitened signal and noise.
        method: One of `METHODS`.
        n_orient: 1 (fixed orientation) or 3 (free or loose).
        root: Roots of the prior covariance of every source ``(S, O, O)``, no unit, see
            `deepesi.physics.orientation.orientation_root`. None: identity.

    Raises:
        ValueError: Unknown method, ``lambda2`` is not positive, ``n_orient`` is not 1 or 3, or
            lead field or roots have another number of orientations.

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
    if root is None:
        root = np.tile(np.eye(n_orient), (len(gain), 1, 1))
    if root.shape != (len(gain), n_orient, n_orient):
        raise ValueError(
            f"linear_inverse: roots of the prior of shape {root.shape}, expected "
            f"{(len(gain), n_orient, n_orient)}: one block for every source."
        )
    if method == "eLORETA":
        prior = _eloreta_prior(gain, root, lambda2, rank)
    else:
        prior = _scaled(root @ root, gain, rank)
    kernel = (prior @ gain) @ _regularized_inverse(gain, prior, lambda2, rank)
    if method == "dSPM":
        kernel /= np.sqrt((kernel**2).sum(axis=(1, 2), keepdims=True))
    elif method == "sLORETA":
        resolution = (kernel * (prior @ gain)).sum(axis=(1, 2), keepdims=True)
        kernel /= np.sqrt(resolution / lambda2)
    return kernel.reshape(-1, len(whiten)) @ whiten


def hat_matrix(
    leadfield: Array,
    noise_cov: Array,
    lambda2: float,
    method: str,
    n_orient: int = 1,
    root: Array | None = None,
) -> Array:
    """Hat matrix of a linear inverse, from whitened to explained data, ``W G K W⁻¹`` ``(C, C)``.

    dSPM and sLORETA are standardized MNE: they have the matrix of MNE.
    """
    current = "eLORETA" if method == "eLORETA" else "MNE"
    kernel = linear_inverse(leadfield, noise_cov, lambda2, current, n_orient, root)
    values, vectors = spanned_eigh(noise_cov)
    colour = (vectors * np.sqrt(values)) @ vectors.T  # undoes the whitener
    return np.asarray(whitener(noise_cov) @ leadfield @ kernel @ colour)


def posterior_std(
    leadfield: Array, noise_cov: Array, lambda2: float, root: Array | None = None
) -> Array:
    """Posterior standard deviation ``(D,)``, A m, of sources with one prior variance.

    Sources are independent with the variance that corresponds to MNE's `lambda2`; the posterior
    covariance is ``P − P Gᵀ (G P Gᵀ + C)⁻¹ G P``, its mean MNE's estimate. `root` is that of
    `linear_inverse`; None: all components have the same variance.
    """
    root = np.ones((leadfield.shape[1], 1, 1)) if root is None else root
    shape, n_orient = (len(root), root.shape[1], -1), root.shape[1]
    gain = weighted_gain(whitener(noise_cov) @ leadfield, root)
    prior = prior_std(gain, rank_of(noise_cov), lambda2) ** 2 * root @ root
    kernel = linear_inverse(leadfield, noise_cov, lambda2, "MNE", n_orient, root)
    explained = kernel.reshape(shape) @ leadfield.T.reshape(shape).swapaxes(1, 2)
    variance = (prior - explained @ prior).diagonal(axis1=1, axis2=2)
    return np.asarray(np.sqrt(variance.clip(0)).ravel())


def posterior_root(
    leadfield: Array, noise_cov: Array, lambda2: float, root: Array | None = None
) -> Array:
    """Matrix ``M`` ``(C, C)``, (A m)², of a square root of the posterior covariance.

    With whitened lead field ``G`` and prior standard deviation ``s`` (`prior_std`) the covariance
    of `posterior_std` is ``R Rᵀ`` with ``R = s (I − Gᵀ M G)``. So a matrix of the size of the
    channels replaces one of the size of the sources. With roots ``Q`` of the prior, ``G Q`` takes
    the place of ``G`` and ``Q R`` that of ``R``.
    """
    gain = whitener(noise_cov) @ leadfield
    gain = gain if root is None else weighted_gain(gain, root)
    rank = rank_of(noise_cov)
    variance = prior_std(gain, rank, lambda2) ** 2
    snr, vectors = leading_eigh(variance * gain @ gain.T, rank)
    # (1 − 1 / √(1 + x)) / x without the difference, which is inaccurate where x is small.
    root = np.sqrt(1 + snr.clip(0))
    spectrum = variance / (root * (1 + root))
    return np.asarray((vectors * spectrum) @ vectors.T)


def prior_std(gain: Array, rank: int, lambda2: float) -> float:
    """Prior standard deviation of every source, A m, that corresponds to MNE's `lambda2`.

    Args:
        gain: Whitened lead field ``(C, D)``, 1/(A m); of loose orientation the `weighted_gain`.
        rank: Number of dimensions of the noise.
        lambda2: Regularization, as in `linear_inverse`.

    """
    return float(np.sqrt(rank / (gain**2).sum() / lambda2))


def weighted_gain(gain: Array, root: Array) -> Array:
    """``G Q`` ``(C, D)``: lead field of sources in units of their prior standard deviation.

    Args:
        gain: Lead field ``(C, D)``; column ``O * s + o``.
        root: Roots of the prior covariance ``(S, O, O)``, no unit.

    """
    return (root @ gain.T.reshape(len(root), root.shape[1], -1)).reshape(gain.shape[::-1]).T


def _scaled(blocks: Array, gain: Array, rank: int) -> Array:
    """Source covariance blocks ``(S, O, O)``, scaled to equal signal and noise power."""
    power = (gain * (blocks @ gain)).sum()  # the trace of `_signal_covariance`, faster
    return np.asarray(blocks * (rank / power))


def _signal_covariance(gain: Array, prior: Array) -> Array:
    """``G R Gᵀ`` ``(C, C)`` of whitened gain blocks ``(S, O, C)`` and prior blocks."""
    n_channels = gain.shape[-1]
    return gain.reshape(-1, n_channels).T @ (prior @ gain).reshape(-1, n_channels)


def _regularized_inverse(gain: Array, prior: Array, lambda2: float, rank: int) -> Array:
    """``(G R Gᵀ + lambda2 I)⁻¹`` on the `rank` dimensions of whitened data."""
    values, vectors = leading_eigh(_signal_covariance(gain, prior), rank)
    return (vectors / (values + lambda2)) @ vectors.T


def inverse_root(blocks: Array) -> Array:
    """``M^(-1/2)`` of positive blocks ``(S, O, O)``; zero along directions without signal."""
    values, vectors = np.linalg.eigh(blocks)
    nonzero = values > 1e-7 * values[:, -1:]
    powers = np.where(nonzero, 1 / np.sqrt(np.where(nonzero, values, 1.0)), 0.0)
    return np.asarray((vectors * powers[:, None]) @ vectors.swapaxes(1, 2))


def _eloreta_prior(gain: Array, root: Array, lambda2: float, rank: int) -> Array:
    """Source covariance blocks of eLORETA: the fixed point of its weights.

    Without a root of the prior the loop would undo loose orientation. So the weights are multiplied
    by it in every step, and the lead field too.
    """
    weighted = root @ gain
    flat = weighted.reshape(-1, weighted.shape[2])  # one product in place of one per source
    prior = _scaled(root @ root, weighted, rank)
    for _ in range(20):
        inverse = _regularized_inverse(weighted, prior, lambda2, rank)
        filtered = (flat @ inverse).reshape(weighted.shape)
        new = root @ inverse_root(filtered @ weighted.swapaxes(1, 2)) @ root
        new = _scaled(new, weighted, rank)
        change = np.linalg.norm(new - prior) / np.linalg.norm(prior)
        prior = new
        if change < 1e-6:
            break
    return _scaled(prior, gain, rank)
