"""Examples to look at: best, median and worst of a method, and point spreads of every method."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from deepesi.contracts import Batch, Estimate, InverseModel, Oracle
from deepesi.evaluation.benchmark import Cell
from deepesi.evaluation.scenario import Scenario
from deepesi.evaluation.scores import apply_model
from deepesi.physics.cohort import Cohort

Models = Mapping[str, InverseModel | Oracle]

#: Depths of the point sources shown, as shares of the cortex that lies nearer to the scalp.
DEPTHS = {"superficial": 0.1, "middle": 0.5, "deep": 0.9}
#: Power of a point source's potential over the noise, dB.
POINT_SNR_DB = 20.0


class WorkedExample(NamedTuple):
    """One example with every method's estimate, to draw."""

    title: str
    batch: Batch  # of one example
    estimates: dict[str, Estimate]


def middle_cell(cells: Sequence[Cell]) -> Cell:
    """The test set in the middle of the first scenario."""
    own = [cell for cell in cells if cell.scenario.name == cells[0].scenario.name]
    return own[len(own) // 2]


def worked_examples(models: Models, cell: Cell, cohort: Cohort) -> list[WorkedExample]:
    """The best, the median and the worst example of the first method in a cell."""
    method = next(iter(models))
    errors = cell.values(method, "localization_error")
    order = np.argsort(errors, kind="stable")
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    size = cell.scenario.sizes[0]
    stream = cell.scenario.recordings(cohort, list(models.values())).at_snr(cell.snr_db)
    found = []
    for name, number in chosen.items():
        batch = stream.batch(int(number) // size).example(int(number) % size)
        title = f"{name} example of {method}, {errors[number]:.0f} mm off"
        estimates = {m: apply_model(model, batch) for m, model in models.items()}
        found.append(WorkedExample(title, batch, estimates))
    return found


def point_spreads(models: Models, scenario: Scenario, cohort: Cohort) -> list[WorkedExample]:
    """What every inverse model makes of single points without noise, nominal lead field.

    Oracles are left out: they are shown how a recording was rendered, and these were not.
    """
    inverse = {name: m for name, m in models.items() if isinstance(m, InverseModel)}
    stream = scenario.recordings(cohort, list(inverse.values()))
    batch = stream.at_snr(POINT_SNR_DB).batch(0).example(0)
    head = batch.head
    true = {h.name: h for h in scenario.true_heads(cohort)}[batch.scene.head_name]
    depth = np.where(true.is_cortex, true.depth, np.nan)
    found = []
    for name, share in DEPTHS.items():
        source = int(np.nanargmin(np.abs(depth - np.nanquantile(depth, share))))
        direction = np.zeros(head.space.n_dipoles)
        first = head.space.n_orient * source
        direction[first : first + head.space.n_orient] = (
            1.0 if head.space.n_orient == 1 else head.source_normals[source]
        )
        topography = head.project(direction)
        power = np.trace(head.noise_cov) * 10 ** (POINT_SNR_DB / 10)
        moment = np.sqrt(power / (topography**2).sum())
        point = replace(
            batch,
            eeg=torch.as_tensor(moment * topography[None, :, None], dtype=batch.eeg.dtype),
            sources=torch.as_tensor(moment * direction[None, :, None], dtype=batch.sources.dtype),
            scene=replace(batch.scene, peaks=torch.tensor([[source]])),
        )
        title = f"a point {1e3 * depth[source]:.0f} mm below the scalp ({name})"
        estimates = {m: apply_model(model, point) for m, model in inverse.items()}
        found.append(WorkedExample(title, point, estimates))
    return found
