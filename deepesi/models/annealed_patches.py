"""Annealed patches: several sources, each drawn from its conditional given the others."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepesi.core.contracts import Assumptions, Estimate, InverseModel
from deepesi.models.layers.conditional_patches import (
    Conditional,
    Patches,
    Slots,
    chosen,
    conditional,
    draw,
    span,
)
from deepesi.models.layers.mismatch_noise import mismatch_noise
from deepesi.models.layers.oriented_patches import moment_matrix, quadratic_form
from deepesi.models.layers.patch_moments import Spread, relative_power
from deepesi.models.layers.sizes import check_sizes
from deepesi.physics.head_inputs import (
    FixedOrientations,
    LooseMoments,
    LooseTopographies,
    NormalMoments,
    NormalTopographies,
    PatchPairs,
    PatchShares,
    Rank,
    SourcePositions,
    SourceUnit,
    Whitener,
)

#: Prior standard deviations of a moment: smallest and largest in units of `SourceUnit`, number.
LEVELS = (0.3, 300.0, 16)
#: Smallest mean square of a moment, in units of the noise.
SMALLEST = 1e-6


class Chains(NamedTuple):
    """State of ``N`` chains; those of an example follow each other."""

    slots: Slots
    level: Float[Tensor, " N"]  # prior standard deviation of a moment
    evidence: Float[Tensor, " N"]  # log-likelihood relative to noise alone
    weight: Float[Tensor, " N"]  # logarithm of the weight of the chain

    @property
    def rows(self) -> Float[Tensor, "N J C"]:
        """Topographies times the standard deviations of their amplitudes."""
        return self.slots.topographies * (self.level[:, None] / self.slots.moments)[..., None]


class AnnealedPatches(InverseModel):
    """Posterior of several patches, from a few annealed chains of Gibbs sampling.

    A configuration has up to ``J`` patches. A step takes one of them away and computes, for every
    patch of the dictionary, the evidence of the recording with this patch and the others, its
    moments integrated out. Then it draws one of these patches, or none. In the first sweeps the
    evidence counts less, so that the chains find their way; the last sweeps give the estimate: the
    mean of the conditional posteriors of all patches, not only of those that were drawn. Chains
    count by the weights of annealed importance sampling.

    The dictionary holds patches along the normals of the head and patches of an orientation of
    their own, as in `LooseMatchedFilter`. Part of the power of the recording counts as noise,
    because no lead field is exact. The random numbers are fixed, so the estimate is a function of
    the recording. It changes sign with it, and a window of any length is inverted as a whole.

    Four weights are learned, by the last sweeps only; all else is physics.

    Args:
        n_components: Largest number of patches ``J``.
        n_chains: Number of chains.
        n_annealed: Sweeps in which the evidence counts less.
        n_kept: Sweeps after them, which give the estimate.
        smallest: Smallest patch radius, m.
        largest: Largest patch radius, m.
        n_radii: Number of patch radii from smallest to largest, of each kind.
        loose: Prior variance of the moment of a patch along each tangent of the cortex, relative
            to that along its normal.
        min_distance: Smallest distance between two centres, m.
        mismatch: Initial share of the power of a recording that counts as noise.
        one_source: Initial prior probability of a single patch.
        seed: Seed of the fixed random numbers.

    Raises:
        ValueError: A size is not positive, a share is not between 0 and 1, or the radii are out of
            order.

    Source: own method, the sampler of `deepesi.baselines.bayes_patches` made short, deterministic
    and exportable. Collapsed Gibbs sampling: Liu 1994, doi:10.1080/01621459.1994.10476829;
    annealed importance sampling: Neal 2001, doi:10.1023/A:1008923215028; averages of conditionals:
    Gelfand & Smith 1990, doi:10.1080/01621459.1990.10476213.

    """

    bound_to_space = False
    uniform: Tensor

    def __init__(
        self,
        n_components: int = 3,
        n_chains: int = 4,
        n_annealed: int = 6,
        n_kept: int = 2,
        smallest: float = 0.010,
        largest: float = 0.025,
        n_radii: int = 4,
        loose: float = 0.25,
        min_distance: float = 0.03,
        mismatch: float = 0.05,
        one_source: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(
            "AnnealedPatches",
            n_components=n_components,
            n_chains=n_chains,
            n_annealed=n_annealed,
            n_kept=n_kept,
            n_radii=n_radii,
        )
        if not (0 < mismatch < 1 and 0 < one_source < 1):
            raise ValueError(
                "AnnealedPatches: mismatch and one_source must be between 0 and 1, got "
                f"{mismatch} and {one_source}."
            )
        radii = (smallest, largest, n_radii)
        self.whitener, self.rank, self.unit = Whitener(), Rank(), SourceUnit()
        self.positions, self.directions = SourcePositions(), FixedOrientations()
        self.normal = NormalTopographies(*radii)
        self.normal_moments = NormalMoments(*radii)
        self.topographies = LooseTopographies(*radii, loose)
        self.moments = LooseMoments(*radii, loose)
        self.pairs, self.shares = PatchPairs(*radii), PatchShares(*radii)
        self.head_inputs = (
            self.whitener,
            self.rank,
            self.unit,
            self.positions,
            self.directions,
            self.normal,
            self.normal_moments,
            self.topographies,
            self.moments,
            self.pairs,
            self.shares,
        )
        self.n_components, self.n_chains, self.n_radii = n_components, n_chains, n_radii
        self.n_annealed, self.n_kept, self.min_distance = n_annealed, n_kept, min_distance
        self.assumed_sources = f"patches of {1e3 * smallest:g}-{1e3 * largest:g} mm"
        self.log_mismatch = nn.Parameter(torch.tensor(math.log(mismatch)))
        self.log_own = nn.Parameter(torch.tensor(0.0))  # of patches of any orientation
        self.log_several = nn.Parameter(torch.tensor(math.log(1 / one_source - 1)))
        self.log_gate = nn.Parameter(torch.tensor(0.0))
        rng = torch.Generator().manual_seed(seed)
        uniform = torch.rand(n_annealed + n_kept, n_components + 1, n_chains, generator=rng)
        self.register_buffer("uniform", uniform.double(), persistent=False)

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the model before training."""
        return Assumptions(
            self.assumed_sources, f"up to {self.n_components}", "covariance and level", "nominal"
        )

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Whiten the data, run the chains, average their conditionals."""
        recording = (inputs[self.whitener.key] @ data).double()
        noise = mismatch_noise(recording, inputs[self.rank.key].double(), self.log_mismatch)
        white = (recording / noise[:, None, None]).repeat_interleave(self.n_chains, 0)
        unit = inputs[self.unit.key].double()
        patches = Patches.of(
            inputs[self.normal.key].double(),
            inputs[self.topographies.key].double(),
            inputs[self.normal_moments.key].double() / unit,
            inputs[self.moments.key].double() / unit,
        )
        positions = inputs[self.positions.key].double()
        chains = self._start(white, patches)
        for sweep in range(self.n_annealed):
            before, power = (((sweep + n) / self.n_annealed) ** 2 for n in (0, 1))
            chains = chains._replace(weight=chains.weight + (power - before) * chains.evidence)
            # Only the kept sweeps learn: a draw has no gradient.
            chains, _ = self._sweep(chains, patches, positions, white.detach(), sweep, power)
        sums = []
        for sweep in range(self.n_annealed, self.n_annealed + self.n_kept):
            chains, parts = self._sweep(chains, patches, positions, white, sweep, 1.0)
            sums.extend(parts)
        weights = torch.softmax(chains.weight.unflatten(0, (-1, self.n_chains)), dim=1)
        return self._estimate(sums, weights / self.n_kept, noise * unit, inputs, data.dtype)

    def _start(self, white: Float[Tensor, "N C T"], patches: Patches) -> Chains:
        n, c = white.shape[:2]
        empty = Slots(
            white.new_zeros(n, self.n_components, c),
            white.new_ones(n, self.n_components),
            torch.full((n, self.n_components), -1, device=white.device),
        )
        zeros = white.new_zeros(n)
        return Chains(empty, zeros + math.sqrt(LEVELS[0] * LEVELS[1]), zeros, zeros)

    def _sweep(
        self,
        chains: Chains,
        patches: Patches,
        positions: Float[Tensor, "S 3"],
        white: Float[Tensor, "N C T"],
        sweep: int,
        power: float,
    ) -> tuple[Chains, list["Part"]]:
        """Draw every slot and the level anew; also the conditional posterior of every slot."""
        parts = []
        for slot in range(self.n_components):
            others = chains._replace(slots=chains.slots.without(slot))
            fit = conditional(patches, others.rows, white, chains.level)
            prior = self._prior(others.slots, positions, patches)
            kinds, none = prior if power == 1 else (value.detach() for value in prior)
            logits = torch.cat([(power * fit.evidence + kinds).flatten(1), none[:, None]], dim=1)
            number, shares = draw(logits, self._uniform(sweep, slot, chains))
            patch = chosen(patches, fit, number)
            chains = chains._replace(slots=chains.slots.with_patch(slot, patch))
            if power == 1:
                shares = shares[:, :-1].unflatten(1, fit.evidence.shape[1:])
                parts.append(part_of(patches, fit, shares))
        return self._draw_level(chains, white, sweep, power), parts

    def _prior(
        self, others: Slots, positions: Float[Tensor, "S 3"], patches: Patches
    ) -> tuple[Float[Tensor, "N K S"], Float[Tensor, " N"]]:
        """Logarithmic prior of one more patch, and of none, given the others."""
        taken = others.centres >= 0
        blocked = torch.zeros_like(positions[:, 0]).expand(taken.shape[0], -1)
        for centre, there in zip(others.centres.unbind(1), taken.unbind(1), strict=True):
            gaps = positions.index_select(0, centre.clamp_min(0))[:, None] - positions
            near = (gaps.square().sum(2) < self.min_distance**2) & there[:, None]
            blocked = blocked.masked_fill(near, -math.inf)
        kind = torch.stack([torch.zeros_like(self.log_own), self.log_own])
        kind = torch.log_softmax(kind, dim=0) - math.log(self.n_radii)
        n_sources = torch.ones_like(positions[:, 0]).sum()
        by_patch = kind.repeat_interleave(self.n_radii)[:, None] - n_sources.log()
        counts = self._log_counts()
        number = taken.sum(1)
        one_more = counts.index_select(0, number + 1)[:, None, None] + by_patch
        return one_more + blocked[:, None], counts.index_select(0, number)

    def _log_counts(self) -> Float[Tensor, " M"]:
        """Prior of a set of filled slots, by their number from 0."""
        n = self.n_components
        several = self.log_several.double() - math.log(max(n - 1, 1))
        log_odds = torch.cat([several.new_zeros(1), several.expand(n - 1)])
        log_odds = torch.cat([log_odds.new_full((1,), -math.inf), torch.log_softmax(log_odds, 0)])
        ways = [math.log(math.comb(n, number)) for number in range(n + 1)]
        return log_odds - torch.tensor(ways, dtype=torch.float64, device=log_odds.device)

    def _draw_level(
        self, chains: Chains, white: Float[Tensor, "N C T"], sweep: int, power: float
    ) -> Chains:
        low, high, n_levels = LEVELS
        levels = [low * (high / low) ** (n / (n_levels - 1)) for n in range(n_levels)]
        grid = torch.tensor(levels, dtype=white.dtype, device=white.device)
        unit = chains.slots.topographies / chains.slots.moments[..., None]
        rows = grid[:, None, None] * unit[:, None]
        vectors, log_det = span(rows.flatten(0, 1))
        explained = vectors.unflatten(0, (-1, n_levels)) @ white[:, None]
        log_det = log_det.unflatten(0, (-1, n_levels))
        evidence = 0.5 * (explained.square().sum((2, 3)) - white.shape[2] * log_det)
        uniform = self._uniform(sweep, self.n_components, chains)
        number, _ = draw(power * evidence, uniform)
        return chains._replace(
            level=grid.index_select(0, number),
            evidence=evidence.gather(1, number[:, None])[:, 0].detach(),
        )

    def _uniform(self, sweep: int, step: int, chains: Chains) -> Float[Tensor, " N"]:
        """The same numbers for every example."""
        weights = chains.weight.unflatten(0, (-1, self.n_chains))
        return self.uniform[sweep, step].expand_as(weights).flatten()

    def _estimate(
        self,
        parts: list["Part"],
        weights: Float[Tensor, "B M"],
        unit: Float[Tensor, " B"],
        inputs: dict[str, Tensor],
        dtype: torch.dtype,
    ) -> Estimate:
        """Average the parts over chains and spread them over the sources."""
        spread = Spread(
            inputs[self.pairs.key],
            inputs[self.shares.key].double(),
            inputs[self.directions.key].double(),
        )
        along, *own = (self._averaged(v, weights, 1) for v in add([p.means for p in parts]))
        straight, turned = (self._averaged(v, weights, -3) for v in add([p.powers for p in parts]))
        mean = self.log_gate.exp() * spread.means(along, own)
        of_means, variance = spread.powers(straight, turned)
        power = of_means * relative_power(mean) + variance
        std = (power - mean.square()).clamp_min(SMALLEST + 0.01 * power).sqrt()
        return Estimate(
            *(
                (unit[:, None, None] * values.flatten(0, 1).permute(2, 0, 1)).to(dtype)
                for values in (mean, std)
            )
        )

    def _averaged(self, values: Tensor, weights: Float[Tensor, "B M"], axis: int) -> Tensor:
        """Mean over the chains of an example, which lie along an axis."""
        axis = axis % values.ndim
        split = values.unflatten(axis, (-1, self.n_chains))
        shape = [1] * split.ndim
        shape[axis : axis + 2] = [-1, self.n_chains]
        return (split * weights.reshape(shape)).sum(axis + 1)


class Part(NamedTuple):
    """Conditional posterior of one slot over all patches."""

    means: list[Float[Tensor, "T N K S"]]  # along the normals, and components of the others
    powers: list[Tensor]  # 2 N K S and 2 O N K S: mean squares of means, and variances


def part_of(patches: Patches, fit: Conditional, shares: Float[Tensor, "N K S"]) -> Part:
    """Moments of all patches, times their probabilities."""
    k, n_times = patches.normal.shape[0], fit.normal.shape[0]
    turned = (patches.loose_moments[:, :, None] * fit.axes).sum(1)
    mean = shares * fit.shrinkage
    rows = [axis * row for axis, row in zip(fit.axes.unbind(), fit.loose, strict=True)]
    amplitude = mean[:, k:] * torch.stack(rows).sum(0)
    means = [mean[:, :k] * patches.normal_moments * fit.normal, *(t * amplitude for t in turned)]
    energy = torch.cat(
        [
            fit.normal.square().sum(0),
            quadratic_form(moment_matrix(fit.loose), fit.axes),
        ],
        dim=1,
    )
    square = torch.stack([mean * fit.shrinkage * energy / n_times, mean])
    powers = [
        square[:, :, :k] * patches.normal_moments.square(),
        square[:, None, :, k:] * turned.square(),
    ]
    return Part(means, powers)


def add(lists: list[list[Tensor]]) -> list[Tensor]:
    """Sums of the elements of equal number."""
    return [torch.stack(values).sum(0) for values in zip(*lists, strict=True)]
