"""Metrics of the dipole moments of one estimate and of the recording they would cause.

``estimate`` and ``target`` are moments ``(D, T)``, A m; recordings are ``(C, T)``, in
`SensorArray.head_units`. Without variation to compare, correlations are 0; an estimate of zero has
a cosine of 0.
"""

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.similarity import cosine, ln_magnitude, rdm

Array = NDArray[np.float64]


def amplitude_correlation(estimate: Array, target: Array) -> float:
    """Pearson correlation over space of magnitudes ``(S,)`` of estimate and target."""
    return cosine(estimate - estimate.mean(), target - target.mean())


def temporal_correlation(
    estimate: Array, target: Array, peaks: NDArray[np.int64], n_orient: int
) -> float:
    """Absolute Pearson correlation over time at the true peaks, mean over them.

    With free orientation both time courses are taken along the direction in which the target is
    strongest. One sample has no time course: NaN.
    """
    if target.shape[1] < 2:
        return float("nan")
    correlations = []
    for peak in peaks:
        rows = slice(n_orient * peak, n_orient * (peak + 1))
        direction = np.linalg.svd(target[rows], full_matrices=False)[0][:, 0]
        time_courses = direction @ estimate[rows], direction @ target[rows]
        correlations.append(abs(cosine(*(moments - moments.mean() for moments in time_courses))))
    return float(np.mean(correlations))


def strongest_sample(data: Array) -> int:
    """Number of the sample of a recording ``(C, T)`` with the largest power."""
    return int((data**2).sum(axis=0).argmax())


def _topographies(explained: Array, data: Array) -> tuple[Array, Array]:
    """Both topographies ``(C,)`` at the sample where the recording is strongest."""
    sample = strongest_sample(data)
    return explained[:, sample], data[:, sample]


def topographic_rdm(explained: Array, data: Array) -> float:
    """RDM of the topographies of estimate and recording where the recording is strongest.

    Args:
        explained: Data of the estimate through the nominal lead field ``(C, T)``; one of
            zero scores √2, as one that is orthogonal to the recording.
        data: Recording ``(C, T)``, in the same unit.

    """
    topographies = _topographies(explained, data)
    return float(rdm(*topographies)) if topographies[0].any() else 2**0.5


#: A topography of zero counts as this share of the recording, so that its logarithm is finite.
MIN_MAGNITUDE = 1e-6


def topographic_ln_magnitude(explained: Array, data: Array) -> float:
    """Logarithm of the strength of the estimate's topography over that of the recording.

    At the sample where the recording is strongest; negative: the estimate is shrunk. At least that
    of `MIN_MAGNITUDE`. Arguments as of `topographic_rdm`.
    """
    topographies = _topographies(explained, data)
    least = float(np.log(MIN_MAGNITUDE))
    return max(float(ln_magnitude(*topographies)), least) if topographies[0].any() else least
