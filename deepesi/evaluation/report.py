"""``report.html``: the table, error against SNR, one worked example; self-contained."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from deepesi.contracts import magnitude
from deepesi.evaluation.benchmark import METRICS, Benchmark, Row, WorkedExample
from deepesi.evaluation.table import TITLES, html_table
from deepesi.physics.files import atomic
from deepesi.physics.template import DisplayMesh
from deepesi.viz.cortex import best_views, draw_cortex
from deepesi.viz.scalp import draw_scalp

#: Okabe & Ito's palette, told apart by colour-blind readers.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")


def snr_curves(rows: Sequence[Row]) -> Figure:
    """Every metric against SNR, a band for the 95 % interval."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    methods = list(dict.fromkeys(row.method for row in rows))
    for ax, metric in zip(figure.subplots(2, 2).flat, METRICS, strict=True):
        for number, method in enumerate(methods):
            own = sorted(
                (r for r in rows if (r.method, r.metric) == (method, metric)),
                key=lambda row: row.snr_db,
            )
            snr = [row.snr_db for row in own]
            colour = COLOURS[number % len(COLOURS)]
            ax.plot(snr, [r.value for r in own], "o-", color=colour, label=method, markersize=4)
            ax.fill_between(
                snr, [r.ci_low for r in own], [r.ci_high for r in own], color=colour, alpha=0.15
            )
        ax.set_xticks(snr)
        better = "higher" if METRICS[metric].higher_is_better else "lower"
        ax.set(xlabel="SNR (dB)", ylabel=f"{TITLES[metric]}, {better} is better")
        ax.spines[["top", "right"]].set_visible(False)
        if not METRICS[metric].higher_is_better:
            ax.set_ylim(bottom=0)
    figure.axes[0].legend(frameon=False)
    return figure


def worked_example_figure(worked: WorkedExample, mesh: DisplayMesh) -> Figure:
    """Scalp map, true sources and each estimate on the cortex, each in its own colour range."""
    batch, index = worked.batch, worked.index
    head, n_orient = batch.head, batch.head.space.n_orient
    true = magnitude(batch.sources[index : index + 1], n_orient)[0].double().numpy()
    maps = {"true": true} | {
        name: magnitude(e.mean[index : index + 1], n_orient)[0].double().numpy()
        for name, e in worked.estimates.items()
    }
    peaks = batch.scene.peaks[index].numpy()
    peaks = peaks[peaks >= 0]
    views = best_views(int(true.argmax()), len(true), mesh)
    figure = Figure(figsize=(round(2.4 * (len(maps) + 1)), 5), layout="constrained")
    axes = figure.subplots(2, len(maps) + 1)
    eeg = batch.eeg[index].double().numpy()
    sample = int((eeg**2).sum(axis=0).argmax())
    draw_scalp(axes[0, 0], eeg[:, sample], head.sensor_pos, head.ch_names)
    axes[0, 0].set_title(f"scalp, {float(batch.scene.snr_db[index]):g} dB", fontsize=10)
    axes[1, 0].axis("off")
    for column, (name, values) in enumerate(maps.items(), start=1):
        for row, view in enumerate(views):
            draw_cortex(axes[row, column], values, mesh, view, float(values.max()), peaks)
        error = 1e3 * np.linalg.norm(head.source_pos[values.argmax()] - head.source_pos[peaks[0]])
        note = "" if name == "true" or len(peaks) > 1 else f"\npeak off by {error:.0f} mm"
        axes[0, column].set_title(name + note, fontsize=10)
    for row, view in enumerate(views):
        axes[row, 1].text(
            -0.02, 0.5, view, rotation=90, va="center", ha="right", fontsize=8,
            transform=axes[row, 1].transAxes,
        )  # fmt: skip
    return figure


def write_report(
    benchmark: Benchmark, mesh: DisplayMesh | None, facts: Mapping[str, str], path: Path
) -> None:
    """Write the report, whole or not at all.

    Args:
        benchmark: What was measured.
        mesh: Cortex to draw on; without one there is no worked example.
        facts: What to state at the top: name to text.
        path: ``.html`` file.

    """
    import mne

    report = mne.Report(title="deepesi benchmark", image_format="png", verbose="error")
    lines = "".join(f"<tr><th>{name}</th><td>{text}</td></tr>" for name, text in facts.items())
    report.add_html(f"<table class='table table-sm'>{lines}</table>", title="What was measured")
    report.add_html(html_table(benchmark.rows), title="Table")
    report.add_figure(
        snr_curves(benchmark.rows), title="Error against SNR", caption="Bands: 95 % interval."
    )
    if mesh is not None:
        report.add_figure(
            worked_example_figure(benchmark.worked_example, mesh),
            title="One worked example",
            caption="The first test example at the middle SNR, not chosen. Each map has its own "
            "colour range, bare cortex below 25 % of its maximum; ring: true peak.",
        )
    with atomic(path) as partial:
        report.save(partial, open_browser=False, verbose="error")
