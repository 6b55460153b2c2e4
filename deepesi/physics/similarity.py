"""Similarity of two topographies, or of two sets of dipole moments: measures without a unit."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def residual_variance(estimate: Array, target: Array) -> float:
    """Squared error over the squared target, ``‖a − b‖² / ‖b‖²``: 1 for an estimate of zero.

    For potentials this is the residual variance, for dipole moments the normalized mean squared
    error.
    A small residual variance does not mean that the sources are right: many distributions of
    sources have nearly the same potential.

    Args:
        estimate: ``a``, any shape and unit.
        target: ``b``, the same shape and unit.

    """
    return float(((estimate - target) ** 2).sum() / (target**2).sum())


def cosine(estimate: Array, target: Array) -> float:
    """Cosine of the angle between two arrays of one shape; 0 where one of them is zero."""
    norms = float(np.linalg.norm(estimate) * np.linalg.norm(target))
    return float((estimate * target).sum()) / norms if norms > 0 else 0.0


def scaled_residual_variance(estimate: Array, target: Array) -> float:
    """`residual_variance` after the best scaling of the estimate, ``1 − cos²``; 1 for zero.

    It ignores scale and sign, so that dSPM and sLORETA, which are statistics, can be compared with
    currents.
    """
    return 1 - cosine(estimate, target) ** 2


def rdm(estimate: Array, target: Array) -> Array:
    """Relative difference measure ``‖a/‖a‖ − b/‖b‖‖`` of topographies, 0 to 2.

    Args:
        estimate: One topography ``(C,)``, or one per column ``(C, S)``, not zero.
        target: The same shape.

    Source: Meijs et al. 1989, doi:10.1109/10.40805.

    """
    units = (values / np.linalg.norm(values, axis=0) for values in (estimate, target))
    return np.asarray(np.linalg.norm(np.subtract(*units), axis=0))


def ln_magnitude(estimate: Array, target: Array) -> Array:
    """``ln(‖a‖ / ‖b‖)`` of topographies: 0 for equal strength.

    Args:
        estimate: One topography ``(C,)``, or one per column ``(C, S)``, not zero.
        target: The same shape.

    Source: Güllmar et al. 2010, doi:10.1016/j.neuroimage.2010.02.014.

    """
    return np.asarray(np.log(np.linalg.norm(estimate, axis=0) / np.linalg.norm(target, axis=0)))
