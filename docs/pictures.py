"""Draws the pictures of README and docs into ``docs/pictures``.

    python docs/pictures.py                  # all of them, under a minute on one core
    python docs/pictures.py --only pipeline  # one of them
    python docs/pictures.py --out FOLDER     # somewhere else

Every picture has a white ground, so it looks the same on light and on dark pages. Letters are
large for the figure, so that they can be read on a phone 390 pixels wide.
"""

import argparse
import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from numpy.typing import NDArray

from deepesi.calibration.sample_sources import source_peaks, sources_of
from deepesi.physics.template import load_template
from deepesi.utils.files import atomic
from deepesi.viz.cortex import best_views, covering_views, draw_cortex
from deepesi.viz.samples import modes
from deepesi.viz.scalp import draw_scalp

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

    from deepesi.core.batch import Batch
    from deepesi.core.contracts import InverseModel
    from deepesi.evaluation.scenario import Scenario
    from deepesi.physics.cohort import Cohort

Array = NDArray[np.float64]

PICTURES = Path(__file__).parent / "pictures"
#: Samples of one recording, from ``benchmarks.posterior_example``.
STORED = PICTURES.parent / "_results" / "pictures" / "posterior.csv"
#: Ground of steps and floors without torch, and with it.
PLAIN, TORCH = "#dbeaf5", "#fde3cf"
DARK = "#333333"
WIDTH, DPI = 5.4, 200  # of a picture, inches and dots per inch

#: Steps of the pipeline: column and row of the box, what the step does, its ground.
STEPS: Mapping[str, tuple[int, int, str, str]] = {
    "HeadModel": (0, 0, "lead field,\nsensors, noise", PLAIN),
    "generator": (1, 0, "simulates sources\nand recordings", TORCH),
    "Batch": (2, 0, "data, targets,\nhead inputs", TORCH),
    "InverseModel": (2, 1, "data to\nan estimate", TORCH),
    "loss, metrics": (1, 1, "estimate against\ntarget", TORCH),
    "export": (2, 2, "one ONNX file\nand its contract", TORCH),
    "runtime": (1, 2, "your recording\nto a map", PLAIN),
}
#: Which step gives to which, and whether something comes back.
ARROWS = (
    ("HeadModel", "generator", False),
    ("generator", "Batch", False),
    ("Batch", "InverseModel", False),
    ("InverseModel", "loss, metrics", True),
    ("InverseModel", "export", False),
    ("export", "runtime", False),
)
#: Floors of the package from the top: name, folders, ground. A test compares with pyproject.toml.
FLOORS = (
    ("floor 5", "api", TORCH),
    ("", "cli", TORCH),
    ("floor 4", "validation   streaming", PLAIN),
    ("floor 3", "evaluation   training   export   advice", TORCH),
    ("", "interpret", TORCH),
    ("", "composition", TORCH),
    ("floor 2", "data_gen   models   baselines\nlosses   metrics   uncertainty", TORCH),
    ("floor 1", "core", TORCH),
    ("ground", "runtime", PLAIN),
    ("", "calibration   viz", PLAIN),
    ("", "physics", PLAIN),
    ("", "utils", PLAIN),
)
#: Curves of the two panels: title, results, level, and colours and names of the methods.
CURVES = (
    (
        "another head, cap by names",
        ("stranger",),
        "typical, cap by names",
        {
            "dipole scan": "dipole scan",
            "packaged `ensemble`": "packaged ensemble",
            "packaged `default`": "packaged default",
            "bayes_stranger": "near the limit (Bayes)",
        },
    ),
    (
        "the nominal head",
        ("snr", "snr_default"),
        None,
        {
            "eLORETA (tuned)": "eLORETA (tuned)",
            "packaged `ensemble`": "packaged ensemble",
            "packaged `default`": "packaged default",
            "Bayes, single patch, nominal lead field": "the limit (Bayes)",
        },
    ),
)
#: Methods of the picture of EEG and MEG: name in the results, name in the legend and line.
MODALITY_METHODS = {
    "matched_filter (untrained)": ("matched filter", "-"),
    "eLORETA": ("eLORETA", "--"),
}
ANGLE = "angle to the scalp (0: radial, 90: tangential)"
#: Panels of the error against the duration: name in the results, title.
DURATIONS = {
    "Bayes, single patch, nominal lead field": "exact posterior",
    "packaged `ensemble`": "packaged ensemble",
    "packaged `default`": "packaged default",
    "packaged `convdip`": "packaged convdip",
    "GNN, untrained": "GNN*",
    "transformer, untrained": "transformer*",
    "matched filter, untrained": "matched filter*",
    "loose matched filter, untrained": "loose matched filter*",
    "U-Net, untrained": "U-Net*",
    "unrolled ISTA, untrained": "unrolled ISTA*",
    "unrolled Champagne, untrained": "unrolled Champagne*",
    "annealed patches, untrained": "annealed patches*",
    "dipole scan": "dipole scan",
    "eLORETA (tuned)": "eLORETA (tuned)",
    "LCMV (tuned)": "LCMV (tuned)",
}
#: Level of the results for one sample with the SNR of the mean of a window.
OF_MEAN = "mean of "
#: The recordings of which the result shows one, and their SNR in dB.
N_EXAMPLES, SNR_DB = 50, 5.0


