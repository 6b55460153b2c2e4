"""Figures of estimates of real recordings: over time with the baseline, and on the cortex."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepesi.physics.template import DisplayMesh
from deepesi.viz.cortex import best_views, draw_cortex, draw_projections

Array = NDArray[np.float64]

BASELINE, WINDOW = "0.93", "#fff0c2"


def time_course_figure(
    times: Array,
    power: Array,
    baseline: tuple[float, float],
    window: tuple[float, float],
    distances: Mapping[str, Array],
) -> Figure:
    """Draw whitened power, and the distance of the strongest source to the target per method.

    Args:
        times: Sample times ``(T,)``, s.
        power: Whitened power ``(T,)``, 1 for noise.
        baseline: Start and end of the baseline, s.
        window: Start and end of the expected response, s.
        distances: Distances ``(T,)``, mm, by name of the method; empty without a target.

    """
    figure = Figure(figsize=(7.2, 1.4 + 1.15 * len(distances)), layout="constrained")
    rows = figure.subplots(1 + len(distances), 1, sharex=True, squeeze=False)[:, 0]
    for ax in rows:
        ax.axvspan(1e3 * baseline[0], 1e3 * baseline[1], color=BASELINE, zorder=0, linewidth=0)
        ax.axvspan(1e3 * window[0], 1e3 * window[1], color=WINDOW, zorder=0, linewidth=0)
        ax.spines[["top", "right"]].set_visible(False)
    rows[0].plot(1e3 * times, power, color="0.2", linewidth=1)
    rows[0].axhline(1, color="0.5", linestyle="--", linewidth=0.8)
    rows[0].set(ylim=(0, None), xlim=1e3 * times[[0, -1]])
    rows[0].set_title("whitened power", fontsize=9, loc="left")
    top = 1.05 * max((distance.max() for distance in distances.values()), default=1.0)
    for ax, (name, distance) in zip(rows[1:], distances.items(), strict=True):
        ax.plot(1e3 * times, distance, ".", color="#0072b2", markersize=3)
        ax.set(ylim=(-0.05 * top, top), ylabel="mm")
        ax.set_title(name, fontsize=9, loc="left")
    rows[-1].set(xlabel="time (ms)")
    return figure


def cortex_figure(values: Array, mesh: DisplayMesh, views: tuple[str, str]) -> Figure:
    """Draw the magnitudes of one method in a colour range of its own, with a ring at the peak.

    Args:
        values: Magnitudes ``(S,)``, A m.
        mesh: Cortex mesh to draw on.
        views: Two views to show. The third is the best of the other views for the peak.

    """
    figure = Figure(figsize=(2.6, 5.6), layout="constrained")
    peak = int(values.argmax())
    others = [v for v in best_views(peak, mesh, 3) if v not in views]
    for ax, view in zip(figure.subplots(3, 1), (*views, others[0]), strict=True):
        draw_cortex(ax, values, mesh, view, float(values.max()), np.array([peak]))
        ax.set_title(view, fontsize=9)
    return figure


def projections_figure(values: Array, positions: Array) -> Figure:
    """Draw magnitudes in three projections, for sources without a display mesh.

    Args:
        values: Magnitudes ``(S,)``, A m.
        positions: Source positions ``(S, 3)``, m, head frame.

    """
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    whole = figure.subfigures(1, 1, squeeze=False)[0, 0]
    draw_projections(whole, values, positions, np.array([values.argmax()]))
    return figure
