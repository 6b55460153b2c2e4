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
        rows = topographies.unflatten(1, (-1, n_orient))
        self.gram = rows @ rows.mT if loose < 1 else None

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

    def n_free(self, strength: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Degrees of freedom of the energy of noise in one sample: matched filter times mean."""
        if self.gram is None:
            return torch.ones_like(strength) * self.n_orient  # type: ignore[return-value] # SymInt
        gain = self.loose * (1 + strength) / (1 + self.loose * strength)
        return 1 + (self.n_orient - 1) * gain

    @property
    def mean_variance(self) -> float:
        """Mean square of the topographies over the orientations of a patch."""
        return 1.0 if self.gram is None else mean_variance(self.loose, self.n_orient)
