"""The benchmark as a table for the terminal and for the report."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table

from deepesi.evaluation.benchmark import METRICS, Row

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
    value, low, high = (
        f"{x:.{DECIMALS[row.metric]}f}" for x in (row.value, row.ci_low, row.ci_high)
    )
    return f"{value} [{low}, {high}]"


def layout(rows: Sequence[Row]) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """Header and lines ``(text, is best)``: one line per SNR and method."""
    header = ["SNR (dB)", "method", *(TITLES[m] for m in METRICS)]
    lines = []
    for snr_db in dict.fromkeys(row.snr_db for row in rows):
        here = [row for row in rows if row.snr_db == snr_db]
        best = {metric: best_method(here, metric) for metric in METRICS}
        for method in dict.fromkeys(row.method for row in here):
            own = {row.metric: row for row in here if row.method == method}
            lines.append(
                [
                    (f"{snr_db:g}", False),
                    (method, False),
                    *((cell(own[m]), best[m] == method) for m in METRICS),
                ]
            )
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
    header, lines = layout(rows)
    head = "".join(f"<th>{title}</th>" for title in header)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{'<b>' + t + '</b>' if best else t}</td>" for t, best in line)
        + "</tr>"
        for line in lines
    )
    return (
        "<p>Mean [95 % bootstrap interval over examples]; bold: best, and its interval does not "
        f"overlap any other.</p><table class='table table-sm'><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )
