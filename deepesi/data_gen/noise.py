"""Noise of sensors, cortical background, line and drift, with known covariance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

from deepesi.data_gen.coloured import coloured_noise, colouring_factor
from deepesi.data_gen.keys import uniform
from deepesi.data_gen.ranges import check_number, check_range
from deepesi.physics.noise import brain_noise_cov, white_noise_cov
from deepesi.physics.sensors import SensorArray

Array = NDArray[np.float64]

#: Longest window, samples, for which a colouring factor is computed. Longer ones use the FFT.
LONGEST_FACTOR = 1024


@dataclass(frozen=True)
class NoiseRanges:
    """Ranges of the noise of a recording set-up.

    Every kind of noise has a range of relative power, drawn log-uniformly, or None for no such
    noise. The sum of all kinds is then scaled to the drawn level.

    Args:
        level: RMS per channel, `SensorArray.head_units`, log-uniform, of white noise before
            re-referencing.
        white: Relative power of white sensor noise. Required: without it the covariance would be
            singular.
        coloured: Relative power of 1/f sensor noise that is correlated between near sensors.
        brain: Relative power of 1/f background activity of the whole cortex.
        line: Relative power of mains interference with harmonics.
        drift: Relative power of slow drifts of single sensors, with a 1/f² spectrum.
        exponent: Range of the exponent of the 1/f spectra (no unit).
        line_frequency: Mains frequencies, Hz, one per set-up.
        variance_change: Range of the standard deviation of the log noise amplitude, which changes
            slowly over a window (no unit).

    Raises:
        ValueError: A range is out of order or not in SI units.

    """

    level: tuple[float, float] = (2e-7, 2e-6)
    white: tuple[float, float] = (1.0, 1.0)
    coloured: tuple[float, float] | None = None
    brain: tuple[float, float] | None = None
    line: tuple[float, float] | None = None
    drift: tuple[float, float] | None = None
    exponent: tuple[float, float] = (0.5, 1.5)
    line_frequency: Sequence[float] = (50.0, 60.0)
    variance_change: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        who = "NoiseRanges"
        check_range(who, "level", self.level, 1e-9, 1e-3, "V (1 microvolt is 1e-6)")
        if self.white is None:
            raise ValueError(
                f"{who}: white is None, expected a range of relative power, such as [0.02, 0.03]: "
                "without white noise the covariance would be singular."
            )
        for name in ("white", "coloured", "brain", "line", "drift"):
            value = getattr(self, name)
            if value is not None:
                check_range(who, name, value, 1e-6, 1e6, "(relative power; null for none)")
        check_range(who, "exponent", self.exponent, 0, 3, "(no unit)")
        check_range(who, "variance_change", self.variance_change, 0, 1, "(no unit)")
        for value in self.line_frequency:
            check_number(who, "line_frequency", value, 10, 100, "Hz")

    def draw(
        self,
        leadfield: Array,
        sensors: SensorArray,
        source_pos: Array,
        is_cortex: NDArray[np.bool_],
        width: float,
        rng: np.random.Generator,
    ) -> "Noise":
        """Draw the noise of one set-up, in float64 on the CPU.

        Args:
            leadfield: True lead field of the set-up ``(C, D)``.
            sensors: Sensors of the set-up.
            source_pos: Source positions ``(S, 3)``, m, head frame.
            is_cortex: Whether each source can be active ``(S,)``.
            width: Factor on the power of all kinds but white noise, 0 to 1.
            rng: Random generator.

        """
        n, positions = len(sensors), sensors.positions

        def log_uniform(bounds: tuple[float, float]) -> float:
            return float(np.exp(rng.uniform(*np.log(bounds))))

        level = log_uniform(self.level)
        kinds = [_Kind(white_noise_cov(sensors, 1.0), log_uniform(self.white))]
        if self.coloured is not None:
            reach = rng.uniform(0.02, 0.08)
            cov = np.exp(-cdist(positions, positions) / reach)
            exponent = rng.uniform(*self.exponent)
            kinds.append(_Kind(cov, log_uniform(self.coloured), exponent))
        if self.brain is not None:
            power = _background(source_pos, rng) * is_cortex
            by_dipole = np.repeat(power, leadfield.shape[1] // len(source_pos))
            cov = brain_noise_cov(leadfield, sensors, 1.0, by_dipole)
            kinds.append(_Kind(cov, log_uniform(self.brain), rng.uniform(*self.exponent)))
        if self.drift is not None:
            cov = np.diag(np.exp(rng.normal(size=n)))
            kinds.append(_Kind(cov, log_uniform(self.drift), 2.0, 0.1))
        if self.line is not None:
            coupling = np.exp(-cdist(positions, positions) / 0.05)
            pattern = np.linalg.cholesky(coupling + 0.1 * np.eye(n)) @ rng.normal(size=(n, 2))
            frequency = float(rng.choice(list(self.line_frequency)))
            kinds.append(_Kind(pattern @ pattern.T, log_uniform(self.line), line=frequency))
        change = rng.uniform(*self.variance_change) * width
        covs = [sensors.reference_cov(kind.cov) for kind in kinds]
        power = np.array([kind.power for kind in kinds])
        power[1:] *= width
        total = level**2 * sensors.rank * power / power.sum()
        present = np.flatnonzero(total)
        return Noise(
            kinds=[kinds[i] for i in present],
            covs=[covs[i] * total[i] / np.trace(covs[i]) for i in present],
            variance_change=float(change),
        )


@dataclass(frozen=True)
class _Kind:
    """One kind of noise: a covariance up to a factor, a relative power and a spectrum."""

    cov: Array
    power: float
    exponent: float = 0.0
    low: float = 1.0
    line: float | None = None

    def series(
        self, shape: tuple[int, ...], n_times: int, sfreq: float, rng: torch.Generator
    ) -> Float[Tensor, "... T"]:
        """Draw independent series of variance 1."""
        if self.line is not None:
            return _mains(shape, n_times, self.line, sfreq, rng)
        low = min(self.low, sfreq / 4)
        return coloured_noise(shape, n_times, self.exponent, sfreq, rng, low)


@dataclass
class Noise:
    """Noise of one set-up: a sum of kinds, each with a spatial covariance and a spectrum.

    Attributes:
        kinds: Kinds of noise.
        covs: Covariance of each kind ``(C, C)``, V², with the reference of the sensors.
        variance_change: Standard deviation of the log amplitude, which changes slowly (no unit).

    """

    kinds: list[_Kind]
    covs: list[Array]
    variance_change: float

    def __post_init__(self) -> None:
        self._factors: dict[str, list[Tensor]] = {}
        self._colours: dict[tuple[int, float, str], list[Tensor | None]] = {}

    @property
    def cov(self) -> Array:
        """True covariance ``(C, C)``, V²."""
        return np.asarray(np.sum(self.covs, axis=0))

    def mapped_by(self, matrix: Array) -> "Noise":
        """The noise after a linear map of the channels ``(C, C)``."""
        covs = [matrix @ cov @ matrix.T for cov in self.covs]
        return Noise(self.kinds, covs, self.variance_change)

    def plus(self, cov: Array, exponent: float) -> "Noise":
        """The noise with another kind: its covariance ``(C, C)`` and the exponent of 1/f."""
        kinds = [*self.kinds, _Kind(cov, 1.0, exponent)]
        return Noise(kinds, [*self.covs, cov], self.variance_change)

    def draw(
        self, n_examples: int, n_times: int, sfreq: float, rng: torch.Generator
    ) -> Float[Tensor, "B C T"]:
        """Draw noise in the reference of the sensors, with ``E‖N‖² = T tr(cov)``, head units."""
        device = str(rng.device)
        if device not in self._factors:
            self._factors[device] = [
                torch.as_tensor(_factor(c), dtype=torch.float32, device=rng.device)
                for c in (*self.covs, self.cov)
            ]
        *factors, whole = self._factors[device]
        shape = (n_examples, len(whole))
        if n_times == 1:
            noise = whole @ torch.randn(*shape, 1, generator=rng, device=rng.device)
        else:
            noise = torch.zeros(*shape, n_times, device=rng.device)
            colours = self._colour(n_times, sfreq, rng.device)
            for kind, factor, colour in zip(self.kinds, factors, colours, strict=True):
                if colour is None:
                    series = kind.series(shape, n_times, sfreq, rng)
                else:
                    series = torch.randn(*shape, n_times, generator=rng, device=rng.device)
                    series = series if kind.exponent == 0 else series @ colour.T
                noise += factor @ series
        if self.variance_change == 0 or n_times == 1:
            return noise
        slow = coloured_noise((n_examples, 1), n_times, 2.0, sfreq, rng, min(0.5, sfreq / 4))
        # E exp(2 s u) = exp(2 s²) for normal u, so the expected power does not change.
        return noise * torch.exp(self.variance_change * slow - self.variance_change**2)

    def _colour(self, n_times: int, sfreq: float, device: torch.device) -> list[Tensor | None]:
        """Colouring factor of every kind; None where `series` draws the noise."""
        key = (n_times, sfreq, str(device))
        if key not in self._colours:
            self._colours[key] = [
                None
                if kind.line is not None or n_times > LONGEST_FACTOR
                else colouring_factor(n_times, kind.exponent, sfreq, min(kind.low, sfreq / 4)).to(
                    device
                )
                for kind in self.kinds
            ]
        return self._colours[key]


def _factor(cov: Array) -> Array:
    """Symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(cov)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)


