"""Dipole scan and recursive MUSIC: a few point sources, found one after the other."""

import numpy as np

from deepesi.baselines.solver import Array, Solution, Solver
from deepesi.core.contracts import Assumptions


class RecursiveMUSIC(Solver):
    """RAP-MUSIC: every place is correlated with the signal subspace, found ones projected out.

    The subspace has the eigenvectors of the whitened window that rise above what noise alone
    reaches. With one sample it is the recording itself, and the first step is a dipole scan: the
    place whose dipole explains most. Orientation is free to turn if the head's is. The moments are
    the least-squares fit of all places found.

    Args:
        n_sources: Places at most; 1: dipole scan.
        threshold: Correlation with the subspace (cosine of the angle) below which to stop.

    Raises:
        ValueError: No source, or a threshold outside 0 to 1.

    Source: Mosher & Leahy 1999, doi:10.1109/78.740118. The number of signals follows the upper
    edge of the eigenvalues of white noise, Marchenko & Pastur 1967,
    doi:10.1070/SM1967v001n04ABEH001994.

    """

    def __init__(self, n_sources: int = 5, threshold: float = 0.9) -> None:
        super().__init__()
        if n_sources < 1 or not 0 < threshold < 1:
            raise ValueError(
                "RecursiveMUSIC: n_sources must be 1 or more and threshold lie between 0 and 1, "
                f"got {n_sources} and {threshold}."
            )
        self.n_sources, self.threshold = n_sources, threshold

    @property
    def assumptions(self) -> Assumptions:
        """See `InverseModel`."""
        return super().assumptions._replace(
            n_sources="1" if self.n_sources == 1 else f"up to {self.n_sources}"
        )

    def solve(self, recording: Array, gain: Array, n_orient: int, rank: int) -> Solution:
        """Find places, then fit their moments."""
        subspace = signal_subspace(recording, rank)
        blocks = gain.T.reshape(-1, n_orient, len(gain)).swapaxes(1, 2)
        found: list[int] = []
        topographies = np.zeros((len(gain), 0))
        for number in range(min(self.n_sources, subspace.shape[1])):
            place, correlation, topography = best_source(blocks, subspace, topographies)
            if number > 0 and correlation < self.threshold:
                break
            found.append(place)
            topographies = np.column_stack([topographies, topography])
        rows = np.concatenate([n_orient * p + np.arange(n_orient) for p in found])
        mean = np.zeros((gain.shape[1], recording.shape[1]))
        mean[rows] = np.linalg.lstsq(gain[:, rows], recording, rcond=None)[0]
        return Solution(mean)


def signal_subspace(recording: Array, rank: int) -> Array:
    """Orthonormal columns ``(C, K)`` of signals above white noise of variance 1, at least 1.

    Args:
        recording: Whitened, ``(C, T)``.
        rank: Number of its dimensions.

    """
    left, values, _ = np.linalg.svd(recording, full_matrices=False)
    edge = np.sqrt(recording.shape[1]) + np.sqrt(rank)
    return left[:, : max(int((values > edge).sum()), 1)]


def best_source(blocks: Array, subspace: Array, topographies: Array) -> tuple[int, float, Array]:
    """The place closest to the subspace, once both are freed of topographies found before.

    Args:
        blocks: Topographies ``(S, C, O)``.
        subspace: Orthonormal ``(C, K)``.
        topographies: Of the places found before ``(C, N)``.

    Returns:
        Number of the place, its correlation with the subspace, the topography that reaches it.

    """
    basis = np.linalg.qr(topographies)[0]
    free = np.linalg.svd(subspace - basis @ (basis.T @ subspace), full_matrices=False)
    signal = free[0][:, free[1] > 1e-6]
    rest = blocks - basis @ (basis.T @ blocks)
    left, values, right = np.linalg.svd(rest, full_matrices=False)
    # Directions that were projected out altogether must not come back as rounding errors.
    seen = values > 1e-3 * np.linalg.norm(blocks, axis=(1, 2))[:, None]
    left = np.where(seen[:, None], left, 0.0)
    direction, cosines, _ = np.linalg.svd(left.swapaxes(1, 2) @ signal, full_matrices=False)
    best = int(cosines[:, 0].argmax())
    turn = direction[best][:, 0] / np.where(seen[best], values[best], np.inf)
    return best, float(cosines[best, 0]), blocks[best] @ (right[best].T @ turn)
