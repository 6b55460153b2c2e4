"""Graph network: sensors exchange messages on the scalp, source tokens attend to them."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.contracts import Estimate, InverseModel
from deepesi.core.patches import along_axes, over_first, spread_patches
from deepesi.core.precision import in_full_precision
from deepesi.models.layers.evidence import SMALL_POWER, Evidence
from deepesi.models.layers.features import Features
from deepesi.models.layers.orientation_posterior import OrientationPosterior
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

#: Length that scales positions in the head frame to order one, m.
HEAD_SIZE = 0.1


class _Head(NamedTuple):
    """Tensors of the head, shared by all examples of a batch. Nodes are the first axis."""

    rank: Float[Tensor, " 1"]  # of the noise covariance
    rows: Float[Tensor, "KD C"]  # topographies of the patches
    posterior: OrientationPosterior
    moments: Float[Tensor, "K S O O"]  # total moment of a unit topography, in source units
    tokens: Float[Tensor, "S n"]  # position, normal, log of the moments
    sensors: Float[Tensor, "C 4"]  # position, log of the sensitivity
    sensitivity: Float[Tensor, "S C"]  # of an sensor to the patches around a source
    edges: Int[Tensor, "E 2"]
    edge_features: Float[Tensor, "E 2"]


class _Component(NamedTuple):
    """One active patch: a probability distribution over all patches, and the fitted potential."""

    fit: Float[Tensor, "C B T"]  # whitened potential
    weights: Float[Tensor, "K S B"]  # probability per patch; the rest: no activity
    matched: Float[Tensor, "K S O B T"]  # amplitudes, given that patch


class CrossAttention(nn.Module):
    """Cross-attention from source tokens (queries) to sensors (keys, values).

    The attention weights depend on source positions, sensor positions and the lead field, not
    on the recording. All examples of a batch share them.

    Args:
        n_token: Features of a token.
        n_states: Features of an sensor state.
        hidden: Output features ``H``.
        n_heads: Attention heads, a divisor of `hidden`.

    """

    def __init__(self, n_token: int, n_states: int, hidden: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(n_token, hidden)
        self.key = nn.Linear(4, hidden, bias=False)
        self.value = nn.Linear(n_states, hidden, bias=False)
        self.sensitivity = nn.Parameter(torch.ones(n_heads, 1, 1))

    def forward(self, head: _Head, states: Float[Tensor, "C B F"]) -> Float[Tensor, "H S B"]:
        """Return the attended features of every token."""
        value = self.value(states).unflatten(2, (self.n_heads, -1)).permute(2, 0, 3, 1)
        read = self.weights(head) @ value.flatten(2)
        return read.unflatten(2, value.shape[2:]).transpose(1, 2).flatten(0, 1)

    def weights(self, head: _Head) -> Float[Tensor, "A S C"]:
        """Attention of every token to every sensor; it sums to 1 over sensors."""
        query = self.query(head.tokens).unflatten(1, (self.n_heads, -1)).transpose(0, 1)
        key = self.key(head.sensors).unflatten(1, (self.n_heads, -1)).permute(1, 2, 0)
        scores = query @ key / math.sqrt(query.shape[2]) + self.sensitivity * head.sensitivity
        return torch.softmax(scores, dim=2)


class SensorGNN(InverseModel):
    r"""Graph network over sensors with a decoder that estimates one active patch at a time.

    Sensors are nodes. A node carries signals (temporal convolutions of its whitened data, and
    the potential fitted by each component so far) and a state (position, sensitivity, logarithms
    of the signal powers). Blocks of `SignedAttention` on the scalp turn them into a correction of
    the residual. Sources are tokens (position, normal, moments). They attend to the sensors
    twice: to the signals, with the lead field of the patches around the source as weights (the
    matched filter), and to the states, with learned weights (`CrossAttention`). From both,
    `Evidence` computes the probability of every patch. The expected potential of a component is
    subtracted before the next component is estimated. In the next round each is estimated again,
    given the others. `SensorReliability` learns to give a low weight to sensors where an
    error of the head model has a large effect.

    The estimate is the posterior mean over patches. It changes sign with the data, works for any
    montage and source space, and inverts a window as a whole. With the default sizes 3,286 weights,
    with `heteroscedastic` 34 more.

    Args:
        n_components: Number ``M`` of active patches. The posterior of one may have several modes.
        n_rounds: Number of times that each component is estimated.
        n_blocks: Attention blocks between sensors, shared by the rounds.
        n_neighbours: Nearest sensors that send messages to an sensor.
        n_heads: Heads of every attention layer, a divisor of `hidden`.
        hidden: Width of states and tokens.
        n_signals: Number ``Q`` of temporal filters.
        kernel_size: Length of a temporal filter in samples, odd.
        smallest: Smallest patch radius, m.
        largest: Largest patch radius, m.
        n_radii: Number ``K`` of patch radii from smallest to largest.
        heteroscedastic: Also estimate a standard deviation: the spread over patches, scaled by
            learned factors. Needs a loss that trains it (``loss=uncertainty``).
        loose: Prior variance of topographies orthogonal to that of the normal of a patch, relative
            to that one; needs a head of free orientation below 1. The evidence is marginal over
            the orientation, and weights of sensors count for each one. 1: the orientation of the
            head, fixed or free; with free orientation the weights count by their mean.
        features: Time-frequency inputs, whose powers enter the states; None: none.

    Raises:
        ValueError: A size is not positive, the heads do not divide the width, the kernel is even,
            the radii are not in order, or `loose` is not above 0 and at most 1; a window is too
            short for the features (in `forward`).

    Source: attention between sensors is GATv2, Brody et al. 2022, arXiv:2105.14491.
    Difference: attention weights depend only on quantities without sign, and signals are only
    added up, so the network is an odd function of the data. Estimating each source again given
    the others is alternating projection, Adler et al. 2024, doi:10.1016/j.bspc.2023.105796.
    Difference: a learned posterior over patches in place of the single best dipole.

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
        loose: float = 1.0,
        features: Features | None = None,
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
        self.graph, self.edge_features = SensorGraph(reach), SensorEdgeFeatures(reach, loose)
        self.reliability = SensorReliability(reach)
        self.positions, self.normals = SourcePositions(), SourceNormals()
        prior = (*radii, loose)
        self.topographies, self.moments = PatchTopographies(*prior), PatchMoments(*prior)
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
        self.n_components, self.n_rounds, self.loose = n_components, n_rounds, loose
        n_all, n_token = n_signals + n_components, 6 + n_radii
        centre = kernel_size // 2
        self.window = nn.Conv1d(1, n_signals, kernel_size, padding=centre, bias=False)
        # Data of one sample train only the centre of a filter, so the other weights start at 0.
        nn.init.zeros_(self.window.weight)
        nn.init.normal_(self.window.weight[:, :, centre])
        self.features, n_groups = features, 0 if features is None else features.n_groups
        if features is not None:
            self.window_needs = features.window_needs
        self.embed = nn.Linear(5 + n_all + n_groups, hidden)
        n_outs = [n_all] * (n_blocks - 1) + [n_components]
        self.blocks = nn.ModuleList(SignedAttention(hidden, n_all, n, n_heads) for n in n_outs)
        self.cross = CrossAttention(n_token, hidden, hidden, n_heads)
        self.evidence = Evidence(n_radii, n_token, hidden)
        self.spread = nn.Linear(hidden, 2) if heteroscedastic else None

    @in_full_precision
    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Estimate the components one by one, in rounds, and add up their expected moments."""
        head = self._head(inputs)
        white = (inputs[self.whitener.key] @ data).transpose(0, 1)
        reliability = self.reliability(white.mT, inputs)
        power = head.rows.square().unflatten(0, (-1, head.moments.shape[2])).mean(1)
        power = power / head.posterior.mean_variance
        power = (power @ reliability.square()).unflatten(0, head.moments.shape[:2])
        grams = head.posterior.weighted_grams(reliability)
        white = reliability[..., None] * white
        n_radii, n_sources, n_orient = head.moments.shape[:3]
        zeros = white.new_zeros(n_radii, n_sources, n_orient, *white.shape[1:])
        components = [
            _Component(torch.zeros_like(white), zeros[:, :, 0, :, 0], zeros)
        ] * self.n_components
        for _ in range(self.n_rounds):
            read, corrections = self._messages(white, components, head)
            for number in range(self.n_components):
                correction = corrections[..., number]
                components[number], hidden = self._component(
                    number, components, white + correction, head, read, reliability, power, grams
                )
        return self._estimate(components, hidden, white, head, inputs)

    def _head(self, inputs: dict[str, Tensor]) -> _Head:
        """Tensors that depend on the head only."""
        topographies, moments = inputs[self.topographies.key], inputs[self.moments.key]
        n_orient = moments.shape[2]
        moments = (moments / inputs[self.unit.key]).unflatten(1, (-1, n_orient))
        position, sensors = inputs[self.positions.key], inputs[self.sensor_positions.key]
        posterior = OrientationPosterior(topographies, n_orient, self.loose)
        squares = topographies.square() * topographies.shape[2]
        mean_square = squares.mean((0, 1)) / posterior.mean_variance
        return _Head(
            rank=inputs[self.rank.key],
            rows=topographies.flatten(0, 1),
            posterior=posterior,
            moments=moments,
            tokens=torch.cat(
                [
                    position / HEAD_SIZE,
                    inputs[self.normals.key],
                    0.5 * moments.square().sum((2, 3)).log().T,
                ],
                dim=1,
            ),
            sensors=torch.cat([sensors / HEAD_SIZE, mean_square.log()[:, None]], dim=1),
            sensitivity=squares.unflatten(1, (-1, n_orient)).sum(2).mean(0).sqrt(),
            edges=inputs[self.graph.key],
            edge_features=inputs[self.edge_features.key],
        )

    def _messages(
        self, white: Float[Tensor, "C B T"], components: list[_Component], head: _Head
    ) -> tuple[Float[Tensor, "H S B"], Float[Tensor, "C B T M"]]:
        """Features that the source tokens attend to, and a correction of the data per component."""
        filtered = self.window(white.flatten(0, 1)[:, None]).unflatten(0, white.shape[:2])
        signals = torch.cat(
            [filtered, torch.stack([component.fit for component in components], dim=2)], dim=2
        )
        log_power = (white.square().mean((0, 2)) + SMALL_POWER).log()[:, None]
        local = (signals.square().mean(3) + SMALL_POWER).log() - log_power
        sensors = head.sensors[:, None].expand(-1, local.shape[1], -1)
        groups = []
        if self.features is not None:
            of_groups = self.features.log_powers(white.transpose(0, 1), SMALL_POWER)
            groups.append(of_groups.transpose(0, 1) - log_power)
        log_power = log_power.expand_as(local[..., :1])
        states = self.embed(torch.cat([sensors, log_power, local, *groups], 2))
        signals = signals.mT
        for block in self.blocks[:-1]:
            states, change = block(states, signals, head.edges, head.edge_features)
            signals = signals + change
        states, corrections = self.blocks[-1](states, signals, head.edges, head.edge_features)
        return self.cross(head, states), corrections

    def _component(
        self,
        number: int,
        components: list[_Component],
        recording: Float[Tensor, "C B T"],
        head: _Head,
        read: Float[Tensor, "H S B"],
        reliability: Float[Tensor, "C B"],
        power: Float[Tensor, "K S B"],
        grams: Float[Tensor, "K S O O B"] | None,
    ) -> tuple[_Component, Float[Tensor, "H S B"]]:
        """Estimate one component from the residual of the others.

        Args:
            number: Index of the component.
            components: All components, as estimated so far.
            recording: Whitened data, weighted by `reliability`, plus the correction of this one.
            head: Tensors of the head.
            read: Features that the source tokens attended to.
            reliability: Weights of the sensors, at most 1.
            power: Squared norm of the topographies after weighting by `reliability`.
            grams: Products of the topographies of a patch after weighting; None if free.

        Returns:
            The new component, and the hidden features of every source.

        """
        others = components[:number] + components[number + 1 :]
        residual = recording - sum(
            (component.fit for component in others), torch.zeros_like(recording)
        )
        other_weights = sum(
            (component.weights for component in others),
            torch.zeros_like(components[number].weights),
        )
        n_radii, _, n_orient = head.moments.shape[:3]
        matched = head.rows @ (reliability[..., None] * residual).flatten(1)
        matched = matched.unflatten(0, (n_radii, -1, n_orient)).unflatten(3, residual.shape[1:])
        powers = torch.stack([x.square().mean(2).sum(0) for x in (recording, residual)])
        n_times = torch.ones_like(residual[0, 0]).sum()
        strength = self.evidence.strength(powers, head.rank, n_times)
        amplitudes = head.posterior.weighted_amplitudes(matched, strength, grams, power)
        energy = (matched * amplitudes).sum(2).mean(3) / power
        matched = amplitudes / power[:, :, None, :, None]
        weights, hidden = self.evidence(
            energy,
            torch.stack([components[number].weights, other_weights]),
            powers,
            head.rank + 1,
            n_times,
            head.tokens,
            read,
        )
        expected = (weights[:, :, None, :, None] * matched).flatten(0, 2).flatten(1)
        fit = reliability[..., None] * (head.rows.T @ expected).unflatten(1, residual.shape[1:])
        return _Component(fit, weights, matched), hidden

    def _estimate(
        self,
        components: list[_Component],
        hidden: Float[Tensor, "H S B"],
        white: Float[Tensor, "C B T"],
        head: _Head,
        inputs: dict[str, Tensor],
    ) -> Estimate:
        """Posterior mean over the patches and, with `heteroscedastic`, the standard deviation."""
        pairs, shares, unit = (inputs[i.key] for i in (self.pairs, self.shares, self.unit))

        def moments(amplitudes: Float[Tensor, "K S O B T"]) -> Float[Tensor, "K S O B T"]:
            return along_axes(head.moments, amplitudes)

        def dipoles(values: Float[Tensor, "S O B T"]) -> Float[Tensor, "B D T"]:
            return values.flatten(0, 1).transpose(0, 1) * unit

        probabilities = [component.weights[:, :, None, :, None] for component in components]
        if self.spread is None:
            parts = [
                probability * component.matched
                for probability, component in zip(probabilities, components, strict=True)
            ]
            total = moments(sum(parts[1:], parts[0]))
            return Estimate(dipoles(spread_patches(total, pairs, shares)))
        # Components are independent, so their variances add up.
        fitted = [moments(component.matched) for component in components]
        parts = [p * m for p, m in zip(probabilities, fitted, strict=True)]
        means = spread_patches(torch.stack(parts, dim=2), pairs, shares)
        squares = [part * m for part, m in zip(parts, fitted, strict=True)]
        second = spread_patches(sum(squares[1:], squares[0]), pairs, shares.square())
        variance = (second - means.square().sum(1)).clamp_min(0)
        scale, floor = over_first(self.spread, hidden)[:, :, None, :, None]
        noise = white.square().mean((0, 2)).add(SMALL_POWER).sqrt()[:, None]
        std = (
            scale.exp() * (variance + SMALL_POWER**2).sqrt()
            + functional.softplus(floor - 3) * noise
        )
        return Estimate(dipoles(means.sum(1)), dipoles(std))
