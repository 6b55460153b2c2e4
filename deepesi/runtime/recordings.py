"""Converts evoked responses, epochs and raw recordings to arrays, one piece at a time."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.channel_names import match_channels
from deepesi.physics.io.selection import usable_channels
from deepesi.runtime.corrections import Corrected
from deepesi.runtime.recording_checks import parsing_data
from deepesi.runtime.stretches import Stretch
from deepesi.runtime.windows import Windows, windows_of

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recording_type import Recording

Array = NDArray[np.float64]

#: Longest stretch of a raw recording that is read at once, s.
STRETCH = 10.0


class Segment(NamedTuple):
    """One evoked response, one epoch or one stretch of a raw recording.

    Attributes:
        data: ``(C, T)``, SI units, in the reference of the recording. It covers all windows, so
            it may begin before the piece and end after it.
        windows: Windows that overlap the piece, in samples of its stretch, epoch or average.
        tmin: Time of the first sample of the piece, s.
        number: Number of the epoch in the file, or of the stretch; from 0.
        first: First sample of the piece in a raw recording; else 0.

    """

    data: Array
    windows: Windows
    tmin: float
    number: int = 0
    first: int = 0

    @property
    def own(self) -> Array:
        """Samples of the piece itself."""
        begin = self.windows.starts[0]
        return self.data[:, self.windows.first - begin : self.windows.last - begin]

    @classmethod
    def whole(cls, data: Array, longest: int | None, tmin: float, number: int = 0) -> "Segment":
        """An evoked response or an epoch."""
        return cls(data, windows_of(data.shape[1], longest, 0, data.shape[1]), tmin, number)


def recording_rows(recording: "Recording", ch_names: Sequence[str]) -> list[int]:
    """Rows of these good channels of a checked recording, in this order."""
    good = list(usable_channels(recording.info))
    rows = match_channels(ch_names, good)
    return [recording.ch_names.index(good[row]) for row in rows if row is not None]


def n_segments(corrected: Corrected, seconds: float = STRETCH) -> int:
    """Number of epochs, or of pieces of a raw recording; arguments as in `segments`."""
    import mne

    recording = corrected.recording
    if isinstance(recording, mne.BaseEpochs):
        return len(recording) - len(corrected.excluded)
    if isinstance(recording, mne.Evoked):
        return 1
    size = _piece_size(recording, seconds)
    return sum(-(-(s.stop - s.start) // size) for s in corrected.stretches)


def windowed_parts(corrected: Corrected) -> list[tuple[str, int]]:
    """Parts of a recording that windows do not cross: description, and number of samples."""
    import mne

    recording = corrected.recording
    if isinstance(recording, mne.io.BaseRaw):
        times = recording.times
        spans = [(times[s.start], times[s.stop - 1], s.stop - s.start) for s in corrected.stretches]
        advice = "(annotate it BAD to leave it out)"
        return [(f"the good stretch from {a:.2f} to {b:.2f} s {advice}", n) for a, b, n in spans]
    what = "the average" if isinstance(recording, mne.Evoked) else "an epoch"
    return [(what, len(recording.times))]


def _piece_size(raw: "mne.io.BaseRaw", seconds: float) -> int:
    size = int(seconds * raw.info["sfreq"])
    if size < 1:
        raise ValueError(
            f"recording: stretches of {seconds:g} s hold no sample at {raw.info['sfreq']:g} Hz. "
            "Use longer ones."
        )
    return size


def segments(
    corrected: Corrected, ch_names: tuple[str, ...], seconds: float, longest: int | None = None
) -> Iterator[Segment]:
    """The recording piece by piece; only the current piece is read from disk.

    Args:
        corrected: An evoked response (one piece), epochs (one piece each, not averaged, without
            excluded ones) or a raw recording (every good stretch in pieces of equal length).
        ch_names: Channels, in the requested order.
        seconds: Longest piece of a raw recording, s. Its times count from the first sample, as
            ``raw.times``.
        longest: Longest window of the network, samples. Windows are laid over a whole good stretch.
            So the cuts between pieces have no effect, and no window reaches into a bad stretch.

    Raises:
        ValueError: Pieces shorter than a sample, or the file is damaged there.

    """
    import mne

    recording = corrected.recording
    rows = recording_rows(recording, ch_names)
    if isinstance(recording, mne.io.BaseRaw):
        yield from _pieces(recording, corrected, rows, seconds, longest)
    elif isinstance(recording, mne.BaseEpochs):
        epochs = iter(recording)
        for number in itertools.count():
            with parsing_data(recording):
                data = next(epochs, None)
            if data is None:
                return
            if number not in corrected.excluded:
                tmin = float(recording.times[0])
                yield Segment.whole(np.asarray(data)[rows], longest, tmin, number)
    else:
        yield Segment.whole(recording.data[rows], longest, float(recording.times[0]))


def _pieces(
    raw: "mne.io.BaseRaw",
    corrected: Corrected,
    rows: list[int],
    seconds: float,
    longest: int | None,
) -> Iterator[Segment]:
    """Pieces of every good stretch, without the offsets of its part."""
    size, numbers = _piece_size(raw, seconds), itertools.count()
    for stretch in corrected.stretches:
        length = stretch.stop - stretch.start
        bounds = np.linspace(0, length, -(-length // size) + 1).astype(int)
        for start, stop in itertools.pairwise(bounds.tolist()):
            windows = windows_of(length, longest, start, stop)
            data = _read(raw, rows, stretch, windows) - corrected.offsets[stretch.part][:, None]
            first = stretch.start + start
            yield Segment(data, windows, float(raw.times[first]), next(numbers), first)


def _read(raw: "mne.io.BaseRaw", rows: list[int], stretch: Stretch, windows: Windows) -> Array:
    begin = stretch.start
    with parsing_data(raw):
        return np.asarray(raw.get_data(rows, begin + windows.starts[0], begin + windows.stop))
