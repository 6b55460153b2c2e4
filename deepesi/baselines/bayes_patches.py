"""Posterior of one to ten patches by Gibbs sampling: what can be known of several sources."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepesi.baselines.patch_sampler import EMPTY, Dictionary, PatchSampler, State
from deepesi.baselines.solver import assumed_patches
from deepesi.core.contracts import Assumptions, Estimate, InverseModel
from deepesi.core.patches import spread_patches
from deepesi.physics.head_inputs import (
    PatchMoments,
    PatchPairs,
    PatchShares,
    PatchTopographies,
    SourcePositions,
    Whitener,
)

#: Prior standard deviations of a moment, relative to the median moment as strong as the noise.
LEVELS = (0.3, 300.0, 16)


class PatchPosterior(NamedTuple):
    """Configurations drawn from the posterior; ``M`` chains, ``R`` rounds.

    Attributes:
        states: Configuration of every round, chains of an example one after the other.
        weights: Share of each chain ``(B, M)`` in the posterior of its example.
        r_hat: Potential scale reduction of the log-evidence ``(B,)``; above 1.1 the chains of an
            example do not agree.

    """

    states: list[State]
    weights: Float[Tensor, "B M"]
    r_hat: Float[Tensor, " B"]

    def n_sources(self) -> Float[Tensor, "B N"]:
        """Posterior of the number of sources, from 0."""
        n_slots = self.states[0].patches.shape[1]
        counts = torch.stack([(state.patches != EMPTY).sum(1) for state in self.states])
        shares = torch.nn.functional.one_hot(counts, n_slots + 1).double().mean(0)
        shares = shares.unflatten(0, self.weights.shape)
        return (self.weights[..., None] * shares).sum(1)


class BayesPatches(InverseModel):
    """Posterior mean, std and samples of several patches, by collapsed Gibbs sampling.

    Prior of `deepesi.baselines.patch_sampler.PatchSampler`: that of the scenarios `n_sources`,
    `several` and `several_window`, but with normal moments of one unknown level. The chains start
    from the prior and heat the likelihood up in steps (annealed importance sampling); the weights
    that result say how much a chain that is caught in a local maximum counts. An upper bound of
    the Bayes error where they do not mix: look at `PatchPosterior.r_hat`.

    Iterates on every recording, so it has no form in ONNX. On a head of free orientation use it
    along the normals (`FixedOrientation`).

    Args:
        n_sources: Smallest and largest number of patches.
        smallest: Smallest patch radius, m.
        largest: Largest patch radius, m.
        n_radii: Number of radii from smallest to largest.
        min_distance: Smallest distance between two centres, m.
        n_chains: Chains per recording.
        n_annealed: Sweeps in which the likelihood is heated up.
        n_kept: Sweeps after them, all of which count.
        n_samples: Samples of the estimate.
        seed: Random seed; the same seed gives the same estimate.

    Raises:
        ValueError: A number is not positive or the numbers of sources are out of order; in use, a
            head of free orientation.

    Source: Gibbs sampling with parameters integrated out, Liu 1994,
    doi:10.1080/01621459.1994.10476829; annealed importance sampling, Neal 2001,
    doi:10.1023/A:1008923215028; R-hat, Gelman & Rubin 1992, doi:10.1214/ss/1177011136; several
    dipoles by sampling, e.g. Sommariva & Sorrentino 2014, doi:10.1088/0266-5611/30/11/114020.
    Difference: patches of several radii, and every conditional is exact over the whole dictionary.

    """

    bound_to_space = False
    exportable = False

    def __init__(
        self,
        n_sources: Sequence[int] = (1, 3),
        smallest: float = 0.010,
        largest: float = 0.025,
        n_radii: int = 4,
        min_distance: float = 0.03,
        n_chains: int = 16,
        n_annealed: int = 60,
        n_kept: int = 16,
        n_samples: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        counts = {"n_chains": n_chains, "n_annealed": n_annealed, "n_kept": n_kept}
        if min(*counts.values(), n_samples) < 1 or not 0 <= n_sources[0] <= n_sources[-1] >= 1:
            raise ValueError(
                "BayesPatches: chains, sweeps and samples must be 1 or more, and the numbers of "
                f"sources in order, got {counts | {'n_samples': n_samples}} and "
                f"n_sources={tuple(n_sources)}."
            )
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
        self.n_sources = (int(n_sources[0]), int(n_sources[1]))
        self.min_distance, self.n_chains, self.n_annealed = min_distance, n_chains, n_annealed
        self.n_kept, self.n_samples, self.seed = n_kept, n_samples, seed

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the method."""
        low, high = self.n_sources
        number = f"{low}" if low == high else f"{low} to {high}"
        return Assumptions(
            assumed_patches(*self.radii[:2]), number, "covariance and level", "nominal"
        )

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Sample the posterior, then compute mean, std and samples of the moments."""
        sampler = self._sampler(data, inputs)
        posterior = self._sample(sampler)
        mean = self._mean(sampler, posterior, inputs)
        samples = self._draws(sampler, posterior, inputs)
        std = (samples - mean).square().mean(0).sqrt()
        return Estimate(*(values.to(data.dtype) for values in (mean, std, samples)))

    def sample_patches(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]
    ) -> PatchPosterior:
        """Draw configurations of patches."""
        return self._sample(self._sampler(data, inputs))

    def _sampler(self, data: Tensor, inputs: dict[str, Tensor]) -> PatchSampler:
        topographies, moments = inputs[self.topographies.key], inputs[self.moments.key]
        if moments.shape[2] != 1:
            raise ValueError(
                f"BayesPatches: the head has {moments.shape[2]} orientations per source, expected "
                "1. Use the baseline bayes_patches_fixed on a head of free orientation."
            )
        positions = inputs[self.positions.key].double()
        moments = moments.flatten().double()
        dictionary = Dictionary(
            topographies.flatten(0, 1).double(),
            moments,
            torch.arange(len(positions)).repeat(topographies.shape[0]),
            torch.cdist(positions, positions) < self.min_distance,
            (inputs[self.whitener.key] @ data).double(),
        )
        low, high, n_levels = LEVELS
        levels = torch.logspace(math.log10(low), math.log10(high), n_levels, dtype=torch.float64)
        return PatchSampler(
            dictionary,
            levels * moments.median(),
            self.n_sources,
            self.n_chains,
            torch.Generator().manual_seed(self.seed),
        )

    def _sample(self, sampler: PatchSampler) -> PatchPosterior:
        state, weights = sampler.start(), torch.zeros(len(sampler.example)).double()
        powers = torch.linspace(0, 1, self.n_annealed + 1, dtype=torch.float64).square()
        for before, power in itertools.pairwise(powers):
            weights = weights + (power - before) * state.log_evidence
            state = sampler.sweep(state, float(power))
        states = []
        for _ in range(self.n_kept):
            state = sampler.sweep(state, 1.0)
            states.append(state)
        shares = torch.softmax(weights.unflatten(0, (-1, self.n_chains)), dim=1)
        evidence = torch.stack([kept.log_evidence for kept in states])
        return PatchPosterior(states, shares, _r_hat(evidence.unflatten(1, (-1, self.n_chains))))

    def _mean(
        self, sampler: PatchSampler, posterior: PatchPosterior, inputs: dict[str, Tensor]
    ) -> Float[Tensor, "B D T"]:
        weights = posterior.weights.flatten()[:, None, None] / len(posterior.states)
        parts = [
            self._on_patches(sampler, state.patches, weights * sampler.amplitudes(state).mean)
            for state in posterior.states
        ]
        return self._on_sources(torch.stack(parts).sum(0), inputs)

    def _draws(
        self, sampler: PatchSampler, posterior: PatchPosterior, inputs: dict[str, Tensor]
    ) -> Float[Tensor, "N B D T"]:
        """Samples: a configuration by its weight, then its moments."""
        parts = [sampler.amplitudes(state) for state in posterior.states]
        cumulated = posterior.weights.cumsum(1)
        draws = []
        for number in range(self.n_samples):
            # Systematic resampling of chains, rounds in turn.
            quantile = (number + 0.5) / self.n_samples * cumulated[:, -1:]
            chain = torch.searchsorted(cumulated, quantile)[:, 0].clamp_max(self.n_chains - 1)
            rows = torch.arange(len(chain)) * self.n_chains + chain
            state, part = posterior.states[number % len(parts)], parts[number % len(parts)]
            mean = part.mean[rows]
            noise = torch.randn(mean.shape[1:], generator=sampler.rng, dtype=mean.dtype)
            moments = mean + part.root[rows] @ noise
            drawn = self._on_patches(sampler, state.patches[rows], moments)
            draws.append(self._on_sources(drawn, inputs))
        return torch.stack(draws)

    def _on_patches(
        self,
        sampler: PatchSampler,
        patches: Int[Tensor, "N K"],
        moments: Float[Tensor, "N K T"],
    ) -> Float[Tensor, "P T B"]:
        """Sums of moments by patch and example."""
        n_examples, n_patches = sampler.n_examples, len(sampler.dictionary.moments)
        example = torch.arange(n_examples).repeat_interleave(len(patches) // n_examples)
        index = (example[:, None] * n_patches + patches.clamp_min(0)).flatten()
        present = (patches != EMPTY)[..., None]
        total = moments.new_zeros(n_examples * n_patches, moments.shape[2])
        total = total.index_add(0, index, (moments * present).flatten(0, 1))
        return total.unflatten(0, (n_examples, n_patches)).permute(1, 2, 0)

    def _on_sources(
        self, moments: Float[Tensor, "P T B"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "B D T"]:
        by_radius = moments.unflatten(0, (self.radii[2], -1))
        spread = spread_patches(by_radius, inputs[self.pairs.key], inputs[self.shares.key])
        return spread.permute(2, 0, 1)


def _r_hat(values: Float[Tensor, "R B M"]) -> Float[Tensor, " B"]:
    """Potential scale reduction of values of several chains; 1 where all are equal."""
    n_rounds = values.shape[0]
    within = values.var(0).mean(1) if n_rounds > 1 else torch.zeros(values.shape[1]).to(values)
    between = values.mean(0).var(1) if values.shape[2] > 1 else torch.zeros_like(within)
    ratio = between / within.clamp_min(1e-12)
    return ((n_rounds - 1) / n_rounds + torch.where(between > 1e-12, ratio, 0)).clamp_min(1).sqrt()
