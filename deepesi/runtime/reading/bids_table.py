"""Tables of BIDS, ``.tsv``."""

import csv
from collections.abc import Sequence
from pathlib import Path

from deepesi.utils.files import parsing

#: Missing value in BIDS.
UNKNOWN = ("", "n/a", "NA", None)


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Columns of a ``.tsv`` of BIDS, by name.

    Raises:
        ValueError: Not a table, or a column is missing.

    """
    cure = "It should be text in UTF-8 with one tab between columns."
    with parsing(path, "table of BIDS", cure), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", strict=True)
        rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
        found = list(reader.fieldnames or ())
    missing = [column for column in columns if column not in found]
    if missing:
        raise ValueError(f"{path}: it lacks the columns {missing}; it has {found}. {cure}")
    return rows
