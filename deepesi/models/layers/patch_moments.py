"""Moments of the sources, from patches along the normals and patches of any orientation."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepesi.core.patches import spread_patches, spread_profiles
from deepesi.models.layers.oriented_patches import (
    Component,
    Products,
    moment_matrix,
    quadratic_form,
)

#: Smallest mean square of a moment over patches, in units of the noise: finite gradients of roots.
SMALLEST = 1e-12


class Spread(NamedTuple):
    """How patches are spread over sources, and the directions of those along the normals."""

    pairs: Int[Tensor, "P 2"]
    shares: Float[Tensor, "P K"]
    directions: Float[Tensor, "S O"]

    def means(
        self, along: Float[Tensor, "T B K S"], own: list[Float[Tensor, "T B K S"]]
    ) -> Float[Tensor, "S O T B"]:
        """Moments of the sources, from mean moments of patches.

        Args:
            along: Sums of moments along the normals.
            own: Components of the moments of the other patches.

        """
        straight = self._by_profile([along])
        return self._by_profile(own) + self.directions[..., None, None] * straight

    def powers(
        self, along: Float[Tensor, "2 B K S"], own: Float[Tensor, "2 O B K S"]
    ) -> tuple[Float[Tensor, "S O 1 B"], Float[Tensor, "S O 1 B"]]:
        """Two mean squares of the moments of the sources, from those of patches, as in `means`."""
        both = torch.cat([own, along[:, None]], dim=1).permute(3, 4, 1, 0, 2)  # K S O+1 2 B
        spread = spread_patches(both, self.pairs, self.shares.square())
        directions = self.directions.square()[:, :, None, None]
        power = spread[:, :-1] + directions * spread[:, -1:]
        return power[:, :, :1], power[:, :, 1:]

    def _by_profile(self, moments: list[Float[Tensor, "T B K S"]]) -> Float[Tensor, "S N T B"]:
        """From patches to sources, with the mean profile of each centre over the window."""
        squares = [component.square().sum(0) for component in moments]
        size = sum(squares[1:], start=squares[0]).clamp_min(SMALLEST).sqrt()
        profile = (size / size.sum(1, keepdim=True)).permute(1, 2, 0)
        total = torch.stack([component.sum(2) for component in moments]).permute(3, 2, 0, 1)
        spread = spread_profiles(total, profile, self.pairs, self.shares)
        return spread.permute(0, 2, 3, 1)


class Weighted(NamedTuple):
    """A component whose patches have these probabilities."""

    component: Component
    probability: Float[Tensor, "B K S"]

    @property
    def strength(self) -> Float[Tensor, "B 1 1"]:
        """Sum of the prior variances."""
        return self.component.gamma.sum((0, 1)).to(self.probability.dtype)[:, None, None]


def weighted(
    components: list[Component], probabilities: list[Float[Tensor, "K S B"]]
) -> list[Weighted]:
    """The components with these probabilities of their patches."""
    return [
        Weighted(component, probability.permute(2, 0, 1))
        for component, probability in zip(components, probabilities, strict=True)
    ]


def relative_power(moments: Float[Tensor, "S O T B"]) -> Float[Tensor, "1 1 T B"]:
    """Power of a map in time, relative to its mean in the window; 1 for one sample."""
    power = moments.square().sum((0, 1), keepdim=True)
    return power / power.mean(2, keepdim=True).clamp_min(SMALLEST)


class PatchMoments:
    """Posterior mean of the moment of every source and its mean square, noise variance 1.

    Args:
        normal: Moments of patches of unit amplitude along the normals ``(B, K, S)``.
        loose: Moments that stand for the rows of patches of any orientation
            ``(O, O, B, K, S)``: component of the moment, then row.
        spread: How patches are spread over sources.

    """

    def __init__(
        self,
        normal: Float[Tensor, "B K S"],
        loose: Float[Tensor, "O O B K S"],
        spread: Spread,
    ) -> None:
        self.normal, self.loose, self.spread = normal, loose, spread
        self.n_radii = normal.shape[1]

    def mean(self, products: Products, components: list[Weighted]) -> Float[Tensor, "S O T B"]:
        """Mean of the moments.

        The patches around a source have one total moment per sample; it is spread with their mean
        profile over the window. With one sample this is the spread of each patch by itself.

        Args:
            products: Products of the residual with the topographies.
            components: All components.

        """
        k = self.n_radii
        straight = torch.zeros_like(self.normal)
        turns = torch.zeros_like(self.loose)
        for weighted in components:
            amplitude = weighted.strength * weighted.probability
            straight = straight + amplitude[:, :k]
            turned = amplitude[:, k:] * self._turned(weighted)
            turns = turns + turned[:, None] * weighted.component.axes
        along = straight * self.normal * products.normal
        own = [
            sum(
                (w * row for w, row in zip(turn[1:], products.loose[1:], strict=True)),
                start=turn[0] * products.loose[0],
            )
            for turn in turns.unbind()
        ]
        return self.spread.means(along, own)

    def power(
        self, products: Products, components: list[Weighted]
    ) -> tuple[Float[Tensor, "S O 1 B"], Float[Tensor, "S O 1 B"]]:
        """Mean square over the window of the means, and variance of the moments.

        Args:
            products: Products of the residual with the topographies.
            components: All components.

        """
        k, n_times = self.n_radii, products.normal.shape[0]
        energy = products.normal.square().sum(0) / n_times
        covariance = moment_matrix(products.loose) / n_times
        straight = turned = torch.zeros(())
        for weighted in components:
            strength, probability = weighted.strength, weighted.probability
            shrunk = strength / (1 + strength)
            noise = weighted.component.variance.to(probability.dtype)[..., None, None] * shrunk
            along = strength.square() * energy
            parts = torch.stack([along, noise[0].expand_as(along)])
            straight = straight + probability[:, :k] * parts
            own = strength.square() * quadratic_form(covariance, weighted.component.axes)
            parts = torch.stack([own, noise[1].expand_as(own)])[:, None]
            turned = turned + probability[:, k:] * parts * self._turned(weighted).square()
        return self.spread.powers(straight * self.normal.square(), turned)

    def _turned(self, weighted: Weighted) -> Float[Tensor, "O B K S"]:
        """Moments of unit amplitude along the axes of a component."""
        return (self.loose * weighted.component.axes).sum(1)
