"""Figures of explanations: scalp maps with a scale, and maps of electrodes and samples."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepesi.physics.source_mesh import CortexMesh
from deepesi.viz.cortex import best_views, draw_cortex
from deepesi.viz.scalp import draw_scalp

Array = NDArray[np.float64]

#: Sizes of a scalp map and of a map of samples, inches.
SCALP, SAMPLES = (2.4, 2.1), (3.6, 2.7)


def scalp_figure(
    values: Array,
    sensor_pos: Array,
    ch_names: Sequence[str],
    unit: str,
    limit: float | None = None,
    marks: Sequence[int] = (),
    as_dots: bool = False,
) -> Figure:
    """A scalp map of values with a colour bar, which starts at 0 if no value is negative.

    Args:
        values: Values ``(C,)``.
        sensor_pos: Sensor positions ``(C, 3)``, m, head frame.
        ch_names: Channel names.
        unit: Unit of the values, or what they are.
        limit: Value with the strongest colour. Default: the largest.
        marks: Channels whose names are written.
        as_dots: Draw values of few channels as dots, because a smooth map would overshoot.

    """
    figure = Figure(figsize=SCALP, layout="constrained")
    ax = figure.subplots()
    limit = limit or float(np.abs(values).max()) or 1.0
    image = draw_scalp(ax, 0 * values if as_dots else values, sensor_pos, ch_names, limit)
    bar = figure.colorbar(image, ax=ax, shrink=0.7, aspect=14)
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if (values >= 0).all():
        bar.ax.set_ylim(0, limit)
    points = np.asarray(ax.collections[-1].get_offsets())
    if as_dots:
        drawn = np.flatnonzero(values)
        ax.scatter(
            points[drawn, 0],
            points[drawn, 1],
            c=values[drawn],
            s=40,
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            edgecolors="0.2",
            linewidths=0.6,
            zorder=5,
        )
    for row in marks:
        ax.annotate(
            ch_names[row],
            points[row],
            (4, 4),
            textcoords="offset points",
            fontsize=7,
            zorder=6,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "alpha": 0.7, "lw": 0},
        )
    return figure


def samples_figure(
    values: Array, times: Array, ch_names: Sequence[str], unit: str, sample: int
) -> Figure:
    """Signed values of electrodes and samples, the electrodes sorted by their largest value.

    Args:
        values: Values ``(C, T)``.
        times: Times ``(T,)``, s.
        ch_names: Channel names.
        unit: Unit of the values.
        sample: The explained sample, marked by a line.

    """
    figure = Figure(figsize=SAMPLES, layout="constrained")
    ax = figure.subplots()
    order = np.argsort(-np.abs(values).max(axis=1))
    limit = float(np.abs(values).max()) or 1.0
    step = times[1] - times[0]
    extent = (1e3 * (times[0] - step / 2), 1e3 * (times[-1] + step / 2), len(values) - 0.5, -0.5)
    image = ax.imshow(
        values[order], aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, extent=extent
    )
    ax.axvline(1e3 * times[sample], color="0.2", linewidth=0.8)
    shown = np.arange(0, len(values), max(1, len(values) // 12))
    ax.set_yticks(shown, [ch_names[order[row]] for row in shown], fontsize=7)
    ax.set_xlabel("time (ms)", fontsize=8)
    ax.tick_params(axis="x", labelsize=7)
    bar = figure.colorbar(image, ax=ax)
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def evidence_figure(values: Array, mesh: CortexMesh, mark: int) -> Figure:
    """Values of the sources ``(S,)`` on the two views that show a source best."""
    figure = Figure(figsize=(1.9, 3.0), layout="constrained")
    views = best_views(mark, mesh)
    for ax, view in zip(figure.subplots(2, 1), views, strict=True):
        draw_cortex(ax, values, mesh, view, float(values.max()), np.array([mark]))
    return figure
