"""Side files of BIDS that apply to a recording, by the inheritance principle.

Source: BIDS specification 1.10, "The Inheritance Principle", https://bids-specification.readthedocs.io.
Difference to `mne_bids.BIDSPath.find_matching_sidecar` (0.20): that takes a file of another run,
acquisition or description where there is no better one, a farther file before a nearer one, and
ignores the space of positions. Bad channels of another recording would be a silent error.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

#: Name and folders of a recording in a data set, raw or derivative.
FILE_NAME = re.compile(r"sub-[a-zA-Z0-9+]+(_[a-z]+-[a-zA-Z0-9+]+)*_[a-zA-Z0-9]+\.[a-z.]+")
DATA_TYPES = ("eeg", "meg")  # EEG recorded with MEG lies in the folder of MEG


class SideFiles(NamedTuple):
    """The side files that apply to a recording; None or empty if there is none.

    Attributes:
        channels: ``channels.tsv``.
        electrodes: ``electrodes.tsv``.
        coordsystem: ``coordsystem.json`` of the space of the electrodes.
        events: ``events.tsv``.
        facts: ``eeg.json``, from the top of the data set down; the last has priority.
        unused: Names of the tables of channels and electrodes beside the recording that are not
            among these.

    """

    channels: Path | None = None
    electrodes: Path | None = None
    coordsystem: Path | None = None
    events: Path | None = None
    facts: tuple[Path, ...] = ()
    unused: tuple[str, ...] = ()

    def all(self) -> list[Path]:
        """All existing side files."""
        tables = (self.channels, self.electrodes, self.coordsystem, self.events)
        return [path for path in (*tables, *self.facts) if path is not None]


def entities_of(name: str) -> dict[str, str]:
    """Entities of a name in BIDS: ``{"sub": "01", "task": "x"}`` of ``sub-01_task-x_eeg.edf``."""
    parts = name.split(".", maxsplit=1)[0].split("_")
    return dict(part.split("-", maxsplit=1) for part in parts if "-" in part)


def is_in_bids(path: Path) -> bool:
    """Whether a file lies where BIDS puts a recording, ``sub-XX[/ses-YY]/eeg/sub-XX_...``."""
    folder = path.absolute().parent
    subject = folder.parents[1 if folder.parent.name.startswith("ses-") else 0]
    inside = folder.name in DATA_TYPES and path.name.startswith(f"{subject.name}_")
    return inside and FILE_NAME.fullmatch(path.name) is not None


def find_side_files(path: Path, with_positions: bool = True) -> SideFiles:
    """Side files that apply to a recording that `is_in_bids`.

    Args:
        path: The recording.
        with_positions: False if positions come from elsewhere; then several files are no error.

    Raises:
        ValueError: Several files of one kind apply at one level.

    """
    own = entities_of(path.name)
    suffix = path.name.split(".", maxsplit=1)[0].split("_")[-1]
    electrodes = coordsystem = None
    if with_positions:
        electrodes = _nearest(path, "electrodes.tsv", own, {"space"})
        of_space = own | entities_of("" if electrodes is None else electrodes.name)
        anywhere = set() if "space" in of_space else {"space"}
        coordsystem = _nearest(path, "coordsystem.json", of_space, anywhere)
    channels = _nearest(path, "channels.tsv", own)
    folder = path.absolute().parent
    tables = {*folder.glob("*_channels.tsv"), *folder.glob("*_electrodes.tsv")}
    return SideFiles(
        channels,
        electrodes,
        coordsystem,
        _nearest(path, "events.tsv", own),
        tuple(_by_level(path, f"{suffix}.json", own)),
        tuple(sorted(p.name for p in tables - {channels, electrodes})),
    )


def _nearest(path: Path, kind: str, own: dict[str, str], free: Collection[str] = ()) -> Path | None:
    return next(reversed(_by_level(path, kind, own, free)), None)


def _by_level(path: Path, kind: str, own: dict[str, str], free: Collection[str] = ()) -> list[Path]:
    """Files that apply at each level, from the top of the data set down to the recording.

    A file applies if all of its entities, except the free ones, are those of the recording. Of
    several in one folder, the one with most entities applies.
    """
    folder = path.absolute().parent
    levels = [folder, folder.parent, folder.parents[1]]
    if folder.parent.name.startswith("ses-"):
        levels.append(folder.parents[2])
    found = []
    for level in reversed(levels):
        entities = {
            p: {k: v for k, v in entities_of(p.name).items() if k not in free}
            for p in sorted(level.glob(f"*{kind}"))
            if p.name.split("_")[-1] == kind
        }
        shared = {p: len(e) for p, e in entities.items() if e.items() <= own.items()}
        best = [p for p, n in shared.items() if n == max(shared.values())]
        if len(best) > 1:
            raise ValueError(
                f"{path.name}: several {kind} apply to it in BIDS, so which one is meant is "
                f"unknown: {[p.name for p in best]}. Leave one of them in {level}"
                + (", or give --montage." if kind.startswith(("electrodes", "coord")) else ".")
            )
        found += best
    return found
