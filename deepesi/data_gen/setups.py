"""Recording set-ups: head, montage, reference, noise and prepared inputs, from a redrawn pool."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from deepesi.core.contracts import LowRankLeadField, as_tensors
from deepesi.data_gen.curriculum import OPEN, Curriculum
from deepesi.data_gen.heads import HeadOnDevice
from deepesi.data_gen.keys import key_entropy
from deepesi.data_gen.montages import MontageRanges, displaced_places, draw_channels
from deepesi.data_gen.noise import Noise, NoiseRanges
from deepesi.data_gen.ranges import check_range
from deepesi.data_gen.tissues import TissueRanges
from deepesi.physics.family import Tissues
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import HeadInput, prepare
from deepesi.physics.sensors import SensorArray
from deepesi.physics.template import Template

Array = NDArray[np.float64]

NOMINAL_TISSUES = TissueRanges((0.01, 0.01), (0.006, 0.006), (0.33, 0.33), (0.33, 0.33))


@dataclass(frozen=True)
class RecordingSetup:
    """One nominal head with everything needed to render examples recorded under it.

    Attributes:
        head: The nominal head: what the model is given.
        inputs: Its prepared inputs.
        true_head: The head the examples come from.
        noise: The true noise.
        noise_power: ``tr(cov)`` of it, V².
        places: Where sensors may really lie: vertices ``(P, M, C, 3)`` and weights.
        sensor_pos: Nominal positions of the sensors ``(C, 3)``, m.
        montage: Name of the montage the sensors are part of.
        assumed: Tissues of the nominal head.

    """

    head: HeadModel
    inputs: dict[str, Tensor]
    true_head: HeadOnDevice
    noise: Noise
    noise_power: float
    places: tuple[Tensor, Tensor]
    sensor_pos: Tensor
    montage: str
    assumed: Tissues

    def render_through(
        self, tissues: Float[Tensor, "B 4"], rng: torch.Generator
    ) -> LowRankLeadField:
        """Lead fields at these tissues, the sensors displaced."""
        vertices, weights = self.places
        n_poses, n_copies, n_channels, _ = vertices.shape
        n_examples = len(tissues)
        pose = torch.randint(0, n_poses, (n_examples, 1), generator=rng, device=rng.device)
        copy = torch.randint(
            0, n_copies, (n_examples, n_channels), generator=rng, device=rng.device
        )
        channel = torch.arange(n_channels, device=rng.device).expand(n_examples, -1)
        index = (pose, copy, channel)
        return self.true_head.lead_fields.render_through(tissues, vertices[index], weights[index])


@dataclass(frozen=True)
class SetupRanges(MontageRanges):
    """What set-ups are drawn from: a montage, see `MontageRanges` for its arguments, and the rest.

    Args:
        noise: The noise.
        baseline: Range of the samples from which the analyst estimates the noise covariance
            (Ledoit-Wolf shrinkage); None: the true covariance is known.
        nominal: What the analyst assumes of the tissues.
        own_anatomy: Whether the analyst has the individual anatomy, or the template's instead.

    Raises:
        ValueError: An empty list, an unknown name, or a range out of order or not in SI units.

    """

    noise: NoiseRanges = field(default_factory=NoiseRanges)
    baseline: tuple[int, int] | None = None
    nominal: TissueRanges = NOMINAL_TISSUES
    own_anatomy: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline is not None:
            check_range("SetupRanges", "baseline", self.baseline, 10, 1e6, "samples")


def draw_setup(
    heads: Sequence[HeadOnDevice],
    nominal_head: Template,
    ranges: SetupRanges,
    tissues: TissueRanges,
    declarations: Sequence[HeadInput],
    sfreq: float,
    widths: dict[str, float],
    rng: np.random.Generator,
) -> RecordingSetup:
    """Draw one set-up.

    Args:
        heads: Heads to draw from.
        nominal_head: The template, used where the analyst has no individual anatomy.
        ranges: Of the set-up.
        tissues: Of the heads.
        declarations: Head inputs to prepare.
        sfreq: Sampling rate of the baseline, Hz.
        widths: How far every aspect is opened, see `Curriculum`.
        rng: Source of randomness.

    """
    true = heads[rng.integers(len(heads))]
    template, opened = true.template, widths["montages"]
    in_use = list(ranges.montages)[: max(1, round(opened * len(ranges.montages)))]
    montage = str(rng.choice(in_use))
    names, nominal = template.montage(montage)
    rows = draw_channels(names, ranges, opened, rng)
    names, nominal = [names[i] for i in rows], nominal[rows]
    torch_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
    assumed = _tissues(ranges.nominal, torch_rng, 1.0)
    places = displaced_places(template, nominal, ranges, widths["electrodes"], rng)
    true_leadfield = template.family.leadfield(
        _tissues(tissues, torch_rng, widths["tissues"]), places[0, 0]
    )
    noise = ranges.noise.draw(
        true_leadfield,
        SensorArray.eeg(names, nominal.positions),
        template.source_pos,
        template.is_cortex,
        widths["noise"],
        rng,
    )
    cov = noise.cov
    if ranges.baseline is not None:
        cov = _estimated(
            noise, int(rng.integers(ranges.baseline[0], ranges.baseline[1] + 1)), sfreq, torch_rng
        )
    if ranges.own_anatomy or template.cap is not None:
        head = template.head(names, nominal, cov, assumed)
    else:
        every, there = nominal_head.montage(montage)
        chosen = [every.index(name) for name in names]
        head = nominal_head.head(names, there[chosen], cov, assumed)
    arrays = {
        "vertices": places.vertices,
        "weights": places.weights,
        "sensor_pos": nominal.positions,
    }
    tensors = as_tensors(arrays, true.device)
    return RecordingSetup(
        head=head,
        inputs=as_tensors(prepare(declarations, head), true.device),
        true_head=true,
        noise=noise,
        noise_power=float(np.trace(noise.cov)),
        places=(tensors["vertices"], tensors["weights"]),
        sensor_pos=tensors["sensor_pos"],
        montage=montage if template.cap is None else template.name,
        assumed=assumed,
    )


def _tissues(ranges: TissueRanges, rng: torch.Generator, width: float) -> Tissues:
    return Tissues(*ranges.draw(1, rng, width)[0].double().tolist())


def _estimated(noise: Noise, n_samples: int, sfreq: float, rng: torch.Generator) -> Array:
    """Covariance ``(C, C)`` an analyst would estimate from a baseline of the recording.

    The mean is not removed, as it is not removed from the windows either.
    """
    baseline = noise.draw(1, n_samples, sfreq, rng)[0].double().numpy()
    cov, _ = ledoit_wolf(baseline.T, assume_centered=True)
    return np.asarray(cov)


class SetupPool:
    """Set-ups of a run: `size` at a time, each serving steps in turn, all redrawn every `period`.

    Under a curriculum they are redrawn every twentieth of its length at least. The set-up of a
    step is a function of the key alone, so a resumed run sees the same ones.
    """

    def __init__(
        self,
        heads: Sequence[HeadOnDevice],
        nominal_head: Template,
        ranges: SetupRanges,
        tissues: TissueRanges,
        declarations: Sequence[HeadInput],
        sfreq: float = 250.0,
        size: int = 8,
        period: int = 512,
        curriculum: Curriculum = OPEN,
    ) -> None:
        if size < 1 or period < size:
            raise ValueError(
                f"SetupPool: size must be 1 or more and period at least size, got size={size}, "
                f"period={period}."
            )
        if curriculum is not OPEN:  # set-ups must not lag behind what it opens
            period = min(period, max(size, curriculum.n_steps // 20))
        self._draw_from = (heads, nominal_head, ranges, tissues, tuple(declarations), sfreq)
        self.size, self.period, self.curriculum = size, period, curriculum
        self._drawn: dict[tuple[int, str, int, int], RecordingSetup] = {}

    def first_step(self, step: int) -> int:
        """The step from which on the set-ups of a step were drawn."""
        return step // self.period * self.period

    def at(self, seed: int, split: str, rank: int, step: int) -> RecordingSetup:
        """The set-up of one step."""
        generation, slot = step // self.period, step % self.size
        key = (seed, split, rank, generation * self.size + slot)
        if key not in self._drawn:
            # Of every rank: a process that accumulates gradients draws those of several.
            self._drawn = {k: v for k, v in self._drawn.items() if k[3] // self.size == generation}
            rng = np.random.default_rng([*key_entropy(*key), 1])
            widths = self.curriculum.widths(self.first_step(step))
            self._drawn[key] = draw_setup(*self._draw_from, widths, rng)
        return self._drawn[key]
