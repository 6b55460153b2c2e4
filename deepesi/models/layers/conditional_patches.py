"""Evidence of one more patch, given the others: moments integrated out, orientation estimated."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepesi.models.layers.oriented_patches import (
    moment_matrix,
    principal_axis,
    quadratic_form,
)

#: Rows of a lower triangle.
Triangle = list[list[Tensor]]


class Patches(NamedTuple):
    """A dictionary: ``K_n`` patches along the normals of each source, ``K_l`` of any orientation.

    Attributes:
        normal: Whitened unit topographies along the normals ``(K_n, S, C)``.
        loose: Whitened rows of patches of any orientation ``(O, K_l, S, C)``.
        normal_moments: Moments that project as the first, noise 1, ``(K_n, S)``.
        loose_moments: Moments that project as the second ``(O, O, K_l, S)``: component, row.
        loose_power: Squared norms of the rows of patches of any orientation.
        loose_size: Root mean square moments of these patches, with standard normal weights.

    """

    normal: Float[Tensor, "K_n S C"]
    loose: Float[Tensor, "O K_l S C"]
    normal_moments: Float[Tensor, "K_n S"]
    loose_moments: Float[Tensor, "O O K_l S"]
    loose_power: Float[Tensor, "O 1 K_l S"]
    loose_size: Float[Tensor, "K_l S"]

    @classmethod
    def of(
        cls,
        normal: Float[Tensor, "K_n S C"],
        loose: Float[Tensor, "O K_l S C"],
        normal_moments: Float[Tensor, "K_n S"],
        loose_moments: Float[Tensor, "O O K_l S"],
    ) -> "Patches":
        """With power and size computed, once for all steps."""
        power = loose.square().sum(3)[:, None]
        size = loose_moments.square().sum((0, 1)).sqrt()
        return cls(normal, loose, normal_moments, loose_moments, power, size)


class Slots(NamedTuple):
    """The patches of a configuration, for each of ``N`` chains; an empty slot has topography 0.

    Attributes:
        topographies: Unit norm ``(N, J, C)``.
        moments: Moment that stands for a unit topography ``(N, J)``.
        centres: Source number ``(N, J)``; -1 if empty.

    """

    topographies: Float[Tensor, "N J C"]
    moments: Float[Tensor, "N J"]
    centres: Int[Tensor, "N J"]

    def without(self, slot: int) -> "Slots":
        """All but one."""
        return Slots(*(torch.cat([v[:, :slot], v[:, slot + 1 :]], dim=1) for v in self))

    def with_patch(self, slot: int, patch: "Slots") -> "Slots":
        """With another patch in one slot."""
        return Slots(
            *(
                torch.cat([old[:, :slot], new, old[:, slot + 1 :]], dim=1)
                for old, new in zip(self, patch, strict=True)
            )
        )


class Conditional(NamedTuple):
    """One more patch, given the others; ``K = K_n + K_l`` patches per source.

    Attributes:
        evidence: Log-likelihood relative to that without it ``(N, K, S)``.
        shrinkage: Posterior mean of the amplitude of a unit topography for a product of 1, noise 1
            ``(N, K, S)``; also the posterior variance of the amplitude.
        normal: Products of the residual with topographies along the normals.
        loose: The same with every row of the other patches.
        axes: Weights of these rows; their topography has norm 1.

    """

    evidence: Float[Tensor, "N K S"]
    shrinkage: Float[Tensor, "N K S"]
    normal: Float[Tensor, "T N K_n S"]
    loose: list[Float[Tensor, "T N K_l S"]]
    axes: Float[Tensor, "O N K_l S"]


def span(
    rows: Float[Tensor, "N J C"],
) -> tuple[Float[Tensor, "N J C"], Float[Tensor, " N"]]:
    """Vectors ``W`` with ``(I + Rᵀ R)⁻¹ = I - Wᵀ W``, and the log-determinant of ``I + Rᵀ R``."""
    vectors: list[Tensor] = []
    log_det = torch.zeros_like(rows[:, 0, 0])
    for row in rows.unbind(1):
        residual = row
        for other in vectors:
            residual = residual - other * (other * row).sum(1, keepdim=True)
        size = 1 + (residual * row).sum(1, keepdim=True)
        log_det = log_det + size[:, 0].log()
        vectors.append(residual / size.sqrt())
    return torch.stack(vectors, dim=1), log_det


def conditional(
    patches: Patches,
    others: Float[Tensor, "N J C"],
    data: Float[Tensor, "N C T"],
    level: Float[Tensor, " N"],
) -> Conditional:
    """Evidence and posterior of one more patch.

    Moments are independent and normal in every sample. A patch of any orientation has one
    orientation in the window, with the prior of `LooseTopographies`: with one sample its evidence
    is exact; with more, the orientation is the best one, and costs what it costs in one sample.

    Args:
        patches: Dictionary.
        others: Topographies of the others, times the standard deviations of their amplitudes.
        data: Data, noise variance 1.
        level: Prior standard deviation of a moment.

    """
    if others.shape[1] == 0:  # ONNX Runtime computes products over nothing wrongly
        others = torch.zeros_like(data[:, None, :, 0])
    vectors, _ = span(others)
    residual = data - vectors.mT @ (vectors @ data)
    # One product with the dictionary; samples and vectors are the first axis.
    columns = torch.cat([residual, vectors.mT], dim=2).permute(2, 0, 1)
    products = [_products(columns, rows) for rows in (patches.normal, *patches.loose.unbind())]
    n_times = data.shape[2]
    normal, *loose = (product[:n_times] for product in products)
    crossed = [product[n_times:] for product in products]
    std = level[:, None, None]
    along, shrinkage = _along_normals(
        normal, 1 - crossed[0].square().sum(0), (std / patches.normal_moments).square()
    )
    free, own, axes = _of_any_orientation(
        loose,
        patches.loose_power,
        crossed[1:],
        (std / patches.loose_size).square(),
    )
    return Conditional(
        torch.cat([along, free], dim=1), torch.cat([shrinkage, own], dim=1), normal, loose, axes
    )


def _along_normals(
    signals: Float[Tensor, "T N K S"], residual_norms: Float[Tensor, "N K S"], variance: Tensor
) -> tuple[Float[Tensor, "N K S"], Float[Tensor, "N K S"]]:
    """Evidence and shrinkage.

    Args:
        signals: Products of the data with the topographies.
        residual_norms: Squared norms of the topographies after projecting out the others.
        variance: Prior variance of an amplitude.

    """
    gain = 1 + variance * residual_norms.clamp_min(0)
    shrinkage = variance / gain
    energy = signals.square().sum(0)
    return 0.5 * (shrinkage * energy - signals.shape[0] * gain.log()), shrinkage


def _of_any_orientation(
    signals: list[Float[Tensor, "T N K S"]],
    power: Float[Tensor, "O 1 K S"],
    crossed: list[Float[Tensor, "J N K S"]],
    variance: Float[Tensor, "N K S"],
) -> tuple[Float[Tensor, "N K S"], Float[Tensor, "N K S"], Float[Tensor, "O N K S"]]:
    """Evidence, shrinkage along the best orientation, and its weights of the rows.

    Args:
        signals: Products of the data with the rows.
        power: Squared norms of the rows, which are orthogonal.
        crossed: Products of the vectors of the others with the rows.
        variance: Prior variance of a weight.

    """
    n_orient, n_times = len(signals), signals[0].shape[0]
    taken = moment_matrix(crossed)
    # Root L of I + variance A, with A the products of the rows after projecting out the others.
    root, log_det = inverse_root(
        [
            [
                (1 + variance * power[i] if i == j else 0) - variance * taken[i, j]
                for j in range(i + 1)
            ]
            for i in range(n_orient)
        ]
    )
    turned = _turned(root, _turned(root, moment_matrix(signals)).transpose(0, 1))
    with torch.no_grad():
        top = principal_axis(turned)
        axes = torch.stack(  # the orientation of largest evidence: L^-T top
            [sum_of(root[k][i] * top[k] for k in range(i, n_orient)) for i in range(n_orient)]
        )
        axes = axes / (axes.square() * power).sum(0).sqrt().clamp_min(1e-12)
    # A weight vector of the prior has a mean square of O; one row of unit norm stands for it.
    own = n_orient * variance / axes.square().sum(0)
    gain = 1 + own * (1 - quadratic_form(taken, axes)).clamp_min(0)
    evidence = variance * quadratic_form(turned, top) - log_det - (n_times - 1) * gain.log()
    return 0.5 * evidence, own / gain, axes


def draw(
    logits: Float[Tensor, "N M"], uniform: Float[Tensor, " N"]
) -> tuple[Int[Tensor, " N"], Float[Tensor, "N M"]]:
    """One of ``M`` for each chain, by a number between 0 and 1, and the probabilities."""
    probabilities = torch.softmax(logits, dim=1)
    cumulated = probabilities.cumsum(1)
    below = cumulated < uniform[:, None] * cumulated[:, -1:]
    return below.sum(1).clamp_max(logits.shape[1] - 1), probabilities


def chosen(patches: Patches, fit: Conditional, number: Int[Tensor, " N"]) -> Slots:
    """The patch of this number, first those along the normals; larger numbers: none."""
    n_sources = patches.normal.shape[1]
    n_normal = patches.normal.shape[0] * n_sources
    n_loose = patches.loose.shape[1] * n_sources
    straight, own = number.clamp_max(n_normal - 1), (number - n_normal).clamp(0, n_loose - 1)
    axes = fit.axes.flatten(2).gather(2, own.expand(len(fit.axes), -1)[..., None])
    turned = (axes * patches.loose.flatten(1, 2).index_select(1, own)).sum(0)
    size = axes[..., 0].square().sum(0).sqrt() / math.sqrt(len(axes))
    size = size * patches.loose_size.flatten().index_select(0, own)
    n_patches = patches.normal.shape[0] + patches.loose.shape[1]
    centres = torch.arange(n_sources, device=number.device).repeat(n_patches)
    is_loose, empty = number >= n_normal, number >= n_normal + n_loose
    rows = patches.normal.flatten(0, 1).index_select(0, straight)
    moments = patches.normal_moments.flatten().index_select(0, straight)
    return Slots(
        (torch.where(is_loose[:, None], turned, rows) * ~empty[:, None])[:, None],
        torch.where(is_loose, size, moments)[:, None],
        torch.where(empty, -1, centres.index_select(0, number.clamp_max(centres.shape[0] - 1)))[
            :, None
        ],
    )


def sum_of(values: Iterable[Tensor]) -> Tensor:
    """Sum; 0 of none."""
    return sum(values, start=torch.zeros(()))


def _products(
    columns: Float[Tensor, "M N C"], rows: Float[Tensor, "K S C"]
) -> Float[Tensor, "M N K S"]:
    flat = columns.flatten(0, 1) @ rows.flatten(0, 1).T
    return flat.reshape(*columns.shape[:2], -1, rows.shape[1])


def inverse_root(matrix: Triangle) -> tuple[Triangle, Tensor]:
    """Inverse ``L⁻¹`` of the Cholesky root of small matrices, and their log-determinant."""
    size = len(matrix)
    root: Triangle = []
    inverse: Triangle = []
    for i in range(size):
        row: list[Tensor] = []
        for j in range(i):
            row.append((matrix[i][j] - sum_of(row[k] * root[j][k] for k in range(j))) / root[j][j])
        row.append((matrix[i][i] - sum_of(value.square() for value in row)).clamp_min(1e-9).sqrt())
        root.append(row)
        inverse.append(
            [-sum_of(row[k] * inverse[k][j] for k in range(j, i)) / row[i] for j in range(i)]
            + [1 / row[i]]
        )
    return inverse, 2 * sum_of(root[i][i].log() for i in range(size))


def _turned(root: Triangle, matrix: Float[Tensor, "O O ..."]) -> Float[Tensor, "O O ..."]:
    """``L⁻¹ M``."""
    return torch.stack(
        [sum_of(root[i][k] * matrix[k] for k in range(i + 1)) for i in range(len(root))]
    )