def pipeline_figure() -> Figure:
    """From a head to a map, step by step."""
    figure, ax = _canvas(4.1)
    ax.set(xlim=(-0.52, 2.52), ylim=(2.55, -0.42))
    for name, (column, row, text, ground) in STEPS.items():
        _box(ax, (column - 0.44, row - 0.34), (0.88, 0.68), ground)
        ax.text(column, row - 0.17, name, ha="center", va="center", weight="bold", size=10.5)
        ax.text(column, row + 0.12, text, ha="center", va="center", size=9, linespacing=1.25)
    for start, end, both in ARROWS:
        _arrow(ax, STEPS[start][:2], STEPS[end][:2], both)
    _legend(ax, 0.0, 1.84)
    return figure


def floors_figure() -> Figure:
    """The folders of the package, each above what it may import."""
    figure, ax = _canvas(5.3)
    heights = [0.62 if "\n" in folders else 0.42 for _, folders, _ in FLOORS]
    top = np.cumsum([0.0, *(height + 0.07 for height in heights)])
    ax.set(xlim=(0, 5.4), ylim=(top[-1] + 0.45, -0.08))
    for (name, folders, ground), y, height in zip(FLOORS, top, heights, strict=False):
        _box(ax, (0.95, y), (4.3, height), ground)
        ax.text(0.08, y + height / 2, name, va="center", size=10)
        ax.text(3.1, y + height / 2, folders, ha="center", va="center", size=10.5, linespacing=1.3)
    ax.text(0.08, top[9] + 0.3, "imports\ngo down", va="center", size=9)
    _arrow_along(ax, (0.4, top[10] + 0.2), (0.4, top[-1] - 0.1))
    _key(ax, 0.95, top[-1] + 0.2, "without torch", PLAIN)
    _key(ax, 3.0, top[-1] + 0.2, "with torch", TORCH)
    return figure


def _canvas(height: float) -> tuple[Figure, "Axes"]:
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    ax = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    ax.axis("off")
    return figure, ax


def _box(ax: "Axes", corner: tuple[float, float], size: tuple[float, float], ground: str) -> None:
    style = "round,pad=0,rounding_size=0.05"
    ax.add_patch(FancyBboxPatch(corner, *size, boxstyle=style, fc=ground, ec=DARK, lw=0.8))


def _arrow(ax: "Axes", start: tuple[int, int], end: tuple[int, int], both: bool) -> None:
    """From the edge of one box of `pipeline_figure` to that of the next."""
    first, last = np.array(start, float), np.array(end, float)
    step = last - first
    reach = np.array([0.45, 0.35]) * step
    shift = np.array([0.0, 0.07 * both])
    _arrow_along(ax, first + reach - shift, last - reach - shift)
    if both:
        _arrow_along(ax, last - reach + shift, first + reach + shift)


