"""Artifacts of eyes, muscles and electrodes. The noise covariance does not include them."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepesi.core.quantities import scale_to_db
from deepesi.data_gen.coloured import coloured_noise
from deepesi.data_gen.keys import uniform
from deepesi.data_gen.ranges import check_number, check_range
from deepesi.data_gen.waveforms import bell


class Recording(NamedTuple):
    """Sizes, electrodes and eye lead fields of a batch to which artifacts are added."""

    sensor_pos: Float[Tensor, "C 3"]  # m, head frame
    eyes: Float[Tensor, "B C 6"] | None  # lead field of the eyes, V/(A m)
    n_examples: int
    n_times: int
    sfreq: float  # Hz

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of examples, channels and samples."""
        return (self.n_examples, len(self.sensor_pos), self.n_times)


class Artifact(ABC):
    """Base class of artifacts: a share of the examples, and a power relative to the noise."""

    probability: float
    relative_db: tuple[float, float]
    needs_eyes: bool = False

    @abstractmethod
    def _potential(self, recording: Recording, rng: torch.Generator) -> Float[Tensor, "B C T"]:
        """Potentials of any scale and any reference, never all zero."""

    def __post_init__(self) -> None:
        who = type(self).__name__
        check_number(who, "probability", self.probability, 0, 1, "(no unit)")
        check_range(who, "relative_db", self.relative_db, -40, 60, "dB over the noise")

    def draw(
        self, recording: Recording, noise_power: float, width: float, rng: torch.Generator
    ) -> tuple[Float[Tensor, "B C T"], Bool[Tensor, " B"]]:
        """Draw the average-referenced potential, V, and which examples have the artifact.

        Args:
            recording: Sizes, electrodes and eye lead fields.
            noise_power: ``E‖N‖²`` of the noise over the window, V². ``‖A‖²`` of an artifact over
                the window is exactly the drawn ratio times this.
            width: Factor on the probability.
            rng: Random generator.

        """
        n_examples = recording.shape[0]
        present = uniform((n_examples,), 0.0, 1.0, rng) < self.probability * width
        decibel = uniform((n_examples,), *self.relative_db, rng)
        potential = self._potential(recording, rng)
        potential = potential - potential.mean(dim=1, keepdim=True)
        power = potential.square().sum((1, 2))
        scale = scale_to_db(power, noise_power, decibel) * present
        return scale[:, None, None] * potential, present


def _seconds(recording: Recording, rng: torch.Generator) -> Float[Tensor, "B T"]:
    """Time relative to a random sample of the window, s."""
    n_examples, _, n_times = recording.shape
    moment = uniform((n_examples, 1), 0.0, 1.0, rng) * max(n_times - 1, 0)
    return (torch.arange(n_times, device=rng.device) - moment) / recording.sfreq


def _eye_topography(recording: Recording, direction: Float[Tensor, "B 3"]) -> Float[Tensor, "B C"]:
    """Potential of equal dipole moments in both eyes."""
    assert recording.eyes is not None, "heads without eyes get no eye artifacts"
    return torch.einsum("bce,be->bc", recording.eyes, direction.repeat(1, 2))


@dataclass(frozen=True)
class Blinks(Artifact):
    """Eye blinks: dipoles in both eyes, upward and a little forward.

    The time course is a bump of 0.2-0.4 s.

    Args:
        probability: Share of the examples with this artifact (no unit).
        relative_db: Range of the artifact power relative to the noise power, dB.

    Source: Berg & Scherg 1991, doi:10.1016/0013-4694(91)90154-V.

    """

    probability: float = 0.2
    relative_db: tuple[float, float] = (-10.0, 8.0)
    needs_eyes = True

    def _potential(self, recording: Recording, rng: torch.Generator) -> Tensor:
        n_examples = recording.shape[0]
        jitter = 0.15 * torch.randn(n_examples, 3, generator=rng, device=rng.device)
        direction = torch.tensor([0.0, 0.3, 1.0], device=rng.device) + jitter
        width = uniform((n_examples, 1), 0.05, 0.1, rng)
        time_course = bell(_seconds(recording, rng) / width)
        return _eye_topography(recording, direction)[..., None] * time_course[:, None]


@dataclass(frozen=True)
class Saccades(Artifact):
    """Saccades: the corneo-retinal dipoles change in a step of 20-60 ms and later return.

    Args:
        probability: Share of the examples with this artifact (no unit).
        relative_db: Range of the artifact power relative to the noise power, dB.

    """

    probability: float = 0.2
    relative_db: tuple[float, float] = (-10.0, 5.0)
    needs_eyes = True

    def _potential(self, recording: Recording, rng: torch.Generator) -> Tensor:
        n_examples = recording.shape[0]
        angle = uniform((n_examples,), 0.0, 2 * math.pi, rng)
        direction = torch.stack([angle.cos(), torch.zeros_like(angle), 0.5 * angle.sin()], dim=1)
        rise = uniform((n_examples, 1), 0.01, 0.03, rng)
        hold = uniform((n_examples, 1), 0.1, 0.6, rng)
        time = _seconds(recording, rng)
        time_course = torch.sigmoid(4 * time / rise) - torch.sigmoid(4 * (time - hold) / rise)
        return _eye_topography(recording, direction)[..., None] * time_course[:, None]


