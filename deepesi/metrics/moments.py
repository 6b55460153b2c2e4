"""Metrics of the dipole moments of one estimate and of the potentials they would cause.

``estimate`` and ``target`` are moments ``(D, T)``, A m, potentials ``(C, T)`` or ``(C,)``, V.
Without variation to compare, correlations are 0; an estimate of zero has a cosine of 0.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else 0.0


def nmse(estimate: Array, target: Array) -> float:
    """``‖ĵ − j‖² / ‖j‖²``: 1 for an estimate of zero."""
    return float(((estimate - target) ** 2).sum() / (target**2).sum())


def scaled_nmse(estimate: Array, target: Array) -> float:
    """``min_a ‖a ĵ − j‖² / ‖j‖² = 1 − cos²``: blind to scale and sign, 1 for one of zero."""
    return 1 - cosine(estimate, target) ** 2


def cosine(estimate: Array, target: Array) -> float:
    """Cosine of the angle between all moments of estimate and truth."""
    product = float((estimate * target).sum())
    return _ratio(product, float(np.linalg.norm(estimate) * np.linalg.norm(target)))


def amplitude_correlation(estimate: Array, target: Array) -> float:
    """Pearson correlation over space of magnitudes ``(S,)`` of estimate and truth."""
    return cosine(estimate - estimate.mean(), target - target.mean())


def temporal_correlation(
    estimate: Array, target: Array, peaks: NDArray[np.int64], n_orient: int
) -> float:
    """Absolute Pearson correlation over time at the true peaks, mean over them.

    With free orientation both courses are taken along the direction in which the true moment is
    strongest. One sample has no course: NaN.
    """
    if target.shape[1] < 2:
        return float("nan")
    found = []
    for peak in peaks:
        rows = slice(n_orient * peak, n_orient * (peak + 1))
        direction = np.linalg.svd(target[rows], full_matrices=False)[0][:, 0]
        courses = direction @ estimate[rows], direction @ target[rows]
        found.append(abs(cosine(*(course - course.mean() for course in courses))))
    return float(np.mean(found))


def residual_variance(explained: Array, observed: Array) -> float:
    """``‖V − L ĵ‖² / ‖V‖²``. Small does not mean right: most sources are silent on the scalp."""
    return nmse(explained, observed)


def rdm(a: Array, b: Array) -> float:
    """Relative difference measure of topographies ``‖a/‖a‖ − b/‖b‖‖``, 0 to 2.

    Source: Meijs et al. 1989, doi:10.1109/10.40805.
    """
    return float(np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b)))


def ln_magnitude(a: Array, b: Array) -> float:
    """``ln(‖a‖ / ‖b‖)`` of topographies: 0 for equal strength.

    Source: Güllmar et al. 2010, doi:10.1016/j.neuroimage.2010.02.014.
    """
    return float(np.log(np.linalg.norm(a) / np.linalg.norm(b)))
