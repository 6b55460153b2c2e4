"""The page of ``deepesi explain``."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepesi.interpret.any_model.explanation import Attribution, Explanation
from deepesi.physics.forward_check import BY_CHANCE, MIN_RATIO
from deepesi.physics.lobes import LOBE_SIZE, MIN_DISTANCE
from deepesi.viz.advice import peak_figures
from deepesi.viz.explanation import evidence_figure, samples_figure, scalp_figure
from deepesi.viz.page import html_table, tiles, write_page

Array = NDArray[np.float64]

#: Widths of a scalp map, a view of the cortex, a map of samples and an evidence map, pixels.
SCALP, VIEW, SAMPLES, STEP = 235, 230, 340, 160
#: Most channels and lost sensors that are named.
MOST = 8
#: Names of the methods on the page.
TITLES = {
    "saliency": "Saliency: change of the value per standard deviation of the noise",
    "integrated_gradients": "Integrated gradients: what an electrode adds, compared with noise",
    "deep_lift": "DeepLIFT-like: what an electrode adds, compared with noise",
    "occlusion": "Occlusion: what would be missing without the electrode",
}
#: Methods that failed the randomization check for every graded model; a test compares with
#: ``docs/_results/explanations.csv``.
FAILED = ("integrated_gradients", "deep_lift", "occlusion")
FAILS = "Fails the randomization check: such a map depends little on model or target"
HOW_TO_READ = f"""
<p><b>What is explained</b> is one number of the estimate, named above. An attribution says how much
each electrode adds to it (red) or takes from it (blue). It explains the model, not the brain: a
wrong estimate has an explanation, too. <a
href='https://doi.org/10.48550/arXiv.1810.03292'>Some methods</a> show much the same for any model
or target. Methods that failed such a check in simulation are marked.</p>
<p><b>Noise</b> recordings of this set-up are what integrated gradients and DeepLIFT compare with.
The completeness error says how far the sum of an attribution is from the difference that it should
explain. A method whose contributions do not add up for this network is left out, and named at the
top.</p>
<p><b>Forward check</b>: the potential of the estimate through the nominal lead field, beside the
recording, whitened. Channels do not fit if noise alone reaches their residual in fewer than
{100 * BY_CHANCE:g} % of recordings, and it is above {MIN_RATIO:g} times the median.</p>
<p><b>What would move the peak</b>: a change of few electrodes, in standard deviations of the noise,
with which the strongest source lies in another lobe. It is a local search, so a smaller change may
exist. If the change is below about 3, noise may have put the peak where it is.</p>
<p><b>Lobes</b> are boxes in MNI space that overlap, because borders differ from person to person.
A source is in another lobe if it shares no lobe with the strongest source, or lies in the other
hemisphere, and is at least {1e3 * MIN_DISTANCE:g} mm away; without MNI positions, if it is at
least {1e3 * LOBE_SIZE:g} mm away.</p>
<p><b>Loss</b>: the electrode reads what the others predict.</p>
"""


def write_explanation(result: Explanation, path: Path) -> None:
    """Write the page atomically."""
    sections = {
        "What each electrode contributes": _attributions(result),
        "Forward check": _forward(result),
        "What would move the peak": _change(result),
        "Electrodes whose loss moves the peak": _lost(result),
    }
    if result.inside.steps and result.mesh is not None:
        sections["Evidence, step by step"] = _steps(result)
    if result.inside.attention:
        sections["Attention"] = _attention(result)
    sections["Every electrode"] = _table(result)
    sections["How to read this page"] = HOW_TO_READ
    title = f"Explanation of an estimate: {result.recording}"
    write_page(path, title, _facts(result), list(result.missing), sections)


def _facts(result: Explanation) -> dict[str, str]:
    span = f"{len(result.times)} samples, {1e3 * result.times[0]:.0f} to "
    samples = f"{span}{1e3 * result.times[-1]:.0f} ms" if len(result.times) > 1 else "this sample"
    return {
        "model, head": f"{result.model}, {result.head}",
        "sample": f"{1e3 * result.time:.0f} ms, SNR {result.snr_db:.1f} dB; input of the model: "
        f"{samples}",
        "strongest source": result.location(result.peak),
        "what is explained": f"{result.target_text}: "
        f"{result.value * result.target.factor:.3g} {result.target.unit}",
        "forward check": f"the estimate explains {100 * result.check.share:.0f} % of the whitened "
        f"power, {100 * result.check.scaled_share:.0f} % after the best scaling",
        "channels that do not fit": result.names(result.check.misfits),
        "channels that no source explains": result.names(result.unexplained_channels),
    }


def _scalp(result: Explanation, values: Array, unit: str, limit: float | None = None) -> Figure:
    sensors = result.sensors
    return scalp_figure(values, sensors.positions, sensors.names, unit, limit)


def _attributions(result: Explanation) -> str:
    recorded = 1e6 * result.data[:, result.sample]
    maps = [("Recording at this sample", _scalp(result, recorded, "µV"))]
    maps += [
        (_caption(name, a), _scalp(result, a.by_sensor, a.unit))
        for name, a in result.attributions.items()
    ]
    text = tiles(maps, SCALP)
    if len(result.times) == 1:
        return text
    names, sample = result.sensors.names, result.sample
    over_time = [
        (
            f"{name.replace('_', ' ')}, by sample".capitalize(),
            samples_figure(a.values, result.times, names, a.unit, sample),
        )
        for name, a in result.attributions.items()
        if a.values is not None
    ]
    return (
        f"{text}<p>Scalp maps are sums over the samples; of occlusion, the loss of all of "
        f"them.</p>{tiles(over_time, SAMPLES)}"
    )


def _caption(name: str, attribution: Attribution) -> str:
    parts = (TITLES[name], attribution.note, FAILS if name in FAILED else "")
    return ". ".join(part for part in parts if part)


def _forward(result: Explanation) -> str:
    check = result.check
    limit = float(np.abs(np.concatenate([check.recorded, check.explained])).max())
    unit = "noise SD"
    maps = [
        ("Whitened recording", _scalp(result, check.recorded, unit, limit)),
        ("What the estimate explains", _scalp(result, check.explained, unit, limit)),
        (
            "Residual, names: channels that do not fit",
            scalp_figure(
                check.residual,
                result.sensors.positions,
                result.sensors.names,
                unit,
                marks=check.misfits[:MOST],
            ),
        ),
    ]
    return tiles(maps, SCALP)


def _change(result: Explanation) -> str:
    change = result.change
    if change is None:
        return "<p>No change of up to 1000 standard deviations of the noise was found.</p>"
    rows = change.sensors
    many = "" if len(rows) <= MOST else f", {len(rows) - MOST} more"
    words = ", ".join(
        f"{result.sensors.names[row]} by {change.change[row]:+.1f}" for row in rows[:MOST]
    )
    sentence = (
        f"<p>A change of {len(rows)} electrode(s) of norm {change.size:.1f}, in standard "
        f"deviations of the noise ({escape(words + many)}), moves the strongest source from "
        f"<b>1</b>, {escape(result.location(change.before))}, to <b>2</b>, "
        f"{escape(result.location(change.after))}. It is the same in all samples of the "
        "input. The cortex shows the estimate without the change.</p>"
    )
    values = change.change
    scalp = scalp_figure(
        values,
        result.sensors.positions,
        result.sensors.names,
        "noise SD",
        marks=rows[:MOST],
        as_dots=True,
    )
    peaks = peak_figures(
        result.magnitudes, [change.before, change.after], result.mesh, result.positions
    )
    return sentence + tiles([("Change", scalp)], SCALP) + tiles(peaks, VIEW)


def _lost(result: Explanation) -> str:
    if not result.lost:
        return "<p>No single electrode: without any of them the strongest source stays.</p>"
    header = ("without", "moved by (mm)", "another lobe", "to")
    lines = [
        [
            (result.sensors.names[lost.sensor], False),
            (f"{1e3 * lost.distance:.0f}", False),
            (_another_lobe(result, lost.peak), False),
            (result.locations[lost.peak], False),
        ]
        for lost in result.lost
    ]
    moved = np.zeros(len(result.sensors))
    for lost in result.lost:
        moved[lost.sensor] = 1e3 * lost.distance
    scalp = scalp_figure(moved, result.sensors.positions, result.sensors.names, "mm", as_dots=True)
    return tiles([("How far the peak moves", scalp)], SCALP) + html_table(
        header, lines, (), ("to",)
    )


def _another_lobe(result: Explanation, source: int) -> str:
    """Whether a source is in another lobe than the strongest one, and its lobe, if known."""
    answer, lobe = "yes" if result.elsewhere[source] else "no", result.lobes.get(source)
    return answer if lobe is None else f"{answer}, {lobe}"


def _steps(result: Explanation) -> str:
    assert result.mesh is not None
    mesh = result.mesh
    maps = (
        (title, evidence_figure(values, mesh, result.peak)) for title, values in result.inside.steps
    )
    return (
        "<p>Share of the evidence for every source after each step of the network; each map has "
        "its own colour range, ring: strongest source of the estimate.</p>" + tiles(maps, STEP)
    )


def _attention(result: Explanation) -> str:
    maps = [(title, _scalp(result, values, "weight")) for title, values in result.inside.attention]
    text = (
        "<p>Attention shows which electrodes the network reads, not how they change the estimate. "
        "It is not an attribution.</p>"
    )
    return text + tiles(maps, SCALP)


def _columns(result: Explanation) -> Iterator[tuple[str, Array]]:
    yield "recording (µV)", 1e6 * result.data[:, result.sample]
    yield "whitened (noise SD)", result.check.recorded
    yield "explained (noise SD)", result.check.explained
    yield "residual (noise SD)", result.check.residual
    for name, attribution in result.attributions.items():
        yield f"{name.replace('_', ' ')} ({attribution.unit})", attribution.by_sensor
    if result.change is not None:
        yield "counterfactual change (noise SD)", result.change.change


def _table(result: Explanation) -> str:
    columns = dict(_columns(result))
    misfits = set(result.check.misfits)
    lines = [
        [(name, False), *((f"{values[row]:.3g}", False) for values in columns.values())]
        for row, name in enumerate(result.sensors.names)
    ]
    shaded = [row in misfits for row in range(len(lines))]
    return html_table(("electrode", *columns), lines, shaded)
