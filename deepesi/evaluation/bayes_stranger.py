"""Bayes estimate of a single patch in somebody else's head: the limit of any method there."""

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Assumptions, Estimate, Oracle, as_tensors
from deepesi.core.patches import spread_patches
from deepesi.core.quantities import summed_power
from deepesi.data_gen.anatomy import AnatomyRanges
from deepesi.data_gen.fine_cortex import FineCortex
from deepesi.data_gen.tissues import TissueRanges
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import (
    PatchPairs,
    PatchShares,
    Rank,
    SourceNormals,
    SourcePositions,
    Whitener,
)
from deepesi.physics.scalp import project_to_mesh
from deepesi.physics.template import Template, free_orientation, template_of


class BayesStranger(Oracle):
    """Single patch with the smallest expected distance, under the prior on the true head.

    The posterior is enumerated over centres, radii and `n_worlds` draws of the true head: positions
    of the homologous sources and tissues. The moment is integrated out under a Gaussian prior: its
    direction lies around the template's normal, and its strength on the sensors is that of the
    recording above the noise. Sensors are where the analyst takes them to be. It knows the
    distributions of the simulation, not the true head, source or noise.

    Args:
        anatomy: Ranges of the true anatomy.
        tissues: Ranges of the true tissues.
        across: Prior variance of a moment along each tangent of the cortex, relative to that along
            the normal.
        misfit: Share of the power of a recording that no drawn head explains: displaced sensors,
            and positions between the drawn ones.
        smallest: Smallest patch radius, m.
        largest: Largest patch radius, m.
        n_radii: Number of radii.
        n_worlds: Number of draws of the true head.
        seed: Seed of these draws.

    Source: Bayes risk under a distance loss, e.g. Berger 1985, doi:10.1007/978-1-4757-4286-2,
    chapter 4. Difference: positions and tissues by Monte Carlo, so more draws lower the error.

    """

    def __init__(
        self,
        anatomy: AnatomyRanges,
        tissues: TissueRanges,
        across: float = 0.5,
        misfit: float = 0.1,
        smallest: float = 0.010,
        largest: float = 0.025,
        n_radii: int = 4,
        n_worlds: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        radii = self.radii = (smallest, largest, n_radii)
        self.anatomy, self.tissues, self.across = anatomy, tissues, across
        self.n_worlds, self.seed, self.misfit = n_worlds, seed, misfit
        self.whitener, self.rank = Whitener(), Rank()
        self.positions, self.normals = SourcePositions(), SourceNormals()
        self.pairs, self.shares = PatchPairs(*radii), PatchShares(*radii)
        self.head_inputs = (
            self.whitener,
            self.rank,
            self.positions,
            self.normals,
            self.pairs,
            self.shares,
        )
        self._prepared: tuple[HeadModel, dict[str, Tensor]] | None = None
        self._cortex: FineCortex | None = None
        self._leadfields_at: dict[tuple[str, bytes], list[Tensor]] = {}

    @property
    def assumptions(self) -> Assumptions:
        """Knowledge that the method has."""
        return Assumptions(
            "patches as simulated", "1", "covariance and level", "distribution of true heads"
        )

    def forward(self, batch: Batch) -> Estimate:
        """Compute the posterior, expected distances and the best patch."""
        true_heads = self._true_heads(batch)
        whitened = batch.inputs[self.whitener.key] @ batch.data
        n_times = whitened.shape[2]
        power = summed_power(whitened)
        rank = batch.inputs[self.rank.key]
        strength = (power - rank).clamp_min(0.1)
        variance = 1 + self.misfit * strength / rank  # of noise and misfit
        whitened = whitened / variance.sqrt()[:, None, None]
        strength = strength / variance
        fitted = torch.einsum("jksic,bct->jksibt", true_heads["topographies"], whitened)
        prior = strength * true_heads["shares"][..., None]  # variances of the fitted components
        shrunk = prior / (1 + prior)
        score = 0.5 * (shrunk * fitted.square().sum(5) - n_times * prior.log1p()).sum(3)
        n_heads, n_radii = score.shape[:2]
        posterior = torch.softmax(score.flatten(0, 2), 0).unflatten(0, (n_heads, n_radii, -1))
        best = (true_heads["distances"] @ posterior.sum((0, 1))).argmin(0)
        here = torch.softmax(score.flatten(0, 1).take_along_dim(best[None, None], 1)[:, 0], 0)
        here = here.unflatten(0, (n_heads, n_radii))  # posterior at the best centre
        moments = torch.einsum(
            "jkbpi,jkib,jkibt->jkpbt",
            true_heads["moments"][:, :, best],
            shrunk.take_along_dim(best.view(1, 1, 1, 1, -1), 2)[:, :, 0],
            fitted.take_along_dim(best.view(1, 1, 1, 1, -1, 1), 2)[:, :, 0],
        )
        by_radius = (here[:, :, None, :, None] * moments).sum(0)  # (K, 3, B, T)
        return Estimate(self._spread(by_radius * variance.sqrt()[:, None], best, batch))

    def _spread(self, moments: Tensor, best: Tensor, batch: Batch) -> Float[Tensor, "B D T"]:
        """Patches of every radius at the best centres, as moments of the sources."""
        normals = batch.inputs[self.normals.key]
        axes = torch.eye(3, device=best.device).expand(len(normals), 3, 3)
        if batch.head.space.n_orient == 1:
            axes = normals[:, None]
        at_best = torch.nn.functional.one_hot(best, len(normals)).T.to(moments)
        patches = torch.einsum("sb,kpbt->kspbt", at_best, moments)
        patches = torch.einsum("sop,kspbt->ksotb", axes, patches)
        spread = spread_patches(
            patches, batch.inputs[self.pairs.key], batch.inputs[self.shares.key]
        )
        return spread.flatten(0, 1).permute(2, 0, 1)

    def _true_heads(self, batch: Batch) -> dict[str, Tensor]:
        """Topographies under every drawn head; the last set-up is kept."""
        if self._prepared is None or self._prepared[0] is not batch.head:
            self._prepared = batch.head, self._drawn(batch)
        return self._prepared[1]

    def _drawn(self, batch: Batch) -> dict[str, Tensor]:
        template = template_of(batch.head.space)
        if template is None:
            raise ValueError(
                f"BayesStranger: no head at hand has the source space {batch.head.space.name!r}. "
                "Use a packaged head (head.name=fsaverage-ico3-free)."
            )
        components = [
            self._components(one, batch.inputs) for one in self._leadfields(batch, template)
        ]
        positions = batch.inputs[self.positions.key]
        stacked = {key: torch.stack([f[key] for f in components]) for key in components[0]}
        return {**stacked, "distances": torch.cdist(positions, positions)}

    def _leadfields(self, batch: Batch, template: Template) -> list[Float[Tensor, "C D"]]:
        """Lead fields of the drawn heads; those of the last positions of the sensors are kept."""
        sensors, device = batch.head.sensors.positions, batch.data.device
        key = (template.space.fingerprint, sensors.tobytes())
        if key in self._leadfields_at:
            return self._leadfields_at[key]
        if (
            self._cortex is None
            or self._cortex.template.space.vertices is not template.space.vertices
        ):
            free = template if template.space.n_orient == 3 else free_orientation(template)
            self._cortex = FineCortex(free, device)
        cortex, family = self._cortex, self._cortex.fine.family
        points = project_to_mesh(sensors, family.scalp_pos, family.scalp_faces)
        sensor_points = as_tensors({"vertices": points.vertices, "weights": points.weights}, device)
        rng = torch.Generator(device).manual_seed(self.seed)
        tissues = self.tissues.draw(self.n_worlds, rng)
        leadfields = []
        for number in range(self.n_worlds):
            anatomy = self.anatomy.draw(cortex, rng)
            leadfield = cortex.lead_fields.leadfields(
                tissues[number : number + 1],
                sensor_points["vertices"][None],
                sensor_points["weights"][None],
                anatomy.source_modes,
            )
            leadfields.append(leadfield.matrices()[0])
        self._leadfields_at = {key: leadfields}
        return leadfields

    def _components(
        self, leadfield: Float[Tensor, "C D"], inputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Orthonormal topographies of every patch, with shares of its prior variance and moments.

        Args:
            leadfield: One true lead field for x, y and z dipoles, V/(A m).
            inputs: Prepared head inputs.

        """
        pairs, shares = inputs[self.pairs.key], inputs[self.shares.key]
        normals = inputs[self.normals.key]
        n_sources = len(normals)
        white = (inputs[self.whitener.key] @ leadfield).T.reshape(n_sources, -1)
        topographies, roots = [], []
        for share in shares.T:  # one radius after the other
            profile = torch.sparse_coo_tensor(
                pairs.T.flip(0), share, (n_sources, n_sources), check_invariants=True
            )
            free = torch.sparse.mm(profile, white).unflatten(1, (3, -1))
            root = self._prior_root(torch.sparse.mm(profile, normals))
            topographies.append(root @ free)
            roots.append(root)
        scaled, root = torch.stack(topographies), torch.stack(roots)
        variances, axes = torch.linalg.eigh(scaled @ scaled.mT)
        inverse = variances.clamp_min(1e-6 * variances[..., -1:]).rsqrt()
        axes_by_norm = axes * inverse[..., None, :]
        return {
            "topographies": axes_by_norm.mT @ scaled,
            "shares": variances.clamp_min(0) / variances.sum(-1, keepdim=True),
            "moments": root @ axes_by_norm,
        }

    def _prior_root(self, normals: Float[Tensor, "S 3"]) -> Float[Tensor, "S 3 3"]:
        """Square root of the prior covariance of moments of patches with these mean normals."""
        size = normals.norm(dim=1).clamp_min(1e-6)
        along = normals / size[:, None]
        least = self.across**0.5
        most = (self.across + (1 - self.across) * size.square()).sqrt()
        outer = along[:, :, None] * along[:, None]
        return least * torch.eye(3, device=normals.device) + (most - least)[:, None, None] * outer
