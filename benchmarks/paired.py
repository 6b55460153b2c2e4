"""Differences of one method to all others on the same recordings, from stored scores.

    python -m benchmarks.paired RUN [RUN ...] --method "UnrolledChampagne 1 k (run CHAMPAGNE)"

Runs are folders of ``deepesi evaluate``. They may have other methods, but must have the same
scenario, seed and number of examples; of a method in two runs the first counts. The mean difference
to every other method, for every test set and metric, has an interval; all of them hold together
with 95 %. Below 0 the chosen method is better.
"""

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepesi.evaluation.intervals import interval_text, simultaneous_intervals
from deepesi.evaluation.scores import file_start
from deepesi.metrics.table import METRICS
from deepesi.utils.rows import write_rows

Array = NDArray[np.float64]
SCORES = ("localization_error", "nemd")
#: Method, test set and example to its scores.
Scores = dict[tuple[str, str], dict[int, Array]]


def test_sets(run: Path) -> dict[str, str]:
    """Name to the first part of the names of its files, of every test set of a run.

    Raises:
        FileNotFoundError: The folder holds no benchmark.

    """
    path = run / "benchmark.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"paired: there is no {path}. Give the folder of a finished 'deepesi evaluate'."
        )
    found = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            snr_db = float(row["snr_db"])
            level = "" if row["axis"] == "SNR (dB)" else row["level"]
            found[level or f"{snr_db:g} dB"] = file_start(row["scenario"], level, snr_db)
    return found


def scores_of(run: Path) -> tuple[Scores, dict[tuple[str, int], float]]:
    """Scores of every example, and the depth of its first source, by which examples are known."""
    scores: Scores = {}
    depths = {}
    for name, start in test_sets(run).items():
        for path in sorted((run / "scores").glob(f"{start}*.csv")):
            step = int(path.stem.split("_")[-2])
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    number = 10**6 * step + int(row["example"])
                    values = np.array([float(row[score]) for score in SCORES])
                    scores.setdefault((row["method"], name), {})[number] = values
                    depths[name, number] = float(row["depth_mm"])
    return scores, depths


def merged(runs: Sequence[Path]) -> Scores:
    """Scores of all runs together.

    Raises:
        ValueError: Two runs have other recordings.

    """
    scores, depths = scores_of(runs[0])
    for run in runs[1:]:
        more, others = scores_of(run)
        same = depths.keys() == others.keys() and np.allclose(
            [depths[key] for key in others], list(others.values()), atol=1e-3
        )
        if not same:
            raise ValueError(
                f"paired: {run} has other recordings than {runs[0]}. Evaluate both with the same "
                "scenario, seed and number of examples."
            )
        scores |= {key: own for key, own in more.items() if key not in scores}
    return scores


def paired(
    scores: Mapping[tuple[str, str], Mapping[int, Array]],
    method: str,
    others: Sequence[str] | None = None,
) -> list[list[str]]:
    """Rows of the table: a row per other method and metric, a column per test set.

    Raises:
        ValueError: There is no method of a name, or no other method.

    """
    names = list(dict.fromkeys(name for _, name in scores))
    methods = list(dict.fromkeys(other for other, _ in scores))
    others = others or [other for other in methods if other != method]
    unknown = {method, *others} - {*methods}
    if unknown or not others:
        raise ValueError(
            f"paired: got no scores of {', '.join(sorted(unknown)) or 'another method'}, expected "
            f"names among {', '.join(methods)}. Write them exactly as in benchmark.csv."
        )
    largest = max(len(own) for own in scores.values())
    values = np.full((largest, len(others), len(SCORES), len(names)), np.nan)
    for number, other in enumerate(others):
        for column, name in enumerate(names):
            mine, its = scores[method, name], scores[other, name]
            values[: len(mine), number, :, column] = [mine[i] - its[i] for i in mine]
    ends = simultaneous_intervals(values.reshape(largest, -1)).reshape(2, *values.shape[1:])
    means = np.nanmean(values, axis=0)
    table = []
    for number, other in enumerate(others):
        for which, score in enumerate(SCORES):
            cells = (
                interval_text(
                    mean,
                    *(None if np.isnan(end) else float(end) for end in (low, high)),
                    METRICS[score].decimals,
                    "+",
                )
                for mean, low, high in zip(
                    means[number, which], *ends[:, number, which], strict=True
                )
            )
            table.append([f"{other}, {METRICS[score].unit or 'nEMD'}", *cells])
    return [["difference to", *names], *table]


def main(words: Sequence[str] | None = None) -> None:
    """Read, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--method", required=True, help="its name in benchmark.csv")
    parser.add_argument("--others", nargs="*", help="compare with these only; all by default")
    parser.add_argument("--out", type=Path, default=Path("paired.csv"))
    options = parser.parse_args(words)
    header, *rows = paired(merged(options.runs), options.method, options.others)
    for row in (header, *rows):
        print(*row, sep="  ")
    write_rows(options.out, header, rows)


if __name__ == "__main__":
    main()
