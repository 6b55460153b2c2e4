"""What ``deepesi apply`` takes: evoked responses, epochs or a raw recording."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepesi.app.bids import bids_side_files
from deepesi.physics.files import parsing
from deepesi.physics.montage import head_montage

if TYPE_CHECKING:
    import mne

    from deepesi.export.recordings import Recording


#: Samples per channel that a noise covariance is estimated from, at least.
FEWEST_SAMPLES = 3
#: Sampling rates of EEG, Hz: a header that says another is damaged, and would ask for any memory.
RATES = (10.0, 1e5)
#: Formats of other makers that are read beside FIF.
FORMATS = (".edf", ".bdf", ".gdf", ".vhdr", ".set")


@dataclass(frozen=True)
class ReadingOptions:
    """What a user says of a recording beside its file.

    Attributes:
        condition: Name or number of an evoked response; name of an event of epochs.
        montage: Standard positions for its EEG channels, in place of its own if it has some; see
            `deepesi.physics.montage.standard_montage`.
        exclude: Channels to leave out.
        event: Event of a raw recording, whose average is localized in place of it.
        epoch: From and to about the event, s; see `deepesi.app.averaging.average`.

    """

    condition: str | None = None
    montage: str | None = None
    exclude: tuple[str, ...] = ()
    event: str | None = None
    epoch: tuple[float, float] = (-0.2, 0.5)


def read_recording(path: Path, options: ReadingOptions) -> "tuple[Recording, list[str]]":
    """One evoked response, the epochs or the raw recording that a file holds.

    Evoked responses and epochs that have a pre-stimulus part and no baseline get it subtracted.
    What BIDS keeps beside the file is applied, see `deepesi.app.bids.bids_side_files`.

    Args:
        path: ``-ave.fif``, ``-epo.fif``, ``raw.fif``, EDF, BDF, GDF, BrainVision or EEGLAB.
        options: See `ReadingOptions`.

    Returns:
        The recording, and lines that say what was read beside it.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a recording, several conditions and none chosen, no such condition or
            channel, or an EEG channel is no electrode of the montage.

    """
    import mne

    if not path.is_file():
        raise FileNotFoundError(f"there is no recording {path}.")
    recording = _read(path, options.condition)
    sfreq = recording.info["sfreq"]
    if not RATES[0] <= sfreq <= RATES[1]:
        raise ValueError(
            f"{path} says that its sampling rate is {sfreq:g} Hz; EEG has {RATES[0]:g} to "
            f"{RATES[1]:g} Hz. The file is damaged, or its header wrong."
        )
    said = bids_side_files(path, recording, options.montage is None)
    _check_excluded(path, recording.ch_names, options.exclude)
    if options.exclude:
        if isinstance(recording, mne.BaseEpochs):
            recording.load_data()  # or MNE-Python leaves none out
        recording.drop_channels(list(options.exclude))
    if options.montage is not None:
        recording.set_montage(_positions(recording.info, options.montage), verbose="error")
    return recording, said


def read_setup(path: Path, options: ReadingOptions) -> "tuple[mne.Info, list[str]]":
    """Channels, positions and bad channels of a recording; as of `read_recording`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a recording, no such channel, or an EEG channel is none of the montage.

    """
    import mne

    if not path.is_file():
        raise FileNotFoundError(f"there is no recording {path}.")
    ours = path.suffix.lower() in FORMATS
    if ours:
        info = _read(path, None).info
    else:
        with _parsing(path):
            info = mne.io.read_info(path, verbose="error")
    said = bids_side_files(path, info, options.montage is None)
    _check_excluded(path, info.ch_names, options.exclude)
    kept = [i for i, name in enumerate(info.ch_names) if name not in options.exclude]
    info = mne.pick_info(info, kept)
    if options.montage is not None:
        info.set_montage(_positions(info, options.montage), verbose="error")
    return info, said


def noise_of(recording: "Recording", window: Sequence[float]) -> "mne.Covariance":
    """Noise covariance of single trials, from a stretch of a raw recording or of every epoch.

    The mean of the stretch is not noise and is removed (of every epoch, its own).

    Args:
        recording: Raw or epochs.
        window: From and to, s.

    Raises:
        ValueError: An evoked response, or too few samples to tell the channels apart.

    """
    import mne

    start, stop = window
    if isinstance(recording, mne.Evoked):
        raise ValueError(
            "--noise-from needs single trials: give epochs or a raw recording, or the covariance "
            "of the trials that were averaged (--noise-cov)."
        )
    inside = (recording.times >= start) & (recording.times <= stop)
    n_trials = 1 if isinstance(recording, mne.io.BaseRaw) else len(recording)
    n_channels = len(mne.pick_types(recording.info, meg=False, eeg=True))
    n_samples = int(inside.sum()) * n_trials
    if n_samples < FEWEST_SAMPLES * n_channels:
        raise ValueError(
            f"--noise-from {start:g} {stop:g} s holds {n_samples} samples, expected at least "
            f"{FEWEST_SAMPLES * n_channels}, {FEWEST_SAMPLES} for each of the {n_channels} "
            f"channels. The recording lasts from {recording.times[0]:g} to "
            f"{recording.times[-1]:g} s; take a longer stretch without the activity of interest."
        )
    if isinstance(recording, mne.BaseEpochs) and n_trials < 2:
        raise ValueError(
            f"--noise-from {start:g} {stop:g} s holds {n_trials} epoch, expected at least 2: what "
            "single trials do about their mean is the noise. Give --noise-cov instead."
        )
    if isinstance(recording, mne.io.BaseRaw):
        return mne.compute_raw_covariance(recording, start, stop, picks="eeg", verbose="error")
    return mne.compute_covariance(
        recording, tmin=start, tmax=stop, keep_sample_mean=False, verbose="error"
    )


def _check_excluded(path: Path, ch_names: Sequence[str], exclude: Sequence[str]) -> None:
    missing = [name for name in exclude if name not in ch_names]
    if missing:
        raise ValueError(f"{path} has no channels {missing} to leave out; it has {ch_names}.")


def _positions(info: "mne.Info", montage: str) -> "mne.channels.DigMontage":
    import mne

    eeg = mne.pick_types(info, meg=False, eeg=True, exclude=())
    return head_montage([info.ch_names[i] for i in eeg], montage)


def _read(path: Path, condition: str | None) -> "Recording":
    import mne

    kind = _kind(path)
    if kind == "evoked":
        with _parsing(path):
            evokeds = mne.read_evokeds(path, proj=False, verbose="error")
        return _baselined(_choose(evokeds, condition))
    if kind == "epochs":
        with _parsing(path):
            epochs = mne.read_epochs(path, proj=False, preload=False, verbose="error")
        return _of_event(epochs, path, condition)
    if kind is None and path.suffix.lower() not in FORMATS:
        raise ValueError(
            f"{path} holds no evoked responses, epochs or raw recording. Known are MNE's .fif and "
            f"{', '.join(FORMATS)}; read other formats with MNE-Python and save them as .fif."
        )
    trials = None
    with _parsing(path):
        try:
            raw = mne.io.read_raw(path, preload=False, verbose="error")
        except TypeError:
            if path.suffix.lower() != ".set":
                raise
            trials = mne.read_epochs_eeglab(path, verbose="error")
    if trials is not None:
        return _of_event(trials, path, condition)
    if condition is not None:
        raise ValueError(f"{path} is a raw recording, which has no conditions; leave it out.")
    return raw


def _parsing(path: Path) -> AbstractContextManager[None]:
    return parsing(path, "recording", "It is damaged or of another kind than its name says.")


def _of_event(epochs: "mne.BaseEpochs", path: Path, condition: str | None) -> "mne.BaseEpochs":
    if condition is not None and condition not in epochs.event_id:
        raise ValueError(
            f"{path} holds no epochs {condition!r}; choose one of {sorted(epochs.event_id)}."
        )
    return _baselined(epochs if condition is None else epochs[condition])


def _kind(path: Path) -> str | None:
    """``"epochs"``, ``"evoked"`` or ``"raw"`` by the blocks of a FIF file; None if it has none."""
    from mne._fiff.constants import FIFF
    from mne._fiff.open import fiff_open
    from mne._fiff.tree import dir_tree_find

    blocks = {
        "epochs": (FIFF.FIFFB_MNE_EPOCHS,),
        "evoked": (FIFF.FIFFB_EVOKED,),
        "raw": (FIFF.FIFFB_RAW_DATA, FIFF.FIFFB_CONTINUOUS_DATA, FIFF.FIFFB_IAS_RAW_DATA),
    }
    if not path.name.endswith((".fif", ".fif.gz")):
        return None
    with _parsing(path):
        file, tree, _ = fiff_open(path, verbose="error")
    with file:
        found = [k for k, b in blocks.items() if any(dir_tree_find(tree, one) for one in b)]
    return found[0] if found else None


def _choose(evokeds: "list[mne.Evoked]", condition: str | None) -> "mne.Evoked":
    names = [evoked.comment for evoked in evokeds]
    if condition is None:
        if len(evokeds) > 1:
            raise ValueError(f"the recording holds {len(names)} conditions; choose one of {names}.")
        return evokeds[0]
    if condition.isdigit() and int(condition) < len(evokeds):
        return evokeds[int(condition)]
    if names.count(condition) != 1:
        raise ValueError(
            f"the recording holds {names.count(condition)} conditions {condition!r}: {names}."
        )
    return evokeds[names.index(condition)]


def _baselined(recording: "mne.Evoked | mne.BaseEpochs") -> "mne.Evoked | mne.BaseEpochs":
    if recording.baseline is None and recording.times[0] < 0:
        recording.apply_baseline((None, 0), verbose="error")
    return recording
