"""Reads recordings for ``deepesi apply``: evoked responses, epochs or raw recordings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deepesi.physics.units import parse_unit
from deepesi.runtime.corrections import Baseline
from deepesi.runtime.reading.bids import bids_side_files
from deepesi.runtime.reading.channels import name_channels
from deepesi.runtime.reading.edf_gaps import check_uninterrupted
from deepesi.runtime.reading.file_units import file_units, units_to_volts
from deepesi.runtime.reading.formats import FORMATS, check_file, read_file, read_info
from deepesi.runtime.reading.rates import at_own_rate, channel_rates, check_rates
from deepesi.runtime.recording_checks import check_kind

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recording_type import Recording


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
        ValueError: Not a recording of potentials (`check_kind`); EDF+ with gaps; several
            conditions and none chosen, no such condition or channel, no known unit, EEG channels of
            different sampling rates, or an EEG channel is no electrode of the montage; a number of
            trials for single trials.

    """
    import mne

    recording = read_file(path, options.condition)
    check_uninterrupted(path)
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
    notes = bids_side_files(path, recording, options.montage is None, units, options.exclude)
    left = [name for name in options.exclude if name in recording.ch_names]
    if left:
        if isinstance(recording, mne.BaseEpochs):
            recording.load_data()  # or MNE-Python excludes none
        recording.drop_channels(left)
    if isinstance(recording, mne.io.BaseRaw):
        check_rates(recording, path, rates)
    lines = [*notes, *units_to_volts(recording, path, units, options.unit)]
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
    info = read_info(path)
    notes = bids_side_files(path, info, options.montage is None, exclude=options.exclude)
    _check_excluded(path, info.ch_names, options.exclude)
    kept = [i for i, name in enumerate(info.ch_names) if name not in options.exclude]
    info = mne.pick_info(info, kept)
    for line in [*notes, *name_channels(info, options.rename, options.montage)]:
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
