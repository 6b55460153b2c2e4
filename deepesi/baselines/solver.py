"""Base class of iterative solvers: inverse models in numpy that cannot be exported."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array, kron
from torch import Tensor

from deepesi.core.contracts import Assumptions, Estimate, InverseModel
from deepesi.physics.head_inputs import (
    Gain,
    OrientationRoot,
    PatchPairs,
    PatchShares,
    Rank,
    SourcePositions,
    Whitener,
)
from deepesi.physics.linear_inverse import weighted_gain

Array = NDArray[np.float64]


class Solution(NamedTuple):
    """Dipole moments of every source, and their uncertainty, if there is one.

    Attributes:
        mean: Moments ``(D, T)``, A m.
        covariance: Posterior covariance of the components of a source ``(S, O, O)``, (A m)².

    """

    mean: Array
    covariance: Array | None = None

    @property
    def std(self) -> Array | None:
        """Posterior standard deviation ``(D, T)``, A m."""
        if self.covariance is None:
            return None
        variance = self.covariance.diagonal(axis1=1, axis2=2).reshape(-1, 1)
        return np.broadcast_to(np.sqrt(variance.clip(0)), self.mean.shape)

    def oriented(self, root: Array) -> "Solution":
        """Solution of sources from one in units of their prior; `root` as in `OrientationRoot`."""
        mean = (root @ self.mean.reshape(*root.shape[:2], -1)).reshape(self.mean.shape)
        covariance = self.covariance
        return Solution(mean, None if covariance is None else root @ covariance @ root)


class Solver(InverseModel):
    """Base class of solvers that invert whitened recordings one by one, in double precision.

    Whitened noise has unit variance, so every solver knows the noise level. With loose orientation
    the lead field is multiplied by the root of the prior covariance, and the solution too, as in
    the sparse solvers of MNE-Python. So a solver that treats the components of a source alike
    prefers the normal.

    Args:
        patches: Smallest and largest radius, m, and number of radii of patches around every
            source. The moments of patches are then solved for, not those of sources: a basis of
            Gaussian fields of several widths, as in sFLEX. Standard deviations of patches are
            combined as independent. With loose orientation a patch has the normal of its centre.
            None: sources.
        loose: Variance of the two tangential components of a source, relative to 1 along the
            normal, above 0 to 1. Below 1 the head must have free orientation; 1: free on such a
            head, else fixed.

    Source: Haufe et al. 2011, doi:10.1016/j.neuroimage.2010.09.003 (sFLEX).

    """

    bound_to_space = False
    exportable = False

    def __init__(
        self, patches: Sequence[float | int] | None = None, loose: float | int = 1.0
    ) -> None:
        super().__init__()
        self.loose = float(loose)
        self.orientation = None if loose == 1 else OrientationRoot(self.loose)
        self.whitener, self.gain = Whitener(), Gain(whitened=True)
        self.positions, self.rank = SourcePositions(), Rank()
        self.head_inputs = (self.whitener, self.rank, self.gain, self.positions)
        if self.orientation is not None:
            self.head_inputs = (*self.head_inputs, self.orientation)
        self.assumed_sources = "points"
        self.basis: tuple[PatchPairs, PatchShares] | None = None
        if patches is not None:
            if len(patches) != 3:
                raise ValueError(
                    f"{type(self).__name__}: patches must be a smallest and a largest radius (m) "
                    f"and a number of radii, got {list(patches)}."
                )
            radii = float(patches[0]), float(patches[1]), int(patches[2])
            self.basis = PatchPairs(*radii), PatchShares(*radii)
            self.assumed_sources = assumed_patches(radii[0], radii[1])
            self.head_inputs = (*self.head_inputs, *self.basis)

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the method."""
        return Assumptions(self.assumed_sources, "any", "covariance and level", "nominal")

    @abstractmethod
    def solve(self, recording: Array, gain: Array, n_orient: int, rank: int) -> Solution:
        """Invert one recording.

        Args:
            recording: Whitened data ``(C, T)``, no unit.
            gain: Whitened lead field ``(C, D)``, 1/(A m), of sources in units of their prior.
            n_orient: Number of orientations per source, 1 or 3.
            rank: Rank of the noise covariance, see `Rank`.

        """

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Invert each recording separately."""
        recordings = (inputs[self.whitener.key].double() @ data.double()).cpu().numpy()
        dictionary, rank = self._dictionary(inputs), int(inputs[self.rank.key])
        gain, n_orient = dictionary.gain, dictionary.n_orient
        solved = [self.solve(recording, gain, n_orient, rank) for recording in recordings]
        mean, std = (
            None if part[0] is None else torch.as_tensor(np.stack(part), dtype=data.dtype)
            for part in zip(*map(dictionary.at_sources, solved), strict=True)
        )
        assert mean is not None
        return Estimate(mean.to(data.device), None if std is None else std.to(data.device))

    def _dictionary(self, inputs: dict[str, Tensor]) -> "_Dictionary":
        """Lead field of what is solved for."""
        gain, spread, root = inputs[self.gain.key].double().cpu().numpy(), None, None
        n_orient = gain.shape[1] // len(inputs[self.positions.key])
        if self.basis is not None:
            pairs, shares = (inputs[declaration.key].cpu() for declaration in self.basis)
            spread = _spread(pairs.numpy(), shares.double().numpy(), n_orient)
            gain = gain @ spread
        if self.orientation is not None:
            root = inputs[self.orientation.key].double().cpu().numpy()
            root = np.tile(root, (gain.shape[1] // n_orient // len(root), 1, 1))
            gain = weighted_gain(gain, root)
        return _Dictionary(gain, n_orient, root, spread)


class _Dictionary(NamedTuple):
    """Lead field of sources or patches, in units of their prior, and the way back to sources.

    Attributes:
        gain: Whitened lead field ``(C, K)``, 1/(A m).
        n_orient: Orientations ``O`` per source.
        root: Roots of the prior ``(K / O, O, O)``, no unit; None: identity.
        spread: Shares of patches ``(D, K)``, no unit; None: sources.

    """

    gain: Array
    n_orient: int
    root: Array | None
    spread: csr_array | None

    def at_sources(self, solution: Solution) -> tuple[Array, Array | None]:
        """Mean and standard deviation of sources ``(D, T)``, A m."""
        solution = solution if self.root is None else solution.oriented(self.root)
        mean, std = solution.mean, solution.std
        if self.spread is None:
            return mean, std
        return self.spread @ mean, None if std is None else np.sqrt(self.spread.power(2) @ std**2)


def assumed_patches(smallest: float, largest: float) -> str:
    """Text that describes patches of these radii, m."""
    return f"patches of {1e3 * smallest:g}-{1e3 * largest:g} mm"


def _spread(pairs: NDArray[np.int64], shares: Array, n_orient: int) -> csr_array:
    """Matrix ``(D, K D)`` from patch moments (radius, centre, orientation) to source moments."""
    n_radii, n_sources = shares.shape[1], int(pairs.max()) + 1
    sources, centres = (pairs[:, i, None] for i in (0, 1))
    columns = np.arange(n_radii) * n_sources + centres
    rows = np.broadcast_to(sources, columns.shape)
    single = (shares.ravel(), (rows.ravel(), columns.ravel()))
    matrix = csr_array(single, shape=(n_sources, n_radii * n_sources))
    return csr_array(kron(matrix, eye_array(n_orient)))
