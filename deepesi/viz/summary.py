"""Pictures of what a generator draws: many examples together, and a curriculum."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

#: Okabe & Ito's palette, told apart by colour-blind readers.
BLUE, ORANGE, PINK, GREY = "#0072b2", "#d55e00", "#cc79a7", "0.35"
STYLES = {"#0072b2": "-", "#d55e00": "--", "#009e73": "-.", "#cc79a7": ":", "#e69f00": "-"}


@dataclass(frozen=True)
class Draw:
    """What was drawn for many examples.

    Attributes:
        snr_db: ``(N,)``.
        skull_conductivity: ``(N,)``, S/m; NaN where it cannot vary.
        skull_thickness: ``(N,)``, m; NaN where it cannot vary.
        moments: At the peaks of all examples, A m.
        counts: Sources of every example ``(N,)``.
        shares: Of the examples that have an artifact, by its name.
        largest: Largest potential, clean and recorded ``(2, N)``, V.

    """

    snr_db: Array
    skull_conductivity: Array
    skull_thickness: Array
    moments: Array
    counts: NDArray[np.int64]
    shares: Mapping[str, float]
    largest: Array


def summary_figure(draw: Draw) -> Figure:
    """What a larger draw looks like."""
    figure = Figure(figsize=(13, 6.6), layout="constrained")
    snr, skull, potentials, moments, counts, artifacts = figure.subplots(2, 3).flat
    snr.hist(draw.snr_db, bins=20, color=BLUE)
    snr.set(xlabel="SNR (dB)", ylabel="examples")
    conductivity, thickness = 1e3 * draw.skull_conductivity, 1e3 * draw.skull_thickness
    if np.isfinite(conductivity).all():
        skull.scatter(conductivity, thickness, s=8, color=BLUE, alpha=0.7)
        if conductivity.std() > 0 and thickness.std() > 0:
            r = np.corrcoef(np.log(conductivity), thickness)[0, 1]
            skull.set_title(f"correlation {r:.2f} (of the logarithm)", fontsize=10)
    else:
        skull.text(0.5, 0.5, "cannot vary", ha="center", va="center", transform=skull.transAxes)
    skull.set(xlabel="skull conductivity (mS/m)", ylabel="skull thickness (mm)")
    _histogram(potentials, {"clean": 1e6 * draw.largest[0], "recorded": 1e6 * draw.largest[1]})
    potentials.set(xlabel="largest potential (µV)", ylabel="examples")
    potentials.legend(frameon=False, fontsize=8)
    _histogram(moments, {"moments": 1e9 * draw.moments})
    moments.set(xlabel="moment at a peak (nAm)", ylabel="sources")
    number, size = np.unique(draw.counts, return_counts=True)
    counts.bar(number, size, color=BLUE, width=0.6)
    counts.set(xlabel="sources in an example", ylabel="examples", xticks=number)
    artifacts.barh(
        list(draw.shares), [100 * s for s in draw.shares.values()], color=PINK, height=0.5
    )
    artifacts.set(
        xlabel="examples with the artifact (%)", ylim=(-0.6, max(4, len(draw.shares)) - 0.4)
    )
    if not draw.shares:
        artifacts.text(0.5, 0.5, "none", ha="center", va="center", transform=artifacts.transAxes)
        artifacts.set(xticks=[], yticks=[])
    return _trimmed(figure)


def _histogram(ax: "Axes", values: Mapping[str, Array]) -> None:
    """On a logarithmic axis."""
    everything = np.concatenate(list(values.values()))
    bins = np.geomspace(everything.min(), everything.max() * (1 + 1e-6), 31)
    for (name, own), colour in zip(values.items(), (ORANGE, GREY), strict=False):
        ax.hist(own, bins=bins, color=colour, alpha=0.6, label=name)
    ax.set_xscale("log")


def curriculum_figure(progress: Array, widths: Mapping[str, Array]) -> Figure:
    """Widths of every aspect against progress, both from 0 to 1."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    ax = figure.subplots()
    for (name, width), (colour, style) in zip(widths.items(), STYLES.items(), strict=True):
        ax.plot(progress, width, color=colour, linestyle=style, linewidth=2, label=name)
    ax.set(xlabel="progress of the training", ylabel="width of the ranges")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _trimmed(figure)


def _trimmed(figure: Figure) -> Figure:
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure
