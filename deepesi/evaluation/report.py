"""``report.html``: tables, curves along every axis, depth, maps, latency; self-contained."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from deepesi.evaluation.benchmark import Benchmark
from deepesi.evaluation.calibration import CalibrationRow
from deepesi.evaluation.calibration_report import add_panels
from deepesi.evaluation.figures import axis_curves, depth_curves, example_figure
from deepesi.evaluation.gallery import WorkedExample, middle_cell
from deepesi.evaluation.table import (
    RULE,
    RULE_OF_DIFFERENCES,
    by_scenario,
    differences,
    facts_table,
    html_table,
    latency_layout,
    layout,
)
from deepesi.physics.files import atomic
from deepesi.physics.template import DisplayMesh

OWN_RANGE = (
    "Each map has its own colour range, bare cortex below 25 % of its maximum; ring: true peak."
)


def write_report(
    benchmark: Benchmark,
    gallery: Sequence[WorkedExample],
    spreads: Sequence[WorkedExample],
    mesh: DisplayMesh | None,
    facts: Mapping[str, str],
    path: Path,
    calibration: Sequence[CalibrationRow] = (),
) -> None:
    """Write the report, whole or not at all.

    Args:
        benchmark: What was measured.
        gallery: Examples to draw.
        spreads: Point spreads to draw.
        mesh: Cortex to draw on; without one there are no maps.
        facts: What to state at the top: name to text.
        path: ``.html`` file.
        calibration: What `deepesi calibrate` measured, if it did.

    """
    import mne

    report = mne.Report(title="deepesi benchmark", image_format="png", verbose="error")
    report.add_html(facts_table(facts), title="What was measured")
    for name, rows in by_scenario(benchmark.rows).items():
        report.add_figure(
            axis_curves(rows), title=f"Curves: {name}", caption="Bands: 95 % interval.",
            section=name,
        )  # fmt: skip
        text = f"<p>{RULE}</p>{html_table(layout(rows))}"
        compared = differences(rows)
        if compared.lines:
            text += f"<p>{RULE_OF_DIFFERENCES}</p>{html_table(compared)}"
        report.add_html(text, title=f"Table: {name}", section=name)
    cell = middle_cell(benchmark.cells)
    report.add_figure(
        depth_curves(cell),
        title="Error against depth",
        caption=f"Scenario {cell.scenario.name}, {cell.snr_db:g} dB; bins of as many examples "
        "each, bands: 95 % interval.",
    )
    latencies = html_table(latency_layout(benchmark.latencies))
    report.add_html(
        "<p>Median over the examples of the first test set, each inverted on its own on one "
        f"thread, in the run that scored them.</p>{latencies}",
        title="Time of one recording",
    )
    if mesh is not None:
        for section, examples in (("Examples", gallery), ("Point spread", spreads)):
            for worked in examples:
                report.add_figure(
                    example_figure(worked, mesh), title=worked.title[:1].upper() + worked.title[1:],
                    caption=OWN_RANGE, section=section,
                )  # fmt: skip
    if calibration:
        add_panels(report, calibration, "Calibration")
    with atomic(path) as partial:
        report.save(partial, open_browser=False, verbose="error")
