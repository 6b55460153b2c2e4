"""Figure of a localized recording: butterfly plots, scalp maps and cortex at the peak."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepesi.physics.sensors import KINDS
from deepesi.physics.source_mesh import CortexMesh
from deepesi.utils.files import atomic
from deepesi.viz.cortex import draw_cortex, paired_views
from deepesi.viz.scalp import draw_scalp

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]


class Panel(NamedTuple):
    """How channels of one kind are drawn: factor from SI units, label with unit, title of a map."""

    factor: float
    label: str
    map: str


MAPS = {"eeg": "scalp", "mag": "magnetometers", "grad": "gradiometers, norm"}
PANELS = {name: Panel(1 / kind.small_unit, kind.label, MAPS[name]) for name, kind in KINDS.items()}


def recording_figure(
    data: Array,
    times: Array,
    sensor_pos: Array,
    ch_names: Sequence[str],
    kinds: Sequence[str],
    magnitudes: Array,
    peak_sample: int,
    mesh: CortexMesh | None,
    title: str,
    peak_text: str,
) -> Figure:
    """Draw a localized recording: a row for every kind of channels, and the cortex.

    Args:
        data: Referenced data ``(C, T)``, V, T or T/m.
        times: Sample times ``(T,)``, s.
        sensor_pos: Sensor positions ``(C, 3)``, m, head frame.
        ch_names: Channel names.
        kinds: Kind of every channel, as in `deepesi.physics.sensors.KINDS`.
        magnitudes: Magnitudes of the estimate at the peak ``(S,)``, A m.
        peak_sample: Index of the sample to draw.
        mesh: Cortex mesh to draw on. None: there is none.
        title: Title of the figure.
        peak_text: Text that describes the location of the peak.

    """
    present = [kind for kind in PANELS if kind in kinds]
    heights = [len(present), 1.15 if mesh is not None else 0.15]
    figure = Figure(figsize=(11, 1 + 2.5 * sum(heights)), layout="constrained")
    figure.suptitle(title, fontsize=13)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    panels = top.subplots(len(present), 2, width_ratios=[2.6, 1], squeeze=False)
    for kind, (butterfly, scalp) in zip(present, panels, strict=True):
        rows = [row for row, own in enumerate(kinds) if own == kind]
        _draw_butterfly(butterfly, data[rows], times, peak_sample, kind)
        sample, names = data[rows, peak_sample], [ch_names[row] for row in rows]
        _draw_map(scalp, sample, sensor_pos[rows], names, kind)
        scalp.set_title(f"{PANELS[kind].map} at {1e3 * times[peak_sample]:.0f} ms", fontsize=10)
    if mesh is None:
        bottom.text(0.5, 0.5, f"strongest at {peak_text}", ha="center", va="center")
        return figure
    peak = int(magnitudes.argmax())
    views = paired_views(peak, mesh)
    for ax, view in zip(bottom.subplots(1, 4), views, strict=True):
        marks = np.array([peak])
        draw_cortex(ax, magnitudes, mesh, view, float(magnitudes.max()), marks)
        ax.set_title(view, fontsize=9)
    bottom.suptitle(f"strongest at {peak_text}", fontsize=10)
    return figure


def _draw_butterfly(ax: "Axes", data: Array, times: Array, peak_sample: int, kind: str) -> None:
    """Time courses ``(C, T)`` of all channels of a kind."""
    panel = PANELS[kind]
    ax.plot(1e3 * times, panel.factor * data.T, color="0.35", linewidth=0.5)
    ax.axvline(1e3 * times[peak_sample], color="#c0392b", linewidth=1.2)
    ax.axhline(0, color="0.7", linewidth=0.6, zorder=0)
    ax.set(xlabel="time (ms)", ylabel=panel.label, xlim=1e3 * times[[0, -1]])
    ax.spines[["top", "right"]].set_visible(False)


def _draw_map(
    ax: "Axes", values: Array, positions: Array, ch_names: Sequence[str], kind: str
) -> None:
    """Map of one sample ``(C,)``; of gradiometers the norm at every position."""
    if kind != "grad":
        draw_scalp(ax, values, positions, ch_names)
        return
    _, first, of = np.unique(positions.round(3), axis=0, return_index=True, return_inverse=True)
    norms = np.sqrt(np.bincount(of.ravel(), values**2))
    names = [ch_names[row] for row in first.tolist()]
    draw_scalp(ax, norms, positions[first], names)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG file atomically."""
    with atomic(path) as partial:
        figure.savefig(partial, dpi=130)
