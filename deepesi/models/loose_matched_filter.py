"""Unrolled matched filter for somebody else's head: the orientation of a patch may be its own."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.contracts import Assumptions, Estimate, InverseModel
from deepesi.core.patches import over_patches, small_linear
from deepesi.core.precision import in_full_precision
from deepesi.models.layers.known_normals import KnownNormals
from deepesi.models.layers.mismatch_noise import mismatch_energy
from deepesi.models.layers.oriented_patches import Component, OrientedPatches
from deepesi.models.layers.patch_moments import PatchMoments, Spread, relative_power, weighted
from deepesi.models.layers.patch_variances import PatchVariances
from deepesi.models.layers.sizes import check_sizes
from deepesi.physics.head_inputs import (
    FixedOrientations,
    LooseMoments,
    LooseTopographies,
    MeshNeighbours,
    NormalMoments,
    NormalTopographies,
    OwnNormals,
    PatchPairs,
    PatchShares,
    Rank,
    SourceUnit,
    Whitener,
)

#: Logarithms of the initial share of the energy that counts as head mismatch, for patches along the
#: normals, which fit a head like the template, and for the others, which fit other heads.
LOG_MISMATCH = (-4.0, -3.0)
#: Smallest mean square of a moment, in units of the noise.
SMALLEST = 1e-6


class LooseMatchedFilter(InverseModel):
    """Alternating sparse-Bayes projections over patches of two kinds.

    Components are estimated in turn, as in `UnrolledMatchedFilter`. Here a patch is either
    along the normals of the head, with little head mismatch, or it has an orientation of its own,
    one in the whole window, with a prior that prefers the normal, and more mismatch. The evidence
    decides between them. So a source in a head like the template is localized to the grid point,
    and in another head it is not shifted to a wrong source location with matching normals. Whose
    normals the head has is known (`OwnNormals`): on the recorded person's own cortex patches along
    the normals are more probable. Skull
    conductivity and weights of sensors are not estimated from the recording, because other normals
    have the same effect as another skull or bad sensors.

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
    doi:10.1002/hbm.20155. Default size: 22,723 weights.

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
        self.own = OwnNormals()
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
            self.own,
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
        self.normals = KnownNormals(n_radii, hidden)
        self.gate = small_linear(hidden, 2 * n_radii)
        # Saved weights have this name: it cannot change. It is the network of the std.
        self.doubt = small_linear(hidden, 2 * n_radii) if heteroscedastic else None
        if heteroscedastic:
            self.log_exponent = nn.Parameter(torch.tensor(-1.0))  # of the probabilities

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the model before training."""
        return Assumptions(
            self.assumed_sources, f"up to {self.n_components}", "covariance and level", "nominal"
        )

    @in_full_precision
    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Whiten the data, estimate the components, compute the posterior mean and std."""
        # Residuals of strong recordings lose digits in single precision, so only training uses it.
        dtype = data.dtype if self.training else torch.float64
        recording = (inputs[self.whitener.key] @ data).permute(1, 2, 0).to(dtype)
        patches = OrientedPatches(inputs[self.normal.key], inputs[self.topographies.key])
        components, hidden = self._components(recording, patches, inputs)
        matched = patches.products(patches.residual(recording, components, *self.explained))
        gate = functional.softplus(self.gate(hidden) + 0.54).permute(1, 2, 0)  # 1 untrained
        moments = self._moments(gate, inputs)
        likely = [over_patches(c.gamma.clamp_min(1e-9).log()).to(data.dtype) for c in components]
        mean = moments.mean(matched, weighted(components, likely))
        estimate = self._dipoles(mean, inputs)
        if self.doubt is None:
            return Estimate(estimate)
        mismatch, exponent = 10 * self.doubt(hidden).permute(2, 0, 1), self.log_exponent.exp()
        spread = [over_patches(exponent * p.clamp_min(1e-12).log() + mismatch) for p in likely]
        of_means, variance = moments.power(matched, weighted(components, spread))
        power = (of_means * relative_power(mean) + variance).clamp_min(SMALLEST)
        return Estimate(estimate, self._dipoles(power.sqrt(), inputs))

    def _moments(self, gate: Float[Tensor, "B K S"], inputs: dict[str, Tensor]) -> PatchMoments:
        """Moments of unit amplitude, in units of `SourceUnit`, times the learned factor."""
        unit, k = inputs[self.unit.key], self.n_radii
        return PatchMoments(
            inputs[self.normal_moments.key] / unit * gate[:, :k],
            (inputs[self.moments.key] / unit)[:, :, None] * gate[:, k:],
            Spread(inputs[self.pairs.key], inputs[self.shares.key], inputs[self.directions.key]),
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
        excess = mismatch_energy(total, n_free, rank)
        own_normals = inputs[self.own.key]
        change, prior = self.normals.mismatch(own_normals), self.normals.log_prior(own_normals)
        hidden = sensitivity.new_zeros(sensitivity.shape[0], total.shape[0], self.hidden)
        hidden = hidden + self.normals.start(own_normals)
        zeros = sensitivity.new_zeros(2 * self.n_radii, *hidden.shape[:2])
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
                step.variance(excess, change)[:2],
                rank,
            )
            evidence = fit.evidence + prior
            evidence = evidence - evidence.amax((1, 2), keepdim=True)
            gamma, hidden = step(
                fit.energy.permute(1, 2, 0),
                evidence.permute(1, 2, 0),
                power,
                total,
                excess,
                n_free,
                n_signals,
                sensitivity,
                sum((component.gamma for component in others), start=zeros),
                own,
                hidden,
                inputs[self.neighbours.key],
            )
            components[turn] = Component(gamma, fit.axes, step.variance(excess, change)[:2])
        return list(components.values()), hidden

    def _dipoles(
        self, sources: Float[Tensor, "S O T B"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "B D T"]:
        return sources.flatten(0, 1).permute(2, 0, 1) * inputs[self.unit.key]
