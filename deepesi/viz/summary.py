"""Figures of the simulation: distributions over many examples, and a curriculum."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

#: Okabe-Ito palette, for colour-blind readers.
BLUE, ORANGE, PINK, GREY = "#0072b2", "#d55e00", "#cc79a7", "0.35"
STYLES = {
    "#0072b2": "-",
    "#d55e00": "--",
    "#009e73": "-.",
    "#cc79a7": ":",
    "#e69f00": "-",
    "#56b4e9": "--",
}


@dataclass(frozen=True)
class Draw:
    """Parameters that were drawn for many examples.

    Attributes:
        snr_db: SNR of every example ``(N,)``, dB.
        skull_conductivity: Skull conductivity ``(N,)``, S/m; NaN if the head has no range.
        skull_thickness: Skull thickness ``(N,)``, m; NaN if the head has no range.
        moments: Total dipole moments of all patches of all examples, A m.
        counts: Number of patches of every example ``(N,)``.
        shares: Share of the examples with an artifact, by name of the artifact.
        largest: Largest value of a channel, clean and recorded ``(2, N)``, in the units of heads:
            1e-6 stands for 1 µV, 50 fT and 10 fT/cm.
        displacement: Distance of true sources from their points of the grid, m; None where the
            true cortex is the analyst's.
        turn: Angle between true normals and those of the grid, rad; None likewise.
        largest_label: Label of `largest` times 1e6.

    """

    snr_db: Array
    skull_conductivity: Array
    skull_thickness: Array
    moments: Array
    counts: NDArray[np.int64]
    shares: Mapping[str, float]
    largest: Array
    displacement: Array | None = None
    turn: Array | None = None
    largest_label: str = "largest potential (µV)"


def summary_figure(draw: Draw) -> Figure:
    """Draw the distributions over many examples."""
    columns = 3 if draw.displacement is None else 4
    figure = Figure(figsize=(13 / 3 * columns, 6.6), layout="constrained")
    panels = figure.subplots(2, columns)
    snr, skull, potentials, moments, counts, artifacts = panels[:, :3].flat
    if draw.displacement is not None and draw.turn is not None:
        distance, angle = panels[:, 3]
        distance.hist(1e3 * draw.displacement, bins=30, color=BLUE)
        distance.set(xlabel="true source to its grid point (mm)", ylabel="sources")
        angle.hist(np.degrees(draw.turn), bins=30, color=BLUE)
        angle.set(xlabel="true normal to the template's (degrees)", ylabel="sources")
    snr.hist(draw.snr_db, bins=20, color=BLUE)
    snr.set(xlabel="SNR (dB)", ylabel="examples")
    _draw_skulls(skull, 1e3 * draw.skull_conductivity, 1e3 * draw.skull_thickness)
    _histogram(potentials, {"clean": 1e6 * draw.largest[0], "recorded": 1e6 * draw.largest[1]})
    potentials.set(xlabel=draw.largest_label, ylabel="examples")
    potentials.legend(frameon=False, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    _histogram(moments, {"moments": 1e9 * draw.moments})
    moments.set(xlabel="total moment of a source (nAm)", ylabel="sources")
    number, size = np.unique(draw.counts, return_counts=True)
    counts.bar(number, size, color=BLUE, width=0.6)
    counts.set(xlabel="sources in an example", ylabel="examples", xticks=number)
    shares = [100 * share for share in draw.shares.values()]
    if shares:
        artifacts.barh(list(draw.shares), shares, color=PINK, height=0.5)
        artifacts.set(
            xlabel="examples with the artifact (%)",
            xlim=(0, max(10, *shares)),
            ylim=(-0.6, max(4, len(shares)) - 0.4),
        )
    else:
        _empty(artifacts, "no artifacts")
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_skulls(ax: "Axes", conductivity: Array, thickness: Array) -> None:
    """Scatter plot; conductivity in mS/m, thickness in mm."""
    if np.isnan(conductivity).any():
        _empty(ax, "the skull cannot vary")
        return
    ax.scatter(conductivity, thickness, s=8, color=BLUE, alpha=0.7)
    ax.set(xlabel="skull conductivity (mS/m)", ylabel="skull thickness (mm)")
    if min(conductivity.std(), thickness.std()) > 0:
        correlation = np.corrcoef(np.log(conductivity), thickness)[0, 1]
        ax.set_title(f"correlation {correlation:.2f} (logarithm, thickness)", fontsize=10)


def _empty(ax: "Axes", reason: str) -> None:
    ax.text(0.5, 0.5, reason, ha="center", va="center", transform=ax.transAxes)
    ax.set_axis_off()


def _histogram(ax: "Axes", values: Mapping[str, Array]) -> None:
    """Draw histograms on a logarithmic axis."""
    everything = np.concatenate(list(values.values()))
    bins = np.geomspace(everything.min(), everything.max() * (1 + 1e-6), 31)
    styles: tuple[dict[str, Any], ...] = (
        {"color": ORANGE, "alpha": 0.6},
        {"color": GREY, "histtype": "step", "linewidth": 1.5},
    )
    for (name, own), style in zip(values.items(), styles, strict=False):
        ax.hist(own, bins=bins.tolist(), label=name, **style)
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())


def curriculum_figure(progress: Array, widths: Mapping[str, Array]) -> Figure:
    """Draw the width of every aspect against progress, both from 0 to 1."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    ax = figure.subplots()
    for (name, width), (colour, style) in zip(widths.items(), STYLES.items(), strict=True):
        ax.plot(progress, width, color=colour, linestyle=style, linewidth=2, label=name)
    ax.set(xlabel="progress of the training", ylabel="width of the ranges")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.spines[["top", "right"]].set_visible(False)
    return figure
