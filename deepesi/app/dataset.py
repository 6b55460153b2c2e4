"""``deepesi apply MODEL bids:ROOT``: all recordings of a data set, in parallel, one table.

One failing recording stops none of the others. Each leaves a record when its files are complete;
a later run with the same model, options and input skips it.
"""

import traceback
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deepesi import __version__
from deepesi.app.apply import Applied, SetupOptions, apply, open_inverse
from deepesi.app.bids_inheritance import find_side_files
from deepesi.app.dataset_items import BIDS_PURPOSE, Item, Selection, find_items
from deepesi.app.dataset_record import (
    DONE,
    FAILED,
    KEPT,
    Row,
    clear,
    digest_of,
    read_record,
    record_path,
    write_record,
    write_table,
)
from deepesi.app.memory import bounded_memory
from deepesi.app.reading import ReadingOptions
from deepesi.export.packaged import model_path
from deepesi.physics.optional import require
from deepesi.physics.parallel import LostWorkerError, spread


@dataclass(frozen=True)
class Task:
    """What all recordings share.

    Attributes:
        model: Exported file.
        sha256: Identity of that model.
        root: Folder of the data set.
        out: Folder to write to.
        reading: How they are read, but for the event.
        setup: Where noise and head come from; paths may name entities, ``sub-{subject}-fwd.fif``.
        window: From and to, s: where to look for the peak.
        n_processes: Of this machine side by side, which share its memory.

    """

    model: Path
    sha256: str
    root: Path
    out: Path
    reading: ReadingOptions
    setup: SetupOptions
    window: tuple[float, float]
    n_processes: int


class FailedRecordingsError(ValueError):
    """Some recordings of a data set were not localized."""


def localize_dataset(
    model: Path,
    root: Path,
    out: Path,
    selection: Selection,
    events: Sequence[str],
    reading: ReadingOptions,
    setup: SetupOptions,
    window: tuple[float, float],
    jobs: int = 1,
    dask: str | None = None,
) -> Generator[str, None, None]:
    """Localize recordings of a BIDS data set, each as `deepesi.app.apply.apply` does.

    Writes ``OUT/sub-01/eeg/sub-01_task-x_desc-deepesi...``, beside it a ``.json`` that says what
    was done, and ``OUT/results.tsv``. Every recording is computed on one thread, so results do not
    depend on the number of jobs.

    Args:
        model: Exported file, the name of a packaged one, or of a baseline of evaluations.
        root: Folder of the data set.
        out: Folder to write to, a derivative of the data set.
        selection: Which recordings.
        events: Averages about each of these are localized in place of the recordings.
        reading: How they are read.
        setup: Where noise and head come from, see `Task`.
        window: From and to, s: where to look for the peak.
        jobs: Number of processes.
        dask: Address of a Dask scheduler whose workers are used instead.

    Yields:
        Lines that say what was done.

    Raises:
        ModuleNotFoundError: Without the extra ``bids`` (``dask``).
        ValueError: No such recordings, or ``out`` is no place for a derivative.
        FailedRecordingsError: In the end, if any was not localized.

    """
    require("threadpoolctl", "bids", BIDS_PURPOSE)
    if jobs < 1:
        raise ValueError(f"--jobs must be 1 or more, got {jobs}.")
    _check_noise(setup, events)
    items = find_items(root, selection, events)
    sha256 = open_inverse(model, setup).model.sha256  # refuses a damaged file before all else
    file = model_path(model)
    shared = 1 if dask is not None else jobs
    named = file.absolute() if file.is_file() else model
    task = Task(named, sha256, root.absolute(), out.absolute(), reading,
                _absolute(replace(setup, n_threads=1)), window, shared)  # fmt: skip
    _describe(out, root)
    yield f"{len(items)} recordings of {root}, {jobs} at a time"
    rows: dict[Path, Row] = {}
    for item, result in spread(_localize_one, task, items, jobs, dask):
        row = result if isinstance(result, Row) else _failed(task, item, _lost(result))
        rows[item.name] = row
        write_table((rows[i.name] for i in items if i.name in rows), out / "results.tsv")
        yield f"[{len(rows)}/{len(items)}] {row}"
    yield from _summary(list(rows.values()), out / "results.tsv")


def _check_noise(setup: SetupOptions, events: Sequence[str]) -> None:
    """Refuse a set-up that no recording could be localized with."""
    if not events and not any((setup.noise_cov, setup.noise_from, setup.prepared)):
        raise ValueError(
            "the noise is missing: give --noise-from FROM TO (s, of every recording), "
            "--noise-cov 'sub-{subject}-cov.fif', or --event NAME, whose noise is that before it."
        )


def _absolute(setup: SetupOptions) -> SetupOptions:
    """With paths that say the same in any working directory: that of a cluster is another."""
    paths = ("noise_cov", "forward", "prepared", "subjects_dir")
    found = {k: getattr(setup, k).absolute() for k in paths if getattr(setup, k) is not None}
    if setup.head is not None and Path(setup.head).is_file():
        found["head"] = str(Path(setup.head).absolute())
    return replace(setup, **found)


