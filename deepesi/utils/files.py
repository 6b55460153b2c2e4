"""Files written whole or not at all, and read or refused."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepesi.utils.optional import missing_package


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place only if the block succeeds.

    The temporary file has the same suffix; after an error or an interrupt it is gone and what was
    at ``path`` before does not change.
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

    After an error or an interrupt it is gone and what was at ``path`` before is there again. If the
    process was killed, the next call restores ``path``.
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


def check_file_out(path: Path, suffix: str, option: str = "--out") -> None:
    """Refuse a file that could not be written, before anything is computed.

    Args:
        path: To write to.
        suffix: End of its name, for example ``.npz``.
        option: Option that names it.

    Raises:
        ValueError: It is a folder, its name has another end, or its folder does not exist.

    """
    check_folder_out(path.parent, option)
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder; give the {suffix} file to write in it.")
    if path.suffix != suffix:
        raise ValueError(f"{option} {path}: expected a name that ends in {suffix}.")


def check_folder_out(path: Path, option: str = "--out") -> None:
    """Refuse a folder that could not be written to, before anything is computed.

    Raises:
        ValueError: It, or a folder it lies in, is a file, cannot be written to, or begins with a
            ``~`` that no shell replaced.

    """
    if path.parts[:1] == ("~",):
        raise ValueError(
            f"{option} {path}: the shell did not replace ~ by your home folder, which it does only "
            "after a blank. Give the whole path."
        )
    existing = next(part for part in (path, *path.absolute().parents) if part.exists())
    if not existing.is_dir():
        raise ValueError(
            f"{option} {path}: {existing} is a file, so there is no folder to write to."
        )
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(
            f"{option} {path}: nothing can be written to {existing} ({error.strerror}). Choose "
            "another folder."
        ) from None


@contextmanager
def parsing(path: Path, what: str, cure: str) -> Iterator[None]:
    """Turn any error that a parser of another package raises for a damaged file into one.

    The only place that catches everything: such parsers (zip, NumPy, those of MNE-Python) raise
    ``KeyError``, ``struct.error``, ``zlib.error`` or a bare ``Exception``, depending on the damage.

    Args:
        path: The file.
        what: Description of the expected content.
        cure: Sentence that tells the user what to do.

    Raises:
        FileNotFoundError: There is no such file.
        ModuleNotFoundError: A package that reads it is not installed.
        ValueError: It is damaged.

    """
    try:
        yield
    except FileNotFoundError:
        if path.exists():  # a file that this one refers to
            raise
        raise FileNotFoundError(f"there is no file {path}.") from None
    except PermissionError:
        raise
    except Exception as error:
        missing = missing_package(error)
        if missing is not None:
            raise ModuleNotFoundError(f"{path}: reading this {what} needs {missing}") from error
        raise ValueError(f"{path}: not a readable {what} ({error!r:.300}). {cure}") from error
