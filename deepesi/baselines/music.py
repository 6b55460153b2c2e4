"""Dipole scan and recursive MUSIC: a few point sources, estimated one after the other."""

import numpy as np

from deepesi.baselines.solver import Array, Solution, Solver
from deepesi.core.contracts import Assumptions


class RecursiveMUSIC(Solver):
    """RAP-MUSIC: subspace correlation of every source, with previous sources projected out.

    The signal subspace has the singular vectors of the whitened window whose singular values are
    above those of noise alone. For one sample it is the recording itself, and the first step is a
    dipole scan: the source whose dipole explains most. Orientation is fixed or free, as in the
    head. The moments are a least-squares fit of all selected sources.

    Args:
        n_sources: Largest number of sources. 1: dipole scan.
        threshold: Subspace correlation (cosine of the angle) below which to stop.

    Raises:
        ValueError: `n_sources` is below 1, or the threshold is outside 0 to 1.

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
        """What the method assumes."""
        return super().assumptions._replace(
            n_sources="1" if self.n_sources == 1 else f"up to {self.n_sources}"
        )

    def solve(self, recording: Array, gain: Array, n_orient: int, rank: int) -> Solution:
        """Select sources, then fit their moments."""
        subspace = signal_subspace(recording, rank)
        blocks = gain.T.reshape(-1, n_orient, len(gain)).swapaxes(1, 2)
        selected: list[int] = []
        topographies = np.zeros((len(gain), 0))
        for number in range(min(self.n_sources, subspace.shape[1])):
            source, correlation, topography = best_source(blocks, subspace, topographies)
            if number > 0 and correlation < self.threshold:
                break
            selected.append(source)
            topographies = np.column_stack([topographies, topography])
        rows = np.concatenate([n_orient * s + np.arange(n_orient) for s in selected])
        mean = np.zeros((gain.shape[1], recording.shape[1]))
        mean[rows] = np.linalg.lstsq(gain[:, rows], recording, rcond=None)[0]
        return Solution(mean)


def signal_subspace(recording: Array, rank: int) -> Array:
    """Orthonormal columns ``(C, K)`` of signals above white noise of variance 1, at least 1.

    Args:
        recording: Whitened data ``(C, T)``, no unit.
        rank: Rank of the noise covariance.

    """
    vectors, values, _ = np.linalg.svd(recording, full_matrices=False)
    edge = np.sqrt(recording.shape[1]) + np.sqrt(rank)
    return vectors[:, : max(int((values > edge).sum()), 1)]


def best_source(blocks: Array, subspace: Array, topographies: Array) -> tuple[int, float, Array]:
    """Find the source with the largest subspace correlation, previous sources projected out.

    Args:
        blocks: Topographies of all sources ``(S, C, O)``.
        subspace: Orthonormal signal subspace ``(C, K)``.
        topographies: Topographies of the previous sources ``(C, N)``.

    Returns:
        Index of the source, subspace correlation, and the topography that has it.

    """
    basis = np.linalg.qr(topographies)[0]
    free = np.linalg.svd(subspace - basis @ (basis.T @ subspace), full_matrices=False)
    signal = free[0][:, free[1] > 1e-6]
    rest = blocks - basis @ (basis.T @ blocks)
    vectors, values, right = np.linalg.svd(rest, full_matrices=False)
    # Directions that were projected out have singular values of rounding errors only.
    visible = values > 1e-3 * np.linalg.norm(blocks, axis=(1, 2))[:, None]
    vectors = np.where(visible[:, None], vectors, 0.0)
    direction, cosines, _ = np.linalg.svd(vectors.swapaxes(1, 2) @ signal, full_matrices=False)
    best = int(cosines[:, 0].argmax())
    weights = direction[best][:, 0] / np.where(visible[best], values[best], np.inf)
    return best, float(cosines[best, 0]), blocks[best] @ (right[best].T @ weights)
