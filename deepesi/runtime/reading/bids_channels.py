"""Channels of BIDS: ``channels.tsv`` gives types, units, bad channels and references."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deepesi.physics.units import UNITS
from deepesi.runtime.reading.bids_files import UNKNOWN, Rows, Table
from deepesi.runtime.reading.file_units import VOLTS, FileUnit

if TYPE_CHECKING:
    import mne

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


def set_channels(
    info: "mne.Info",
    table: Table,
    units: dict[str, FileUnit],
    exclude: Collection[str] = (),
) -> list[str]:
    """Apply ``channels.tsv`` to the info of a recording, in place, and report the changes.

    Args:
        info: Measurement info of the recording.
        table: The table.
        units: Units in the file of the recording; missing ones are filled in here.
        exclude: Channels that the user excludes; the recording may lack them.

    Raises:
        ValueError: The table contradicts the recording or itself.

    """
    rows, notes = _channel_rows(table, info.ch_names, exclude)
    notes += _set_types(info, rows, table.path)
    notes += _set_units(info, rows, table.path, units)
    notes += _set_bads(info, rows, table.path)
    _check_references(info, rows, table.path)
    return notes


def _channel_rows(
    table: Table, ch_names: Sequence[str], exclude: Collection[str]
) -> tuple[Rows, list[str]]:
    """Rows of ``channels.tsv`` for channels of the recording, and notes on other rows."""
    path = table.path
    rows = [row for row in table.rows if row["name"] not in MARKS]
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


def _set_types(info: "mne.Info", rows: Rows, path: Path) -> list[str]:
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


def _set_units(info: "mne.Info", rows: Rows, path: Path, units: dict[str, FileUnit]) -> list[str]:
    """Compare the units of ``channels.tsv`` with those of the file; fill in missing ones.

    `deepesi.runtime.reading.file_units.units_to_volts` brings the channels to volts.
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


def _set_bads(info: "mne.Info", rows: Rows, path: Path) -> list[str]:
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


def _check_references(info: "mne.Info", rows: Rows, path: Path) -> None:
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
