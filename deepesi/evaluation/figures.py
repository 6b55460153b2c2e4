"""Figures of the benchmark: curves along an axis and in bins, maps of examples and errors."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepesi.core.arrays import as_array
from deepesi.core.quantities import magnitude
from deepesi.evaluation.benchmark import Row
from deepesi.evaluation.gallery import WorkedExample
from deepesi.evaluation.intervals import MIN_EXAMPLES, bootstrap_interval
from deepesi.evaluation.source_sets import SourceSet, nearest_peak
from deepesi.metrics.moments import strongest_sample
from deepesi.metrics.table import IN_TABLES, METRICS
from deepesi.physics.graph import distances_mm
from deepesi.physics.template import DisplayMesh
from deepesi.viz.cortex import (
    DOTS,
    best_views,
    covering_views,
    draw_cortex,
    draw_dots,
    draw_parts,
)
from deepesi.viz.explanation import scalp_figure
from deepesi.viz.scalp import draw_scalp

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

#: Okabe & Ito's palette with a darker grey, distinct for colour-blind readers.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666", "#000000")
LINES = ("-", "--", ":", "-.")
#: Colour and line.
Style = tuple[str, str]
#: Caption and figure of one of several pictures that stand side by side.
Panel = tuple[str, Figure]


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Colour and line of every method, in their order."""
    n = len(COLOURS)
    return {
        method: (COLOURS[number % n], LINES[number // n % len(LINES)])
        for number, method in enumerate(dict.fromkeys(methods))
    }


def axis_panels(rows: Sequence[Row], method_styles: Mapping[str, Style]) -> Iterator[Panel]:
    """Every metric of the tables along the axis of one scenario, a band for the 95 % interval.

    One panel per metric, and per SNR where something else than the SNR varies.
    """
    swept_snr = rows[0].axis == "SNR (dB)"
    for snr_db in [None] if swept_snr else dict.fromkeys(row.snr_db for row in rows):
        for name in IN_TABLES:
            metric = METRICS[name]
            own = [r for r in rows if r.metric == name and snr_db in (None, r.snr_db)]
            figure, ax = _panel()
            _curves(ax, own, method_styles)
            ax.set(xlabel=rows[0].axis, ylabel=metric.label)
            if not metric.higher_is_better:
                ax.set_ylim(bottom=0)
            where = "" if snr_db is None else f" at {snr_db:g} dB"
            better = "higher" if metric.higher_is_better else "lower"
            yield f"{metric.label}{where}; {better} is better", figure


def _panel() -> tuple[Figure, "Axes"]:
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def _curves(ax: "Axes", rows: Sequence[Row], method_styles: Mapping[str, Style]) -> None:
    levels = list(dict.fromkeys(row.level for row in rows))
    x = _axis_positions(levels)
    for method in dict.fromkeys(row.method for row in rows):
        own = {row.level: row for row in rows if row.method == method}
        drawn = [own[level] for level in levels if level in own]
        at = [position for level, position in zip(levels, x, strict=True) if level in own]
        colour, line = method_styles[method]
        ax.plot(at, [r.value for r in drawn], line, marker="o", markersize=4, color=colour)
        ends = np.array([(r.ci_low, r.ci_high) for r in drawn], dtype=float)
        ax.fill_between(at, *ends.T, color=colour, alpha=0.15, linewidth=0)
    short = max(map(len, levels)) * len(levels) < 30
    ax.set_xticks(x, levels, rotation=0 if short else 30, ha="center" if short else "right")


def _axis_positions(levels: Sequence[str]) -> list[float]:
    """Positions of levels on an axis: to scale for evenly spread numbers, else equally spaced."""
    try:
        values = [float(level) for level in levels]
    except ValueError:
        return list(map(float, range(len(levels))))
    steps = np.diff(values)
    even = len(values) < 3 or steps.max() <= 3 * steps.min()
    return values if even else list(map(float, range(len(levels))))


def binned_panel(
    label: str,
    where: Array,
    values: Mapping[str, Array],
    method_styles: Mapping[str, Style],
    title: str,
    n_bins: int = 5,
) -> Figure:
    """A metric against a quantity of the source, in bins with equal numbers of examples.

    Too few examples for two bins are drawn one by one.

    Args:
        label: The quantity and its unit.
        where: Its value for the source of every example ``(n,)``.
        values: Metric of every example ``(n,)``, by method.
        method_styles: Colour and line of every method.
        title: Title of the metric.
        n_bins: Most bins; each holds as many examples as an interval needs, or more.

    """
    figure, ax = _panel()
    ax.set(xlabel=label, ylabel=title)
    n_bins = min(n_bins, len(where) // MIN_EXAMPLES)
    if n_bins < 2:
        for method, of_method in values.items():
            ax.plot(where, of_method, ".", markersize=5, color=method_styles[method][0])
        ax.set_ylim(bottom=0)
        return figure
    parts = np.array_split(np.argsort(where, kind="stable"), n_bins)
    middle = [where[part].mean() for part in parts]
    for method, of_method in values.items():
        own, (colour, line) = [of_method[part] for part in parts], method_styles[method]
        ends = np.array([bootstrap_interval(some) for some in own], dtype=float)  # None: NaN
        means = [some.mean() for some in own]
        ax.plot(middle, means, line, marker="o", markersize=4, color=colour)
        ax.fill_between(middle, *ends.T, color=colour, alpha=0.15, linewidth=0)
    ax.set_ylim(bottom=0)
    return figure


def source_panels(
    sources: NDArray[np.int64],
    values: Mapping[str, Array],
    mesh: DisplayMesh,
    title: str,
) -> Iterator[Panel]:
    """Each method's value at every true source as a dot on the cortex, in one colour range.

    Args:
        sources: Numbers of the true sources ``(N,)``; the mean is drawn where one comes twice.
        values: Metric there ``(N,)``, by method.
        mesh: Cortex to draw on.
        title: Title of the metric.

    """
    drawn, which = np.unique(sources, return_inverse=True)
    count = np.bincount(which)
    means = {m: np.bincount(which, own) / count for m, own in values.items()}
    top = float(np.quantile(np.concatenate(list(means.values())), 0.98)) or 1.0
    yield (
        f"{title}: one colour scale for all maps; larger values in its last colour",
        _colours(top, title),
    )
    for method, own in means.items():
        figure = Figure(figsize=(3.3, 2.7), layout="constrained")
        axes = figure.subplots(2, 2)
        for row, side in enumerate(("lateral", "medial")):
            for column, hemisphere in enumerate(("left", "right")):
                view = f"{hemisphere} {side}"
                draw_dots(axes[row, column], drawn, own, mesh, view, top)
                axes[row, column].set_title(view, fontsize=8)
        yield f"{method}: mean {own.mean():.1f}", figure


def _colours(top: float, title: str) -> Figure:
    figure = Figure(figsize=(3.3, 0.8), layout="constrained")
    scale = ScalarMappable(Normalize(0, top), DOTS)
    figure.colorbar(scale, cax=figure.subplots(), orientation="horizontal", label=title)
    return figure


def example_panels(worked: WorkedExample, mesh: DisplayMesh) -> Iterator[Panel]:
    """Scalp map, true sources and each estimate on the cortex, each in its own colour range."""
    batch, head, n_orient = worked.batch, worked.batch.head, worked.batch.head.space.n_orient
    true = as_array(magnitude(batch.sources, n_orient)[0])
    peaks, several = worked.peaks, len(worked.peaks) > 1
    views = best_views(int(true.argmax()), mesh)
    if several:
        views = covering_views(peaks, mesh, 2)
    data = as_array(batch.data[0])
    scalp = Figure(figsize=(1.9, 1.9), layout="constrained")
    rows = head.sensors.map_rows
    sensors = head.sensors[rows]
    values = data[rows, strongest_sample(data)]
    draw_scalp(scalp.subplots(), values, sensors.positions, sensors.names)
    yield "scalp", scalp
    yield f"true sources; above {views[0]}, below {views[1]}", _cortices(true, mesh, views, peaks)
    if several:
        yield from _true_source_panels(true, peaks, head.source_pos, mesh)
    for name, estimate in worked.estimates.items():
        values = as_array(magnitude(estimate.mean, n_orient)[0])
        off = distances_mm(head.source_pos[[values.argmax()]], head.source_pos[peaks[:1]])
        note = "" if len(peaks) > 1 else f": peak {off.item():.0f} mm off"
        yield f"{name}{note}", _cortices(values, mesh, views, peaks)
        if name in worked.sets:
            found = worked.sets[name]
            yield _set_text(name, found, peaks), _parts(found, mesh, views, peaks)


def _true_source_panels(
    true: Array, peaks: NDArray[np.int64], positions: Array, mesh: DisplayMesh
) -> Iterator[Panel]:
    """Each true source by itself: what of the target is nearest to it."""
    nearest = nearest_peak(positions, peaks)
    for number, peak in enumerate(peaks.tolist()):
        views = best_views(peak, mesh)
        own = np.where(nearest == number, true, 0.0)
        caption = f"true source {number + 1}; above {views[0]}, below {views[1]}"
        yield caption, _cortices(own, mesh, views, peaks)


def _set_text(name: str, found: SourceSet, peaks: NDArray[np.int64]) -> str:
    """Caption of a set: its kind, its size, and which true sources are in it."""
    held = [str(number + 1) for number in np.flatnonzero(found.held(peaks)).tolist()]
    several = "s" if len(held) > 1 else ""
    which = f"holds true source{several} {' and '.join(held)}" if held else "holds no true source"
    parts = "1 part" if len(found.parts) == 1 else f"{len(found.parts)} parts"
    return f"{name}: {found.kind}, {parts}, {found.area_cm2:.0f} cm²; {which}"


def _parts(
    found: SourceSet, mesh: DisplayMesh, views: Sequence[str], peaks: NDArray[np.int64]
) -> Figure:
    """The parts of a set from two sides, one below the other."""
    figure = Figure(figsize=(1.9, 3.0), layout="constrained")
    for ax, view in zip(figure.subplots(2, 1), views, strict=True):
        draw_parts(ax, found.parts, mesh, view, peaks)
    return figure


def explanation_panels(worked: WorkedExample) -> Iterator[Panel]:
    """Scalp map of what the localization depends on, for every method that is explained."""
    rows = worked.batch.head.sensors.map_rows
    sensors = worked.batch.head.sensors[rows]
    units = {"saliency": "% per noise SD", "occlusion": "%"}
    for name, (method, values, _) in worked.explanations.items():
        if values is not None:
            figure = scalp_figure(values[rows], sensors.positions, sensors.names, units[method])
            yield f"{name}, {method}", figure


def _cortices(
    values: Array, mesh: DisplayMesh, views: Sequence[str], peaks: NDArray[np.int64]
) -> Figure:
    """A map from two sides, one below the other."""
    figure = Figure(figsize=(1.9, 3.0), layout="constrained")
    for ax, view in zip(figure.subplots(2, 1), views, strict=True):
        draw_cortex(ax, values, mesh, view, float(values.max()), peaks, len(peaks) > 1)
    return figure
