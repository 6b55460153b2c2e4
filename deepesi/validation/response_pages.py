"""Pages of responses to turn and play: every method on the packaged head, over the window."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.atlas import parcel_names
from deepesi.physics.template import template_of
from deepesi.validation.run import Result
from deepesi.viz.cortex_movie import N_STD, above_std
from deepesi.viz.viewer import View, fitting, percent, write_viewer


def write_response_pages(results: Sequence[Result], folder: Path) -> dict[str, Path]:
    """Write ``01-CONDITION.html`` and so on, one page per response and source space.

    Only for heads with a cortex to draw on, and for recordings with EEG: a page shows potentials.
    A page above 3 MB leaves samples out.

    Args:
        results: Results in the order to show.
        folder: Folder of the pages.

    Returns:
        Paths of the pages by the heading of the response in the report.

    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        head = result.case_head.head
        template = template_of(head.space) if "eeg" in head.sensors.modalities else None
        if template is not None and template.display is not None:
            groups.setdefault(result.heading, []).append(result)
    written = {}
    for number, (heading, own) in enumerate(groups.items(), start=1):
        name = re.sub(r"[^a-z0-9]+", "-", own[0].case.condition.lower()).strip("-")
        path = folder / f"{number:02d}-{name}.html"
        view, missing = _view(own)
        views, step = fitting({"Estimates": view})
        facts = {
            "recording": own[0].case.recording,
            "expected": str(own[0].case.expectation),
            "map": "each method, and its standard deviations, as a share of its own maximum in "
            "the window",
        }
        if missing:
            facts["parcels"] = missing
        if step > 1:
            facts["samples"] = f"one of {step}, so that the page stays below 3 MB"
        write_viewer(path, heading, facts, [], views)
        written[heading] = path
    return written


def _view(results: Sequence[Result]) -> tuple[View, str]:
    """Every method in the window of one response; first shown at the largest whitened power.

    Also why parcels are not named; empty if they are.
    """
    first = results[0]
    template = template_of(first.case_head.head.space)
    assert template is not None
    assert template.display is not None
    track = first.track
    window = np.flatnonzero(track.window)
    sensors = first.case_head.head.sensors
    eeg = sensors.rows_of("eeg")
    names, missing = parcel_names(template)
    view = View(
        times=track.times[window],
        maps={r.method: percent(r.in_window) for r in results},
        mesh=template.display,
        data=first.data[np.ix_(eeg, window)],  # the page shows potentials
        sensor_pos=sensors.positions[eeg],
        peak_sample=int(track.power[window].argmax()),
        stds={
            r.method: percent(r.std_in_window, r.in_window)
            for r in results
            if r.std_in_window is not None
        },
        unit="% of the maximum",
        outlines={name: inside for r in results for name, inside in _outlines(r)},
        parcels=names,
        mni=template.source_mni,
    )
    return view, missing


def _outlines(result: Result) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Name of every line of a method, and whether a source is inside it ``(S, W)``."""
    if result.sets_in_window is not None:
        level = 100 * result.sets_in_window[0].level
        inside = np.stack([s.sources for s in result.sets_in_window], axis=1)
        yield f"{result.method}: {level:g} % prediction set", inside
    if result.std_in_window is not None:
        yield (
            f"{result.method}: above {N_STD:g} standard deviations",
            above_std(result.in_window, result.std_in_window),
        )
