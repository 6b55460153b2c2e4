"""Figures of one recording beside simulated recordings of other people."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepesi.physics.source_mesh import CortexMesh
from deepesi.viz.cortex import covering_views, draw_cortex, draw_projections

Array = NDArray[np.float64]

COLOURS = ("#0072b2", "#d55e00", "#009e73")
RECORDING, STRANGERS = "#c0392b", "0.75"
#: Size of a small figure, inches.
SIZE = (3.6, 2.7)


def peak_figures(
    magnitudes: Array, peaks: Sequence[int], mesh: CortexMesh | None, positions: Array
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of three views of an estimate, with a numbered ring at every peak.

    Args:
        magnitudes: Magnitudes of the estimate ``(S,)``, A m.
        peaks: Strongest source of every method, in the order of their numbers.
        mesh: Cortex mesh to draw on. None: three projections in one figure.
        positions: Source positions ``(S, 3)``, m, head frame.

    """
    marks = np.asarray(peaks)
    if mesh is None:
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        whole = figure.subfigures(1, 1, squeeze=False)[0, 0]
        draw_projections(whole, magnitudes, positions, marks)
        yield "projections", figure
        return
    for view in covering_views(marks, mesh, 3):
        figure = Figure(figsize=(2.8, 2.3), layout="constrained")
        draw_cortex(figure.subplots(), magnitudes, mesh, view, float(magnitudes.max()), marks, True)
        yield view, figure


def misfit_figure(strangers: Array, recording: Sequence[float]) -> Figure:
    """Draw the residual variance with one, two, ... sources, for other people and a recording.

    Args:
        strangers: Residual variances ``(N, K)`` of simulated recordings of other people.
        recording: Residual variances ``(K,)`` of the recording.

    """
    figure = Figure(figsize=SIZE, layout="constrained")
    ax = figure.subplots()
    numbers = np.arange(1, len(recording) + 1)
    ax.boxplot(
        100 * strangers,
        positions=numbers,
        whis=(1, 99),
        showfliers=False,
        widths=0.5,
        patch_artist=True,
        boxprops={"facecolor": STRANGERS},
        medianprops={"color": "0.2"},
    )
    ax.plot(numbers, 100 * np.asarray(recording), "o", color=RECORDING, label="this recording")
    ax.set(xlabel="number of sources", ylabel="residual variance (%)", ylim=(0, None))
    ax.legend(frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def errors_figure(errors: Mapping[str, Array]) -> Figure:
    """Draw the cumulative distribution of the localization error, one curve per method.

    Args:
        errors: Errors ``(N,)``, mm, of simulated recordings of other people, by name of the method.

    """
    figure = Figure(figsize=SIZE, layout="constrained")
    ax = figure.subplots()
    for colour, (name, values) in zip(COLOURS, errors.items(), strict=True):
        ax.step(
            np.sort(values),
            100 * np.arange(1, len(values) + 1) / len(values),
            color=colour,
            label=name,
            where="post",
        )
    for level in (50, 90):
        ax.axhline(level, color="0.8", linewidth=0.8, zorder=0)
    most = max(float(np.quantile(values, 0.98)) for values in errors.values())
    ax.set(xlabel="error (mm)", ylabel="recordings (%)", xlim=(0, most), ylim=(0, 100))
    ax.legend(frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def apart_figure(strangers: Array, recording: float) -> Figure:
    """Draw the largest distance between peaks of methods, for other people and a recording.

    Args:
        strangers: Distances ``(N,)``, mm, in simulated recordings of other people.
        recording: Distance in the recording, mm.

    """
    figure = Figure(figsize=SIZE, layout="constrained")
    ax = figure.subplots()
    bins = np.arange(0, max(float(strangers.max()), recording) + 10, 10).tolist()
    ax.hist(strangers, bins=bins, color=STRANGERS)
    ax.axvline(recording, color=RECORDING, label="this recording")
    ax.set(xlabel="largest distance between peaks (mm)", ylabel="simulated recordings")
    ax.legend(frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    return figure
