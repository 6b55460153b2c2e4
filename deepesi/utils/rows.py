"""Tables as text files, CSV or TSV: written whole or not at all, and read by column."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from deepesi.utils.files import atomic


def write_rows(
    path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]], delimiter: str = ","
) -> None:
    """Write a header and rows in UTF-8, whole or not at all; None becomes an empty cell."""
    with atomic(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def append_rows(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Append rows to a file of `write_rows`, all at once."""
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def read_rows(path: Path, columns: Sequence[str], cure: str) -> list[dict[str, str]]:
    """Rows of a CSV file by column.

    Args:
        path: The file.
        columns: The columns it must have, in this order.
        cure: Sentence that tells the user what to do if it has others.

    Raises:
        ValueError: The file has other columns.

    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != list(columns):
            raise ValueError(
                f"{path} has the columns {reader.fieldnames}, expected {list(columns)}. {cure}"
            )
        return list(reader)
