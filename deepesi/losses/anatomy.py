"""Anatomical priors: smoothness that follows the folds of the cortex, and few sources off it.

Neither is a distance to the target: each is smallest for an estimate of zero. Use them with a
supervised term and small weights.
"""

import math

import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.losses.base import LossTerm
from deepesi.physics.head_inputs import MeshEdges, SourceNormals, SourcePositions
from deepesi.physics.template import load_template


class CurvatureSmoothness(LossTerm):
    r"""``(S / 2E) Σ_(a,b) w_ab ‖ĵ_a − ĵ_b‖² / ‖j‖²`` (no unit) over the mesh edges.

    ``w_ab = 1 / (1 + (κ_ab / κ₀)²)`` with ``κ_ab`` the curvature along an edge: the angle between
    the normals over its length. On a flat piece of cortex neighbours should agree; over the crown
    of a gyrus or the bottom of a sulcus, where the normals turn, they may differ. ``S / 2E`` is one
    over the mean number of neighbours. Where there is no surface all weights are 1.

    Args:
        curvature: ``κ₀``, 1/m, above 0. Infinite: no weights.

    Raises:
        ValueError: The curvature is not positive; the source space has no mesh (in `forward`).

    Source: own method; weights by geometry as in edge-stopping diffusion, Perona & Malik 1990,
    doi:10.1109/34.56205. Difference: the weights are those of the anatomy, not of the estimate.

    """

    def __init__(self, curvature: float = 50.0) -> None:
        super().__init__()
        if not curvature > 0:
            raise ValueError(f"CurvatureSmoothness: curvature must be above 0, got {curvature}.")
        self.curvature = curvature
        self.edges, self.normals, self.positions = MeshEdges(), SourceNormals(), SourcePositions()
        self.head_inputs = (self.edges, self.normals, self.positions)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Weighted roughness per example."""
        space, edges = batch.head.space, batch.inputs[self.edges.key]
        if len(edges) == 0:
            raise ValueError(
                f"CurvatureSmoothness: the source space {space.name!r} has no mesh edges. "
                "Remove this term from the loss, or compute the source space with a mesh."
            )
        values = estimate.mean.unflatten(1, (space.n_sources, space.n_orient))
        steps = (values[:, edges[:, 0]] - values[:, edges[:, 1]]).square().sum((2, 3))
        weighted = steps @ self.weights(batch.inputs).to(steps)
        neighbours = 2 * len(edges) / space.n_sources
        return weighted / (neighbours * batch.sources.square().sum((1, 2)))

    def weights(self, inputs: dict[str, Tensor]) -> Float[Tensor, " E"]:
        """``w`` of every edge."""
        first, second = inputs[self.edges.key].unbind(1)
        normals, positions = inputs[self.normals.key], inputs[self.positions.key]
        lengths = (positions[first] - positions[second]).square().sum(1).sqrt()
        a, b = normals[first], normals[second]
        # By the arc tangent: the arc cosine of 1 - 1e-7 is not exact.
        angles = torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1)) * 2
        return 1 / (1 + (angles / lengths / self.curvature).square())


#: Packaged head whose vertices stand for the cortex of a volume.
CORTEX = "fsaverage-ico4"


class OffCortexRidge(LossTerm):
    r"""``Σ_s c_s ‖ĵ_s‖² / ‖j‖²`` (no unit), ``c_s`` the share of a source that lies off the cortex.

    For volumes and mixed spaces: EEG cannot tell well how deep a source is, and most of it comes
    from the cortex. On a space of the cortex the term is zero. The cortex are the vertices of the
    packaged template, which warped heads and other people share only about.

    Args:
        reach: Distance from the cortex up to which a source counts as on it, m. From there ``c``
            grows linearly to 1 at twice this distance. Sources with a normal lie on a surface: 0.

    Raises:
        ValueError: The reach is not positive.

    Source: own method; a ridge with anatomical weights, as in weighted minimum norms (Phillips et
    al. 2002, doi:10.1006/nimg.2002.1175).

    """

    def __init__(self, reach: float = 0.007) -> None:
        super().__init__()
        if not (reach > 0 and math.isfinite(reach)):
            raise ValueError(f"OffCortexRidge: reach must be a distance above 0 m, got {reach}.")
        self.reach, self.cortex = reach, cKDTree(load_template(CORTEX).source_pos)
        self.positions, self.normals = SourcePositions(), SourceNormals()
        self.head_inputs = (self.positions, self.normals)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Weighted power per example."""
        values = estimate.mean.unflatten(1, (-1, batch.head.space.n_orient))
        power = values.square().sum((2, 3)) @ self.share(batch.inputs).to(values)
        return power / batch.sources.square().sum((1, 2))

    def share(self, inputs: dict[str, Tensor]) -> Float[Tensor, " S"]:
        """``c`` of every source."""
        distance, _ = self.cortex.query(inputs[self.positions.key].cpu().numpy())
        share = torch.as_tensor(distance / self.reach - 1).clamp(0, 1)
        return share.masked_fill(inputs[self.normals.key].cpu().any(1), 0)
