"""The page of ``deepesi advise``: the verdict, the reasons and the figures behind them."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.advice.report import NOT_ESTIMATED, Advice
from deepesi.advice.rules import LARGEST_ERROR, UNUSUAL
from deepesi.advice.study import N_BETTER, Study
from deepesi.physics.template import DisplayMesh
from deepesi.viz.advice import apart_figure, errors_figure, misfit_figure, peak_figures
from deepesi.viz.page import html_table, tiles, write_page

Array = NDArray[np.float64]

#: Width of a view of the cortex and of a plot on the page, pixels.
VIEW, PLOT = 230, 340
HOW_TO_READ = f"""
<p>Strangers are simulated recordings of other people: another cortex with normals of its own, other
tissues and another seat of the cap, one to three patches of sources, and the electrodes, noise
covariance and SNR of this recording at its peak. The methods get each of them as they get this
recording, on the same packaged head.</p>
<p><b>Do not trust</b> stands above where noise alone reaches the power of the peak in more than
{100 * UNUSUAL:g} % of such recordings; where fewer than {100 * UNUSUAL:g} % of strangers leave as
much power after one, after two and after three sources; where the median expected error is above
{LARGEST_ERROR:g} mm; or where the methods are as far apart as in fewer than {100 * UNUSUAL:g} % of
strangers. Else there is no reason not to trust, which is no proof: strangers have no artifacts, and
their sources are patches of 10 to 25 mm.</p>
<p><b>Error</b>: distance from the strongest source of a method to the nearest centre of a true
patch.</p>
"""


class Drawn(NamedTuple):
    """What the page draws beside the advice.

    Attributes:
        magnitudes: Magnitudes of the model's estimate at the peak ``(S,)``, A m.
        peaks: Strongest source of every method.
        positions: Source positions ``(S, 3)``, m, head frame.
        mesh: Cortex mesh; None: none is known.

    """

    magnitudes: Array
    peaks: Sequence[int]
    positions: Array
    mesh: DisplayMesh | None


def write_advice_page(advice: Advice, study: Study, drawn: Drawn, path: Path) -> None:
    """Write the page atomically."""
    sections = {
        "Why": _sentences(advice.reasons or ["No rule speaks against this estimate."]),
        "What to check": _sentences(advice.to_check or ["Nothing was noticed."]),
        "Where the methods see the strongest source": _where(advice, drawn),
        "This recording beside strangers": _strangers(advice, study),
        "What would help": _help(advice),
        "How to read this page": HOW_TO_READ,
    }
    title = f"Which estimate to trust: {advice.recording}"
    write_page(path, title, _facts(advice), [advice.summary], sections)


def _facts(advice: Advice) -> dict[str, str]:
    bads = ", ".join(advice.bads) or "none"
    facts = {
        "verdict": advice.verdict,
        "model, head": f"{advice.model}, {advice.head}",
        "peak": f"{advice.time_ms:.0f} ms, SNR {advice.snr_db:.1f} dB",
        "recording": f"{advice.n_channels} channels (excluded as bad: {bads}), "
        f"{advice.nave:g} trials, rank {advice.rank} ({advice.rank_reason})",
    }
    if advice.cap is not None:
        pitch = advice.cap.pitch_degrees
        facts["electrodes"] = (
            f"placed by {advice.cap.placed_by}, residual {advice.cap.residual_mm:.1f} mm, pitch "
            + ("not estimated" if pitch is None else f"{pitch:.1f} degrees")
        )
    facts["channels that no source explains"] = ", ".join(advice.unexplained_channels) or "none"
    facts["expected error"] = str(advice.expected)
    if advice.prediction_set is not None:
        sets = advice.prediction_set
        facts[f"{100 * sets.level:g} % prediction set"] = (
            f"{sets.area_cm2:.0f} cm² here; in strangers {sets.strangers_median_cm2:.0f} cm² "
            f"(median), which holds what it must in {100 * sets.coverage:.0f} %"
        )
    facts["strangers"] = f"{advice.n_strangers}; analysts know {advice.analyst_knows}"
    return facts


def _sentences(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], long: Sequence[str] = ()) -> str:
    return html_table(header, [[(cell, False) for cell in line] for line in lines], (), long)


def _where(advice: Advice, drawn: Drawn) -> str:
    header = ("ring", "method", "strongest source", "expected error, median (mm)", "90 % (mm)")
    expected = advice.evidence.expected
    lines = [
        (
            str(number + 1),
            name,
            location.where,
            f"{expected[name].median_mm:.1f}",
            f"{expected[name].p90_mm:.1f}",
        )
        for number, (name, location) in enumerate(advice.locations.items())
    ]
    distances = _sentences([f"{who}: {mm:.0f} mm" for who, mm in advice.distances_mm.items()])
    figures = peak_figures(drawn.magnitudes, drawn.peaks, drawn.mesh, drawn.positions)
    maps = f"<p>The map is the estimate of {escape(advice.model)}.</p>" + tiles(figures, VIEW)
    return _table(header, lines, ("strongest source",)) + distances + maps


def _strangers(advice: Advice, study: Study) -> str:
    evidence, names = advice.evidence, list(advice.evidence.expected)
    errors = {name: study.errors[:, number] for number, name in enumerate(names)}
    figures = [
        (
            "Residual variance of the best sources: strangers (box: quartiles; lines: 1 to 99 %) "
            f"and this recording, p = {evidence.p_misfit:.2g}",
            misfit_figure(study.residual, [compared.value for compared in evidence.misfit]),
        ),
        ("Strangers with at most this error, by method", errors_figure(errors)),
        (
            f"How far apart the methods are, p = {evidence.agreement.p:.2g}",
            apart_figure(study.apart, evidence.agreement.value),
        ),
    ]
    return tiles(figures, PLOT)


def _help(advice: Advice) -> str:
    header = ("with", "expected error, median (mm)", "gain (mm)")
    lines = [(g.set_up, f"{g.median_mm:.1f}", f"{g.gain_mm:.1f}") for g in advice.gains]
    unknown = [f"{name}: {reason}." for name, reason in NOT_ESTIMATED.items()]
    now = (
        f"<p>Now: {escape(str(advice.expected))}. Gains are those of {N_BETTER} strangers, so less "
        "than 2 mm may be chance.</p>"
    )
    return now + _table(header, lines) + _sentences(unknown)
