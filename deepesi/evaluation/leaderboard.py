"""``leaderboard.csv``: one line per method and scenario, with all that is needed to cite it."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import deepesi
from deepesi.evaluation.benchmark import Benchmark, Cell
from deepesi.evaluation.intervals import bootstrap_interval
from deepesi.metrics.table import METRICS
from deepesi.utils.rows import write_rows

Array = NDArray[np.float64]

#: Columns before the metrics, and after them.
WHO = ("method", "weights", "scenario", "axis", "levels", "snr_db", "n_examples")
HOW = ("heads", "seed", "version", "commit", "command", "path")


def means_of_examples(cells: Sequence[Cell], method: str, metric: str) -> Array:
    """Mean of every example over the test sets of a scenario ``(n,)``; NaN where it has none.

    The same example stands in all test sets (at every SNR, often at every level), so these means,
    not the single values, are independent of each other.
    """
    values = [cell.values(method, metric) for cell in cells]
    table = np.full((len(values), max(map(len, values))), np.nan)
    for line, own in zip(table, values, strict=True):
        line[: len(own)] = np.where(np.isfinite(own), own, np.nan)
    known = np.isfinite(table)
    total = np.where(known, table, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def leaderboard(
    benchmark: Benchmark,
    weights: Mapping[str, int],
    paths: Mapping[str, Path],
    heads: Mapping[str, str],
    command: str,
) -> list[dict[str, str]]:
    """The lines.

    Args:
        benchmark: What was measured.
        weights: Number of weights, by method that has any.
        paths: Path of the file, by method that was read from one.
        heads: Scenario to the names of its true heads.
        command: What was typed.

    """
    lines, measured = [], {"version": deepesi.__version__, "commit": commit(), "command": command}
    for name in dict.fromkeys(cell.scenario.name for cell in benchmark.cells):
        cells = [cell for cell in benchmark.cells if cell.scenario.name == name]
        first = cells[0].scenario
        levels = dict.fromkeys(cell.scenario.level for cell in cells if cell.scenario.level)
        for method in cells[0].scores:
            line = {
                "method": method,
                "weights": str(weights.get(method, 0)),
                "scenario": name,
                "axis": first.axis,
                "levels": "; ".join(levels),
                "snr_db": "; ".join(dict.fromkeys(f"{cell.snr_db:g}" for cell in cells)),
                "n_examples": str(first.n_examples),
            }
            for metric in METRICS:
                line |= _summary(metric, means_of_examples(cells, method, metric))
            where = {"heads": heads[name], "seed": str(first.seed)}
            lines.append(line | where | measured | {"path": str(paths.get(method, ""))})
    return lines


def _summary(metric: str, values: Array) -> dict[str, str]:
    """Mean and ends of its interval; empty where nothing was measured."""
    values, names = values[np.isfinite(values)], (metric, f"{metric}_low", f"{metric}_high")
    if not len(values):
        return dict.fromkeys(names, "")
    summary = (values.mean(), *bootstrap_interval(values).clip(*METRICS[metric].limits))
    texts = (f"{value:.6g}" if np.isfinite(value) else "" for value in summary)
    return dict(zip(names, texts, strict=True))


def commit() -> str:
    """The commit of the checkout this package is imported from; empty if it is from none.

    ``+changes`` follows where files differ from it.
    """
    git, package = shutil.which("git"), Path(deepesi.__file__).resolve().parent
    if git is None:
        return ""

    def ask(*words: str) -> str | None:
        asked = subprocess.run(  # noqa: S603  (fixed words, no shell)
            [git, "-C", str(package), *words], capture_output=True, text=True, check=False
        )
        return asked.stdout.strip() if asked.returncode == 0 else None

    # An installed package may lie inside of somebody else's checkout, which does not track it.
    if ask("ls-files", "--error-unmatch", "__init__.py") is None:
        return ""
    revision = ask("rev-parse", "--short=12", "HEAD")
    changed = ask("status", "--porcelain", "--untracked-files=no")
    return f"{revision}{'+changes' if changed else ''}" if revision else ""


def write_leaderboard(lines: Sequence[Mapping[str, str]], path: Path) -> None:
    """Write the lines, whole or not at all."""
    ends = [f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")]
    columns = [*WHO, *ends, *HOW]
    write_rows(path, columns, ([line[column] for column in columns] for line in lines))
