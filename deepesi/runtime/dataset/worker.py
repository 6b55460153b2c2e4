"""Localization of one recording of a data set."""

import re
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from deepesi import __version__
from deepesi.runtime.apply import Applied, apply
from deepesi.runtime.dataset.items import Item
from deepesi.runtime.dataset.record import (
    DONE,
    FAILED,
    KEPT,
    UNEXPECTED,
    Row,
    clear,
    digest_of,
    log_path,
    read_record,
    record_path,
    write_record,
)
from deepesi.runtime.reading.bids_inheritance import find_side_files
from deepesi.runtime.reading.recording import ReadingOptions
from deepesi.runtime.setup import Opener, SetupOptions
from deepesi.utils.memory import bounded_memory
from deepesi.utils.parallel import LostWorkerError


@dataclass(frozen=True)
class Task:
    """Settings that all recordings share.

    Attributes:
        model: Exported file.
        sha256: SHA-256 of that model.
        root: Folder of the data set.
        out: Folder to write to.
        reading: Options for reading them, without the event.
        setup: Noise covariance and head; paths may contain entities, ``sub-{subject}-fwd.fif``.
        window: Start and end of the search for the peak, s.
        n_processes: Number of parallel processes that share the memory of the machine.
        open_inverse: Opens the model.

    """

    model: Path
    sha256: str
    root: Path
    out: Path
    reading: ReadingOptions
    setup: SetupOptions
    window: tuple[float, float]
    n_processes: int
    open_inverse: Opener


def localize_one(task: Task, item: Item) -> Row:
    """Localize a recording, or report the reason of a failure."""
    from threadpoolctl import threadpool_limits

    prefix = task.out / item.name
    try:
        with threadpool_limits(1), locked(prefix):
            return _kept_or_localized(task, item, prefix)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return failed(task, item, str(error))
    except MemoryError as error:
        return failed(task, item, f"{error} Or use fewer --jobs.")
    except Exception as error:  # noqa: BLE001 - a fault of ours or of a library: kept in a log
        row = failed(task, item, f"{error!r}; please report it with {log_path(prefix)}")
        log_path(prefix).write_text(traceback.format_exc(), encoding="utf-8")
        return replace(row, status=UNEXPECTED)


def _kept_or_localized(task: Task, item: Item, prefix: Path) -> Row:
    setup = _setup_of(task.setup, item)
    reading = replace(task.reading, event=item.event)
    key = _key(task, item, reading, setup)
    kept = read_record(prefix, key)
    if kept is not None:
        return replace(kept, status=KEPT)
    clear(prefix)
    with bounded_memory(task.n_processes):
        notes, applied = _taken(
            apply(
                task.model,
                item.path,
                prefix,
                reading,
                setup,
                task.window,
                progress=False,
                open_inverse=task.open_inverse,
            )
        )
    row = _row(item, applied)
    write_record(prefix, key, row, notes)
    return row


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Lock a path against other processes; the end of a process releases it.

    Workers of a killed process continue until their recording is done, so each has a lock.

    Raises:
        ValueError: Another process holds the lock, and `wait` is False.

    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), blocking=wait)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"another process writes to --out {path.parent} now. Wait for it, or give another "
            "folder."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _taken(lines: Generator[str, None, Applied]) -> tuple[list[str], Applied]:
    """All lines of a generator, and its return value."""
    notes = []
    while True:
        try:
            notes.append(next(lines))
        except StopIteration as end:
            return notes, end.value


def _setup_of(setup: SetupOptions, item: Item) -> SetupOptions:
    """The set-up of a recording: entities filled into the paths of its own files."""
    return replace(
        setup,
        noise_cov=_filled(setup.noise_cov, item),
        forward=_filled(setup.forward, item),
        trans=_filled(setup.trans, item),
    )


def _filled(path: Path | None, item: Item) -> Path | None:
    if path is None:
        return None
    known = {k: v for k, v in item.entities.items() if v is not None}
    try:
        return Path(str(path).format(**known))
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"{path}: in a path, braces stand for an entity of the recording: "
            f"{', '.join('{' + key + '}' for key in known)}."
        ) from error


def _key(task: Task, item: Item, reading: ReadingOptions, setup: SetupOptions) -> str:
    """Digest of all inputs of the result."""
    stem = re.sub("_split-[0-9]+", "_split-*", item.path.name.removesuffix(item.path.suffix))
    files = [p for p in item.path.parent.glob(f"{stem}[-.]*") if p.is_file()]  # .vmrk, .eeg, .fdt
    files += find_side_files(item.path, reading.montage is None).all()
    head = None if setup.head is None else Path(setup.head)
    named = (setup.noise_cov, setup.forward, setup.trans, setup.prepared, head)
    files += [p for p in named if p is not None and p.is_file()]
    settings = (__version__, task.sha256, reading, setup, task.window)
    return digest_of(settings, files, task.root)


def _row(item: Item, applied: Applied) -> Row:
    peak = applied.peak
    row = Row(
        **item.entities,
        event=item.event,
        status=DONE,
        n_channels=applied.n_channels,
        nave=applied.nave,
        bads=",".join(applied.bads),
        output=item.name.as_posix(),
    )
    if peak is None:
        return row
    x, y, z = peak.mni or (None, None, None)
    area = None if peak.prediction_set is None else peak.prediction_set.area
    return replace(
        row,
        x_mm=x,
        y_mm=y,
        z_mm=z,
        time_s=peak.time,
        power=peak.power,
        prediction_set_cm2=None if area is None else 1e4 * area,
    )


def failed(task: Task, item: Item, message: str) -> Row:
    """Table row of a recording that was not localized."""
    prefix = task.out / item.name
    if not record_path(prefix).exists():
        clear(prefix)  # pieces written before the failure
    return Row(
        **item.entities,
        event=item.event,
        status=FAILED,
        output=item.name.as_posix(),
        message=message,
    )


def lost_message(error: LostWorkerError) -> str:
    """Message for a recording whose process was killed."""
    return f"its process was killed, most often for lack of memory; use fewer --jobs ({error})"
