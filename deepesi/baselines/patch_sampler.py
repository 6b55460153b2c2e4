"""Gibbs sampling of the patches behind a recording, with their moments integrated out."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

#: Number of a slot without a patch.
EMPTY = -1


class Dictionary(NamedTuple):
    """All patches that a recording may come from, and the recording."""

    topographies: Float[Tensor, "P C"]  # whitened, unit norm
    moments: Float[Tensor, " P"]  # that projects as the topography, noise 1
    centres: Int[Tensor, " P"]  # source number of the centre
    near: Bool[Tensor, "S S"]  # whether two centres are too near to each other
    data: Float[Tensor, "B C T"]  # whitened


class State(NamedTuple):
    """One configuration for each of ``N`` chains; chains of an example follow each other."""

    patches: Int[Tensor, "N K"]  # numbers in the dictionary, `EMPTY` without a patch
    level: Int[Tensor, " N"]  # number of the prior standard deviation of moments
    log_evidence: Float[Tensor, " N"]  # of the recording, relative to noise alone


class Amplitudes(NamedTuple):
    """Posterior of the moments of a configuration."""

    mean: Float[Tensor, "N K T"]
    root: Float[Tensor, "N K K"]  # root of their covariance, the same in every sample


class PatchSampler:
    """Collapsed Gibbs sampler over configurations of up to ``K`` patches.

    Prior: a number of patches, equally likely from the smallest to the largest; each patch equally
    likely among all centres and radii that are far enough from the others; moments independent
    and normal, with one standard deviation for all, which is equally likely on a grid.

    A step draws one slot from its exact conditional distribution, over every patch and over no
    patch, with the moments integrated out: birth, death and moves in one. Another step draws the
    standard deviation.

    Args:
        dictionary: Patches and recordings.
        levels: Possible prior standard deviations of a moment, as those of the dictionary.
        n_sources: Smallest and largest number of patches.
        n_chains: Chains per example. They use the same random numbers for every example, so the
            result of an example does not depend on the others.
        rng: Source of random numbers.

    """

    def __init__(
        self,
        dictionary: Dictionary,
        levels: Float[Tensor, " G"],
        n_sources: tuple[int, int],
        n_chains: int,
        rng: torch.Generator,
    ) -> None:
        self.dictionary, self.levels, self.n_chains, self.rng = dictionary, levels, n_chains, rng
        self.n_examples, _, self.n_times = dictionary.data.shape
        largest = n_sources[1]
        counts = torch.arange(largest + 1)
        allowed = (counts >= n_sources[0]).double().log()
        self.log_prior = allowed - torch.tensor(
            [math.log(math.comb(largest, int(n))) for n in counts], dtype=torch.float64
        )
        self.example = torch.arange(self.n_examples).repeat_interleave(n_chains)
        self.energy = (dictionary.topographies @ dictionary.data).square().sum(2)  # B P
        self.log_patch = -math.log(len(dictionary.topographies))

    def start(self) -> State:
        """Draw configurations from the prior, up to its normalization by distances."""
        n_states, n_slots = len(self.example), len(self.log_prior) - 1
        possible = self.log_prior.isfinite().double().log()
        count = self._draw(possible.expand(n_states, -1))
        patches = torch.full((n_states, n_slots), EMPTY)
        for slot in range(n_slots):
            free = ~self._near(patches)
            drawn = self._draw(free.double().log())
            patches[:, slot] = torch.where(slot < count, drawn, EMPTY)
        level = torch.full((n_states,), len(self.levels) // 2)
        return self._draw_level(State(patches, level, torch.zeros(n_states).double()), 0.0)

    def sweep(self, state: State, power: float) -> State:
        """Draw every slot and the level anew; the likelihood has this power (1: the posterior)."""
        for slot in range(state.patches.shape[1]):
            state = state._replace(patches=self._draw_slot(state, slot, power))
        return self._draw_level(state, power)

    def amplitudes(self, state: State) -> Amplitudes:
        """Posterior of the moments given the patches."""
        scale = self._scale(state)
        rows = self._rows(state.patches) * scale[..., None]
        factor = torch.linalg.cholesky(_gram(rows))
        products = rows @ self.dictionary.data[self.example]
        moments = self.dictionary.moments[state.patches.clamp_min(0)] * scale
        mean = moments[..., None] * torch.cholesky_solve(products, factor)
        inverse = torch.linalg.solve_triangular(
            factor, torch.eye(factor.shape[1]).to(factor).expand_as(factor), upper=False
        )
        return Amplitudes(mean, moments[..., None] * inverse.mT)

    def _rows(self, patches: Int[Tensor, "N K"]) -> Float[Tensor, "N K C"]:
        """Topographies of slots; zero without a patch."""
        rows = self.dictionary.topographies[patches.clamp_min(0)]
        return rows * (patches != EMPTY)[..., None]

    def _scale(self, state: State) -> Float[Tensor, "N K"]:
        """Prior standard deviations of the amplitudes of unit topographies."""
        moments = self.dictionary.moments[state.patches.clamp_min(0)]
        return self.levels[state.level][:, None] / moments

    def _draw_slot(self, state: State, slot: int, power: float) -> Int[Tensor, "N K"]:
        others = torch.cat([state.patches[:, :slot], state.patches[:, slot + 1 :]], dim=1)
        evidence = self._evidence_with(state._replace(patches=others))
        number = (others != EMPTY).sum(1)
        blocked = self._near(others)
        occupied = (power * evidence).masked_fill(blocked, -math.inf)
        occupied = occupied + self.log_prior[number + 1][:, None] + self.log_patch
        logits = torch.cat([occupied, self.log_prior[number][:, None]], dim=1)
        drawn = self._draw(logits)
        drawn = torch.where(drawn == occupied.shape[1], EMPTY, drawn)
        return torch.cat(
            [state.patches[:, :slot], drawn[:, None], state.patches[:, slot + 1 :]], dim=1
        )

    def _evidence_with(self, state: State) -> Float[Tensor, "N P"]:
        """Log-evidence of one more patch, relative to without it."""
        topographies, data = self.dictionary.topographies, self.dictionary.data[self.example]
        variance = (self.levels[state.level][:, None] / self.dictionary.moments).square()
        rows = self._rows(state.patches) * self._scale(state)[..., None]  # N K-1 C
        gram = _gram(rows)
        amplitudes = torch.linalg.solve(gram, rows @ data)  # N K-1 T
        along = rows @ topographies.T  # N K-1 P
        residual_norms = 1 - (along * torch.linalg.solve(gram, along)).sum(1)
        crossed = (amplitudes @ data.mT) @ topographies.T
        explained = (amplitudes @ amplitudes.mT) @ along
        energy = self.energy[self.example] + (along * (explained - 2 * crossed)).sum(1)
        gain = variance * residual_norms.clamp_min(0)
        return 0.5 * (variance * energy.clamp_min(0) / (1 + gain) - self.n_times * gain.log1p())

    def _near(self, patches: Int[Tensor, "N K"]) -> Bool[Tensor, "N P"]:
        """Patches that are too near to one of these."""
        centres = self.dictionary.centres
        blocked = self.dictionary.near[centres[patches.clamp_min(0)]]  # N K S
        blocked = (blocked & (patches != EMPTY)[..., None]).any(1)
        return blocked[:, centres]

    def _draw_level(self, state: State, power: float) -> State:
        rows = self._rows(state.patches)
        moments = self.dictionary.moments[state.patches.clamp_min(0)]
        scale = self.levels[:, None] / moments[:, None]  # N G K
        scaled = rows[:, None] * scale[..., None]
        factor = torch.linalg.cholesky(_gram(scaled))
        products = scaled @ self.dictionary.data[self.example][:, None]
        explained = (
            torch.linalg.solve_triangular(factor, products, upper=False).square().sum((2, 3))
        )
        log_det = 2 * factor.diagonal(dim1=2, dim2=3).log().sum(2)
        evidence = 0.5 * (explained - self.n_times * log_det)
        level = self._draw(power * evidence)
        return State(state.patches, level, evidence.gather(1, level[:, None])[:, 0])

    def _draw(self, logits: Float[Tensor, "N M"]) -> Int[Tensor, " N"]:
        """Draw from categories by their distribution functions."""
        cumulated = torch.softmax(logits, dim=1).cumsum(1)
        threshold = self._uniform()[:, None] * cumulated[:, -1:]
        return torch.searchsorted(cumulated, threshold, right=True)[:, 0].clamp_max(
            logits.shape[1] - 1
        )

    def _uniform(self) -> Float[Tensor, " N"]:
        """The same numbers for every example."""
        uniform = torch.rand(self.n_chains, generator=self.rng, dtype=torch.float64)
        return uniform.repeat(self.n_examples)


def _gram(rows: Float[Tensor, "*N K C"]) -> Float[Tensor, "*N K K"]:
    gram = rows @ rows.mT
    return gram + torch.eye(gram.shape[-1]).to(gram)
