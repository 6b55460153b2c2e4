"""Structured posterior: how many patches, where, how large and strong, and through which skull."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.contracts import Assumptions, Batch, Objective, PosteriorModel
from deepesi.core.patches import small_linear
from deepesi.models.layers.amplitude_coordinates import (
    AmplitudeCoordinates,
    log_density_across,
    split,
)
from deepesi.models.layers.conditional_patches import sum_of
from deepesi.models.layers.patch_scores import (
    FLOOR,
    PatchScores,
    power_features,
    skull_features,
)
from deepesi.models.layers.patch_sequence import (
    PatchSequence,
    Recordings,
    greedy,
    look,
    skull_weights,
)
from deepesi.models.layers.scalar_flow import ScalarFlow
from deepesi.models.layers.sizes import check_sizes
from deepesi.models.posterior.configuration import (
    NONE,
    Configuration,
    of_batch,
    on_sources,
    profiles,
)
from deepesi.physics.head_inputs import (
    FixedOrientations,
    MeshNeighbours,
    NormalMoments,
    NormalTopographies,
    PatchPairs,
    PatchShares,
    Rank,
    SkullFilters,
    SourcePositions,
    SourceUnit,
    Whitener,
)

#: Signal power that is assumed at least, as a share of the power of the recording.
LEAST_SIGNAL = 0.1
#: Smallest prior variance of an amplitude, noise variance 1: silence has finite logarithms.
LEAST_STRENGTH = 1e-6
#: Distance over which a patch makes another one less likely, m.
NEAR = 0.015
#: About the number of independent patches on a head.
N_LOOKS = 400
#: Draws that are computed at once in torch, so that their arrays stay in fast memory.
AT_ONCE = 32
#: Least distance from the ends of the range of skulls, as a share, so that its logit is finite.
EDGE = 1e-3


class Known(NamedTuple):
    """What is computed once for a recording, for all of its draws."""

    recordings: Recordings
    features: Float[Tensor, "B F"]
    scores: Float[Tensor, "J B P"]
    slope: Float[Tensor, " B"]  # log-likelihood per explained power
    noise: Float[Tensor, " B"]  # standard deviation of noise and head errors
    power: Float[Tensor, " B"]


class Choice(NamedTuple):
    """Distribution of the next patch of ``N`` configurations."""

    log_odds: Float[Tensor, "N B P"]
    log_total: Float[Tensor, "N B 1"]  # logarithm of the sum of the odds
    mass: Float[Tensor, "N B P"]  # odds relative to the largest
    more: Float[Tensor, "N B"]  # log-odds that there is a next patch

    def drawn(self, uniform: Float[Tensor, "N B"]) -> Int[Tensor, "N B"]:
        """One of the patches, by a number between 0 and 1."""
        cumulated = self.mass.cumsum(2)
        below = cumulated < uniform[..., None] * cumulated[..., -1:]
        return below.sum(2).clamp_max(self.mass.shape[2] - 1)

    def log_probability(self, number: Int[Tensor, "N B"]) -> Float[Tensor, "N B"]:
        """Logarithm of the probability of a patch."""
        odds = self.log_odds.gather(2, number.clamp_min(0)[..., None])
        return (odds - self.log_total)[..., 0]


class StructuredPosterior(PosteriorModel):
    """Posterior of skull conductivity, number, sites, radii and moments of patches of cortex.

    Neural posterior estimation of what a simulation draws, in this order: the skull conductivity;
    the strongest patch, as one of all sites and radii; whether there is another one, and which,
    given the earlier ones; the moments of all patches, given the patches and the skull. Every
    probability starts from physics, and a network corrects it:

    - A patch has the log-likelihood of matched filters of what the earlier patches leave, with the
      amplitudes integrated out and topographies under the drawn skull (`PatchSequence`), divided
      by a learned error of the head model, plus `PatchScores`.
    - The moments are normal with the exact posterior mean and covariance; a flow (`ScalarFlow`)
      replaces the normal distribution along the time course of the mean, where errors of the head
      model act, and a learned scale across it.
    - The skull conductivity has a flow given the evidence of a few skulls.

    Trained by its exact negative log-likelihood; the objective (``loss``) only serves validation.
    No weight belongs to a channel or a source, so montage, head and source space are free. On a
    head of free orientation patches point along the normals. The samples in time of a window share
    everything but the moments.

    Args:
        n_components: Largest number of patches ``J``.
        hidden: Width of the networks.
        smallest: Smallest patch radius, m.
        largest: Largest patch radius, m.
        n_radii: Number of patch radii from smallest to largest.
        widest_skull: Largest skull conductivity divided by the nominal one. The smallest ratio is
            its inverse.
        n_skulls: Number of skull filters, odd, at least 3.
        nominal_skull: Skull conductivity of the nominal heads in training, S/m.
        n_draws: Number of draws in `forward`.

    Raises:
        ValueError: A size is not positive, there are fewer than 3 filters, or a range is not valid.

    Source: neural posterior estimation, Papamakarios & Murray 2016, arXiv:1605.06376, and Greenberg
    et al. 2019, arXiv:1905.07488; orthogonal matching pursuit for the order, Pati et al. 1993,
    doi:10.1109/ACSSC.1993.342465. Difference: the discrete part is enumerated, and networks only
    correct the evidence of physics.

    """

    bound_to_space = False

    def __init__(
        self,
        n_components: int = 3,
        hidden: int = 24,
        smallest: float = 0.010,
        largest: float = 0.025,
        n_radii: int = 4,
        widest_skull: float = 3.0,
        n_skulls: int = 3,
        nominal_skull: float = 0.01,
        n_draws: int = 64,
    ) -> None:
        super().__init__()
        sizes = {"n_components": n_components, "hidden": hidden, "n_radii": n_radii}
        check_sizes("StructuredPosterior", **sizes, n_draws=n_draws)
        if n_skulls < 3 or nominal_skull <= 0:
            raise ValueError(
                "StructuredPosterior: n_skulls must be 3 or more and nominal_skull above 0 S/m, "
                f"got n_skulls={n_skulls}, nominal_skull={nominal_skull}."
            )
        radii = (smallest, largest, n_radii)
        self.whitener, self.rank, self.unit = Whitener(), Rank(), SourceUnit()
        self.neighbours, self.positions = MeshNeighbours(), SourcePositions()
        self.directions, self.filters = FixedOrientations(), SkullFilters(widest_skull, n_skulls)
        self.topographies, self.moments = NormalTopographies(*radii), NormalMoments(*radii)
        self.pairs, self.shares = PatchPairs(*radii), PatchShares(*radii)
        self.head_inputs = (
            self.whitener,
            self.rank,
            self.unit,
            self.neighbours,
            self.positions,
            self.directions,
            self.filters,
            self.topographies,
            self.moments,
            self.pairs,
            self.shares,
        )
        self.n_components, self.n_radii, self.n_skulls = n_components, n_radii, n_skulls
        self.radii, self.log_widest = radii, math.log(widest_skull)
        self.nominal_skull, self.n_draws = nominal_skull, n_draws
        self.noise_axes = (3 * n_components, "times")
        n_powers = 2 + n_components
        count = n_powers + 2 * n_skulls
        n_context = count + n_components + 3
        self.log_error = nn.Linear(n_powers, 1)
        self.memory = nn.Parameter(torch.tensor(0.5))
        self.skull = ScalarFlow(count, hidden)
        self.scores = PatchScores(n_radii, n_components, count, hidden)
        self.sharpness = small_linear(count, n_components)
        self.crowding = nn.Parameter(torch.tensor(3.0))
        self.another = nn.Sequential(
            nn.Linear(n_context, hidden), nn.ReLU(), small_linear(hidden, 1)
        )
        self.along = ScalarFlow(n_context, hidden)
        self.across = small_linear(n_context, 1)
        nn.init.zeros_(self.log_error.weight)
        nn.init.constant_(self.log_error.bias, math.log(0.1))

    @property
    def assumptions(self) -> Assumptions:
        """What the model assumes before training."""
        low, high = (1e3 * radius for radius in self.radii[:2])
        return Assumptions(
            f"patches of {low:g}-{high:g} mm",
            f"up to {self.n_components}",
            "covariance and level",
            f"1/{math.exp(self.log_widest):.3g} to {math.exp(self.log_widest):.3g} of nominal",
        )

    def sample(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        noise: Float[Tensor, "N B Z"],
    ) -> Float[Tensor, "N B D T"]:
        """Dipole moments of drawn configurations."""
        configuration = self.sample_configurations(data, inputs, noise)
        directions = inputs[self.directions.key]
        shares = inputs[self.shares.key]
        by_patch = profiles(inputs[self.pairs.key], shares, directions.shape[0])
        return on_sources(configuration, by_patch, directions)

    def sample_configurations(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        noise: Float[Tensor, "N B Z"],
    ) -> Configuration:
        """Draw skull, patches and moments; args as in `sample`."""
        known = self._known(data, inputs)
        # An exported graph computes all draws that it is given at once.
        parts = (
            (noise,) if torch.compiler.is_compiling() else noise.split(max(1, AT_ONCE // len(data)))
        )
        drawn = [self._draw(known, inputs, part) for part in parts]
        return Configuration(*(torch.cat(values) for values in zip(*drawn, strict=True)))

    def _draw(
        self, known: Known, inputs: dict[str, Tensor], noise: Float[Tensor, "N B Z"]
    ) -> Configuration:
        white = known.recordings.white
        z = noise.unflatten(2, (3 * self.n_components, white.shape[2]))
        # The skull, J places and J - 1 decisions need one number each, moments one per sample.
        once, of_moments = z[:, :, : 2 * self.n_components, 0], z[:, :, 2 * self.n_components :]
        features = known.features.expand(noise.shape[0], -1, -1)
        log_skull = self._bounded(self.skull.from_noise(once[:, :, 0], features))
        sequence = self._sequence(known, log_skull)
        uniform = 0.5 * (1 + torch.erf(once / math.sqrt(2)))
        numbers: list[Int[Tensor, "N B"]] = []
        for step in range(self.n_components):
            choice = self._step(step, known, sequence, numbers, inputs)
            number = choice.drawn(uniform[:, :, 1 + step])
            if step > 0:
                there = uniform[:, :, self.n_components + step] < torch.sigmoid(choice.more)
                number = torch.where(there & (numbers[-1] != NONE), number, NONE)
            numbers.append(number)
            if step < self.n_components - 1:
                sequence.take(sequence.topography(number))
        patches = torch.stack(numbers, dim=2)
        coordinates, scale = self._amplitudes(known, sequence, patches, inputs)
        context, directions = self._context(known, coordinates, patches), coordinates.directions
        z_along, z_across = split(of_moments.to(directions), directions)
        single = self.along.from_noise(z_along.to(context), context).to(directions)
        across = self.across(context).exp() * z_across
        y = across + single[..., None] * directions
        moments = coordinates.amplitudes(y) * scale * (patches != NONE)[..., None]
        return Configuration(log_skull, patches, (moments * inputs[self.unit.key]).to(noise))

    def log_density(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        configuration: Configuration,
    ) -> Float[Tensor, "N B"]:
        """Logarithm of the density of configurations; moments are in units of `SourceUnit`."""
        return sum_of(
            self._log_densities(self._known(data, inputs), inputs, configuration).values()
        )

    def training_loss(
        self, batch: Batch, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Mean negative log-density of the simulated configurations; `objective` has no effect."""
        configuration = self.target(batch)
        known = self._known(batch.data, batch.inputs)
        parts = self._log_densities(known, batch.inputs, configuration)
        # A moment of a window has as many dimensions as samples, so that they do not outweigh all.
        parts["moments"] = parts["moments"] / batch.data.shape[2]
        losses = {name: -value.mean() for name, value in parts.items()}
        terms = {name: value.detach() for name, value in losses.items()}
        return {"loss": torch.stack(list(losses.values())).sum(), **terms}

    def target(self, batch: Batch) -> Configuration:
        """The configurations that a batch was simulated with, as far as the model has them."""
        radii = torch.linspace(*self.radii).to(batch.data)
        return of_batch(
            batch,
            batch.inputs[self.positions.key],
            batch.inputs[self.directions.key],
            radii,
            batch.inputs[self.moments.key],
            self.n_components,
            self.nominal_skull,
        )

    def _known(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Known:
        # Evidence is a difference of large numbers, so only training computes in single precision.
        dtype = data.dtype if self.training else torch.float64
        white, rank = (inputs[self.whitener.key] @ data).to(dtype), inputs[self.rank.key]
        power = white.square().sum(1).mean(1)
        strength = (power - rank).maximum(LEAST_SIGNAL * power) + LEAST_STRENGTH
        rows, filters = inputs[self.topographies.key], inputs[self.filters.key]
        recordings = look(white, rows.flatten(0, 1).to(dtype), filters.to(dtype), strength)
        with torch.no_grad():
            explained = greedy(recordings, self.n_components)
        powers = power_features(recordings, explained, rank).to(data.dtype)
        error = self.log_error(powers)[:, 0].exp() * power / rank
        frames = torch.ones_like(white[0, 0]).sum() ** self.memory.clamp(0, 1)
        slope = 0.5 * frames / (1 + frames * error)
        skulls = skull_features(explained, slope).to(data.dtype)
        features = torch.cat([powers, skulls], dim=1)
        middle = (self.n_skulls // 2) * (self.n_skulls + 1)
        energy = recordings.energies[:, middle] / recordings.squares[middle]
        log_moments = (inputs[self.moments.key] / inputs[self.unit.key])[self.n_radii // 2].log()
        scores = self.scores(
            energy.unflatten(1, (self.n_radii, -1)).to(data.dtype),
            power.to(data.dtype),
            log_moments,
            features,
            inputs[self.neighbours.key],
        )
        return Known(recordings, features, scores, slope, (1 + error).sqrt(), power)

    def _bounded(self, value: Tensor) -> Tensor:
        """From a real number to the logarithm of the ratio of skull conductivities."""
        return self.log_widest * torch.tanh(0.5 * value)

    def _sequence(self, known: Known, log_skull: Float[Tensor, "N B"]) -> PatchSequence:
        log_skull = log_skull.to(known.power)
        return PatchSequence(
            known.recordings, skull_weights(log_skull, self.log_widest, self.n_skulls)
        )

    def _step(
        self,
        step: int,
        known: Known,
        sequence: PatchSequence,
        earlier: list[Int[Tensor, "N B"]],
        inputs: dict[str, Tensor],
    ) -> Choice:
        """Distribution of the next patch, and whether there is one."""
        sharpness = (self.sharpness(known.features)[:, step].exp() * known.slope)[:, None]
        log_odds = sharpness * sequence.evidence() + known.scores[step]
        for number in earlier:
            near = self._near(number, inputs[self.positions.key])[:, :, None]
            log_odds = (log_odds.unflatten(2, (self.n_radii, -1)) - near).flatten(2)
        largest = log_odds.amax(2, keepdim=True)
        mass = (log_odds - largest).exp()
        log_total = largest + mass.sum(2, keepdim=True).log()
        # The evidence of another patch relative to that of none.
        prior = known.recordings.strength[:, None].log() * sharpness + math.log(N_LOOKS)
        rank = inputs[self.rank.key]
        own = [
            (log_total - prior)[..., 0].clamp(-10, 30) / 5,
            (sequence.remaining() / rank + FLOOR).log() / 3,
            largest[..., 0].clamp(-10, 30) / 5,
        ]
        features = self._with_step(known, torch.stack(own, dim=2).to(known.features), step)
        return Choice(log_odds, log_total, mass, self.another(features)[..., 0])

    def _with_step(self, known: Known, own: Float[Tensor, "N B 3"], step: int) -> Tensor:
        one_hot = torch.eye(self.n_components).to(own)[step].expand(*own.shape[:2], -1)
        features = known.features.expand(own.shape[0], -1, -1)
        return torch.cat([features, own, one_hot], dim=2)

    def _near(
        self, number: Int[Tensor, "N B"], positions: Float[Tensor, "S 3"]
    ) -> Float[Tensor, "N B S"]:
        """What the log-odds of a patch lose because another one is near."""
        # The exporter knows no remainder by a free size.
        sources = torch.arange(positions.shape[0], device=number.device).repeat(self.n_radii)
        centres = sources.index_select(0, number.clamp_min(0).flatten())
        centre = positions.index_select(0, centres)
        square = centre.square().sum(1)[:, None] + positions.square().sum(1)
        gaps = (square - 2 * centre @ positions.T).unflatten(0, number.shape)
        return self.crowding * (-0.5 * gaps / NEAR**2).exp() * (number != NONE)[..., None]

    def _amplitudes(
        self,
        known: Known,
        sequence: PatchSequence,
        patches: Int[Tensor, "N B J"],
        inputs: dict[str, Tensor],
    ) -> tuple[AmplitudeCoordinates, Float[Tensor, "N B J 1"]]:
        """Coordinates of the amplitudes of patches, and moments (source units) per amplitude."""
        numbers = patches.unbind(2)
        coordinates = AmplitudeCoordinates(
            torch.stack([sequence.topography(number) for number in numbers], dim=2),
            known.recordings.white,
            known.recordings.strength,
            known.noise,
        )
        unit = (inputs[self.moments.key] / inputs[self.unit.key]).flatten()
        moments = unit.index_select(0, patches.clamp_min(0).flatten()).unflatten(0, patches.shape)
        inverse = torch.stack([sequence.inverse_norm_of(number) for number in numbers], dim=2)
        return coordinates, (moments * inverse)[..., None]

    def _context(
        self, known: Known, coordinates: AmplitudeCoordinates, patches: Int[Tensor, "N B J"]
    ) -> Float[Tensor, "N B J F"]:
        """Context of the flow of each moment: its strength relative to the noise and the others."""
        size = coordinates.means.square().mean(3) / known.noise.square()[:, None]
        share = size / size.sum(2, keepdim=True).clamp_min(1e-6)
        count = (patches != NONE).sum(2, keepdim=True).expand_as(size) / self.n_components
        own = torch.stack([size.log1p() / 3, share, count.to(size)], dim=3).to(known.features)
        steps = [self._with_step(known, own[:, :, j], j) for j in range(self.n_components)]
        return torch.stack(steps, dim=2)

    def _log_densities(
        self, known: Known, inputs: dict[str, Tensor], configuration: Configuration
    ) -> dict[str, Float[Tensor, "N B"]]:
        """Logarithms of the densities of skull, patches and moments; the skull's is 0 if NaN."""
        log_skull, patches = configuration.log_skull, configuration.patches
        varies = log_skull.isfinite()
        ratio = (torch.where(varies, log_skull, 0) / self.log_widest).clamp(EDGE - 1, 1 - EDGE)
        features = known.features.expand(len(ratio), -1, -1)
        skull = self.skull.log_density(2 * torch.atanh(ratio), features)
        skull = skull - (0.5 * self.log_widest * (1 - ratio.square())).log()
        sequence = self._sequence(known, self.log_widest * ratio)
        of_patches = torch.zeros_like(skull)
        numbers: list[Int[Tensor, "N B"]] = []
        for step, number in enumerate(patches.unbind(2)):
            choice = self._step(step, known, sequence, numbers, inputs)
            chosen = choice.log_probability(number)
            there = number != NONE
            of_patches = of_patches + torch.where(there, chosen, 0)
            if step > 0:
                decided = functional.logsigmoid(torch.where(there, choice.more, -choice.more))
                of_patches = of_patches + torch.where(numbers[-1] != NONE, decided, 0)
            numbers.append(number)
            sequence.take(sequence.topography(number))
        moments = self._log_moments(known, sequence, configuration, inputs)
        return {"skull": torch.where(varies, skull, 0), "patches": of_patches, "moments": moments}

    def _log_moments(
        self,
        known: Known,
        sequence: PatchSequence,
        configuration: Configuration,
        inputs: dict[str, Tensor],
    ) -> Float[Tensor, "N B"]:
        patches = configuration.patches
        coordinates, scale = self._amplitudes(known, sequence, patches, inputs)
        n_times = configuration.moments.shape[3]
        amplitudes = configuration.moments.to(scale) / inputs[self.unit.key] / scale
        along, rest = split(coordinates.coordinates(amplitudes), coordinates.directions)
        context = self._context(known, coordinates, patches)
        density = self.along.log_density(along.to(context), context)
        density = density + log_density_across(rest, self.across(context)[..., 0])
        volume = n_times * (coordinates.log_volume() + scale[..., 0].log())
        return ((density - volume) * (patches != NONE)).sum(2)
