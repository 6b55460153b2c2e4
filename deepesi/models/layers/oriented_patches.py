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

    energy: Float[Tensor, "K S B"]  # along the chosen orientation; chi-squared for noise alone
    evidence: Float[Tensor, "K S B"]  # log-likelihood, the orientation integrated out
    axes: Float[Tensor, "O K_l S B"]  # weights of the rows of a patch; its topography has norm 1


class Component(NamedTuple):
    """One source over all patches."""

    gamma: Float[Tensor, "K S B"]  # prior variances
    axes: Float[Tensor, "O K_l S B"]  # orientations they stand for, as in `PatchFit`
    variance: Float[Tensor, "2 B"]  # of noise and head mismatch, along the normals and not


class OrientedPatches:
    """Matched filters and posterior means of whitened data ``(C, T, B)``.

    Orientations are the first axis of all arrays: ONNX Runtime is slow at sums over short inner
    axes.

    Args:
        normal: Unit topographies of patches along the normals ``(K_n, S, C)``.
        loose: Principal topographies of patches of any orientation ``(K_l, D, C)``, from
            `deepesi.physics.head_inputs.patches.LooseTopographies`.
        n_orient: Orientations ``O`` per source.

    """

    def __init__(
        self,
        normal: Float[Tensor, "K_n S C"],
        loose: Float[Tensor, "K_l D C"],
        n_orient: int | torch.SymInt,
    ) -> None:
        self.n_normal, self.n_loose, self.n_orient = normal.shape[0], loose.shape[0], n_orient
        self.normal = normal.flatten(0, 1)
        loose = loose.unflatten(1, (-1, n_orient)).permute(2, 0, 1, 3)  # O K_l S C
        self.loose = loose.flatten(1, 2)
        self.power = loose.square().sum(3)[..., None]

    def find(
        self, data: Float[Tensor, "C T B"]
    ) -> tuple[Float[Tensor, "K_n S T B"], Float[Tensor, "O K_l S T B"]]:
        """Products with all topographies."""
        flat, shape = data.flatten(1), data.shape[1:]
        normal = (self.normal @ flat).unflatten(0, (self.n_normal, -1)).unflatten(2, shape)
        loose = (self.loose.flatten(0, 1) @ flat).unflatten(1, shape)
        return normal, loose.unflatten(0, (self.n_orient, self.n_loose, -1))

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
        n_times = data.shape[1]
        normal, loose = self.find(data)
        energy = normal.square().sum(2)
        prior = strength / variance
        found = energy * (prior[0] / (1 + prior[0]) / variance[0])
        along = found - n_times * prior[0].log1p()
        covariance = moment_matrix(loose)
        prior_power = self.power * (prior[1] / self.n_orient)
        shrink = (prior[1] / self.n_orient / (1 + prior_power)).sqrt()  # O K_l S B
        with torch.no_grad():
            top = principal_axis(covariance * shrink * shrink[:, None])
            axes = top * shrink
            size = (axes.square() * self.power).sum(0).sqrt()
            axes = axes / size.clamp_min(1e-12)
        found = quadratic_form(covariance, top * shrink) / variance[1]
        power = (top.square() * prior_power).sum(0)
        cost = prior_power.log1p().sum(0) + (n_times - 1) * power.log1p()
        free = found - cost
        level = excess / variance + rank * variance.log()
        evidence = torch.cat([along - level[0], free - level[1]]) / 2
        own = quadratic_form(covariance, axes)
        return PatchFit(torch.cat([energy, own]), evidence, axes)

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
        rows = torch.cat(factors, dim=1)  # B M C, scaled by the roots of their variances
        return unexplained(rows.mT @ rows, recording, n_steps)

    def _strongest(self, component: Component, n_strongest: int) -> Float[Tensor, "B M C"]:
        """Topographies of the strongest patches, times the root of their variance."""
        kept, indices = strongest_patches(component.gamma, n_strongest)
        n_normal = self.normal.shape[0]
        is_loose = (indices >= n_normal)[..., None]
        straight = self.normal.index_select(0, indices.clamp_max(n_normal - 1).flatten())
        patch = (indices - n_normal).clamp_min(0)
        rows = self.loose.index_select(1, patch.flatten())
        axes = component.axes.flatten(1, 2).mT  # O B K_lS
        axes = axes.gather(2, patch.expand(self.n_orient, -1, -1))
        turned = (axes.flatten(1, 2)[..., None] * rows).sum(0)
        chosen = torch.where(
            is_loose,
            turned.unflatten(0, indices.shape),
            straight.unflatten(0, indices.shape),
        )
        # The smallest value keeps the gradient of the root finite.
        return kept.clamp_min(1e-12).sqrt()[..., None] * chosen


def moment_matrix(signals: Float[Tensor, "O K S T B"]) -> Float[Tensor, "O O K S B"]:
    """Products of the signals of a patch, summed over the window."""
    parts = signals.unbind(0)
    rows: list[list[Tensor]] = []
    for number, first in enumerate(parts):
        before = [rows[other][number] for other in range(number)]
        rows.append([*before, *((first * second).sum(2) for second in parts[number:])])
    return torch.stack([torch.stack(row) for row in rows])


def quadratic_form(
    matrix: Float[Tensor, "O O K S B"], axis: Float[Tensor, "O K S B"]
) -> Float[Tensor, "K S B"]:
    """``aᵀ M a``, at least 0."""
    return ((matrix * axis).sum(1) * axis).sum(0).clamp_min(0)


def principal_axis(matrix: Float[Tensor, "O O K S B"]) -> Float[Tensor, "O K S B"]:
    """Unit vectors along the direction of largest energy; exact for one sample.

    Power iterations from the component of largest energy. The sign is arbitrary. Without energy it
    is the first axis.
    """
    numbers = range(matrix.shape[0])
    energy = torch.stack([matrix[number, number] for number in numbers])
    largest = energy.argmax(0)
    axis = torch.stack([(largest == number).to(matrix.dtype) for number in numbers])
    total = energy.sum(0)
    silent = (total < SILENT).to(matrix.dtype)
    matrix = matrix / total.clamp_min(SILENT)
    for _ in range(N_ITERATIONS):
        axis = (matrix * axis).sum(1) + silent * axis
        axis = axis / axis.abs().amax(0)
    return axis / axis.square().sum(0).sqrt()
