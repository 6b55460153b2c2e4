"""Trunk of the transformer: tokens of sensors and time, a correction, and a covariance."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.models.layers.evidence import SMALL_POWER
from deepesi.models.layers.features import Features
from deepesi.models.layers.space_time import SpaceTimeBlock, Tokens
from deepesi.physics.head_inputs.sensors import N_ENCODED


class SensorTrunk(nn.Module):
    """Attention over sensors and time; one token per sensor and stretch of time.

    Before the first step of training it corrects nothing and weights all stretches equally.

    Args:
        n_blocks: Number of blocks.
        hidden: Width ``H`` of both streams of tokens.
        n_heads: Heads of every attention.
        stretch: Samples of a token.
        features: Time-frequency inputs; None: broad band only.

    """

    def __init__(
        self, n_blocks: int, hidden: int, n_heads: int, stretch: int, features: Features | None
    ) -> None:
        super().__init__()
        self.stretch, self.features = stretch, features
        n_groups = 0 if features is None else features.n_groups
        self.mix = None if features is None else nn.Linear(hidden, 1 + n_groups)
        self.stem = nn.Conv1d(1, hidden, stretch, stride=stretch, bias=False)
        self.embed = nn.Linear(N_ENCODED + 3 + n_groups, hidden)
        self.blocks = nn.ModuleList(SpaceTimeBlock(hidden, n_heads) for _ in range(n_blocks))
        self.correct = nn.ConvTranspose1d(hidden, 1, stretch, stride=stretch, bias=False)
        self.count = nn.Linear(hidden, 1)
        for layer in (self.correct, self.count, self.mix):
            for parameter in () if layer is None else layer.parameters():
                nn.init.zeros_(parameter)
        if self.mix is not None:
            nn.init.constant_(self.mix.bias[:1], 2.0)  # mostly broad band

    def forward(
        self,
        white: Float[Tensor, "B C T"],
        encodings: Float[Tensor, "C n"],
        rows: Float[Tensor, "N C"],
    ) -> Tokens:
        """Tokens after all blocks.

        Args:
            white: Whitened data.
            encodings: Position, orientation and kind of the sensors.
            rows: Topographies; their mean square is the sensitivity of a sensor.

        """
        power = self._mean_over_stretches(white.square())
        total = power.mean((1, 2), keepdim=True)
        gram = rows.T @ rows
        size = gram.diagonal().clamp_min(1e-12).sqrt()
        share = gram.diagonal() * size.shape[0] / rows.shape[0]
        sensors = torch.cat([encodings, (share + 1e-12).log()[:, None]], dim=1)
        features = [
            sensors[:, None].expand(*power.shape[:3], -1),
            ((power + SMALL_POWER) / (total + SMALL_POWER)).log(),
            (total + SMALL_POWER).log().expand_as(power),
        ]
        if self.features is not None:
            groups = self.features.log_powers(white, SMALL_POWER)
            groups = groups - (total[..., 0] + SMALL_POWER).log()
            features.append(groups[:, :, None].expand(-1, -1, power.shape[2], -1))
        tokens = Tokens(
            self._stretches(white, self.stem.weight), self.embed(torch.cat(features, dim=3))
        )
        overlap = gram / (size * size[:, None])
        for block in self.blocks:
            tokens = block(tokens, overlap)
        return tokens

    def _stretches(
        self, values: Float[Tensor, "B C T"], kernel: Tensor
    ) -> Float[Tensor, "B C P H"]:
        """Convolve stretch by stretch; the last is filled with zeros."""
        n_examples, n_channels = values.shape[:2]
        padded = functional.pad(values.flatten(0, 1)[:, None], (0, self.stretch - 1))
        out = functional.conv1d(padded, kernel, stride=self.stretch)
        return out.unflatten(0, (n_examples, n_channels)).transpose(2, 3)

    def _mean_over_stretches(self, values: Float[Tensor, "B C T"]) -> Float[Tensor, "B C P 1"]:
        ones = values.new_ones(1, 1, self.stretch)
        n_samples = self._stretches(torch.ones_like(values[:1, :1]), ones)
        return self._stretches(values, ones) / n_samples

    def correction(
        self, signal: Float[Tensor, "B C P H"], white: Float[Tensor, "B C T"]
    ) -> Float[Tensor, "B C T"]:
        """What is added to the data, from the signals of the tokens."""
        out = self.correct(signal.transpose(2, 3).flatten(0, 1))[:, 0, : white.shape[2]]
        return out.unflatten(0, white.shape[:2])

    def sample_weights(
        self, state: Float[Tensor, "B C P H"], signals: Float[Tensor, "B C T"]
    ) -> Float[Tensor, "B 1 T"]:
        """How much every sample counts, with sum 1; the states of its stretch say that."""
        scores = self.count(state.mean(1))
        weights = torch.exp(scores - scores.amax(1, keepdim=True)).transpose(1, 2)
        kernel = weights.new_ones(1, 1, self.stretch)
        weights = functional.conv_transpose1d(weights, kernel, stride=self.stretch)
        weights = weights[:, :, : signals.shape[2]]
        return weights / weights.sum(2, keepdim=True)

    def covariance(
        self,
        signals: Float[Tensor, "B C T"],
        weights: Float[Tensor, "B 1 T"],
        state: Float[Tensor, "B C P H"],
    ) -> Float[Tensor, "B C C"]:
        """Second moments of the sensors, over samples with these weights."""
        covariance = (signals * weights) @ signals.mT
        if self.features is None or self.mix is None:
            return covariance
        groups = self.features(signals).transpose(1, 2)
        groups = groups @ groups.mT / groups.shape[3]
        shares = torch.softmax(self.mix(state.mean((1, 2))), dim=1)[..., None, None]
        return (shares * torch.cat([covariance[:, None], groups], dim=1)).sum(1)
