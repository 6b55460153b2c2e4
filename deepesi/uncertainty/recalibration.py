"""Recalibration: intervals as wide as the errors on validation recordings say they must be.

A half-width is counted in standard deviations of the model. `Claims` are what is learned from and
tested on; `Intervals` are what is learned.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from deepesi.contracts import Estimate, InverseModel

Array = NDArray[np.float64]


class Claims(NamedTuple):
    """What a model claimed of many dipoles, and what was so. Every array is ``(N,)``, no unit."""

    error: Array  # |estimate - truth| / std; 0 where right, infinite where wrong without deviation
    signal: Array  # |estimate| / std: what an analyst sees of it
    group: NDArray[np.int64]  # 0 active, 1 neighbouring, 2 inactive
    width: Array  # std over the largest true magnitude of the recording


def claims(mean: Array, std: Array | None, truth: Array, group: NDArray[np.int64]) -> Claims:
    """Claims of one recording.

    Args:
        mean: Estimated moments, any shape, A m.
        std: Their deviations, of the same shape.
        truth: True moments, of the same shape.
        group: 0, 1 or 2, of the same shape.

    Raises:
        ValueError: There is no standard deviation.

    """
    if std is None:
        raise ValueError(
            "recalibration: the model gives no standard deviation, so it claims nothing that could "
            "be recalibrated. Train it with model.heteroscedastic=true loss=uncertainty, or join "
            "an ensemble."
        )
    largest = max(float(np.abs(truth).max()), np.finfo(float).tiny)
    parts = (_over(mean - truth, std), _over(mean, std), group, std / largest)
    return Claims(*(part.ravel() for part in parts))  # type: ignore[arg-type]


def _over(values: Array, std: Array) -> Array:
    """Magnitude in deviations; zero stays zero."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(values == 0, 0.0, np.abs(values) / std)


