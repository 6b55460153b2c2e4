"""``deepesi apply MODEL bids:ROOT``: all recordings of a data set, in parallel, one table.

A failing recording does not stop the others. A record is written when the files of a recording are
complete; a later run with the same model, options and input skips it.
"""

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

from deepesi import __version__
from deepesi.runtime.dataset.items import (
    BIDS_PURPOSE,
    Item,
    Selection,
    find_items,
    subjects_without,
)
from deepesi.runtime.dataset.record import DONE, FAILED, KEPT, UNEXPECTED, Row, write_table
from deepesi.runtime.dataset.worker import Task, failed, localize_one, locked, lost_message
from deepesi.runtime.packaged import model_path
from deepesi.runtime.reading.recording import ReadingOptions
from deepesi.runtime.setup import Opener, SetupOptions, open_file
from deepesi.utils.optional import require
from deepesi.utils.parallel import parallel_map


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
    open_inverse: Opener = open_file,
) -> Generator[str, None, None]:
    """Localize recordings of a BIDS data set, each as `deepesi.runtime.apply.apply` does.

    Writes ``OUT/sub-01/data/sub-01_task-x_desc-deepesi...``, with a ``.json`` of the settings,
    and ``OUT/results.tsv``. Every recording is computed on one thread, so results do not depend on
    the number of jobs.

    Args:
        model: Exported file, or another model that `open_inverse` knows.
        root: Folder of the data set.
        out: Folder to write to, a derivative of the data set.
        selection: Selection of recordings.
        events: Averages about each of these events are localized in place of the recordings.
        reading: Options for reading the recordings.
        setup: Noise covariance and head, as in `Task`.
        window: Start and end of the search for the peak, s.
        jobs: Number of processes.
        dask: Address of a Dask scheduler whose workers are used instead.
        open_inverse: Opens the model, importable by name.

    Yields:
        Lines that report each step.

    Raises:
        ModuleNotFoundError: Without the extra ``bids`` (``dask``).
        ValueError: No such recordings, or ``out`` cannot be a derivative.
        FailedRecordingsError: At the end, if any recording was not localized.

    """
    for package in ("threadpoolctl", "filelock"):
        require(package, "bids", BIDS_PURPOSE)
    if jobs < 1:
        raise ValueError(f"--jobs must be 1 or more, got {jobs}.")
    _check_noise(setup, events)
    items = find_items(root, selection, events)
    sha256 = open_inverse(model, setup).model.sha256  # refuses a damaged file first
    file = model_path(model)
    shared = 1 if dask is not None else jobs
    named = file.absolute() if file.is_file() else model
    task = Task(
        named,
        sha256,
        root.absolute(),
        out.absolute(),
        reading,
        _absolute(replace(setup, n_threads=1)),
        window,
        shared,
        open_inverse,
    )
    _describe(out, root)
    yield f"{len(items)} recordings of {root}, {jobs} at a time"
    without = subjects_without(root, items)
    if without and selection == Selection(suffix=selection.suffix):
        yield f"no recordings with the suffix {selection.suffix!r} of subjects {without}"
    with locked(out / "results.tsv", wait=False):
        yield from _localize_all(task, items, jobs, dask, out / "results.tsv")


def _localize_all(
    task: Task, items: Sequence[Item], jobs: int, dask: str | None, table: Path
) -> Generator[str, None, None]:
    rows: dict[Path, Row] = {}
    for item, result in parallel_map(localize_one, task, items, jobs, dask):
        row = result if isinstance(result, Row) else failed(task, item, lost_message(result))
        rows[item.name] = row
        write_table((rows[i.name] for i in items if i.name in rows), table)
        yield f"[{len(rows)}/{len(items)}] {row}"
    yield from _summary(list(rows.values()), table)


def _check_noise(setup: SetupOptions, events: Sequence[str]) -> None:
    """Refuse a set-up with which no recording can be localized."""
    if not events and not any((setup.noise_cov, setup.noise_from, setup.prepared)):
        raise ValueError(
            "the noise is missing: give --noise-from FROM TO (s, of every recording), "
            "--noise-cov 'sub-{subject}-cov.fif', or --event NAME (then it is the noise before it)."
        )


def _absolute(setup: SetupOptions) -> SetupOptions:
    """The task with absolute paths, as the working directory of a cluster differs."""
    paths = ("noise_cov", "forward", "prepared", "subjects_dir")
    found = {k: getattr(setup, k).absolute() for k in paths if getattr(setup, k) is not None}
    if setup.head is not None and Path(setup.head).is_file():
        found["head"] = str(Path(setup.head).absolute())
    return replace(setup, **found)


def _summary(rows: Sequence[Row], table: Path) -> Generator[str, None, None]:
    counts = Counter(row.status for row in rows)
    summary = ", ".join(f"{counts[status]} {status}" for status in (DONE, KEPT, FAILED))
    summary += f", {counts[UNEXPECTED]} unexpected" * bool(counts[UNEXPECTED])
    yield f"{summary}; wrote {table}"
    n_failed = counts[FAILED] + counts[UNEXPECTED]
    if n_failed:
        raise FailedRecordingsError(
            f"{n_failed} of {len(rows)} recordings failed; reasons are in {table}. Run the command "
            "again after correction of the cause: complete results are kept."
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
            f"--out {out} is the data set itself. Give another folder, for example "
            f"{root}/derivatives/deepesi."
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; expected the folder of a data set's results.")
    if description.is_file():
        if "deepesi" not in description.read_text(encoding="utf-8"):
            raise ValueError(f"--out {out} is another data set. Give a folder of its own.")
        return
    out.mkdir(parents=True, exist_ok=True)
    make_dataset_description(
        path=out,
        name="deepesi",
        dataset_type="derivative",
        verbose="error",
        generated_by=[{"Name": "deepesi", "Version": __version__}],
        source_datasets=[{"URL": root.absolute().as_uri()}],
    )
