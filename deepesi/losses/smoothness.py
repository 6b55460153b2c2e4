"""Smoothness of the estimate along the cortex and in time.

None of these is a distance to the target: each is smallest for an estimate of zero. Use them with
a supervised term and small weights. All are divided by the magnitude of the target, which does not
depend on the estimate, so that they have no unit.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.core.quantities import magnitude
from deepesi.losses.base import LossTerm
from deepesi.physics.head_inputs import MeshEdges


class SurfaceLaplacian(LossTerm):
    r"""``‖D ĵ‖² / ‖j‖²`` (no unit); ``D ĵ`` is the value minus the mean of the mesh neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = MeshEdges()
        self.head_inputs = (self.edges,)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Roughness per example."""
        space = batch.head.space
        mean_of_neighbours = _neighbour_mean(batch.inputs[self.edges.key], space.n_sources)
        values = estimate.mean.unflatten(1, (space.n_sources, space.n_orient))
        columns = values.transpose(0, 1).flatten(1)
        roughness = columns - torch.sparse.mm(mean_of_neighbours.to(columns.dtype), columns)
        per_example = roughness.unflatten(1, (len(values), -1)).square().sum((0, 2))
        return per_example / batch.sources.square().sum((1, 2))


def _neighbour_mean(edges: Tensor, n_sources: int) -> Tensor:
    """Sparse mean over neighbours ``(S, S)`` from the mesh edges ``(E, 2)``."""
    pairs = torch.cat([edges, edges.flip(1)]).T
    degree = torch.bincount(pairs[0], minlength=n_sources)
    weights = 1.0 / degree[pairs[0]]
    shape = (n_sources, n_sources)
    return torch.sparse_coo_tensor(pairs, weights, shape, check_invariants=False).coalesce()


class SpatialVariation(LossTerm):
    r"""Total variation ``(S / 2E) Σ_(a,b) ‖ĵ_a − ĵ_b‖ / Σ_s ‖j_s‖`` (no unit) over the mesh.

    The sum runs once over each of the ``E`` mesh edges. ``‖·‖`` is the norm over orientation and
    time, so that all samples of a source change together. ``2E / S`` is the mean number of
    neighbours: isolated point sources give about 1, extended sources less. `SurfaceLaplacian`
    favours blurred maps; this term favours flat pieces with sharp edges. It needs memory for one
    vector per edge: on a triangle mesh about three times the estimate.

    Raises:
        ValueError: The source space has no mesh (in `forward`).

    Source: Rudin, Osher & Fatemi 1992, doi:10.1016/0167-2789(92)90242-F (images); on cortical
    meshes, as VB-SCCD, PMCID:PMC3142475. Differences: vectors over orientation and time;
    a term of the training, not of an optimization per recording.

    """

    def __init__(self) -> None:
        super().__init__()
        self.edges = MeshEdges()
        self.head_inputs = (self.edges,)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Total variation per example."""
        space, edges = batch.head.space, batch.inputs[self.edges.key]
        if len(edges) == 0:
            raise ValueError(
                f"SpatialVariation: the source space {space.name!r} has no mesh edges. "
                "Remove this term from the loss, or compute the source space with a mesh."
            )
        values = estimate.mean.unflatten(1, (space.n_sources, space.n_orient))
        steps = (values[:, edges[:, 0]] - values[:, edges[:, 1]]).flatten(1, 2)
        variation = magnitude(steps, space.n_orient).sum(1)
        neighbours = 2 * len(edges) / space.n_sources
        return variation / (neighbours * magnitude(batch.sources, space.n_orient).sum(1))


class TemporalDifference(LossTerm):
    r"""``Σ_t ‖ĵ_(t+1) − ĵ_t‖² / ‖j‖²`` (no unit): change of the estimate between samples.

    Zero for windows of one sample. Not divided by the sampling interval: a time course of
    frequency ``f`` with sampling rate ``f_s`` gives about ``(2π f / f_s)²``, so the weight depends
    on the sampling rate.
    """

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Change over time per example."""
        change = estimate.mean.diff(dim=2).square().sum((1, 2))
        return change / batch.sources.square().sum((1, 2))
