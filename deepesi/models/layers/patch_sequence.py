"""Evidence of one more patch, given the earlier ones and a skull: matched filters of a residual."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: Number of a slot without a patch.
NONE = -1


class Recordings(NamedTuple):
    """Whitened recordings, and all that one of ``P`` patches explains of them.

    The topographies depend on the skull through ``M`` filters between the channels, see
    `deepesi.physics.head_inputs.SkullFilters`. A skull between two of them has a weighted sum of
    both filters, so its topographies and matched filters follow from those of the ``M`` skulls.
    """

    white: Float[Tensor, "B C T"]
    rows: Float[Tensor, "P C"]  # unit topographies under the nominal skull
    filters: Float[Tensor, "M C C"]
    squares: Float[Tensor, "MM P"]  # products of the filtered topographies of two skulls
    energies: Float[Tensor, "B MM P"]  # mean over samples of the product of two matched filters
    found: Float[Tensor, "B MT P"]  # matched filters, over the samples
    strength: Float[Tensor, " B"]  # prior variance of the amplitude of a unit topography


def look(
    white: Float[Tensor, "B C T"],
    rows: Float[Tensor, "P C"],
    filters: Float[Tensor, "M C C"],
    strength: Float[Tensor, " B"],
) -> Recordings:
    """Apply the matched filters of all patches under all skulls."""
    n_skulls, n_patches = filters.shape[0], rows.shape[0]
    seen = rows @ filters.mT
    found = (white.mT[:, None] @ seen.mT).contiguous()
    squares = [(one * other).sum(1) for one in seen for other in seen]
    by_skull = found.unbind(1)
    energies = [(one * other).mean(1) for one in by_skull for other in by_skull]
    return Recordings(
        white,
        rows,
        filters,
        torch.stack(squares),
        torch.stack(energies, dim=1),
        found.reshape(-1, n_skulls * white.shape[2], n_patches),
        strength,
    )


class PatchSequence:
    """Patches of ``N`` configurations per recording, taken one after the other.

    The amplitudes of all patches are integrated out, with a normal prior of the variance
    ``strength``: what is left of a recording is ``(I + R R^T)^-1 v`` with the topographies ``R`` of
    the earlier patches. Arrays over all patches do not grow with the number of samples in time.

    Energies are differences of large numbers, so they have the precision of the recordings. All
    other arrays over all patches have that of the squares: single precision is enough.

    Args:
        recordings: Result of `look`.
        skull: Weights of the ``M`` skulls, sum 1.

    """

    def __init__(self, recordings: Recordings, skull: Float[Tensor, "N B M"]) -> None:
        self.recordings, self.skull = recordings, skull
        self.pairs = (skull[..., None] * skull[..., None, :]).flatten(2)
        #: Squared norms of the topographies; energies are those of topographies of this norm.
        self.square: Float[Tensor, "N B P"] = self.pairs.to(recordings.squares) @ recordings.squares
        energy = (self.pairs.transpose(0, 1) @ recordings.energies).transpose(0, 1)
        self.energy: Float[Tensor, "N B P"] = energy
        #: Squares of what the earlier patches leave of the topographies, plus square/strength.
        #: None: no patch was taken.
        self.left: Float[Tensor, "N B P"] | None = None
        self._products: list[Float[Tensor, "N B P"]] = []
        self._vectors: list[Float[Tensor, "N B C"]] = []
        self._amplitudes: list[Float[Tensor, "N B T"]] = []

    @property
    def _least(self) -> Float[Tensor, "B 1"]:
        return (1 / self.recordings.strength[:, None]).to(self.square)

    def explained(self) -> Float[Tensor, "N B P"]:
        """Power (mean over samples) that each patch explains beyond the earlier ones."""
        energy = self.energy.to(self.square).clamp_min(0)
        if self.left is None:
            return energy / self.square * (1 / (1 + self._least))
        return energy / self.left

    def evidence(self) -> Float[Tensor, "N B P"]:
        """Twice the log-likelihood per sample of each patch, its amplitude integrated out.

        Without what all patches have in common.
        """
        explained = self.explained()
        return explained if self.left is None else explained - (self.left / self.square).log()

    def remaining(self) -> Float[Tensor, "N B"]:
        """Power (mean over samples) that the earlier patches leave."""
        power = self.recordings.white.square().sum(1).mean(1)
        taken = [amplitude.square().mean(2) for amplitude in self._amplitudes]
        left = sum(taken, start=torch.zeros_like(self.energy[..., 0]))
        return (power - left).clamp_min(0)

    def topography(self, number: Int[Tensor, "N B"]) -> Float[Tensor, "N B C"]:
        """Unit topography of a patch under the skull of its configuration; 0 without a patch."""
        filled = number.clamp_min(0)
        rows = self.recordings.rows.index_select(0, filled.flatten()).unflatten(0, number.shape)
        seen = self._filtered(rows, self.recordings.filters.mT)
        return seen * (self.inverse_norm_of(number) * (number != NONE))[..., None]

    def inverse_norm_of(self, number: Int[Tensor, "N B"]) -> Float[Tensor, "N B"]:
        """One over the norm of the filtered topography of a patch."""
        filled = number.clamp_min(0)
        rows = self.recordings.squares.T.index_select(0, filled.flatten())
        return (self.pairs * rows.unflatten(0, number.shape)).sum(2).rsqrt()

    def take(self, topography: Float[Tensor, "N B C"]) -> None:
        """Take one more patch."""
        white = self.recordings.white
        row = self.recordings.strength.sqrt()[:, None] * topography
        left = row
        for other in self._vectors:
            left = left - other * (other * row).sum(2, keepdim=True)
        vector = left / (1 + (left * row).sum(2, keepdim=True)).sqrt()
        amplitude = (vector[:, :, None] @ white)[:, :, 0]
        along = self._along(vector)
        # Products with the dictionary of the data, over time, that go with this vector.
        weights = (self.skull[..., None] * amplitude[:, :, None]).flatten(2) / white.shape[2]
        seen = (2 * weights.transpose(0, 1) @ self.recordings.found).transpose(0, 1)
        change = seen - along * amplitude.square().mean(2, keepdim=True)
        for product, other in zip(self._products, self._amplitudes, strict=True):
            change = change - product * (2 * (amplitude * other).mean(2, keepdim=True))
        self.energy = self.energy - along * change
        before = self.square * (1 + self._least) if self.left is None else self.left
        left = before - along.to(self.square).square()
        self.left = left.maximum(self.square * self._least)
        self._vectors.append(vector)
        self._products.append(along)
        self._amplitudes.append(amplitude)

    def _along(self, vector: Float[Tensor, "N B C"]) -> Float[Tensor, "N B P"]:
        """Products with all topographies."""
        return self._filtered(vector, self.recordings.filters) @ self.recordings.rows.T

    def _filtered(
        self, vectors: Float[Tensor, "N B C"], filters: Float[Tensor, "M C C"]
    ) -> Float[Tensor, "N B C"]:
        """Vectors times the filter of the skull of their configuration."""
        by_skull = vectors @ filters.transpose(0, 1).flatten(1)
        by_skull = by_skull.unflatten(2, (filters.shape[0], -1))
        return (by_skull * self.skull[..., None]).sum(2)


def skull_weights(log_ratio: Float[Tensor, "N B"], log_widest: float, n: int) -> Tensor:
    """Weights ``(N, B, M)`` of the filters: linear between two, in the logarithm of the ratio."""
    if n == 1:
        return torch.ones_like(log_ratio)[..., None]
    step = 2 * log_widest / (n - 1)
    grid = torch.arange(n, dtype=log_ratio.dtype, device=log_ratio.device) * step - log_widest
    inside = log_ratio.clamp(-log_widest, log_widest)[..., None]
    return (1 - (inside - grid).abs() / step).clamp_min(0)


def greedy(recordings: Recordings, n_patches: int) -> Float[Tensor, "J M B"]:
    """Power that the best 1 to ``J`` patches explain, each found given the earlier, by skull."""
    n_skulls, n_examples = recordings.filters.shape[0], recordings.white.shape[0]
    one = torch.eye(n_skulls).to(recordings.white)
    sequence = PatchSequence(recordings, one[:, None].expand(-1, n_examples, -1))
    powers = []
    for number in range(n_patches):
        power, best = sequence.explained().max(2)
        powers.append(power)
        if number < n_patches - 1:
            sequence.take(sequence.topography(best))
    return torch.stack(powers).cumsum(0)
