"""``report.html``: tables, curves along every axis, maps of errors and of examples, latency."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from deepesi.evaluation.benchmark import Benchmark, Cell, Row
from deepesi.evaluation.calibration import CalibrationRow
from deepesi.evaluation.calibration_report import sections as calibration_sections
from deepesi.evaluation.explanations import explanations
from deepesi.evaluation.figures import (
    Style,
    axis_panels,
    binned_panel,
    example_panels,
    source_panels,
    styles,
)
from deepesi.evaluation.gallery import Gallery, PointSpread, WorkedExample, middle_cell
from deepesi.evaluation.table import (
    RULE,
    RULE_OF_DIFFERENCES,
    Layout,
    by_scenario,
    differences,
    latency_layout,
    layout,
)
from deepesi.metrics.table import METRICS
from deepesi.physics.template import DisplayMesh
from deepesi.viz.page import facts_table, html_table, key, tiles, write_page

OWN_RANGE = (
    "Each map has its own colour range, bare cortex below 25 % of its maximum; ring: true peak."
)
SEVERAL = (
    "Rings are numbered as the true sources. Sets: connected parts in colours, with letters from "
    "the strongest. Calibrated files show their prediction set, posteriors the set that holds all "
    "sources of 90 % of their samples, others their half-maximum area, which has no stated "
    "probability."
)
BINS = (
    "Bins of as many examples each; bands: 95 % intervals. Too few for two bins: every example "
    "by itself."
)
DEPTH = "depth below the scalp (mm)"
ANGLE = "angle to the scalp (degrees; 90: tangential)"
#: Pixels of curves, of maps of errors and of single maps: two or more of the last fit a phone.
CURVE, MAP, SMALL = 325, 325, 160


def write_report(
    benchmark: Benchmark,
    pictures: Gallery | None,
    words: Mapping[str, Mapping[str, str]],
    facts: Mapping[str, str],
    methods: Mapping[str, Layout],
    path: Path,
    calibration: Sequence[CalibrationRow] = (),
) -> None:
    """Write the report, whole or not at all.

    Args:
        benchmark: Results.
        pictures: Data to draw on the cortex; None for a head without one.
        words: Facts about every scenario, by its name.
        facts: Facts at the top of the page: name to text.
        methods: Tables about the methods, by heading.
        path: ``.html`` file.
        calibration: Results of `deepesi calibrate`, if there are any.

    """
    method_styles = styles(benchmark.cells[0].scores)
    sections = {
        f"Scenario {name}": facts_table(words[name]) + _scenario(rows, method_styles)
        for name, rows in by_scenario(benchmark.rows).items()
    }
    cell = middle_cell(benchmark.cells)
    parts = (cell.scenario.name, cell.scenario.level, f"{cell.snr_db:g} dB")
    where = ", ".join(part for part in parts if part)
    sections["Where the errors are"] = _errors(cell, where, pictures, method_styles)
    if pictures is not None:
        sections["Point spread"] = _spread(pictures.spread, pictures, method_styles)
        sections["Single points"] = _worked(pictures.points, pictures.mesh)
        sections["Examples"] = f"<p>Of {where}.</p>" + _worked(pictures.examples, pictures.mesh)
    sections["Time of one recording"] = (
        "<p>Median over the examples of the first test set, each inverted on its own on one "
        "thread, in the run that scored them.</p>"
        + html_table(*latency_layout(benchmark.latencies))
    )
    if calibration:
        sections |= {
            f"Calibration: {name}": text for name, text in calibration_sections(calibration)
        }
    sections |= {heading: html_table(*table) for heading, table in methods.items()}
    write_page(path, "deepesi benchmark", facts, [], sections)


def _scenario(rows: Sequence[Row], method_styles: Mapping[str, Style]) -> str:
    """Tables and curves of one scenario."""
    text = f"<p>{RULE}</p>{html_table(*layout(rows))}"
    compared = differences(rows)
    if compared.lines:
        text += f"<p>{RULE_OF_DIFFERENCES}</p>{html_table(*compared)}"
    curves = tiles(axis_panels(rows, method_styles), CURVE)
    return f"{text}<p>Means; bands: 95 % intervals.</p>{key(method_styles)}{curves}"


def _errors(
    cell: Cell, where: str, pictures: Gallery | None, method_styles: Mapping[str, Style]
) -> str:
    """The localization error against depth and orientation, and at the true sources."""
    values = {m: cell.values(m, "localization_error") for m in cell.scores}
    scores = next(iter(cell.scores.values()))
    axes = {DEPTH: [s.depth_mm for s in scores], ANGLE: [s.angle for s in scores]}
    title = METRICS["localization_error"].label
    panels = [
        (f"By {label}.", binned_panel(label, np.array(known), values, method_styles, title))
        for label, known in axes.items()
        if np.isfinite(known).all()
    ]
    text = (
        f"<p>Examples of {where}, by the first source of each. {BINS}</p>{key(method_styles)}"
        f"{tiles(panels, CURVE)}"
    )
    if pictures is None:
        return text
    example, number = np.nonzero(pictures.peaks >= 0)
    sources = pictures.peaks[example, number]
    at_sources = {m: own[example] for m, own in values.items()}
    several = " (the mean of an example at each of its sources)" if number.any() else ""
    maps = tiles(source_panels(sources, at_sources, pictures.mesh, title), MAP)
    return f"{text}<p>Localization error{several} at every true source.</p>{maps}"


def _spread(spread: PointSpread, pictures: Gallery, method_styles: Mapping[str, Style]) -> str:
    """Error and dispersion of points all over the cortex, by vertex and against depth."""
    text = (
        f"<p>{len(spread.sources)} single points all over the cortex, without noise, seen through "
        "the nominal lead field: how far the strongest source of the estimate is from the point, "
        "and how far the estimate spreads around it (spatial dispersion)."
    )
    if spread.excluded:
        text += f" Left out, as they would take too long: {escape(', '.join(spread.excluded))}."
    parts = [f"{text}</p>"]
    kinds = {"localization_error": spread.error_mm, "spatial_dispersion": spread.dispersion_mm}
    if spread.error_mm:
        titles = {metric: METRICS[metric].label for metric in kinds}
        panels = [
            (title, binned_panel(DEPTH, spread.depth_mm, kinds[metric], method_styles, title))
            for metric, title in titles.items()
        ]
        parts.append(
            f"<p>{BINS}</p>{key({m: method_styles[m] for m in spread.error_mm})}"
            f"{tiles(panels, CURVE)}"
        )
        for metric, values in kinds.items():
            maps = source_panels(spread.sources, values, pictures.mesh, titles[metric])
            parts.append(f"<h3>{titles[metric]} of points</h3>{tiles(maps, MAP)}")
    return "".join(parts)


def _worked(examples: Sequence[WorkedExample], mesh: DisplayMesh) -> str:
    several = f"<p>{SEVERAL}</p>" if any(worked.sets for worked in examples) else ""
    return f"<p>{OWN_RANGE}</p>{several}" + "".join(
        f"<h3>{escape(worked.title[:1].upper() + worked.title[1:])}</h3>"
        + tiles(example_panels(worked, mesh), SMALL)
        + explanations(worked)
        for worked in examples
    )
