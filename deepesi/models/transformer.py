"""Spatiotemporal transformer: a spatial filter per source, which depends on the data."""

import math
from typing import Literal, NamedTuple, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.contracts import Estimate, InverseModel
from deepesi.core.patches import along_axes, over_first, spread_patches
from deepesi.core.precision import in_full_precision
from deepesi.models.layers.evidence import Evidence
from deepesi.models.layers.features import Features
from deepesi.models.layers.orientation_posterior import OrientationPosterior
from deepesi.models.layers.patch_filters import PatchFilters
from deepesi.models.layers.sensor_reliability import SensorReliability
from deepesi.models.layers.sensor_trunk import SensorTrunk
from deepesi.models.layers.sizes import check_sizes
from deepesi.models.layers.space_time import Tokens
from deepesi.models.layers.window_forms import Matched, Mixing, Samples, SecondMoments
from deepesi.physics.head_inputs import (
    PatchMoments,
    PatchPairs,
    PatchShares,
    PatchTopographies,
    Rank,
    SensorEncodings,
    SourceNormals,
    SourcePositions,
    SourceUnit,
    Whitener,
)
from deepesi.physics.head_inputs.sensors import HEAD_SIZE


class Attention(NamedTuple):
    """How an estimate was made: ``estimate.mean = filters @ signals``.

    Attributes:
        filters: Weight of every sensor in every source component ``(B, D, C)``, A m.
        signals: Whitened data, as corrected by the trunk ``(B, C, T)``, no unit.
        sensors: Attention of every source to the sensors ``(B, S, C)``, positive, sum 1.

    """

    filters: Float[Tensor, "B D C"]
    signals: Float[Tensor, "B C T"]
    sensors: Float[Tensor, "B S C"]


class _Component(NamedTuple):
    """Posterior of one component.

    Attributes:
        weights: Probabilities of the patches ``(K, S, B)``.
        mixing: `PatchFilters.mixing`.
        rest: Columns of the window (`Samples`, `SecondMoments`) without the others ``(B, C, N)``.
        matched: Matched filters of these columns, by radius; empty: not computed.
        fit: What the component is expected to explain of the columns ``(B, C, N)``.

    """

    weights: Float[Tensor, "K S B"]
    mixing: Mixing
    rest: Float[Tensor, "B C N"]
    matched: Matched
    fit: Float[Tensor, "B C N"]


