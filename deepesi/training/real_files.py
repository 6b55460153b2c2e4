"""Finds real EEG recordings, and gives windows of one of them under its own set-up.

EEG only: the set-up is the packaged head with the electrodes of the recording. MEG needs the
position of the head in the helmet. Other channels of a recording are excluded.

A recording needs the memory of one window and of its ``(C, C)`` covariance: data stay on disk.
"""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.channel_names import match_channels
from deepesi.physics.head import HeadModel
from deepesi.physics.io.channels import good_eeg_channels
from deepesi.physics.io.heads import head_on_template
from deepesi.physics.io.selection import usable_channels
from deepesi.physics.noise import spanned_eigh
from deepesi.physics.template import Template
from deepesi.runtime.dataset.items import Selection, find_items
from deepesi.runtime.noise_estimate import noise_of
from deepesi.runtime.reading.formats import FORMATS
from deepesi.runtime.reading.recording import ReadingOptions, read_recording
from deepesi.runtime.stretches import bad_epochs, good_stretches
from deepesi.utils.files import parsing

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]
Interval = tuple[float, float]

#: Suffixes of recordings in a folder.
SUFFIXES = (".fif", ".fif.gz", *FORMATS)
#: Ends of the names of FIF files without a recording, before the suffix.
NO_RECORDINGS = ("cov", "fwd", "inv", "trans", "src", "bem", "sol", "proj", "ica", "eve", "ave")
#: Pieces of a recording that its covariance is estimated from, and their longest length, s.
N_PIECES, PIECE = 60, 1.0
#: Time on both sides of a window over which the mean of every channel is taken, s.
MARGIN = 0.5
#: Share of a recording, at its end, that is for validation.
VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class RealFile:
    """A recording, by its header.

    Attributes:
        path: The file.
        sfreq: Sampling rate, Hz.
        spans: First samples and lengths of the stretches that windows are cut from ``(N, 2)``:
            good stretches of a raw recording, or its good epochs.
        is_raw: Whether it is a raw recording; else epochs.

    """

    path: Path
    sfreq: float
    spans: NDArray[np.int64]
    is_raw: bool

    def n_windows(self, n_times: int) -> int:
        """Number of windows that do not overlap."""
        return int((self.spans[:, 1] // n_times).sum())

    def start(self, number: int, n_times: int) -> int:
        """First sample of a window."""
        ends = (self.spans[:, 1] // n_times).cumsum()
        span = int(np.searchsorted(ends, number, side="right"))
        within = number - (int(ends[span - 1]) if span else 0)
        return int(self.spans[span, 0]) + within * n_times

    def part(self, split: str) -> "RealFile":
        """First part for training or last fifth for validation, with a margin between."""
        length = int(self.spans[:, 1].sum())
        cut, gap = round((1 - VALIDATION_SHARE) * length), round(2 * MARGIN * self.sfreq)
        low, high = (0, cut - gap) if split == "train" else (cut, length)
        before = self.spans[:, 1].cumsum() - self.spans[:, 1]
        first = np.clip(low - before, 0, self.spans[:, 1])
        last = np.clip(high - before, 0, self.spans[:, 1])
        spans = np.stack([self.spans[:, 0] + first, last - first], axis=1)
        return RealFile(self.path, self.sfreq, spans[spans[:, 1] > 0], self.is_raw)


def find_files(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Recordings: files as they are, those in folders, and those of data sets in BIDS.

    Args:
        paths: Files or folders. A folder with ``dataset_description.json`` is a data set in BIDS.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: Nothing is given, a file is a later part of a split recording, or a folder holds
            no recording, with the counts of its files.

    """
    files: list[Path] = []
    for entry in [paths] if isinstance(paths, str | Path) else paths:
        path = Path(entry)
        if path.is_file():
            if is_later_part(path):
                raise ValueError(
                    f"real recordings: {path} is a later part of a split recording. Give the first "
                    "part; it reads the others."
                )
            files.append(path)
        elif (path / "dataset_description.json").is_file():
            files += [item.path for item in find_items(path, Selection(), [])]
        elif path.is_dir():
            files += _in_folder(path)
        else:
            raise FileNotFoundError(f"real recordings: there is no {path}. Correct data.files.")
    return sorted({path.absolute() for path in files})


def _in_folder(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    recordings = [path for path in files if _may_hold_recording(path) and not is_later_part(path)]
    if not recordings:
        kinds = Counter("".join(path.suffixes[-2:]) or path.name for path in files)
        counts = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(5)) or "nothing"
        raise ValueError(
            f"real recordings: the folder {folder} holds no EEG: {counts}. Expected files that end "
            f"in {', '.join(SUFFIXES)}; give another folder in data.files."
        )
    return recordings


def is_later_part(path: Path) -> bool:
    """Whether a file is a later part of a split recording, which the first part reads as well.

    MNE-Python calls the parts of large files ``a_raw.fif``, ``a_raw-1.fif`` or
    ``a_split-01_raw.fif``, ``a_split-02_raw.fif``.
    """
    firsts = (
        re.sub(r"-\d+(?=\.fif(\.gz)?$)", "", path.name),
        re.sub(r"_split-\d+(?=_)", "_split-01", path.name),
    )
    return any(name != path.name and path.with_name(name).is_file() for name in firsts)


def _may_hold_recording(path: Path) -> bool:
    name = path.name.lower()
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
    if suffix is None or name.startswith("."):
        return False
    stem = name.removesuffix(suffix)
    return re.split("[-_]", stem)[-1] not in NO_RECORDINGS


def read_header(path: Path, options: ReadingOptions) -> RealFile:
    """A recording without its data.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a raw recording or epochs, damaged, or without enough good EEG channels.

    """
    import mne

    recording = read_recording(path, options)
    good_eeg_channels(recording.info)
    if isinstance(recording, mne.Evoked):
        raise ValueError(
            f"{path} holds an average, whose noise is not known. Give its trials (epochs or raw)."
        )
    if isinstance(recording, mne.io.BaseRaw):
        spans = [(s.start, s.stop - s.start) for s in good_stretches(recording)]
    else:
        n_times, bad = len(recording.times), set(bad_epochs(recording))
        good = (number for number in range(len(recording)) if number not in bad)
        spans = [(number * n_times, n_times) for number in good]
    array = np.array(spans, dtype=np.int64).reshape(-1, 2)
    is_raw = isinstance(recording, mne.io.BaseRaw)
    return RealFile(path, float(recording.info["sfreq"]), array, is_raw)


class OpenFile:
    """A recording that is open for reading, with its own set-up.

    Args:
        file: The recording.
        options: Options for reading it.
        noise: Start and end of the stretch, s, that the noise covariance is estimated from, as
            with ``--noise-from``; None: `channel_noise`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is damaged, or its noise cannot be estimated.

    """

    def __init__(self, file: RealFile, options: ReadingOptions, noise: Interval | None) -> None:
        self.file, self.recording = file, read_recording(file.path, options)
        self.noise = noise
        self.ch_names = good_eeg_channels(self.recording.info)
        rows = match_channels(self.ch_names, self.recording.ch_names)
        self.rows = [row for row in rows if row is not None]

    def head(self, template: Template) -> HeadModel:
        """The template head under the set-up of the recording.

        Raises:
            ValueError: As in `deepesi.physics.io.heads.head_on_template`.

        """
        return head_on_template(self.recording.info, self._noise_cov(), template)

    def _noise_cov(self) -> "mne.Covariance":
        import mne

        with self._parsing():
            if self.noise is not None:
                return noise_of(
                    self.recording, self.noise, usable_channels(self.recording.info, ("eeg",))
                )
            cov = channel_noise(self._covariance())
            return mne.Covariance(cov, self.ch_names, [], [], nfree=10**6)

    def _covariance(self) -> Array:
        """Covariance ``(C, C)`` within pieces that are spread over the recording, V²."""
        length = min(max(2, round(PIECE * self.file.sfreq)), int(self.file.spans[:, 1].max()))
        n_pieces = self.file.n_windows(length)
        total, n_samples = np.zeros((len(self.rows), len(self.rows))), 0
        for number in np.unique(np.linspace(0, n_pieces - 1, N_PIECES).round().astype(int)):
            data = self._read(self.file.start(int(number), length), length)
            data -= data.mean(axis=1, keepdims=True)
            total, n_samples = total + data @ data.T, n_samples + length
        return np.asarray(total / n_samples)

    def window(self, start: int, n_times: int) -> Array:
        """A window ``(C, n_times)``, V, less the mean over it and `MARGIN` on both sides.

        Raises:
            FileNotFoundError: The file is gone.
            ValueError: The file is damaged there.

        """
        spans = self.file.spans
        row = int(np.searchsorted(spans[:, 0], start, side="right")) - 1
        margin = round(MARGIN * self.file.sfreq)
        first = max(int(spans[row, 0]), start - margin)
        last = min(int(spans[row].sum()), start + n_times + margin)
        with self._parsing():
            data = self._read(first, last - first)
        data -= data.mean(axis=1, keepdims=True)
        return data[:, start - first : start - first + n_times]

    def _read(self, start: int, n_times: int) -> Array:
        if self.file.is_raw:
            return np.asarray(self.recording.get_data(self.rows, start, start + n_times))
        number, first = divmod(start, len(self.recording.times))
        epoch = self.recording[[number]].get_data(copy=False, verbose="error")[0]
        return np.array(epoch[self.rows, first : first + n_times])

    def _parsing(self) -> AbstractContextManager[None]:
        return parsing(self.file.path, "recording", "It is damaged from there on.")


def channel_noise(cov: Array) -> Array:
    """Noise of single channels: the part that the other channels do not predict.

    The diagonal is the variance of every channel given all others, ``1 / (cov⁻¹)_cc``; for a
    covariance of lower rank, inverse and noise are restricted to the space that it spans. Activity
    of the brain reaches many channels, so nearly all of it counts as signal.

    Args:
        cov: Covariance of a recording ``(C, C)``, V².

    Returns:
        ``(C, C)``, V², of the rank of `cov`.

    """
    values, vectors = spanned_eigh(cov)
    precision = ((vectors**2) / values).sum(axis=1)
    projector = vectors @ vectors.T
    # A constant channel has no precision and no noise.
    variance = np.diag(projector) / np.maximum(precision, np.finfo(np.float64).tiny)
    return np.asarray(projector @ np.diag(variance) @ projector)
