"""Pictures of estimates of real recordings: over time against the baseline, and on the cortex."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepesi.physics.template import DisplayMesh
from deepesi.viz.cortex import best_views, draw_cortex, draw_projections

Array = NDArray[np.float64]

#: Okabe & Ito's palette, told apart by colour-blind readers.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")
BASELINE, WINDOW = "0.93", "#fff0c2"


def course_figure(
    times: Array,
    power: Array,
    window: tuple[float, float],
    distances: Mapping[str, Array],
    target: str,
) -> Figure:
    """Whitened power, and how far each method's strongest source is from its target.

    Args:
        times: ``(T,)``, s; the stimulus is at 0.
        power: Whitened power, 1 for noise ``(T,)``.
        window: Where the response is expected, s.
        distances: Name of a method to ``(T,)``, mm.
        target: What the distance is to.

    """
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.4])
    for ax in (above, below):
        ax.axvspan(1e3 * times[0], 0, color=BASELINE, zorder=0, linewidth=0)
        ax.axvspan(1e3 * window[0], 1e3 * window[1], color=WINDOW, zorder=0, linewidth=0)
        ax.spines[["top", "right"]].set_visible(False)
    above.plot(1e3 * times, power, color="0.2", linewidth=1)
    above.axhline(1, color="0.5", linestyle="--", linewidth=0.8)
    above.set(ylabel="whitened power\n(1: noise)", ylim=(0, None), xlim=1e3 * times[[0, -1]])
    above.set_title("grey: baseline; yellow: window of the response", fontsize=9, loc="left")
    for number, (name, distance) in enumerate(distances.items()):
        colour = COLOURS[number % len(COLOURS)]
        below.plot(1e3 * times, distance, ".", color=colour, markersize=3.5, label=name)
    below.set(xlabel="time (ms)", ylabel="strongest source\nto target (mm)", ylim=(0, None))
    below.set_title(f"target: {target}", fontsize=9, loc="left")
    below.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=3)
    return figure


def cortex_figure(maps: Mapping[str, Array], mesh: DisplayMesh, views: tuple[str, str]) -> Figure:
    """Magnitudes of every method, each in its own colour range, ring at its strongest source.

    Args:
        maps: Title to magnitudes ``(S,)``, A m.
        mesh: Cortex to draw on.
        views: Two views to show of all; below them the one that shows each peak most directly.

    """
    figure = Figure(figsize=(round(2.9 * max(len(maps), 2)), 7.6), layout="constrained")
    axes = figure.subplots(3, len(maps), squeeze=False)
    for column, (title, values) in enumerate(maps.items()):
        peak = int(values.argmax())
        shown = (*views, best_views(peak, len(values), mesh, 1)[0])
        for ax, view in zip(axes[:, column], shown, strict=True):
            draw_cortex(ax, values, mesh, view, float(values.max()), np.array([peak]))
            ax.set_title(view, fontsize=8)
        axes[0, column].set_title(f"{title}\n{shown[0]}", fontsize=9)
        axes[2, column].set_title(f"at the peak: {shown[2]}", fontsize=8)
    return figure


def projections_figure(maps: Mapping[str, Array], positions: Array) -> Figure:
    """The same for sources that are on no mesh at hand, in three projections.

    Args:
        maps: Title to magnitudes ``(S,)``, A m.
        positions: Sources ``(S, 3)``, m, head frame.

    """
    columns = min(len(maps), 2)
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(6.5 * columns, 5 * rows), layout="constrained")
    parts = figure.subfigures(rows, columns, squeeze=False).ravel()
    for part, (title, values) in zip(parts, maps.items(), strict=False):
        part.suptitle(title, fontsize=10)
        draw_projections(part, values, positions, np.array([values.argmax()]))
    return figure
