"""``report.html``: estimated locations of every response and method, successes and failures."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from deepesi.physics.template import DisplayMesh, template_of
from deepesi.validation.run import Excluded, Result
from deepesi.validation.statistics import ALPHA, failures
from deepesi.viz.page import html_table, picture, png, tiles, write_page
from deepesi.viz.validation import cortex_figure, projections_figure, time_course_figure

#: Width of maps on the page, pixels: on a cortex, and in projections.
MAP, PROJECTIONS = 230, 345
HOW_TO_SEE = (
    "Grey: baseline; yellow: window of the response; dashed: power of the noise. Each map has its "
    "own colour range and a ring at the strongest source."
)
VIEWS = {
    "occipital": ("left posterior", "right posterior"),
    "temporal": ("left lateral", "right lateral"),
}
HEADER = (
    "condition",
    "head",
    "method",
    "verdict",
    "time (ms)",
    "whitened power, p",
    "peak, MNI (mm)",
    "to target (mm), baseline, p",
    "window in lobe, baseline, sources",
    "hemisphere share, baseline",
    "residual variance, whitened",
)
HOW_TO_READ = f"""
<p>Baseline and response of an average are estimated together, with one kernel. Every statistic of
the response is also computed for the baseline. <b>Verdict</b>: a success is above the baseline (p
of the largest whitened power in the window, compared with baseline segments of the same length, at
most {ALPHA:g}), has the strongest source in the expected lobe of the expected hemisphere at that
sample, and in at least half of the window. <b>To target</b>: distance of that source to the target;
median over the baseline; p from the baseline samples that are as near. <b>Window in lobe</b>: share
of samples with the strongest source in the expected lobe; the same for the baseline; share of all
sources in that lobe. <b>Hemisphere share</b>: share of the magnitude in the expected hemisphere
(0.5: no preference); the same for the baseline. <b>Residual variance</b>: with the nominal lead
field; whitened and with the best scale. Samples of a baseline are not independent, so p values are
too small. The smallest possible p is 1 / (1 + number of baseline samples or segments).</p>
"""


def mni_text(statistics: Mapping[str, float]) -> str:
    """Text of the peak position ``(x, y, z)``, MNI mm."""
    x, y, z = (round(statistics[f"peak_{axis}"]) for axis in "xyz")  # integers have no -0
    return f"({x}, {y}, {z})"


def verdict(result: Result) -> str:
    """``success``, or a text that says what failed."""
    failed = failures(result.statistics)
    return f"FAILED: {'; '.join(failed)}" if failed else "success"


def table(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """One row per result, with the columns of `HEADER`."""
    return [
        (r.case.condition, r.case_head.name, r.method, verdict(r), *_cells(r.statistics))
        for r in results
    ]


def _cells(s: Mapping[str, float]) -> tuple[str, ...]:
    return (
        f"{s['latency']:.0f}",
        f"{s['whitened_power']:.1f}, {s['p_power']:.2f}",
        mni_text(s),
        f"{s['peak_distance']:.0f}, {s['baseline_distance']:.0f}, {s['p_distance']:.2f}",
        f"{s['share_in_lobe']:.2f}, {s['baseline_share_in_lobe']:.2f}, {s['sources_in_lobe']:.2f}",
        f"{s['lateralization']:.2f}, {s['baseline_lateralization']:.2f}",
        f"{s['residual_variance']:.2f}, {s['residual_variance_whitened']:.2f}",
    )


def results_table(results: Sequence[Result]) -> str:
    """HTML table of all results; failures have another colour."""
    lines = table(results)
    cells = [[(cell, False) for cell in line] for line in lines]
    return html_table(HEADER, cells, [line[3] != "success" for line in lines], ("verdict",))


def summary(results: Sequence[Result], missing: Sequence[Excluded]) -> str:
    """HTML: number of successes, list of failures and of excluded combinations."""
    failed = [r for r in results if failures(r.statistics)]
    lines = [f"<p><b>{len(results) - len(failed)} of {len(results)} succeeded.</b></p><ul>"]
    for r in failed:
        name = f"{r.case.condition}, {r.case_head.name} head, {r.method}"
        lines.append(f"<li>{escape(name)}: {escape(verdict(r))}</li>")
    lines += [
        f"<li>{escape(m.method)}: not run on the {m.head} head: {escape(m.reason)}</li>"
        for m in missing
    ]
    return "".join([*lines, "</ul>"])


def expectations(results: Sequence[Result]) -> str:
    """HTML list of the expected location of every condition."""
    cases = {r.case.condition: r.case for r in results}
    lines = [
        f"<li><b>{escape(name)}</b> ({case.evoked.nave} trials): {1e3 * case.window[0]:.0f} to "
        f"{1e3 * case.window[1]:.0f} ms, {escape(str(case.expectation))}. Reason: "
        f"{escape(case.expectation.why)}.</li>"
        for name, case in cases.items()
    ]
    return f"<ul>{''.join(lines)}</ul>"


def figures(results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    """Heading and figures of every condition, head and source space: time courses, then maps."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for r in results:
        where = r.case.condition, r.case_head.name, r.case_head.head.space.name
        groups.setdefault(where, []).append(r)
    for (condition, case_head, space), own in groups.items():
        first = own[0]
        track, window = first.track, first.case.window
        distances, target = {r.method: r.track.distance for r in own}, first.case_head.target
        figure = time_course_figure(track.times, track.power, window, distances)
        text = f"Below the power: distance of each method's strongest source to the {target}."
        yield (
            f"{condition}, {case_head} head ({space})",
            f"<p>{escape(text)} {HOW_TO_SEE}</p>{picture(png(figure), text)}"
            + tiles(_maps(own), MAP if _mesh(own[0]) is not None else PROJECTIONS),
        )


def _maps(results: Sequence[Result]) -> Iterator[tuple[str, Figure]]:
    """Caption and map of every method on one head."""
    for r in results:
        mesh = _mesh(r)
        caption = (
            f"{r.method}: {r.statistics['latency']:.0f} ms, "
            f"{r.statistics['peak_distance']:.0f} mm to target"
        )
        if mesh is None:
            yield caption, projections_figure(r.magnitude, r.case_head.head.source_pos)
        else:
            yield caption, cortex_figure(r.magnitude, mesh, VIEWS[r.case.expectation.lobe])


def _mesh(result: Result) -> DisplayMesh | None:
    """Cortex mesh to draw on, if the source space has one."""
    template = template_of(result.case_head.head.space)
    return None if template is None else template.display


def write_report(
    results: Sequence[Result], missing: Sequence[Excluded], facts: Mapping[str, str], path: Path
) -> None:
    """Write the page atomically.

    Args:
        results: Results in the order to show.
        missing: Combinations that were not run.
        facts: Table at the top, texts by name.
        path: ``.html`` file.

    """
    sections = {
        "Summary": summary(results, missing),
        "Every method": HOW_TO_READ + results_table(results),
        "Expected locations": expectations(results),
    }
    title = f"deepesi on a real recording: {results[0].case.recording}"
    write_page(path, title, facts, [], sections | dict(figures(results)))
