"""Figure of a localized recording: butterfly plot, scalp map and cortex at the peak."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepesi.physics.template import DisplayMesh
from deepesi.utils.files import atomic
from deepesi.viz.cortex import draw_cortex, paired_views
from deepesi.viz.scalp import draw_scalp

Array = NDArray[np.float64]


def recording_figure(
    data: Array,
    times: Array,
    sensor_pos: Array,
    ch_names: Sequence[str],
    magnitudes: Array,
    peak_sample: int,
    mesh: DisplayMesh | None,
    title: str,
    peak_text: str,
) -> Figure:
    """Draw a localized recording.

    Args:
        data: Referenced data ``(C, T)``, V.
        times: Sample times ``(T,)``, s.
        sensor_pos: Sensor positions ``(C, 3)``, m, head frame.
        ch_names: Channel names.
        magnitudes: Magnitudes of the estimate at the peak ``(S,)``, A m.
        peak_sample: Index of the sample to draw.
        mesh: Cortex mesh to draw on. None if the source space is not that of a template head.
        title: Title of the figure.
        peak_text: Text that describes the location of the peak.

    """
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    figure.suptitle(title, fontsize=13)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 1.15])[:, 0]
    butterfly, scalp = top.subplots(1, 2, width_ratios=[2.6, 1])
    butterfly.plot(1e3 * times, 1e6 * data.T, color="0.35", linewidth=0.5)
    butterfly.axvline(1e3 * times[peak_sample], color="#c0392b", linewidth=1.2)
    butterfly.axhline(0, color="0.7", linewidth=0.6, zorder=0)
    butterfly.set(xlabel="time (ms)", ylabel="potential (µV)", xlim=1e3 * times[[0, -1]])
    butterfly.spines[["top", "right"]].set_visible(False)
    draw_scalp(scalp, data[:, peak_sample], sensor_pos, ch_names)
    scalp.set_title(f"scalp at {1e3 * times[peak_sample]:.0f} ms", fontsize=10)
    if mesh is None:
        bottom.text(0.5, 0.5, f"strongest at {peak_text}", ha="center", va="center")
        return figure
    peak = int(magnitudes.argmax())
    views = paired_views(peak, len(magnitudes), mesh)
    for ax, view in zip(bottom.subplots(1, 4), views, strict=True):
        marks = np.array([peak])
        draw_cortex(ax, magnitudes, mesh, view, float(magnitudes.max()), marks)
        ax.set_title(view, fontsize=9)
    bottom.suptitle(f"strongest at {peak_text}", fontsize=10)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG file atomically."""
    with atomic(path) as partial:
        figure.savefig(partial, dpi=130)
