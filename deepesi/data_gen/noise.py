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

#: Longest window for which a colouring factor is made; longer series are drawn by FFT.
LONGEST_FACTOR = 1024


@dataclass(frozen=True)
class NoiseRanges:
    """What the noise of a set-up is made of.

    Every kind has a range of relative power, drawn log-uniformly, or None where it is absent; the
    powers are then brought to the drawn level together.

    Args:
        level: RMS per channel, V, log-uniform: of white noise before it is referenced.
        white: Relative power of white sensor noise. It is never absent, or the covariance would
            lose its rank.
        coloured: Of sensor noise that neighbouring sensors share, with a 1/f spectrum.
        brain: Of background activity everywhere on the cortex, with a 1/f spectrum.
        line: Of mains interference and its harmonics.
        drift: Of slow drifts of single sensors, with a 1/f² spectrum.
        exponent: Of the 1/f spectra (no unit).
        line_frequency: Mains frequencies, Hz; a set-up has one.
        variance_change: Range of the standard deviation of the logarithm of the noise amplitude,
            which changes slowly over a window (no unit).

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
            sensors: Its sensors.
            source_pos: Sources ``(S, 3)``, m.
            is_cortex: Which of them can be active ``(S,)``.
            width: From 0, white noise only, to 1, the shares as they are drawn.
            rng: Source of randomness.

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
        heard = np.flatnonzero(total)
        return Noise(
            kinds=[kinds[i] for i in heard],
            covs=[covs[i] * total[i] / np.trace(covs[i]) for i in heard],
            variance_change=float(change),
        )


@dataclass(frozen=True)
class _Kind:
    cov: Array
    power: float
    exponent: float = 0.0
    low: float = 1.0
    line: float | None = None

    def series(
        self, shape: tuple[int, ...], n_times: int, sfreq: float, rng: torch.Generator
    ) -> Float[Tensor, "... T"]:
        """Independent series of variance 1."""
        if self.line is not None:
            return _mains(shape, n_times, self.line, sfreq, rng)
        low = min(self.low, sfreq / 4)
        return coloured_noise(shape, n_times, self.exponent, sfreq, rng, low)


@dataclass
class Noise:
    """The noise of one set-up: a sum of kinds, each a covariance times a spectrum.

    Attributes:
        kinds: What they are.
        covs: Their covariances ``(C, C)``, V², referenced as the sensors are.
        variance_change: Standard deviation of the logarithm of the slowly changing amplitude.

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

    def draw(
        self, n_examples: int, n_times: int, sfreq: float, rng: torch.Generator
    ) -> Float[Tensor, "B C T"]:
        """Noise, V, referenced; ``E‖N‖² = T tr(cov)``."""
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
        # E exp(2 s u) = exp(2 s²) for normal u: the power stays what it was in expectation.
        return noise * torch.exp(self.variance_change * slow - self.variance_change**2)

    def _colour(self, n_times: int, sfreq: float, device: torch.device) -> list[Tensor | None]:
        """For every kind the factor that colours white series, None where they are drawn anew."""
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
    """Relative power of the background at every source, varying smoothly over the brain.

    Its logarithm is a random field of ten plane waves of 6-20 cm with a standard deviation of 1.5.
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
    """Mains and its harmonics of falling amplitude below Nyquist, variance 1, phases random.

    All channels of an example hum together: the series of one example differ in phase only.
    """
    harmonics = [k for k in (1, 2, 3) if k * frequency < sfreq / 2] or [1]
    time = torch.arange(n_times, device=rng.device) / sfreq
    total = torch.zeros(*shape, n_times, device=rng.device)
    for k in harmonics:
        phase = uniform((*shape, 1), 0.0, 2 * math.pi, rng)
        total += torch.cos(2 * math.pi * k * frequency * time + phase) / k
    return total * math.sqrt(2 / sum(1 / k**2 for k in harmonics))
