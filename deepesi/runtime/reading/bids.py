"""Side files of a recording in BIDS: bad channels, types, units, positions and events.

The Brain Imaging Data Structure (BIDS) stores them in ``channels.tsv``, ``electrodes.tsv``,
``coordsystem.json``, ``events.tsv`` and ``eeg.json``, at any level of the data set. A contradiction
is an error or is reported.

Source: Pernet et al. 2019, doi:10.1038/s41597-019-0104-8 (EEG-BIDS). Difference to
`mne_bids.read_raw_bids`: works on evoked responses, epochs and set-ups too, refuses contradictory
files, and uses the anatomical landmarks of ``coordsystem.json``.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deepesi.physics.units import UNITS
from deepesi.runtime.reading.bids_electrodes import set_positions
from deepesi.runtime.reading.bids_events import set_events
from deepesi.runtime.reading.bids_facts import check_facts
from deepesi.runtime.reading.bids_inheritance import find_side_files, is_in_bids, others_beside
from deepesi.runtime.reading.bids_table import UNKNOWN, read_table
from deepesi.runtime.reading.file_units import VOLTS, FileUnit

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recordings import Recording

#: Channel types of BIDS, and their names in MNE-Python; others become ``misc``.
CHANNEL_TYPES = {
    "EEG": "eeg",
    "REF": "eeg",
    "EOG": "eog",
    "HEOG": "eog",
    "VEOG": "eog",
    "ECG": "ecg",
    "EMG": "emg",
    "TRIG": "stim",
    "GSR": "gsr",
    "RESP": "resp",
    "TEMP": "temperature",
    "EYEGAZE": "eyegaze",
    "PUPIL": "pupil",
    **dict.fromkeys(("AUDIO", "MISC", "OTHER", "PPG", "SYSCLOCK"), "misc"),
}
#: Channels of EDF and BDF with event marks, which MNE-Python turns into annotations.
MARKS = ("EDF Annotations", "BDF Annotations")


def bids_side_files(
    path: Path,
    recording: "Recording | mne.Info",
    with_positions: bool = True,
    units: dict[str, FileUnit] | None = None,
    exclude: Collection[str] = (),
) -> list[str]:
    """Apply the side files of a recording in BIDS, in place, and report the files read.

    Channels marked bad in ``channels.tsv`` or in the file itself are bad. A raw recording takes the
    events of ``events.tsv`` as annotations and keeps its own stretches ``BAD...`` and boundaries.

    Args:
        path: File of the recording; outside of a BIDS folder it has no side files.
        recording: The recording from this file; or its measurement info, for a set-up without data.
        with_positions: False if positions come from elsewhere: ``electrodes.tsv`` is not read.
        units: Units in the file; missing ones are filled in here from ``channels.tsv``.
        exclude: Channels that the user excludes; they are not removed here.

    Returns:
        Lines that report the files read and their changes.

    Raises:
        ValueError: A side file is damaged, or contradicts the recording.

    """
    import mne

    if not is_in_bids(path):
        return []
    beside = find_side_files(path, with_positions)
    info = recording if isinstance(recording, mne.Info) else recording.info
    notes: list[str] = []
    if beside.channels is not None:
        rows, notes = _channel_rows(beside.channels, info.ch_names, exclude)
        notes += _set_types(info, rows, beside.channels)
        notes += _set_units(info, rows, beside.channels, {} if units is None else units)
        notes += _set_bads(info, rows, beside.channels)
        _check_references(info, rows, beside.channels)
    elif others := others_beside(path, "channels.tsv"):
        notes.append(f"no channels.tsv applies to {path.name}; of other recordings: {others[:3]}")
    notes += check_facts(recording, info, beside.facts, beside.channels is not None, exclude)
    if beside.electrodes is not None:
        notes += set_positions(info, beside.electrodes, beside.coordsystem, exclude)
    elif not with_positions and (others := others_beside(path, "electrodes.tsv")):
        notes.append(f"{', '.join(others)} not read: positions are those of --montage")
    if beside.events is not None and isinstance(recording, mne.io.BaseRaw):
        notes += set_events(recording, beside.events)
    return [f"BIDS: {line}" for line in notes]


def _channel_rows(
    path: Path, ch_names: Sequence[str], exclude: Collection[str]
) -> tuple[list[dict[str, str]], list[str]]:
    """Rows of ``channels.tsv`` for channels of the recording, and notes on other rows."""
    rows = [row for row in read_table(path, ("name", "type")) if row["name"] not in MARKS]
    twice = [name for name, n in Counter(row["name"] for row in rows).items() if n > 1]
    if twice:
        raise ValueError(f"{path}: it lists {twice} more than once. Leave one line of each.")
    rows = [row for row in rows if row["name"] in ch_names or row["name"] not in exclude]
    missing = [row for row in rows if row["name"] not in ch_names]
    names = [row["name"] for row in missing]
    if any(row["type"].upper() == "EEG" for row in missing):
        raise ValueError(
            f"{path}: it lists the channels {names}, which the recording does not have; that has "
            f"{list(ch_names)}. Give every channel in {path.name} the name it has in the recording."
        )
    notes = [f"{path.name} lists {names}, which the recording does not have"] * bool(names)
    return [row for row in rows if row not in missing], notes


def _set_types(info: "mne.Info", rows: list[dict[str, str]], path: Path) -> list[str]:
    """Apply channel types of BIDS; types of MEG channels stay as in the file."""
    before = dict(zip(info.ch_names, info.get_channel_types(), strict=True))
    types = {}
    for row in rows:
        kind = row["type"].upper()
        if kind.startswith("MEG") or kind in ("HLU", "FITERR"):
            continue
        if kind not in CHANNEL_TYPES and kind not in ("N/A", ""):
            raise ValueError(
                f"{path}: channel {row['name']!r} has the type {row['type']!r}, which is none of "
                f"BIDS for EEG. Expected one of {', '.join(CHANNEL_TYPES)}."
            )
        types[row["name"]] = CHANNEL_TYPES.get(kind, before[row["name"]])
    changed = {name: kind for name, kind in types.items() if kind != before[name]}
    info.set_channel_types(changed, on_unit_change="ignore", verbose="error")
    notes = [f"{name} is {kind} by {path.name}" for name, kind in changed.items()]
    unlisted = [n for n in info.ch_names if n not in {r["name"] for r in rows}]
    eeg = [name for name in unlisted if before[name] == "eeg"]
    return notes + ([f"{path.name} does not list {eeg}: taken as EEG, as in the file"] * bool(eeg))


def _set_units(
    info: "mne.Info", rows: list[dict[str, str]], path: Path, units: dict[str, FileUnit]
) -> list[str]:
    """Compare the units of ``channels.tsv`` with those of the file; fill in missing ones.

    `deepesi.runtime.reading.file_units.settle_units` brings the channels to volts.
    """
    kinds = dict(zip(info.ch_names, info.get_channel_types(), strict=True))
    entered, other = 0, list[str]()
    for row in rows:
        name, unit = row["name"], row.get("units")
        own = units.get(name, VOLTS)
        if kinds[name] != "eeg" or unit in UNKNOWN:
            continue
        factor = UNITS.get(unit.lower())
        if factor is None:
            raise ValueError(
                f"{path}: the EEG channel {name!r} is in {unit!r}. EEG is measured in V, "
                "mV, uV or nV; correct the unit, or the type of the channel."
            )
        if own.text in UNKNOWN and factor == 1.0:
            continue  # MNE-BIDS writes these for unknown units
        if own.text in UNKNOWN or own.unclear:
            units[name] = FileUnit(own.text, own.factor, unit)
            entered += 1
        elif own.factor != factor and own.text is not None:
            if 1.0 not in (own.factor, factor):
                raise ValueError(
                    f"{path}: its unit of {name!r} is {unit}, that of the recording is {own.text}. "
                    "Correct the one that is wrong."
                )
            other.append(f"{name} ({unit}, not {own.text})")
    notes = []
    if entered:
        notes.append(f"units of {entered} EEG channels from {path.name}; the file names none")
    if other:
        notes.append(
            f"{path.name} gives {len(other)} EEG channels another unit than the file, which is "
            f"used: {', '.join(other[:3])}"
        )
    return notes


def _set_bads(info: "mne.Info", rows: list[dict[str, str]], path: Path) -> list[str]:
    """Mark the bad channels of ``channels.tsv``, in addition to those of the file."""
    states = {row["name"]: row.get("status", "").lower() for row in rows}
    for name, status in states.items():
        if status not in ("good", "bad", "n/a", ""):
            raise ValueError(
                f"{path}: channel {name!r} has the status {status!r}, expected good, bad or n/a."
            )
    bads = [name for name, status in states.items() if status == "bad"]
    notes = [f"{path.name} read; bad by it: {', '.join(bads) or 'none'}"]
    own = [name for name in info["bads"] if states.get(name) == "good"]
    if own:
        notes.append(f"good by {path.name} and bad by the file, excluded: {', '.join(own)}")
    info["bads"] = [name for name in info.ch_names if name in {*bads, *info["bads"]}]
    return notes


def _check_references(info: "mne.Info", rows: list[dict[str, str]], path: Path) -> None:
    """Refuse EEG channels with different reference electrodes."""
    kinds = dict(zip(info.ch_names, info.get_channel_types(), strict=True))
    references = {
        row["reference"]: row["name"]
        for row in rows
        if row.get("reference") not in UNKNOWN
        and kinds[row["name"]] == "eeg"
        and row["name"] not in info["bads"]
    }
    if len(references) > 1:
        some = ", ".join(f"{name} against {ref}" for ref, name in list(references.items())[:4])
        raise ValueError(
            f"{path}: its EEG channels have {len(references)} different references ({some}). "
            "Give the recording against one reference, or mark the others as bad."
        )
