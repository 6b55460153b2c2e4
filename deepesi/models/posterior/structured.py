"""Structured posterior: number, sites, sizes and moments of patches, and skull conductivity."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.batch import Batch
from deepesi.core.contracts import Assumptions, Objective, PosteriorModel
from deepesi.core.precision import in_full_precision
from deepesi.core.quantities import summed_power
from deepesi.models.layers.amplitude_coordinates import AmplitudeCoordinates
from deepesi.models.layers.conditional_patches import sum_of
from deepesi.models.layers.mismatch_noise import signal_power
from deepesi.models.layers.moment_flow import MomentFlow
from deepesi.models.layers.next_patch import Known, NextPatch
from deepesi.models.layers.patch_scores import PatchScores, power_features, skull_features
from deepesi.models.layers.patch_sequence import (
    NONE,
    PatchSequence,
    greedy,
    matched_filters,
    pairs_of,
    skull_weights,
)
from deepesi.models.layers.scalar_flow import ScalarFlow
from deepesi.models.layers.sizes import check_sizes
from deepesi.models.posterior.configuration import Configuration, of_batch, on_sources
from deepesi.physics.head_inputs import (
    FixedOrientations,
    MemberShares,
    MeshNeighbours,
    NormalMoments,
    NormalTopographies,
    PatchMembers,
    Rank,
    SkullFilters,
    SourcePositions,
    SourceUnit,
    Whitener,
)

#: Draws that are computed at once in torch, so that their arrays stay in fast memory.
AT_ONCE = 32
#: Least distance from the ends of the range of skulls, as a share, so that its logit is finite.
EDGE = 1e-3


class StructuredPosterior(PosteriorModel):
    """Posterior of skull conductivity, number, sites, radii and moments of patches of cortex.

    Neural posterior estimation of what a simulation draws, in this order: the skull conductivity;
    the strongest patch, as one of all sites and radii; whether there is another one, and which,
    given the earlier ones; the moments of all patches, given the patches and the skull. Every
    probability starts from physics, and a network corrects it:

    - A patch has the log-likelihood of matched filters of the residual of the earlier patches,
      with the amplitudes integrated out and topographies under the drawn skull (`PatchSequence`),
      divided by a learned error of the head model, plus `PatchScores`.
    - The moments are normal with the exact posterior mean and covariance; a flow (`ScalarFlow`)
      replaces the normal distribution along the time course of the mean, where errors of the head
      model act, and a learned scale across it.
    - The skull conductivity has a flow given the evidence of a few skulls.

    Trained by its exact negative log-likelihood; the objective (``loss``) has no effect.
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
            its inverse. In training, skulls outside this range count as its ends.
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
    has_density = True

    def __init__(
        self,
        n_components: int = 3,
        hidden: int = 24,
        smallest: float = 0.010,
        largest: float = 0.025,
        n_radii: int = 4,
        widest_skull: float = 3.4,
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
        self.members, self.shares = PatchMembers(*radii), MemberShares(*radii)
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
            self.members,
            self.shares,
        )
        self.n_components, self.n_radii, self.n_skulls = n_components, n_radii, n_skulls
        self.radii, self.log_widest = radii, math.log(widest_skull)
        self.nominal_skull, self.n_draws = nominal_skull, n_draws
        self.noise_axes = (3 * n_components, "times")
        n_powers = 2 + n_components
        count = n_powers + 2 * n_skulls
        self.log_error = nn.Linear(n_powers, 1)
        self.memory = nn.Parameter(torch.tensor(0.5))
        self.skull = ScalarFlow(count, hidden)
        self.scores = PatchScores(n_radii, n_components, count, hidden)
        self.next_patch = NextPatch(n_components, count, hidden)
        self.moment_flow = MomentFlow(n_components, count, hidden)
        nn.init.zeros_(self.log_error.weight)
        nn.init.constant_(self.log_error.bias, math.log(0.1))

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the model before training."""
        low, high = (1e3 * radius for radius in self.radii[:2])
        return Assumptions(
            f"patches of {low:g}-{high:g} mm",
            f"up to {self.n_components}",
            "covariance and level",
            f"1/{math.exp(self.log_widest):.3g} to {math.exp(self.log_widest):.3g} of nominal",
        )

    @in_full_precision
    def sample(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        noise: Float[Tensor, "N B Z"],
    ) -> Float[Tensor, "N B D T"]:
        """Dipole moments of drawn configurations."""
        configuration = self.sample_configurations(data, inputs, noise)
        return on_sources(
            configuration,
            inputs[self.members.key],
            inputs[self.shares.key],
            inputs[self.directions.key],
        )

    @in_full_precision
    def sample_configurations(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        noise: Float[Tensor, "N B Z"],
        log_skull: Float[Tensor, "N B"] | None = None,
    ) -> Configuration:
        """Draw skull, patches and moments; args as in `sample`, and skulls to draw the others for.

        ``log_skull`` is the logarithm of the ratio to the nominal conductivity; None: it is drawn.
        """
        known = self._known(data, inputs)
        if torch.compiler.is_compiling():  # an exported graph has its own parts
            return self._draw(known, inputs, noise, log_skull)
        size = max(1, AT_ONCE // len(data))
        parts = noise.split(size)
        skulls = [None] * len(parts) if log_skull is None else log_skull.split(size)
        drawn = [self._draw(known, inputs, *part) for part in zip(parts, skulls, strict=True)]
        return Configuration(*(torch.cat(values) for values in zip(*drawn, strict=True)))

    def _draw(
        self,
        known: Known,
        inputs: dict[str, Tensor],
        noise: Float[Tensor, "N B Z"],
        log_skull: Float[Tensor, "N B"] | None,
    ) -> Configuration:
        white = known.recordings.white
        z = noise.unflatten(2, (3 * self.n_components, white.shape[2]))
        # One number each for the skull, J sites and J - 1 decisions; for moments one per sample.
        once, of_moments = z[:, :, : 2 * self.n_components, 0], z[:, :, 2 * self.n_components :]
        if log_skull is None:
            features = known.features.expand(noise.shape[0], -1, -1)
            log_skull = self._bounded(self.skull.from_noise(once[:, :, 0], features))
        sequence = self._sequence(known, log_skull)
        uniform = 0.5 * (1 + torch.erf(once / math.sqrt(2)))
        numbers: list[Int[Tensor, "N B"]] = []
        for step in range(self.n_components):
            choice = self.next_patch(step, known, sequence, numbers)
            number = choice.drawn(uniform[:, :, 1 + step])
            if step > 0:
                there = uniform[:, :, self.n_components + step] < torch.sigmoid(choice.more)
                number = torch.where(there & (numbers[-1] != NONE), number, NONE)
            numbers.append(number)
            if step < self.n_components - 1:
                sequence.take(sequence.topography(number))
        patches = torch.stack(numbers, dim=2)
        coordinates, scale = self._amplitudes(known, sequence, patches, inputs)
        there = patches != NONE
        drawn = self.moment_flow.draw(coordinates, known.features, there, of_moments)
        return Configuration(log_skull, patches, (drawn * scale).to(noise))

    def log_density(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        configuration: Configuration,
    ) -> Float[Tensor, "N B"]:
        """Logarithm of the density of configurations; moments are in units of `SourceUnit`."""
        return sum_of(self.log_densities(data, inputs, configuration).values())

    @in_full_precision
    def log_densities(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        configuration: Configuration,
    ) -> dict[str, Float[Tensor, "N B"]]:
        """The parts of `log_density`: skull, patches given the skull, moments given both."""
        return self._log_densities(self._known(data, inputs), inputs, configuration)

    def training_loss(
        self, batch: Batch, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Mean negative log-density of the simulated configurations; `objective` has no effect."""
        configuration = self.target(batch)
        parts = self.log_densities(batch.data, batch.inputs, configuration)
        # A moment of a window has as many dimensions as samples, so that they do not outweigh all.
        parts["moments"] = parts["moments"] / batch.data.shape[2]
        losses = {name: -value.mean() for name, value in parts.items()}
        terms = {name: value.detach() for name, value in losses.items()}
        return {"loss": torch.stack(list(losses.values())).sum(), **terms}

    def target(self, batch: Batch) -> Configuration:
        """The simulated configurations of a batch, reduced to what the model can describe."""
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
        power = summed_power(white)
        strength = signal_power(power, rank)
        rows, filters = inputs[self.topographies.key], inputs[self.filters.key]
        recordings = matched_filters(
            white, rows.flatten(0, 1).to(dtype), filters.to(dtype), strength
        )
        recordings = recordings._replace(squares=recordings.squares.to(data.dtype))
        with torch.no_grad():
            explained = greedy(recordings, self.n_components)
        powers = power_features(recordings, explained, rank).to(data.dtype)
        error = self.log_error(powers)[:, 0].exp() * power / rank
        frames = torch.ones_like(white[0, 0]).sum() ** self.memory.clamp(0, 1)
        slope = 0.5 * frames / (1 + frames * error)
        skulls = skull_features(explained, slope).to(data.dtype)
        features = torch.cat([powers, skulls], dim=1)
        middle = pairs_of(self.n_skulls).index((self.n_skulls // 2,) * 2)
        energy = recordings.energies[:, middle] / recordings.squares[middle]
        log_moments = (inputs[self.moments.key] / inputs[self.unit.key])[self.n_radii // 2].log()
        scores = self.scores(
            energy.unflatten(1, (self.n_radii, -1)).to(data.dtype),
            power.to(data.dtype),
            log_moments,
            features,
            inputs[self.neighbours.key],
        )
        noise, positions = (1 + error).sqrt(), inputs[self.positions.key]
        return Known(recordings, features, scores, slope, noise, rank, positions)

    def _bounded(self, value: Tensor) -> Tensor:
        """From a real number to the logarithm of the ratio of skull conductivities."""
        return self.log_widest * torch.tanh(0.5 * value)

    def _sequence(self, known: Known, log_skull: Float[Tensor, "N B"]) -> PatchSequence:
        log_skull = log_skull.to(known.slope)
        return PatchSequence(
            known.recordings, skull_weights(log_skull, self.log_widest, self.n_skulls)
        )

    def _amplitudes(
        self,
        known: Known,
        sequence: PatchSequence,
        patches: Int[Tensor, "N B J"],
        inputs: dict[str, Tensor],
    ) -> tuple[AmplitudeCoordinates, Float[Tensor, "N B J 1"]]:
        """Coordinates of the amplitudes of patches, and moments (A m) per amplitude."""
        numbers = patches.unbind(2)
        coordinates = AmplitudeCoordinates(
            torch.stack([sequence.topography(number) for number in numbers], dim=2),
            known.recordings.white,
            known.recordings.strength,
            known.noise,
        )
        unit = inputs[self.moments.key].flatten()
        moments = unit.index_select(0, patches.clamp_min(0).flatten()).unflatten(0, patches.shape)
        inverse = torch.stack([sequence.inverse_norm_of(number) for number in numbers], dim=2)
        return coordinates, (moments * inverse)[..., None]

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
            choice = self.next_patch(step, known, sequence, numbers)
            chosen = choice.log_probability(number)
            there = number != NONE
            of_patches = of_patches + torch.where(there, chosen, 0)
            if step > 0:
                decided = functional.logsigmoid(torch.where(there, choice.more, -choice.more))
                of_patches = of_patches + torch.where(numbers[-1] != NONE, decided, 0)
            numbers.append(number)
            sequence.take(sequence.topography(number))
        coordinates, scale = self._amplitudes(known, sequence, patches, inputs)
        amplitudes, there = configuration.moments.to(scale) / scale, patches != NONE
        density = self.moment_flow.log_density(coordinates, known.features, there, amplitudes)
        n_times, unit = amplitudes.shape[3], inputs[self.unit.key]
        volume = n_times * (scale[..., 0] / unit).log() * there
        moments = (density - volume).sum(2)
        return {"skull": torch.where(varies, skull, 0), "patches": of_patches, "moments": moments}
