"""Posterior of the amplitudes of patches: Gaussian, corrected by a flow along their means."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deepesi.core.patches import small_linear
from deepesi.models.layers.amplitude_coordinates import (
    AmplitudeCoordinates,
    log_density_across,
    split,
)
from deepesi.models.layers.patch_scores import with_step
from deepesi.models.layers.scalar_flow import ScalarFlow


class MomentFlow(nn.Module):
    """Distribution of the coordinates of amplitudes.

    Errors of the head model change the amplitude of a patch by one factor in the whole window. So
    the component along the time course of the mean has a flow, and what is orthogonal to it stays
    normal, with a learned scale.

    Args:
        n_components: Largest number of patches ``J``.
        n_features: Features of a recording.
        hidden: Width of the networks of the flow.

    """

    def __init__(self, n_components: int, n_features: int, hidden: int) -> None:
        super().__init__()
        self.n_components = n_components
        n_context = n_features + 3 + n_components
        self.along = ScalarFlow(n_context, hidden)
        self.across = small_linear(n_context, 1)

    def draw(
        self,
        coordinates: AmplitudeCoordinates,
        features: Float[Tensor, "B F"],
        there: Bool[Tensor, "N B J"],
        noise: Float[Tensor, "N B J T"],
    ) -> Float[Tensor, "N B J T"]:
        """Amplitudes; 0 where there is no patch.

        Args:
            coordinates: Gaussian posterior of the amplitudes.
            features: Features of the recordings.
            there: Whether there is a patch.
            noise: Standard normal.

        """
        context, directions = self._context(coordinates, features, there), coordinates.directions
        z_along, z_across = split(noise.to(directions), directions)
        along = self.along.from_noise(z_along.to(context), context).to(directions)
        y = self.across(context).exp() * z_across + along[..., None] * directions
        return coordinates.amplitudes(y) * there[..., None]

    def log_density(
        self,
        coordinates: AmplitudeCoordinates,
        features: Float[Tensor, "B F"],
        there: Bool[Tensor, "N B J"],
        amplitudes: Float[Tensor, "N B J T"],
    ) -> Float[Tensor, "N B J"]:
        """Logarithm of the density of the amplitudes of each patch, given the later ones."""
        context = self._context(coordinates, features, there)
        along, rest = split(coordinates.coordinates(amplitudes), coordinates.directions)
        density = self.along.log_density(along.to(context), context)
        density = density + log_density_across(rest, self.across(context)[..., 0])
        return (density - amplitudes.shape[3] * coordinates.log_volume()) * there

    def _context(
        self,
        coordinates: AmplitudeCoordinates,
        features: Float[Tensor, "B F"],
        there: Bool[Tensor, "N B J"],
    ) -> Float[Tensor, "N B J H"]:
        """Strength of each patch relative to the noise and to the others."""
        size = (coordinates.means / coordinates.noise[..., None]).square().mean(3)
        share = size / size.sum(2, keepdim=True).clamp_min(1e-6)
        count = there.sum(2, keepdim=True).expand_as(size) / self.n_components
        own = torch.stack([size.log1p() / 3, share, count.to(size)], dim=3).to(features)
        steps = range(self.n_components)
        rows = [with_step(features, own[:, :, j], j, self.n_components) for j in steps]
        return torch.stack(rows, dim=2)
