"""Dipole scan and recursive MUSIC: a few point sources, estimated one after the other."""

import numpy as np

from deepesi.baselines.solver import Array, Solution, Solver
from deepesi.core.contracts import Assumptions

#: Power of the most visible component over the noise for which evidence is computed.
SNR_GRID = np.logspace(-2, 7, 46)


class RecursiveMUSIC(Solver):
    """RAP-MUSIC: subspace correlation of every source, with previous sources projected out.

    The signal subspace has the singular vectors of the whitened window whose singular values are
    above those of noise alone. For one sample it is the recording itself, and the first step is a
    dipole scan: the source whose dipole explains most. Orientation is fixed or free, as in the
    head. The moments are a least-squares fit of all selected sources.

    With loose orientation the moment of a source has the prior ``N(0, s² P)`` with variance 1 along
    the normal and `loose` in the tangential directions. The source with the largest evidence is
    selected, each with its best ``s``, and the moments are posterior means. In the limit of a
    small `loose` this is the scan of fixed orientation. Free orientation (``loose=1``) has a
    flat prior of the moment instead.

    Args:
        n_sources: Largest number of sources. 1: dipole scan.
        threshold: Subspace correlation (cosine of the angle) below which to stop.
        loose: Variance of the tangential components relative to that along the normal, as in
            `Solver`.
        noise: Variance of the noise for the evidence, relative to the noise covariance (no unit).
            Values above 1 allow for errors of the lead field. It has no effect if ``loose=1``.

    Raises:
        ValueError: `n_sources` is below 1, the threshold is outside 0 to 1, or `noise` is not
            positive.

    Source: Mosher & Leahy 1999, doi:10.1109/78.740118. The number of signals follows the upper
    edge of the eigenvalues of white noise, Marchenko & Pastur 1967,
    doi:10.1070/SM1967v001n04ABEH001994.

    """

    def __init__(
        self,
        n_sources: int = 5,
        threshold: float = 0.9,
        loose: float | int = 1.0,
        noise: float | int = 1.0,
    ) -> None:
        super().__init__(loose=loose)
        if n_sources < 1 or not 0 < threshold < 1:
            raise ValueError(
                "RecursiveMUSIC: n_sources must be 1 or more and threshold lie between 0 and 1, "
                f"got {n_sources} and {threshold}."
            )
        if not noise > 0:
            raise ValueError(f"RecursiveMUSIC: noise must be positive, got {noise}.")
        self.n_sources, self.threshold, self.noise = n_sources, threshold, float(noise)

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the method."""
        return super().assumptions._replace(
            n_sources="1" if self.n_sources == 1 else f"up to {self.n_sources}"
        )

    def solve(self, recording: Array, gain: Array, n_orient: int, rank: int) -> Solution:
        """Select sources, then fit their moments."""
        if self.loose < 1:
            return self._solve_loose(recording, gain, n_orient, rank)
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

    def _solve_loose(self, recording: Array, gain: Array, n_orient: int, rank: int) -> Solution:
        """Select sources by their evidence; `gain` is that of sources in units of their prior."""
        subspace = signal_subspace(recording, rank)
        energy = ((subspace.T @ recording) ** 2).sum() / subspace.shape[1]
        blocks = gain.T.reshape(-1, n_orient, len(gain)).swapaxes(1, 2)
        topographies, variances = np.zeros((len(gain), 0)), np.zeros(len(blocks))
        for number in range(min(self.n_sources, subspace.shape[1])):
            signal, rest = _without(topographies, subspace, blocks)
            evidence, variance, moment = source_evidence(rest, np.sqrt(energy) * signal, self.noise)
            best = int(evidence.argmax())
            topography = rest[best] @ moment[best]
            correlation = np.linalg.norm(signal.T @ topography) / np.linalg.norm(topography)
            if number > 0 and correlation < self.threshold:
                break
            variances[best] = variance[best] / recording.shape[1]
            topographies = np.column_stack([topographies, blocks[best] @ moment[best]])
        weighted = gain * np.repeat(variances, n_orient)
        covariance = weighted @ gain.T + self.noise * np.eye(len(gain))
        return Solution(weighted.T @ np.linalg.solve(covariance, recording))


def source_evidence(blocks: Array, signal: Array, noise: float) -> tuple[Array, Array, Array]:
    """Log evidence of a single source at every location, relative to none.

    The moment has the prior ``N(0, s² I)`` with the best ``s²``, and the best time course.

    Args:
        blocks: Topographies of all sources in units of the prior ``(S, C, O)``, whitened.
        signal: Signal subspace ``(C, K)`` times the root of its energy; of one sample the data.
        noise: Variance of the noise.

    Returns:
        Log evidence ``(S,)``, variance ``s²`` ``(S,)`` and direction of the posterior mean
        ``(S, O)``.

    """
    values, vectors = np.linalg.eigh(blocks.swapaxes(1, 2) @ blocks)
    values, largest = values.clip(0), values[:, -1:]
    fitted = vectors.swapaxes(1, 2) @ (blocks.swapaxes(1, 2) @ signal)
    evidence = []
    for snr in SNR_GRID:
        weights = snr / (largest + snr * values) / noise
        explained = _best_energy(np.sqrt(weights)[..., None] * fitted)
        evidence.append(0.5 * (explained - np.log1p(snr * values / largest).sum(1)))
    best = np.argmax(evidence, axis=0)
    snr = SNR_GRID[best][:, None]
    roots = np.sqrt(snr / (largest + snr * values))
    left = np.linalg.svd(roots[..., None] * fitted, full_matrices=False)[0][:, :, 0]
    moment = (vectors @ (roots * left)[..., None])[..., 0]
    return np.max(evidence, axis=0), (snr / largest)[:, 0] * noise, moment


def _best_energy(fitted: Array) -> Array:
    """Energy of the best time course of every source ``(S,)``, of fits ``(S, O, K)``."""
    if fitted.shape[2] == 1:  # the same, faster
        return np.asarray((fitted**2).sum((1, 2)))
    return np.asarray(np.linalg.eigvalsh(fitted @ fitted.swapaxes(1, 2))[:, -1])


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
    signal, rest = _without(topographies, subspace, blocks)
    vectors, values, right = np.linalg.svd(rest, full_matrices=False)
    # Directions that were projected out have singular values of rounding errors only.
    visible = values > 1e-3 * np.linalg.norm(blocks, axis=(1, 2))[:, None]
    vectors = np.where(visible[:, None], vectors, 0.0)
    direction, cosines, _ = np.linalg.svd(vectors.swapaxes(1, 2) @ signal, full_matrices=False)
    best = int(cosines[:, 0].argmax())
    weights = direction[best][:, 0] / np.where(visible[best], values[best], np.inf)
    return best, float(cosines[best, 0]), blocks[best] @ (right[best].T @ weights)


def _without(topographies: Array, subspace: Array, blocks: Array) -> tuple[Array, Array]:
    """Signal subspace (orthonormal) and topographies with previous sources projected out."""
    basis = np.linalg.qr(topographies)[0]
    free = np.linalg.svd(subspace - basis @ (basis.T @ subspace), full_matrices=False)
    return free[0][:, free[1] > 1e-6], blocks - basis @ (basis.T @ blocks)
