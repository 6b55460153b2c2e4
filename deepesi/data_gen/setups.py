"""Recording set-ups: head, montage, reference, noise and head inputs, drawn into a pool."""

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
from deepesi.data_gen.noise import Noise, NoiseRanges
from deepesi.data_gen.ranges import check_number, check_range
from deepesi.data_gen.tissues import TissueRanges
from deepesi.physics.family import Tissues
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import HeadInput, prepare
from deepesi.physics.montage import ScalpPoints, displace
from deepesi.physics.template import Template

Array = NDArray[np.float64]

#: Cap positions of a set-up, and displaced positions of every electrode in each. An example uses
#: one cap position, and in it one position per electrode.
N_POSES, N_COPIES = 16, 8
#: Smallest number of electrodes after subset, dropout and reference.
FEWEST = 12
REFERENCES = ("average", "electrode", "linked-ears")
EARS = ("A1", "A2", "M1", "M2", "TP9", "TP10")
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
        displaced: Displaced electrodes: scalp vertices and barycentric weights ``(P, M, C, 3)``.
        sensor_pos: Nominal electrode positions ``(C, 3)``, m, head frame.
        montage: Name of the electrode montage.
        assumed: Tissues of the nominal head.

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

    def draw_leadfields(
        self, tissues: Float[Tensor, "B 4"], rng: torch.Generator
    ) -> LowRankLeadField:
        """True lead fields with these tissues and displaced electrodes."""
        vertices, weights = self.displaced
        n_poses, n_copies, n_channels, _ = vertices.shape
        n_examples = len(tissues)
        pose = torch.randint(0, n_poses, (n_examples, 1), generator=rng, device=rng.device)
        copy = torch.randint(
            0, n_copies, (n_examples, n_channels), generator=rng, device=rng.device
        )
        channel = torch.arange(n_channels, device=rng.device).expand(n_examples, -1)
        index = (pose, copy, channel)
        return self.true_head.leadfields(tissues, vertices[index], weights[index])


@dataclass(frozen=True)
class SetupRanges:
    """Ranges that recording set-ups are drawn from.

    Args:
        montages: Names of electrode montages (MNE's, ``10-20-19``, ``10-20-21``), one per set-up.
        noise: Ranges of the noise.
        displacement: Mean displacement of an electrode along the scalp, m.
        coregistration_shift: Mean shift of all electrodes together, m.
        coregistration_rotation: Mean rotation of all electrodes together, degrees.
        electrode_error: Range of a factor on these three, one per set-up, no unit. Some
            laboratories digitize electrodes, others use a template cap.
        subset: Probability that a set-up has a random subset of the electrodes (no unit).
        dropout: Range of the share of missing channels (no unit).
        references: Original reference, one per set-up: ``average``; ``electrode``, one of the
            electrodes; ``linked-ears``. Reference electrodes are no channels. The analyst
            re-references to the average, which removes the effect on the other channels.
        baseline: Range of the number of samples from which the analyst estimates the noise
            covariance (Ledoit-Wolf shrinkage). None: the true covariance is known.
        nominal: Ranges of the tissues that the analyst assumes.
        own_anatomy: Whether the analyst has the individual anatomy. If not: the template head.

    Raises:
        ValueError: A list is empty, a name is unknown, or a range is out of order or not in SI
            units.

    """

    montages: Sequence[str] = ("biosemi64",)
    noise: NoiseRanges = field(default_factory=NoiseRanges)
    displacement: float = 0.005
    coregistration_shift: float = 0.0
    coregistration_rotation: float = 0.0
    electrode_error: tuple[float, float] = (1.0, 1.0)
    subset: float = 0.0
    dropout: tuple[float, float] = (0.0, 0.0)
    references: Sequence[str] = ("average",)
    baseline: tuple[int, int] | None = None
    nominal: TissueRanges = NOMINAL_TISSUES
    own_anatomy: bool = True

    def __post_init__(self) -> None:
        who = "SetupRanges"
        if not self.montages:
            raise ValueError("SetupRanges: montages is empty, name at least one.")
        if not self.references or not set(self.references) <= set(REFERENCES):
            raise ValueError(
                f"SetupRanges: references {list(self.references)} unknown, expected some of "
                f"{list(REFERENCES)}."
            )
        metres = "m: metres (5 mm is 0.005)"
        check_number(who, "displacement", self.displacement, 0, 0.03, metres)
        check_number(who, "coregistration_shift", self.coregistration_shift, 0, 0.03, metres)
        check_number(who, "coregistration_rotation", self.coregistration_rotation, 0, 30, "degrees")
        check_range(who, "electrode_error", self.electrode_error, 0, 2, "(no unit)")
        check_number(who, "subset", self.subset, 0, 1, "(no unit)")
        check_range(who, "dropout", self.dropout, 0, 0.5, "(no unit)")
        if self.baseline is not None:
            check_range(who, "baseline", self.baseline, 10, 1e6, "samples")


