"""Draws of a structured posterior, corrected where the head is known, by sequential Monte Carlo."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepesi.models.layers.amplitude_coordinates import AmplitudeCoordinates
from deepesi.models.layers.conditional_patches import span, sum_of
from deepesi.models.layers.next_patch import Known
from deepesi.models.layers.patch_sequence import NONE
from deepesi.models.posterior.configuration import Configuration
from deepesi.models.posterior.structured import AT_ONCE, StructuredPosterior

#: Powers of the likelihood that the correction may begin with.
POWERS = torch.logspace(-2, 0, 21, dtype=torch.float64)


class Refined(NamedTuple):
    """Draws from the posterior under the true likelihood."""

    configuration: Configuration  # equal weight
    n_effective: Float[Tensor, " B"]  # effective number of draws in the worst step


def refine(
    model: StructuredPosterior,
    data: Float[Tensor, "B C T"],
    inputs: dict[str, Tensor],
    n: int,
    seed: int = 0,
    log_skull: float | None = None,
    n_steps: int = 6,
    min_distance: float = 0.03,
) -> Refined:
    """Draw, and correct the draws by the true likelihood.

    For heads whose nominal lead fields are correct except for the skull conductivity, such as a
    subject head. The posterior of the model is wider, since it was trained with wrong heads. So the
    draws get weights for a likelihood of small power, and the power then rises to 1 in steps. In
    each step the draws are weighted and drawn again by their weights, and every patch is drawn anew
    from its exact distribution given the others. The moments are integrated out; at the end they
    are drawn from their exact posterior. The first power is that with the largest effective number
    of draws.

    The prior: numbers of patches from 1 to the largest are equally likely, and so are all sites
    and radii with centres that are far enough apart, and the logarithm of the skull conductivity
    in the range of the model; amplitudes of unit topographies are normal with the variance that
    the model assumes.

    Args:
        model: A structured posterior; it is set to evaluation mode.
        data: Referenced data, `SensorArray.head_units`.
        inputs: Prepared head inputs.
        n: Number of draws.
        seed: Random seed of the draws.
        log_skull: Logarithm of the skull conductivity over that of the nominal head, where it is
            known; None: it is drawn, too.
        n_steps: Number of steps to the full likelihood, at least 1.
        min_distance: Smallest distance between two centres, m.

    Raises:
        ValueError: Fewer than one draw or step, or the patches of no draw of a recording are far
            enough apart.

    Source: sequential Monte Carlo samplers, Del Moral et al. 2006,
    doi:10.1111/j.1467-9868.2006.00553.x. Difference: the first distribution is a network.

    """
    if n < 1 or n_steps < 1:
        raise ValueError(
            "refine: the numbers of draws and steps must be 1 or more, "
            f"got n={n}, n_steps={n_steps}."
        )
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return _Correction(model.eval(), data, inputs, rng, log_skull, min_distance).run(n, n_steps)


class _Correction:
    """The steps of `refine` for recordings."""

    def __init__(
        self,
        model: StructuredPosterior,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        rng: torch.Generator,
        log_skull: float | None,
        min_distance: float,
    ) -> None:
        self.model, self.data, self.inputs, self.rng = model, data, inputs, rng
        self.known: Known = model._known(data, inputs)
        self.log_skull = log_skull
        positions = self.known.positions
        self.near = torch.cdist(positions, positions) < min_distance
        n_patches, largest = len(self.known.recordings.rows), model.n_components
        counts = torch.arange(largest + 1)
        ways = [math.comb(largest, k) for k in counts.tolist()]
        #: Of every number of patches: ways to put them into the slots, which are equally likely.
        self.log_ways = torch.tensor(ways, dtype=torch.float64).log()
        self.log_prior = -self.log_ways - counts * math.log(n_patches)
        self.log_prior[0] = -math.inf

    def run(self, n: int, n_steps: int) -> Refined:
        """Draw from the model, then raise the power of the likelihood."""
        skull = self._prior_skull(n)
        size = int(self.model.noise_size(self.data, self.inputs))
        noise = torch.randn((n, len(self.data), size), generator=self.rng).to(self.data)
        drawn = self.model.sample_configurations(self.data, self.inputs, noise, skull)
        patches = drawn.patches
        # The slots of the model are filled from the first on: one of the ways.
        prior = self._log_prior(patches) + self.log_ways[_count(patches)]
        proposal = self._in_parts(self._log_proposal, skull, patches, drawn.moments)
        evidence = self._in_parts(self._log_evidence, skull, patches)
        log_weights = POWERS[:, None, None] * evidence + prior - proposal
        if prior.isneginf().all(0).any():
            raise ValueError(
                f"refine: in none of the {n} draws of a recording are the patches far enough "
                "apart. Draw more (n), or allow a smaller distance (min_distance)."
            )
        effective = _n_effective(log_weights)
        first = effective.argmax(0)
        start, least = POWERS[first], effective.amax(0)
        log_weights = log_weights.gather(0, first[None, None].expand(1, *skull.shape))[0]
        for step in range(n_steps + 1):
            power = start ** (1 - step / n_steps)
            rows = self._rows(log_weights)
            skull, patches = skull.gather(0, rows), _rows_of(patches, rows)
            order = torch.rand(patches.shape, generator=self.rng).argsort(2)
            patches = patches.gather(2, order)
            skull, patches, evidence = self._moved(skull, patches, power)
            if step < n_steps:
                log_weights = (start ** (1 - (step + 1) / n_steps) - power) * evidence
                least = least.minimum(_n_effective(log_weights))
        moments = self._in_parts(self._moments, skull, patches)
        # In units of the moments that are as strong as the noise.
        unit = self.inputs[self.model.moments.key].flatten()[patches.clamp_min(0)]
        strength = (moments / unit[..., None]).square().sum(3)
        order = strength.masked_fill(patches == NONE, -1).argsort(2, descending=True)
        moments = moments.gather(2, order[..., None].expand_as(moments)).to(self.data)
        return Refined(Configuration(skull, patches.gather(2, order), moments), least)

    def _prior_skull(self, n: int) -> Float[Tensor, "N B"]:
        if self.log_skull is not None:
            return torch.full((n, len(self.data)), self.log_skull).to(self.data)
        uniform = torch.rand((n, len(self.data)), generator=self.rng).to(self.data)
        return self.model.log_widest * (2 * uniform - 1)

    def _in_parts(self, function: Callable[..., Tensor], *values: Tensor) -> Tensor:
        """Results for a few draws at a time, so that arrays over patches stay small."""
        size = max(1, AT_ONCE // len(self.data))
        parts = zip(*(value.split(size) for value in values), strict=True)
        return torch.cat([function(*part) for part in parts])

    def _log_proposal(self, skull: Tensor, patches: Tensor, moments: Tensor) -> Tensor:
        configuration = Configuration(skull, patches, moments)
        return self.model._log_densities(self.known, self.inputs, configuration)["patches"].double()

    def _log_prior(self, patches: Int[Tensor, "N B J"]) -> Float[Tensor, "N B"]:
        """Of patches in their slots; minus infinity if two are too near to each other."""
        value = self.log_prior[_count(patches)]
        for slot in range(1, patches.shape[2]):
            one = patches[:, :, slot, None]
            near = self.near[self._site(one), self._site(patches[:, :, :slot])]
            both = (one != NONE) & (patches[:, :, :slot] != NONE)
            value = value.masked_fill((near & both).any(2), -math.inf)
        return value

    def _site(self, patches: Tensor) -> Tensor:
        return patches.clamp_min(0) % len(self.near)

    def _log_evidence(
        self, skull: Float[Tensor, "N B"], patches: Int[Tensor, "N B J"]
    ) -> Float[Tensor, "N B"]:
        """Log-likelihood of patches relative to none, their amplitudes integrated out."""
        white, strength = self.known.recordings.white, self.known.recordings.strength
        rows = self._topographies(skull, patches) * strength.sqrt()[:, None, None]
        vectors, log_det = span(rows.flatten(0, 1))
        explained = (vectors.unflatten(0, rows.shape[:2]) @ white).square().sum((2, 3))
        return 0.5 * (explained - white.shape[2] * log_det.unflatten(0, rows.shape[:2]))

    def _topographies(self, skull: Tensor, patches: Tensor) -> Float[Tensor, "N B J C"]:
        sequence = self.model._sequence(self.known, skull)
        return torch.stack([sequence.topography(number) for number in patches.unbind(2)], dim=2)

    def _moved(
        self, skull: Tensor, patches: Tensor, power: Float[Tensor, " B"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw every slot anew, then propose another skull; also the log-evidence."""
        uniform = torch.rand(patches.shape, generator=self.rng, dtype=torch.float64)
        for slot in range(patches.shape[2]):
            patches = self._in_parts(
                functools.partial(self._redrawn, slot=slot, power=power),
                skull,
                patches,
                uniform[:, :, slot],
            )
        evidence = self._in_parts(self._log_evidence, skull, patches)
        if self.log_skull is not None:
            return skull, patches, evidence
        other = self._prior_skull(len(skull))
        proposed = self._in_parts(self._log_evidence, other, patches)
        limit = torch.rand(skull.shape, generator=self.rng, dtype=torch.float64).log()
        accepted = limit < power * (proposed - evidence)
        return (
            torch.where(accepted, other, skull),
            patches,
            torch.where(accepted, proposed, evidence),
        )

    def _redrawn(
        self, skull: Tensor, patches: Tensor, uniform: Tensor, slot: int, power: Tensor
    ) -> Int[Tensor, "N B J"]:
        """Draw one slot from its exact distribution, over every patch and over none."""
        others = [number for j, number in enumerate(patches.unbind(2)) if j != slot]
        sequence = self.model._sequence(self.known, skull)
        for number in others:
            sequence.take(sequence.topography(number))
        recordings = self.known.recordings
        gain = sequence.evidence().double() - recordings.strength.log()[:, None]
        log_odds = 0.5 * recordings.white.shape[2] * power[:, None] * gain
        if others:
            near = sum_of(self.near[self._site(o)] & (o != NONE)[..., None] for o in others) > 0
            log_odds = log_odds.unflatten(2, (-1, len(self.near)))
            log_odds = log_odds.masked_fill(near[:, :, None], -math.inf).flatten(2)
        count = _count(torch.stack([*others, torch.full_like(patches[:, :, 0], NONE)], dim=2))
        log_odds = torch.cat(
            [log_odds + self.log_prior[count + 1, None], self.log_prior[count, None]], dim=2
        )
        cumulated = torch.softmax(log_odds, dim=2).cumsum(2)
        drawn = (cumulated < uniform[..., None] * cumulated[..., -1:]).sum(2)
        new = torch.where(drawn == log_odds.shape[2] - 1, NONE, drawn)
        return torch.stack([*others[:slot], new, *others[slot:]], dim=2)

    def _rows(self, log_weights: Float[Tensor, "N B"]) -> Int[Tensor, "N B"]:
        """Numbers of draws by their weights: systematic resampling."""
        n, n_recordings = log_weights.shape
        cumulated = torch.softmax(log_weights, dim=0).cumsum(0)
        offset = torch.rand((1, n_recordings), generator=self.rng, dtype=torch.float64)
        wanted = (torch.arange(n)[:, None] + offset) / n * cumulated[-1]
        rows = torch.searchsorted(cumulated.T.contiguous(), wanted.T.contiguous())
        return rows.T.clamp_max(n - 1)

    def _moments(self, skull: Tensor, patches: Tensor) -> Float[Tensor, "N B J T"]:
        """Moments from their exact posterior, A m; 0 without a patch."""
        recordings = self.known.recordings
        sequence = self.model._sequence(self.known, skull)
        _, scale = self.model._amplitudes(self.known, sequence, patches, self.inputs)
        coordinates = AmplitudeCoordinates(
            self._topographies(skull, patches),
            recordings.white,
            recordings.strength,
            torch.ones_like(recordings.strength),
        )
        shape = (*patches.shape, recordings.white.shape[2])
        noise = torch.randn(shape, generator=self.rng, dtype=torch.float64)
        return coordinates.amplitudes(noise) * scale * (patches != NONE)[..., None]


def _count(patches: Int[Tensor, "N B J"]) -> Int[Tensor, "N B"]:
    return (patches != NONE).sum(2)


def _n_effective(log_weights: Float[Tensor, "*G N B"]) -> Float[Tensor, "*G B"]:
    """One over the sum of the squared weights."""
    return 1 / torch.softmax(log_weights, dim=-2).square().sum(-2)


def _rows_of(values: Int[Tensor, "N B J"], rows: Int[Tensor, "N B"]) -> Int[Tensor, "N B J"]:
    return values.gather(0, rows[..., None].expand(-1, -1, values.shape[2]))
