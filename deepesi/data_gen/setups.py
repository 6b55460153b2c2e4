"""Recording set-ups: head, montage, reference, noise and head inputs, drawn into a pool."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepesi.core.batch import LowRankLeadField
from deepesi.core.contracts import as_tensors
from deepesi.data_gen.anatomy import Anatomy, AnatomyRanges
from deepesi.data_gen.caps import CapRanges, draw_cap
from deepesi.data_gen.coils import CoilRanges, DrawnCoils, coil_array, with_coil_noise
from deepesi.data_gen.curriculum import OPEN, Curriculum
from deepesi.data_gen.heads import HeadOnDevice
from deepesi.data_gen.keys import key_entropy, torch_generator
from deepesi.data_gen.montages import (
    N_COPIES,
    N_POSES,
    MontageRanges,
    displaced_positions,
    draw_channels,
    eeg_channel_range,
)
from deepesi.data_gen.noise import Noise, NoiseRanges
from deepesi.data_gen.ranges import check_range
from deepesi.data_gen.scalp_potentials import ScalpPotentials
from deepesi.data_gen.tissues import TissueRanges
from deepesi.physics.cap_placement import RecordedCap, place_cap
from deepesi.physics.family import Tissues
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import HeadInput, prepare
from deepesi.physics.magnetic import Coils
from deepesi.physics.scalp import ScalpPoints
from deepesi.physics.sensors import SensorArray
from deepesi.physics.template import Template

Array = NDArray[np.float64]

#: Batches of one set-up that share an anatomy.
ANATOMY_USES = 8

NOMINAL_TISSUES = TissueRanges((0.01, 0.01), (0.006, 0.006), (0.33, 0.33), (0.33, 0.33))


@dataclass(frozen=True)
class RecordingSetup:
    """One nominal head, and all that is needed to simulate recordings with it.

    Attributes:
        head: Nominal head, the input of the model.
        inputs: Head inputs of the nominal head.
        true_head: Head that renders the examples.
        noise: True noise.
        noise_power: ``tr(cov)`` of the true noise, V².
        displaced: Displaced sensors: scalp vertices and barycentric weights ``(P, M, C, 3)``.
        sensor_pos: Nominal sensor positions ``(C, 3)``, m, head frame.
        montage: Name of the sensor montage.
        assumed: Tissues of the nominal head.
        anatomy: Ranges of the anatomies of the true head. None: that of the true head itself.
        coils: What the coils measure of every mode, per position of the head; None without MEG.
        channel_weights: Weights of the squared channels ``(C,)`` in the SNR of EEG and MEG
            together; None: all 1.

    """

    head: HeadModel
    inputs: dict[str, Tensor]
    true_head: HeadOnDevice
    noise: Noise
    noise_power: float
    displaced: tuple[Tensor, Tensor]
    sensor_pos: Tensor
    montage: str
    assumed: Tissues
    anatomy: AnatomyRanges | None = None
    coils: Float[Tensor, "P M R"] | None = None
    channel_weights: Float[Tensor, " C"] | None = None

    def power(self, clean: Float[Tensor, "B C T"]) -> Float[Tensor, " B"]:
        """Power of signals, to be compared with `noise_power` per sample.

        With EEG and MEG every modality is divided by its own noise, so that the SNR of a recording
        is the mean of the SNRs of its modalities.
        """
        if self.channel_weights is None:
            return clean.square().sum((1, 2))
        return (self.channel_weights[:, None] * clean.square()).sum((1, 2))

    @property
    def lead_fields(self) -> ScalpPotentials:
        """Lead fields that render the examples: those of the true head or of its finer cortex."""
        head = self.true_head
        return head.lead_fields if self.anatomy is None else head.fine_cortex.lead_fields

    def draw_leadfields(
        self, tissues: Float[Tensor, "B 4"], anatomy: Anatomy | None, rng: torch.Generator
    ) -> LowRankLeadField:
        """True lead fields with these tissues and this anatomy, and displaced sensors."""
        vertices, weights = self.displaced
        n_poses, n_copies, n_channels, _ = vertices.shape
        n_examples = len(tissues)
        pose = torch.randint(0, n_poses, (n_examples, 1), generator=rng, device=rng.device)
        copy = torch.randint(
            0, n_copies, (n_examples, n_channels), generator=rng, device=rng.device
        )
        channel = torch.arange(n_channels, device=rng.device).expand(n_examples, -1)
        index = (pose, copy, channel)
        if self.coils is not None:
            position = torch.randint(
                0, len(self.coils), (n_examples,), generator=rng, device=rng.device
            )
            positions = vertices[index], weights[index], self.coils[position]
            if anatomy is None:
                return self.true_head.joint_fields.leadfields(tissues, *positions)
            fields = self.true_head.fine_cortex.joint_fields
            return fields.leadfields(
                tissues, *positions, anatomy.source_modes, anatomy.magnetic_modes
            )
        modes = None if anatomy is None else anatomy.source_modes
        return self.lead_fields.leadfields(tissues, vertices[index], weights[index], modes)


@dataclass(frozen=True)
class SetupRanges(MontageRanges):
    """Ranges that recording set-ups are drawn from, with those of `MontageRanges`.

    Args:
        noise: Ranges of the noise.
        baseline: Range of the number of samples from which the analyst estimates the noise
            covariance (Ledoit-Wolf shrinkage). None: the true covariance is known.
        nominal: Ranges of the tissues that the analyst assumes.
        own_anatomy: Whether the analyst has the individual anatomy. If not: the template head.
        cap: Ranges of the pose of the cap and of what the analyst knows of it, in place of
            `displacement`, `coregistration_shift`, `coregistration_rotation` and `electrode_error`.
            None: these four.
        coils: Ranges of MEG beside EEG, or in its place. None: EEG alone, but for a head of a
            forward solution with MEG.
        anatomy: Ranges of the cortex of other people, drawn anew every `ANATOMY_USES` uses of a
            set-up. None: sources and normals of the true head are those of its own grid.

    Raises:
        ValueError: A list is empty, a name is unknown, or a range is out of order or not in SI
            units.

    """

    noise: NoiseRanges = field(default_factory=NoiseRanges)
    baseline: tuple[int, int] | None = None
    nominal: TissueRanges = NOMINAL_TISSUES
    own_anatomy: bool = True
    cap: CapRanges | None = None
    anatomy: AnatomyRanges | None = None
    coils: CoilRanges | None = None

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
        heads: True heads to draw from.
        nominal_head: Template head, used if the analyst has no individual anatomy.
        ranges: Ranges of the set-up.
        tissues: Ranges of the true tissues.
        declarations: Head inputs to prepare.
        sfreq: Sampling rate of the baseline, Hz.
        widths: Width of every aspect of the `Curriculum`, 0 to 1.
        rng: Random generator.

    """
    true = heads[int(rng.integers(len(heads)))]
    template, opened = true.template, widths["montages"]
    in_use = list(ranges.montages)[: max(1, round(opened * len(ranges.montages)))]
    montage = str(rng.choice(in_use))
    names, nominal = template.montage(montage)
    rows = draw_channels(names, ranges, opened, rng)
    names, nominal = [names[i] for i in rows], nominal[rows]
    torch_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
    assumed = _tissues(ranges.nominal, torch_rng, 1.0)
    if ranges.cap is None:
        displaced = displaced_positions(template, nominal, ranges, widths["electrodes"], rng)
    else:
        displaced, nominal, _ = draw_cap(
            template, montage, names, ranges.cap, N_POSES, N_COPIES, rng
        )
    true_tissues = _tissues(tissues, torch_rng, widths["tissues"])
    has_eeg, coils = _draw_coils(ranges, template, rng)
    if not has_eeg:
        names, nominal, displaced = [], nominal[:0], displaced[:, :, :0]
    sensors = SensorArray.eeg(names, nominal.positions)
    leadfields = [template.family.leadfield(true_tissues, displaced[0, 0])] if names else []
    if coils is not None:
        sensors = sensors.joined(coils.nominal.sensors)
        leadfields.append(coils.patterns[0] @ template.magnetic.source_modes.T)
    true_leadfield = np.concatenate(leadfields)
    noise = ranges.noise.draw(
        true_leadfield,
        sensors,
        template.source_pos,
        template.is_cortex,
        widths["noise"],
        rng,
    )
    if coils is not None:
        noise = with_coil_noise(noise, coils, true_leadfield, sensors)
    cov = noise.cov
    if ranges.baseline is not None:
        n_samples = int(rng.integers(ranges.baseline[0], ranges.baseline[1] + 1))
        cov = _estimated(noise, n_samples, sfreq, torch_rng)
    cov, known = sensors.independent(cov), None if coils is None else coils.nominal
    own_head = ranges.own_anatomy or template.cap is not None
    if own_head:
        head = template.head(names, nominal, cov, assumed, known)
    else:
        points = _on(nominal_head, montage, names, nominal, ranges) if names else nominal
        head = nominal_head.head(names, points, cov, assumed, known)
    anatomy = ranges.anatomy if ranges.anatomy and ranges.anatomy.chosen(rng) else None
    head = replace(head, own_normals=own_head and anatomy is None)
    arrays = {
        "vertices": displaced.vertices,
        "weights": displaced.weights,
        "sensor_pos": nominal.positions,
    }
    tensors = as_tensors(arrays, true.device)
    return RecordingSetup(
        head=head,
        inputs=as_tensors(prepare(declarations, head), true.device),
        true_head=true,
        noise=noise,
        noise_power=float(np.trace(noise.cov)),
        displaced=(tensors["vertices"], tensors["weights"]),
        sensor_pos=tensors["sensor_pos"],
        montage=_montage_name(template, montage if names else "", coils),
        assumed=assumed,
        anatomy=anatomy,
        coils=None if coils is None else _as_tensor(coils.patterns, true.device),
        channel_weights=_channel_weights(sensors, noise, true.device),
    )


