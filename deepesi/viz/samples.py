"""Figure and animation of posterior samples: where sources are likely, how many, some samples."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepesi.physics.source_mesh import CortexMesh
from deepesi.viz.cortex import best_views, covering_views, draw_cortex, draw_projections
from deepesi.viz.movie import Frame, drawn, write_movie

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

Array = NDArray[np.float64]

#: Samples that are shown, and the most likely locations that the views show.
N_SHOWN, N_MODES = 4, 3
#: Samples of an animation, and how many of them a second shows.
N_ANIMATED, PER_SECOND = 24, 3.0


def draw_posterior(
    figure: Figure,
    magnitudes: Array,
    probability: Array,
    count_probabilities: Array | None,
    reach: float,
    positions: Array,
    mesh: CortexMesh | None,
    marks: NDArray[np.int64] | None = None,
    joint_set: NDArray[np.bool_] | None = None,
    level: float = 0.9,
) -> None:
    """Draw the probability of a source, the number of sources, samples, and the joint set.

    Args:
        figure: Figure to draw in, with constrained layout; 12 by 7 inches or larger.
        magnitudes: Magnitudes of the samples ``(N, S)``, A m.
        probability: Probability of a source near each location ``(S,)``.
        count_probabilities: Probability of 0, 1, 2, ... sources. None: they cannot be counted.
        reach: What counts as near, m.
        positions: Source locations ``(S, 3)``, m.
        mesh: Cortex mesh. None: three projections, without single samples.
        marks: Numbers of true sources, which get a ring; None: not known.
        joint_set: Set of locations that holds all sources ``(S,)``; None: it is not drawn.
        level: Probability of the set.

    """
    rings = np.empty(0, np.int64) if marks is None else marks
    label = f"probability of a source within {1e3 * reach:g} mm (%)"
    if mesh is None:
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[2.2, 1])[0]
        percent = 1e-7 * probability  # the colours are in units of 1e-9
        draw_projections(left, percent, positions, rings, label)
        _draw_counts(right.subplots(), count_probabilities)
        return
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.25, 1])[:, 0]
    left, right = above.subfigures(1, 2, squeeze=False, width_ratios=[2.6, 1])[0]
    shown = np.concatenate([modes(probability, positions, 3 * reach), rings])
    views = covering_views(shown, mesh, 4)
    _draw_probability(left, probability, mesh, views, rings, label)
    _draw_counts(right.subplots(), count_probabilities)
    if joint_set is None:
        _draw_samples(below, magnitudes, mesh, rings)
        return
    left, right = below.subfigures(1, 2, squeeze=False, width_ratios=[N_SHOWN, 2])[0]
    _draw_samples(left, magnitudes, mesh, rings)
    _draw_set(right, joint_set, level, mesh, views[:2], rings)


def modes(probability: Array, positions: Array, apart: float) -> NDArray[np.int64]:
    """The most likely locations, each at least so far (m) from the others."""
    remaining, chosen = probability.copy(), list[int]()
    while len(chosen) < N_MODES and remaining.max() > 0:
        chosen.append(int(remaining.argmax()))
        away = np.linalg.norm(positions - positions[chosen[-1]], axis=1)
        remaining[away < apart] = 0
    return np.array(chosen, np.int64)


def _draw_probability(
    figure: "SubFigure",
    probability: Array,
    mesh: CortexMesh,
    views: list[str],
    rings: NDArray[np.int64],
    label: str,
) -> None:
    """Draw the map, with its colours in per cent."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    largest = float(probability.max())
    axes = figure.subplots(1, len(views))
    for ax, view in zip(axes, views, strict=True):
        draw_cortex(ax, probability, mesh, view, largest, rings)
        ax.set_title(view, fontsize=9)
    shades = ListedColormap(colormaps["inferno"](0.25 + 0.7 * np.linspace(0.25, 1, 64)))
    scale = ScalarMappable(Normalize(25 * largest, 100 * largest), shades)
    figure.colorbar(scale, ax=axes, location="bottom", shrink=0.6, aspect=35, label=label)


