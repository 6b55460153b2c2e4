"""Pictures of a report: examples, maps of errors, and estimates of single point sources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from deepesi.core.arrays import as_array
from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate, InverseModel, Oracle
from deepesi.core.quantities import magnitude
from deepesi.evaluation.benchmark import Benchmark, Cell
from deepesi.evaluation.scenario import Scenario
from deepesi.evaluation.scores import apply_model, with_samples
from deepesi.evaluation.source_sets import SourceSet, source_set
from deepesi.interpret.networks.example import BUDGET, ExampleExplanation, explain_example
from deepesi.metrics.functional import localization_error, spatial_dispersion
from deepesi.physics.cohort import Cohort
from deepesi.physics.graph import adjacency
from deepesi.physics.template import DisplayMesh, Template
from deepesi.utils.budget import within_budget

Array = NDArray[np.float64]
Models = Mapping[str, InverseModel | Oracle]

#: Depths of the point sources shown, as shares of the cortex that lies nearer to the scalp.
DEPTHS = {"superficial": 0.1, "middle": 0.5, "deep": 0.9}
#: Power of a point source's potential over the noise, dB.
POINT_SNR_DB = 20.0
#: Most points of the maps of point spread, and the time that a method may take for them, s.
N_POINTS, POINT_BUDGET = 400, 30.0
#: Points inverted at a time.
CHUNK = 20


class WorkedExample(NamedTuple):
    """One example with every method's estimate, to draw."""

    title: str
    batch: Batch  # of one example
    estimates: dict[str, Estimate]
    explanations: Mapping[str, ExampleExplanation] = {}  # of inverse models
    sets: Mapping[str, SourceSet] = {}  # of every method, of several true sources

    @property
    def peaks(self) -> NDArray[np.int64]:
        """The true sources ``(K,)``."""
        peaks = self.batch.scene.peaks[0].numpy()
        return np.asarray(peaks[peaks >= 0])


class PointSpread(NamedTuple):
    """Estimates of single points all over the cortex: no noise, nominal lead field."""

    sources: NDArray[np.int64]  # (N,)
    depth_mm: Array  # below the scalp (N,)
    error_mm: dict[str, Array]  # from the point to the strongest source (N,), by method
    dispersion_mm: dict[str, Array]  # how far the estimate spreads around the point (N,)
    excluded: tuple[str, ...]  # methods that would take too long


@dataclass(frozen=True)
class Gallery:
    """Data that a report draws on the cortex.

    Attributes:
        mesh: The cortex.
        cell: The test set whose examples are drawn, see `middle_cell`.
        peaks: True sources of every example of it ``(n, K)``, -1 where there are fewer.
        examples: Some of them, with their estimates.
        points: Three point sources, with their estimates.
        spread: Point sources all over the cortex.

    """

    mesh: DisplayMesh
    cell: Cell
    peaks: NDArray[np.int64]
    examples: Sequence[WorkedExample]
    points: Sequence[WorkedExample]
    spread: PointSpread


def gallery(models: Models, benchmark: Benchmark, cohort: Cohort) -> Gallery | None:
    """Everything to draw of a benchmark; None for a head without a cortex to draw on."""
    mesh, cell = cohort.template.display, middle_cell(benchmark.cells)
    if mesh is None:
        return None
    scenario = benchmark.cells[0].scenario
    return Gallery(
        mesh,
        cell,
        true_peaks(cell, cohort),
        worked_examples(models, cell, cohort),
        point_spreads(models, scenario, cohort),
        point_spread_map(models, scenario, cohort),
    )