def _background(source_pos: Array, rng: np.random.Generator) -> Array:
    """Relative power of the background activity of every source, smooth over the brain.

    The logarithm is a sum of ten plane waves of 6-20 cm, with a standard deviation of 1.5.
    """
    direction = rng.normal(size=(10, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    waves = 2 * np.pi * direction / rng.uniform(0.06, 0.2, size=(10, 1))
    phase = rng.uniform(0, 2 * np.pi, size=10)
    log_power = np.cos(source_pos @ waves.T + phase).sum(axis=1) * np.sqrt(2 / 10)
    return np.asarray(np.exp(1.5 * log_power))


def _mains(
    shape: tuple[int, ...], n_times: int, frequency: float, sfreq: float, rng: torch.Generator
) -> Float[Tensor, "... T"]:
    """Mains interference with harmonics below Nyquist, variance 1.

    The series of one example have the same frequency and amplitudes and differ in phase only.
    """
    harmonics = [k for k in (1, 2, 3) if k * frequency < sfreq / 2] or [1]
    time = torch.arange(n_times, device=rng.device) / sfreq
    total = torch.zeros(*shape, n_times, device=rng.device)
    for k in harmonics:
        phase = uniform((*shape, 1), 0.0, 2 * math.pi, rng)
        total += torch.cos(2 * math.pi * k * frequency * time + phase) / k
    return total * math.sqrt(2 / sum(1 / k**2 for k in harmonics))
