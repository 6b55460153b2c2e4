"""Sources in units of the moment whose topography has norm 1, and recordings of power 1."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deepesi.core.precision import in_full_precision
from deepesi.core.quantities import summed_power
from deepesi.models.layers.mismatch_noise import MIN_POWER, mismatch_noise, signal_power
from deepesi.physics.head_inputs import FixedOrientations, Gain, MeshNeighbours, Rank, Whitener


class Setting(NamedTuple):
    """What is known of ``F`` recordings of power 1, and of their head."""

    data: Float[Tensor, "F T C"]
    noise: Float[Tensor, " F"]  # variance of noise and head errors per channel
    topographies: Float[Tensor, "S C"]  # unit norm, whitened
    gram: Float[Tensor, "C C"]  # sum of their products with themselves
    evidence: Float[Tensor, "F S"]  # energy of the matched filter of each source
    features: Float[Tensor, "F G"]
    sensitivity: Float[Tensor, " S"]
    neighbours: Int[Tensor, "N S"]

    def repeated(self, n: int | torch.SymInt) -> "Setting":
        """The recordings `n` times, one after the other."""

        def again(values: Tensor) -> Tensor:
            return values.expand(n, *values.shape).flatten(0, 1)

        return Setting(
            again(self.data),
            again(self.noise),
            self.topographies,
            self.gram,
            again(self.evidence),
            again(self.features),
            self.sensitivity,
            self.neighbours,
        )

    def equal_variance(self) -> Tensor:
        """Variance of a source if all have the same and together the power of the recording."""
        return 1 / torch.ones_like(self.sensitivity).sum()


class UnitSources(nn.Module):
    """Scales recordings and sources, so that all depths and signal-to-noise ratios look alike.

    A source has the unit of the moment whose whitened topography has norm 1, times the root of the
    power of the signal. A share of the power, learned, counts as noise: it is head mismatch. On a
    head of free orientation sources point along the normals.

    """

    def __init__(self) -> None:
        super().__init__()
        self.whitener, self.rank, self.gain = Whitener(), Rank(), Gain(whitened=True)
        self.neighbours, self.directions = MeshNeighbours(), FixedOrientations()
        self.head_inputs = (
            self.whitener,
            self.rank,
            self.gain,
            self.neighbours,
            self.directions,
        )
        self.log_share = nn.Parameter(torch.tensor(math.log(0.1)))

    @in_full_precision
    def forward(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]
    ) -> tuple[Setting, Float[Tensor, "B S 1"]]:
        """What is known of recordings, and the moment (A m) of a source of 1."""
        directions, rank = inputs[self.directions.key], inputs[self.rank.key]
        gain = inputs[self.gain.key].unflatten(1, directions.shape)
        topographies = (gain * directions).sum(2).T
        norms = topographies.norm(dim=1, keepdim=True)
        topographies = topographies / norms
        white = inputs[self.whitener.key] @ data
        noise = mismatch_noise(white, rank, self.log_share).square()
        power = summed_power(white)
        signal = signal_power(power, rank)
        scaled = (white / signal.sqrt()[:, None, None]).mT
        n_times = torch.ones_like(white[0, 0]).sum()
        logs = [power / rank + MIN_POWER, noise, n_times.expand_as(power)]
        setting = Setting(
            scaled,
            noise / signal,
            topographies,
            topographies.T @ topographies,
            (scaled @ topographies.T).square().mean(1),
            torch.stack([value.log() / 3 for value in logs], dim=1),
            (norms.mean() / norms[:, 0]).log(),
            inputs[self.neighbours.key],
        )
        return setting, signal.sqrt()[:, None, None] / norms

    def along_normals(
        self, sources: Float[Tensor, "B D T"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "B S T"]:
        """Components of dipole moments along the normals."""
        directions = inputs[self.directions.key]
        return (sources.unflatten(1, directions.shape) * directions[..., None]).sum(2)

    def on_dipoles(
        self, sources: Float[Tensor, "*N S T"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "*N D T"]:
        """Dipole moments of sources that point along the normals."""
        moments = sources[..., None, :] * inputs[self.directions.key][..., None]
        return moments.flatten(-3, -2)
