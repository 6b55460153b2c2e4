"""The benchmark as tables: laid out for report and terminal, and in Markdown."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from deepesi.evaluation.benchmark import REFERENCE, Row
from deepesi.evaluation.intervals import MIN_DIFFERENT, MIN_EXAMPLES, interval_text
from deepesi.metrics.table import IN_TABLES, METRICS

RULE = (
    "Mean [95 % interval]; bold: better than every other method on the same examples, with one "
    "level of 95 % for all methods, metrics and test sets of the table. Intervals: studentized "
    f"bootstrap over examples; [-]: fewer than {MIN_EXAMPLES} examples, or all alike."
)
RULE_OF_DIFFERENCES = (
    f"Difference to {REFERENCE} on the same examples, mean [interval]; bold: better, and the "
    "interval excludes 0. The intervals hold together, with 95 % for all methods, metrics and test "
    f"sets of the table; [-]: fewer than {MIN_EXAMPLES} examples, or fewer than {MIN_DIFFERENT} "
    "that differ."
)


class Layout(NamedTuple):
    """A table: header, and lines of cells ``(text, is best)``."""

    header: list[str]
    lines: list[list[tuple[str, bool]]]


def best_method(rows: Sequence[Row], metric: str) -> str | None:
    """The method of one test set that is better than every other in a metric, if one is."""
    return next((row.method for row in rows if row.metric == metric and row.best), None)


def cell(row: Row) -> str:
    """``mean [low, high]``; ``mean [-]`` without an interval."""
    decimals = METRICS[row.metric].decimals
    return interval_text(row.value, row.ci_low, row.ci_high, decimals)


def difference_cell(row: Row) -> str:
    """``mean [low, high]`` of the paired difference to the reference."""
    assert row.difference is not None
    ends = row.difference_low, row.difference_high
    return interval_text(row.difference, *ends, METRICS[row.metric].decimals, "+")


def is_better(row: Row) -> bool:
    """Whether the whole interval, as it is printed, is on the better side of the reference."""
    if row.difference_low is None or row.difference_high is None:
        return False
    metric = METRICS[row.metric]
    nearest = row.difference_low if metric.higher_is_better else -row.difference_high
    return round(nearest, metric.decimals) > 0


def by_scenario(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each scenario."""
    return {
        name: [row for row in rows if row.scenario == name]
        for name in dict.fromkeys(row.scenario for row in rows)
    }


def layout(rows: Sequence[Row]) -> Layout:
    """One line per test set and method of one scenario."""
    return _layout(rows, cell, _best)


def _best(here: Sequence[Row]) -> Callable[[Row], bool]:
    """Tells whether a row is the best of one test set."""
    best = {metric: best_method(here, metric) for metric in IN_TABLES}
    return lambda row: best[row.metric] == row.method


def differences(rows: Sequence[Row]) -> Layout:
    """Layout of the paired differences to the reference; no lines without a reference."""
    compared = [row for row in rows if row.difference is not None and row.method != REFERENCE]
    return _layout(compared, difference_cell, lambda here: is_better)


def _layout(
    rows: Sequence[Row],
    text: Callable[[Row], str],
    mark: Callable[[Sequence[Row]], Callable[[Row], bool]],
) -> Layout:
    shown = [row for row in rows if row.metric in IN_TABLES]
    axes = list(dict.fromkeys(row.axis for row in shown)) or ["SNR (dB)"]
    swept = axes != ["SNR (dB)"]
    header = [axes[0], *(["SNR (dB)"] if swept else []), "method"]
    header += [METRICS[metric].label for metric in IN_TABLES]
    lines = []
    for (level, snr_db), here in _test_sets(shown):
        is_marked = mark(here)
        where = [level, *([f"{snr_db:g}"] if swept else [])]
        for method in dict.fromkeys(row.method for row in here):
            own = {row.metric: row for row in here if row.method == method}
            cells = [(text(own[m]), is_marked(own[m])) for m in IN_TABLES]
            lines.append([*((word, False) for word in where), (method, False), *cells])
    return Layout(header, lines)


def _test_sets(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, float], list[Row]]]:
    for level in dict.fromkeys((row.level, row.snr_db) for row in rows):
        yield level, [row for row in rows if (row.level, row.snr_db) == level]


def markdown_table(table: Layout) -> str:
    """For ``benchmark.md`` and the model card."""
    lines = [f"| {' | '.join(table.header)} |", "|" + " --- |" * len(table.header)]
    lines += [
        "| " + " | ".join(f"**{_escaped(t)}**" if best else _escaped(t) for t, best in line) + " |"
        for line in table.lines
    ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")


def write_markdown(rows: Sequence[Row], latencies: Mapping[str, float | None], command: str) -> str:
    """``benchmark.md``: every scenario, its differences to the reference, and latencies."""
    text = [f"# Benchmark\n\n```\n{command}\n```"]
    for name, own in by_scenario(rows).items():
        text += [f"## {name}\n\n{RULE}\n\n{markdown_table(layout(own))}"]
        compared = differences(own)
        if compared.lines:
            text += [f"{RULE_OF_DIFFERENCES}\n\n{markdown_table(compared)}"]
    text += [f"## Time of one recording\n\n{markdown_table(latency_layout(latencies))}"]
    return "\n\n".join(text) + "\n"


def latency_layout(latencies: Mapping[str, float | None]) -> Layout:
    """Median time of inverting one example, and its ratio to the reference; "-": too few."""
    reference = latencies.get(REFERENCE)
    lines = [
        [(name, False), *((text, False) for text in _latency_cells(ms, reference))]
        for name, ms in latencies.items()
    ]
    return Layout(["method", "ms, one thread", f"over {REFERENCE}"], lines)


def _latency_cells(ms: float | None, reference: float | None) -> tuple[str, str]:
    if ms is None:
        return "-", "-"
    return f"{ms:.2f}", f"{ms / reference:.1f}" if reference else ""
