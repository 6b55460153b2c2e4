"""``calibration.html``: reliability by kind of source, coverage and area of region sets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepesi.evaluation.calibration import ALL, CalibrationRow, interval_text
from deepesi.evaluation.figures import COLOURS
from deepesi.evaluation.table import Layout, facts_table, html_table
from deepesi.metrics.calibration import GROUPS
from deepesi.physics.files import atomic

if TYPE_CHECKING:
    import mne

TITLES = {
    "none": "as claimed",
    "temperature": "temperature",
    "isotonic": "isotonic",
    "balanced": "balanced",
}


def _pick(rows: Sequence[CalibrationRow], **wanted: str) -> list[CalibrationRow]:
    return [r for r in rows if all(getattr(r, key) == value for key, value in wanted.items())]


def reliability_figure(rows: Sequence[CalibrationRow], method: str) -> Figure:
    """Observed against nominal coverage of one method, all SNRs, one panel per kind of source."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    for ax, group in zip(figure.subplots(1, 3, sharey=True), GROUPS, strict=True):
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
        for colour, (name, title) in zip(COLOURS, TITLES.items(), strict=False):
            own = _pick(
                rows, method=method, snr_db=ALL, group=group, recalibration=name, metric="coverage"
            )
            x, y = [r.level for r in own], [r.value for r in own]
            ax.plot(x, y, "o-", color=colour, markersize=4, label=title)
            ax.fill_between(
                x, *np.array([(r.ci_low, r.ci_high) for r in own], dtype=float).T, color=colour,
                alpha=0.15,
            )  # fmt: skip
        ax.set(xlabel="nominal level", title=group, xlim=(0, 1), ylim=(-0.02, 1.02), aspect=1)
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("share inside")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right upper", frameon=False)
    return figure


def region_figure(rows: Sequence[CalibrationRow]) -> Figure:
    """Coverage and area of the region sets of every method against SNR."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    methods = list(dict.fromkeys(row.method for row in rows))
    regions = [row for row in _pick(rows, group="region") if row.snr_db != ALL]
    shift = 0.25
    for number, method in enumerate(methods):
        colour = COLOURS[number % len(COLOURS)]
        offset = shift * (number - (len(methods) - 1) / 2)
        for ax, metric in zip(axes, ("coverage", "area_cm2"), strict=True):
            own = _pick(regions, method=method, metric=metric)
            _points(ax, own, offset, colour, method)
    level = regions[0].level
    assert level is not None
    axes[0].axhline(level, color="0.6", linewidth=1, linestyle="--")
    axes[0].set(ylabel="sets that hold the source", ylim=(min(0.7, axes[0].get_ylim()[0]), 1.0))
    axes[1].set(ylabel="mean area (cm²), logarithmic", yscale="log")
    for ax in axes:
        ax.set_xlabel("SNR (dB)")
        ax.set_xticks(sorted({float(row.snr_db) for row in regions}))
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def _points(
    ax: Axes, rows: Sequence[CalibrationRow], offset: float, colour: str, label: str
) -> None:
    x = [float(row.snr_db) + offset for row in rows]
    values = np.array([row.value for row in rows])
    low, high = np.array([(row.ci_low, row.ci_high) for row in rows], dtype=float).T
    ax.errorbar(
        x, values, [values - low, high - values], fmt="o-", color=colour, label=label,
        markersize=4, linewidth=1, capsize=2,
    )  # fmt: skip


def deviation_table(rows: Sequence[CalibrationRow]) -> str:
    """Mean absolute (signed) deviation of coverage and width of the 90 % interval, all SNRs."""
    header, lines = ["method", "recalibration", *GROUPS, "width, active"], []
    for method in dict.fromkeys(row.method for row in rows):
        for name, title in TITLES.items():
            own = _pick(rows, method=method, snr_db=ALL, recalibration=name)
            value = {(r.group, r.metric): r for r in own}
            if not own:
                continue
            cells = [method, title]
            for group in GROUPS:
                off, sign = value[group, "deviation"], value[group, "signed_deviation"]
                cells.append(f"{interval_text(off, 3)} ({sign.value:+.3f})")
            cells.append(f"{value['active', 'width'].value:.2f}")
            lines.append([(cell, False) for cell in cells])
    return html_table(Layout(header, lines))


def region_table(rows: Sequence[CalibrationRow]) -> str:
    """Coverage and mean area of the region sets by SNR."""
    regions = _pick(rows, group="region")
    header, lines = ["method", "SNR (dB)", "coverage", "mean area (cm²)"], []
    for coverage in _pick(regions, metric="coverage"):
        (area,) = _pick(regions, method=coverage.method, snr_db=coverage.snr_db, metric="area_cm2")
        cells = (
            coverage.method, coverage.snr_db,
            interval_text(coverage, 3), interval_text(area, 1),
        )  # fmt: skip
        lines.append([(cell, False) for cell in cells])
    return html_table(Layout(header, lines))


def add_panels(
    report: "mne.Report", rows: Sequence[CalibrationRow], section: str | None = None
) -> None:
    """Add tables and figures to a report.

    Args:
        report: To add to.
        rows: Of `deepesi.evaluation.calibration.measure`, all methods.
        section: Of the report they go to.

    """
    report.add_html(
        "<p>Share of recordings whose set holds the truth, and how large the sets are.</p>"
        + region_table(rows),
        title="Region sets",
        section=section,
    )
    report.add_figure(
        region_figure(rows),
        title="Region sets against SNR",
        caption="Bars: 95 % intervals, exact for coverage, bootstrap for area. Dashed: asked for.",
        section=section,
    )
    claiming = list(dict.fromkeys(r.method for r in rows if r.group in GROUPS))
    if claiming:
        report.add_html(
            "<p>Mean absolute deviation of coverage from its level [95 % interval over "
            "recordings] (mean signed deviation; negative: intervals too narrow).</p>"
            + deviation_table(rows),
            title="Intervals",
            section=section,
        )
    for method in claiming:
        report.add_figure(
            reliability_figure(rows, method),
            title=f"Reliability: {method}",
            caption="Below the diagonal: intervals too narrow. Bands: 95 % bootstrap intervals.",
            section=section,
        )


def write_report(rows: Sequence[CalibrationRow], facts: Mapping[str, str], path: Path) -> None:
    """Write the report, whole or not at all.

    Args:
        rows: Of `deepesi.evaluation.calibration.measure`, all methods.
        facts: What to state at the top: name to text.
        path: ``.html`` file.

    """
    import mne

    report = mne.Report(title="deepesi calibration", image_format="png", verbose="error")
    report.add_html(facts_table(facts), title="What was measured")
    add_panels(report, rows)
    with atomic(path) as partial:
        report.save(partial, open_browser=False, verbose="error")
