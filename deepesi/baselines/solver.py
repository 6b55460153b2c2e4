"""Solvers that iterate on every recording: inverse models in numpy, without an exported form."""

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
    """Moments ``(D, T)``, A m, and their posterior deviation ``(D, T)`` where a solver has one."""

    mean: Array
    std: Array | None = None


class Solver(InverseModel):
    """Inverts recordings one by one, whitened, in double precision.

    Whitened noise has unit variance, so that the noise level is known to every solver.

    Args:
        patches: Smallest and largest radius, m, and number of radii of the patches around every
            source that are solved for in place of the sources themselves: a basis of Gaussian
            fields of several widths, as in sFLEX. Deviations of patches are taken as independent.
            None: the sources.

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
        """See `InverseModel`."""
        return Assumptions(self.assumed_sources, "any", "covariance and level", "nominal")

    @abstractmethod
    def solve(self, recording: Array, gain: Array, n_orient: int, rank: int) -> Solution:
        """Invert one recording.

        Args:
            recording: Whitened, ``(C, T)``.
            gain: Whitened lead field ``(C, D)``, 1/(A m).
            n_orient: Orientations per source.
            rank: Number of dimensions of the recording, see `Rank`.

        """

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Every recording on its own."""
        gain = inputs[self.gain.key].double().cpu().numpy()
        recordings = (inputs[self.whitener.key].double() @ data.double()).cpu().numpy()
        n_orient = gain.shape[1] // len(inputs[self.positions.key])
        rank = int(inputs[self.rank.key])
        if self.basis is None:
            solved = [self.solve(recording, gain, n_orient, rank) for recording in recordings]
        else:
            pairs, shares = (inputs[declaration.key].cpu() for declaration in self.basis)
            spread = _spread(pairs.numpy(), shares.double().numpy(), n_orient)
            of_patches = gain @ spread
            patches = (self.solve(r, of_patches, n_orient, rank) for r in recordings)
            solved = [_to_sources(solution, spread) for solution in patches]
        mean, std = (
            None if part[0] is None else torch.as_tensor(np.stack(part), dtype=data.dtype)
            for part in zip(*solved, strict=True)
        )
        assert mean is not None
        return Estimate(mean.to(data.device), None if std is None else std.to(data.device))


def assumed_patches(smallest: float, largest: float) -> str:
    """Patches in words, radii in m."""
    return f"patches of {1e3 * smallest:g}-{1e3 * largest:g} mm"


def _spread(pairs: NDArray[np.int64], shares: Array, n_orient: int) -> csr_array:
    """Moments of the sources ``(D, K D)`` of patches of moment 1, by radius, place, direction."""
    n_radii, n_sources = shares.shape[1], int(pairs.max()) + 1
    sources, centres = (pairs[:, i, None] for i in (0, 1))
    columns = np.arange(n_radii) * n_sources + centres
    rows = np.broadcast_to(sources, columns.shape)
    single = (shares.ravel(), (rows.ravel(), columns.ravel()))
    matrix = csr_array(single, shape=(n_sources, n_radii * n_sources))
    return csr_array(kron(matrix, eye_array(n_orient)))


def _to_sources(patches: Solution, spread: csr_array) -> Solution:
    """Sources of the patches found."""
    std = None if patches.std is None else np.sqrt(spread.power(2) @ patches.std**2)
    return Solution(spread @ patches.mean, std)
