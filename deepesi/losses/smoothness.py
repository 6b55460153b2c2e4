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
        edges, space = batch.inputs[self.edges.key], batch.head.space
        values = estimate.mean.unflatten(1, (space.n_sources, space.n_orient))
        from_, to = torch.cat([edges, edges.flip(1)]).unbind(1)
        degree = torch.bincount(from_, minlength=space.n_sources).clamp(min=1)
        total = torch.zeros_like(values).index_add(1, from_, values[:, to])
        roughness = values - total / degree[:, None, None]
        return roughness.square().sum((1, 2, 3)) / batch.sources.square().sum((1, 2))
