"""Errors in units of standard deviations, and intervals in these units."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from deepesi.calibration.sbc import half_width, normal_errors
from deepesi.utils.files import atomic

Array = NDArray[np.float64]


#: Level of the central interval that measures the width of samples.
SAMPLE_LEVEL = 0.9


class StandardizedErrors(NamedTuple):
    """Standardized errors and estimates of many dipoles. Every array is ``(N,)``, no unit."""

    error: Array  # |estimate - target| / std; with a std of 0: 0 if exact, else infinite
    signal: Array  # |estimate| / std, known to an analyst
    group: NDArray[np.int64]  # 0 active, 1 neighbouring, 2 inactive
    width: Array  # std over the largest target magnitude of the recording


def standardized_errors(
    mean: Array,
    std: Array | None,
    target: Array,
    group: NDArray[np.int64],
    samples: Array | None = None,
) -> StandardizedErrors:
    """Standardized errors of one recording.

    Args:
        mean: Estimated moments, any shape, A m.
        std: Standard deviations, the same shape.
        target: Target moments, the same shape, A m.
        group: 0 active, 1 neighbouring, 2 inactive; the same shape.
        samples: Posterior samples, with a first axis of draws. With samples, errors come from
            ranks (`normal_errors`), and the width from their central interval of 90 %, relative
            to that of a normal distribution.

    Raises:
        ValueError: There are neither standard deviations nor samples.

    """
    largest = max(float(np.abs(target).max()), np.finfo(float).tiny)
    if samples is not None:
        signal = _over(mean, samples.std(axis=0))
        width = half_width(samples, SAMPLE_LEVEL) / norm.ppf((1 + SAMPLE_LEVEL) / 2) / largest
        return _flat(normal_errors(samples, target), signal, group, width)
    if std is None:
        raise ValueError(
            "recalibration: the model gives no standard deviation and no samples, so there "
            "is nothing to recalibrate. Train it with model.heteroscedastic=true "
            "loss=uncertainty, or join an ensemble."
        )
    return _flat(_over(mean - target, std), _over(mean, std), group, std / largest)


def _flat(
    error: Array, signal: Array, group: NDArray[np.int64], width: Array
) -> StandardizedErrors:
    return StandardizedErrors(error.ravel(), signal.ravel(), group.ravel(), width.ravel())


def _over(values: Array, std: Array) -> Array:
    """Magnitude over standard deviation; zero stays zero."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(values == 0, 0.0, np.abs(values) / std)


@dataclass(frozen=True)
class Intervals:
    """Half-widths of central intervals, in standard deviations.

    Attributes:
        levels: Nominal levels ``(L,)``, ascending.
        edges: Edges between bins of ``|mean| / std`` ``(B - 1,)``.
        half_widths: Half-width per bin and level ``(B, L)``, not falling along the levels.

    """

    levels: Array
    edges: Array
    half_widths: Array

    def at(self, level: float, signal: Array) -> Array:
        """Half-widths ``(N,)`` at one level, by linear interpolation between levels.

        Raises:
            ValueError: The level is outside the range of levels.

        """
        if not self.levels[0] <= level <= self.levels[-1]:
            raise ValueError(
                f"Intervals: level must be from {self.levels[0]:g} to {self.levels[-1]:g}, got "
                f"{level}."
            )
        of_bin = np.array([np.interp(level, self.levels, row) for row in self.half_widths])
        return np.asarray(of_bin[np.searchsorted(self.edges, signal)])

    def coverage(self, observed: StandardizedErrors) -> Array:
        """Share of dipoles inside at every level ``(L,)``; NaN if there is none."""
        if not len(observed.error):
            return np.full(len(self.levels), np.nan)
        bins = np.searchsorted(self.edges, observed.signal)
        return np.array([(observed.error <= row[bins]).mean() for row in self.half_widths.T])

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        with atomic(path) as partial:
            values = {k: v.tolist() for k, v in vars(self).items()}
            partial.write_text(json.dumps(values, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Intervals":
        """Read a file of `save`."""
        return cls(**{k: np.array(v) for k, v in json.loads(Path(path).read_text()).items()})


def gaussian(levels: Array, temperature: float = 1.0) -> Intervals:
    """Intervals of a normal distribution, with one factor on all standard deviations."""
    return Intervals(levels, np.array([]), temperature * norm.ppf((1 + levels) / 2)[None])
