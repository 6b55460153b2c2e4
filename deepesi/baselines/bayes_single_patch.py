"""Bayes-optimal estimate of a single patch, by enumeration of all centres and radii."""

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.baselines.solver import assumed_patches
from deepesi.core.contracts import Assumptions, Estimate, InverseModel
from deepesi.core.patches import along_axes, spread_patches
from deepesi.physics.head_inputs import (
    PatchMoments,
    PatchPairs,
    PatchShares,
    PatchTopographies,
    SourcePositions,
    Whitener,
)


class BayesSinglePatch(InverseModel):
    """Single patch with the smallest expected distance to the true source.

    The posterior over all centres and radii is exact for one Gaussian patch per recording, the
    true lead field and noise covariance, equally likely centres and radii, and a flat prior of the
    amplitude in every sample and direction. The log-posterior is half the energy of the matched
    filter, summed over the window. The estimate is a patch at the centre with the smallest
    expected distance to the source, with the posterior of the radii and fitted amplitudes. It is
    the optimum for one source; with several sources it still gives one.

    Args:
        smallest: Smallest patch radius, m.
        largest: Largest patch radius, m.
        n_radii: Number of radii from smallest to largest.

    Source: Bayes risk under a distance loss, e.g. Berger 1985, doi:10.1007/978-1-4757-4286-2,
    chapter 4. Difference: the posterior is enumerated over patches.

    """

    bound_to_space = False

    def __init__(self, smallest: float = 0.010, largest: float = 0.025, n_radii: int = 6) -> None:
        super().__init__()
        radii = self.radii = (smallest, largest, n_radii)
        self.whitener, self.positions = Whitener(), SourcePositions()
        self.topographies, self.moments = PatchTopographies(*radii), PatchMoments(*radii)
        self.pairs, self.shares = PatchPairs(*radii), PatchShares(*radii)
        self.head_inputs = (
            self.whitener,
            self.positions,
            self.topographies,
            self.moments,
            self.pairs,
            self.shares,
        )

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the method."""
        return Assumptions(assumed_patches(*self.radii[:2]), "1", "covariance and level", "nominal")

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Compute the posterior, expected distances and the best patch."""
        moments = inputs[self.moments.key]
        n_orient = moments.shape[2]
        fitted = self._fitted(data, inputs)
        energy = fitted.square().sum((2, 3))
        posterior = _of_all_patches(energy)
        positions = inputs[self.positions.key]
        distances = (positions[:, None] - positions[None]).norm(dim=-1)
        best = (distances @ posterior.sum(0)).argmin(0)
        sources = torch.arange(positions.shape[0], device=data.device)
        # Posterior of the radii given the centre, from logarithms to avoid 0 / 0.
        radius_weights = torch.softmax(0.5 * energy, dim=0) * (sources[:, None] == best)
        total = along_axes(moments.unflatten(1, (-1, n_orient)), fitted)
        patches = radius_weights[:, :, None, None] * total
        spread = spread_patches(patches, inputs[self.pairs.key], inputs[self.shares.key])
        return Estimate(spread.flatten(0, 1).permute(2, 0, 1))

    def probabilities(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "K S B"]:
        """Posterior of radius and centre."""
        return _of_all_patches(self._fitted(data, inputs).square().sum((2, 3)))

    def _fitted(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "K S O T B"]:
        """Fitted amplitudes of all patches."""
        n_orient = inputs[self.moments.key].shape[2]
        return torch.einsum(
            "kdc,bct->kdtb", inputs[self.topographies.key], inputs[self.whitener.key] @ data
        ).unflatten(1, (-1, n_orient))


def _of_all_patches(energy: Float[Tensor, "K S B"]) -> Float[Tensor, "K S B"]:
    """Probabilities from energies of matched filters."""
    n_radii = energy.shape[0]
    return torch.softmax(0.5 * energy.flatten(0, 1), dim=0).unflatten(0, (n_radii, -1))