def _arrow_along(ax: "Axes", start: Any, end: Any) -> None:
    style = "-|>,head_length=3,head_width=2"
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle=style, shrinkA=0, shrinkB=0, color=DARK))


def _legend(ax: "Axes", x: float, y: float) -> None:
    _key(ax, x - 0.44, y, "without torch", PLAIN)
    _key(ax, x - 0.44, y + 0.28, "with torch", TORCH)


def _key(ax: "Axes", x: float, y: float, text: str, ground: str) -> None:
    _box(ax, (x, y - 0.08), (0.16, 0.16), ground)
    ax.text(x + 0.22, y, text, va="center", size=9)


def result_figure() -> Figure:
    """One simulated recording, the target, and what two methods make of it.

    Of `N_EXAMPLES` test recordings it is the one on which the error of ``default`` is nearest to
    the mean of its errors: not the best one.
    """
    batch, maps, peaks, cohort = _worked()
    figure = Figure(figsize=(WIDTH, 4.5), layout="constrained", facecolor="white")
    axes = figure.subplots(2, 2).ravel()
    head, mesh = batch.head, cohort.template.display
    assert mesh is not None  # the packaged head has a cortex to draw on
    potentials = 1e6 * np.asarray(batch.data[0, :, 0], float)
    draw_scalp(axes[0], potentials, head.sensors.positions, head.sensors.names)
    axes[0].set_title(f"recording, {SNR_DB:g} dB, {len(potentials)} electrodes", size=10)
    view = best_views(int(peaks[0]), mesh, 1)[0]
    for ax, (name, values) in zip(axes[1:], maps.items(), strict=True):
        draw_cortex(ax, values, mesh, view, float(values.max()), peaks)
        distance = 1e3 * np.linalg.norm(
            head.source_pos[peaks[0]] - head.source_pos[values.argmax()]
        )
        off = "" if name == "target" else f", {distance:.0f} mm off"
        ax.set_title(f"{name}{off}", size=10)
    return figure


def _worked() -> tuple["Batch", dict[str, Array], NDArray[np.int64], "Cohort"]:
    """The recording of the result, maps of target and estimates ``(S,)``, and the true centre."""
    from deepesi.baselines.minimum_norm import MinimumNorm
    from deepesi.core.quantities import magnitude
    from deepesi.evaluation.scores import apply_model
    from deepesi.training.saved import load_any

    cohort, scenario = _test_set()
    default = load_any("default", cohort.template)
    models: dict[str, InverseModel] = {"eLORETA": MinimumNorm("eLORETA"), "default": default}
    batch = scenario.recordings(cohort, list(models.values())).at_snr(SNR_DB).batch(0)
    strongest = apply_model(default, batch).mean[..., 0].abs().argmax(dim=1).numpy()
    positions, centres = batch.head.source_pos, batch.scene.peaks[:, 0].numpy()
    errors = np.linalg.norm(positions[strongest] - positions[centres], axis=1)
    number = int(np.abs(errors - errors.mean()).argmin())
    one = batch.example(number)
    moments = {"target": one.sources}
    moments |= {name: apply_model(model, one).mean for name, model in models.items()}
    n_orient = one.head.space.n_orient
    maps = {name: np.asarray(magnitude(m, n_orient)[0], float) for name, m in moments.items()}
    return one, maps, centres[[number]], cohort


def _test_set() -> tuple["Cohort", "Scenario"]:
    """The packaged head and scenario ``snr``, as ``deepesi evaluate`` takes them."""
    from deepesi.cli.loading import load_heads, load_scenarios
    from deepesi.composition import compose

    config = compose("evaluate", [f"scenario.n_examples={N_EXAMPLES}"])
    return load_heads(config.head), load_scenarios([config.scenario])[0]


def _image(figure: Figure, n_colours: int) -> "Image":
    """The figure in few colours, a quarter of the size."""
    import PIL.Image

    content = io.BytesIO()
    figure.savefig(content, dpi=DPI)
    return PIL.Image.open(content).convert("RGB").quantize(n_colours)