def channel_range(template: Template, ranges: SetupRanges) -> tuple[int, int]:
    """Smallest and largest number of channels of set-ups, not counting a lost reference."""
    fewest, most = eeg_channel_range(template, ranges)
    n_coils = [len(coils) for coils in _arrays(template, ranges)] or [0]
    sizes = [
        (eeg * fewest + meg * min(n_coils), eeg * most + meg * max(n_coils))
        for eeg, meg in _mixtures(template, ranges)
    ]
    return min(low for low, _ in sizes), max(high for _, high in sizes)


def drawn_kinds(template: Template, ranges: SetupRanges) -> list[str]:
    """Kinds of sensors of set-ups, keys of `deepesi.physics.sensors.KINDS`."""
    eeg, meg = map(any, zip(*_mixtures(template, ranges), strict=True))
    arrays = _arrays(template, ranges) if meg else []
    return ["eeg"] * eeg + sorted({kind for coils in arrays for kind in coils.sensors.kinds})


def _mixtures(template: Template, ranges: SetupRanges) -> list[tuple[bool, bool]]:
    """Whether set-ups have EEG and MEG: the mixtures that are drawn."""
    coils = _coil_ranges(template, ranges)
    if coils is None:
        return [(True, False)]
    return [(False, True)] if template.cap == () else coils.mixtures


