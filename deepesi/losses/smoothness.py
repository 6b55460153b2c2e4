"""Smoothness of the estimate along the cortex and in time.

None of these is a distance to the truth: each is smallest for an estimate of zero. They belong
beside a supervised term, with small weights. All are measured against the size of the truth, which
does not depend on the estimate and makes them free of units.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.contracts import Batch, Estimate
from deepesi.core.quantities import magnitude
from deepesi.losses.base import LossTerm
from deepesi.physics.head_inputs import MeshEdges


class SurfaceLaplacian(LossTerm):
    r"""``‖D ĵ‖² / ‖j‖²`` (no unit), ``D ĵ`` the value minus the mean of the mesh neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = MeshEdges()
        self.head_inputs = (self.edges,)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """See the class."""
        space = batch.head.space
        mean_of_neighbours = _neighbour_mean(batch.inputs[self.edges.key], space.n_sources)
        values = estimate.mean.unflatten(1, (space.n_sources, space.n_orient))
        columns = values.transpose(0, 1).flatten(1)
        roughness = columns - torch.sparse.mm(mean_of_neighbours.to(columns.dtype), columns)
        per_example = roughness.unflatten(1, (len(values), -1)).square().sum((0, 2))
        return per_example / batch.sources.square().sum((1, 2))


def _neighbour_mean(edges: Tensor, n_sources: int) -> Tensor:
    """Sparse ``D⁻¹A`` ``(S, S)`` of the edges ``(E, 2)``."""
    pairs = torch.cat([edges, edges.flip(1)]).T
    degree = torch.bincount(pairs[0], minlength=n_sources)
    weights = 1.0 / degree[pairs[0]]
    shape = (n_sources, n_sources)
    return torch.sparse_coo_tensor(pairs, weights, shape, check_invariants=False).coalesce()


class SpatialVariation(LossTerm):
    r"""Total variation ``(S / 2E) Σ_(a,b) ‖ĵ_a − ĵ_b‖ / Σ_s ‖j_s‖`` (no unit) over the mesh.

    The sum runs over the ``E`` edges of the mesh, each once, and ``‖·‖`` is the norm over
    orientation and time, so that all samples of a source step together. ``2E / S`` is the mean
    number of neighbours: true sources that are isolated points score about 1, wide ones less.
    Where `SurfaceLaplacian` blurs, this one keeps few sharp edges between flat pieces. Memory is
    taken for one vector per edge, on a triangle mesh about three times the estimate.

    Raises:
        ValueError: The source space has no mesh (in `forward`).

    Source: Rudin, Osher & Fatemi 1992, doi:10.1016/0167-2789(92)90242-F (images); on cortical
    meshes, as VB-SCCD, PMCID:PMC3142475. Ours deviates: differences are vectors over orientation
    and time, and it is a term of the training, not of an optimization per recording.

    """

    def __init__(self) -> None:
        super().__init__()
        self.edges = MeshEdges()
        self.head_inputs = (self.edges,)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """See the class."""
        space, edges = batch.head.space, batch.inputs[self.edges.key]
        if len(edges) == 0:
            raise ValueError(
                f"SpatialVariation: the source space {space.name!r} has no edges to vary along. "
                "Leave this term out of the loss, or compute the space with its mesh."
            )
        values = estimate.mean.unflatten(1, (space.n_sources, space.n_orient))
        steps = (values[:, edges[:, 0]] - values[:, edges[:, 1]]).flatten(1, 2)
        variation = magnitude(steps, space.n_orient).sum(1)
        neighbours = 2 * len(edges) / space.n_sources
        return variation / (neighbours * magnitude(batch.sources, space.n_orient).sum(1))


class TemporalDifference(LossTerm):
    r"""``Σ_t ‖ĵ_(t+1) − ĵ_t‖² / ‖j‖²`` (no unit): how much the estimate changes between samples.

    Zero by definition for windows of one sample, which have nothing to compare. Not divided by the
    sampling interval: a course of frequency ``f`` sampled at ``f_s`` scores about
    ``(2π f / f_s)²``, so a weight belongs to a sampling rate.
    """

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """See the class."""
        change = estimate.mean.diff(dim=2).square().sum((1, 2))
        return change / batch.sources.square().sum((1, 2))
