"""Converts evoked responses, epochs and raw recordings to arrays, one piece at a time."""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.channel_names import channel_keys, match_channels
from deepesi.physics.io.channels import check_derivations, good_channels, usable_channels
from deepesi.physics.io.coils import check_head_position, coil_positions
from deepesi.physics.io.covariance import check_nave
from deepesi.physics.sensors import SensorArray
from deepesi.runtime.corrections import Corrected, averages_counted_as_trials
from deepesi.runtime.stretches import Stretch
from deepesi.runtime.windows import Windows, windows_of
from deepesi.utils.files import parsing

if TYPE_CHECKING:
    import mne

    Recording: TypeAlias = mne.Evoked | mne.BaseEpochs | mne.io.BaseRaw

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


def check_average(recording: "Recording", command: str) -> None:
    """Refuse anything but an average, for a command that judges one response.

    Raises:
        ValueError: Epochs or a raw recording.

    """
    import mne

    if not isinstance(recording, mne.Evoked):
        raise ValueError(
            f"{command}: the recording is {type(recording).__name__}, expected an average. Give an "
            "-ave.fif, or the events to average about in a raw recording (--event NAME)."
        )


def trials_averaged(recording: "Recording") -> float:
    """Number of averaged trials: ``nave`` of an evoked response, else 1.

    Effective numbers for weighted averages and differences may be fractions.

    Raises:
        TypeError: Not a recording of MNE-Python.
        ValueError: As in `check_kind`.

    """
    import mne

    check_kind(recording)
    return float(recording.nave) if isinstance(recording, mne.Evoked) else 1.0


def check_kind(recording: "Recording") -> None:
    """Refuse anything but recordings of potentials, and averages of an unknown number of trials.

    Raises:
        TypeError: Not a recording of MNE-Python.
        ValueError: Derivations or a Laplacian; complex data; a standard error; a grand average
            with an unknown number of trials; an invalid number of trials.

    """
    import mne

    if not isinstance(recording, mne.Evoked | mne.BaseEpochs | mne.io.BaseRaw):
        raise TypeError(
            f"recording: got {type(recording).__name__}, expected mne.Evoked, mne.Epochs or "
            "mne.io.Raw. For arrays use PreparedInverse.estimate()."
        )
    check_derivations(recording.info)
    if np.iscomplexobj(_first_values(recording)):
        raise ValueError(
            "recording: its data are complex (after apply_hilbert?). Localize the real signal, "
            "which is linear for a linear inverse, and transform the time courses of the sources."
        )
    if not isinstance(recording, mne.Evoked):
        return
    if recording.kind != "average":
        raise ValueError(
            f"recording: {recording.comment!r} holds a {recording.kind.replace('_', ' ')}, no "
            "average. Its values are not negative and have no topography; give the average."
        )
    n_averages = averages_counted_as_trials(recording)
    if n_averages is not None:
        raise ValueError(
            f"recording: {recording.comment!r} is an average of {n_averages} averages, which it "
            "counts as trials, so its noise is unknown. Give the total number of trials "
            "(--nave, or evoked.nave = N)."
        )
    check_nave(recording.nave)


def _first_values(recording: "Recording") -> NDArray[np.generic]:
    """One sample, for its data type."""
    import mne

    if isinstance(recording, mne.Evoked):
        return np.asarray(recording.data)
    if isinstance(recording, mne.io.BaseRaw):
        return np.asarray(recording.get_data([0], 0, 1))
    with _parsing(recording):
        return np.asarray(recording[:1].get_data(copy=False, verbose="error"))


def check_recording(
    recording: "Recording", sensors: SensorArray, nave: float, recorded_pos: Array | None = None
) -> None:
    """Refuse a recording that does not have the set-up for which a model was prepared.

    Args:
        recording: The recording.
        sensors: Sensors of the set-up.
        nave: Number of averaged trials.
        recorded_pos: Positions ``(C, 3)``, m, in the head frame of the recording; None: those of
            the sensors.

    Raises:
        TypeError: Not a recording of MNE-Python.
        ValueError: Its good channels of the prepared kinds, or its number of trials, differ.

    """
    found = trials_averaged(recording)
    if not math.isclose(found, nave, rel_tol=1e-6):
        raise ValueError(
            f"PreparedInverse: prepared for averages of {nave:g} trials, the recording is "
            f"one of {found:g}, with other noise. Prepare again with nave={found:g}; or, if "
            f"{nave:g} is right, set it in the recording: evoked.nave = {nave:g}."
        )
    good, ch_names = good_channels(recording.info, set(sensors.kinds)), sensors.names
    mine, theirs = (dict(zip(channel_keys(n), n, strict=True)) for n in (good, ch_names))
    if set(mine) != set(theirs):
        missing = sorted(theirs[key] for key in set(theirs) - set(mine))
        extra = sorted(mine[key] for key in set(mine) - set(theirs))
        raise ValueError(
            f"PreparedInverse: prepared for {len(ch_names)} channels; the recording lacks "
            f"{missing} and has {extra} beside them. Prepare again for this recording."
        )
    meg = [row for row, modality in enumerate(sensors.modalities) if modality == "meg"]
    if meg:
        keys = channel_keys(ch_names)
        names = [mine[keys[row]] for row in meg]
        check_head_position(
            coil_positions(recording.info, names),
            (sensors.positions if recorded_pos is None else recorded_pos)[meg],
            "PreparedInverse",
            "Prepare again for this recording.",
        )


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
            with _parsing(recording):
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
    with _parsing(raw):
        return np.asarray(raw.get_data(rows, begin + windows.starts[0], begin + windows.stop))


def _parsing(recording: "mne.BaseEpochs | mne.io.BaseRaw") -> AbstractContextManager[None]:
    """Data of the recording; MNE-Python reads them from disk on access."""
    names = getattr(recording, "filenames", None) or (getattr(recording, "filename", None),)
    path = Path(str(names[0] or "the recording"))
    return parsing(path, "recording", "It is damaged from there on.")
