"""The benchmark as a table for the terminal and for the report."""

from collections.abc import Callable, Sequence

from rich.box import SIMPLE
from rich.table import Table

from deepesi.evaluation.benchmark import METRICS, REFERENCE, Row

#: Title and decimals of each metric.
TITLES = {
    "localization_error": "loc. error (mm)",
    "nemd": "nEMD",
    "auc": "AUC",
    "spatial_dispersion": "dispersion (mm)",
}
DECIMALS = {"localization_error": 1, "nemd": 3, "auc": 3, "spatial_dispersion": 1}


def best_method(rows: Sequence[Row], metric: str) -> str | None:
    """The best method of rows of one SNR, if its interval leaves all others' behind."""
    sign = -1 if METRICS[metric].higher_is_better else 1
    first, *others = sorted(
        (row for row in rows if row.metric == metric), key=lambda row: sign * row.value
    )
    worst_end = first.ci_low if sign < 0 else first.ci_high
    clear = all(
        sign * worst_end < sign * (row.ci_high if sign < 0 else row.ci_low) for row in others
    )
    return first.method if others and clear else None


def cell(row: Row) -> str:
    """``mean [low, high]``."""
    return _interval(row.metric, "", row.value, row.ci_low, row.ci_high)


def difference_cell(row: Row) -> str:
    """``mean [low, high]`` of the paired difference to the reference."""
    assert row.difference is not None
    assert row.difference_low is not None
    assert row.difference_high is not None
    return _interval(row.metric, "+", row.difference, row.difference_low, row.difference_high)


def _interval(metric: str, sign: str, *values: float) -> str:
    value, low, high = (f"{x:{sign}.{DECIMALS[metric]}f}" for x in values)
    return f"{value} [{low}, {high}]"


def is_better(row: Row) -> bool:
    """Whether the whole interval of the difference is on the better side of the reference."""
    if row.difference_low is None or row.difference_high is None:
        return False
    return (
        row.difference_low > 0 if METRICS[row.metric].higher_is_better else row.difference_high < 0
    )


def layout(rows: Sequence[Row]) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """Header and lines ``(text, is best)``: one line per SNR and method."""
    best = {
        (snr_db, metric): best_method([row for row in rows if row.snr_db == snr_db], metric)
        for snr_db in {row.snr_db for row in rows}
        for metric in METRICS
    }
    return _lines(rows, cell, lambda row: best[row.snr_db, row.metric] == row.method)


def differences(rows: Sequence[Row]) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """As `layout`, of the paired differences to the reference; no lines without one."""
    compared = [row for row in rows if row.difference is not None and row.method != REFERENCE]
    return _lines(compared, difference_cell, is_better)


def _lines(
    rows: Sequence[Row], text: Callable[[Row], str], is_marked: Callable[[Row], bool]
) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    header = ["SNR (dB)", "method", *(TITLES[m] for m in METRICS)]
    lines = []
    for snr_db in dict.fromkeys(row.snr_db for row in rows):
        here = [row for row in rows if row.snr_db == snr_db]
        for method in dict.fromkeys(row.method for row in here):
            own = {row.metric: row for row in here if row.method == method}
            cells = ((text(own[m]), is_marked(own[m])) for m in METRICS)
            lines.append([(f"{snr_db:g}", False), (method, False), *cells])
    return header, lines


def rich_table(rows: Sequence[Row]) -> Table:
    """For the terminal; bold where a method is best beyond the intervals."""
    header, lines = layout(rows)
    table = Table(
        title="mean [95 % bootstrap interval]; bold: best, intervals do not overlap", box=SIMPLE
    )
    for number, title in enumerate(header):
        table.add_column(title, justify="left" if number == 1 else "right", no_wrap=True)
    previous = None
    for line in lines:
        if previous not in (None, line[0][0]):
            table.add_section()
        previous = line[0][0]
        table.add_row(*(f"[bold]{text}[/bold]" if best else text for text, best in line))
    return table


def html_table(rows: Sequence[Row]) -> str:
    """For the report."""
    compared = differences(rows)
    return (
        "<p>Mean [95 % bootstrap interval over examples]; bold: best, and its interval does not "
        f"overlap any other.</p>{_html(*layout(rows))}"
    ) + (
        f"<p>Difference to {REFERENCE} on the same examples, mean [95 % bootstrap interval]; bold: "
        f"better, and the interval excludes 0.</p>{_html(*compared)}"
        if compared[1]
        else ""
    )


def _html(header: Sequence[str], lines: Sequence[Sequence[tuple[str, bool]]]) -> str:
    head = "".join(f"<th>{title}</th>" for title in header)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{'<b>' + t + '</b>' if best else t}</td>" for t, best in line)
        + "</tr>"
        for line in lines
    )
    return (
        f"<table class='table table-sm'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