class SourceTransformer(InverseModel):
    r"""Learned beamforming: source queries attend to sensors, and the attention is the filter.

    1. *Trunk.* A token for each sensor and stretch of `stretch` samples: signals by a temporal
       stem, states from powers, position, orientation and kind of the sensor. Blocks of factorized
       attention over sensors and time (`SpaceTimeBlock`) correct the whitened data and say which
       stretches of time count.
    2. *Queries.* Every source (position, normal, moments) attends to the states of the sensors,
       and the trunk gives every sensor a weight. Weights times lead field are the matched filters
       of the sources; without training the weights are less where errors of the head model are
       large (`SensorReliability`).
    3. *Evidence.* Filters of patches of a few radii around all sources compete for the covariance
       of the window: a softmax over all of them (`Evidence`) is the posterior of one patch. The
       expected patch is projected out before the next component, and each is estimated again,
       given the others.

    Only products with the covariance of the sensors are made for each source, so cost and memory
    are linear in the number of sources and hardly grow with the duration. The estimate is one
    filter per source component, applied to the corrected window (`Attention`). It changes sign
    with the data and works for any montage, kind of sensor, source space and orientation. By
    default 14,923 weights.

    Args:
        n_components: Number of active patches.
        n_rounds: Number of times that each component is estimated.
        n_blocks: Blocks of the trunk.
        hidden: Width of both streams of tokens, and of the queries.
        n_heads: Attention heads of the trunk; `hidden` is a multiple of twice this number.
        stretch: Samples of a token.
        smallest: Smallest patch radius, m.
        largest: Largest patch radius, m.
        n_radii: Number of radii from smallest to largest.
        heteroscedastic: Also estimate a standard deviation. Needs a loss that trains it
            (``loss=uncertainty``).
        loose: Prior variance of topographies orthogonal to that of the normal of a patch, relative
            to that one; needs a head of free orientation below 1. 1: the orientation of the head.
        features: Time-frequency inputs. Their powers enter the states, and the covariance of the
            window becomes a mean over broad band and groups, with weights that the trunk chooses.
            None: broad band only.

    Raises:
        ValueError: A size is not positive, the heads do not divide the width, or radii are not in
            order; `loose` is not above 0 and at most 1; a window is too short for the features
            (in `forward`).

    Source: LCMV beamformer, Van Veen et al. 1997, doi:10.1109/10.623056; attention, Vaswani et al.
    2017, arXiv:1706.03762. Differences: filters are learned from simulated recordings; other
    sources are projected out, not suppressed by an inverse covariance, so that correlated time
    courses do no harm; alternating projection as in Adler et al. 2024,
    doi:10.1016/j.bspc.2023.105796.

    """

    bound_to_space = False

    def __init__(
        self,
        n_components: int = 3,
        n_rounds: int = 2,
        n_blocks: int = 2,
        hidden: int = 16,
        n_heads: int = 2,
        stretch: int = 10,
        smallest: float = 0.010,
        largest: float = 0.025,
        n_radii: int = 3,
        heteroscedastic: bool = False,
        loose: float = 1.0,
        features: Features | None = None,
    ) -> None:
        super().__init__()
        check_sizes(
            "SourceTransformer",
            n_components=n_components,
            n_rounds=n_rounds,
            n_blocks=n_blocks,
            hidden=hidden,
            n_heads=n_heads,
            stretch=stretch,
            n_radii=n_radii,
        )
        if hidden % (2 * n_heads):
            raise ValueError(
                "SourceTransformer: hidden must be a multiple of twice n_heads, got "
                f"hidden={hidden}, n_heads={n_heads}."
            )
        radii, prior = (smallest, largest, n_radii), (smallest, largest, n_radii, loose)
        self.reliability = SensorReliability()
        self.whitener, self.rank, self.unit = Whitener(), Rank(), SourceUnit()
        self.encodings = SensorEncodings()
        self.positions, self.normals = SourcePositions(), SourceNormals()
        self.topographies, self.moments = PatchTopographies(*prior), PatchMoments(*prior)
        self.pairs, self.shares = PatchPairs(*radii), PatchShares(*radii)
        self.head_inputs = (
            self.whitener,
            self.rank,
            self.unit,
            self.encodings,
            self.positions,
            self.normals,
            self.topographies,
            self.moments,
            self.pairs,
            self.shares,
            *self.reliability.head_inputs,
        )
        self.n_components, self.n_rounds, self.loose = n_components, n_rounds, loose
        n_token = 6 + n_radii
        self.short_form = features is None
        if features is not None:
            self.window_needs = features.window_needs
        self.trunk = SensorTrunk(n_blocks, hidden, n_heads, stretch, features)
        self.trust = nn.Linear(hidden, 1)
        self.query, self.key = nn.Linear(n_token, hidden), nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden, bias=False)
        self.evidence = Evidence(n_radii, n_token, hidden)
        self.spread = nn.Linear(hidden, 2) if heteroscedastic else None
        for parameter in self.trust.parameters():
            nn.init.zeros_(parameter)
        nn.init.normal_(self.query.weight, std=1e-2)

    @overload
    def forward(
        self, data: Tensor, inputs: dict[str, Tensor], return_attention: Literal[False] = False
    ) -> Estimate: ...

    @overload
    def forward(
        self, data: Tensor, inputs: dict[str, Tensor], return_attention: Literal[True]
    ) -> tuple[Estimate, Attention]: ...

    def forward(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        return_attention: bool = False,
    ) -> Estimate | tuple[Estimate, Attention]:
        """Estimate the sources; with `return_attention` also their spatial filters."""
        white, n_orient = self._white(data, inputs), inputs[self.moments.key].shape[2]
        orientation = OrientationPosterior(inputs[self.topographies.key], n_orient, self.loose)
        rows = orientation.rows.flatten(0, 2) / math.sqrt(orientation.mean_variance)
        tokens = self.trunk(white, inputs[self.encodings.key], rows)
        tokens = Tokens(*(part.to(white.dtype) for part in tokens))
        return self._localized(white, tokens, orientation, inputs, return_attention)

    @in_full_precision
    def _white(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "B C T"]:
        return inputs[self.whitener.key] @ data

    @in_full_precision
    def _localized(
        self,
        white: Float[Tensor, "B C T"],
        tokens: Tokens,
        orientation: OrientationPosterior,
        inputs: dict[str, Tensor],
        return_attention: bool,
    ) -> Estimate | tuple[Estimate, Attention]:
        """The estimate, from whitened data and the tokens of the trunk."""
        signals = white + self.trunk.correction(tokens.signal, white)
        trust = self._trust(white, tokens.state, inputs)
        patches = PatchFilters.weighted(orientation, trust)
        weighted = trust[..., None] * signals
        shares = self.trunk.sample_weights(tokens.state, signals)
        read, n_times = self._read(tokens.state, inputs), _count(signals)
        if self.short_form and self.is_short(signals) and not return_attention:
            window: Samples | SecondMoments = Samples(weighted, shares)
            components, hidden = self._components(patches, window, read, n_times, inputs)
            return self._estimate(self._sources(patches, components, inputs), hidden, inputs)
        covariance = self.trunk.covariance(weighted, shares, tokens.state)
        identity = torch.diag_embed(torch.ones_like(covariance[:, 0]))
        window = SecondMoments(identity, covariance)
        components, hidden = self._components(patches, window, read, n_times, inputs)
        filters = self._sources(patches, components, inputs)
        estimate = self._estimate(filters @ weighted, hidden, inputs)
        if return_attention:
            sensors = self._attention(tokens.state, inputs)
            return estimate, Attention(filters * trust[:, None], signals, sensors)
        return estimate

    # ---- the spatial filters

    def _trust(
        self,
        white: Float[Tensor, "B C T"],
        state: Float[Tensor, "B C P H"],
        inputs: dict[str, Tensor],
    ) -> Float[Tensor, "B C"]:
        """Weight of every sensor: less where the head model or the sensor itself is wrong."""
        reliability = self.reliability(white.permute(1, 2, 0), inputs).T
        return reliability * 2 * torch.sigmoid(self.trust(state.mean(2)))[..., 0]

    def _read(
        self, state: Float[Tensor, "B C P H"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "H S B"]:
        """What the sources read from the states of the sensors that they attend to."""
        sensors = state.mean(2)
        query = self.query(self._tokens(inputs)).expand(state.shape[0], -1, -1)
        read = functional.scaled_dot_product_attention(
            query[:, None], self.key(sensors)[:, None], self.value(sensors)[:, None]
        )
        return read[:, 0].permute(2, 1, 0)

    def _attention(
        self, state: Float[Tensor, "B C P H"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "B S C"]:
        """Weights of `_read`."""
        query, key = self.query(self._tokens(inputs)), self.key(state.mean(2))
        return torch.softmax(query @ key.mT / math.sqrt(query.shape[1]), dim=2)

    def _tokens(self, inputs: dict[str, Tensor]) -> Float[Tensor, "S n"]:
        """Position, normal and log moments of every source."""
        moments = inputs[self.moments.key] / inputs[self.unit.key]
        moments = moments.unflatten(1, (-1, moments.shape[2]))
        position = inputs[self.positions.key] / HEAD_SIZE
        size = 0.5 * moments.square().sum((2, 3)).log().T
        return torch.cat([position, inputs[self.normals.key], size], dim=1)

    def _components(
        self,
        patches: PatchFilters,
        window: Samples | SecondMoments,
        read: Float[Tensor, "H S B"],
        n_times: Float[Tensor, ""],
        inputs: dict[str, Tensor],
    ) -> tuple[list[_Component], Float[Tensor, "H S B"]]:
        """Estimate each component from what the others leave, in rounds.

        Also returns the hidden features of the sources.
        """
        blank, nothing = torch.zeros_like(patches.power), torch.zeros_like(window.columns)
        components = [_Component(blank, None, nothing, [], nothing)] * self.n_components
        tokens, rank, hidden = self._tokens(inputs), inputs[self.rank.key], read
        total = window.power(window.columns)
        for number in list(range(self.n_components)) * self.n_rounds:
            others = components[:number] + components[number + 1 :]
            rest = window.columns - sum((other.fit for other in others), nothing)
            power = torch.stack([total, window.power(rest)])
            mixing = patches.mixing(self.evidence.strength(power, rank, n_times))
            energy, matched = window.explained(patches, rest, mixing)
            weights, hidden = self.evidence(
                energy,
                torch.stack(
                    [components[number].weights, sum((other.weights for other in others), blank)]
                ),
                power,
                rank + 1,
                n_times,
                tokens,
                read,
            )
            fit = window.fit(patches, matched, rest, weights, mixing)
            components[number] = _Component(weights, mixing, rest, matched, fit)
        return components, hidden

    # ---- the estimate

    def _sources(
        self, patches: PatchFilters, components: list[_Component], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "B D N"]:
        """Expected moments of the sources, A m, for every column of the window."""
        moments = inputs[self.moments.key].unflatten(1, (-1, patches.n_orient))
        matched = [part.matched or patches.matched(part.rest) for part in components]
        by_radius = []
        for k in range(moments.shape[0]):
            parts = [
                patches.amplitudes(k, of_one[k], part.weights, part.mixing)
                for of_one, part in zip(matched, components, strict=True)
            ]
            expected = sum(parts[1:], parts[0]).unflatten(0, (-1, patches.n_orient))
            by_radius.append(along_axes(moments[k, None], expected[None])[0])
        total = torch.stack(by_radius)
        pairs, shares = inputs[self.pairs.key], inputs[self.shares.key]
        return spread_patches(total, pairs, shares).flatten(0, 1).permute(2, 0, 1)

    def _estimate(
        self,
        mean: Float[Tensor, "B D T"],
        hidden: Float[Tensor, "H S B"],
        inputs: dict[str, Tensor],
    ) -> Estimate:
        """The estimate and, with `heteroscedastic`, a floor and a share of it as std."""
        if self.spread is None:
            return Estimate(mean)
        floor, share = functional.softplus(over_first(self.spread, hidden) - 3)
        n_orient = inputs[self.moments.key].shape[2]
        floor, share = (
            part.T[:, :, None, None].expand(-1, -1, n_orient, -1).flatten(1, 2)
            for part in (floor, share)
        )
        return Estimate(mean, inputs[self.unit.key] * floor + share * mean.abs())


def _count(signals: Float[Tensor, "B C T"]) -> Float[Tensor, ""]:
    """Number of samples, also in a traced graph."""
    return torch.ones_like(signals[0, 0]).sum()
