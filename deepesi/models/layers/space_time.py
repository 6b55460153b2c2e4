"""Transformer over sensors and time whose signals change sign with the data."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

#: Mean square that is added before a division, in units of whitened noise.
SMALL = 1e-3


class Tokens(NamedTuple):
    """One token per sensor and stretch of time, in two streams.

    Attributes:
        signal: Changes sign with the data, in units of whitened noise.
        state: Has no sign.

    """

    signal: Float[Tensor, "B C P H"]
    state: Float[Tensor, "B C P H"]


class SpaceTimeBlock(nn.Module):
    """Attention over sensors, attention over time, and a perceptron per token.

    Products of two signals have no sign, so attention weights may depend on them: two sensors with
    alike signals attend to each other. Signals are added up by these weights and multiplied by
    gates of the states, and have no biases. So the block is an odd function of the signals and an
    even one of the states. Before the first step of training it adds nothing.

    Args:
        width: Features ``H`` of each stream.
        n_heads: Heads of each attention, a divisor of `width`, with an even quotient.

    Source: factorized space-time attention, Bertasius et al. 2021, arXiv:2102.05095. Differences:
    two streams; all sensors of one stretch of time attend to each other.

    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.space = SignedSelfAttention(width, n_heads)
        self.overlap = nn.Parameter(torch.zeros(n_heads, 1, 1))
        self.time = SignedSelfAttention(width, n_heads)
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(2 * width, 2 * width)
        self.second = nn.Linear(2 * width, width)
        self.gate = nn.Linear(2 * width, width)
        for layer in (self.second, self.gate):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tokens, overlap: Float[Tensor, "C C"]) -> Tokens:
        """Return the tokens after the block.

        Args:
            tokens: Tokens before it.
            overlap: Correlation of the lead fields of two sensors.

        """
        tokens = _add(tokens, self.space(tokens, 2, bias=self.overlap * overlap))
        tokens = _add(tokens, self.time(tokens, 1, rotary=True))
        relative = tokens.signal / rms(tokens.signal)
        hidden = torch.cat([self.norm(tokens.state), relative.square().log1p()], dim=3)
        hidden = functional.gelu(self.first(hidden))
        return Tokens(
            tokens.signal * (1 + torch.tanh(self.gate(hidden))), tokens.state + self.second(hidden)
        )


class SignedSelfAttention(nn.Module):
    """Self-attention of `Tokens` along one axis: one set of weights for both streams.

    Args:
        width: Features of each stream.
        n_heads: Heads.

    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(width)
        self.of_state = nn.Linear(width, 3 * width)
        self.of_signal = nn.Linear(width, 3 * width, bias=False)
        self.to_state = nn.Linear(width, width)
        self.to_signal = nn.Linear(width, width, bias=False)
        for layer in (self.to_state, self.to_signal):
            nn.init.zeros_(layer.weight)

    def forward(
        self,
        tokens: Tokens,
        other: int,
        bias: Float[Tensor, "A N N"] | None = None,
        rotary: bool = False,
    ) -> Tokens:
        """What both streams read, to be added to them.

        Args:
            tokens: The tokens.
            other: Axis along which tokens do not attend: 2 (time) or 1 (sensors).
            bias: Added to the scores of the heads.
            rotary: Whether scores depend on the distance along the axis.

        """
        scale = rms(tokens.signal)
        streams = (
            self._heads(self.of_state(self.norm(tokens.state)), other, rotary),
            self._heads(self.of_signal(tokens.signal / scale), other, rotary),
        )
        query, key, value = (
            torch.cat([part[i] for part in streams], dim=-1) for i in range(3)
        )  # (B, other, A, N, 2 H / A)
        shape = query.shape[:2]  # ONNX has attention of four axes
        query, key, value = (part.flatten(0, 1) for part in (query, key, value))
        read = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=None if bias is None else bias.to(query)
        )
        read = read.unflatten(0, shape).transpose(2, 3)
        state, signal = (half.flatten(3) for half in read.chunk(2, dim=-1))
        if other == 2:
            state, signal = state.transpose(1, 2), signal.transpose(1, 2)
        return Tokens(scale * self.to_signal(signal), self.to_state(state))

    def _heads(self, values: Tensor, other: int, rotary: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key, value ``(B, other, A, N, H / A)``."""
        values = values.transpose(1, 2) if other == 2 else values
        query, key, value = (
            part.unflatten(3, (self.n_heads, -1)).transpose(2, 3) for part in values.chunk(3, dim=3)
        )
        return (rotated(query), rotated(key), value) if rotary else (query, key, value)


def _add(tokens: Tokens, change: Tokens) -> Tokens:
    return Tokens(tokens.signal + change.signal, tokens.state + change.state)


def rms(signal: Float[Tensor, "B C P H"]) -> Float[Tensor, "B 1 1 1"]:
    """Root mean square over all tokens of an example: relative sizes of the sensors stay."""
    return (signal.square().mean((1, 2, 3), keepdim=True) + SMALL).sqrt()


def rotated(values: Float[Tensor, "*shape N d"]) -> Float[Tensor, "*shape N d"]:
    """Rotary encoding of the position along the axis before the last.

    Pairs of features are turned by an angle proportional to the position, so that products of
    queries and keys depend on the difference of two positions only.

    Source: Su et al. 2021, arXiv:2104.09864.
    """
    half = values.shape[-1] // 2
    step = torch.arange(half, device=values.device, dtype=values.dtype)
    frequency = torch.exp(-math.log(1000.0) / half * step)
    position = torch.ones_like(values[..., :1]).cumsum(-2) - 1
    angle = position * frequency
    first, second = values[..., :half], values[..., half:]
    return torch.cat(
        [
            first * angle.cos() - second * angle.sin(),
            first * angle.sin() + second * angle.cos(),
        ],
        dim=-1,
    )
