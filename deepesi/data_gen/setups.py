"""Recording set-ups: a montage, its noise and its prepared inputs, from a pool that is redrawn."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepesi.contracts import LowRankLeadField, as_tensors
from deepesi.data_gen.keys import key_entropy
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import HeadInput, prepare
from deepesi.physics.montage import ScalpPoints, displace, standard_montage
from deepesi.physics.noise import brain_noise_cov, white_noise_cov
from deepesi.physics.template import NOMINAL_SKULL_CONDUCTIVITY, Template

Array = NDArray[np.float64]

#: Displaced copies kept of every electrode of a set-up; each example takes one per electrode.
N_COPIES = 64


@dataclass(frozen=True)
class RecordingSetup:
    """One nominal head with everything needed to render examples recorded under it.

    Attributes:
        head: The nominal head.
        inputs: Its prepared inputs.
        noise_factor: ``F`` with ``F Fᵀ = noise_cov``, ``(C, C)``, V.
        copies: Displaced electrodes: vertices ``(M, C, 3)`` into `scalp_modes` and weights.
        scalp_modes: Modes at the vertices those use ``(K, N, r)``.
        source_modes: ``(D, r)``.

    """

    head: HeadModel
    inputs: dict[str, Tensor]
    noise_factor: Tensor
    copies: tuple[Tensor, Tensor]
    scalp_modes: Tensor
    source_modes: Tensor

    def render_through(self, coefficients: Tensor, rng: torch.Generator) -> LowRankLeadField:
        """Lead fields ``(B)`` with these conductivity coefficients and displaced electrodes."""
        vertices, weights = self.copies
        n_copies, n_channels, _ = vertices.shape
        shape = (len(coefficients), n_channels)
        copy = torch.randint(0, n_copies, shape, generator=rng, device=rng.device)
        channel = torch.arange(n_channels, device=rng.device).expand(shape)
        return LowRankLeadField(
            coefficients=coefficients,
            vertices=vertices[copy, channel],
            weights=weights[copy, channel],
            scalp_modes=self.scalp_modes,
            source_modes=self.source_modes,
        )


@dataclass(frozen=True)
class SetupRanges:
    """What set-ups are drawn from.

    Args:
        montages: Names of MNE's standard montages; a set-up has one, drawn uniformly.
        noise_level: RMS of the noise per channel, V, drawn log-uniformly.
        sensor_noise: Least and largest share of the noise power that is white sensor noise, drawn
            log-uniformly; the rest is background activity of the cortex.
        displacement: Mean displacement of an electrode along the scalp, m.
        nominal_skull_conductivity: What the analyst assumes, S/m.

    Raises:
        ValueError: An empty list, or a range out of order or not in volts or metres.

    """

    montages: Sequence[str] = ("biosemi64",)
    noise_level: tuple[float, float] = (2e-7, 2e-6)
    sensor_noise: tuple[float, float] = (1.0, 1.0)
    displacement: float = 0.005
    nominal_skull_conductivity: float = NOMINAL_SKULL_CONDUCTIVITY

    def __post_init__(self) -> None:
        if not self.montages:
            raise ValueError("SetupRanges: montages is empty, name at least one.")
        if not 0 < self.noise_level[0] <= self.noise_level[1] < 1e-3:
            raise ValueError(
                f"SetupRanges: noise_level {self.noise_level} must be an ascending range of volts "
                "below 1e-3 (1 microvolt is 1e-6)."
            )
        if not 1e-6 <= self.sensor_noise[0] <= self.sensor_noise[1] <= 1:
            raise ValueError(
                f"SetupRanges: sensor_noise {self.sensor_noise} must be an ascending range of "
                "shares within 1e-6-1: without sensor noise the covariance loses its rank."
            )
        if not 0 <= self.displacement < 0.03:
            raise ValueError(
                f"SetupRanges: displacement {self.displacement:g} must lie in 0-0.03. It is in "
                "metres (5 mm is 0.005)."
            )


@lru_cache(maxsize=64)
def _electrodes(template: Template, montage: str) -> tuple[list[str], ScalpPoints]:
    names, positions = standard_montage(montage)
    return names, template.electrodes(positions, names)


def draw_setup(
    template: Template,
    ranges: SetupRanges,
    declarations: Sequence[HeadInput],
    rng: np.random.Generator,
    device: torch.device | str,
) -> RecordingSetup:
    """Draw one set-up on a template head."""
    montage = str(rng.choice(list(ranges.montages)))
    names, electrodes = _electrodes(template, montage)
    head = template.head(names, electrodes, skull_conductivity=ranges.nominal_skull_conductivity)
    head = replace(head, noise_cov=draw_noise_cov(head, ranges, rng))
    family = template.family
    copies = displace(
        electrodes.positions,
        family.scalp_pos,
        family.scalp_faces,
        ranges.displacement,
        N_COPIES,
        rng,
    )
    used, renumbered = np.unique(copies.vertices, return_inverse=True)
    values, vectors = np.linalg.eigh(head.noise_cov)
    tensors = as_tensors(
        {
            "noise_factor": (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T,
            "vertices": renumbered.reshape(copies.vertices.shape),
            "weights": copies.weights,
            "scalp_modes": family.scalp_modes[:, used],
            "source_modes": family.source_modes,
        },
        device,
    )
    return RecordingSetup(
        head=head,
        inputs=as_tensors(prepare(declarations, head), device),
        noise_factor=tensors["noise_factor"],
        copies=(tensors["vertices"], tensors["weights"]),
        scalp_modes=tensors["scalp_modes"],
        source_modes=tensors["source_modes"],
    )


def draw_noise_cov(head: HeadModel, ranges: SetupRanges, rng: np.random.Generator) -> Array:
    """White sensor noise plus cortical background whose power varies smoothly over the cortex.

    The logarithm of the power is a random field of ten plane waves of 6-20 cm, with a standard
    deviation of 1.5.
    """
    level = float(np.exp(rng.uniform(*np.log(ranges.noise_level))))
    share = float(np.exp(rng.uniform(*np.log(ranges.sensor_noise))))
    direction = rng.normal(size=(10, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    waves = 2 * np.pi * direction / rng.uniform(0.06, 0.2, size=(10, 1))
    phase = rng.uniform(0, 2 * np.pi, size=10)
    field = np.cos(head.source_pos @ waves.T + phase).sum(axis=1) * np.sqrt(2 / 10)
    power = np.repeat(np.exp(1.5 * field), head.space.n_orient)
    white = white_noise_cov(head.n_channels, level)
    return share * white + (1 - share) * brain_noise_cov(head.leadfield, level, power)


class SetupPool:
    """Set-ups of a run: `size` at a time, each serving steps in turn, all redrawn every `period`.

    The set-up of a step is a function of the key alone, so a resumed run sees the same ones.
    """

    def __init__(
        self,
        template: Template,
        ranges: SetupRanges,
        declarations: Sequence[HeadInput],
        size: int,
        period: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if size < 1 or period < size:
            raise ValueError(
                f"SetupPool: size must be 1 or more and period at least size, got size={size}, "
                f"period={period}."
            )
        self.template, self.ranges, self.declarations = template, ranges, tuple(declarations)
        self.size, self.period, self.device = size, period, device
        self._drawn: dict[tuple[int, str, int, int], RecordingSetup] = {}

    def at(self, seed: int, split: str, rank: int, step: int) -> RecordingSetup:
        """The set-up of one step."""
        generation, slot = step // self.period, step % self.size
        key = (seed, split, rank, generation * self.size + slot)
        if key not in self._drawn:
            while len(self._drawn) >= self.size:
                self._drawn.pop(next(iter(self._drawn)))
            entropy = [*key_entropy(*key), 1]
            self._drawn[key] = draw_setup(
                self.template,
                self.ranges,
                self.declarations,
                np.random.default_rng(entropy),
                self.device,
            )
        return self._drawn[key]
