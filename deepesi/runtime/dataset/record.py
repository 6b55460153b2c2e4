"""Results of every recording of a data set: records to resume from, and one table."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

from deepesi.utils.files import atomic
from deepesi.utils.rows import write_rows

#: Status of a recording: localized now; kept from an earlier run; refused or not
#: readable; ended by an unexpected error.
DONE, KEPT, FAILED, UNEXPECTED = "localized", "kept", "failed", "unexpected"
#: Missing value in BIDS.
NONE = "n/a"


@dataclass(frozen=True)
class Row:
    """One recording in ``results.tsv``.

    Attributes:
        subject: BIDS entity, as ``session``, ``task``, ``acquisition`` and ``run``.
        event: Event of the average; None: the recording itself.
        status: `DONE`, `KEPT`, `FAILED` or `UNEXPECTED`.
        x_mm: MNI position of the strongest source, mm, as ``y_mm`` and ``z_mm``.
        time_s: Time of the peak, s.
        power: Whitened power at the peak, 1 for noise.
        prediction_set_cm2: Area of the prediction set of the file, cm².
        n_channels: Number of channels used.
        nave: Number of trials averaged.
        bads: Channels excluded as bad, comma-separated.
        output: Prefix of its files, relative to the folder of the table.
        message: Reason of the failure.

    """

    subject: str
    session: str | None
    task: str | None
    acquisition: str | None
    run: str | None
    event: str | None
    status: str
    x_mm: float | None = None
    y_mm: float | None = None
    z_mm: float | None = None
    time_s: float | None = None
    power: float | None = None
    prediction_set_cm2: float | None = None
    n_channels: int | None = None
    nave: float | None = None
    bads: str | None = None
    output: str = ""
    message: str | None = None

    def __str__(self) -> str:
        named = (
            ("sub", self.subject),
            ("ses", self.session),
            ("task", self.task),
            ("acq", self.acquisition),
            ("run", self.run),
            ("event", self.event),
        )
        name = " ".join(f"{k}-{v}" for k, v in named if v is not None)
        if self.message is not None:
            return f"{name}: {self.status}: {self.message}"
        text = f"{name}: {self.status}, {self.n_channels} channels"
        text += f", bad: {self.bads}" if self.bads else ""
        if self.time_s is not None:
            text += f"; strongest at {1e3 * self.time_s:.0f} ms, {self.power:.1f} times the noise"
        if self.x_mm is not None:
            text += f", MNI ({self.x_mm:.0f}, {self.y_mm:.0f}, {self.z_mm:.0f}) mm"
        return text


def write_table(rows: Iterable[Row], path: Path) -> None:
    """Write ``results.tsv``, whole or not at all."""
    columns = [field.name for field in fields(Row)]
    write_rows(path, columns, (map(_cell, astuple(row)) for row in rows), delimiter="\t")


def _cell(value: Any) -> str:
    if value is None or value == "":
        return NONE
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())


def files_of(prefix: Path) -> list[Path]:
    """Files written for a recording: ``PREFIX-lh.stc``, ``PREFIX.png`` and so on."""
    own = [p for p in prefix.parent.glob(f"{prefix.name}[-.]*") if p != record_path(prefix)]
    return sorted(own)


def log_path(prefix: Path) -> Path:
    """Path of the traceback of an unexpected error."""
    return prefix.with_name(f"{prefix.name}.log")


def record_path(prefix: Path) -> Path:
    """Path of the record of a recording."""
    return prefix.with_name(f"{prefix.name}.json")


def write_record(prefix: Path, key: str, row: Row, notes: Sequence[str]) -> None:
    """Write the record of a recording; it is the last of its files."""
    files = {path.name: path.stat().st_size for path in files_of(prefix)}
    content = {"key": key, "row": asdict(row), "files": files, "notes": list(notes)}
    with atomic(record_path(prefix)) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_record(prefix: Path, key: str) -> Row | None:
    """Result of an earlier run with the same settings, if all of its files still exist."""
    try:
        content = json.loads(record_path(prefix).read_text(encoding="utf-8"))
        row, recorded = Row(**content["row"]), content["files"]
        same = content["key"] == key
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # no record, or of another version: localized again
    found = {path.name: path.stat().st_size for path in files_of(prefix)}
    return row if same and found == recorded else None


def clear(prefix: Path) -> None:
    """Remove the files of an earlier run for a recording."""
    for path in [record_path(prefix), *files_of(prefix)]:
        path.unlink(missing_ok=True)


def digest_of(settings: Sequence[object], files: Iterable[Path], root: Path) -> str:
    """Digest of settings, and of sizes and modification times of files."""
    states = []
    for path in sorted(set(files)):
        state = path.stat()
        name = path.absolute()
        inside = name.is_relative_to(root.absolute())
        shown = name.relative_to(root.absolute()) if inside else name
        states.append((str(shown), state.st_size, state.st_mtime_ns))
    return hashlib.sha256(repr((*settings, states)).encode()).hexdigest()
