"""Unrolled matched filter for somebody else's head: the orientation of a patch may be its own."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.contracts import Assumptions, Estimate, InverseModel
from deepesi.core.patches import over_patches, small_linear, spread_patches
from deepesi.models.layers.oriented_patches import Component, OrientedPatches
from deepesi.models.layers.patch_variances import PatchVariances
from deepesi.models.layers.sizes import check_sizes
from deepesi.physics.head_inputs import (
    FixedOrientations,
    LooseMoments,
    LooseTopographies,
    MeshNeighbours,
    NormalMoments,
    NormalTopographies,
    PatchPairs,
    PatchShares,
    Rank,
    SourceUnit,
    Whitener,
)

#: Initial share of the energy that is head mismatch, logarithms: patches along the normals
#: stand for a head like the template, the others for somebody else's.
LOG_MISMATCH = (-4.0, -3.0)
#: Smallest mean square of a moment, in units of the noise.
SMALLEST = 1e-6


class LooseMatchedFilter(InverseModel):
    """Alternating sparse-Bayes projections over patches of two kinds.

    `UnrolledMatchedFilter` says how components are estimated in turn. Here a patch is either
    along the normals of the head, with little head mismatch, or it has an orientation of its own,
    one in the whole window, with a prior that prefers the normal, and more mismatch. The evidence
    of a patch weighs both: a recording from a head like the template is found to the grid point,
    and one from another head is not explained by wrong places with the right normals. Skull
    conductivity and weights of sensors are not read off the recording, since other normals look
    like another skull or like bad sensors.

    Args:
        n_components: Largest number of sources that are estimated separately.
        n_sweeps: Number of times that each component is estimated.
        hidden: Width of the network.
        exchanged: Features of a message from a source to its neighbours.
        n_messages: Rounds of messages per step.
        n_strongest: Number of patches of a component used to compute a residual.
        n_conjugate: Conjugate-gradient steps per residual.
        smallest: Smallest patch radius, m.
        largest: Largest patch radius, m.
        n_radii: Number of patch radii from smallest to largest, of each kind.
        loose: Prior variance of the moment of a patch along each tangent of the cortex, relative
            to that along its normal.
        heteroscedastic: Also estimate a standard deviation: the root of the mean square of the
            moment, where patches have other probabilities than in the mean, as the network learns.

    Raises:
        ValueError: A size is not positive, or the radii are out of order.

    Source: own method; parts as in `UnrolledMatchedFilter`. Orientation as an unknown of a source:
    Mosher, Lewis & Leahy 1992, doi:10.1109/10.141192; loose orientation: Lin et al. 2006,
    doi:10.1002/hbm.20155. Default size: 22,694 weights.

    """

    bound_to_space = False

    def __init__(
        self,
        n_components: int = 3,
        n_sweeps: int = 2,
        hidden: int = 24,
        exchanged: int = 8,
        n_messages: int = 2,
        n_strongest: int = 32,
        n_conjugate: int = 8,
        smallest: float = 0.010,
        largest: float = 0.025,
        n_radii: int = 4,
        loose: float = 0.25,
        heteroscedastic: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(
            "LooseMatchedFilter",
            n_components=n_components,
            n_sweeps=n_sweeps,
            hidden=hidden,
            exchanged=exchanged,
            n_messages=n_messages,
            n_strongest=n_strongest,
            n_conjugate=n_conjugate,
            n_radii=n_radii,
        )
        radii = (smallest, largest, n_radii)
        self.whitener, self.rank, self.unit = Whitener(), Rank(), SourceUnit()
        self.neighbours, self.directions = MeshNeighbours(), FixedOrientations()
        self.normal = NormalTopographies(*radii)
        self.normal_moments = NormalMoments(*radii)
        self.topographies = LooseTopographies(*radii, loose)
        self.moments = LooseMoments(*radii, loose)
        self.pairs, self.shares = PatchPairs(*radii), PatchShares(*radii)
        self.head_inputs = (
            self.whitener,
            self.rank,
            self.unit,
            self.neighbours,
            self.directions,
            self.normal,
            self.normal_moments,
            self.topographies,
            self.moments,
            self.pairs,
            self.shares,
        )
        self.n_radii, self.n_components, self.hidden = n_radii, n_components, hidden
        self.assumed_sources = f"patches of {1e3 * smallest:g}-{1e3 * largest:g} mm"
        self.explained = (n_strongest, n_conjugate)
        self.steps = nn.ModuleList(
            PatchVariances(
                2 * n_radii, LOG_MISMATCH, hidden, exchanged, n_messages, first=number == 0
            )
            for number in range(n_components * n_sweeps)
        )
        self.gate = small_linear(hidden, 2 * n_radii)
        self.doubt = small_linear(hidden, 2 * n_radii) if heteroscedastic else None
        if heteroscedastic:
            self.log_exponent = nn.Parameter(torch.tensor(-1.0))  # of the probabilities

    @property
    def assumptions(self) -> Assumptions:
        """What the model assumes before training."""
        return Assumptions(
            self.assumed_sources, f"up to {self.n_components}", "covariance and level", "nominal"
        )

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Whiten the data, estimate the components, compute the posterior mean and deviation."""
        # Residuals of strong recordings lose digits in single precision, so only training uses it.
        # Examples are the last axis, so that messages are copied in long rows.
        dtype = data.dtype if self.training else torch.float64
        recording = (inputs[self.whitener.key] @ data).permute(1, 2, 0).to(dtype)
        patches = OrientedPatches(
            inputs[self.normal.key].to(dtype),
            inputs[self.topographies.key].to(dtype),
            inputs[self.directions.key].shape[1],
        )
        components, hidden = self._components(recording, patches, inputs)
        residual = patches.residual(recording, components, *self.explained)
        gate = functional.softplus(self.gate(hidden) + 0.54).permute(2, 0, 1)  # 1 untrained
        along, own = patches.find(residual)
        found = along.to(data.dtype), own.to(data.dtype)
        likely = [over_patches(c.gamma.clamp_min(1e-9).log()).to(data.dtype) for c in components]
        mean = self._moments(found, components, likely, gate, inputs)
        if self.doubt is None:
            return Estimate(self._rows(mean, inputs))
        log_doubt = 10 * self.doubt(hidden).permute(2, 0, 1)
        exponent = self.log_exponent.exp()
        doubted = [
            over_patches(exponent * chance.clamp_min(1e-12).log() + log_doubt) for chance in likely
        ]
        power = self._moments(found, components, doubted, gate, inputs, squared=True)
        return Estimate(
            *(self._rows(values, inputs) for values in (mean, power.clamp_min(SMALLEST).sqrt()))
        )

    def _components(
        self,
        recording: Float[Tensor, "C T B"],
        patches: OrientedPatches,
        inputs: dict[str, Tensor],
    ) -> tuple[list[Component], Float[Tensor, "S B H"]]:
        """Estimate each component in turn; whitened recording."""
        n_times = recording.shape[1]
        sensitivity = -(inputs[self.unit.key] / inputs[self.normal_moments.key]).log()
        sensitivity = sensitivity[self.n_radii // 2]
        rank = inputs[self.rank.key]
        n_free = n_times * rank
        n_signals = n_times + patches.n_orient - 1
        total = recording.square().sum((0, 1))
        hidden = sensitivity.new_zeros(sensitivity.shape[0], total.shape[0], self.hidden)
        zeros = recording.new_zeros(2 * self.n_radii, *hidden.shape[:2])
        components: dict[int, Component] = {}
        residual = recording
        for number, step in enumerate(cast("list[PatchVariances]", self.steps)):
            turn = number % self.n_components
            own = components.pop(turn).gamma if turn in components else zeros
            others = list(components.values())
            if others:
                residual = patches.residual(recording, others, *self.explained)
            power = residual.square().sum((0, 1))
            fit = patches.fit(
                residual,
                power - n_free,
                (power - n_free).clamp_min(0.1 * n_free) / n_times,
                step.variance(total)[:2],
                rank,
            )
            gamma, hidden = step(
                fit.energy,
                fit.evidence - fit.evidence.amax((0, 1)),
                power,
                total,
                n_free,
                n_signals,
                sensitivity,
                sum((component.gamma for component in others), start=zeros),
                own,
                hidden,
                inputs[self.neighbours.key],
            )
            components[turn] = Component(gamma, fit.axes, step.variance(total)[:2])
        return list(components.values()), hidden

    def _moments(
        self,
        found: tuple[Tensor, Tensor],
        components: list[Component],
        chances: list[Float[Tensor, "K S B"]],
        gate: Float[Tensor, "K S B"],
        inputs: dict[str, Tensor],
        squared: bool = False,
    ) -> Float[Tensor, "S O T B"]:
        """Mean of the moment of every source or of its square, noise variance 1.

        Args:
            found: Products of the residual with the topographies along the normals and others.
            components: All components.
            chances: Probabilities of the patches, for each component.
            gate: Learned factor of the moments.
            inputs: Head inputs.
            squared: Whether of the square.

        """
        k, unit = self.n_radii, inputs[self.unit.key]
        along, own = found
        normal_moments = (inputs[self.normal_moments.key] / unit)[:, :, None] * gate[:k]
        moments = (inputs[self.moments.key] / unit).unflatten(1, (-1, own.shape[0]))
        moments = moments.permute(2, 3, 0, 1)[..., None]  # component, topography, K_l, S, B
        sums = [torch.zeros_like(along), torch.zeros_like(own)]
        for component, chance in zip(components, chances, strict=True):
            strength = component.gamma.sum((0, 1)).to(gate.dtype)
            axes = component.axes.to(gate.dtype)
            turned = (moments * axes).sum(1) * gate[k:]
            # Moments of unit amplitude, and amplitudes given the patch with their variances.
            kinds = (
                (normal_moments[:, :, None], along, chance[:k, :, None]),
                (
                    turned[:, :, :, None],
                    (axes[:, :, :, None] * own).sum(0),
                    chance[k:, :, None],
                ),
            )
            variances = component.variance.to(gate.dtype) * strength / (1 + strength)
            for kind, (moment, product, probability) in enumerate(kinds):
                part, amplitude = moment * probability, strength * product
                if squared:
                    sums[kind] = sums[kind] + part * moment * (amplitude.square() + variances[kind])
                else:
                    sums[kind] = sums[kind] + part * amplitude
        shares, directions = inputs[self.shares.key], inputs[self.directions.key]
        if squared:
            shares, directions = shares.square(), directions.square()
        return self._spread(sums, shares, directions, inputs)

    def _spread(
        self,
        parts: list[Float[Tensor, "..."]],
        shares: Float[Tensor, "P K"],
        directions: Float[Tensor, "S O"],
        inputs: dict[str, Tensor],
    ) -> Float[Tensor, "S O T B"]:
        """From patches along the normals and others to sources."""
        straight, turned = parts
        both = torch.cat([turned, straight[None]]).movedim(0, 2)
        sources = spread_patches(both, inputs[self.pairs.key], shares)
        return sources[:, :-1] + directions[..., None, None] * sources[:, -1:]

    def _rows(
        self, sources: Float[Tensor, "S O T B"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "B D T"]:
        return sources.flatten(0, 1).permute(2, 0, 1) * inputs[self.unit.key]