@dataclass(frozen=True)
class Muscle(Artifact):
    """Bursts of muscle activity over a temple or the forehead, 20-200 Hz, below Nyquist.

    A burst is centred near a temporal or frontal electrode and decreases over 2-5 cm. At each
    electrode it is the sum of one signal common to all electrodes and one independent signal.

    Args:
        probability: Share of the examples with this artifact (no unit).
        relative_db: Range of the artifact power relative to the noise power, dB.

    """

    probability: float = 0.2
    relative_db: tuple[float, float] = (-10.0, 5.0)

    def _potential(self, recording: Recording, rng: torch.Generator) -> Tensor:
        n_examples, n_channels, n_times = recording.shape
        pos, sfreq = recording.sensor_pos, recording.sfreq
        # Temple electrodes are the lowest at the sides, forehead electrodes the lowest in front.
        near = (pos[:, 1] > -0.02) & ((pos[:, 0].abs() > 0.05) | (pos[:, 1] > 0.06))
        height = torch.where(near, pos[:, 2], torch.inf)
        rank = height.argsort()[: max(1, n_channels // 4)]
        pick = torch.randint(0, len(rank), (n_examples,), generator=rng, device=rng.device)
        centre = pos[rank[pick]] + 0.01 * torch.randn(
            n_examples, 3, generator=rng, device=rng.device
        )
        reach = uniform((n_examples, 1), 0.02, 0.05, rng)
        pattern = bell((pos - centre[:, None]).norm(dim=-1) / reach)
        shared = _band((n_examples, 1), n_times, sfreq, rng)
        own = _band((n_examples, n_channels), n_times, sfreq, rng)
        envelope = bell(_seconds(recording, rng) / uniform((n_examples, 1), 0.05, 0.3, rng))
        return pattern[..., None] * (shared + own) * envelope[:, None]


@dataclass(frozen=True)
class ElectrodePops(Artifact):
    """Sudden potential shift of one electrode that decays within 0.05-0.5 s.

    Args:
        probability: Share of the examples with this artifact (no unit).
        relative_db: Range of the artifact power relative to the noise power, dB.

    """

    probability: float = 0.1
    relative_db: tuple[float, float] = (-5.0, 15.0)

    def _potential(self, recording: Recording, rng: torch.Generator) -> Tensor:
        decay = uniform((recording.shape[0], 1), 0.05, 0.5, rng)
        time = _seconds(recording, rng)
        time_course = torch.exp(-time.clamp_min(0) / decay) * (time >= 0)
        # The pop may lie after the last sample. The offset is then constant over the window.
        time_course = torch.where(time_course.sum(1, keepdim=True) > 0, time_course, 1.0)
        sign = (
            torch.randint(0, 2, (len(time_course), 1, 1), generator=rng, device=rng.device) * 2 - 1
        )
        return sign * _one_channel(recording, rng) * time_course[:, None]


@dataclass(frozen=True)
class BadElectrode(Artifact):
    """Electrode with bad contact that was not marked as bad: strong independent noise.

    Args:
        probability: Share of the examples with this artifact (no unit).
        relative_db: Range of the artifact power relative to the noise power, dB.

    """

    probability: float = 0.1
    relative_db: tuple[float, float] = (-10.0, 10.0)

    def _potential(self, recording: Recording, rng: torch.Generator) -> Tensor:
        n_examples, _, n_times = recording.shape
        low = min(1.0, recording.sfreq / 4)
        time_course = coloured_noise((n_examples, 1), n_times, 1.0, recording.sfreq, rng, low)
        return _one_channel(recording, rng) * time_course


def _one_channel(recording: Recording, rng: torch.Generator) -> Float[Tensor, "B C 1"]:
    """One for a random channel of every example, else zero."""
    n_examples, n_channels, _ = recording.shape
    channel = torch.randint(0, n_channels, (n_examples,), generator=rng, device=rng.device)
    return torch.nn.functional.one_hot(channel, n_channels)[..., None].float()


def _band(
    shape: tuple[int, int], n_times: int, sfreq: float, rng: torch.Generator
) -> Float[Tensor, "... T"]:
    """Noise from 20 Hz to 200 Hz or Nyquist; white if the window is too short for 20 Hz."""
    white = torch.randn(*shape, n_times, generator=rng, device=rng.device)
    frequency = torch.fft.rfftfreq(n_times, 1 / sfreq, device=rng.device)
    inside = (frequency >= 20) & (frequency <= 200)
    if not inside.any():
        return white
    return torch.fft.irfft(torch.fft.rfft(white) * inside, n_times)
