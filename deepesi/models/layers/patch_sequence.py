"""Evidence of one more patch, given the earlier ones and a skull: matched filters of a residual."""

import itertools
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepesi.core.quantities import summed_power

#: Number of a slot without a patch.
NONE = -1


class Recordings(NamedTuple):
    """Whitened recordings, and products with the topographies of ``P`` patches.

    The topographies depend on the skull through ``M`` filters between the channels, see
    `deepesi.physics.head_inputs.SkullFilters`. A skull between two of them has a weighted sum of
    both filters, so its topographies and matched filters follow from those of the ``M`` skulls.
    """

    white: Float[Tensor, "B C T"]
    rows: Float[Tensor, "P C"]  # unit topographies under the nominal skull
    filters: Float[Tensor, "M C C"]
    # Pairs of skulls, each once (`pairs_of`):
    squares: Float[Tensor, "Q P"]  # products of the filtered topographies
    energies: Float[Tensor, "B Q P"]  # mean over samples of the product of the matched filters
    matched: Float[Tensor, "B MT P"]  # matched filters, over the samples
    strength: Float[Tensor, " B"]  # prior variance of the amplitude of a unit topography


def matched_filters(
    white: Float[Tensor, "B C T"],
    rows: Float[Tensor, "P C"],
    filters: Float[Tensor, "M C C"],
    strength: Float[Tensor, " B"],
) -> Recordings:
    """Apply the matched filters of all patches under all skulls."""
    n_skulls, n_patches = filters.shape[0], rows.shape[0]
    filtered = rows @ filters.mT
    matched = (white.mT[:, None] @ filtered.mT).contiguous()
    squares = [(filtered[i] * filtered[j]).sum(1) for i, j in pairs_of(n_skulls)]
    energies = [(matched[:, i] * matched[:, j]).mean(1) for i, j in pairs_of(n_skulls)]
    return Recordings(
        white,
        rows,
        filters,
        torch.stack(squares),
        torch.stack(energies, dim=1),
        matched.reshape(-1, n_skulls * white.shape[2], n_patches),
        strength,
    )


def pairs_of(n: int) -> list[tuple[int, int]]:
    """Pairs of `n` skulls, each once: ``(0, 0), (0, 1), ..., (1, 1), ...``."""
    return list(itertools.combinations_with_replacement(range(n), 2))


class PatchSequence:
    """Patches of ``N`` configurations per recording, taken one after the other.

    The amplitudes of all patches are integrated out, with a normal prior of the variance
    ``strength``: the residual of a recording is ``(I + R R^T)^-1 v`` with the topographies ``R`` of
    the earlier patches. Arrays over all patches do not grow with the number of samples in time.

    Energies are differences of large numbers, so they have the precision of the recordings. All
    other arrays over all patches have that of the squares: single precision is enough.

    Args:
        recordings: Result of `matched_filters`.
        skull: Weights of the ``M`` skulls, sum 1.

    """

    def __init__(self, recordings: Recordings, skull: Float[Tensor, "N B M"]) -> None:
        self.recordings, self.skull = recordings, skull
        twice = [
            skull[..., i] * skull[..., j] * (1 if i == j else 2)
            for i, j in pairs_of(skull.shape[2])
        ]
        self.pairs: Float[Tensor, "N B Q"] = torch.stack(twice, dim=2)
        #: Squared norms of the topographies; energies are those of topographies of this norm.
        self.square: Float[Tensor, "N B P"] = self.pairs.to(recordings.squares) @ recordings.squares
        energy = (self.pairs.transpose(0, 1) @ recordings.energies).transpose(0, 1)
        self.energy: Float[Tensor, "N B P"] = energy
        #: Share of these norms that is left after projecting out the earlier patches, plus
        #: 1/strength. None: no patch was taken.
        self.residuals: Float[Tensor, "N B P"] | None = None
        self._products: list[Float[Tensor, "N B P"]] = []
        self._vectors: list[Float[Tensor, "N B C"]] = []
        self._amplitudes: list[Float[Tensor, "N B T"]] = []

    @property
    def _least(self) -> Float[Tensor, "B 1"]:
        return (1 / self.recordings.strength[:, None]).to(self.square)

    def explained(self) -> Float[Tensor, "N B P"]:
        """Power (mean over samples) that each patch explains in addition to the earlier ones."""
        share = self.energy.to(self.square) / self.square
        return share * (1 / (1 + self._least)) if self.residuals is None else share / self.residuals

    def evidence(self) -> Float[Tensor, "N B P"]:
        """Twice the log-likelihood per sample of each patch, its amplitude integrated out.

        Terms that are equal for all patches are left out.
        """
        explained = self.explained()
        return explained if self.residuals is None else explained - self.residuals.log()

    def remaining(self) -> Float[Tensor, "N B"]:
        """Residual power (mean over samples) after the earlier patches."""
        power = summed_power(self.recordings.white)
        taken = [amplitude.square().mean(2) for amplitude in self._amplitudes]
        explained = sum(taken, start=torch.zeros_like(self.energy[..., 0]))
        return (power - explained).clamp_min(0)

    def topography(self, number: Int[Tensor, "N B"]) -> Float[Tensor, "N B C"]:
        """Unit topography of a patch under the skull of its configuration; 0 without a patch."""
        filled = number.clamp_min(0)
        rows = self.recordings.rows.index_select(0, filled.flatten()).unflatten(0, number.shape)
        filtered = self._filtered(rows, self.recordings.filters.mT)
        return filtered * (self.inverse_norm_of(number) * (number != NONE))[..., None]

    def inverse_norm_of(self, number: Int[Tensor, "N B"]) -> Float[Tensor, "N B"]:
        """One over the norm of the filtered topography of a patch."""
        filled = number.clamp_min(0)
        rows = self.recordings.squares.T.index_select(0, filled.flatten())
        return (self.pairs * rows.unflatten(0, number.shape)).sum(2).rsqrt()

    def take(self, topography: Float[Tensor, "N B C"]) -> None:
        """Take one more patch."""
        white = self.recordings.white
        row = self.recordings.strength.sqrt()[:, None] * topography
        residual = row
        for other in self._vectors:
            residual = residual - other * (other * row).sum(2, keepdim=True)
        vector = residual / (1 + (residual * row).sum(2, keepdim=True)).sqrt()
        amplitude = (vector[:, :, None] @ white)[:, :, 0]
        along = self._along(vector)
        # Products with the dictionary of the data, over time, that go with this vector.
        weights = (self.skull[..., None] * amplitude[:, :, None]).flatten(2) / white.shape[2]
        projected = (2 * weights.transpose(0, 1) @ self.recordings.matched).transpose(0, 1)
        change = projected - along * amplitude.square().mean(2, keepdim=True)
        for product, other in zip(self._products, self._amplitudes, strict=True):
            change = change - product * (2 * (amplitude * other).mean(2, keepdim=True))
        self.energy = self.energy - along * change
        before = 1 + self._least if self.residuals is None else self.residuals
        after = before - along.to(self.square).square() / self.square
        self.residuals = after.maximum(self._least)
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
    """Power that the best 1 to ``J`` patches explain, chosen one after the other, by skull."""
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
