"""Applies annotations: selects the samples of a raw recording, and the epochs, to localize."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

#: Number of samples read at once.
BLOCK = 2**15
#: Descriptions, in lower case, of boundaries between parts of a recording, from MNE-Python
#: (`mne.concatenate_raws`), EEGLAB and BrainVision.
BOUNDARIES = ("edge boundary", "bad boundary", "boundary")
#: BrainVision appends the number of lost samples.
NEW_SEGMENT = "new segment/"


#: Part of descriptions, in lower case, of artifacts that MNE-Python does not exclude.
ARTIFACT = re.compile("artifact|artefact|noisy|reject")


class Stretch(NamedTuple):
    """A range of samples of a raw recording between bad stretches.

    Attributes:
        start: First sample, counted from the first of the recording.
        stop: Sample after the last.
        part: Number of its part of the recording, between two boundaries.

    """

    start: int
    stop: int
    part: int


class _Mark(NamedTuple):
    start: int
    stop: int
    is_boundary: bool


def is_bad(description: str) -> bool:
    """Whether MNE-Python would reject data with this annotation (``reject_by_annotation``)."""
    return description.upper().startswith("BAD")


def _is_kept_artifact(description: str) -> bool:
    return not is_bad(description) and ARTIFACT.search(description.lower()) is not None


def is_boundary(description: str) -> bool:
    """Whether an annotation marks the boundary between two parts."""
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
    """Good stretches, between bad stretches and boundaries."""
    found, start, part = list[Stretch](), 0, 0
    end = int(raw.n_times)
    for mark in [*_marks(raw), _Mark(end, end, False)]:
        if mark.start > start:
            found.append(Stretch(start, mark.start, part))
        start = max(start, mark.stop, min(mark.start, end) if mark.is_boundary else 0)
        part += mark.is_boundary and 0 < mark.start < end
    return found


def within(stretches: list[Stretch], start: int, stop: int) -> Iterator[Stretch]:
    """Intersections of stretches with the samples from `start` to `stop` (exclusive)."""
    for stretch in stretches:
        low, high = max(stretch.start, start), min(stretch.stop, stop)
        if high > low:
            yield Stretch(low, high, stretch.part)


def mean_of(
    raw: "mne.io.BaseRaw", rows: list[int], stretches: list[Stretch]
) -> tuple[Array, NDArray[np.bool_]]:
    """Mean over time ``(C,)``, SI units, of channels, and which are constant; read in blocks."""
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
    """Indices of the epochs that overlap a bad stretch or a boundary."""
    if epochs.annotations is None or len(epochs.annotations) == 0:
        return []
    return [
        number
        for number, annotations in enumerate(epochs.get_annotations_per_epoch())
        if any(is_bad(text) or is_boundary(text) for _, _, text in annotations)
    ]


def text_of(raw: "mne.io.BaseRaw", stretches: list[Stretch]) -> str | None:
    """Description of excluded stretches and of parts; None if there are none."""
    bad = raw.n_times - sum(s.stop - s.start for s in stretches)
    lengths = {
        str(mark["description"]): round(float(mark["duration"]) * raw.info["sfreq"])
        for mark in sorted(raw.annotations, key=lambda mark: float(mark["duration"]))
        if is_bad(mark["description"]) and not is_boundary(mark["description"])
    }
    kinds = [text for text, n_samples in lengths.items() if n_samples]
    points = [text for text, n_samples in lengths.items() if not n_samples]
    n_parts, notes = len(np.unique([s.part for s in stretches])), list[str]()
    if bad:
        notes.append(
            f"{bad / raw.info['sfreq']:.1f} of {raw.n_times / raw.info['sfreq']:.1f} s are "
            f"annotated {', '.join(kinds)} and excluded"
        )
    if points:
        notes.append(f"{', '.join(points)}: without duration, so nothing is excluded there")
    kept = sorted({t for t in map(str, raw.annotations.description) if _is_kept_artifact(t)})
    if kept:
        notes.append(f"{', '.join(kept)}: not excluded, only annotations that begin with BAD are")
    if n_parts > 1:
        notes.append(f"{n_parts} parts, between boundaries, are localized separately")
    return "; ".join(notes) or None