def _arrays(template: Template, ranges: SetupRanges) -> list[Coils]:
    """The MEG arrays of set-ups."""
    if template.known_coils is not None:
        return [template.known_coils.coils]
    return [] if ranges.coils is None else [coil_array(name) for name in ranges.coils.arrays]


def _coil_ranges(template: Template, ranges: SetupRanges) -> CoilRanges | None:
    """Ranges of MEG; those of a forward solution with MEG need not be set."""
    if ranges.coils is None and template.known_coils is not None:
        return CoilRanges()
    return ranges.coils


def _draw_coils(
    ranges: SetupRanges, template: Template, rng: np.random.Generator
) -> tuple[bool, DrawnCoils | None]:
    """Whether a set-up has EEG, and its MEG; draws numbers only if there is MEG."""
    coils = _coil_ranges(template, ranges)
    if coils is None:
        return True, None
    has_eeg, has_meg = coils.modalities(rng)
    if template.cap == ():
        has_eeg, has_meg = False, True
    return has_eeg, coils.draw(template, rng) if has_meg else None


def _channel_weights(
    sensors: SensorArray, noise: Noise, device: torch.device | str
) -> Tensor | None:
    """Weights of `RecordingSetup.power`: the mean noise of all channels over that of a modality."""
    modalities = np.array(sensors.modalities)
    present, variances = sorted(set(modalities)), np.diag(noise.cov)
    if len(present) == 1:
        return None
    weights = np.zeros(len(sensors))
    for modality in present:
        own = modalities == modality
        weights[own] = variances.sum() / variances[own].sum() / len(present)
    return _as_tensor(weights, device)


