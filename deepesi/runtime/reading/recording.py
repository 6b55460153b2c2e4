"""Reads recordings for ``deepesi apply``: evoked responses, epochs or raw recordings."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deepesi.physics.units import parse_unit
from deepesi.runtime.corrections import Baseline
from deepesi.runtime.reading.bids import bids_side_files
from deepesi.runtime.reading.channels import name_channels
from deepesi.runtime.reading.file_units import file_units, settle_units
from deepesi.runtime.reading.formats import FORMATS, check_file
from deepesi.runtime.reading.rates import at_own_rate, channel_rates, check_rates
from deepesi.runtime.recordings import check_kind
from deepesi.utils.files import parsing

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recordings import Recording


#: Plausible sampling rates of EEG, Hz. Others show a damaged header, which could need any memory.
RATES = (10.0, 1e5)


@dataclass(frozen=True)
class ReadingOptions:
    """Options of the user for reading a recording.

    Attributes:
        condition: Name, or else number, of an evoked response; name of an event of epochs.
        montage: Standard positions for its EEG channels, in place of its own; names as in
            `deepesi.physics.montage.standard_montage`.
        exclude: Channels to exclude, by their names in the file.
        rename: New names of channels, old to new.
        unit: Unit of its EEG channels, if the file has none: V, mV, uV or nV.
        nave: Number of trials of an average, in place of that of the file.
        baseline: Baseline to subtract, as in `deepesi.runtime.corrections.corrected`.
        event: Event of a raw recording; its average is localized in place of the recording.
        epoch: Start and end relative to the event, s, as in
            `deepesi.runtime.reading.averaging.average`.
        band: Frequency band to filter the recording to before anything else, Hz.

    """

    condition: str | None = None
    montage: str | None = None
    exclude: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    unit: str | None = None
    nave: float | None = None
    baseline: Baseline | None = None
    event: str | None = None
    epoch: tuple[float, float] = (-0.2, 0.5)
    band: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.unit is not None:
            parse_unit(self.unit)


def parse_baseline(words: Sequence[str] | None) -> Baseline | None:
    """``--baseline none`` or ``--baseline FROM TO`` (s); None: as in the file.

    Raises:
        ValueError: Something else.

    """
    if words is None:
        return None
    if list(words) == ["none"]:
        return "none"
    try:
        low, high = map(float, words)
    except ValueError:
        raise ValueError(
            f"--baseline takes 'none', or from and to in s (-0.2 0), got {' '.join(words)!r}."
        ) from None
    return low, high


def read_recording(
    path: Path, options: ReadingOptions, say: Callable[[str], None] = lambda line: None
) -> "Recording":
    """One evoked response, the epochs or the raw recording in a file.

    Side files of BIDS are applied, as in `deepesi.runtime.reading.bids.bids_side_files`.

    Args:
        path: ``-ave.fif``, ``-epo.fif``, ``raw.fif``, EDF, BDF, GDF, BrainVision or EEGLAB.
        options: Options of the user.
        say: Called with lines that report renamed channels and changed units.

    Returns:
        The recording.

    Raises:
        FileNotFoundError: No such file.
        ModuleNotFoundError: A package that reads its format is not installed.
        ValueError: Not a recording of potentials (`check_kind`); several conditions and none
            chosen, no such condition or channel, no known unit, EEG channels of different
            sampling rates, or an EEG channel is no electrode of the montage; a number of trials for
            single trials.

    """
    import mne

    check_file(path)
    recording = _read(path, options.condition)
    _check_excluded(path, recording.ch_names, options.exclude)
    if isinstance(recording, mne.io.BaseRaw):
        recording = at_own_rate(recording, path, options.exclude)
        rates = channel_rates(recording, path)
    if options.nave is not None:
        if not isinstance(recording, mne.Evoked):
            raise ValueError(
                f"--nave: {path} holds single trials, no average, so every sample is of one trial. "
                "Leave it out."
            )
        recording.nave = options.nave
    sfreq = recording.info["sfreq"]
    if not RATES[0] <= sfreq <= RATES[1]:
        raise ValueError(
            f"{path} has a sampling rate of {sfreq:g} Hz; EEG has {RATES[0]:g} to "
            f"{RATES[1]:g} Hz. The file is damaged, or its header wrong."
        )
    check_kind(recording)
    units = file_units(recording, path)
    beside = bids_side_files(path, recording, options.montage is None, units, options.exclude)
    left = [name for name in options.exclude if name in recording.ch_names]
    if left:
        if isinstance(recording, mne.BaseEpochs):
            recording.load_data()  # or MNE-Python excludes none
        recording.drop_channels(left)
    if isinstance(recording, mne.io.BaseRaw):
        check_rates(recording, path, rates)
    lines = [*beside, *settle_units(recording, path, units, options.unit)]
    for line in [*lines, *name_channels(recording, options.rename, options.montage)]:
        say(line)
    return recording


def read_setup(
    path: Path, options: ReadingOptions, say: Callable[[str], None] = lambda line: None
) -> "mne.Info":
    """Channels, positions and bad channels of a recording; arguments as in `read_recording`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a recording, no such channel, no known unit, or an EEG channel is no
            electrode of the montage.

    """
    import mne

    check_file(path)
    if path.suffix.lower() in FORMATS:
        return read_recording(path, options, say).info
    if options.unit is not None:
        say(f"--unit {options.unit} changes nothing: only electrodes are read of {path}, no data")
    with _parsing(path):
        info = mne.io.read_info(path, verbose="error")
    beside = bids_side_files(path, info, options.montage is None, exclude=options.exclude)
    _check_excluded(path, info.ch_names, options.exclude)
    kept = [i for i, name in enumerate(info.ch_names) if name not in options.exclude]
    info = mne.pick_info(info, kept)
    for line in [*beside, *name_channels(info, options.rename, options.montage)]:
        say(line)
    return info


def _check_excluded(path: Path, ch_names: Sequence[str], exclude: Sequence[str]) -> None:
    missing = [name for name in exclude if name not in ch_names]
    if missing:
        raise ValueError(f"{path} has no channels {missing} to exclude; it has {list(ch_names)}.")
    if set(ch_names) <= set(exclude):
        raise ValueError(
            f"{path}: --exclude names all of its {len(ch_names)} channels. Keep the EEG."
        )


def _read(path: Path, condition: str | None) -> "Recording":
    import mne

    kind = _kind(path)
    if kind == "evoked":
        with _parsing(path):
            evokeds = mne.read_evokeds(path, proj=False, verbose="error")
        return _choose(path, evokeds, condition)
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
    return parsing(path, "recording", "It is damaged, or its name does not fit its content.")


def _of_event(epochs: "mne.BaseEpochs", path: Path, condition: str | None) -> "mne.BaseEpochs":
    if condition is not None and condition not in epochs.event_id:
        raise ValueError(
            f"{path} holds no epochs {condition!r}; choose one of {sorted(epochs.event_id)}."
        )
    return epochs if condition is None else epochs[condition]


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


def _choose(path: Path, evokeds: "list[mne.Evoked]", condition: str | None) -> "mne.Evoked":
    """The average of a condition: by its name or else by its number."""
    averages = {i: evoked for i, evoked in enumerate(evokeds) if evoked.kind == "average"}
    names = [f"{number}: {evoked.comment!r}" for number, evoked in averages.items()]
    if not averages:
        kinds = sorted({evoked.kind.replace("_", " ") for evoked in evokeds})
        raise ValueError(
            f"{path} holds no average, only {', '.join(kinds)}: its values are not negative and "
            "have no topography. Give the average."
        )
    if condition is None:
        if len(averages) > 1:
            raise ValueError(
                f"{path} holds {len(averages)} conditions; choose one with --condition, by name or "
                f"number: {', '.join(names)}."
            )
        return next(iter(averages.values()))
    named = [evoked for evoked in averages.values() if evoked.comment == condition]
    if len(named) == 1:
        return named[0]
    if not named and condition.isdecimal() and int(condition) in averages:
        return averages[int(condition)]
    if not named and condition.isdecimal() and int(condition) < len(evokeds):
        raise ValueError(
            f"{path}: number {condition} is a "
            f"{evokeds[int(condition)].kind.replace('_', ' ')}, no average. Choose one of: "
            f"{', '.join(names)}."
        )
    raise ValueError(
        f"{path} holds {len(named)} conditions named {condition!r}; choose one by another name or "
        f"number: {', '.join(names)}."
    )