def curve_figure() -> Figure:
    """Localization error against SNR of some methods of the README's tables, 95 % intervals."""
    from deepesi.evaluation.figures import COLOURS

    figure = Figure(figsize=(WIDTH, 3.9), facecolor="white", layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for ax, (title, names, level, methods) in zip(panels, CURVES, strict=True):
        rows = [row for name in names for row in _errors(name, level)]
        for (method, name), colour in zip(methods.items(), COLOURS, strict=False):
            own = [row for row in rows if row["method"] == method and float(row["snr_db"]) >= 0]
            snr, value, low, high = (
                np.array([float(row[key]) for row in own])
                for key in ("snr_db", "value", "ci_low", "ci_high")
            )
            ax.plot(snr, value, "o-", color=colour, label=name)
            ax.fill_between(snr, low, high, color=colour, alpha=0.15, linewidth=0)
        ax.set(xlim=(-0.5, 20.5), xticks=[0, 5, 10, 20], ylim=(0, None))
        ax.set_title(title, size=11)
        ax.set_xlabel("SNR (dB)", size=11)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=9, loc="upper right")
    panels[0].set_ylabel("localization error (mm)", size=11)
    return figure


def _errors(name: str, level: str | None = None) -> list[dict[str, str]]:
    """Stored localization errors, of one level if there are several."""
    with (PICTURES.parent / "_results" / f"{name}.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "localization_error"]
    return [row for row in rows if level is None or row["level"] == level]


def durations_figure() -> Figure:
    """Error of every method against the samples of a constant course, and what averaging gives."""
    rows = _errors("constant")
    figure = Figure(figsize=(WIDTH, 7.4), facecolor="white", layout="constrained")
    axes = figure.subplots(-(-len(DURATIONS) // 3), 3, sharex=True, sharey=True)
    for ax, (method, title) in zip(axes.ravel(), DURATIONS.items(), strict=True):
        own = {row["level"]: float(row["value"]) for row in rows if row["method"] == method}
        lengths = [int(level) for level in own if not level.startswith(OF_MEAN)]
        theory = [own[f"{OF_MEAN}{length}"] for length in lengths]
        windows = [own[str(length)] for length in lengths]
        lines = ax.plot(lengths, windows, "o-", color="#d55e00", ms=4)
        lines += ax.plot(lengths, theory, "--", color=DARK)
        ax.set_title(title, size=10)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9)
    ax.set(xscale="log", xticks=lengths, xticklabels=lengths, ylim=(0, None))
    ax.minorticks_off()
    labels = ["the window", "one sample with the SNR of its mean"]
    figure.legend(lines, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=10)
    figure.supxlabel("samples of the window (*: before training)", size=11)
    figure.supylabel("localization error (mm)", size=11)
    return figure


def posterior_figure() -> Figure:
    """One recording with two sources: target, probability, samples, number of sources, joint set.

    The samples are stored; ``python -m benchmarks.posterior_example RUN`` writes them.
    """
    template = load_template("fsaverage-ico3")
    mesh, positions, edges = template.display, template.source_pos, template.space.edges
    assert mesh is not None
    target, samples = _stored_samples(len(positions))
    peaks = np.flatnonzero(source_peaks(target[None], edges)[0])
    found = sources_of(samples, positions, edges)
    likely = modes(found.probability, positions, 0.03)
    views = covering_views(np.concatenate([peaks, likely]), mesh, 2)
    figure = Figure(figsize=(WIDTH, 7.6), layout="constrained", facecolor="white")
    rows = figure.subfigures(5, 1, squeeze=False, height_ratios=[1.1, 1, 1.15, 1, 0.95])[:, 0]
    largest = 100 * found.probability.max()
    shown = {
        f"target: {len(peaks)} sources (rings)": target,
        f"probability of a source within 10 mm (to {largest:.0f} %)": found.probability,
        f"{100 * found.level:g} % set: holds all sources together": found.joint_set.astype(float),
    }
    for row, (title, values) in zip(rows[[0, 1, 3]], shown.items(), strict=True):
        row.suptitle(title, size=10.5)
        for ax, view in zip(row.subplots(1, 2), views, strict=True):
            draw_cortex(ax, values, mesh, view, float(values.max()), peaks)
            if row is rows[0]:
                ax.set_title(view, size=9)
    rows[2].suptitle("samples: equally plausible configurations", size=10.5)
    for ax, values in zip(rows[2].subplots(1, 4), samples, strict=False):
        (view,) = best_views(int(values.argmax()), mesh, 1)
        draw_cortex(ax, values, mesh, view, float(values.max()), peaks)
        ax.set_title(view, size=9)
    assert found.count_probabilities is not None
    _draw_shares(rows[4].subplots(), found.count_probabilities)
    return figure


def _draw_shares(ax: "Axes", shares: Array) -> None:
    """Probability of every number of sources."""
    numbers = np.arange(len(shares))
    bars = ax.barh(numbers, 100 * shares, color="#3b6ea5", height=0.7)
    ax.bar_label(bars, [f"{100 * share:.0f} %" for share in shares], size=10, padding=3)
    ax.set(xlim=(0, 115), yticks=numbers[1:], ylim=(0.4, len(shares) - 0.4))
    ax.set_xticks([])
    ax.set_ylabel("sources", size=10.5)
    ax.set_title("probability of the number of sources", size=10.5)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.invert_yaxis()


def _stored_samples(n_sources: int) -> tuple[Array, Array]:
    """Moments of the target ``(S,)`` and of the samples ``(N, S)``, nA m."""
    with STORED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(dict.fromkeys(row["draw"] for row in rows))
    values = np.zeros((len(names), n_sources))
    for row in rows:
        values[names.index(row["draw"]), int(row["source"])] = float(row["moment (nA m)"])
    return values[0], values[1:]


def modality_figure() -> Figure:
    """Localization error with EEG, MEG and both, by angle and depth of the source, at 0 dB."""
    from deepesi.evaluation.figures import COLOURS

    rows = [row for row in _errors("modality_source") if float(row["snr_db"]) == 0]
    figure = Figure(figsize=(WIDTH, 6.2), facecolor="white", layout="constrained")
    axes = figure.subplots(2, 1, sharey=True)
    for ax, sign, label in zip(axes, ("°", "mm"), (ANGLE, "depth below the scalp"), strict=True):
        for method, (name, line) in MODALITY_METHODS.items():
            for modality, colour in zip(("EEG", "MEG", "both"), COLOURS, strict=False):
                own = [r for r in rows if r["method"] == method and r["level"].endswith(sign)]
                own = [r for r in own if r["level"].startswith(f"{modality}, ")]
                bins = [r["level"].removeprefix(f"{modality}, ") for r in own]
                value, low, high = (
                    np.array([float(r[key]) for r in own]) for key in ("value", "ci_low", "ci_high")
                )
                ax.plot(bins, value, f"o{line}", color=colour, label=f"{modality}, {name}")
                ax.fill_between(bins, low, high, color=colour, alpha=0.12, linewidth=0)
        ax.set_xlabel(label, size=11)
        ax.set_ylabel("error at 0 dB (mm)", size=11)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(bottom=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=2, frameon=False, fontsize=10, loc="outside upper center")
    return figure


FIGURES: Mapping[str, Callable[[], Figure]] = {
    "pipeline": pipeline_figure,
    "result": result_figure,
    "curve": curve_figure,
    "durations": durations_figure,
    "posterior": posterior_figure,
    "modality": modality_figure,
    "floors": floors_figure,
}


#: Of pictures that need fewer than 256.
N_COLOURS = {
    "durations": 16,
    "modality": 32,
    "curve": 32,
    "floors": 32,
    "pipeline": 32,
    "posterior": 128,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the pictures."""
    parser = argparse.ArgumentParser(description="Draw the pictures of the documentation.")
    parser.add_argument("--only", choices=list(FIGURES), help="draw this one")
    parser.add_argument("--out", type=Path, default=PICTURES, metavar="FOLDER", help="where to")
    given = parser.parse_args(arguments)
    for name in [given.only] if given.only else FIGURES:
        with atomic(given.out / f"{name}.png") as partial:
            image = _image(FIGURES[name](), N_COLOURS.get(name, 256))
            image.save(partial, optimize=True)
        print(f"written: {given.out / f'{name}.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