def draw_channels(
    names: Sequence[str], ranges: SetupRanges, opened: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Indices of the channels of a set-up, ascending; `opened` is the width of the curriculum."""
    kept = np.arange(len(names))
    reference = str(rng.choice(list(ranges.references)))
    reference = reference if rng.uniform() < opened else "average"
    subset, dropout = rng.uniform() < ranges.subset * opened, rng.uniform(*ranges.dropout) * opened
    if reference == "electrode" and len(kept) > FEWEST:
        kept = np.delete(kept, rng.integers(len(kept)))
    elif reference == "linked-ears":
        ears = np.isin(np.array(names)[kept], EARS)
        kept = kept if (~ears).sum() < FEWEST else kept[~ears]
    if subset and len(kept) > FEWEST:
        kept = rng.choice(kept, rng.integers(FEWEST, len(kept) + 1), replace=False)
    missing = min(round(dropout * len(kept)), max(len(kept) - FEWEST, 0))
    return np.sort(rng.permutation(kept)[missing:])


def channel_range(template: Template, ranges: SetupRanges) -> tuple[int, int]:
    """Smallest and largest number of channels of set-ups, not counting a lost reference."""
    if template.cap is not None:
        sizes = [len(template.cap)]
    else:
        sizes = [len(template.montage(name)[0]) for name in ranges.montages]
    kept = [min(n, FEWEST) if ranges.subset > 0 else n for n in sizes]
    fewest = min(n - min(round(ranges.dropout[1] * n), max(n - FEWEST, 0)) for n in kept)
    return fewest, max(sizes)


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
    true = heads[rng.integers(len(heads))]
    template, opened = true.template, widths["montages"]
    in_use = list(ranges.montages)[: max(1, round(opened * len(ranges.montages)))]
    montage = str(rng.choice(in_use))
    names, electrodes = template.montage(montage)
    rows = draw_channels(names, ranges, opened, rng)
    names, electrodes = [names[i] for i in rows], electrodes[rows]
    torch_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
    assumed = _tissues(ranges.nominal, torch_rng, 1.0)
    displaced = _displaced(template, electrodes, ranges, widths["electrodes"], rng)
    true_leadfield = template.family.leadfield(
        _tissues(tissues, torch_rng, widths["tissues"]), displaced[0, 0]
    )
    noise = ranges.noise.draw(
        true_leadfield,
        electrodes.positions,
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
        head = template.head(names, electrodes, cov, assumed)
    else:
        all_names, all_electrodes = nominal_head.montage(montage)
        chosen = [all_names.index(name) for name in names]
        head = nominal_head.head(names, all_electrodes[chosen], cov, assumed)
    arrays = {
        "vertices": displaced.vertices,
        "weights": displaced.weights,
        "sensor_pos": electrodes.positions,
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
        montage=montage if template.cap is None else template.name,
        assumed=assumed,
    )


def _tissues(ranges: TissueRanges, rng: torch.Generator, width: float) -> Tissues:
    return Tissues(*ranges.draw(1, rng, width)[0].double().tolist())


def _displaced(
    template: Template,
    electrodes: ScalpPoints,
    ranges: SetupRanges,
    width: float,
    rng: np.random.Generator,
) -> ScalpPoints:
    """Displaced electrodes ``(P, M, C)``."""
    if template.cap is not None:  # the lead field is known at the cap electrodes only
        return electrodes[None, None]
    moved = max(ranges.displacement, ranges.coregistration_shift, ranges.coregistration_rotation)
    low, high = ranges.electrode_error
    width = width * (rng.uniform(low, high) if low < high else low)
    still = width == 0 or moved == 0
    return displace(
        electrodes.positions,
        template.family.scalp_pos,
        template.family.scalp_faces,
        width * ranges.displacement,
        1 if still else N_COPIES,
        rng,
        width * ranges.coregistration_shift,
        width * np.deg2rad(ranges.coregistration_rotation),
        1 if still else N_POSES,
    )


def _estimated(noise: Noise, n_samples: int, sfreq: float, rng: torch.Generator) -> Array:
    """Covariance ``(C, C)`` that an analyst estimates from a baseline of the recording, V².

    The mean is not removed, because it is not removed from the windows either.
    """
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
        self._drawn: dict[tuple[int, str, int, int], RecordingSetup] = {}

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
