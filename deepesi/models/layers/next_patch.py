"""Distribution of the next patch of a configuration, and the probability that there is one."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deepesi.core.patches import small_linear
from deepesi.models.layers.conditional_patches import sum_of
from deepesi.models.layers.patch_scores import FLOOR, with_step
from deepesi.models.layers.patch_sequence import NONE, PatchSequence, Recordings

#: Distance over which a patch makes another one less likely, m.
NEAR = 0.015
#: Approximate number of independent patches on a head.
N_INDEPENDENT_TESTS = 400


class Known(NamedTuple):
    """Results that are computed once for a recording and serve all of its configurations."""

    recordings: Recordings
    features: Float[Tensor, "B F"]
    scores: Float[Tensor, "J B P"]  # learned corrections
    slope: Float[Tensor, " B"]  # log-likelihood per explained power
    noise: Float[Tensor, " B"]  # standard deviation of noise and head errors
    rank: Float[Tensor, " 1"]  # dimensions of the noise
    positions: Float[Tensor, "S 3"]


class Choice(NamedTuple):
    """Distribution of the next patch of ``N`` configurations."""

    log_odds: Float[Tensor, "N B P"]
    log_total: Float[Tensor, "N B 1"]  # logarithm of the sum of the odds
    mass: Float[Tensor, "N B K S"]  # odds relative to the largest, by radius and source
    by_radius: Float[Tensor, "N B K"]  # their sums
    more: Float[Tensor, "N B"]  # log-odds that there is a next patch

    def drawn(self, uniform: Float[Tensor, "N B"]) -> Int[Tensor, "N B"]:
        """One of the patches, by a number between 0 and 1: first the radius, then the source."""
        cumulated = self.by_radius.cumsum(2)
        wanted = uniform[..., None] * cumulated[..., -1:]
        n_radii, n_sources = self.mass.shape[2:]
        radius = (cumulated < wanted).sum(2, keepdim=True).clamp_max(n_radii - 1)
        wanted = wanted - (cumulated - self.by_radius).gather(2, radius)
        # Whole rows of one table: faster than `gather`, which has an index for every element.
        first = n_radii * torch.arange(radius.numel(), device=radius.device)
        row = self.mass.flatten(0, 2).index_select(0, first + radius.flatten())
        row = row.unflatten(0, radius.shape[:2])
        # ONNX Runtime adds integers slowly.
        source = (row.cumsum(2) < wanted).to(row).sum(2).long().clamp_max(n_sources - 1)
        return source + radius[..., 0] * n_sources

    def log_probability(self, number: Int[Tensor, "N B"]) -> Float[Tensor, "N B"]:
        """Logarithm of the probability of a patch."""
        odds = self.log_odds.gather(2, number.clamp_min(0)[..., None])
        return (odds - self.log_total)[..., 0]


class NextPatch(nn.Module):
    """Evidence of every patch, divided by the variance of head errors, with learned corrections.

    Args:
        n_components: Largest number of patches ``J``.
        n_features: Features of a recording.
        hidden: Width of the network that decides whether there is a next patch.

    """

    def __init__(self, n_components: int, n_features: int, hidden: int) -> None:
        super().__init__()
        self.n_components = n_components
        self.sharpness = small_linear(n_features, n_components)
        self.crowding = nn.Parameter(torch.tensor(3.0))
        first = nn.Linear(n_features + 3 + n_components, hidden)
        self.another = nn.Sequential(first, nn.ReLU(), small_linear(hidden, 1))

    def forward(
        self, step: int, known: Known, sequence: PatchSequence, earlier: list[Int[Tensor, "N B"]]
    ) -> Choice:
        """Distribution of the patch after `earlier`, which the sequence has taken."""
        slope = known.slope.to(known.features)
        sharpness = (self.sharpness(known.features)[:, step].exp() * slope)[:, None]
        log_odds = sharpness * sequence.evidence() + known.scores[step]
        split = (-1, known.positions.shape[0])
        if earlier:
            near = sum_of(self._near(number, known.positions) for number in earlier)
            log_odds = (log_odds.unflatten(2, split) - near[:, :, None]).flatten(2)
        largest = log_odds.amax(2, keepdim=True)
        mass = (log_odds - largest).exp().unflatten(2, split)
        by_radius = mass.sum(3)
        log_total = largest + by_radius.sum(2, keepdim=True).log()
        # The evidence of another patch relative to that of none.
        strength = known.recordings.strength[:, None].to(sharpness)
        prior = strength.log() * sharpness + math.log(N_INDEPENDENT_TESTS)
        own = [
            (log_total - prior)[..., 0].clamp(-10, 30) / 5,
            (sequence.remaining() / known.rank + FLOOR).log() / 3,
            largest[..., 0].clamp(-10, 30) / 5,
        ]
        read = torch.stack([value.to(known.features) for value in own], dim=2)
        features = with_step(known.features, read, step, self.n_components)
        return Choice(log_odds, log_total, mass, by_radius, self.another(features)[..., 0])

    def _near(
        self, number: Int[Tensor, "N B"], positions: Float[Tensor, "S 3"]
    ) -> Float[Tensor, "N B S"]:
        """Reduction of the log-odds of patches near an earlier one."""
        filled = number.clamp_min(0).flatten()
        n_sources = positions.shape[0]
        # The exporter has no remainder by a free size.
        centres = filled - filled // n_sources * n_sources
        centre = positions.index_select(0, centres)
        square = centre.square().sum(1)[:, None] + positions.square().sum(1)
        gaps = (square - 2 * centre @ positions.T).unflatten(0, number.shape)
        return self.crowding * (-0.5 * gaps / NEAR**2).exp() * (number != NONE)[..., None]
