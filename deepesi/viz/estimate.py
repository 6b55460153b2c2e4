"""Figure of an estimate and the target: sources, potentials and residuals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepesi.physics.graph import distances_mm
from deepesi.physics.sensors import KINDS
from deepesi.physics.similarity import residual_variance
from deepesi.physics.template import DisplayMesh
from deepesi.viz.cortex import covering_views, draw_cortex, draw_projections
from deepesi.viz.scalp import draw_scalp

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Target and estimate of one example, and their potentials with the nominal lead field.

    Attributes:
        recorded: Simulated recording ``(C, T)``, in the units of heads.
        explained: The estimate through the nominal lead field ``(C, T)``, in these units.
        target_potential: The target through the nominal lead field ``(C, T)``, in these units.
        target: Magnitudes of the target ``(S,)``, A m.
        estimated: Magnitudes of the estimate ``(S,)``, A m.
        peaks: Indices of the sources at the target centres ``(K,)``.
        sensor_pos: Sensor positions ``(C, 3)``, m, head frame.
        ch_names: Channel names.
        source_pos: Source positions ``(S, 3)``, m, head frame.
        mesh: Cortex mesh to draw on. None: three projections.
        title: Title of the figure.
        kind: Kind of the channels, as in `deepesi.physics.sensors.KINDS`.

    """

    recorded: Array
    explained: Array
    target_potential: Array
    target: Array
    estimated: Array
    peaks: NDArray[np.int64]
    sensor_pos: Array
    ch_names: Sequence[str]
    source_pos: Array
    mesh: DisplayMesh | None
    title: str
    kind: str = "eeg"


def comparison_figure(example: Comparison) -> Figure:
    """Draw the target (top) and the estimate (bottom), with scalp maps and misfit (right)."""
    figure = Figure(figsize=(13, 10 if example.mesh is None else 5.6), layout="constrained")
    figure.suptitle(example.title, fontsize=12)
    parts = figure.subfigures(1, 2, squeeze=False, width_ratios=[1, 1.05], wspace=0.02)
    left, right = parts[0]
    peak = int(example.estimated.argmax())
    off = distances_mm(example.source_pos[example.peaks], example.source_pos[[peak]])
    maps = {
        f"target, to {1e9 * example.target.max():.3g} nAm": example.target,
        f"estimated, to {1e9 * example.estimated.max():.3g} nAm; strongest "
        f"{off.min():.0f} mm from the nearest target centre": example.estimated,
    }
    for part, (title, values) in zip(left.subfigures(2, 1), maps.items(), strict=True):
        part.suptitle(title, fontsize=10)
        _draw_sources(part, example, values)
    _draw_scalps(right, example)
    return figure


def _draw_sources(figure: "SubFigure", example: Comparison, values: Array) -> None:
    """Draw one map in its own colour range, with rings at the target centres."""
    if example.mesh is None:
        draw_projections(figure, values, example.source_pos, example.peaks)
        return
    marked = np.append(example.peaks, example.estimated.argmax())
    views = covering_views(marked, example.mesh, 3)
    for ax, view in zip(figure.subplots(1, 3), views, strict=True):
        draw_cortex(ax, values, example.mesh, view, float(values.max()), example.peaks)
        ax.set_title(view, fontsize=9)


def _draw_scalps(figure: "SubFigure", example: Comparison) -> None:
    """Draw recorded, explained and residual potential in one colour scale, and misfit bars."""
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.5, 1])[:, 0]
    sample = int(example.recorded.std(axis=0).argmax())
    kind = KINDS[example.kind]
    recorded = kind.shown * example.recorded[:, sample]
    explained = kind.shown * example.explained[:, sample]
    parts = {"recorded": recorded, "explained": explained, "residual": recorded - explained}
    limit = float(np.abs(recorded).max())
    axes = above.subplots(1, 3)
    for ax, (name, values) in zip(axes, parts.items(), strict=True):
        image = draw_scalp(ax, values, example.sensor_pos, example.ch_names, limit)
        ax.set_title(f"{name}, to {np.abs(values).max():.3g} {kind.small_name}", fontsize=9)
    above.colorbar(image, ax=axes, shrink=0.7, pad=0.02, label=kind.label)
    ax = below.subplots()
    misfits = {
        "target\n(noise, head)": residual_variance(example.target_potential, example.recorded),
        "estimate": residual_variance(example.explained, example.recorded),
    }
    bars = ax.barh(
        list(misfits), [min(m, 2) for m in misfits.values()], color=["0.6", "#d55e00"], height=0.6
    )
    ax.bar_label(bars, [f"{m:.2f}" for m in misfits.values()], fontsize=9, padding=3)
    ax.invert_yaxis()
    ax.axvline(1, color="0.4", linewidth=0.8, linestyle="--")
    ax.set(
        xlim=(0, max(1.15, *(min(m, 2) + 0.15 for m in misfits.values()))),
        xlabel="scalp misfit with the nominal head (1: nothing explained)",
    )
    ax.spines[["top", "right"]].set_visible(False)
