"""Time courses of simulated sources: deflections, bursts, coloured noise, discharges, mixtures.

Durations are in seconds, frequencies in Hz. Times within the window are fractions of the window
length, so one setting fits windows of any length. `neural_mass` adds a simulated cortical column.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from deepesi.data_gen.coloured import coloured_noise
from deepesi.data_gen.keys import uniform
from deepesi.data_gen.ranges import check_range

Shape = tuple[int, int]  # examples, sources

SECONDS = "s (80 ms is 0.08)"


class TimeCourse(ABC):
    """Base class of time courses. Subclasses implement `_time_courses`; callers use `draw`."""

    @property
    @abstractmethod
    def highest_frequency(self) -> float:
        """Highest frequency of a time course, Hz."""

    @abstractmethod
    def _time_courses(self, shape: Shape, n_times: int, sfreq: float, rng: Generator) -> Tensor:
        """Time courses ``(B, K, T)`` of any scale, never all zero."""

    def check(self, sfreq: float) -> None:
        """Refuse a sampling rate, Hz, that is too low for these ranges.

        Raises:
            ValueError: The highest frequency is not below half the sampling rate.

        """
        if not self.highest_frequency < sfreq / 2 < math.inf:
            raise ValueError(
                f"{type(self).__name__}: its ranges reach {self.highest_frequency:g} Hz, but sfreq "
                f"{sfreq:g} Hz can represent only frequencies below {sfreq / 2:g} Hz (Nyquist). "
                "Narrow the ranges or raise sfreq."
            )

    def draw(
        self, n_examples: int, n_sources: int, n_times: int, sfreq: float, rng: Generator
    ) -> Float[Tensor, "B K T"]:
        """Draw time courses with peak 1 on the device of the generator; `sfreq` in Hz.

        The largest absolute value over the window is 1 for every example and source. For
        snapshots (``n_times = 1``) all values are 1, and no random number is drawn.

        Raises:
            ValueError: A size is below 1, or the sampling rate is too low for the ranges.

        """
        if min(n_examples, n_sources, n_times) < 1:
            raise ValueError(
                f"{type(self).__name__}: n_examples, n_sources and n_times must be 1 or more, got "
                f"{n_examples}, {n_sources} and {n_times}."
            )
        if n_times == 1:
            return torch.ones(n_examples, n_sources, 1, device=rng.device)
        self.check(sfreq)
        time_courses = self._time_courses((n_examples, n_sources), n_times, sfreq, rng)
        return time_courses / time_courses.abs().amax(-1, keepdim=True)

    def band(self, n_times: int, sfreq: float) -> tuple[float, float] | None:
        """Frequency band, Hz, with the middle 90 % of the power in windows of this length.

        Computed from 1,000 time courses, in steps of the resolution ``sfreq / n_times``. None for
        snapshots, which have no time course.
        """
        if n_times == 1:
            return None
        time_courses = self.draw(1000, 1, n_times, sfreq, Generator().manual_seed(0))
        power = torch.fft.rfft(time_courses).abs().square().sum((0, 1))
        power[1 : (n_times + 1) // 2] *= 2  # negative frequencies
        share = power.cumsum(0) / power.sum()
        low, high = (float((share < limit).sum()) * sfreq / n_times for limit in (0.05, 0.95))
        return low, high


@dataclass(frozen=True)
class Gabor(TimeCourse):
    r"""Evoked component ``exp(-τ² / 2w²) cos(2π f τ + φ)`` at time ``τ`` from the centre.

    Args:
        centre: Range of the centre, fraction of the window.
        width: Range of the standard deviation ``w`` of the envelope, s.
        cycles: Range of the number of cycles within ``4w``, no unit: ``f = cycles / 4w``.

    Raises:
        ValueError: A range is out of order or not in seconds.

    Source: Gabor 1946, doi:10.1049/ji-3-2.1946.0074.

    """

    centre: tuple[float, float] = (0.2, 0.8)
    width: tuple[float, float] = (0.02, 0.08)
    cycles: tuple[float, float] = (0.0, 2.0)

    def __post_init__(self) -> None:
        check_range("Gabor", "centre", self.centre, 0, 1, "of the window")
        check_range("Gabor", "width", self.width, 1e-3, 1, SECONDS)
        check_range("Gabor", "cycles", self.cycles, 0, 20, "cycles")

    @property
    def highest_frequency(self) -> float:
        """Carrier frequency plus the bandwidth of the envelope, Hz."""
        return self.cycles[1] / (4 * self.width[0]) + gaussian_band(self.width[0])

    def _time_courses(self, shape: Shape, n_times: int, sfreq: float, rng: Generator) -> Tensor:
        column = (*shape, 1)
        width = uniform(column, *self.width, rng)
        offset = times_from(uniform(column, *self.centre, rng), n_times, sfreq)
        frequency = uniform(column, *self.cycles, rng) / (4 * width)
        phase = uniform(column, 0.0, 2 * math.pi, rng)
        return bell(offset / width) * torch.cos(2 * math.pi * frequency * offset + phase)


@dataclass(frozen=True)
class Biphasic(TimeCourse):
    """Evoked response with a positive and a later negative Gaussian deflection.

    In a short window the second deflection may lie after the end.

    Args:
        latency: Range of the first peak, fraction of the window.
        width: Range of the standard deviation of each deflection, s.
        separation: Range of the time between the peaks, in sums of the two widths (no unit).
        ratio: Range of the second amplitude divided by the first (no unit).

    Raises:
        ValueError: A range is out of order or not in seconds.

    """

    latency: tuple[float, float] = (0.1, 0.5)
    width: tuple[float, float] = (0.01, 0.04)
    separation: tuple[float, float] = (1.0, 2.0)
    ratio: tuple[float, float] = (0.3, 1.2)

    def __post_init__(self) -> None:
        check_range("Biphasic", "latency", self.latency, 0, 1, "of the window")
        check_range("Biphasic", "width", self.width, 1e-3, 1, SECONDS)
        check_range("Biphasic", "separation", self.separation, 0.5, 10, "sums of the widths")
        check_range("Biphasic", "ratio", self.ratio, 0, 10, "times the first amplitude")

    @property
    def highest_frequency(self) -> float:
        """Bandwidth of the narrowest deflection, Hz."""
        return gaussian_band(self.width[0])

    def _time_courses(self, shape: Shape, n_times: int, sfreq: float, rng: Generator) -> Tensor:
        column = (*shape, 1)
        first, second = uniform((2, *column), *self.width, rng)
        offset = times_from(uniform(column, *self.latency, rng), n_times, sfreq)
        delay = uniform(column, *self.separation, rng) * (first + second)
        ratio = uniform(column, *self.ratio, rng)
        return bell(offset / first) - ratio * bell((offset - delay) / second)


@dataclass(frozen=True)
class Burst(TimeCourse):
    r"""Oscillation with a Hann envelope and a linear frequency drift.

    ``cos²(π τ / d) cos(2π f (τ + δ τ² / 2d) + φ)`` for ``|τ| < d/2``; the frequency goes from
    ``f (1 - δ/2)`` to ``f (1 + δ/2)``.

    Args:
        frequency: Range of ``f``, Hz, log-uniform.
        cycles: Range of the duration ``d f`` in cycles (no unit).
        centre: Range of the centre, fraction of the window.
        drift: Range of ``δ``, the relative change of frequency over the burst (no unit).

    Raises:
        ValueError: A range is out of order or not in Hz.

    """

    frequency: tuple[float, float] = (4.0, 40.0)
    cycles: tuple[float, float] = (3.0, 8.0)
    centre: tuple[float, float] = (0.0, 1.0)
    drift: tuple[float, float] = (-0.2, 0.2)

    def __post_init__(self) -> None:
        check_range("Burst", "frequency", self.frequency, 0.1, 1e3, "Hz")
        check_range("Burst", "cycles", self.cycles, 1, 1e3, "cycles")
        check_range("Burst", "centre", self.centre, 0, 1, "of the window")
        check_range("Burst", "drift", self.drift, -1, 1, "of the frequency")

    @property
    def highest_frequency(self) -> float:
        """Frequency at the end of the fastest burst, Hz."""
        return self.frequency[1] * (1 + max(map(abs, self.drift)) / 2)

    def _time_courses(self, shape: Shape, n_times: int, sfreq: float, rng: Generator) -> Tensor:
        column = (*shape, 1)
        low, high = map(math.log, self.frequency)
        frequency = uniform(column, low, high, rng).exp()
        duration = uniform(column, *self.cycles, rng) / frequency
        offset = times_from(uniform(column, *self.centre, rng), n_times, sfreq)
        drift = uniform(column, *self.drift, rng)
        phase = uniform(column, 0.0, 2 * math.pi, rng)
        elapsed = offset + drift * offset.square() / (2 * duration)
        envelope = torch.cos(math.pi * (offset / duration).clamp(-0.5, 0.5)).square()
        return envelope * torch.cos(2 * math.pi * frequency * elapsed + phase)


@dataclass(frozen=True)
class PowerLaw(TimeCourse):
    """Scale-free activity: `coloured_noise` with a random exponent for every source.

    Args:
        exponent: Range of the exponent of the power spectrum ``1 / f^exponent`` (no unit).
        low: Corner frequency, Hz. The spectrum is flat below.

    Raises:
        ValueError: A range is out of order or not in Hz.

    Source: He 2014, doi:10.1016/j.tics.2014.04.003.

    """

    exponent: tuple[float, float] = (1.0, 2.5)
    low: float = 1.0

    def __post_init__(self) -> None:
        check_range("PowerLaw", "exponent", self.exponent, 0, 4, "(no unit)")
        check_range("PowerLaw", "low", (self.low, self.low), 1e-2, 1e2, "Hz")

    @property
    def highest_frequency(self) -> float:
        """Corner frequency, Hz. Above it the spectrum falls up to any Nyquist frequency."""
        return self.low

    def _time_courses(self, shape: Shape, n_times: int, sfreq: float, rng: Generator) -> Tensor:
        exponent = uniform(shape, *self.exponent, rng)
        return coloured_noise(shape, n_times, exponent, sfreq, rng, self.low)


@dataclass(frozen=True)
class SpikeWave(TimeCourse):
    """Spike-and-wave discharge over the whole window.

    Each complex has a Gaussian spike and a Hann-shaped slow wave of the same polarity, which
    begins at the peak of the spike and ends with the complex. Amplitudes vary between complexes.
    Rate, width and amplitude ratio are constant for a source.

    Args:
        rate: Range of the number of complexes per second, Hz.
        spike_width: Range of the standard deviation of the spike, s.
        wave: Range of the wave amplitude divided by the spike amplitude (no unit).
        jitter: Largest relative change of an amplitude, 0 to 0.9 (no unit).

    Raises:
        ValueError: A range is out of order or not in SI units.

    """

    rate: tuple[float, float] = (2.5, 4.0)
    spike_width: tuple[float, float] = (0.008, 0.017)
    wave: tuple[float, float] = (0.5, 1.0)
    jitter: float = 0.2

    def __post_init__(self) -> None:
        check_range("SpikeWave", "rate", self.rate, 0.1, 10, "Hz")
        longest = 1 / (8 * self.rate[1])  # the spike takes at most half of the complex
        check_range("SpikeWave", "spike_width", self.spike_width, 1e-3, longest, SECONDS)
        check_range("SpikeWave", "wave", self.wave, 0.05, 10, "times the amplitude of the spike")
        check_range("SpikeWave", "jitter", (self.jitter, self.jitter), 0, 0.9, "(no unit)")

    @property
    def highest_frequency(self) -> float:
        """Bandwidth of the narrowest spike, Hz."""
        return gaussian_band(self.spike_width[0])

    def _time_courses(self, shape: Shape, n_times: int, sfreq: float, rng: Generator) -> Tensor:
        column = (*shape, 1)
        rate = uniform(column, *self.rate, rng)
        width = uniform(column, *self.spike_width, rng)
        ratio = uniform(column, *self.wave, rng)
        time = torch.arange(n_times, device=rng.device) / sfreq
        complexes = uniform(column, 0.0, 1.0, rng) + rate * time
        within, peak = complexes.frac() / rate, 4 * width
        most = int(self.rate[1] * n_times / sfreq) + 2
        gain = uniform((2, *shape, most), 1 - self.jitter, 1 + self.jitter, rng)
        spike, wave = gain.gather(-1, complexes.long().expand(2, -1, -1, -1))
        progress = ((within - peak) / (1 / rate - peak)).clamp_min(0)
        slow = torch.sin(math.pi * progress).square()
        return spike * bell((within - peak) / width) + ratio * wave * slow


@dataclass(frozen=True)
class Mixture(TimeCourse):
    """Mixture of time courses: one kind per example, the same for all sources of the example.

    Args:
        kinds: Time courses to choose from.
        weights: Relative probability of each kind. None: equal.

    Raises:
        ValueError: There are no kinds, or the weights are not one number of 0 or more per kind.

    """

    kinds: Sequence[TimeCourse]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not len(self.kinds):
            raise ValueError("Mixture: kinds is empty. Name at least one kind of time course.")
        weights = self._weights()
        usable = all(0 <= weight < math.inf for weight in weights) and sum(weights) > 0
        if len(weights) != len(self.kinds) or not usable:
            raise ValueError(
                f"Mixture: weights {weights} must be one number of 0 or more for each of the "
                f"{len(self.kinds)} kinds, not all 0."
            )

    def _weights(self) -> list[float]:
        if self.weights is None:
            return [1.0] * len(self.kinds)
        return [float(weight) for weight in self.weights]

    @property
    def highest_frequency(self) -> float:
        """Highest frequency of all kinds, Hz."""
        return max(time_course.highest_frequency for time_course in self.kinds)

    def check(self, sfreq: float) -> None:
        """Refuse a sampling rate, Hz, that is too low for any kind, even one of weight 0."""
        for time_course in self.kinds:
            time_course.check(sfreq)

    def _time_courses(self, shape: Shape, n_times: int, sfreq: float, rng: Generator) -> Tensor:
        weights = torch.tensor(self._weights(), device=rng.device)
        kinds = torch.multinomial(weights, shape[0], replacement=True, generator=rng)
        drawn = torch.empty(*shape, n_times, device=rng.device)
        for kind, time_course in enumerate(self.kinds):
            chosen = (kinds == kind).nonzero()[:, 0]
            if len(chosen):
                drawn[chosen] = time_course.draw(len(chosen), shape[1], n_times, sfreq, rng)
        return drawn


def gaussian_band(width: float) -> float:
    """Bandwidth, Hz, of a Gaussian with this standard deviation, s: π std of the spectrum."""
    return 1 / (2 * width)


def bell(x: Tensor) -> Tensor:
    """Gaussian ``exp(-x² / 2)``."""
    return torch.exp(-0.5 * x.square())


def times_from(fraction: Tensor, n_times: int, sfreq: float) -> Tensor:
    """Times ``(..., T)``, s, relative to a fraction ``(..., 1)`` of the window."""
    return (torch.arange(n_times, device=fraction.device) - fraction * (n_times - 1)) / sfreq