@dataclass(frozen=True)
class Intervals:
    """Half-widths of central intervals, over the standard deviation.

    Attributes:
        levels: Nominal levels ``(L,)``, rising.
        edges: Between bins of ``|mean| / std``, ``(B - 1,)``.
        half_widths: Per bin and level ``(B, L)``, not falling along the levels.

    """

    levels: Array
    edges: Array
    half_widths: Array

    def of(self, signal: Array) -> Array:
        """Half-widths ``(L, N)`` at these ``|mean| / std`` ``(N,)``."""
        return np.asarray(self.half_widths[np.searchsorted(self.edges, signal)].T)

    def at(self, level: float, signal: Array) -> Array:
        """Half-widths ``(N,)`` at one level, linear between the levels known.

        Raises:
            ValueError: The level is outside those known.

        """
        if not self.levels[0] <= level <= self.levels[-1]:
            raise ValueError(
                f"Intervals: level must be from {self.levels[0]:g} to {self.levels[-1]:g}, got "
                f"{level}."
            )
        of_bin = np.array([np.interp(level, self.levels, row) for row in self.half_widths])
        return np.asarray(of_bin[np.searchsorted(self.edges, signal)])

    def coverage(self, seen: Claims) -> Array:
        """Share of dipoles inside at every level ``(L,)``; NaN if there is none."""
        if not len(seen.error):
            return np.full(len(self.levels), np.nan)
        bins = np.searchsorted(self.edges, seen.signal)
        return np.array([(seen.error <= row[bins]).mean() for row in self.half_widths.T])

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps({k: v.tolist() for k, v in vars(self).items()}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Intervals":
        """Read what `save` wrote."""
        return cls(**{k: np.array(v) for k, v in json.loads(path.read_text()).items()})


def gaussian(levels: Array, temperature: float = 1.0) -> Intervals:
    """Intervals of a normal distribution, all deviations times one factor."""
    return Intervals(levels, np.array([]), temperature * norm.ppf((1 + levels) / 2)[None])


def fit_temperature(error: Array, levels: Array, by: str = "coverage") -> float:
    """One factor on all standard deviations.

    Args:
        error: ``|estimate - truth| / std`` ``(N,)``.
        levels: Nominal levels ``(L,)``.
        by: ``"likelihood"``: the largest likelihood of normal errors, their RMS, which a few large
            errors decide; ``"coverage"``: the least mean absolute deviation of coverage.

    Raises:
        ValueError: Unknown `by`, or no finite error to learn from.

    Source: Guo et al. 2017, arXiv:1706.04599, for classification; Levi et al. 2022,
    doi:10.3390/s22155540, for regression.

    """
    _check(error)
    if by == "likelihood":
        return float(np.sqrt((error[np.isfinite(error)] ** 2).mean()))
    if by != "coverage":
        raise ValueError(f"fit_temperature: by must be 'likelihood' or 'coverage', got {by!r}.")
    # The best factor puts one level's quantile where it belongs, or lies between such factors.
    exact = np.quantile(error, levels, method="higher") / norm.ppf((1 + levels) / 2)
    exact = exact[np.isfinite(exact) & (exact > 0)]
    if not len(exact):
        return 1.0
    candidates = np.geomspace(exact.min(), exact.max(), 200)
    ranked = np.sort(error)
    widths = candidates[:, None] * norm.ppf((1 + levels) / 2)
    covered = np.searchsorted(ranked, widths, side="right") / len(ranked)
    return float(candidates[np.abs(covered - levels).mean(axis=1).argmin()])


def fit_isotonic(error: Array, levels: Array) -> Intervals:
    """The half-width that holds a share of the errors, for every level.

    Coverage of nested intervals cannot fall with the level, so the isotonic regression of the
    observed points is the empirical quantile function. It is kept in deviations instead of nominal
    levels, which have no digits left where intervals were far too narrow.

    Raises:
        ValueError: No finite error to learn from.

    Source: Kuleshov et al. 2018, arXiv:1807.00263.

    """
    _check(error)
    return Intervals(levels, np.array([]), np.quantile(error, levels, method="higher")[None])


def fit_balanced(seen: Claims, levels: Array) -> Intervals:
    """Half-widths with which active, neighbouring and inactive sources are each covered as asked.

    An analyst does not know which sources are active, but sees ``|mean| / std``. It is cut into
    three bins; the first has the half-width with which, given the others, the inactive are covered
    at the level, the second that of the neighbouring, the last that of the active.

    Raises:
        ValueError: A group is missing, or nothing finite to learn from.

    Source: ours; isotonic recalibration (Kuleshov et al. 2018) with one map per bin.

    """
    _check(seen.error)
    signals = [seen.signal[seen.group == group] for group in (2, 1, 0)]
    if not all(map(len, signals)):
        raise ValueError(
            "fit_balanced: needs active, neighbouring and inactive sources to learn from, got "
            f"{[len(signal) for signal in signals][::-1]} dipoles of each."
        )
    fits = []
    for upper in (np.quantile(signals[2], 0.05), _separation(signals[1], signals[2])):
        edges = np.array([min(_separation(signals[0], signals[1]), upper), upper])
        fits.append(_solve(seen, edges, levels))

    def worst(intervals: Intervals) -> float:
        parts = [Claims(*(a[seen.group == group] for a in seen)) for group in range(3)]
        return max(float(np.abs(intervals.coverage(p) - levels).mean()) for p in parts)

    return min(fits, key=worst)


def _separation(low: Array, high: Array) -> float:
    """Where to cut so that most of one sample are below and most of the other above."""
    cuts = np.quantile(high, np.linspace(0.01, 0.9, 60), method="lower")
    below = np.searchsorted(np.sort(low), cuts, side="right") / len(low)
    missed = np.searchsorted(np.sort(high), cuts, side="right") / len(high)
    return float(cuts[(below - missed).argmax()])


def _solve(seen: Claims, edges: Array, levels: Array, n_rounds: int = 60) -> Intervals:
    """Alternate over the bins until each meets its group, or cannot."""
    bins = np.searchsorted(edges, seen.signal)
    # Errors of group (2 - b), which bin b is to satisfy, within every bin.
    errors = [
        [np.sort(seen.error[(seen.group == 2 - b) & (bins == other)]) for other in range(3)]
        for b in range(3)
    ]
    half_widths = np.zeros((3, len(levels)))
    for column, level in enumerate(levels):
        widths = half_widths[:, column]
        for _ in range(n_rounds):
            for b in (2, 1, 0):
                elsewhere = sum(
                    np.searchsorted(errors[b][other], widths[other], side="right")
                    for other in range(3) if other != b
                )  # fmt: skip
                needed = level * sum(map(len, errors[b])) - elsewhere
                widths[b] = _rank(errors[b][b], needed)
    return Intervals(levels, edges, np.maximum.accumulate(half_widths, axis=1))


def _rank(ranked: Array, needed: float) -> float:
    """The width that holds so many of the finite errors, or all of them."""
    finite = int(np.searchsorted(ranked, np.inf))
    if needed <= 0 or finite == 0:
        return 0.0
    return float(ranked[min(int(np.ceil(needed)), finite) - 1])


def _check(error: Array) -> None:
    if not np.isfinite(error).any():
        raise ValueError(
            f"recalibration: no finite error among {len(error)} dipoles, nothing to learn from."
        )


class Tempered(InverseModel):
    """An inverse model whose standard deviations are all multiplied by one factor.

    Args:
        model: It must give a standard deviation.
        temperature: The factor, above 0.

    Raises:
        ValueError: The factor is not positive; the model gives no deviation (in `forward`).
        TypeError: `model` is no inverse model.

    Source: see `fit_temperature`.

    """

    temperature: Tensor

    def __init__(self, model: InverseModel, temperature: float = 1.0) -> None:
        super().__init__()
        if not isinstance(model, InverseModel):
            raise TypeError(f"Tempered: needs an inverse model, got {type(model).__name__}.")
        if not (temperature > 0 and np.isfinite(temperature)):
            raise ValueError(f"Tempered: temperature must be above 0, got {temperature}.")
        self.model = model
        self.head_inputs, self.bound_to_space = model.head_inputs, model.bound_to_space
        self.exportable = model.exportable
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def forward(self, eeg: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """The model's mean and its deviation times the factor."""
        estimate = self.model(eeg, inputs)
        if estimate.std is None:
            raise ValueError(
                f"Tempered: {type(self.model).__name__} gives no standard deviation to multiply. "
                "Train it with model.heteroscedastic=true loss=uncertainty, or join an ensemble."
            )
        return Estimate(estimate.mean, self.temperature * estimate.std)