def middle_cell(cells: Sequence[Cell]) -> Cell:
    """The test set in the middle of the first scenario."""
    own = [cell for cell in cells if cell.scenario.name == cells[0].scenario.name]
    return own[len(own) // 2]


def true_peaks(cell: Cell, cohort: Cohort) -> NDArray[np.int64]:
    """The true sources of every example of a cell ``(n, K)``, drawn again."""
    batches = cell.scenario.batches(cohort, cell.snr_db, [])
    sizes = cell.scenario.sizes
    return np.concatenate(
        [batch.scene.peaks[:size].cpu().numpy() for batch, size in zip(batches, sizes, strict=True)]
    )


def worked_examples(
    models: Models, cell: Cell, cohort: Cohort, budget: float = BUDGET
) -> list[WorkedExample]:
    """The best, the median and the worst example of the first method in a cell.

    Args:
        models: Name to model.
        cell: The test set.
        cohort: The heads of the run.
        budget: Most time to explain one example of a method without gradients, s.

    """
    method = next(iter(models))
    errors = cell.values(method, "localization_error")
    order = np.argsort(errors, kind="stable")
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    size = cell.scenario.sizes[0]
    stream = cell.scenario.recordings(cohort, list(models.values())).at_snr(cell.snr_db)
    worked = []
    for name, number in chosen.items():
        batch = stream.batch(int(number) // size).example(int(number) % size)
        title = f"{name} example of {method}, {errors[number]:.0f} mm off"
        estimates = {m: apply_model(model, batch) for m, model in models.items()}
        explanations = {
            m: explain_example(model, batch, estimates[m].mean, budget)
            for m, model in _inverse(models).items()
        }
        one = WorkedExample(title, batch, estimates, explanations)
        worked.append(one._replace(sets=_sets(models, one)) if len(one.peaks) > 1 else one)
    return worked


def _sets(models: Models, worked: WorkedExample) -> dict[str, SourceSet]:
    batch, found = worked.batch, dict[str, SourceSet]()
    for name, model in models.items():
        estimate = with_samples(worked.estimates[name], model, batch, seed=0)
        found[name] = source_set(model, estimate, batch)
    return found


def point_spreads(models: Models, scenario: Scenario, cohort: Cohort) -> list[WorkedExample]:
    """What every inverse model makes of single points without noise, nominal lead field.

    Oracles are left out: they are shown how a recording was rendered, and these were not.
    """
    inverse = _inverse(models)
    batch, true = _one_example(inverse, scenario, cohort)
    depth = np.where(true.is_cortex, true.depth, np.nan)
    worked = []
    for name, share in DEPTHS.items():
        source = int(np.nanargmin(np.abs(depth - np.nanquantile(depth, share))))
        point = points_at(np.array([source]), batch)
        title = f"a point {1e3 * depth[source]:.0f} mm below the scalp ({name})"
        estimates = {m: apply_model(model, point) for m, model in inverse.items()}
        worked.append(WorkedExample(title, point, estimates))
    return worked


def point_spread_map(
    models: Models, scenario: Scenario, cohort: Cohort, budget: float = POINT_BUDGET
) -> PointSpread:
    """Error and spatial dispersion of points all over the cortex.

    Args:
        models: Name to model.
        scenario: Where the set-up is from.
        cohort: The heads of the run.
        budget: Time that a method may take, s; judged by the first points, so that a slow solver
            is left out after a part of it.

    """
    inverse = _inverse(models)
    batch, true = _one_example(inverse, scenario, cohort)
    cortex = np.flatnonzero(true.is_cortex)
    sources = cortex[:: -(-len(cortex) // N_POINTS)]
    parts = np.split(sources, range(CHUNK, len(sources), CHUNK))
    points = [points_at(part, batch) for part in parts]
    positions, space = batch.head.source_pos, batch.head.space
    neighbours = adjacency(space.edges, space.n_sources)
    error, dispersion, slow = {}, {}, list[str]()
    for name, model in inverse.items():
        maps = _maps(model, points, budget)
        if maps is None:
            slow.append(name)
            continue
        pairs = list(zip(maps, sources[:, None], strict=True))
        error[name] = np.array(
            [localization_error(values, peak, positions, neighbours) for values, peak in pairs]
        )
        dispersion[name] = np.array(
            [spatial_dispersion(values, peak, positions) for values, peak in pairs]
        )
    return PointSpread(sources, 1e3 * true.depth[sources], error, dispersion, tuple(slow))


def _maps(model: InverseModel, points: Sequence[Batch], budget: float) -> Array | None:
    """Magnitudes of the estimates ``(N, S)``; None if they would take longer than a budget, s."""
    n_orient = points[0].head.space.n_orient
    maps = within_budget(
        lambda part: magnitude(apply_model(model, part).mean, n_orient), points, budget
    )
    return None if maps is None else as_array(torch.cat(maps))


def _inverse(models: Models) -> dict[str, InverseModel]:
    return {name: m for name, m in models.items() if isinstance(m, InverseModel)}


def _one_example(
    inverse: Mapping[str, InverseModel], scenario: Scenario, cohort: Cohort
) -> tuple[Batch, Template]:
    """An example whose set-up points are seen through, and the head it is of."""
    stream = scenario.recordings(cohort, list(inverse.values()))
    batch = stream.at_snr(POINT_SNR_DB).batch(0).example(0)
    heads = {head.name: head for head in scenario.true_heads(cohort)}
    return batch, heads[batch.scene.head_name]


def points_at(sources: NDArray[np.int64], batch: Batch) -> Batch:
    """Single points along the normal, one an example, `POINT_SNR_DB` over the noise, without it.

    Args:
        sources: Their numbers ``(N,)``.
        batch: One example; its nominal head renders the points.

    """
    head, n_orient = batch.head, batch.head.space.n_orient
    directions = np.zeros((head.space.n_dipoles, len(sources)))
    for column, source in enumerate(sources):
        first = n_orient * source
        directions[first : first + n_orient, column] = (
            1.0 if n_orient == 1 else head.source_normals[source]
        )
    topographies = head.project(directions)
    power = np.trace(head.noise_cov) * 10 ** (POINT_SNR_DB / 10)
    moments = np.sqrt(power / (topographies**2).sum(axis=0))
    return replace(
        batch,
        data=torch.as_tensor((moments * topographies).T[..., None].copy(), dtype=batch.data.dtype),
        sources=torch.as_tensor(
            (moments * directions).T[..., None].copy(), dtype=batch.sources.dtype
        ),
        scene=replace(
            batch.scene,
            peaks=torch.as_tensor(sources)[:, None],
            extents=torch.zeros(len(sources), 1),
            moments=torch.as_tensor(moments, dtype=torch.float32)[:, None],
            **{
                name: getattr(batch.scene, name).expand(len(sources), *sizes)
                for name, sizes in (("snr_db", ()), ("tissues", (-1,)), ("artifacts", (-1,)))
            },
        ),
    )
