"""The recordings of a BIDS data set, and where the results of each go."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepesi.app.formats import FORMATS
from deepesi.physics.optional import require

BIDS_PURPOSE = "localize the recordings of a BIDS data set"


@dataclass(frozen=True)
class Selection:
    """Which recordings of a data set; of what is None, all.

    Attributes:
        subjects: Labels, as in ``sub-01`` without ``sub-``; so of the others.
        sessions: See above.
        tasks: See above.
        runs: See above.
        suffix: Last part of the names of the files: ``eeg``; ``ave``, ``epo`` or ``raw`` of
            derivatives.

    """

    subjects: Sequence[str] | None = None
    sessions: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    runs: Sequence[str] | None = None
    suffix: str = "eeg"


@dataclass(frozen=True)
class Item:
    """A recording to localize.

    Attributes:
        path: Its file.
        entities: Its entities in BIDS, by name.
        event: What to average about; None: the recording as it is.
        name: Beginning of the names of what is written, below the output folder.

    """

    path: Path
    entities: dict[str, str | None]
    event: str | None
    name: Path


def find_items(root: Path, selection: Selection, events: Sequence[str]) -> list[Item]:
    """The recordings of a data set, its derivatives left out.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: No such recordings, or two would be written to the same files.

    """
    require("mne_bids", "bids", BIDS_PURPOSE)
    from mne_bids import find_matching_paths

    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}.")
    suffixes = (".fif", *(s for s in FORMATS if s != ".gdf"))
    found = find_matching_paths(
        root, extensions=list(suffixes), datatypes=["eeg", "meg"], suffixes=selection.suffix,
        ignore_nosub=True,
    )  # fmt: skip
    chosen = [p for p in found if _is_chosen(p, selection) and p.split in (None, "1", "01")]
    items = [_item(place, event) for place in chosen for event in events or (None,)]
    if not items:
        raise ValueError(_nothing(root, found, selection))
    twice = [str(name) for name, n in Counter(item.name for item in items).items() if n > 1]
    if twice:
        raise ValueError(
            f"{root}: several recordings or events would be written to {twice[0]}. Choose fewer "
            "with --subject, --session, --task, --run, --event."
        )
    return sorted(items, key=lambda item: str(item.name))


def _wanted(selection: Selection) -> dict[str, Sequence[str] | None]:
    return {
        "subject": selection.subjects,
        "session": selection.sessions,
        "task": selection.tasks,
        "run": selection.runs,
    }


def _is_chosen(place: Any, selection: Selection) -> bool:
    wanted = _wanted(selection).items()
    return all(labels is None or getattr(place, key) in labels for key, labels in wanted)


def _nothing(root: Path, found: Sequence[Any], selection: Selection) -> str:
    """Why nothing was found: what there is of each entity."""
    there = {
        key: sorted({str(getattr(p, key)) for p in found if getattr(p, key) is not None})
        for key in _wanted(selection)
    }
    asked = {key: list(labels) for key, labels in _wanted(selection).items() if labels is not None}
    return (
        f"{root}: no recording with the suffix {selection.suffix!r} and {asked or 'any entities'}. "
        f"The data set has {there}."
    )


def _item(place: Any, event: str | None) -> Item:
    path = Path(place.fpath).absolute()
    label = re.sub(r"[^a-zA-Z0-9]", "", event or "")
    output = place.copy().update(
        description=f"{place.description or ''}deepesi{label}", suffix=None, extension=None,
        root=None, check=False,
    )  # fmt: skip
    entities = {key: getattr(place, key) for key in ("subject", "session", "task", "run")}
    folder = [f"sub-{place.subject}", *([f"ses-{place.session}"] if place.session else [])]
    return Item(path, entities, event, Path(*folder, "eeg", output.basename))