def _as_tensor(values: Array, device: torch.device | str) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32, device=device)


def _montage_name(template: Template, montage: str, coils: DrawnCoils | None) -> str:
    if template.cap is not None:
        return template.name
    return "+".join(filter(None, [montage, coils.name if coils else ""]))


def _on(
    nominal_head: Template,
    montage: str,
    names: list[str],
    nominal: ScalpPoints,
    ranges: SetupRanges,
) -> ScalpPoints:
    """Electrodes on the head of an analyst without the anatomy: the montage, or the cap known."""
    if ranges.cap is not None:
        return place_cap(nominal_head, RecordedCap(names, nominal.positions)).points
    all_names, all_points = nominal_head.montage(montage)
    return all_points[[all_names.index(name) for name in names]]


def _tissues(ranges: TissueRanges, rng: torch.Generator, width: float) -> Tissues:
    return Tissues(*ranges.draw(1, rng, width)[0].double().tolist())


def _estimated(noise: Noise, n_samples: int, sfreq: float, rng: torch.Generator) -> Array:
    """Covariance ``(C, C)`` that an analyst estimates from a baseline of the recording, V².

    The mean is not removed, because it is not removed from the windows either.
    """
    from sklearn.covariance import ledoit_wolf  # seconds to import, and rarely needed

    baseline = noise.draw(1, n_samples, sfreq, rng)[0].double().numpy()
    cov, _ = ledoit_wolf(baseline.T, assume_centered=True)
    return np.asarray(cov)


class SetupPool:
    """Pool of set-ups. Steps use them in turn; all are drawn anew after `period` steps.

    With a curriculum the period is at most 1/20 of the length of the curriculum. The set-up of a
    step depends only on the random key, so a resumed run uses the same set-ups.
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
        if curriculum is not OPEN:  # set-ups must follow its widths
            period = min(period, max(size, curriculum.n_steps // 20))
        self._draw_from = (heads, nominal_head, ranges, tissues, tuple(declarations), sfreq)
        self.size, self.period, self.curriculum = size, period, curriculum
        self.with_meg = ranges.coils is not None
        self._drawn: dict[tuple[int, str, int, int], RecordingSetup] = {}
        self._anatomies: dict[tuple[int, str, int, int], Anatomy] = {}

    def first_step(self, step: int) -> int:
        """First step that uses the same set-ups as this step."""
        return step // self.period * self.period

    def at(self, seed: int, split: str, rank: int, step: int) -> RecordingSetup:
        """Return the set-up of one step."""
        generation, slot = step // self.period, step % self.size
        key = (seed, split, rank, generation * self.size + slot)
        if key not in self._drawn:
            # Keep those of all ranks: gradient accumulation draws batches of several ranks.
            self._drawn = {k: v for k, v in self._drawn.items() if k[3] // self.size == generation}
            rng = np.random.default_rng([*key_entropy(*key), 1])
            widths = self.curriculum.widths(self.first_step(step))
            self._drawn[key] = draw_setup(*self._draw_from, widths, rng)
        return self._drawn[key]

    def anatomy_at(self, seed: int, split: str, rank: int, step: int) -> Anatomy | None:
        """Return the anatomy of the true head in one step; None: that of the head itself."""
        setup = self.at(seed, split, rank, step)
        if setup.anatomy is None:
            return None
        block = step // (self.size * ANATOMY_USES)
        key = (seed, split, rank, block * self.size + step % self.size)
        if key not in self._anatomies:
            self._anatomies = {
                k: v for k, v in self._anatomies.items() if k[3] // self.size == block
            }
            cortex = setup.true_head.fine_cortex
            rng = torch_generator(*key, 2, device=setup.true_head.device)
            self._anatomies[key] = setup.anatomy.draw(cortex, rng, self.with_meg)
        return self._anatomies[key]
