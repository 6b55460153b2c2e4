"""Reads the side files of BIDS: tables (``.tsv``) and JSON objects.

Everything that is read from the side files of a recording is read here, before any of it is used.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deepesi.runtime.reading.bids_inheritance import SideFiles
from deepesi.utils.files import parsing

#: Missing value in BIDS.
UNKNOWN = ("", "n/a", "NA", None)
#: Columns that the tables of a recording must have.
COLUMNS = {
    "channels.tsv": ("name", "type"),
    "electrodes.tsv": ("name", "x", "y", "z"),
    "events.tsv": ("onset", "duration"),
}

Rows = list[dict[str, str]]


class Table(NamedTuple):
    """A ``.tsv``: its path, and its rows by column."""

    path: Path
    rows: Rows


class Description(NamedTuple):
    """A ``.json``: its path, and its entries."""

    path: Path
    entries: dict[str, Any]


class SideContent(NamedTuple):
    """The content of the side files of a recording; None where there is none.

    Attributes:
        channels: ``channels.tsv``.
        electrodes: ``electrodes.tsv``.
        coordsystem: ``coordsystem.json``.
        events: ``events.tsv``.
        facts: ``eeg.json``: entries of all levels, and the path of the last.

    """

    channels: Table | None
    electrodes: Table | None
    coordsystem: Description | None
    events: Table | None
    facts: Description | None


def read_side_files(files: SideFiles) -> SideContent:
    """Read all side files of a recording.

    Raises:
        ValueError: One of them is damaged.

    """
    content = {path: _content(path) for path in files.all()}
    facts: dict[str, Any] = {}
    for path in files.facts:
        facts |= content[path]
    channels, electrodes, events = (
        None if path is None else Table(path, content[path])
        for path in (files.channels, files.electrodes, files.events)
    )
    system = files.coordsystem
    return SideContent(
        channels,
        electrodes,
        None if system is None else Description(system, content[system]),
        events,
        Description(files.facts[-1], facts) if facts else None,
    )


def _content(path: Path) -> Any:
    """Rows of a table, or entries of a JSON object."""
    kind = path.name.split("_")[-1]
    if kind in COLUMNS:
        return read_table(path, COLUMNS[kind])
    what, cure = "description of a recording in BIDS", "It should be a JSON object."
    if kind == "coordsystem.json":
        what, cure = "coordinate system of BIDS", "It should be JSON."
    with parsing(path, what, cure):
        return dict(json.loads(path.read_text(encoding="utf-8-sig")))


def read_table(path: Path, columns: Sequence[str]) -> Rows:
    """Rows of a ``.tsv`` of BIDS, by column.

    Raises:
        ValueError: Not a table, or a column is missing.

    """
    cure = "It should be text in UTF-8 with one tab between columns."
    with parsing(path, "table of BIDS", cure), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", strict=True)
        rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
        found = list(reader.fieldnames or ())
    missing = [column for column in columns if column not in found]
    if missing:
        raise ValueError(f"{path}: it lacks the columns {missing}; it has {found}. {cure}")
    return rows
