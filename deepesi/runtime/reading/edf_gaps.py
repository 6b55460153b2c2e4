"""Interrupted recordings in EDF+ and BDF+, which MNE-Python reads as if they had no gaps.

Source: EDF+ (Kemp & Olivan 2003, doi:10.1016/S1388-2457(03)00123-8): the header of an interrupted
recording says ``EDF+D``, and each data record begins with the time at which it was recorded.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Bytes of the header: fixed part; of one signal; its number of samples within the latter.
FIXED, PER_SIGNAL, BEFORE_SAMPLES = 256, 256, 216
#: Bytes of a sample, by the first five characters of the reserved field.
SAMPLE_BYTES = {"EDF+D": 2, "BDF+D": 3}
#: Time at which a record begins, s.
ONSET = re.compile(rb"[+-]\d+(\.\d*)?")
#: Smallest gap, s.
SMALLEST = 0.5e-3


class _Layout(NamedTuple):
    """Layout of an interrupted file: bytes of header, record, and times in the record."""

    header: int
    record: int
    begin: int
    end: int
    seconds: float


def check_uninterrupted(path: Path) -> None:
    """Refuse EDF+ and BDF+ files whose records do not follow each other in time.

    Raises:
        ValueError: There are gaps.

    """
    if path.suffix.lower() not in (".edf", ".bdf"):
        return
    layout = _layout(path)
    if layout is None:
        return
    onsets = _onsets(path, layout)
    known = np.flatnonzero(np.isfinite(onsets))
    gaps = np.diff(onsets[known] - layout.seconds * known)
    gaps = gaps[np.abs(gaps) > SMALLEST]
    if len(gaps):
        raise ValueError(
            f"{path}: the recording is interrupted by {len(gaps)} gap(s), the longest of "
            f"{np.abs(gaps).max():.3g} s. MNE-Python reads it as if there were none: filters and "
            "windows would reach over them, and later events would be at wrong times. Export every "
            "part to a file of its own, without gaps (EDF+C or BDF+C)."
        )


def _layout(path: Path) -> _Layout | None:
    """Layout of an interrupted file with times; None for others."""
    with path.open("rb") as file:
        fixed = file.read(FIXED)
        size = SAMPLE_BYTES.get(fixed[192:197].decode("latin-1"))
        if size is None:
            return None
        n_signals, seconds = int(fixed[252:256]), float(fixed[244:252])
        header = file.read(PER_SIGNAL * n_signals)
    labels = [header[16 * i : 16 * (i + 1)].decode("latin-1").strip() for i in range(n_signals)]
    first = BEFORE_SAMPLES * n_signals
    samples = [int(header[first + 8 * i : first + 8 * (i + 1)]) for i in range(n_signals)]
    marks = [i for i, label in enumerate(labels) if label.endswith("DF Annotations")]
    if not marks:
        return None
    begin = size * sum(samples[: marks[0]])
    end = begin + size * samples[marks[0]]
    return _Layout(FIXED + PER_SIGNAL * n_signals, size * sum(samples), begin, end, seconds)


def _onsets(path: Path, layout: _Layout) -> NDArray[np.float64]:
    """Time of every complete record, s; NaN where a record does not say it."""
    data = np.memmap(path, np.uint8, "r", layout.header)
    n_records = len(data) // layout.record
    records = data[: n_records * layout.record].reshape(n_records, layout.record)
    times = [ONSET.match(bytes(one)) for one in records[:, layout.begin : layout.end]]
    return np.array([float(time[0]) if time else np.nan for time in times])
