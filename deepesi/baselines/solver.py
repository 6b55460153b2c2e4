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
    PatchPairs,
    PatchShares,
    Rank,
    SourcePositions,
    Whitener,
)

Array = NDArray[np.float64]


class Solution(NamedTuple):
    """Dipole moments ``(D, T)``, A m, and posterior std ``(D, T)``, A m, if there is one."""

    mean: Array
    std: Array | None = None


class Solver(InverseModel):
    """Base class of solvers that invert whitened recordings one by one, in double precision.

    Whitened noise has unit variance, so every solver knows the noise level.

    Args:
        patches: Smallest and largest radius, m, and number of radii of patches around every
            source. The moments of patches are then solved for, not those of sources: a basis of
            Gaussian fields of several widths, as in sFLEX. Standard deviations of patches are
            combined as independent. None: sources.

    Source: Haufe et al. 2011, doi:10.1016/j.neuroimage.2010.09.003 (sFLEX).

    """

    bound_to_space = False
    exportable = False

    def __init__(self, patches: Sequence[float | int] | None = None) -> None:
        super().__init__()
        self.whitener, self.gain = Whitener(), Gain(whitened=True)
        self.positions, self.rank = SourcePositions(), Rank()
        self.head_inputs = (self.whitener, self.rank, self.gain, self.positions)
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
        """What the method assumes."""
        return Assumptions(self.assumed_sources, "any", "covariance and level", "nominal")

    @abstractmethod
    def solve(self, recording: Array, gain: Array, n_orient: int, rank: int) -> Solution:
        """Invert one recording.

        Args:
            recording: Whitened data ``(C, T)``, no unit.
            gain: Whitened lead field ``(C, D)``, 1/(A m).
            n_orient: Number of orientations per source, 1 or 3.
            rank: Rank of the noise covariance, see `Rank`.

        """

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Invert each recording separately."""
        gain = inputs[self.gain.key].double().cpu().numpy()
        recordings = (inputs[self.whitener.key].double() @ data.double()).cpu().numpy()
        n_orient = gain.shape[1] // len(inputs[self.positions.key])
        rank = int(inputs[self.rank.key])
        if self.basis is None:
            solved = [self.solve(recording, gain, n_orient, rank) for recording in recordings]
        else:
            pairs, shares = (inputs[declaration.key].cpu() for declaration in self.basis)
            spread = _spread(pairs.numpy(), shares.double().numpy(), n_orient)
            patch_gain = gain @ spread
            patches = (self.solve(r, patch_gain, n_orient, rank) for r in recordings)
            solved = [_to_sources(solution, spread) for solution in patches]
        mean, std = (
            None if part[0] is None else torch.as_tensor(np.stack(part), dtype=data.dtype)
            for part in zip(*solved, strict=True)
        )
        assert mean is not None
        return Estimate(mean.to(data.device), None if std is None else std.to(data.device))


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


def _to_sources(patches: Solution, spread: csr_array) -> Solution:
    """Spread moments of patches over the sources."""
    std = None if patches.std is None else np.sqrt(spread.power(2) @ patches.std**2)
    return Solution(spread @ patches.mean, std)
