"""Amplitudes of a few patches in the coordinates in which their Gaussian posterior is standard."""

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.models.layers.conditional_patches import inverse_root, sum_of
from deepesi.models.layers.scalar_flow import log_normal

#: Added to norms, so that silent recordings have finite gradients.
TINY = 1e-9


class AmplitudeCoordinates:
    """Map between amplitudes ``a (J, T)`` and standard coordinates ``y``, one row per patch.

    With the topographies ``U``, noise of variance ``s^2`` and a prior of variance ``d`` the
    posterior of the amplitudes in every sample is normal, with the mean ``(U U^T + I/d)^-1 U v``
    and the covariance ``s^2 (U U^T + I/d)^-1``. With the root ``R R^T = U U^T + I/d`` the
    coordinates are ``y = (R^T a - R^-1 U v) / s``.

    Args:
        topographies: Unit topographies; 0 where there is no patch.
        white: Whitened data.
        strength: ``d``, noise variance 1.
        noise: ``s``.

    """

    def __init__(
        self,
        topographies: Float[Tensor, "N B J C"],
        white: Float[Tensor, "B C T"],
        strength: Float[Tensor, " B"],
        noise: Float[Tensor, " B"],
    ) -> None:
        gram = topographies @ topographies.mT
        n = topographies.shape[2]
        matrix = [
            [gram[..., i, j] + (1 / strength if i == j else 0) for j in range(i + 1)]
            for i in range(n)
        ]
        self.inverse, _ = inverse_root(matrix)
        self.noise = noise[:, None]
        matched = (topographies @ white).unbind(2)
        rows = [
            sum_of(v[..., None] * x for v, x in zip(r, matched, strict=False)) for r in self.inverse
        ]
        #: Time courses of the coordinates' means.
        self.means: Float[Tensor, "N B J T"] = torch.stack(rows, dim=2)

    @property
    def directions(self) -> Float[Tensor, "N B J T"]:
        """Means divided by their norms over time."""
        return self.means / (self.means.square().sum(3, keepdim=True) + TINY**2).sqrt()

    def amplitudes(self, y: Float[Tensor, "N B J T"]) -> Float[Tensor, "N B J T"]:
        """From coordinates to amplitudes."""
        values = (self.means + self.noise[..., None] * y).unbind(2)
        n = len(values)
        parts = [
            sum_of(self.inverse[i][j][..., None] * values[i] for i in range(j, n)) for j in range(n)
        ]
        return torch.stack(parts, dim=2)

    def coordinates(self, amplitudes: Float[Tensor, "N B J T"]) -> Float[Tensor, "N B J T"]:
        """From amplitudes to coordinates."""
        rows = list(amplitudes.unbind(2))
        for j in reversed(range(len(rows))):
            later = range(j + 1, len(rows))
            rest = rows[j] - sum_of(self.inverse[i][j][..., None] * rows[i] for i in later)
            rows[j] = rest / self.inverse[j][j][..., None]
        return (torch.stack(rows, dim=2) - self.means) / self.noise[..., None]

    def log_volume(self) -> Float[Tensor, "N B J"]:
        """Logarithm of the volume of amplitudes per volume of coordinates, of one sample."""
        return torch.stack([row[-1].log() + self.noise[:, 0].log() for row in self.inverse], dim=2)


def split(
    y: Float[Tensor, "N B J T"], directions: Float[Tensor, "N B J T"]
) -> tuple[Float[Tensor, "N B J"], Float[Tensor, "N B J T"]]:
    """Component along the directions, and the rest."""
    along = (y * directions).sum(3)
    return along, y - along[..., None] * directions


def log_density_across(
    rest: Float[Tensor, "N B J T"], log_scale: Float[Tensor, "N B J"]
) -> Float[Tensor, "N B J"]:
    """Log-density of what is orthogonal to the direction: normal in ``T - 1`` dimensions."""
    n_times = rest.shape[3]
    scaled = rest.square().sum(3) * (-2 * log_scale).exp()
    constant = 2 * log_normal(torch.zeros_like(log_scale)) - 2 * log_scale
    return 0.5 * ((n_times - 1) * constant - scaled)
