"""Metrics of the dipole moments of one estimate and of the potentials they would cause.

``estimate`` and ``truth`` are moments ``(D, T)``, A m, potentials ``(C, T)`` or ``(C,)``, V.
Without variation to compare, correlations are 0; an estimate of zero has a cosine of 0.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else 0.0


def nmse(estimate: Array, truth: Array) -> float:
    """``‖ĵ − j‖² / ‖j‖²``: 1 for an estimate of zero."""
    return float(((estimate - truth) ** 2).sum() / (truth**2).sum())


def scaled_nmse(estimate: Array, truth: Array) -> float:
    """``min_a ‖a ĵ − j‖² / ‖j‖² = 1 − cos²``: blind to scale and sign, 1 for one of zero."""
    return 1 - cosine(estimate, truth) ** 2


def cosine(estimate: Array, truth: Array) -> float:
    """Cosine of the angle between all moments of estimate and truth."""
    product = float((estimate * truth).sum())
    return _ratio(product, float(np.linalg.norm(estimate) * np.linalg.norm(truth)))


def amplitude_correlation(estimate: Array, truth: Array) -> float:
    """Pearson correlation over space of magnitudes ``(S,)`` of estimate and truth."""
    return cosine(estimate - estimate.mean(), truth - truth.mean())


def temporal_correlation(
    estimate: Array, truth: Array, peaks: NDArray[np.int64], n_orient: int
) -> float:
    """Absolute Pearson correlation over time at the true peaks, mean over them.

    With free orientation both courses are taken along the direction in which the true moment is
    strongest. One sample has no course: NaN.
    """
    if truth.shape[1] < 2:
        return float("nan")
    found = []
    for peak in peaks:
        rows = slice(n_orient * peak, n_orient * (peak + 1))
        direction = np.linalg.svd(truth[rows], full_matrices=False)[0][:, 0]
        courses = direction @ estimate[rows], direction @ truth[rows]
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