def _summary(rows: Sequence[Row], table: Path) -> Generator[str, None, None]:
    counts = Counter(row.status for row in rows)
    told = ", ".join(f"{counts[status]} {status}" for status in (DONE, KEPT, FAILED))
    yield f"{told}; wrote {table}"
    if counts[FAILED]:
        raise FailedRecordingsError(
            f"{counts[FAILED]} of {len(rows)} recordings failed; {table} says why. Run the command "
            "again once the cause is mended: what is complete is kept."
        )


def _describe(out: Path, root: Path) -> None:
    """Make the output folder a derivative data set.

    Raises:
        ValueError: It is the data set itself, or another data set.

    """
    from mne_bids import make_dataset_description

    description = out / "dataset_description.json"
    if out.resolve() == root.resolve():
        raise ValueError(
            f"--out {out} is the data set itself. Give another folder, {root}/derivatives/deepesi "
            "say."
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; expected the folder of a data set's results.")
    if description.is_file():
        if "deepesi" not in description.read_text(encoding="utf-8"):
            raise ValueError(f"--out {out} is another data set. Give a folder of its own.")
        return
    out.mkdir(parents=True, exist_ok=True)
    make_dataset_description(
        path=out, name="deepesi", dataset_type="derivative", verbose="error",
        generated_by=[{"Name": "deepesi", "Version": __version__}],
        source_datasets=[{"URL": root.absolute().as_uri()}],
    )  # fmt: skip


def _localize_one(task: Task, item: Item) -> Row:
    """Localize a recording, or say why not."""
    from threadpoolctl import threadpool_limits

    prefix = task.out / item.name
    try:
        setup = _setup_of(task.setup, item)
        reading = replace(task.reading, event=item.event)
        key = _key(task, item, reading, setup)
        kept = read_record(prefix, key)
        if kept is not None:
            return replace(kept, status=KEPT)
        clear(prefix)
        with bounded_memory(task.n_processes), threadpool_limits(1):
            said, applied = _taken(
                apply(task.model, item.path, prefix, reading, setup, task.window, progress=False)
            )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return _failed(task, item, str(error))
    except MemoryError as error:
        return _failed(task, item, f"{error} Or use fewer --jobs.")
    except Exception as error:  # noqa: BLE001 - of any library; the others must go on
        where = "".join(traceback.format_tb(error.__traceback__)[-1:]).strip()
        return _failed(task, item, f"not expected, please report: {error!r}, {where}")
    row = _row(item, applied)
    write_record(prefix, key, row, said)
    return row


def _taken(lines: Generator[str, None, Applied]) -> tuple[list[str], Applied]:
    """All lines of a generator, and what it returns."""
    said = []
    while True:
        try:
            said.append(next(lines))
        except StopIteration as end:
            return said, end.value


def _setup_of(setup: SetupOptions, item: Item) -> SetupOptions:
    """The set-up of a recording: entities filled into the paths of its own files."""
    filled = {}
    for name in ("noise_cov", "forward"):
        path = getattr(setup, name)
        if path is not None:
            try:
                known = {k: v for k, v in item.entities.items() if v is not None}
                filled[name] = Path(str(path).format(**known))
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(
                    f"{path}: in a path, braces stand for an entity of the recording: "
                    f"{', '.join('{' + key + '}' for key in known)}."
                ) from error
    return replace(setup, **filled)


def _key(task: Task, item: Item, reading: ReadingOptions, setup: SetupOptions) -> str:
    """Digest of all that the result depends on."""
    stem = item.path.name.removesuffix(item.path.suffix)
    files = [p for p in item.path.parent.glob(f"{stem}.*") if p.is_file()]  # .vmrk, .eeg, .fdt
    files += find_side_files(item.path, reading.montage is None).all()
    named = (setup.noise_cov, setup.forward, setup.prepared, setup.head and Path(setup.head))
    files += [p for p in named if p is not None and p.is_file()]
    settings = (__version__, task.sha256, reading, setup, task.window)
    return digest_of(settings, files, task.root)


def _row(item: Item, applied: Applied) -> Row:
    peak = applied.peak
    row = Row(
        **item.entities, event=item.event, status=DONE, n_channels=applied.n_channels,
        nave=applied.nave, bads=",".join(applied.bads), output=item.name.as_posix(),
    )  # fmt: skip
    if peak is None:
        return row
    x, y, z = peak.mni or (None, None, None)
    area = None if peak.region is None else peak.region.area
    return replace(
        row, x_mm=x, y_mm=y, z_mm=z, time_s=peak.time, power=peak.power,
        region_cm2=None if area is None else 1e4 * area,
    )  # fmt: skip


def _failed(task: Task, item: Item, message: str) -> Row:
    prefix = task.out / item.name
    if not record_path(prefix).exists():
        clear(prefix)  # of pieces that were written before it failed
    return Row(
        **item.entities, event=item.event, status=FAILED, output=item.name.as_posix(),
        message=message,
    )  # fmt: skip


def _lost(error: LostWorkerError) -> str:
    return f"its process was killed, for want of memory most often; use fewer --jobs ({error})"
