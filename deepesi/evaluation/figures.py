"""Figures of the benchmark: curves along an axis, error against depth, maps of examples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from deepesi.contracts import magnitude
from deepesi.evaluation.benchmark import Cell, Row
from deepesi.evaluation.gallery import WorkedExample
from deepesi.evaluation.intervals import MIN_EXAMPLES, bootstrap_interval
from deepesi.evaluation.scores import METRICS
from deepesi.evaluation.table import TITLES
from deepesi.physics.template import DisplayMesh
from deepesi.viz.cortex import best_views, draw_cortex
from deepesi.viz.scalp import draw_scalp

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe & Ito's palette, told apart by colour-blind readers.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")
LINES = ("-", "--", ":")


def style(number: int) -> dict[str, str]:
    """Colour and line of a method by its number."""
    n = len(COLOURS)
    return {"color": COLOURS[number % n], "linestyle": LINES[number // n % len(LINES)]}


def axis_curves(rows: Sequence[Row]) -> Figure:
    """Every metric of the tables along the axis of one scenario, a band for the 95 % interval.

    One row of panels per SNR, where something else than the SNR varies.
    """
    swept_snr = rows[0].axis == "SNR (dB)"
    groups = [None] if swept_snr else list(dict.fromkeys(row.snr_db for row in rows))
    figure = Figure(figsize=(16, 3.8 * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), len(TITLES), squeeze=False)
    for line, snr_db in zip(panels, groups, strict=True):
        here = [row for row in rows if snr_db in (None, row.snr_db)]
        for ax, metric in zip(line, TITLES, strict=True):
            _curves(ax, [row for row in here if row.metric == metric])
            better = "higher" if METRICS[metric].higher_is_better else "lower"
            ax.set(xlabel=rows[0].axis, ylabel=f"{TITLES[metric]}, {better} is better")
            if not METRICS[metric].higher_is_better:
                ax.set_ylim(bottom=0)
            if snr_db is not None:
                ax.set_title(f"{snr_db:g} dB", fontsize=10)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=9)
    return figure


def _curves(ax: "Axes", rows: Sequence[Row]) -> None:
    levels = list(dict.fromkeys(row.level for row in rows))
    x = _places(levels)
    for number, method in enumerate(dict.fromkeys(row.method for row in rows)):
        own = {row.level: row for row in rows if row.method == method}
        drawn = [own[level] for level in levels if level in own]
        at = [place for level, place in zip(levels, x, strict=True) if level in own]
        look = style(number)
        ax.plot(at, [r.value for r in drawn], marker="o", markersize=4, label=method, **look)
        ends = np.array([(r.ci_low, r.ci_high) for r in drawn], dtype=float)  # None becomes NaN
        ax.fill_between(at, *ends.T, color=look["color"], alpha=0.15, linewidth=0)
    ax.set_xticks(x, levels, rotation=0 if max(map(len, levels)) < 6 else 20)
    ax.spines[["top", "right"]].set_visible(False)


def _places(levels: Sequence[str]) -> list[float]:
    """Where levels stand on an axis: numbers evenly spread to scale, all else in turn."""
    try:
        values = [float(level) for level in levels]
    except ValueError:
        return list(map(float, range(len(levels))))
    steps = np.diff(values)
    even = len(values) < 3 or steps.max() <= 3 * steps.min()
    return values if even else list(map(float, range(len(levels))))


def depth_curves(cell: Cell, n_bins: int = 5) -> Figure:
    """Localization error against the depth of the source, bins of as many examples each."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    ax = figure.subplots()
    methods = list(cell.scores)
    depth = np.array([score.depth_mm for score in cell.scores[methods[0]]])
    n_bins = max(1, min(n_bins, len(depth) // MIN_EXAMPLES))
    parts = np.array_split(np.argsort(depth, kind="stable"), n_bins)
    for number, method in enumerate(methods):
        errors = cell.values(method, "localization_error")
        middle = [depth[part].mean() for part in parts]
        ends = np.array([bootstrap_interval(errors[part]) for part in parts])
        look = style(number)
        means = [errors[part].mean() for part in parts]
        ax.plot(middle, means, marker="o", markersize=4, label=method, **look)
        ax.fill_between(middle, *ends.T, color=look["color"], alpha=0.15, linewidth=0)
    ax.set(xlabel="depth of the source below the scalp (mm)", ylabel="loc. error (mm)")
    ax.set_ylim(bottom=0)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    return figure


def example_figure(worked: WorkedExample, mesh: DisplayMesh) -> Figure:
    """Scalp map, true sources and each estimate on the cortex, each in its own colour range."""
    batch, head, n_orient = worked.batch, worked.batch.head, worked.batch.head.space.n_orient
    true = magnitude(batch.sources, n_orient)[0].double().numpy()
    maps = {"true": true} | {
        name: magnitude(e.mean, n_orient)[0].double().numpy()
        for name, e in worked.estimates.items()
    }
    peaks = batch.scene.peaks[0].numpy()
    peaks = peaks[peaks >= 0]
    views = best_views(int(true.argmax()), len(true), mesh)
    figure = Figure(figsize=(round(2.2 * (len(maps) + 1)), 4.6), layout="constrained")
    axes = figure.subplots(2, len(maps) + 1)
    eeg = batch.eeg[0].double().numpy()
    sample = int((eeg**2).sum(axis=0).argmax())
    draw_scalp(axes[0, 0], eeg[:, sample], head.sensor_pos, head.ch_names)
    axes[0, 0].set_title("scalp", fontsize=10)
    axes[1, 0].axis("off")
    for column, (name, values) in enumerate(maps.items(), start=1):
        for row, view in enumerate(views):
            draw_cortex(axes[row, column], values, mesh, view, float(values.max()), peaks)
        error = 1e3 * np.linalg.norm(head.source_pos[values.argmax()] - head.source_pos[peaks[0]])
        note = "" if name == "true" or len(peaks) > 1 else f"\npeak off by {error:.0f} mm"
        axes[0, column].set_title(_short(name) + note, fontsize=9)
    for row, view in enumerate(views):
        axes[row, 1].text(
            -0.02, 0.5, view, rotation=90, va="center", ha="right", fontsize=8,
            transform=axes[row, 1].transAxes,
        )  # fmt: skip
    return figure


def _short(name: str, width: int = 22) -> str:
    """A name that fits above its map: the end of a path tells more than its beginning."""
    return name if len(name) <= width else f"…{name[1 - width :]}"
