"""The recordings of a BIDS data set, and the paths of their results."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from deepesi.runtime.reading.bids_files import read_table
from deepesi.runtime.reading.bids_inheritance import is_in_bids
from deepesi.runtime.reading.formats import FORMATS
from deepesi.utils.optional import require

EMPTY_ROOM = "emptyroom"  # subject of empty-room recordings in BIDS
BIDS_PURPOSE = "localize the recordings of a BIDS data set"


@dataclass(frozen=True)
class Selection:
    """Selection of recordings of a data set; None selects all.

    Attributes:
        subjects: Labels of subjects, such as ``01``, without ``sub-``.
        sessions: Labels of sessions.
        tasks: Labels of tasks.
        runs: Labels of runs.
        suffix: Last part of the names of the files: ``eeg``; ``ave``, ``epo`` or ``raw`` of
            derivatives.

    """

    subjects: Sequence[str] | None = None
    sessions: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    runs: Sequence[str] | None = None
    suffix: str = "eeg"


class Entities(TypedDict):
    """Entities of a recording in BIDS; paths of its own files may name them in braces."""

    subject: str
    session: str | None
    task: str | None
    acquisition: str | None
    run: str | None


@dataclass(frozen=True)
class Item:
    """A recording to localize.

    Attributes:
        path: File of the recording.
        entities: Entities in BIDS, by name.
        event: Event to average about; None: the recording itself.
        name: Prefix of the written files, relative to the output folder.

    """

    path: Path
    entities: Entities
    event: str | None
    name: Path


def find_items(root: Path, selection: Selection, events: Sequence[str]) -> list[Item]:
    """The recordings of a data set, without derivatives and empty-room recordings.

    A missing recording that a ``scans.tsv`` lists is an item, too; it fails.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: No such recordings, none with a requested label, or two would be written to the
            same files.

    """
    require("mne_bids", "bids", BIDS_PURPOSE)
    from mne_bids import find_matching_paths

    if not root.is_dir():
        raise FileNotFoundError(f"bids:{root}: there is no folder {root}.")
    suffixes = [".fif", *(s for s in FORMATS if s != ".gdf")]
    found = find_matching_paths(
        root,
        extensions=suffixes,
        datatypes=["eeg", "meg"],
        suffixes=selection.suffix,
        ignore_nosub=True,
    )
    found = [
        p
        for p in found + _missing(root, selection.suffix, suffixes)
        if p.split in (None, "1", "01") and p.subject != EMPTY_ROOM
    ]
    chosen = [p for p in found if _is_chosen(p, selection)]
    items = [_item(file, event) for file in chosen for event in events or (None,)]
    asked = {key: set(labels) for key, labels in _wanted(selection).items() if labels is not None}
    lacking = any(labels - {getattr(p, key) for p in chosen} for key, labels in asked.items())
    if not items or lacking:
        raise ValueError(_nothing(root, found, selection))
    twice = [str(name) for name, n in Counter(item.name for item in items).items() if n > 1]
    if twice:
        raise ValueError(
            f"{root}: several recordings or events would be written to {twice[0]}. Choose fewer "
            "with --subject, --session, --task, --run, --event."
        )
    return sorted(items, key=lambda item: str(item.name))


def subjects_without(root: Path, items: Sequence[Item]) -> list[str]:
    """Subjects of a data set without a recording."""
    there = {p.name.removeprefix("sub-") for p in root.glob("sub-*") if p.is_dir()}
    return sorted(there - {str(item.entities["subject"]) for item in items} - {EMPTY_ROOM})


def _missing(root: Path, suffix: str, extensions: Sequence[str]) -> list[Any]:
    """Missing recordings that a ``scans.tsv`` lists."""
    from mne_bids import get_bids_path_from_fname

    found = []
    for table in sorted([*root.glob("sub-*/*_scans.tsv"), *root.glob("sub-*/ses-*/*_scans.tsv")]):
        for row in read_table(table, ("filename",)):
            path = table.parent / row["filename"]
            wanted = path.stem.endswith(f"_{suffix}") and path.suffix in extensions
            if wanted and is_in_bids(path) and not path.exists():
                found.append(get_bids_path_from_fname(path, check=False, verbose="error"))
    return found


def _wanted(selection: Selection) -> dict[str, Sequence[str] | None]:
    return {
        "subject": selection.subjects,
        "session": selection.sessions,
        "task": selection.tasks,
        "run": selection.runs,
    }


def _is_chosen(file: Any, selection: Selection) -> bool:
    wanted = _wanted(selection).items()
    return all(labels is None or getattr(file, key) in labels for key, labels in wanted)


def _nothing(root: Path, found: Sequence[Any], selection: Selection) -> str:
    """Error message: no recordings; it lists the existing labels of each entity."""
    if not found:
        return (
            f"{root}: no recordings sub-*/eeg/*_{selection.suffix}.* in it. Give the top folder of "
            "a BIDS data set, or another --suffix."
        )
    there = {
        key: sorted({str(getattr(p, key)) for p in found if getattr(p, key) is not None})
        for key in _wanted(selection)
    }
    asked = {key: list(labels) for key, labels in _wanted(selection).items() if labels is not None}
    chosen = [p for p in found if _is_chosen(p, selection)]
    if chosen:
        lacking = {
            key: sorted(set(labels) - {getattr(p, key) for p in chosen})
            for key, labels in asked.items()
        }
        return (
            f"{root}: no recording of {', '.join(f'{k} {v}' for k, v in lacking.items() if v)} "
            f"with the suffix {selection.suffix!r} and {asked}. The data set has {there}."
        )
    return (
        f"{root}: no recording with the suffix {selection.suffix!r} and {asked or 'any entities'}. "
        f"The data set has {there}."
    )


def _item(file: Any, event: str | None) -> Item:
    path = Path(file.fpath).absolute()
    label = re.sub(r"[^a-zA-Z0-9]", "", event or "")
    output = file.copy().update(
        description=f"{file.description or ''}deepesi{label}",
        suffix=None,
        extension=None,
        split=None,
        root=None,
        check=False,
    )
    entities = Entities(
        subject=file.subject,
        session=file.session,
        task=file.task,
        acquisition=file.acquisition,
        run=file.run,
    )
    folder = [f"sub-{file.subject}", *([f"ses-{file.session}"] if file.session else [])]
    return Item(path, entities, event, Path(*folder, "eeg", output.basename))
