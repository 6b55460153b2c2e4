"""Writes the tables of the documentation from the stored results in ``docs/_results``.

    python docs/tables.py                         # write every table anew
    python docs/tables.py --check                 # only say which would change; 1 if any
    python docs/tables.py --keep RUN --as snr     # store the benchmark.csv of a run, then write

A table stands in the Markdown between two comments. The first says in YAML what it shows::

    <!-- table: snr
    metric: localization_error
    columns: [0 dB, 5 dB]
    rows: [ConvDip, eLORETA]
    -->
    | ... |
    <!-- end -->

Two kinds of results are stored, each a CSV with a ``.yaml`` beside it that says where the numbers
are from (`FACTS`). A ``benchmark.csv`` as ``deepesi evaluate`` writes it becomes one line per
method and one column per level of its axis:

- ``table``: name of the results, or a list of names, read one after the other;
- ``metric``: which metric, each cell ``mean [interval]``;
- ``show``: ``value`` (default), ``median``, or ``ratio`` (the mean over that of ``to``);
- ``rows``, ``columns``: which methods and columns, in which order; all by default. With
  ``{shown: name}`` a row or a column is shown under another name;
- ``beside``: a metric whose mean follows in every cell; ``last``: one with a column of its own;
- ``corner``: heading of the first column.

Any other CSV is shown as it is; ``rows`` (first cells) and ``columns`` choose from it.

The list of all metrics stands between ``<!-- metrics -->`` and ``<!-- end -->``, that of all head
inputs between ``<!-- head inputs -->`` and ``<!-- end -->``.
"""

import argparse
import csv
import inspect
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from deepesi.evaluation.intervals import interval_text
from deepesi.metrics.table import METRICS
from deepesi.physics.head_inputs.declaration import built_in
from deepesi.utils.nearest import nearest

DOCS = Path(__file__).parent
RESULTS = DOCS / "_results"
PAGES = (DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")))
TABLE = re.compile(r"(<!-- (table:.*?)-->\n).*?(<!-- end -->)", re.DOTALL)
HEAD_INPUT_LIST = re.compile(r"(<!-- head inputs -->\n).*?(<!-- end -->)", re.DOTALL)
METRIC_LIST = re.compile(r"(<!-- metrics -->\n).*?(<!-- end -->)", re.DOTALL)
#: What the file beside a CSV says; `source` and `note` may be added.
FACTS = ("command", "commit", "seed", "date", "cores")
OPTIONS = ("table", "metric", "show", "rows", "columns", "beside", "last", "corner", "to")

Line = dict[str, str]


def read_results(name: str, folder: Path = RESULTS) -> list[Line]:
    """The lines of stored results.

    Raises:
        FileNotFoundError: There are none of this name.
        ValueError: The file beside them lacks a fact.

    """
    path = folder / f"{name}.csv"
    for file in (path, path.with_suffix(".yaml")):
        if not file.is_file():
            known = ", ".join(sorted(p.stem for p in folder.glob("*.csv"))) or "none"
            raise FileNotFoundError(f"docs: there is no {file}. Stored results: {known}.")
    facts = yaml.safe_load(path.with_suffix(".yaml").read_text(encoding="utf-8"))
    missing = [fact for fact in FACTS if fact not in facts]
    if missing:
        raise ValueError(f"docs: {path.with_suffix('.yaml')} lacks {', '.join(missing)}.")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def render(marker: str, folder: Path = RESULTS) -> str:
    """The table that a marker describes, as Markdown.

    Raises:
        ValueError: An option, a metric, a method or a column that is not there, or a name of two
            methods.

    """
    wanted: dict[str, Any] = yaml.safe_load(marker)
    unknown = [key for key in wanted if key not in OPTIONS]
    if unknown:
        raise ValueError(
            f"docs: unknown {', '.join(unknown)} in a table, expected some of {', '.join(OPTIONS)}."
        )
    for metric in (wanted[key] for key in ("metric", "beside", "last") if key in wanted):
        if metric not in METRICS:
            raise ValueError(f"docs: no metric {metric!r} in a table. {nearest(metric, METRICS)}")
    names = wanted["table"] if isinstance(wanted["table"], list) else [wanted["table"]]
    lines = [line for name in names for line in read_results(name, folder)]
    if {"metric", "value"} <= set(lines[0]):
        header, cells = _benchmark(lines, wanted)
    else:
        header, cells = list(lines[0]), [list(line.values()) for line in lines]
        columns = _chosen(wanted.get("columns"), header, "column", names)
        rows = _chosen(wanted.get("rows"), [line[0] for line in cells], "row", names)
        cells = [
            [line[header.index(c)] for c in columns.values()]
            for line in cells
            if line[0] in rows.values()
        ]
        header = list(columns)
    return _markdown(header, cells)


def metric_list() -> str:
    """Every metric with unit and direction, as Markdown."""
    better = {True: "higher", False: "lower", None: "neither"}
    cells = [
        [f"`{name}`", metric.title, metric.unit, better[metric.higher_is_better]]
        for name, metric in METRICS.items()
    ]
    return _markdown(["metric", "title", "unit", "better"], cells)


def head_input_list() -> str:
    """Every head input with the first sentences of its documentation, as Markdown."""
    cells = [
        [f"`{name}`", " ".join(inspect.getdoc(kind).split("\n\n")[0].split()).replace("``", "`")]
        for name, kind in built_in().items()
    ]
    return _markdown(["head input", "what"], cells)


def _markdown(header: list[str], cells: list[list[str]]) -> str:
    rule = ["---"] * len(header)
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *cells))


