"""Evoked responses, epochs and raw recordings as arrays, one piece at a time."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepesi.export.windows import Windows, windows_of
from deepesi.physics.channel_names import electrode_keys, match_channels
from deepesi.physics.files import parsing
from deepesi.physics.io import good_eeg_channels

if TYPE_CHECKING:
    import mne

    Recording: TypeAlias = mne.Evoked | mne.BaseEpochs | mne.io.BaseRaw

Array = NDArray[np.float64]

#: Longest stretch of a raw recording that is read at once, s.
STRETCH = 10.0


class Segment(NamedTuple):
    """One evoked response, one epoch or one stretch of a raw recording.

    Attributes:
        eeg: ``(C, T)``, V, in the reference of the recording: of all its windows, so it may begin
            before and end after.
        windows: That say something on it.
        tmin: Time of its own first sample, s.

    """

    eeg: Array
    windows: Windows
    tmin: float

    @property
    def own(self) -> Array:
        """Its own samples."""
        begin = self.windows.starts[0]
        return self.eeg[:, self.windows.first - begin : self.windows.last - begin]

    @classmethod
    def whole(cls, eeg: Array, longest: int | None, tmin: float) -> "Segment":
        """An evoked response or an epoch."""
        return cls(eeg, windows_of(eeg.shape[1], longest, 0, eeg.shape[1]), tmin)


def trials_averaged(recording: "Recording") -> int:
    """Number of trials in every sample: ``nave`` of an evoked response, else 1.

    Raises:
        TypeError: Not a recording of MNE-Python.

    """
    import mne

    if isinstance(recording, mne.Evoked):
        return int(recording.nave)
    if isinstance(recording, mne.BaseEpochs | mne.io.BaseRaw):
        return 1
    raise TypeError(
        f"recording: got {type(recording).__name__}, expected mne.Evoked, mne.Epochs or "
        "mne.io.Raw. For arrays use PreparedInverse.estimate()."
    )


def check_recording(recording: "Recording", ch_names: tuple[str, ...], nave: int) -> None:
    """Refuse a recording of another set-up than a model was prepared for.

    Raises:
        TypeError: Not a recording of MNE-Python.
        ValueError: Its good EEG channels or its number of trials are others.

    """
    found = trials_averaged(recording)
    if found != nave:
        raise ValueError(
            f"PreparedInverse: prepared for averages of {nave} trials, the recording is "
            f"one of {found}, with other noise. Prepare again with nave={found}."
        )
    good = good_eeg_channels(recording.info)
    mine, theirs = (dict(zip(electrode_keys(n), n, strict=True)) for n in (good, ch_names))
    if set(mine) != set(theirs):
        missing = sorted(theirs[key] for key in set(theirs) - set(mine))
        extra = sorted(mine[key] for key in set(mine) - set(theirs))
        raise ValueError(
            f"PreparedInverse: prepared for {len(ch_names)} channels; the recording lacks "
            f"{missing} and has {extra} beside them. Prepare again for this recording."
        )


def recording_rows(recording: "Recording", ch_names: Sequence[str]) -> list[int]:
    """Rows of a recording that are the good EEG channels it was checked to have, in this order."""
    good = good_eeg_channels(recording.info)
    rows = match_channels(ch_names, good)
    return [recording.ch_names.index(good[row]) for row in rows if row is not None]


def n_segments(recording: "mne.BaseEpochs | mne.io.BaseRaw", seconds: float = STRETCH) -> int:
    """Number of epochs, or of stretches of a raw recording; arguments as of `segments`.

    Raises:
        ValueError: Stretches shorter than a sample.

    """
    import mne

    if isinstance(recording, mne.BaseEpochs):
        return len(recording)
    size = int(seconds * recording.info["sfreq"])
    if size < 1:
        raise ValueError(
            f"recording: stretches of {seconds:g} s hold no sample at "
            f"{recording.info['sfreq']:g} Hz. Use longer ones."
        )
    return int(-(-recording.n_times // size))


def segments(
    recording: "Recording", ch_names: tuple[str, ...], seconds: float, longest: int | None = None
) -> Iterator[Segment]:
    """The recording piece by piece; nothing but the piece at hand is read of a file on disk.

    Args:
        recording: An evoked response (one piece), epochs (one piece each, not averaged) or a raw
            recording (stretches of equal length).
        ch_names: Channels, in the order wanted.
        seconds: Longest stretch of a raw recording, s. Its times count from the first sample, as
            ``raw.times``.
        longest: Longest window of the network, samples. Windows are those of the recording, so that
            where it is cut into stretches leaves no trace.

    Raises:
        ValueError: Stretches shorter than a sample, or the file is damaged there.

    """
    import mne

    rows = recording_rows(recording, ch_names)
    if isinstance(recording, mne.io.BaseRaw):
        n_pieces = n_segments(recording, seconds)
        bounds = np.linspace(0, recording.n_times, n_pieces + 1).astype(int)
        for start, stop in itertools.pairwise(bounds.tolist()):
            windows = windows_of(recording.n_times, longest, start, stop)
            with _parsing(recording):
                data = recording.get_data(rows, windows.starts[0], windows.stop)
            yield Segment(data, windows, float(recording.times[start]))
    elif isinstance(recording, mne.BaseEpochs):
        epochs = iter(recording)
        while True:
            with _parsing(recording):
                data = next(epochs, None)
            if data is None:
                return
            yield Segment.whole(np.asarray(data)[rows], longest, float(recording.times[0]))
    else:
        yield Segment.whole(recording.data[rows], longest, float(recording.times[0]))


def _parsing(recording: "mne.BaseEpochs | mne.io.BaseRaw") -> AbstractContextManager[None]:
    """MNE-Python reads what is on disk when it is asked for."""
    names = getattr(recording, "filenames", None) or (getattr(recording, "filename", None),)
    path = Path(str(names[0] or "the recording"))
    return parsing(path, "recording", "It is damaged from there on.")
