"""Amplitudes of a patch whose orientation is integrated out, under a prior on the normal."""

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.patches import along_axes
from deepesi.physics.orientation import mean_variance


class OrientationPosterior:
    """Posterior of the amplitudes of one patch, given its matched filters.

    The topographies ``Q`` of a patch are those of the prior (`PatchTopographies`): amplitudes are
    independent and normal, of variance ``s`` in units of the noise. Their posterior mean is
    ``(I/s + Q Qᵀ)⁻¹ f`` for matched filters ``f``, and twice the log-evidence is ``f`` times this
    mean, plus a term that all patches share. Both are divided by ``s / (1 + s)``, so that along the
    normal nothing changes. The gain orthogonal to it grows from `loose` for data that are mostly
    noise to 1 where they tell the orientation. With ``loose=1`` nothing changes at all.

    Args:
        topographies: Whitened topographies of the prior ``(K, D, C)``.
        n_orient: Orientations ``O`` per source.
        loose: Prior variance orthogonal to the normal, relative to that along it.

    """

    def __init__(
        self, topographies: Float[Tensor, "K D C"], n_orient: int | torch.SymInt, loose: float
    ) -> None:
        self.n_orient, self.loose = n_orient, loose
        self.rows = topographies.unflatten(1, (-1, n_orient))
        self.gram = self.rows @ self.rows.mT if loose < 1 else None

    def amplitudes(
        self, filtered: Float[Tensor, "K S O T B"], strength: Float[Tensor, "..."]
    ) -> Float[Tensor, "K S O T B"]:
        """Posterior means of the amplitudes, divided by the shrinkage along the normal.

        Args:
            filtered: Matched filters; samples and examples in any order.
            strength: Prior variance ``s`` of a patch along its normal, in units of the noise; it
                broadcasts with the last axes of `filtered`.

        """
        if self.gram is None:
            return filtered
        # The eigenvalues of `gram` are 1 and `loose`, so the inverse is linear in it.
        off_normal = filtered - along_axes(self.gram, filtered)
        return filtered + strength / (1 + self.loose * strength) * off_normal

    def weighted_grams(self, weights: Float[Tensor, "C B"]) -> Float[Tensor, "K S O O B"] | None:
        """Products of the topographies of a patch after weighting of the sensors; None if free."""
        if self.gram is None:
            return None
        return (self.rows[:, :, :, None] * self.rows[:, :, None]) @ weights.square()

    def weighted_amplitudes(
        self,
        filtered: Float[Tensor, "K S O B T"],
        strength: Float[Tensor, " B"],
        grams: Float[Tensor, "K S O O B"] | None,
        power: Float[Tensor, "K S B"],
    ) -> Float[Tensor, "K S O B T"]:
        """`amplitudes` where sensors are weighted, times what remains of a topography's power.

        Args:
            filtered: Matched filters of weighted data with weighted topographies.
            strength: As in `amplitudes`.
            grams: From `weighted_grams`.
            power: Power of the topographies of a patch after weighting, relative to before.

        """
        if grams is None:
            return filtered
        noise = torch.eye(3).to(power)[..., None] * power[:, :, None, None]
        return (power * (1 + strength))[:, :, None, :, None] * solve_three(
            noise + strength * grams, filtered
        )

    def n_free(self, strength: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Degrees of freedom of the energy of noise in one sample: matched filter times mean."""
        if self.gram is None:
            free: Tensor = torch.ones_like(strength) * self.n_orient  # type: ignore[assignment] # SymInt
            return free
        return 1 + 2 * self.loose * (1 + strength) / (1 + self.loose * strength)

    @property
    def mean_variance(self) -> float:
        """Mean square of the topographies over the orientations of a patch."""
        return 1.0 if self.gram is None else mean_variance(self.loose, 3)


def solve_three(
    matrices: Float[Tensor, "K S 3 3 B"], values: Float[Tensor, "K S 3 B T"]
) -> Float[Tensor, "K S 3 B T"]:
    """``A⁻¹ v`` for symmetric matrices, by cofactors: ONNX has no solver."""
    first, second, third = matrices.unbind(2)
    cofactors = [_cross(second, third), _cross(third, first), _cross(first, second)]
    determinant = (first * cofactors[0]).sum(2, keepdim=True)
    parts = [
        (column / determinant)[..., None] * values[:, :, axis, None]
        for axis, column in enumerate(cofactors)
    ]
    return sum(parts[1:], start=parts[0])


def _cross(a: Float[Tensor, "K S 3 B"], b: Float[Tensor, "K S 3 B"]) -> Float[Tensor, "K S 3 B"]:
    """Cross products."""
    (a0, a1, a2), (b0, b1, b2) = a.unbind(2), b.unbind(2)
    return torch.stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], dim=2)
