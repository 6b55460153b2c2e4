"""``examples.html``: worked examples of an evaluation on a cortex to turn and play."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepesi.core.arrays import as_array
from deepesi.evaluation.explanations import explanations
from deepesi.evaluation.gallery import Gallery, WorkedExample
from deepesi.evaluation.source_sets import nearest_peak
from deepesi.physics.atlas import parcel_names
from deepesi.physics.head import magnitudes
from deepesi.physics.template import DisplayMesh, Template
from deepesi.viz.cortex_movie import N_STD, above_std
from deepesi.viz.viewer import View, fitting, percent, room_for_samples, write_viewer

Array = NDArray[np.float64]

LINE = "half of the target's maximum"
HOW_TO_READ = (
    "Map: the target or a method, as a share of its own maximum; standard deviations as a share of "
    "the maximum of their method. Line: where the target is above half of its maximum, where a "
    "method is above two of its standard deviations, or its set of source locations."
)

#: Bytes that explanations leave, for the samples and for the table at the top.
SPARE = 200_000
WHY = "<h3>Explanation</h3>"


def write_examples(pictures: Gallery, template: Template, path: Path) -> None:
    """Write the examples of a report with their explanations as one page.

    Samples are left out until it fits 3 MB. Explanations that do not fit, of the last examples, are
    left to the report, which the page then names.

    Args:
        pictures: What the report draws.
        template: The nominal head.
        path: ``.html`` file.

    """
    names, missing = parcel_names(template)
    views = {
        f"{worked.title[:1].upper()}{worked.title[1:]}": _view(
            worked, pictures.mesh, template, pictures.cell.scenario.sfreq, names
        )
        for worked in pictures.examples
    }
    texts = map(explanations, pictures.examples)
    every = {name: WHY + text for name, text in zip(views, texts, strict=True) if text}
    facts, why = {"how to read": HOW_TO_READ}, dict[str, str]()
    room = room_for_samples(views) - SPARE
    for name, text in every.items():
        room -= len(text)
        if room < 0:
            break
        why[name] = text
    if len(why) < len(every):
        facts["explanations"] = (
            f"of the first {len(why)} examples; all {len(every)} are in report.html, section "
            "Examples, because this page is at most 3 MB"
        )
    shown, step = fitting(views, why)
    if missing:
        facts["parcels"] = missing
    if step > 1:
        facts["samples"] = f"one of {step}, so that the page stays below 3 MB"
    write_viewer(path, "deepesi benchmark: examples", facts, [], shown, why)


def _view(
    worked: WorkedExample,
    mesh: DisplayMesh,
    template: Template,
    sfreq: float,
    parcels: Sequence[str],
) -> View:
    batch, n_orient = worked.batch, worked.batch.head.space.n_orient
    target = magnitudes(as_array(batch.sources[0]), n_orient)
    maps, stds, outlines = {"target": percent(target)}, {}, {LINE: percent(target) > 50}
    if len(worked.peaks) > 1:
        outlines |= _true_sources(target, worked)
    for name, estimate in worked.estimates.items():
        mean = magnitudes(as_array(estimate.mean[0]), n_orient)
        maps[name] = percent(mean)
        if name in worked.sets:
            found, inside = worked.sets[name], np.zeros(target.shape, dtype=bool)
            inside[np.concatenate(found.parts)] = True
            outlines[f"{name}: {found.kind}"] = inside
        if estimate.std is not None:
            std = magnitudes(as_array(estimate.std[0]), n_orient)
            stds[name] = percent(std, mean)
            outlines[f"{name}: above {N_STD:g} standard deviations"] = above_std(mean, std)
    return View(
        times=np.arange(target.shape[1]) / sfreq,
        maps=maps,
        mesh=mesh,
        data=as_array(batch.data[0]),
        sensor_pos=batch.head.sensors.positions,
        peak_sample=int(target.max(axis=0).argmax()),
        stds=stds,
        unit="% of the maximum",
        outlines=outlines,
        parcels=parcels,
        mni=template.source_mni,
    )


def _true_sources(target: Array, worked: WorkedExample) -> dict[str, NDArray[np.bool_]]:
    """Where each true source is above half of its own maximum ``(S, T)``, by its name."""
    nearest = nearest_peak(worked.batch.head.source_pos, worked.peaks)
    lines = {}
    for number in range(len(worked.peaks)):
        own = np.where(nearest[:, None] == number, target, 0)
        lines[f"true source {number + 1}"] = percent(own) > 50
    return lines
