"""Electrode GNN: electrodes exchange messages on the scalp, source tokens attend to them."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.contracts import Estimate, InverseModel
from deepesi.core.patches import along_axes, over_first, spread_patches
from deepesi.models.layers.evidence import QUIET, Evidence
from deepesi.models.layers.sensor_reliability import SensorReliability
from deepesi.models.layers.signed_attention import SignedAttention
from deepesi.models.layers.sizes import check_sizes
from deepesi.physics.head_inputs import (
    PatchMoments,
    PatchPairs,
    PatchShares,
    PatchTopographies,
    Rank,
    SensorEdgeFeatures,
    SensorGraph,
    SensorPositions,
    SourceNormals,
    SourcePositions,
    SourceUnit,
    Whitener,
)

#: Brings positions in the head frame (m) to order one.
HEAD_SIZE = 0.1


class _Head(NamedTuple):
    """What a head gives, the same for every example of a batch; nodes come first everywhere."""

    n_channels: Float[Tensor, " 1"]  # see `Evidence`
    rows: Float[Tensor, "KD C"]  # unit topographies of the patches
    moments: Float[Tensor, "K S O O"]  # total moment that projects as each, in source units
    tokens: Float[Tensor, "S n"]  # position, normal, log of the moments
    sensors: Float[Tensor, "C 4"]  # position, log of the sensitivity
    visible: Float[Tensor, "S C"]  # how strongly an electrode sees the patches of a token
    edges: Int[Tensor, "E 2"]
    edge_features: Float[Tensor, "E 2"]


class _Component(NamedTuple):
    """One place of activity: a distribution over patches, and what it explains."""

    fit: Float[Tensor, "C B T"]  # whitened potential
    weights: Float[Tensor, "K S B"]  # probability of every patch; the rest is "nothing there"
    matched: Float[Tensor, "K S O B T"]  # amplitude of every patch's topographies if it is the one


class CrossAttention(nn.Module):
    """What the source tokens read from the states of the electrodes.

    The weights follow from the places of both and the lead field between them, not from the
    recording, so a batch shares them.

    Args:
        n_token: Features of a token.
        n_states: Features of a state.
        hidden: Features ``H`` that are read.
        n_heads: Heads, a divisor of `hidden`.

    """

    def __init__(self, n_token: int, n_states: int, hidden: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(n_token, hidden)
        self.key = nn.Linear(4, hidden, bias=False)
        self.value = nn.Linear(n_states, hidden, bias=False)
        self.visibility = nn.Parameter(torch.ones(n_heads, 1, 1))

    def forward(self, head: _Head, states: Float[Tensor, "C B F"]) -> Float[Tensor, "H S B"]:
        """Attention of every token over all electrodes."""
        query = self.query(head.tokens).unflatten(1, (self.n_heads, -1)).transpose(0, 1)
        key = self.key(head.sensors).unflatten(1, (self.n_heads, -1)).permute(1, 2, 0)
        scores = query @ key / math.sqrt(query.shape[2]) + self.visibility * head.visible
        value = self.value(states).unflatten(2, (self.n_heads, -1)).permute(2, 0, 3, 1)
        read = torch.softmax(scores, dim=2) @ value.flatten(2)
        return read.unflatten(2, value.shape[2:]).transpose(1, 2).flatten(0, 1)


class SensorGNN(InverseModel):
    r"""Graph network over electrodes whose decoder explains the recording place by place.

    Electrodes are nodes. A node carries signals (what temporal convolutions make of its whitened
    EEG, and what each place of activity found so far explains of it) and a state (its position, how
    strongly it sees sources, the logarithms of its signals' powers). Blocks of `SignedAttention`
    on the scalp turn them into a correction of what is left to explain. Sources are tokens
    (position, normal, moments); they attend to the electrodes twice: to the signals with the lead
    field of the patches around them as weights, which is the matched filter, and to the states
    with learned weights, `CrossAttention`. From both `Evidence` says how probable every patch is.
    The expected patch is taken off the recording before the next place is sought, and after all
    places have been, each is sought again given the others. Electrodes where an error of the head
    would tell most are trusted less, as `SensorReliability` has learned.

    The estimate is the mean over patches: it changes sign with the EEG, follows any montage and
    source space, and takes a window as a whole. With the default sizes 3,286 weights, with
    `heteroscedastic` 34 more.

    Args:
        n_components: Places of activity ``M`` sought; a posterior may still be split between more.
        n_rounds: How often each is sought.
        n_blocks: Blocks of attention among electrodes, shared by the rounds.
        n_neighbours: Nearest electrodes each is joined to.
        n_heads: Heads of every attention, a divisor of `hidden`.
        hidden: Width of states and tokens.
        n_signals: Temporal filters ``Q``.
        kernel_size: Samples of a filter, odd.
        smallest: Radius of the smallest patches, m.
        largest: Radius of the largest patches, m.
        n_radii: Radii ``K`` in between.
        heteroscedastic: Also give a standard deviation: the spread of the mean over patches, scaled
            by what is learned with a loss that asks for it (``loss=uncertainty``).

    Raises:
        ValueError: A size is not positive, the heads do not divide the width, the kernel is even,
            or the radii are not in order.

    Source: attention among electrodes is GATv2, Brody et al. 2022, arXiv:2105.14491. Ours deviates:
    weights see only what does not change sign with the EEG and signals are only added up, hence
    the odd network. Seeking each source again given the others is alternating projection, Adler et
    al. 2024, doi:10.1016/j.bspc.2023.105796; ours keeps a learned posterior over patches where
    that keeps the best dipole.

    """

    bound_to_space = False

    def __init__(
        self,
        n_components: int = 3,
        n_rounds: int = 2,
        n_blocks: int = 1,
        n_neighbours: int = 6,
        n_heads: int = 4,
        hidden: int = 16,
        n_signals: int = 4,
        kernel_size: int = 5,
        smallest: float = 0.010,
        largest: float = 0.025,
        n_radii: int = 3,
        heteroscedastic: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(
            "SensorGNN",
            n_components=n_components,
            n_rounds=n_rounds,
            n_blocks=n_blocks,
            n_neighbours=n_neighbours,
            n_heads=n_heads,
            hidden=hidden,
            n_signals=n_signals,
            kernel_size=kernel_size,
            n_radii=n_radii,
        )
        if hidden % n_heads or kernel_size % 2 == 0:
            raise ValueError(
                "SensorGNN: hidden must be a multiple of n_heads and kernel_size odd, got "
                f"hidden={hidden}, n_heads={n_heads}, kernel_size={kernel_size}."
            )
        radii, reach = (smallest, largest, n_radii), n_neighbours
        self.whitener, self.rank, self.unit = Whitener(), Rank(), SourceUnit()
        self.sensor_positions = SensorPositions()
        self.graph, self.edge_features = SensorGraph(reach), SensorEdgeFeatures(reach)
        self.reliability = SensorReliability(reach)
        self.positions, self.normals = SourcePositions(), SourceNormals()
        self.topographies, self.moments = PatchTopographies(*radii), PatchMoments(*radii)
        self.pairs, self.shares = PatchPairs(*radii), PatchShares(*radii)
        self.head_inputs = (
            self.whitener,
            self.rank,
            self.unit,
            self.sensor_positions,
            self.graph,
            self.edge_features,
            self.positions,
            self.normals,
            self.topographies,
            self.moments,
            self.pairs,
            self.shares,
            *self.reliability.head_inputs,
        )
        self.n_components, self.n_rounds = n_components, n_rounds
        every, n_token = n_signals + n_components, 6 + n_radii
        centre = kernel_size // 2
        self.window = nn.Conv1d(1, n_signals, kernel_size, padding=centre, bias=False)
        # Snapshots only ever train the centre of the filters; the rest must not be noise then.
        nn.init.zeros_(self.window.weight)
        nn.init.normal_(self.window.weight[:, :, centre])
        self.embed = nn.Linear(5 + every, hidden)
        leaving = [every] * (n_blocks - 1) + [n_components]
        self.blocks = nn.ModuleList(SignedAttention(hidden, every, n, n_heads) for n in leaving)
        self.cross = CrossAttention(n_token, hidden, hidden, n_heads)
        self.evidence = Evidence(n_radii, n_token, hidden)
        self.spread = nn.Linear(hidden, 2) if heteroscedastic else None

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Seek place after place, a few rounds; add up what they are expected to be."""
        head = self._head(inputs)
        white = (inputs[self.whitener.key] @ data).transpose(0, 1)
        reliability = self.reliability(white.mT, inputs)
        power = head.rows.square().unflatten(0, (-1, head.moments.shape[2])).mean(1)
        power = (power @ reliability.square()).unflatten(0, head.moments.shape[:2])
        white = reliability[..., None] * white
        n_radii, n_sources, n_orient = head.moments.shape[:3]
        unknown = white.new_zeros(n_radii, n_sources, n_orient, *white.shape[1:])
        components = [
            _Component(torch.zeros_like(white), unknown[:, :, 0, :, 0], unknown)
        ] * self.n_components
        for _ in range(self.n_rounds):
            read, corrections = self._listen(white, components, head)
            for number in range(self.n_components):
                correction = corrections[..., number]
                components[number], hidden = self._seek(
                    number, components, white + correction, head, read, reliability, power
                )
        return self._expect(components, hidden, white, head, inputs)

    def _head(self, inputs: dict[str, Tensor]) -> _Head:
        """The graph's geometry, whatever the recording."""
        topographies, moments = inputs[self.topographies.key], inputs[self.moments.key]
        n_orient = moments.shape[2]
        moments = (moments / inputs[self.unit.key]).unflatten(1, (-1, n_orient))
        position, sensors = inputs[self.positions.key], inputs[self.sensor_positions.key]
        seen = topographies.square() * topographies.shape[2]
        return _Head(
            n_channels=inputs[self.rank.key] + 1,
            rows=topographies.flatten(0, 1),
            moments=moments,
            tokens=torch.cat(
                [
                    position / HEAD_SIZE,
                    inputs[self.normals.key],
                    0.5 * moments.square().sum((2, 3)).log().T,
                ],
                dim=1,
            ),
            sensors=torch.cat([sensors / HEAD_SIZE, seen.mean((0, 1)).log()[:, None]], dim=1),
            visible=seen.unflatten(1, (-1, n_orient)).sum(2).mean(0).sqrt(),
            edges=inputs[self.graph.key],
            edge_features=inputs[self.edge_features.key],
        )

    def _listen(
        self, white: Float[Tensor, "C B T"], components: list[_Component], head: _Head
    ) -> tuple[Float[Tensor, "H S B"], Float[Tensor, "C B T M"]]:
        """Messages among electrodes: what the tokens read, what to correct for each place."""
        filtered = self.window(white.flatten(0, 1)[:, None]).unflatten(0, white.shape[:2])
        signals = torch.cat(
            [filtered, torch.stack([component.fit for component in components], dim=2)], dim=2
        )
        loud = (white.square().mean((0, 2)) + QUIET).log()[:, None]
        local = (signals.square().mean(3) + QUIET).log() - loud
        everywhere = head.sensors[:, None].expand(-1, local.shape[1], -1)
        loud = loud.expand_as(local[..., :1])
        states, signals = self.embed(torch.cat([everywhere, loud, local], 2)), signals.mT
        for block in self.blocks[:-1]:
            states, change = block(states, signals, head.edges, head.edge_features)
            signals = signals + change
        states, corrections = self.blocks[-1](states, signals, head.edges, head.edge_features)
        return self.cross(head, states), corrections

    def _seek(
        self,
        number: int,
        components: list[_Component],
        recording: Float[Tensor, "C B T"],
        head: _Head,
        read: Float[Tensor, "H S B"],
        reliability: Float[Tensor, "C B"],
        power: Float[Tensor, "K S B"],
    ) -> tuple[_Component, Float[Tensor, "H S B"]]:
        """Estimate one component from what the others leave of the recording.

        Args:
            number: Number of the component.
            components: All components.
            recording: The recording, weighted by `reliability`, with the correction for this place.
            head: Geometry.
            read: By the tokens from the electrodes.
            reliability: Weights of the electrodes.
            power: What the weights leave of the squared norm of the topographies.

        """
        others = components[:number] + components[number + 1 :]
        residual = recording - sum(
            (component.fit for component in others), torch.zeros_like(recording)
        )
        taken = sum((p.weights for p in others), torch.zeros_like(components[number].weights))
        n_radii, _, n_orient = head.moments.shape[:3]
        matched = head.rows @ (reliability[..., None] * residual).flatten(1)
        matched = matched.unflatten(0, (n_radii, -1, n_orient)).unflatten(3, residual.shape[1:])
        energy = matched.square().sum(2).mean(3) / power
        matched = matched / power[:, :, None, :, None]
        weights, hidden = self.evidence(
            energy,
            torch.stack([components[number].weights, taken]),
            torch.stack([recording.square().mean(2).sum(0), residual.square().mean(2).sum(0)]),
            head.n_channels,
            torch.ones_like(residual[0, 0]).sum(),
            head.tokens,
            read,
        )
        expected = (weights[:, :, None, :, None] * matched).flatten(0, 2).flatten(1)
        fit = reliability[..., None] * (head.rows.T @ expected).unflatten(1, residual.shape[1:])
        return _Component(fit, weights, matched), hidden

    def _expect(
        self,
        components: list[_Component],
        hidden: Float[Tensor, "H S B"],
        white: Float[Tensor, "C B T"],
        head: _Head,
        inputs: dict[str, Tensor],
    ) -> Estimate:
        """Mean over the patches and, if asked for, the standard deviation."""
        pairs, shares, unit = (inputs[i.key] for i in (self.pairs, self.shares, self.unit))

        def moments(amplitudes: Float[Tensor, "K S O B T"]) -> Float[Tensor, "K S O B T"]:
            return along_axes(head.moments, amplitudes)

        def dipoles(values: Float[Tensor, "S O B T"]) -> Float[Tensor, "B D T"]:
            return values.flatten(0, 1).transpose(0, 1) * unit

        chances = [component.weights[:, :, None, :, None] for component in components]
        if self.spread is None:
            parts = [
                c * component.matched for c, component in zip(chances, components, strict=True)
            ]
            total = moments(sum(parts[1:], parts[0]))
            return Estimate(dipoles(spread_patches(total, pairs, shares)))
        # Of every place on its own: places are independent, so their variances add up.
        fitted = [moments(component.matched) for component in components]
        parts = [c * m for c, m in zip(chances, fitted, strict=True)]
        means = spread_patches(torch.stack(parts, dim=2), pairs, shares)
        squares = [part * m for part, m in zip(parts, fitted, strict=True)]
        second = spread_patches(sum(squares[1:], squares[0]), pairs, shares.square())
        variance = (second - means.square().sum(1)).clamp_min(0)
        scale, floor = over_first(self.spread, hidden)[:, :, None, :, None]
        noise = white.square().mean((0, 2)).add(QUIET).sqrt()[:, None]
        std = scale.exp() * (variance + QUIET**2).sqrt() + functional.softplus(floor - 3) * noise
        return Estimate(dipoles(means.sum(1)), dipoles(std))
