"""Montages of set-ups: selection of channels, and displacement of electrodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepesi.data_gen.ranges import METRES, check_number, check_range
from deepesi.physics.scalp import ScalpPoints, displace
from deepesi.physics.template import Template

#: Cap positions of a set-up, and displaced positions of every electrode in each. An example uses
#: one cap position, and in it one position per electrode.
N_POSES, N_COPIES = 16, 8
#: Smallest number of electrodes after subset, dropout and reference.
FEWEST = 12
REFERENCES = ("average", "electrode", "linked-ears")
EARS = ("A1", "A2", "M1", "M2", "TP9", "TP10")


@dataclass(frozen=True)
class MontageRanges:
    """Ranges that montages are drawn from.

    Args:
        montages: Names of electrode montages (MNE's, ``10-20-19``, ``10-20-21``), one per set-up.
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

    Raises:
        ValueError: A list is empty, a name is unknown, or a range is out of order or not in SI
            units.

    """

    montages: Sequence[str] = ("biosemi64",)
    displacement: float = 0.005
    coregistration_shift: float = 0.0
    coregistration_rotation: float = 0.0
    electrode_error: tuple[float, float] = (1.0, 1.0)
    subset: float = 0.0
    dropout: tuple[float, float] = (0.0, 0.0)
    references: Sequence[str] = ("average",)

    def __post_init__(self) -> None:
        who = "SetupRanges"
        if not self.montages:
            raise ValueError("SetupRanges: montages is empty, name at least one.")
        if not self.references or not set(self.references) <= set(REFERENCES):
            raise ValueError(
                f"SetupRanges: references {list(self.references)} unknown, expected some of "
                f"{list(REFERENCES)}."
            )
        check_number(who, "displacement", self.displacement, 0, 0.03, METRES)
        check_number(who, "coregistration_shift", self.coregistration_shift, 0, 0.03, METRES)
        check_number(who, "coregistration_rotation", self.coregistration_rotation, 0, 30, "degrees")
        check_range(who, "electrode_error", self.electrode_error, 0, 2, "(no unit)")
        check_number(who, "subset", self.subset, 0, 1, "(no unit)")
        check_range(who, "dropout", self.dropout, 0, 0.5, "(no unit)")


def draw_channels(
    names: Sequence[str], ranges: MontageRanges, opened: float, rng: np.random.Generator
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


def eeg_channel_range(template: Template, ranges: MontageRanges) -> tuple[int, int]:
    """Smallest and largest number of EEG channels of set-ups, not counting a lost reference."""
    if template.cap is not None:
        sizes = [len(template.cap)]
    else:
        sizes = [len(template.montage(name)[0]) for name in ranges.montages]
    kept = [min(n, FEWEST) if ranges.subset > 0 else n for n in sizes]
    fewest = min(n - min(round(ranges.dropout[1] * n), max(n - FEWEST, 0)) for n in kept)
    return fewest, max(sizes)


def displaced_positions(
    template: Template,
    electrodes: ScalpPoints,
    ranges: MontageRanges,
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
