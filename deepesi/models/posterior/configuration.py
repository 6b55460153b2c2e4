"""Configurations of patches that explain recordings: the variable of a structured posterior."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from deepesi.core.batch import Batch
from deepesi.models.layers.patch_sequence import NONE


class Configuration(NamedTuple):
    """Sources behind ``B`` recordings, ``N`` configurations of each; strongest patch first."""

    log_skull: Float[Tensor, "N B"]  # logarithm of the skull conductivity over the nominal one
    patches: Int[Tensor, "N B J"]  # radius number times S plus source number; `NONE`
    moments: Float[Tensor, "N B J T"]  # total moments along the normals, A m

    def n_sources(self) -> Int[Tensor, "N B"]:
        """Number of patches."""
        return (self.patches != NONE).sum(2)

    def sites(self, n_sources: int) -> Int[Tensor, "N B J"]:
        """Source numbers of the centres, `NONE` without a patch."""
        return torch.where(self.patches == NONE, NONE, self.patches % n_sources)


def on_sources(
    configuration: Configuration,
    members: Int[Tensor, "S M"],
    shares: Float[Tensor, "K S M"],
    directions: Float[Tensor, "S O"],
) -> Float[Tensor, "N B D T"]:
    """Dipole moments of the sources (A m).

    Args:
        configuration: Configurations.
        members: Array of `deepesi.physics.head_inputs.PatchMembers`.
        shares: Array of `deepesi.physics.head_inputs.MemberShares`.
        directions: Array of `deepesi.physics.head_inputs.FixedOrientations`.

    """
    moments, numbers = configuration.moments, configuration.patches.clamp_min(0)
    members = members.expand(shares.shape[0], -1, -1)  # ONNX: no remainder
    at, share = (
        table.flatten(0, 1).index_select(0, numbers.flatten()).unflatten(0, numbers.shape)
        for table in (members, shares)
    )
    parts = (share[..., None] * moments[:, :, :, None]).flatten(2, 3)
    # One additional source receives the entries that fill short lists of members.
    empty = torch.zeros_like(moments[:, :, :1]).expand(-1, -1, directions.shape[0] + 1, -1)
    sources = empty.scatter_add(2, at.flatten(2)[..., None].expand_as(parts), parts)[:, :, :-1]
    return (sources[:, :, :, None] * directions[..., None]).flatten(2, 3)


def of_batch(
    batch: Batch,
    positions: Float[Tensor, "S 3"],
    directions: Float[Tensor, "S O"],
    radii: Float[Tensor, " K"],
    patch_moments: Float[Tensor, "K S"],
    n_components: int,
    nominal_skull: float,
) -> Configuration:
    """The ``J`` strongest patches that each recording of a batch was simulated with.

    Moments belong to the nearest centre. The radius is the nearest of the dictionary.

    Args:
        batch: Simulated recordings.
        positions: Source locations, m.
        directions: Array of `deepesi.physics.head_inputs.FixedOrientations`.
        radii: Radii of the dictionary, m.
        patch_moments: Moment of each patch that is as strong as the noise, A m.
        n_components: ``J``.
        nominal_skull: Conductivity that the nominal lead fields assume, S/m.

    Returns:
        One configuration per recording; ``log_skull`` is NaN where the head has one lead field.

    """
    scene = batch.scene
    peaks, there = scene.peaks.clamp_min(0), scene.peaks >= 0
    along = (batch.sources.unflatten(1, directions.shape) * directions[..., None]).sum(2)
    gaps = torch.cdist(positions.index_select(0, peaks.flatten()), positions)
    gaps = gaps.unflatten(0, peaks.shape).masked_fill(~there[..., None], math.inf)
    nearest = functional.one_hot(gaps.argmin(1), peaks.shape[1]).to(along)
    moments = nearest.mT @ along
    radius = (scene.extents[..., None] - radii).abs().argmin(2)
    numbers = radius * len(positions) + peaks
    strength = (moments / patch_moments.flatten()[numbers][..., None]).square().sum(2)
    order = strength.masked_fill(~there, -1.0).argsort(1, descending=True)[:, :n_components]
    numbers = torch.where(there, numbers, NONE).gather(1, order)
    moments = moments.gather(1, order[..., None].expand(-1, -1, moments.shape[2]))
    missing = n_components - order.shape[1]
    numbers = functional.pad(numbers, (0, missing), value=NONE)
    moments = functional.pad(moments, (0, 0, 0, missing)) * (numbers != NONE)[..., None]
    log_skull = (scene.tissues[:, 0] / nominal_skull).log()
    return Configuration(log_skull[None], numbers[None], moments[None])
