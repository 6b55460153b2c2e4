"""Matched filters of all patches for data that are weighted by sensor."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.models.layers.orientation_posterior import OrientationPosterior


class PatchFilters(NamedTuple):
    """Matched filters of the patches of every radius around every source.

    A *mixing* is the matrix that turns matched filters of the orientations of a patch into
    posterior amplitudes under a prior on the normal; None with one orientation or without a prior.

    Attributes:
        rows: Topographies by radius ``(K, D, C)``.
        trust: Weights of the sensors ``(B, C)``.
        power: Their power after weighting, mean over orientations ``(K, S, B)``.
        orientation: Posterior of the orientation of a patch.
        grams: Products of the weighted topographies of a patch ``(K, S, O, O, B)``, or None.

    """

    rows: Float[Tensor, "K D C"]
    trust: Float[Tensor, "B C"]
    power: Float[Tensor, "K S B"]
    orientation: OrientationPosterior
    grams: Float[Tensor, "K S O O B"] | None

    @classmethod
    def weighted(
        cls, orientation: OrientationPosterior, trust: Float[Tensor, "B C"]
    ) -> "PatchFilters":
        """Filters for data whose sensors have these weights."""
        rows = orientation.rows.flatten(1, 2)
        power = (rows.square() @ trust.square().T).unflatten(1, (-1, orientation.n_orient)).mean(2)
        power = power / orientation.mean_variance
        return cls(rows, trust, power, orientation, orientation.weighted_grams(trust.T))

    @property
    def n_orient(self) -> int | torch.SymInt:
        """Orientations ``O`` per source."""
        return self.orientation.n_orient

    def mixing(self, strength: Float[Tensor, " B"]) -> Float[Tensor, "K S O O B"] | None:
        """Mixing for patches of a prior variance, in units of the noise."""
        if self.grams is None:
            return None
        eye = torch.eye(3).to(strength)[:, None].expand(*self.grams.shape[:2], 3, len(strength), 3)
        mixed = self.orientation.weighted_amplitudes(eye, strength, self.grams, self.power)
        return mixed.mT

    def matched(self, columns: Float[Tensor, "B C N"]) -> list[Float[Tensor, "D N B"]]:
        """Matched filters of columns, by radius: less memory at a time is faster."""
        weighted = (self.trust[..., None] * columns).permute(1, 2, 0)
        return [(rows @ weighted.flatten(1)).unflatten(1, weighted.shape[1:]) for rows in self.rows]

    def amplitudes(
        self,
        k: int,
        matched: Float[Tensor, "D N B"],
        weights: Float[Tensor, "K S B"],
        mixing: Float[Tensor, "K S O O B"] | None,
    ) -> Float[Tensor, "D N B"]:
        """Expected amplitudes of the topographies of radius `k`, from their matched filters."""
        share = (weights[k] / self.power[k])[:, None, None]
        by_source = matched.unflatten(0, (-1, self.n_orient))
        if mixing is not None:
            by_source = torch.einsum("sopb,spnb->sonb", mixing[k], by_source)
        return (share * by_source).flatten(0, 1)
