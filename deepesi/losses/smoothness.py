"""Smoothness of the estimate along the cortex."""

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.contracts import Batch, Estimate
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
