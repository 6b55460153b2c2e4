"""Two forms of a window, by which the transformer takes components out of it with equal results."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.models.layers.patch_filters import PatchFilters

#: Matched filters by radius.
Matched = list[Float[Tensor, "D N B"]]
#: `PatchFilters.mixing`.
Mixing = Float[Tensor, "K S O O B"] | None


class Samples(NamedTuple):
    """A window as its samples: the cost grows with their number.

    Attributes:
        columns: Data, weighted by sensor ``(B, C, T)``.
        shares: How much every sample counts, with sum 1 ``(B, 1, T)``.

    """

    columns: Float[Tensor, "B C T"]
    shares: Float[Tensor, "B 1 T"]

    def power(self, rest: Float[Tensor, "B C T"]) -> Float[Tensor, " B"]:
        """Mean over samples of the power of what is left, sum over channels."""
        return (rest.square().sum(1) * self.shares[:, 0]).sum(1)

    def explained(
        self, patches: PatchFilters, rest: Float[Tensor, "B C T"], mixing: Mixing
    ) -> tuple[Float[Tensor, "K S B"], Matched]:
        """Mean power that every patch explains of what is left, and its matched filters."""
        matched, by_radius = patches.matched(rest), []
        for k, part in enumerate(matched):
            filtered = part.unflatten(0, (-1, patches.n_orient))
            amplitudes = filtered
            if mixing is not None:
                amplitudes = torch.einsum("sopb,spnb->sonb", mixing[k], filtered)
            by_sample = (filtered * amplitudes).sum(1)  # (S, T, B)
            # As a product: ONNX Runtime is slow at sums next to a last axis of length 1.
            energy = by_sample.permute(2, 0, 1) @ self.shares.mT
            by_radius.append(energy[..., 0].T)
        return torch.stack(by_radius) / patches.power, matched

    def fit(
        self,
        patches: PatchFilters,
        matched: Matched,
        rest: Float[Tensor, "B C T"],
        weights: Float[Tensor, "K S B"],
        mixing: Mixing,
    ) -> Float[Tensor, "B C T"]:
        """What is expected from patches with these probabilities."""
        total = torch.zeros_like(rest)
        for k, (rows, part) in enumerate(zip(patches.rows, matched, strict=True)):
            expected = patches.amplitudes(k, part, weights, mixing)
            explained = (rows.T @ expected.flatten(1)).unflatten(1, expected.shape[1:])
            total = total + explained.permute(2, 0, 1)
        return patches.trust[..., None] * total


class SecondMoments(NamedTuple):
    """A window as second moments of the sensors: the cost does not grow with its length.

    Components are taken out by operators, whose start is the identity.

    Attributes:
        columns: The identity ``(B, C, C)``.
        covariance: Second moments of the data, weighted by sensor ``(B, C, C)``.

    """

    columns: Float[Tensor, "B C C"]
    covariance: Float[Tensor, "B C C"]

    def power(self, rest: Float[Tensor, "B C C"]) -> Float[Tensor, " B"]:
        """As `Samples.power`, for the operator of what is left."""
        return ((rest @ self.covariance) * rest).sum((1, 2))

    def explained(
        self, patches: PatchFilters, rest: Float[Tensor, "B C C"], mixing: Mixing
    ) -> tuple[Float[Tensor, "K S B"], Matched]:
        """As `Samples.explained`; without the matched filters, which nothing here needs."""
        left = rest @ self.covariance @ rest.mT
        columns = (patches.trust[:, None] * patches.trust[..., None] * left).permute(1, 2, 0)
        by_radius = []
        for k, rows in enumerate(patches.rows):  # less memory at a time is faster
            matched = (rows @ columns.flatten(1)).unflatten(1, columns.shape[1:])
            by_source = (-1, patches.n_orient)
            if mixing is None:
                energy = (matched * rows[..., None]).sum(1).unflatten(0, by_source).sum(1)
            else:
                own = rows.unflatten(0, by_source)
                products = torch.einsum("socb,spc->sopb", matched.unflatten(0, by_source), own)
                energy = (mixing[k] * products).sum((1, 2))
            by_radius.append(energy)
        return torch.stack(by_radius) / patches.power, []

    def fit(
        self,
        patches: PatchFilters,
        matched: Matched,
        rest: Float[Tensor, "B C C"],
        weights: Float[Tensor, "K S B"],
        mixing: Mixing,
    ) -> Float[Tensor, "B C C"]:
        """As `Samples.fit`, as an operator."""
        total = torch.zeros_like(rest)
        for k, rows in enumerate(patches.rows):
            columns = rows[..., None].expand(-1, -1, weights.shape[2])
            expected = patches.amplitudes(k, columns, weights, mixing)
            total = total + rows.T @ expected.permute(2, 0, 1)
        return patches.trust[:, None] * patches.trust[..., None] * total @ rest
