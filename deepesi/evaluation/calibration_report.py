"""``calibration.html``: reliability by kind of source, coverage and area of prediction sets."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from deepesi.evaluation.calibration import (
    ALL,
    MEASURED,
    PREDICTION_SET,
    UNLIKE,
    WIDTH_LEVEL,
    CalibrationRow,
    cell,
)
from deepesi.evaluation.figures import Panel, Style, styles
from deepesi.evaluation.intervals import MIN_EXAMPLES
from deepesi.evaluation.observation import N_DRAWS, RANKED
from deepesi.evaluation.table import Layout, markdown_table
from deepesi.metrics.calibration import GROUPS
from deepesi.viz.page import html_table, key, tiles, write_page

TITLES = {
    "none": "as claimed",
    "temperature": "temperature",
    "isotonic": "isotonic",
    "balanced": "balanced",
}
RECALIBRATIONS = styles(TITLES)
PREDICTION_SETS = (
    "Share of recordings whose prediction set holds the source, and mean area of the sets [95 % "
    f"interval: exact; of areas by bootstrap, [-]: fewer than {MIN_EXAMPLES} recordings, or all "
    "alike]."
)
DEVIATIONS = (
    "Mean absolute deviation of coverage from its level, by kind of source [95 % interval over "
    f"recordings; [-]: fewer than {MIN_EXAMPLES}] (mean signed deviation; negative: intervals too "
    f"narrow). Width: of the {100 * WIDTH_LEVEL:g} % intervals of active sources, over the largest "
    "true moment."
)
UNIFORMITY = (
    f"Simulation-based calibration: p value of a test that the rank of the target among {N_DRAWS} "
    "posterior samples is uniform, as it is if the posterior is right. Ranked are the moment of "
    "the strongest dipole, the norm of the map, and its distance from the map of another recording "
    "(expected coverage, TARP). Below 0.05 divided by the number of p values: the posterior is "
    "wrong. Deviation: of expected coverage from its level, mean over levels. Contraction: one "
    "minus the variance of the samples over that of the target among the recordings, both relative "
    "to the noise; 1 where all is known. Z-score: mean of the samples minus target, over their "
    "standard deviation; root mean square over the recordings, about 1, more where samples are too "
    "narrow."
)
SCORES = (
    "Proper scores of the uncertainty, lower is better [95 % interval over recordings; [-]: fewer "
    f"than {MIN_EXAMPLES}]: CRPS of single dipole moments, energy score of whole maps (of samples "
    "only), log score of what was simulated (of models with a density only)."
)
UNLIKE_OTHERS = (
    f"Share of recordings of which the estimate leaves more power than of {100 - 100 * UNLIKE:g} % "
    f"of the validation recordings of like SNR [95 % interval]. About {UNLIKE:g} where they are "
    "like those; more: the head, the noise or the sources are others."
)
#: Pixels of a panel, and between the points of two methods, dB.
CURVE, SHIFT = 325, 0.25


def _pick(rows: Sequence[CalibrationRow], **wanted: str) -> list[CalibrationRow]:
    return [r for r in rows if all(getattr(r, key) == value for key, value in wanted.items())]


def reliability_panels(rows: Sequence[CalibrationRow], method: str) -> Iterator[Panel]:
    """Observed against nominal coverage of one method, all SNRs, one panel per kind of source."""
    for group in GROUPS:
        figure = Figure(figsize=(3.3, 3.3), layout="constrained")
        ax = figure.subplots()
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
        for name, (colour, line) in RECALIBRATIONS.items():
            own = _pick(
                rows, method=method, snr_db=ALL, group=group, recalibration=name, metric="coverage"
            )
            x, y = np.array([(r.level, r.value) for r in own], dtype=float).reshape(-1, 2).T
            ax.plot(x, y, line, marker="o", color=colour, markersize=4)
            ax.fill_between(
                x,
                *np.array([(r.ci_low, r.ci_high) for r in own], dtype=float).T,
                color=colour,
                alpha=0.15,
            )
        ax.set(xlabel="nominal level", ylabel="share inside")
        ax.set(xlim=(0, 1), ylim=(-0.02, 1.02), aspect=1)
        ax.spines[["top", "right"]].set_visible(False)
        yield f"{group} sources", figure


def prediction_set_panels(
    rows: Sequence[CalibrationRow], method_styles: Mapping[str, Style]
) -> Iterator[Panel]:
    """Coverage and area of the prediction sets of every method against SNR."""
    prediction_sets = [row for row in _pick(rows, group=PREDICTION_SET) if row.snr_db != ALL]
    for metric, title in (("coverage", "sets that hold the source"), ("area_cm2", "mean area")):
        figure = Figure(figsize=(4.2, 3.2), layout="constrained")
        ax = figure.subplots()
        for number, (method, style) in enumerate(method_styles.items()):
            offset = SHIFT * (number - (len(method_styles) - 1) / 2)
            _points(ax, _pick(prediction_sets, method=method, metric=metric), offset, style)
        if metric == "coverage":
            level = prediction_sets[0].level
            assert level is not None
            ax.axhline(level, color="0.6", linewidth=1, linestyle="--")
            ax.set(ylabel=title, ylim=(min(0.7, ax.get_ylim()[0]), 1.0))
        else:
            ax.set(ylabel=f"{title} (cm²), logarithmic", yscale="log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_locator(NullLocator())
            areas = [row.value for row in _pick(prediction_sets, metric=metric)]
            ax.set_ylim(min(areas) / 2.5, 2.5 * max(areas))  # so that two ticks at least are seen
        ax.set_xlabel("SNR (dB)")
        ax.set_xticks(sorted({float(row.snr_db) for row in prediction_sets}))
        ax.spines[["top", "right"]].set_visible(False)
        yield title, figure


def tarp_panels(
    rows: Sequence[CalibrationRow], method_styles: Mapping[str, Style]
) -> Iterator[Panel]:
    """Expected coverage of posterior models against its level, all SNRs."""
    figure = Figure(figsize=(3.3, 3.3), layout="constrained")
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    for method, (colour, line) in method_styles.items():
        own = _pick(rows, method=method, snr_db=ALL, metric="tarp_coverage")
        values = np.array([(r.level, r.value, r.ci_low, r.ci_high) for r in own], dtype=float)
        level, share, low, high = values.reshape(-1, 4).T
        ax.plot(level, share, line, marker="o", color=colour, markersize=4)
        ax.fill_between(level, low, high, color=colour, alpha=0.15)
    ax.set(xlabel="nominal level", ylabel="covered (TARP)")
    ax.set(xlim=(0, 1), ylim=(-0.02, 1.02), aspect=1)
    ax.spines[["top", "right"]].set_visible(False)
    yield "expected coverage, all SNRs", figure


def unlike_panels(
    rows: Sequence[CalibrationRow], method_styles: Mapping[str, Style]
) -> Iterator[Panel]:
    """Share of recordings that are unlike those of validation, against SNR."""
    found = [row for row in _pick(rows, metric="misspecified") if row.snr_db != ALL]
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    ax = figure.subplots()
    for number, (method, style) in enumerate(method_styles.items()):
        offset = SHIFT * (number - (len(method_styles) - 1) / 2)
        _points(ax, _pick(found, method=method), offset, style)
    ax.axhline(UNLIKE, color="0.6", linewidth=1, linestyle="--")
    ax.set(xlabel="SNR (dB)", ylabel="unlike validation")
    ax.set_ylim(0, max(0.2, ax.get_ylim()[1]))
    ax.set_xticks(sorted({float(row.snr_db) for row in found}))
    ax.spines[["top", "right"]].set_visible(False)
    yield "share of recordings", figure


def _points(ax: Axes, rows: Sequence[CalibrationRow], offset: float, style: Style) -> None:
    x = [float(row.snr_db) + offset for row in rows]
    values = np.array([row.value for row in rows])
    low, high = np.array([(row.ci_low, row.ci_high) for row in rows], dtype=float).T
    ax.errorbar(
        x,
        values,
        [values - low, high - values],
        marker="o",
        color=style[0],
        linestyle=style[1],
        markersize=4,
        linewidth=1,
        capsize=2,
    )


def deviation_layout(rows: Sequence[CalibrationRow]) -> Layout:
    """Mean absolute (signed) deviation of coverage and width of the 90 % interval, all SNRs."""
    header, lines = ["method", "recalibration", *GROUPS, "width, active"], []
    for method in dict.fromkeys(row.method for row in rows):
        for name, title in TITLES.items():
            own = _pick(rows, method=method, snr_db=ALL, recalibration=name)
            value = {(r.group, r.metric): r for r in own if r.group in GROUPS}
            if not value:
                continue
            cells = [method, title]
            for group in GROUPS:
                off, sign = value[group, "deviation"], value[group, "signed_deviation"]
                cells.append(f"{cell(off, 3)} ({sign.value:+.3f})")
            cells.append(f"{value['active', 'width'].value:.2f}")
            lines.append([(text, False) for text in cells])
    return Layout(header, lines)


def prediction_set_layout(rows: Sequence[CalibrationRow]) -> Layout:
    """Coverage and mean area of the prediction sets by SNR."""
    prediction_sets = _pick(rows, group=PREDICTION_SET)
    header, lines = ["method", "SNR (dB)", "coverage", "mean area (cm²)"], []
    for coverage in _pick(prediction_sets, metric="coverage"):
        (area,) = _pick(
            prediction_sets, method=coverage.method, snr_db=coverage.snr_db, metric="area_cm2"
        )
        cells = (
            coverage.method,
            coverage.snr_db,
            cell(coverage, 3),
            cell(area, 1),
        )
        lines.append([(text, False) for text in cells])
    return Layout(header, lines)


def uniformity_layout(rows: Sequence[CalibrationRow]) -> Layout:
    """P values of simulation-based calibration by SNR; without lines if no model draws samples."""
    lines = []
    for first in _pick(rows, metric="sbc_p", group=RANKED[0]):
        own = {"method": first.method, "snr_db": first.snr_db, "metric": "sbc_p"}
        values = [row.value for group in RANKED for row in _pick(rows, group=group, **own)]
        (off,) = _pick(rows, **own | {"metric": "tarp_deviation"})
        pairs = [
            by_quantity(rows, first.method, first.snr_db, metric, 2)
            for metric in ("contraction", "z_score")
        ]
        numbers = *(f"{value:.2g}" for value in values), f"{off.value:.3f}", *pairs, str(first.n)
        lines.append([(text, False) for text in (first.method, first.snr_db, *numbers)])
    ranked = [f"p, {name}" for name in RANKED]
    pairs = [f"{title}, {' / '.join(MEASURED)}" for title in ("contraction", "z-score")]
    return Layout(["method", "SNR (dB)", *ranked, "deviation", *pairs, "recordings"], lines)


def by_quantity(
    rows: Sequence[CalibrationRow], method: str, snr_db: str, metric: str, decimals: int
) -> str:
    """Values of a metric of the `MEASURED` quantities of samples; ``-`` where there is none."""
    found = {r.group: r.value for r in _pick(rows, method=method, snr_db=snr_db, metric=metric)}
    return " / ".join(f"{found[g]:.{decimals}f}" if g in found else "-" for g in MEASURED)


def scores_layout(rows: Sequence[CalibrationRow]) -> Layout:
    """Proper scores by SNR; without lines if no method has an uncertainty."""
    decimals = {"crps": 3, "energy_score": 2, "log_score": 2}
    lines = []
    for first in _pick(rows, metric="crps"):
        own = {r.metric: r for r in _pick(rows, method=first.method, snr_db=first.snr_db)}
        cells = [cell(own[name], n) if name in own else "-" for name, n in decimals.items()]
        lines.append([(text, False) for text in (first.method, first.snr_db, *cells)])
    titles = ["CRPS (nA m)", "energy score (nA m)", "log score (nats)"]
    return Layout(["method", "SNR (dB)", *titles], lines)


def unlike_layout(rows: Sequence[CalibrationRow]) -> Layout:
    """Share of recordings that are unlike those of validation, by method and SNR."""
    own_rows = _pick(rows, metric="misspecified")
    levels = list(dict.fromkeys(row.snr_db for row in own_rows))
    lines = []
    for method in dict.fromkeys(row.method for row in own_rows):
        own = {row.snr_db: cell(row, 3) for row in _pick(own_rows, method=method)}
        lines.append([(text, False) for text in (method, *(own[level] for level in levels))])
    header = ["method", *(level if level == ALL else f"{level} dB" for level in levels)]
    return Layout(header, lines)


def calibration_markdown(rows: Sequence[CalibrationRow]) -> str:
    """The tables of the page as Markdown, for the card of an exported file."""
    parts = [
        f"{text}\n\n{markdown_table(layout)}"
        for text, layout in (
            (PREDICTION_SETS, prediction_set_layout(rows)),
            (DEVIATIONS, deviation_layout(rows)),
            (SCORES, scores_layout(rows)),
            (UNIFORMITY, uniformity_layout(rows)),
            (UNLIKE_OTHERS, unlike_layout(rows)),
        )
        if layout.lines
    ]
    return "\n\n".join(parts)


def sections(rows: Sequence[CalibrationRow]) -> Iterator[tuple[str, str]]:
    """Headings and what stands under them, HTML.

    Args:
        rows: Rows of all methods, from `deepesi.evaluation.calibration.measure`.

    """
    method_styles = styles(row.method for row in rows)
    text = f"{PREDICTION_SETS} Bars: 95 % intervals. Dashed: the probability asked for."
    layout = prediction_set_layout(rows)
    yield (
        "Prediction sets",
        _section(text, method_styles, prediction_set_panels(rows, method_styles), layout),
    )
    scores = scores_layout(rows)
    if scores.lines:
        yield "Scores", f"<p>{SCORES}</p>{html_table(*scores)}"
    uniformity = uniformity_layout(rows)
    if uniformity.lines:
        drawing = {
            m: s for m, s in method_styles.items() if _pick(rows, method=m, metric="tarp_coverage")
        }
        text = f"{UNIFORMITY} Below the diagonal of the figure: the posterior is too narrow."
        yield "Posterior samples", _section(text, drawing, tarp_panels(rows, drawing), uniformity)
    unlike = unlike_layout(rows)
    if unlike.lines:
        yield (
            "Other recordings",
            _section(UNLIKE_OTHERS, method_styles, unlike_panels(rows, method_styles), unlike),
        )
    claiming = list(dict.fromkeys(r.method for r in rows if r.group in GROUPS))
    if not claiming:
        return
    parts = [
        f"<p>{DEVIATIONS} In the figures, below the diagonal: intervals too narrow; bands: 95 % "
        "intervals.</p>",
        html_table(*deviation_layout(rows)),
        key({TITLES[name]: style for name, style in RECALIBRATIONS.items()}),
    ]
    for method in claiming:
        parts.append(f"<h3>{escape(method)}</h3>{tiles(reliability_panels(rows, method), CURVE)}")
    yield "Intervals", "".join(parts)


def _section(
    text: str, drawing: Mapping[str, Style], panels: Iterator[Panel], layout: Layout
) -> str:
    """A text, the key of the styles, figures and a table, HTML."""
    return f"<p>{text}</p>{key(drawing)}{tiles(panels, CURVE)}{html_table(*layout)}"


def write_report(rows: Sequence[CalibrationRow], facts: Mapping[str, str], path: Path) -> None:
    """Write the report, whole or not at all.

    Args:
        rows: Rows of all methods, from `deepesi.evaluation.calibration.measure`.
        facts: What to state at the top: name to text.
        path: ``.html`` file.

    """
    write_page(path, "deepesi calibration", facts, [], dict(sections(rows)))