def _draw_counts(ax: "Axes", probabilities: Array | None) -> None:
    """Draw the probability of every number of sources as bars."""
    if probabilities is None:
        ax.axis("off")
        text = "Every source is active in the samples,\nso active sources cannot be counted.\n"
        ax.text(0.5, 0.5, f"{text}The map shows the strongest.", ha="center", va="center")
        return
    counts = np.arange(len(probabilities))
    bars = ax.bar(counts, 100 * probabilities, color="#3b6ea5", width=0.7)
    ax.bar_label(bars, [f"{100 * p:.0f} %" for p in probabilities], fontsize=9, padding=2)
    ax.set(xlabel="number of sources", ylabel="probability (%)", ylim=(0, 112), xticks=counts)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_samples(
    figure: "SubFigure", magnitudes: Array, mesh: CortexMesh, rings: NDArray[np.int64]
) -> None:
    """Draw the first samples, each in the view in which its strongest source is seen best."""
    figure.suptitle("samples: equally plausible configurations", fontsize=10)
    shown = magnitudes[:N_SHOWN]
    axes = figure.subplots(1, N_SHOWN)
    for ax in axes[len(shown) :]:
        ax.axis("off")
    for ax, values in zip(axes, shown, strict=False):
        (view,) = best_views(int(values.argmax()), mesh, 1)
        draw_cortex(ax, values, mesh, view, float(values.max()), rings)
        ax.set_title(f"{view},\nto {_nano(values)} nAm", fontsize=9)


def _nano(values: Array) -> str:
    """The largest value in nA m, with two digits."""
    return f"{float(f'{1e9 * values.max():.2g}'):g}"


def _draw_set(
    figure: "SubFigure",
    joint_set: NDArray[np.bool_],
    level: float,
    mesh: CortexMesh,
    views: list[str],
    rings: NDArray[np.int64],
) -> None:
    """Draw the set of locations that holds all sources together."""
    figure.suptitle(f"{100 * level:g} % set: holds all sources together", fontsize=10)
    for ax, view in zip(figure.subplots(1, len(views)), views, strict=True):
        draw_cortex(ax, joint_set.astype(np.float64), mesh, view, 1.0, rings)
        ax.set_title(view, fontsize=9)


def animate_samples(
    magnitudes: Array,
    positions: Array,
    mesh: CortexMesh,
    path: Path,
    marks: NDArray[np.int64] | None = None,
    progress: bool = True,
) -> None:
    """Write an animation without end: one sample after the other, in two views.

    What stays from sample to sample is certain, and what jumps is not.

    Args:
        magnitudes: Magnitudes of two or more samples ``(N, S)``; the first `N_ANIMATED` are shown.
        positions: Source locations ``(S, 3)``, m.
        mesh: Cortex mesh.
        path: ``.gif`` file.
        marks: Numbers of true sources, which get a ring; None: not known.
        progress: Show a progress bar on a terminal.

    """
    shown = magnitudes[:N_ANIMATED]
    rings = np.empty(0, np.int64) if marks is None else marks
    often = (magnitudes > 0.5 * magnitudes.max(axis=1, keepdims=True)).mean(axis=0)
    views = covering_views(modes(often, positions, 0.03), mesh, 2)
    frames = _sample_frames(shown, mesh, views, rings)
    write_movie(frames, len(shown), path, PER_SECOND, progress)


def _sample_frames(
    magnitudes: Array, mesh: CortexMesh, views: list[str], rings: NDArray[np.int64]
) -> Iterator[Frame]:
    """One picture per sample."""
    figure = Figure(figsize=(7, 3), dpi=100, layout="constrained")
    for number, values in enumerate(magnitudes):
        figure.clear()
        figure.suptitle(f"sample {number + 1} of {len(magnitudes)}, to {_nano(values)} nAm")
        for ax, view in zip(figure.subplots(1, len(views)), views, strict=True):
            draw_cortex(ax, values, mesh, view, float(values.max()), rings)
            ax.set_title(view, fontsize=9)
        yield drawn(figure)
