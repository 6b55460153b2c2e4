"""Unrolled matched filter: evidence for patches everywhere, explained away step by step."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.contracts import Assumptions, Estimate, InverseModel
from deepesi.core.patches import (
    PatchDictionary,
    along_axes,
    energy_by_chance,
    neighbour_mean,
    over_patches,
    small_linear,
    spread_patches,
)
from deepesi.models.layers.sensor_reliability import SensorReliability
from deepesi.models.layers.sizes import check_sizes
from deepesi.models.layers.skull_weights import TYPICAL_FREEDOM, SkullWeights
from deepesi.physics.head_inputs import (
    MeshNeighbours,
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

#: Features of a place that are the same for every radius.
N_COMMON = 7
#: Prior variance of a component, over the noise, that none exceeds: it leaves 2 % of an amplitude
#: unexplained, and single precision right to six digits.
LARGEST = 50.0


class UnrolledMatchedFilter(InverseModel):
    r"""Alternating sparse-Bayes projections whose variances are set by a network on the mesh.

    The dictionary ``Q`` holds unit whitened topographies of patches of ``K`` radii around every
    source; ``gamma`` is the prior variance of each patch, a sum over a few components, each meant
    for one source. Electrodes where an error of the head would tell most are trusted less, as
    `SensorReliability` has learned. In every sweep each component in turn is estimated anew:

    0. at the start of a sweep, how well a patch explains what the first component has to explain,
       under skulls of ``M`` conductivities, gives every skull a weight; their mean is what the
       dictionary is seen through from there on;
    1. the residual that the other components leave is solved for by a few conjugate-gradient steps,
       ``u = (I + Q gamma Qᵀ)⁻¹ v``: what the posterior mean under their variances does not explain;
    2. matched filters ``z = Qᵀ u`` give energies, summed over the window, and these the
       log-evidence of a patch there, tempered by how much of the recording head mismatch may fake;
    3. a small network, the same at every place, reads evidence, what is explained already and what
       its neighbours on the mesh say, and passes on a hidden state;
    4. the softmax of evidence and the network's correction over all places and radii, times the
       energy beyond what chance reaches, is the component's new variance.

    The estimate is the posterior mean under all components, ``gamma Qᵀ u``, weighted by a last gate
    and spread over the sources of each patch. It is linear in the recording at given ``gamma``,
    and ``gamma`` knows energies only: the estimate turns its sign with the recording, and a window
    of any length is inverted as one. No weight belongs to a channel, a source or an orientation,
    so montage, head and source space are free. Untrained it is alternating projection
    that takes all skulls to be equally likely and the electrodes to lie 5 mm off.

    Args:
        n_components: Sources it can tell apart.
        n_sweeps: How often each component is estimated.
        hidden: Width of the network.
        exchanged: Numbers a place tells its neighbours in each message.
        n_messages: Messages per step.
        n_strongest: Patches that explain the recording in a residual.
        n_conjugate: Conjugate-gradient steps per residual.
        smallest: Smallest patch radius, m.
        largest: Largest patch radius, m.
        n_radii: Radii in between, ``K``.
        widest_skull: Largest ratio of a skull's conductivity to the nominal one; the smallest is
            one over it.
        n_skulls: Conductivities in between, ``M``, odd; 1: the nominal one only.
        heteroscedastic: Whether it also gives a standard deviation.

    Raises:
        ValueError: A size is not positive, or the radii are out of order.

    Source: ours. Its parts: alternating projection (Ziskind & Wax 1988, doi:10.1109/29.7543; for
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
        self.whitener, self.rank, self.unit = Whitener(), Rank(), SourceUnit()
        self.neighbours = MeshNeighbours()
        self.topographies, self.moments = PatchTopographies(*radii), PatchMoments(*radii)
        self.pairs, self.shares = PatchPairs(*radii), PatchShares(*radii)
        self.skull_filters = SkullFilters(widest_skull, n_skulls)
        self.skull_powers = SkullPowers(widest_skull, n_skulls, *radii)
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
        )
        self.n_radii, self.n_components = n_radii, n_components
        self.assumed_sources = f"patches of {1e3 * smallest:g}-{1e3 * largest:g} mm"
        self.assumed_skull = f"1/{widest_skull:g} to {widest_skull:g} of nominal"
        self.hidden = hidden
        self.explained = (n_strongest, n_conjugate)
        self.steps = nn.ModuleList(
            _Step(n_radii, hidden, exchanged, n_messages, threshold=2.0 * (number > 0))
            for number in range(n_components * n_sweeps)
        )
        self.skulls = nn.ModuleList(SkullWeights(n_skulls) for _ in range(n_sweeps))
        self.gate = small_linear(hidden, n_radii)
        self.spread = small_linear(hidden, n_radii + 1) if heteroscedastic else None

    @property
    def assumptions(self) -> Assumptions:
        """What it assumes before any training."""
        return Assumptions(
            self.assumed_sources,
            f"up to {self.n_components}",
            "covariance and level",
            self.assumed_skull,
        )

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Whiten, iterate, read out."""
        n_times = data.shape[2]
        moments = inputs[self.moments.key] / inputs[self.unit.key]
        n_orient = moments.shape[2]
        moments = moments.unflatten(1, (-1, n_orient))
        # Strong recordings lose digits in the residual, so only training computes it in single
        # precision. Sources before examples: what neighbours say is then copied in long rows.
        digits = data.dtype if self.training else torch.float64
        white = (inputs[self.whitener.key] @ data).permute(1, 2, 0).to(digits)
        reliability = self.reliability(white, inputs).to(digits)
        recording = reliability[:, None] * white
        topographies = inputs[self.topographies.key].to(digits)
        filters = inputs[self.skull_filters.key].to(digits)
        norms = (inputs[self.skull_powers.key].to(digits) @ reliability.square()).sqrt()
        nominal = dictionary = PatchDictionary(topographies, n_orient)
        visible = moments.square().sum((2, 3)).sqrt().log()[self.n_radii // 2]
        n_free = n_times * inputs[self.rank.key]
        total = recording.square().sum((0, 1))
        hidden = data.new_zeros(moments.shape[1], data.shape[0], self.hidden)
        nothing = recording.new_zeros(self.n_radii, *hidden.shape[:2])
        components = [nothing] * self.n_components
        residual = recording
        for number, step in enumerate(self.steps):
            turn = number % self.n_components
            others = sum(components[:turn] + components[turn + 1 :], start=nothing)
            if number > 0:
                residual = dictionary.residual(recording, others, *self.explained)
            if turn == 0:
                weights = self.skulls[number // self.n_components](
                    residual, total, n_free, nominal, filters, norms, reliability
                )
                seen = (weights[:, None, None] * norms).sum(0)
                through = torch.einsum("mb,mce,cb->bce", weights, filters, reliability)
                dictionary = PatchDictionary(topographies, n_orient, (through, seen))
            energy = dictionary.energy(residual)
            components[turn], hidden = step(
                energy,
                residual.square().sum((0, 1)),
                total,
                n_free,
                n_times * n_orient,
                visible,
                others,
                components[turn],
                hidden,
                inputs[self.neighbours.key],
            )
        gamma = sum(components, start=nothing)
        residual = dictionary.residual(recording, gamma, *self.explained)
        gate = functional.softplus(self.gate(hidden) + 0.54).permute(2, 0, 1)  # 1 untrained
        weight = gate * (gamma / seen).to(data.dtype)  # a patch of norm 1 is of so many moments
        amplitudes = dictionary.weighted(weight.to(digits), residual).to(data.dtype)
        patches = along_axes(moments, amplitudes)
        mean = self._to_sources(patches, inputs)
        if self.spread is None:
            return Estimate(mean)
        *of_patch, floor = functional.softplus(self.spread(hidden)).unbind(2)
        deviation = torch.stack(of_patch) * (gamma + 1e-6).sqrt().to(data.dtype)
        deviation = deviation / seen.to(data.dtype)
        patches = moments.norm(dim=3)[..., None, None] * deviation[:, :, None, None]
        std = self._to_sources(patches, inputs) + self._rows(
            (1e-3 + floor)[:, None, None].expand(-1, n_orient, -1, -1), inputs
        )
        return Estimate(mean, std.expand_as(mean))

    def _to_sources(
        self, patches: Float[Tensor, "K S O T B"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "B D T"]:
        sources = spread_patches(patches, inputs[self.pairs.key], inputs[self.shares.key])
        return self._rows(sources, inputs)

    def _rows(
        self, sources: Float[Tensor, "S O T B"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "B D T"]:
        return sources.flatten(0, 1).permute(2, 0, 1) * inputs[self.unit.key]


class _Step(nn.Module):
    """One component's turn: from the energies the others leave to its prior variances."""

    def __init__(
        self, n_radii: int, hidden: int, exchanged: int, n_messages: int, threshold: float
    ) -> None:
        super().__init__()
        self.n_radii = n_radii
        self.first = nn.Linear(4 * n_radii + N_COMMON + hidden, hidden)
        self.send = nn.ModuleList(nn.Linear(hidden, exchanged) for _ in range(n_messages))
        self.receive = nn.ModuleList(
            nn.Linear(hidden + exchanged, hidden) for _ in range(n_messages)
        )
        self.last = small_linear(hidden, n_radii + 1)
        # Energy that head mismatch may fake, as to where a source is and whether there is one. It
        # also bounds the evidence, and with it what rounding does to the softmax.
        # In units of what chance reaches: the first step believes anything, the others only more.
        self.threshold = nn.Parameter(torch.tensor(threshold))
        self.log_mismatch = nn.Parameter(torch.tensor([-2.0, -2.5]))

    def forward(
        self,
        energy: Float[Tensor, "K S B"],
        residual_power: Float[Tensor, " B"],
        total: Float[Tensor, " B"],
        n_free: Float[Tensor, " 1"],
        n_signals: int | torch.SymInt,
        visible: Float[Tensor, " S"],
        others: Float[Tensor, "K S B"],
        own: Float[Tensor, "K S B"],
        hidden: Float[Tensor, "S B H"],
        neighbours: Tensor,
    ) -> tuple[Float[Tensor, "K S B"], Float[Tensor, "S B H"]]:
        """New variances and hidden state; noise has variance 1."""
        strongest = energy.amax((0, 1))
        mismatch_variance, chance = 1 + self.log_mismatch.exp()[:, None] * total / TYPICAL_FREEDOM
        evidence = 0.5 * (energy - strongest) / mismatch_variance
        freedom = torch.ones_like(total) * n_signals
        by_chance = energy_by_chance(freedom)
        surplus = strongest * torch.sigmoid(
            (strongest / chance - self.threshold * by_chance) / by_chance.sqrt()
        )
        # Bounded, so that single precision will do for what the network reads.
        read = (
            energy,
            evidence.clamp_min(-20),
            others,
            own,
            strongest,
            surplus,
            residual_power,
            total,
            visible,
        )
        features = _features(*(value.to(hidden.dtype) for value in read), n_free)
        # Matrices, as ONNX Runtime adds biases to them on the way.
        known = torch.cat([features.permute(1, 2, 0), hidden], dim=2).flatten(0, 1)
        state = functional.gelu(self.first(known))
        for send, receive in zip(self.send, self.receive, strict=True):
            assumptions = send(state).unflatten(0, hidden.shape[:2])
            received = neighbour_mean(assumptions, neighbours).flatten(0, 1)
            state = state + functional.gelu(receive(torch.cat([state, received], dim=1)))
        hidden = hidden + state.unflatten(0, hidden.shape[:2])
        k = self.n_radii
        out = self.last(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2]).permute(2, 0, 1)
        weight = evidence + 10 * out[:k]
        share = over_patches(weight)
        strength = out[k].clamp(-8, 8).exp() * surplus / freedom
        return share * (LARGEST * strength / (LARGEST + strength)), hidden


def _features(
    energy: Float[Tensor, "K S B"],
    evidence: Float[Tensor, "K S B"],
    others: Float[Tensor, "K S B"],
    own: Float[Tensor, "K S B"],
    strongest: Float[Tensor, " B"],
    surplus: Float[Tensor, " B"],
    residual_power: Float[Tensor, " B"],
    total: Float[Tensor, " B"],
    visible: Float[Tensor, " S"],
    n_free: Float[Tensor, " 1"],
) -> Float[Tensor, "F S B"]:
    """What the network reads of every place, of order one; see `_Step.forward`."""
    of_radius = [
        energy.log1p() / 4,
        energy / (residual_power + 1e-3),
        evidence / 10,
        others.log1p() / 4,
    ]
    common = [
        strongest.log1p() / 4,
        (residual_power / n_free + 1e-6).log() / 3,
        (total / n_free + 1e-6).log() / 3,
        surplus.log1p() / 4,
        visible[:, None],
        evidence.amax(0) / 10,
        own.sum(0).log1p() / 4,
    ]
    return torch.cat([torch.cat(of_radius), *(c.expand(1, *energy.shape[1:]) for c in common)])
