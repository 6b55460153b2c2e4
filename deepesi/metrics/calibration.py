"""Calibration of standard deviations: coverage of the target by intervals. Pure functions.

Active, neighbouring and inactive sources are counted separately, because the many inactive sources
would hide errors at the few active ones.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Array = NDArray[np.float64]

#: Nominal levels at which coverage is counted.
LEVELS = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
#: Inactive sources at most so far from an active one are its neighbours, mm.
NEIGHBOUR_MM = 20.0
GROUPS = ("active", "neighbouring", "inactive")


def groups(target: Array, ground_mm: Array) -> dict[str, NDArray[np.bool_]]:
    """Which of the sources ``(S,)`` are active, neighbouring and inactive.

    Args:
        target: True magnitudes ``(S,)``.
        ground_mm: Distances between the sources ``(S, S)``, mm.

    """
    active = target > 0
    near = ground_mm[:, active].min(axis=1) <= NEIGHBOUR_MM
    return dict(zip(GROUPS, (active, ~active & near, ~near), strict=True))


def coverage(mean: Array, std: Array, target: Array, levels: Array = LEVELS) -> Array:
    """Share of values inside their central Gaussian interval of every nominal level.

    A value with a standard deviation of 0 is inside if it is right.

    Args:
        mean: Any shape, any unit.
        std: Standard deviation, the same shape and unit.
        target: The same shape and unit.
        levels: Nominal levels ``(L,)``, between 0 and 1.

    """
    error = np.abs(target - mean)
    half_widths = norm.ppf((1 + levels) / 2)
    return np.array([(error <= width * std).mean() for width in half_widths])


class Deviation(NamedTuple):
    """How far coverage lies from its nominal level, mean over levels."""

    absolute: float  # the expected calibration error of a regression
    signed: float  # negative: intervals too narrow, the estimate is overconfident


def deviation(covered: Array, levels: Array = LEVELS) -> Deviation:
    """Mean absolute and mean signed deviation of coverage ``(L,)`` from its levels.

    Source: Kuleshov et al. 2018, arXiv:1807.00263, who squares where ours takes the absolute value.
    """
    difference = covered - levels
    return Deviation(float(np.abs(difference).mean()), float(difference.mean()))


def sharpness(std: Array, target: Array, level: float = 0.9) -> float:
    """Mean width of the intervals of a level, over the largest true magnitude (no unit)."""
    width = 2 * norm.ppf((1 + level) / 2) * std.mean()
    return float(width / np.abs(target).max())
