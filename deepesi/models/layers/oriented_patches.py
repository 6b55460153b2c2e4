"""Patches along the template's normals, and patches whose orientation is read off the recording."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.patches import strongest_patches, unexplained

#: Power iterations for the orientation of a patch.
N_ITERATIONS = 6
#: Energy, in units of the noise, below which a patch has no orientation.
SILENT = 1e-20


class PatchFit(NamedTuple):
    """How well every patch explains a recording; ``K = K_n + K_l`` patches per source.

    The first ``K_n`` are along the normals of the head, the others have an orientation of their
    own.
    """

    energy: Float[Tensor, "B K S"]  # along the chosen orientation; chi-squared for noise alone
    evidence: Float[Tensor, "B K S"]  # log-likelihood, the orientation integrated out
    axes: Float[Tensor, "O B K_l S"]  # weights of the rows of a patch; its topography has norm 1


class Component(NamedTuple):
    """One source over all patches."""

    gamma: Float[Tensor, "K S B"]  # prior variances
    axes: Float[Tensor, "O B K_l S"]  # orientations they stand for, as in `PatchFit`
    variance: Float[Tensor, "2 B"]  # of noise and head mismatch, along the normals and not


class Products(NamedTuple):
    """Products of data with the topographies of all patches."""

    normal: Float[Tensor, "T B K_n S"]  # along the normals
    loose: list[Float[Tensor, "T B K_l S"]]  # with each row of patches of any orientation


class OrientedPatches:
    """Matched filters of whitened data, and residuals.

    Samples and orientations are the first axes, sources the last one: ONNX Runtime is a hundred
    times slower at sums over axes next to a last axis of one example.

    Args:
        normal: Unit topographies of patches along the normals ``(K_n, S, C)``.
        loose: Principal topographies of patches of any orientation ``(O, K_l, S, C)``, from
            `deepesi.physics.head_inputs.patches.LooseTopographies`.

    """

    def __init__(self, normal: Float[Tensor, "K_n S C"], loose: Float[Tensor, "O K_l S C"]) -> None:
        self.n_normal, self.n_orient = normal.shape[0], loose.shape[0]
        self.n_sources = normal.shape[1]
        self.normal, self.loose = normal.flatten(0, 1), loose.flatten(1, 2)
        self.rows = self.loose.unbind()
        self.power = loose.square().sum(3)[:, None]  # O 1 K_l S

    def products(self, data: Float[Tensor, "C T B"]) -> Products:
        """Products with all topographies, in the precision of these."""
        rows = data.to(self.normal.dtype).permute(1, 2, 0)
        shape = *rows.shape[:2], -1, self.n_sources
        flat = rows.flatten(0, 1)
        normal, *loose = (
            (flat @ topographies.T).reshape(shape) for topographies in (self.normal, *self.rows)
        )
        return Products(normal, loose)

    def fit(
        self,
        data: Float[Tensor, "C T B"],
        excess: Float[Tensor, " B"],
        strength: Float[Tensor, " B"],
        variance: Float[Tensor, "2 B"],
        rank: Float[Tensor, " 1"],
    ) -> PatchFit:
        """Energy, evidence and orientation of every patch.

        A patch has one orientation in the window, with the prior of `LooseTopographies`. Its
        amplitudes are independent and normal. With one sample the evidence is exact; with more,
        the orientation is the best one, and costs what it costs in one sample.

        Args:
            data: Data to be explained by one patch; noise has variance 1.
            excess: Power of these data above that of noise.
            strength: Prior power of a patch in one sample.
            variance: Variance of noise and head mismatch, along the normals and not.
            rank: Dimensions of the noise.

        """
        n_times, dtype = data.shape[1], self.normal.dtype
        products = self.products(data)
        prior = (strength / variance).to(dtype)[..., None, None]  # 2 B 1 1
        level = ((excess / variance + rank * variance.log()) / 2).to(dtype)[..., None, None]
        variance = variance.to(dtype)[..., None, None]
        energy = products.normal.square().sum(0)
        along = energy * (prior[0] / (1 + prior[0]) / variance[0]) - n_times * prior[0].log1p()
        covariance = moment_matrix(products.loose)
        prior_power = self.power * (prior[1] / self.n_orient)
        shrink = (prior[1] / self.n_orient / (1 + prior_power)).sqrt()  # O B K_l S
        with torch.no_grad():
            top = principal_axis(covariance * shrink * shrink[:, None])
            axes = top * shrink
            size = (axes.square() * self.power).sum(0).sqrt()
            axes = axes / size.clamp_min(1e-12)
        explained = quadratic_form(covariance, top * shrink) / variance[1]
        power = (top.square() * prior_power).sum(0)
        cost = prior_power.log1p().sum(0) + (n_times - 1) * power.log1p()
        evidence = torch.cat([along / 2 - level[0], (explained - cost) / 2 - level[1]], dim=1)
        own = quadratic_form(covariance, axes)
        return PatchFit(torch.cat([energy, own], dim=1), evidence, axes)

    def residual(
        self,
        recording: Float[Tensor, "C T B"],
        components: list[Component],
        n_strongest: int,
        n_steps: int,
    ) -> Float[Tensor, "C T B"]:
        """``(I + Q gamma Qᵀ)⁻¹ v``: residual of the posterior mean under these components.

        Only the `strongest_patches` of each component are used.
        """
        factors = [self._strongest(component, n_strongest) for component in components]
        rows = torch.cat(factors, dim=1).to(recording.dtype)  # B M C, scaled by their std
        return unexplained(rows.mT @ rows, recording, n_steps)

    def _strongest(self, component: Component, n_strongest: int) -> Float[Tensor, "B M C"]:
        """Topographies of the strongest patches, times the root of their variance."""
        kept, indices = strongest_patches(component.gamma, n_strongest)
        n_normal = self.normal.shape[0]
        is_loose = (indices >= n_normal)[..., None]
        straight = self.normal.index_select(0, indices.clamp_max(n_normal - 1).flatten())
        patch = (indices - n_normal).clamp_min(0)
        rows = self.loose.index_select(1, patch.flatten())
        axes = component.axes.flatten(2).gather(2, patch.expand(self.n_orient, -1, -1))
        turned = (axes.flatten(1)[..., None] * rows).sum(0)
        chosen = torch.where(
            is_loose,
            turned.unflatten(0, indices.shape),
            straight.unflatten(0, indices.shape),
        )
        # The smallest value keeps the gradient of the root finite.
        return kept.clamp_min(1e-12).sqrt()[..., None] * chosen


def moment_matrix(signals: list[Float[Tensor, "T ..."]]) -> Float[Tensor, "O O ..."]:
    """Products of the signals of a patch, summed over the window."""
    rows: list[list[Tensor]] = []
    for number, first in enumerate(signals):
        before = [rows[other][number] for other in range(number)]
        rows.append([*before, *((first * second).sum(0) for second in signals[number:])])
    return torch.stack([torch.stack(row) for row in rows])


def quadratic_form(
    matrix: Float[Tensor, "O O ..."], axis: Float[Tensor, "O ..."]
) -> Float[Tensor, "..."]:
    """``aᵀ M a``, at least 0."""
    return ((matrix * axis).sum(1) * axis).sum(0).clamp_min(0)


def principal_axis(matrix: Float[Tensor, "O O ..."]) -> Float[Tensor, "O ..."]:
    """Unit vectors along the direction of largest energy; exact for one sample.

    Power iterations from the component of largest energy. The sign is arbitrary. Without energy it
    is the first axis.
    """
    numbers = range(matrix.shape[0])
    energy = torch.stack([matrix[number, number] for number in numbers])
    largest = energy.argmax(0)
    axis = torch.stack([(largest == number).to(matrix.dtype) for number in numbers])
    total = energy.sum(0)
    # The largest value of the scaled matrix is at least 1 / O, so powers do not vanish.
    silent = (total < SILENT).to(matrix.dtype) * torch.eye(len(numbers)).to(matrix)[
        (..., *[None] * total.ndim)
    ]
    matrix = matrix / total.clamp_min(SILENT) + silent
    for _ in range(N_ITERATIONS):
        axis = (matrix * axis).sum(1)
    return axis / axis.square().sum(0).sqrt()
