"""``report.html``: estimated locations of every response and method, successes and failures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from deepesi.physics.template import DisplayMesh, template_of
from deepesi.validation.expectation import Expectation, position_text
from deepesi.validation.run import Excluded, Result
from deepesi.validation.statistics import ALPHA, failures
from deepesi.validation.successes import tally
from deepesi.viz.page import html_table, picture, png, tiles, write_page
from deepesi.viz.validation import cortex_figure, projections_figure, time_course_figure

#: Width of maps on the page, pixels: on a cortex, and in projections.
MAP, PROJECTIONS = 230, 345
HOW_TO_SEE = (
    "Grey: baseline; yellow: window of the response; dashed: power of the noise. Each map has its "
    "own colour range and a ring at the strongest source."
)
LATERAL, POSTERIOR = ("left lateral", "right lateral"), ("left posterior", "right posterior")
#: Views of a lobe; the others, and expectations without a lobe, have the lateral ones.
VIEWS = {"occipital": POSTERIOR, "parietal": POSTERIOR}
HOW_TO_READ = f"""
<p>Baseline and response of an average are estimated together, with one kernel. Every statistic of
the response is also computed for the baseline. <b>Verdict</b>: a success is above the baseline (p
of the largest whitened power in the window, compared with baseline segments of the same length, at
most {ALPHA:g}), and has the strongest source where it is expected (hemisphere, lobe, tolerance
about the target, as far as they were given) at that sample, and in at least half of the window.
<b>To target</b>: distance of that source to the target; median over the baseline; p from the
baseline samples that are as near; p by chance: share of all sources that are as near. <b>Window in
hemisphere, lobe, tolerance</b>: share of samples with the strongest source there; the same for the
baseline; share of all sources there, which is the level by chance. A lobe is that of the expected
hemisphere. <b>Prediction set</b>: whether the set of that sample holds the source nearest to the
target; share of all sources in the set, which is the level by chance. <b>Magnitude in
hemisphere</b>: share of the magnitude in the expected hemisphere (0.5: no preference); the same for
the baseline. <b>Residual variance</b>: with the nominal lead field; whitened and with the best
scale. Samples of a baseline are not independent, so p values are too small. The smallest possible p
is 1 / (1 + number of baseline samples or segments).</p>
"""
HOW_TO_TALLY = """
<p>Number of responses whose strongest source is where it is expected, and their mean distance to
the target. <b>By chance</b>: expected number (mean distance) of sources drawn at random from all
sources, and the probability of a result as good. <b>In the baseline</b>: the same for the strongest
sources that the method itself finds in the baselines of these averages. p values of numbers are
exact (binomial, with a chance of its own for every response), those of distances from 9,999 draws.
They count responses as independent, which those of one subject are not.</p>
"""


def _texts(*formats: tuple[str, str]) -> Callable[[Mapping[str, float]], str]:
    """Text of statistics, each with its format; ``–`` if there are none (not expected)."""

    def text(s: Mapping[str, float]) -> str:
        known = [format(s[name], how) for name, how in formats if np.isfinite(s[name])]
        return ", ".join(known) or "–"

    return text


def _shares(name: str) -> Callable[[Mapping[str, float]], str]:
    """Share of the window and of the baseline that meets a part of the expectation, and chance."""
    parts = (f"share_in_{name}", f"baseline_share_in_{name}", f"sources_in_{name}")
    return _texts(*((part, ".2f") for part in parts))


def mni_text(statistics: Mapping[str, float]) -> str:
    """Text of the peak position ``(x, y, z)``, MNI mm."""
    return position_text(statistics[f"peak_{axis}"] for axis in "xyz")


def target_text(statistics: Mapping[str, float]) -> str:
    """Text of the distance to the target, with a comma before it; empty without a target."""
    distance = statistics["peak_distance"]
    return f", {distance:.0f} mm to target" if np.isfinite(distance) else ""


#: Columns of the table of statistics; those without any value are left out.
STATISTICS = {
    "time (ms)": _texts(("latency", ".0f")),
    "whitened power, p": _texts(("whitened_power", ".1f"), ("p_power", ".2f")),
    "peak, MNI (mm)": mni_text,
    "to target (mm), baseline, p, p by chance": _texts(
        ("peak_distance", ".0f"),
        ("baseline_distance", ".0f"),
        ("p_distance", ".2f"),
        ("p_distance_chance", ".2f"),
    ),
    "window in hemisphere, baseline, sources": _shares("hemisphere"),
    "window in lobe, baseline, sources": _shares("lobe"),
    "window in tolerance, baseline, sources": _shares("tolerance"),
    "prediction set holds target, sources": _texts(
        ("target_in_set", ".0f"), ("sources_in_set", ".2f")
    ),
    "magnitude in hemisphere, baseline": _texts(
        ("lateralization", ".2f"), ("baseline_lateralization", ".2f")
    ),
    "residual variance, whitened": _texts(
        ("residual_variance", ".2f"), ("residual_variance_whitened", ".2f")
    ),
}


def verdict(result: Result) -> str:
    """``success``, or a text that says what failed."""
    failed = failures(result.statistics)
    return f"FAILED: {'; '.join(failed)}" if failed else "success"


def results_table(results: Sequence[Result]) -> str:
    """HTML table of all results; failures have another colour."""
    columns = {title: [text(r.statistics) for r in results] for title, text in STATISTICS.items()}
    used = {title: texts for title, texts in columns.items() if set(texts) != {"–"}}
    lines = [
        (r.case.condition, r.case_head.name, r.method, verdict(r), *texts)
        for r, *texts in zip(results, *used.values(), strict=True)
    ]
    header = ("condition", "head", "method", "verdict", *used)
    cells = [[(cell, False) for cell in line] for line in lines]
    return html_table(header, cells, [line[3] != "success" for line in lines], ("verdict",))


def tally_table(results: Sequence[Result]) -> str:
    """HTML table of the successes of every method over all responses, against chance."""
    header = ("head", "method", "expected", "responses", "observed", "by chance, p", "baseline, p")
    lines = [
        (
            *(t.head, t.method, t.quantity, str(t.n)),
            f"{t.observed:.3g}",
            f"{t.chance:.3g}, {t.p_chance:.2g}",
            f"{t.baseline:.3g}, {t.p_baseline:.2g}" if np.isfinite(t.baseline) else "–",
        )
        for t in tally(results)
    ]
    return html_table(header, [[(cell, False) for cell in line] for line in lines])


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
        f"{1e3 * case.window[1]:.0f} ms, {escape(_reasoned(case.expectation))}.</li>"
        for name, case in cases.items()
    ]
    return f"<ul>{''.join(lines)}</ul>"


def _reasoned(expected: Expectation) -> str:
    return f"{expected}. Reason: {expected.why}" if expected.why else str(expected)


def figures(
    results: Sequence[Result], pages: Mapping[str, Path], folder: Path
) -> Iterator[tuple[str, str]]:
    """Heading and figures of every condition, head and source space: time courses, then maps.

    With a link to its page to turn and play, relative to the folder of the report.
    """
    groups: dict[str, list[Result]] = {}
    for r in results:
        groups.setdefault(r.heading, []).append(r)
    for heading, own in groups.items():
        first = own[0]
        track, window = first.track, first.case.window
        baseline = tuple(track.times[track.baseline][[0, -1]])
        distances = {r.method: d for r in own if (d := r.track.distance) is not None}
        figure = time_course_figure(track.times, track.power, baseline, window, distances)
        text = "Whitened power."
        if distances:
            target = first.case_head.target
            text = f"Below the power: distance of each method's strongest source to the {target}."
        link = ""
        if heading in pages:
            page = pages[heading].relative_to(folder).as_posix()
            link = f"<p><a href='{page}'>A page to turn and play</a></p>"
        yield (
            heading,
            f"<p>{escape(text)} {HOW_TO_SEE}</p>{link}{picture(png(figure), text)}"
            + tiles(_maps(own), MAP if _mesh(own[0]) is not None else PROJECTIONS),
        )


def _maps(results: Sequence[Result]) -> Iterator[tuple[str, Figure]]:
    """Caption and map of every method on one head."""
    for r in results:
        mesh = _mesh(r)
        caption = f"{r.method}: {r.statistics['latency']:.0f} ms{target_text(r.statistics)}"
        if mesh is None:
            yield caption, projections_figure(r.magnitude, r.case_head.head.source_pos)
        else:
            yield (
                caption,
                cortex_figure(r.magnitude, mesh, VIEWS.get(r.case.expectation.lobe or "", LATERAL)),
            )


def _mesh(result: Result) -> DisplayMesh | None:
    """Cortex mesh to draw on, if the source space has one."""
    template = template_of(result.case_head.head.space)
    return None if template is None else template.display


def write_report(
    results: Sequence[Result],
    missing: Sequence[Excluded],
    facts: Mapping[str, str],
    path: Path,
    pages: Mapping[str, Path] | None = None,
) -> None:
    """Write the page atomically.

    Args:
        results: Results in the order to show.
        missing: Combinations that were not run.
        facts: Table at the top, texts by name.
        path: ``.html`` file.
        pages: Pages of responses to link to, in or below its folder, by their headings.

    """
    several = len({id(r.case) for r in results}) > 1
    sections = {
        "Summary": summary(results, missing),
        **({"All responses together": HOW_TO_TALLY + tally_table(results)} if several else {}),
        "Every method": HOW_TO_READ + results_table(results),
        "Expected locations": expectations(results),
    }
    names = list(dict.fromkeys(r.case.recording for r in results))
    what = f"a real recording: {names[0]}" if len(names) == 1 else f"{len(names)} real recordings"
    title = f"deepesi on {what}"
    write_page(path, title, facts, [], sections | dict(figures(results, pages or {}, path.parent)))
