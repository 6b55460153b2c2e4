"""Pages of responses to turn and play: every method on the packaged head, over the window."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepesi.physics.template import template_of
from deepesi.validation.run import Result
from deepesi.viz.viewer import View, fitting, percent, write_viewer


def write_response_pages(results: Sequence[Result], folder: Path) -> dict[str, Path]:
    """Write ``01-CONDITION.html`` and so on, one page per response and source space.

    Only for heads with a cortex to draw on. A page above 3 MB leaves samples out.

    Args:
        results: Results in the order to show.
        folder: Folder of the pages.

    Returns:
        Paths of the pages by the heading of the response in the report.

    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        template = template_of(result.case_head.head.space)
        if template is not None and template.display is not None:
            groups.setdefault(result.heading, []).append(result)
    written = {}
    for number, (heading, own) in enumerate(groups.items(), start=1):
        name = re.sub(r"[^a-z0-9]+", "-", own[0].case.condition.lower()).strip("-")
        path = folder / f"{number:02d}-{name}.html"
        views, step = fitting({"Estimates": _view(own)})
        facts = {
            "recording": own[0].case.recording,
            "expected": str(own[0].case.expectation),
            "map": "each method as a share of its own maximum in the window",
        }
        if step > 1:
            facts["samples"] = f"one of {step}, so that the page stays below 3 MB"
        write_viewer(path, heading, facts, [], views)
        written[heading] = path
    return written


def _view(results: Sequence[Result]) -> View:
    """Every method in the window of one response; first shown at the largest whitened power."""
    first = results[0]
    template = template_of(first.case_head.head.space)
    assert template is not None
    assert template.display is not None
    track = first.track
    window = np.flatnonzero(track.window)
    return View(
        times=track.times[window],
        maps={r.method: percent(r.in_window) for r in results},
        mesh=template.display,
        data=first.data[:, window],
        sensor_pos=first.case_head.head.sensors.positions,
        peak_sample=int(track.power[window].argmax()),
        unit="% of the maximum",
        mni=template.source_mni,
    )