def _benchmark(lines: list[Line], wanted: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of a benchmark: methods down, levels across."""
    swept = len({(line["level"], line["axis"]) for line in lines}) > 1
    found: dict[tuple[str, str, str], Line] = {}
    several = len({line["snr_db"] for line in lines}) > 1
    for line in lines:
        found.setdefault((line["method"], _heading(line, swept, several), line["metric"]), line)
    names = wanted["table"]
    methods = list(dict.fromkeys(method for method, _, _ in found))
    columns = list(dict.fromkeys(column for _, column, _ in found))
    chosen = _chosen(wanted.get("columns"), columns, "column", names)
    rows = _chosen(wanted.get("rows"), methods, "method", names)
    beside, last = wanted.get("beside"), wanted.get("last")
    cells = []
    for shown, method in rows.items():
        own = {
            metric: [found.get((method, c, metric)) for c in chosen.values()]
            for metric in (wanted["metric"], beside, last)
            if metric
        }
        compared = wanted.get("to", "")
        reference = [found.get((compared, c, wanted["metric"])) for c in chosen.values()]
        text = [
            _cell(line, other, wanted.get("show", "value"))
            for line, other in zip(own[wanted["metric"]], reference, strict=True)
        ]
        if beside:
            extra = [_short(line, 2) for line in own[beside]]
            text = [f"{a} {b}".strip() for a, b in zip(text, extra, strict=True)]
        if last:
            text.append(" / ".join(_short(line, 3) for line in own[last]))
        cells.append([shown, *text])
    titles = [METRICS[last].label] if last else []
    return [wanted.get("corner", "method"), *chosen, *titles], cells


def _heading(line: Line, swept: bool, several: bool) -> str:
    snr = f"{float(line['snr_db']):g} dB"
    if not swept or line["axis"] == "SNR (dB)":
        return snr
    return f"{line['level']}, {snr}" if several else line["level"]


def _cell(line: Line | None, reference: Line | None, show: str) -> str:
    if line is None:
        return ""
    decimals, value = METRICS[line["metric"]].decimals, float(line["value"])
    if show == "median":
        return f"{float(line['median']):.{decimals}f}"
    if show == "ratio":
        return "" if reference is None else f"{value / float(reference['value']):.2f}"
    if not line["ci_low"]:
        return f"{value:.{decimals}f}"
    return interval_text(value, float(line["ci_low"]), float(line["ci_high"]), decimals)


def _short(line: Line | None, decimals: int) -> str:
    """A mean below 1 without its zero."""
    return "" if line is None else re.sub(r"^0\.", ".", f"{float(line['value']):.{decimals}f}")


def _chosen(
    wanted: Sequence[Any] | None, known: Sequence[str], what: str, where: Any
) -> dict[str, str]:
    """Name shown to name stored, in the order wanted."""
    if wanted is None:
        return {name: name for name in known}
    pairs = [
        next(iter(name.items())) if isinstance(name, dict) else (str(name),) * 2 for name in wanted
    ]
    for _, name in pairs:
        if name not in known:
            raise ValueError(
                f"docs: no {what} {name!r} in {where}, expected some of {', '.join(known)}."
            )
    return dict(pairs)


def rewritten(text: str, folder: Path = RESULTS) -> str:
    """A page with every table of it written anew."""
    text = TABLE.sub(lambda marked: marked[1] + render(marked[2], folder) + marked[3], text)
    text = HEAD_INPUT_LIST.sub(lambda marked: marked[1] + head_input_list() + marked[2], text)
    return METRIC_LIST.sub(lambda marked: marked[1] + metric_list() + marked[2], text)


def keep(run: Path, name: str, folder: Path = RESULTS) -> None:
    """Store the ``benchmark.csv`` of a run, with what its ``leaderboard.csv`` says of it.

    Raises:
        FileNotFoundError: The run lacks one of the two.

    """
    for file in ("benchmark.csv", "leaderboard.csv"):
        if not (run / file).is_file():
            raise FileNotFoundError(
                f"docs: there is no {run / file}. Give the run directory of 'deepesi evaluate' or "
                "'deepesi train'."
            )
    with (run / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    written = datetime.fromtimestamp((run / "benchmark.csv").stat().st_mtime, UTC)
    facts = {
        "command": first["command"],
        "commit": first["commit"] or f"version {first['version']}",
        "seed": int(first["seed"]),
        "date": written.date().isoformat(),
        "cores": os.cpu_count(),
    }
    (folder / f"{name}.csv").write_bytes((run / "benchmark.csv").read_bytes())
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(facts, sort_keys=False), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables, or say which would change."""
    parser = argparse.ArgumentParser(description="Write the tables of the documentation.")
    parser.add_argument("--check", action="store_true", help="only say which pages would change")
    parser.add_argument("--keep", type=Path, metavar="RUN", help="store the results of a run first")
    parser.add_argument("--as", dest="name", metavar="NAME", help="name to store them under")
    given = parser.parse_args(arguments)
    if (given.keep is None) != (given.name is None):
        parser.error("--keep RUN and --as NAME go together")
    if given.keep is not None:
        keep(given.keep, given.name)
    changed = []
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = rewritten(before)
        if after != before:
            changed.append(page.name)
            if not given.check:
                page.write_text(after, encoding="utf-8")
    verb = "would change" if given.check else "written"
    print(f"{verb}: {', '.join(changed)}" if changed else "every table is as stored")
    return int(given.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
