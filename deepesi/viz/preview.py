"""Figure of a simulated recording: sources, potentials, spectrum and drawn parameters."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.signal.windows import dpss

from deepesi.physics.sensors import KINDS, SensorKind
from deepesi.physics.template import DisplayMesh
from deepesi.viz.cortex import covering_views, draw_cortex, draw_projections
from deepesi.viz.scalp import draw_scalp

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

Array = NDArray[np.float64]

RECORDED, CLEAN, NOISE, ARTIFACTS = "0.35", "#d55e00", "#0072b2", "#cc79a7"
#: Colours of sources, in turn. Sources are numbered as well.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


@dataclass(frozen=True)
class Example:
    """One simulated recording and the terms it is the sum of.

    Attributes:
        recorded: Simulated recording ``(C, T)``, in the units of heads.
        clean: What the sources alone give ``(C, T)``, in these units.
        noise: The noise ``(C, T)``, in these units.
        artifacts: All artifacts ``(C, T)``, in these units; zero if there are none.
        magnitudes: Largest moment of every source over the window ``(S,)``, A m.
        peaks: Indices of the sources at the centres of patches ``(K,)``.
        time_courses: Dipole moments at the centres ``(K, T)``, A m.
        times: Sample times ``(T,)``, s.
        sensor_pos: Sensor positions ``(C, 3)``, m, head frame.
        ch_names: Channel names.
        source_pos: Source positions ``(S, 3)``, m, head frame.
        mesh: Cortex mesh to draw on. None: three projections.
        title: Title of the figure.
        facts: Drawn parameters, texts by name.
        kind: Kind of the channels, as in `deepesi.physics.sensors.KINDS`.

    """

    recorded: Array
    clean: Array
    noise: Array
    artifacts: Array
    magnitudes: Array
    peaks: NDArray[np.int64]
    time_courses: Array
    times: Array
    sensor_pos: Array
    ch_names: Sequence[str]
    source_pos: Array
    mesh: DisplayMesh | None
    title: str
    facts: Mapping[str, str]
    kind: str = "eeg"

    @property
    def shown(self) -> SensorKind:
        """Units that numbers are shown in."""
        return KINDS[self.kind]

    @property
    def sample(self) -> int:
        """Sample with the largest global field power of the clean signal."""
        return int(self.clean.std(axis=0).argmax())

    @property
    def is_window(self) -> bool:
        """Whether there is more than one sample."""
        return len(self.times) > 1


def example_figure(example: Example) -> Figure:
    """Sources, scalp maps, recording, spectrum and facts of one example."""
    figure = Figure(figsize=(16, 8.6), layout="constrained")
    figure.suptitle(example.title, fontsize=13)
    left, middle, right = figure.subfigures(
        1, 3, squeeze=False, width_ratios=[1.05, 1.15, 0.9], wspace=0.02
    )[0]
    above, below = left.subfigures(2, 1, height_ratios=[1.45, 1])
    _draw_sources(above, example)
    (_draw_time_courses if example.is_window else _draw_moments)(below.subplots(), example)
    above, below = middle.subfigures(2, 1, height_ratios=[1, 1.25])
    _draw_maps(above, example)
    (_draw_butterfly if example.is_window else _draw_channels)(below.subplots(), example)
    above, below = right.subfigures(2, 1, height_ratios=[1.1, 1])
    _write_facts(above.subplots(), example.facts)
    if example.is_window:
        _draw_spectrum(below.subplots(), example)
    return _trimmed(figure)


def _draw_sources(figure: "SubFigure", example: Example) -> None:
    values, peaks, mesh = example.magnitudes, example.peaks, example.mesh
    most = "largest |moment| over the window" if example.is_window else "|moment|"
    figure.suptitle(f"true sources, {most}, to {1e9 * values.max():.4g} nAm", fontsize=10)
    if mesh is None:
        draw_projections(figure, values, example.source_pos, peaks)
        return
    views = covering_views(peaks, mesh)
    for ax, view in zip(figure.subplots(2, 2).flat, views, strict=True):
        draw_cortex(ax, values, mesh, view, float(values.max()), peaks, numbered=True)
        ax.set_title(view, fontsize=9)


def _draw_time_courses(ax: "Axes", example: Example) -> None:
    for number, time_course in enumerate(1e9 * example.time_courses):
        colour = COLOURS[number % len(COLOURS)]
        label = str(number + 1)
        ax.plot(1e3 * example.times, time_course, color=colour, linewidth=1.3, label=label)
    _time_axis(ax, example, "moment at the peak (nAm)")
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1)


def _draw_moments(ax: "Axes", example: Example) -> None:
    names = [str(number + 1) for number in range(len(example.peaks))]
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(names))]
    bars = ax.bar(names, 1e9 * example.time_courses[:, 0], color=colours, width=0.6)
    ax.bar_label(bars, fmt="%.3g", fontsize=9, padding=2)
    ax.axhline(0, color="0.4", linewidth=0.8)
    ax.margins(y=0.15)
    ax.set_xlim(-0.8, max(len(names), 3) - 0.2)
    ax.set(xlabel="source", ylabel="moment at the peak (nAm)")


def _draw_maps(figure: "SubFigure", example: Example) -> None:
    """Clean and recorded topography in one colour scale."""
    parts = {"clean": example.clean, "recorded": example.recorded}
    shown = example.shown
    maps = {name: shown.shown * data[:, example.sample] for name, data in parts.items()}
    limit = max(float(np.abs(values).max()) for values in maps.values())
    axes = figure.subplots(1, 2)
    for ax, (name, values) in zip(axes, maps.items(), strict=True):
        image = draw_scalp(ax, values, example.sensor_pos, example.ch_names, limit)
        ax.set_title(f"{name}, to {np.abs(values).max():.3g} {shown.small_name}", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02, label=shown.label)
    when = f" at {1e3 * example.times[example.sample]:.0f} ms" if example.is_window else ""
    figure.suptitle(f"scalp{when}, one colour scale", fontsize=10)


def _draw_butterfly(ax: "Axes", example: Example) -> None:
    factor = example.shown.shown
    times, power = 1e3 * example.times, factor * example.clean.std(axis=0)
    ax.plot(times, factor * example.recorded.T, color=RECORDED, linewidth=0.5, alpha=0.8)
    ax.plot([], [], color=RECORDED, label="recorded, every channel")
    ax.plot(times, power, color=CLEAN, linewidth=2, label="global field power, clean")
    _time_axis(ax, example, example.shown.label)
    _legend_above(ax)


def _draw_channels(ax: "Axes", example: Example) -> None:
    ax.axline((0, 0), slope=1, color="0.7", linewidth=0.8)
    factor, unit = example.shown.shown, example.shown.small_name
    ax.scatter(factor * example.clean[:, 0], factor * example.recorded[:, 0], s=14, color=CLEAN)
    ax.set(xlabel=f"clean ({unit}), every channel", ylabel=f"recorded ({unit})")


def _draw_spectrum(ax: "Axes", example: Example) -> None:
    """Amplitude spectral density, RMS over the channels."""
    kinds = {
        "recorded": (example.recorded, RECORDED),
        "clean": (example.clean, CLEAN),
        "noise": (example.noise, NOISE),
        "artifacts": (example.artifacts, ARTIFACTS),
    }
    sfreq = 1 / (example.times[1] - example.times[0])
    frequency = np.fft.rfftfreq(len(example.times), 1 / sfreq)
    for name, (data, colour) in kinds.items():
        if data.any():
            density = example.shown.shown * _amplitude_density(data, sfreq)
            ax.semilogy(frequency, density, color=colour, linewidth=1.3, label=name)
    # Spectra of smooth time courses end in the leakage of the window, which is cut off.
    top = max(np.max(line.get_ydata()) for line in ax.lines)
    ax.set(
        xlabel="frequency (Hz)",
        ylabel=f"{example.shown.small_name} / √Hz",
        xlim=frequency[[0, -1]],
        ylim=(1e-4 * top, 2 * top),
    )
    _legend_above(ax)


def _amplitude_density(data: Array, sfreq: float) -> Array:
    """Amplitude density, RMS over channels, V/√Hz. Two tapers also use the ends of the window."""
    n_times = data.shape[1]
    tapers = dpss(n_times, min(2.0, n_times / 5), 2 if n_times > 4 else 1)
    centred = data - data.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(tapers[:, None] * centred)) ** 2
    return np.asarray(np.sqrt(2 / sfreq * power.mean(axis=(0, 1))))


def _write_facts(ax: "Axes", facts: Mapping[str, str]) -> None:
    """Draw a table of two columns, the second with wrapped text."""
    ax.axis("off")
    cells = {
        name: [piece for line in text.split("\n") for piece in textwrap.wrap(line, 50)]
        for name, text in facts.items()
    }
    height = 1 / max(30, sum(len(lines) + 0.4 for lines in cells.values()))
    y = 1.0
    for name, lines in cells.items():
        ax.text(0, y, name, va="top", fontsize=8.5, color="0.4")
        for line in lines:
            ax.text(0.2, y, line, va="top", fontsize=8.5)
            y -= height
        y -= 0.4 * height


def _time_axis(ax: "Axes", example: Example, ylabel: str) -> None:
    times = 1e3 * example.times
    ax.axvline(times[example.sample], color="0.6", linewidth=0.8, linestyle="--")
    ax.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    ax.set(xlabel="time (ms)", ylabel=ylabel, xlim=times[[0, -1]])


def _legend_above(ax: "Axes") -> None:
    ax.legend(
        frameon=False,
        fontsize=8,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=4,
        handlelength=1,
        columnspacing=1,
        borderpad=0,
    )


def _trimmed(figure: Figure) -> Figure:
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure
