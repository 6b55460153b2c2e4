"""Annotations obeyed: which samples of a raw recording, and which epochs, may be localized."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

#: Samples that are read at once.
BLOCK = 2**15
#: Descriptions, in lower case, of marks between parts that were not recorded in one go: of
#: MNE-Python (`mne.concatenate_raws`), EEGLAB and BrainVision.
BOUNDARIES = ("edge boundary", "bad boundary", "boundary")
#: BrainVision appends how many samples were lost.
NEW_SEGMENT = "new segment/"


class Stretch(NamedTuple):
    """Samples of a raw recording that lie between bad ones.

    Attributes:
        start: First sample, counted from the first of the recording.
        stop: The one after the last.
        part: Number of the part, between two boundaries, that it lies in.

    """

    start: int
    stop: int
    part: int


class _Mark(NamedTuple):
    start: int
    stop: int
    is_boundary: bool


def is_bad(description: str) -> bool:
    """Whether MNE-Python would reject what is annotated so (``reject_by_annotation``)."""
    return description.upper().startswith("BAD")


def is_boundary(description: str) -> bool:
    """Whether an annotation marks the seam between two parts."""
    text = description.strip().lower()
    return text in BOUNDARIES or text.startswith(NEW_SEGMENT)


def _marks(raw: "mne.io.BaseRaw") -> list[_Mark]:
    """Bad stretches and boundaries, in samples from the first of the recording."""
    sfreq, end, found = raw.info["sfreq"], int(raw.n_times), []
    for annotation in raw.annotations:
        description = str(annotation["description"])
        seam = is_boundary(description)
        if seam or is_bad(description):
            onset = float(annotation["onset"]) - raw.first_time
            start = round(onset * sfreq)
            stop = start if seam else round((onset + float(annotation["duration"])) * sfreq)
            found.append(_Mark(max(start, 0), min(max(stop, start), end), seam))
    return sorted(found)


def good_stretches(raw: "mne.io.BaseRaw") -> list[Stretch]:
    """Stretches between bad ones; those of other parts lie on the other side of a boundary."""
    found, start, part = list[Stretch](), 0, 0
    end = int(raw.n_times)
    for mark in [*_marks(raw), _Mark(end, end, False)]:
        if mark.start > start:
            found.append(Stretch(start, mark.start, part))
        start = max(start, mark.stop, min(mark.start, end) if mark.is_boundary else 0)
        part += mark.is_boundary and 0 < mark.start < end
    return found


def within(stretches: list[Stretch], start: int, stop: int) -> Iterator[Stretch]:
    """What of stretches lies in samples `start` up to, not with, `stop`."""
    for stretch in stretches:
        low, high = max(stretch.start, start), min(stretch.stop, stop)
        if high > low:
            yield Stretch(low, high, stretch.part)


def mean_of(
    raw: "mne.io.BaseRaw", rows: list[int], stretches: list[Stretch]
) -> tuple[Array, NDArray[np.bool_]]:
    """Mean over time ``(C,)`` of some channels, V, and which are constant; read block by block."""
    total, n_samples = np.zeros(len(rows)), 0
    low, high = np.full(len(rows), np.inf), np.full(len(rows), -np.inf)
    for stretch in stretches:
        for start in range(stretch.start, stretch.stop, BLOCK):
            data = raw.get_data(rows, start, min(start + BLOCK, stretch.stop))
            total += data.sum(axis=1)
            n_samples += data.shape[1]
            low, high = np.minimum(low, data.min(axis=1)), np.maximum(high, data.max(axis=1))
    return total / n_samples, low == high


def bad_epochs(epochs: "mne.BaseEpochs") -> list[int]:
    """Numbers of the epochs that a bad stretch or a boundary reaches into."""
    if epochs.annotations is None or len(epochs.annotations) == 0:
        return []
    return [
        number
        for number, annotations in enumerate(epochs.get_annotations_per_epoch())
        if any(is_bad(text) or is_boundary(text) for _, _, text in annotations)
    ]


def text_of(raw: "mne.io.BaseRaw", stretches: list[Stretch]) -> str | None:
    """What of a recording is left out, in words; None if nothing is and there is no boundary."""
    bad = raw.n_times - sum(s.stop - s.start for s in stretches)
    kinds = dict.fromkeys(
        str(d) for d in raw.annotations.description if is_bad(d) and not is_boundary(d)
    )
    n_parts = len(np.unique([s.part for s in stretches]))
    said = []
    if bad:
        said.append(
            f"{bad / raw.info['sfreq']:.1f} of {raw.n_times / raw.info['sfreq']:.1f} s are "
            f"annotated {', '.join(kinds)} and left out"
        )
    if n_parts > 1:
        said.append(f"{n_parts} parts, between boundaries, are localized each on their own")
    return "; ".join(said) or None
