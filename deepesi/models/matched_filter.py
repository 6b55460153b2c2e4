"""Unrolled matched filter: patches are estimated one by one, each from the others' residual."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.contracts import Assumptions, Estimate, InverseModel
from deepesi.core.patches import (
    PatchDictionary,
    along_axes,
    small_linear,
    spread_patches,
)
from deepesi.core.precision import in_full_precision
from deepesi.models.layers.mismatch_noise import mismatch_energy
from deepesi.models.layers.patch_variances import PatchVariances
from deepesi.models.layers.sensor_reliability import SensorReliability
from deepesi.models.layers.sizes import check_sizes
from deepesi.models.layers.skull_weights import SkullWeights
from deepesi.physics.head_inputs import (
    FixedOrientations,
    HeadInput,
    MeshNeighbours,
    NormalMoments,
    NormalSkullPowers,
    NormalTopographies,
    NormalUnit,
    PatchMoments,
    PatchPairs,
    PatchShares,
    PatchTopographies,
    Rank,
    SkullFilters,
    SkullPowers,
    SourceUnit,
    Whitener,
)


class UnrolledMatchedFilter(InverseModel):
    r"""Alternating sparse-Bayes projections; a network on the source mesh sets the variances.

    The dictionary ``Q`` holds unit whitened topographies of patches of ``K`` radii around every
    source. ``gamma`` is the prior variance of each patch: a sum over a few components, one for
    each active source. `SensorReliability` learns to give a low weight to sensors where an
    error of the head model has a large effect. A sweep estimates each component in turn:

    0. At the start of a sweep each of ``M`` skull conductivities gets a weight, from how well a
       single patch explains the residual under it. The weighted mean corrects the dictionary.
    1. A few conjugate-gradient steps compute the residual of the posterior mean under the other
       components, ``u = (I + Q gamma Qᵀ)⁻¹ v``.
    2. Matched filters ``z = Qᵀ u`` give energies, summed over the window. They give the
       log-evidence of each patch, divided by a variance that allows for head mismatch.
    3. A small network, shared by all sources, reads the evidence, the energy explained so far and
       messages from the neighbours on the mesh, and updates a hidden state.
    4. The new variance of the component is a softmax over all patches (evidence plus the
       correction of the network) times the energy above the level that noise alone reaches.

    The estimate is the posterior mean under all components, ``gamma Qᵀ u``, times a learned gate,
    spread over the sources of each patch. It is linear in the recording at given ``gamma``, and
    ``gamma`` depends on energies only: the estimate changes sign with the recording, and a window
    of any length is inverted as a whole. No weight belongs to a channel, a source or an
    orientation, so montage, head and source space are free. Before training it is alternating
    projection with equally likely skulls and sensor position errors of 5 mm.

    Args:
        n_components: Largest number of sources that are estimated separately.
        n_sweeps: Number of times that each component is estimated.
        hidden: Width of the network.
        exchanged: Features of a message from a source to its neighbours.
        n_messages: Rounds of messages per step.
        n_strongest: Number of patches used to compute a residual.
        n_conjugate: Conjugate-gradient steps per residual.
        smallest: Smallest patch radius, m.
        largest: Largest patch radius, m.
        n_radii: Number ``K`` of patch radii from smallest to largest.
        widest_skull: Largest skull conductivity divided by the nominal one. The smallest ratio
            is its inverse.
        n_skulls: Number ``M`` of skull conductivities, odd. 1: the nominal one only.
        heteroscedastic: Also estimate a standard deviation.
        along_normals: Whether patches are along the normals on a head of free orientation, too.
            Moments are then vectors along the normals.

    Raises:
        ValueError: A size is not positive, or the radii are out of order.

    Source: own method. Parts: alternating projection (Ziskind & Wax 1988, doi:10.1109/29.7543; for
    EEG Adler et al. 2024, doi:10.1016/j.bspc.2023.105796), explaining away by prior variances as
    in sparse Bayesian learning (Wipf & Nagarajan 2009, doi:10.1016/j.neuroimage.2008.02.059),
    unrolling (Gregor & LeCun 2010), message passing (Gilmer et al. 2017, arXiv:1704.01212).
    Default size: 20,451 weights.

    """

    bound_to_space = False

    def __init__(
        self,
        n_components: int = 3,
        n_sweeps: int = 2,
        hidden: int = 24,
        exchanged: int = 8,
        n_messages: int = 2,
        n_strongest: int = 64,
        n_conjugate: int = 8,
        smallest: float = 0.010,
        largest: float = 0.025,
        n_radii: int = 5,
        widest_skull: float = 3.0,
        n_skulls: int = 5,
        heteroscedastic: bool = False,
        along_normals: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(
            "UnrolledMatchedFilter",
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
        self.whitener, self.rank = Whitener(), Rank()
        self.unit: HeadInput = NormalUnit() if along_normals else SourceUnit()
        self.neighbours = MeshNeighbours()
        self.pairs, self.shares = PatchPairs(*radii), PatchShares(*radii)
        self.skull_filters = SkullFilters(widest_skull, n_skulls)
        skulls = (widest_skull, n_skulls, *radii)
        self.topographies: HeadInput
        self.moments: HeadInput
        self.skull_powers: HeadInput
        if along_normals:
            self.topographies, self.moments = NormalTopographies(*radii), NormalMoments(*radii)
            self.skull_powers = NormalSkullPowers(*skulls)
        else:
            self.topographies, self.moments = PatchTopographies(*radii), PatchMoments(*radii)
            self.skull_powers = SkullPowers(*skulls)
        self.normals = FixedOrientations() if along_normals else None
        self.reliability = SensorReliability()
        self.head_inputs = (
            self.whitener,
            self.rank,
            self.unit,
            self.neighbours,
            self.topographies,
            self.moments,
            self.pairs,
            self.shares,
            self.skull_filters,
            self.skull_powers,
            *self.reliability.head_inputs,
            *([] if self.normals is None else [self.normals]),
        )
        self.n_radii, self.n_components = n_radii, n_components
        self.assumed_sources = f"patches of {1e3 * smallest:g}-{1e3 * largest:g} mm"
        self.assumed_skull = f"1/{widest_skull:g} to {widest_skull:g} of nominal"
        self.hidden = hidden
        self.explained = (n_strongest, n_conjugate)
        self.steps = nn.ModuleList(
            PatchVariances(n_radii, (-2.0,), hidden, exchanged, n_messages, first=number == 0)
            for number in range(n_components * n_sweeps)
        )
        self.skulls = nn.ModuleList(SkullWeights(n_skulls) for _ in range(n_sweeps))
        self.gate = small_linear(hidden, n_radii)
        self.spread = small_linear(hidden, n_radii + 1) if heteroscedastic else None

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the model before training."""
        return Assumptions(
            self.assumed_sources,
            f"up to {self.n_components}",
            "covariance and level",
            self.assumed_skull,
        )

    @in_full_precision
    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Whiten the data, estimate the components, compute the posterior mean."""
        n_times = data.shape[2]
        moments = inputs[self.moments.key] / inputs[self.unit.key]
        if self.normals is not None:
            moments = moments[..., None]
        n_orient = moments.shape[2]
        moments = moments.unflatten(1, (-1, n_orient))
        # Residuals of strong recordings lose digits in single precision, so only training uses it.
        # Examples are the last axis, so that messages are copied in long rows.
        dtype = data.dtype if self.training else torch.float64
        white = (inputs[self.whitener.key] @ data).permute(1, 2, 0).to(dtype)
        reliability = self.reliability(white, inputs).to(dtype)
        recording = reliability[:, None] * white
        topographies = inputs[self.topographies.key].to(dtype)
        filters = inputs[self.skull_filters.key].to(dtype)
        norms = (inputs[self.skull_powers.key].to(dtype) @ reliability.square()).sqrt()
        nominal = dictionary = PatchDictionary(topographies, n_orient)
        sensitivity = moments.square().sum((2, 3)).sqrt().log()[self.n_radii // 2]
        n_free = n_times * inputs[self.rank.key]
        total = recording.square().sum((0, 1))
        excess = mismatch_energy(total, n_free, inputs[self.rank.key])
        hidden = data.new_zeros(moments.shape[1], data.shape[0], self.hidden)
        zeros = recording.new_zeros(self.n_radii, *hidden.shape[:2])
        components = [zeros] * self.n_components
        residual = recording
        for number, step in enumerate(cast("list[PatchVariances]", self.steps)):
            turn = number % self.n_components
            others = sum(components[:turn] + components[turn + 1 :], start=zeros)
            if number > 0:
                residual = dictionary.residual(recording, others, *self.explained)
            if turn == 0:
                weights = self.skulls[number // self.n_components](
                    residual, excess, n_free, nominal, filters, norms, reliability
                )
                norm = (weights[:, None, None] * norms).sum(0)
                skull_filter = torch.einsum("mb,mce,cb->bce", weights, filters, reliability)
                dictionary = PatchDictionary(topographies, n_orient, (skull_filter, norm))
            energy = dictionary.energy(residual)
            evidence = 0.5 * (energy - energy.amax((0, 1))) / step.variance(excess)[0]
            components[turn], hidden = step(
                energy,
                evidence,
                residual.square().sum((0, 1)),
                total,
                excess,
                n_free,
                n_times * n_orient,
                sensitivity,
                others,
                components[turn],
                hidden,
                inputs[self.neighbours.key],
            )
        gamma = sum(components, start=zeros)
        residual = dictionary.residual(recording, gamma, *self.explained)
        gate = functional.softplus(self.gate(hidden) + 0.54).permute(2, 0, 1)  # 1 untrained
        weight = gate * (gamma / norm).to(data.dtype)  # `moments` belong to topographies of norm 1
        amplitudes = dictionary.weighted(weight.to(dtype), residual).to(data.dtype)
        axes = None if self.normals is None else inputs[self.normals.key]
        mean = self._to_sources(along_axes(moments, amplitudes), inputs, axes)
        if self.spread is None:
            return Estimate(mean)
        *factors, floor = functional.softplus(self.spread(hidden)).unbind(2)
        patch_std = torch.stack(factors) * (gamma + 1e-6).sqrt().to(data.dtype)
        patch_std = patch_std / norm.to(data.dtype)
        patches = moments.norm(dim=3)[..., None, None] * patch_std[:, :, None, None]
        axes = None if axes is None else axes.abs()
        std = self._to_sources(patches, inputs, axes) + self._rows(
            (1e-3 + floor)[:, None, None].expand(-1, n_orient, -1, -1), inputs, axes
        )
        return Estimate(mean, std.expand_as(mean))

    def _to_sources(
        self,
        patches: Float[Tensor, "K S O T B"],
        inputs: dict[str, Tensor],
        axes: Float[Tensor, "S A"] | None,
    ) -> Float[Tensor, "B D T"]:
        sources = spread_patches(patches, inputs[self.pairs.key], inputs[self.shares.key])
        return self._rows(sources, inputs, axes)

    def _rows(
        self,
        sources: Float[Tensor, "S O T B"],
        inputs: dict[str, Tensor],
        axes: Float[Tensor, "S A"] | None,
    ) -> Float[Tensor, "B D T"]:
        """Moments in A m; with `axes`, the components of one along each of them."""
        if axes is not None:
            sources = sources * axes[:, :, None, None]
        return sources.flatten(0, 1).permute(2, 0, 1) * inputs[self.unit.key]
