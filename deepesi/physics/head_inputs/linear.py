"""The lead field and its linear inverses."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs.declaration import Array, Axes, HeadInput
from deepesi.physics.head_inputs.orientation import LooseInput
from deepesi.physics.linear_inverse import (
    hat_matrix,
    linear_inverse,
    posterior_root,
    posterior_std,
    prior_std,
    weighted_gain,
)
from deepesi.physics.noise import rank_of, whitener


@dataclass(frozen=True)
class Gain(HeadInput):
    """Lead field ``(C, D)``: V/(A m), or 1/(A m) if whitened."""

    whitened: bool = False

    axes: ClassVar[Axes] = ("channels", "dipoles")

    def compute(self, head: HeadModel) -> Array:
        """The lead field; whitened if `whitened` is True."""
        return whitener(head.noise_cov) @ head.leadfield if self.whitened else head.leadfield


@dataclass(frozen=True)
class LinearInverse(LooseInput):
    """Kernels ``(L, D, C)``, A m per V, of one linear inverse at ``L`` signal-to-noise ratios.

    The orientation is that of the head, fixed or free, or loose. dSPM and sLORETA are statistics;
    here they are multiplied by their mean divisor, so that the maps keep their shape and get the
    unit A m.

    Attributes:
        method: ``"MNE"``, ``"dSPM"``, ``"sLORETA"`` or ``"eLORETA"``.
        snr_db_low: First SNR, dB.
        snr_db_step: Step, dB.
        n_steps: Number of SNRs ``L``.
        loose: Variance of the tangential components relative to that along the normal, as in
            `LooseInput`.

    """

    method: str = "eLORETA"
    snr_db_low: float = -10.0
    snr_db_step: float = 2.5
    n_steps: int = 17
    loose: float = 1.0

    @property
    def axes(self) -> Axes:
        """``(L, D, C)``."""
        return (self.n_steps, "dipoles", "channels")

    def compute(self, head: HeadModel) -> Array:
        """One kernel per SNR, ``lambda2 = 10^(-SNR/10)``."""
        root = self.root(head)
        return np.stack([self._kernel(head, lambda2, root) for lambda2 in _lambda2(self)])

    def _kernel(self, head: HeadModel, lambda2: float, root: Array) -> Array:
        problem = head.leadfield, head.noise_cov, lambda2
        kernel = linear_inverse(*problem, self.method, head.space.n_orient, root)
        if self.method in ("MNE", "eLORETA"):
            return kernel
        current = linear_inverse(*problem, "MNE", head.space.n_orient, root)
        norm = np.linalg.norm(current, axis=1) / np.linalg.norm(kernel, axis=1)
        return np.asarray(kernel * norm.mean())


@dataclass(frozen=True)
class HatMatrix(LooseInput):
    """Hat matrices of `LinearInverse`, from whitened to explained data ``(L, C, C)``, no unit.

    Attributes: as in `LinearInverse`.

    """

    method: str = "eLORETA"
    snr_db_low: float = -10.0
    snr_db_step: float = 2.5
    n_steps: int = 17
    loose: float = 1.0

    @property
    def axes(self) -> Axes:
        """``(L, C, C)``."""
        return (self.n_steps, "channels", "channels")

    def compute(self, head: HeadModel) -> Array:
        """Compute `deepesi.physics.linear_inverse.hat_matrix` at every SNR."""
        orientation = head.space.n_orient, self.root(head)
        return np.stack(
            [
                hat_matrix(head.leadfield, head.noise_cov, lambda2, self.method, *orientation)
                for lambda2 in _lambda2(self)
            ]
        )


@dataclass(frozen=True)
class _MinimumNormGrid(LooseInput):
    """Quantity of the Bayesian minimum norm (MNE) at ``L`` SNRs; attributes of `LinearInverse`."""

    snr_db_low: float = -10.0
    snr_db_step: float = 2.5
    n_steps: int = 17
    loose: float = 1.0


@dataclass(frozen=True)
class PosteriorStd(_MinimumNormGrid):
    """Posterior standard deviation of MNE's sources ``(L, D)``, A m, at ``L`` SNRs."""

    @property
    def axes(self) -> Axes:
        """``(L, D)``."""
        return (self.n_steps, "dipoles")

    def compute(self, head: HeadModel) -> Array:
        """Compute `deepesi.physics.linear_inverse.posterior_std` at every SNR."""
        problem, root = (head.leadfield, head.noise_cov), self.root(head)
        return np.stack([posterior_std(*problem, lambda2, root) for lambda2 in _lambda2(self)])


@dataclass(frozen=True)
class PriorStd(_MinimumNormGrid):
    """Prior standard deviation of MNE's sources along the normal ``(L,)``, A m, at ``L`` SNRs."""

    @property
    def axes(self) -> Axes:
        """``(L,)``."""
        return (self.n_steps,)

    def compute(self, head: HeadModel) -> Array:
        """Compute `deepesi.physics.linear_inverse.prior_std` at every SNR."""
        gain, rank = Gain(whitened=True).compute(head), rank_of(head.noise_cov)
        gain = weighted_gain(gain, self.root(head))
        return np.array([prior_std(gain, rank, lambda2) for lambda2 in _lambda2(self)])


@dataclass(frozen=True)
class PosteriorRoot(_MinimumNormGrid):
    """Matrices for draws from the posterior of MNE's sources ``(L, C, C)``, (A m)²."""

    @property
    def axes(self) -> Axes:
        """``(L, C, C)``."""
        return (self.n_steps, "channels", "channels")

    def compute(self, head: HeadModel) -> Array:
        """Compute `deepesi.physics.linear_inverse.posterior_root` at every SNR."""
        problem, root = (head.leadfield, head.noise_cov), self.root(head)
        return np.stack([posterior_root(*problem, lambda2, root) for lambda2 in _lambda2(self)])


#: Head inputs on a grid of SNRs.
_Grid = LinearInverse | HatMatrix | _MinimumNormGrid


def _lambda2(grid: _Grid) -> Array:
    """Regularization of every SNR of a grid, ``10^(-SNR/10)``."""
    snr_db = grid.snr_db_low + grid.snr_db_step * np.arange(grid.n_steps)
    return np.asarray(10 ** (-snr_db / 10))
