"""Preconditioners for gradient descent on a patch dictionary, and sensitivities under them.

``G`` is the dictionary of `PatchTopographies`, ``(C, K D)`` with columns of norm 1.
"""

from dataclasses import dataclass, field

import numpy as np

from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs.declaration import ADDED_LATER, Array, Axes, HeadInput
from deepesi.physics.head_inputs.patches import PatchTopographies
from deepesi.physics.noise import leading_eigh, rank_of
from deepesi.physics.orientation import mean_variance


def preconditioners(columns: Array, n_levels: int, rank: int) -> Array:
    """Matrices ``M`` ``(n_levels, C, C)`` with ``‖Gᵀ M G‖ = 1``, of a dictionary ``(D, C)``.

    Level 0 is ``I / ‖G‖²``, the step of plain gradient descent. Level ``l`` is ``(1 + λ)
    (G Gᵀ + λ ‖G‖² I)⁻¹`` with ``λ = 10^-l``: it removes what the columns have in common, more at
    higher levels. The matrices act on the `rank` dimensions of whitened data.
    """
    values, vectors = leading_eigh(columns.T @ columns, rank)
    largest = values[-1]
    spectra = [np.full_like(values, 1 / largest)]
    for level in range(1, n_levels):
        ridge = 10.0**-level
        spectra.append((1 + ridge) / (values + ridge * largest))
    return np.stack([(vectors * spectrum) @ vectors.T for spectrum in spectra])


@dataclass(frozen=True)
class _Levels:
    """Parameters: a dictionary and the number of its preconditioners.

    Attributes:
        smallest: Smallest radius of the dictionary, m.
        largest: Largest radius, m.
        n_radii: Number of radii ``K``.
        n_levels: Number of preconditioners ``L``.
        loose: Prior of the orientation, as in `PatchTopographies`.

    """

    smallest: float = 0.010
    largest: float = 0.025
    n_radii: int = 3
    n_levels: int = 4
    loose: float = field(default=1.0, metadata=ADDED_LATER)

    def columns(self, head: HeadModel) -> Array:
        """The dictionary ``(K D, C)``."""
        dictionary = PatchTopographies(self.smallest, self.largest, self.n_radii, self.loose)
        return dictionary.compute(head).reshape(-1, head.n_channels)


@dataclass(frozen=True)
class Preconditioners(_Levels, HeadInput):
    """Sensor-space preconditioners ``(L, C, C)``, no unit, as in `preconditioners`.

    A gradient step ``Gᵀ M (v - G x)`` of size 1 converges for each of them and for every convex
    combination, as no eigenvalue of ``Gᵀ M G`` exceeds 1.
    """

    @property
    def axes(self) -> Axes:
        """``(L, C, C)``."""
        return (self.n_levels, "channels", "channels")

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        return preconditioners(self.columns(head), self.n_levels, rank_of(head.noise_cov))


@dataclass(frozen=True)
class PatchSensitivities(_Levels, HeadInput):
    """``gᵀ M g`` ``(L, K, S)``, no unit, of every patch under every preconditioner ``M``.

    At most 1. Divided by it, the gradient is the coefficient that explains the residual best, if
    the patch is alone. Mean over the orientations of a patch, weighted by their prior variances.
    """

    @property
    def axes(self) -> Axes:
        """``(L, K, S)``."""
        return (self.n_levels, self.n_radii, "sources")

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        columns = self.columns(head)
        matrices = preconditioners(columns, self.n_levels, rank_of(head.noise_cov))
        gains = np.stack([((columns @ matrix) * columns).sum(axis=1) for matrix in matrices])
        shape = (self.n_levels, self.n_radii, head.space.n_sources, head.space.n_orient)
        return np.asarray(gains.reshape(shape).mean(axis=-1) / mean_variance(self.loose, shape[-1]))
