"""Files written whole or not at all, and read or refused."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place only if the block succeeds.

    The temporary file has the same suffix; after an error or an interrupt it is gone and what was
    at ``path`` before is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside ``path`` that takes its place only if the block succeeds.

    After an error or an interrupt it is gone and what was at ``path`` before is there again; so it
    is of a process that was killed, the next time.
    """
    partial, before = (path.with_name(f".{path.stem}.{s}{path.suffix}") for s in ("partial", "old"))

    def tidy() -> None:
        if before.exists() and not path.exists():
            before.replace(path)
        for folder in (before, partial):
            shutil.rmtree(folder, ignore_errors=True)

    tidy()
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            path.replace(before)
        partial.replace(path)
    finally:
        tidy()


@contextmanager
def parsing(path: Path, what: str, cure: str) -> Iterator[None]:
    """Turn whatever a parser of others raises of a damaged file into one error.

    The only place that catches everything: such parsers (zip, NumPy, those of MNE-Python) raise
    ``KeyError``, ``struct.error``, ``zlib.error`` or a bare ``Exception``, as the damage has it.

    Args:
        path: The file.
        what: It should be, in words.
        cure: What to do, a sentence.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged.

    """
    try:
        yield
    except (FileNotFoundError, PermissionError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise ValueError(f"{path}: not a readable {what} ({error!r:.300}). {cure}") from error
