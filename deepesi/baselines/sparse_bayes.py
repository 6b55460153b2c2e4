"""Sparse Bayesian learning: Gamma-MAP and Champagne, on sources or on patches."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepesi.baselines.solver import Array, Solution, Solver
from deepesi.core.contracts import Assumptions
from deepesi.physics.noise import whitened_power

UPDATES = ("mackay", "convex", "em")


class SparseBayes(Solver):
    r"""Prior variances by maximum marginal likelihood, and the posterior mean under them.

    ``v = G j + e`` with ``j ~ N(0, Γ)``, one variance ``γ`` per source for all orientations and
    samples, ``e ~ N(0, λ I)`` whitened. With loose orientation the tangential components have the
    variance ``loose γ``. Updates, computed from the posterior:

    - ``"em"``: mean posterior energy;
    - ``"mackay"``: energy of the mean divided by the relative reduction of variance by the data;
    - ``"convex"``: square root of the energy of the mean divided by ``gᵀ Σ⁻¹ g``.

    EM and convex updates never lower the likelihood. MacKay updates are faster, but may lower it.
    Sources with a variance below 1e-4 of the largest are removed. The posterior covariance gives
    the standard deviation.

    Args:
        update: Update rule. ``"mackay"`` is Gamma-MAP as in MNE-Python, ``"convex"`` Champagne.
        learn_noise: Whether ``λ`` is estimated with the sources.
        noise: ``λ``, noise variance relative to the noise covariance (no unit). Values above 1
            allow for errors of the lead field.
        n_steps: Largest number of updates.
        tolerance: Relative change of the variances at which to stop.
        patches: Smallest and largest radius, m, and number of radii of patches, as in `Solver`.
            None: sources.
        loose: Variance of the tangential components relative to that along the normal, as in
            `Solver`.

    Raises:
        ValueError: The update is unknown, `n_steps` is below 1, tolerance or noise is not
            positive, noise is both given and learned, or there are not three radii values.

    Source: Wipf & Nagarajan 2009, doi:10.1016/j.neuroimage.2008.02.059 (Gamma-MAP and its
    updates); Owen et al. 2012, doi:10.1016/j.neuroimage.2011.12.027 (Champagne); Hashemi et al.
    2021, doi:10.1016/j.neuroimage.2021.118309 (noise learned jointly).

    """

    def __init__(
        self,
        update: str = "mackay",
        learn_noise: bool = False,
        n_steps: int = 200,
        tolerance: float = 1e-4,
        patches: Sequence[float | int] | None = None,
        noise: float | int = 1.0,
        loose: float | int = 1.0,
    ) -> None:
        super().__init__(patches, loose)
        if update not in UPDATES:
            raise ValueError(f"SparseBayes: update must be one of {UPDATES}, got {update!r}.")
        if n_steps < 1 or not tolerance > 0:
            raise ValueError(
                "SparseBayes: n_steps must be 1 or more and tolerance positive, got "
                f"{n_steps} and {tolerance}."
            )
        if not noise > 0 or (learn_noise and noise != 1):
            raise ValueError(
                "SparseBayes: noise must be positive, and either given or learned, got "
                f"noise={noise} and learn_noise={learn_noise}."
            )
        self.update, self.learn_noise, self.noise = update, learn_noise, float(noise)
        self.n_steps, self.tolerance = n_steps, tolerance

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the method."""
        known = super().assumptions
        return known._replace(noise="covariance") if self.learn_noise else known

    def solve(self, recording: Array, gain: Array, n_orient: int, rank: int) -> Solution:
        """Learn the variances, then compute the posterior."""
        unit = np.linalg.norm(gain)  # so that columns are of order one in any unit
        blocks = (gain / unit).T.reshape(-1, n_orient, len(gain))
        active, gamma, noise = self.learn(recording, blocks, rank)
        mean = np.zeros((len(blocks), n_orient, recording.shape[1]))
        covariance = np.zeros((len(blocks), n_orient, n_orient))
        mean[active], _, _ = _posterior(recording, blocks[active], gamma, noise)
        covariance[active] = _covariance(blocks[active], gamma, noise)
        return Solution(mean.reshape(-1, recording.shape[1]) / unit, covariance / unit**2)

    def learn(
        self, recording: Array, blocks: Array, rank: int
    ) -> tuple[NDArray[np.int64], Array, float]:
        """Learn the prior variances.

        Args:
            recording: Whitened data ``(C, T)``, no unit.
            blocks: Whitened, scaled lead field per source ``(S, O, C)``.
            rank: Rank of the noise covariance.

        Returns:
            Indices of the active sources, their variances, and the noise variance ``λ``.

        """
        n_times = recording.shape[1]
        power = max(float(whitened_power(recording, rank).mean()), 1e-12)
        active = np.arange(len(blocks))
        gamma = np.full(len(blocks), power * rank / (blocks**2).sum())
        noise = self.noise if not self.learn_noise else 0.5 * power
        n_orient = blocks.shape[1]
        for _ in range(self.n_steps):
            mean, per_orientation, residual = _posterior(recording, blocks[active], gamma, noise)
            energy = (mean**2).sum((1, 2)) / n_times
            information = per_orientation.sum(1)
            if self.update == "mackay":
                new = energy / np.maximum(gamma * information, 1e-300)
            elif self.update == "convex":
                new = np.sqrt(energy / np.maximum(information, 1e-300))
            else:
                new = energy / n_orient + gamma - gamma**2 * information / n_orient
            if self.learn_noise:
                explained = float((gamma * information).sum())
                misfit = float((residual**2).sum()) / n_times
                noise = max(misfit / max(rank - explained, 1.0), 1e-6 * power)
            change = np.abs(new - gamma).max() / max(new.max(), 1e-300)
            kept = new >= 1e-4 * new.max() if new.max() > 0 else np.zeros(len(new), dtype=bool)
            active, gamma = active[kept], new[kept]
            if change < self.tolerance or not kept.any():
                break
        return active, gamma, noise


def _posterior(
    recording: Array, blocks: Array, gamma: Array, noise: float
) -> tuple[Array, Array, Array]:
    """Mean ``(S, O, T)``, ``diag(gᵀ Σ⁻¹ g)`` ``(S, O)`` and residual of the data ``(C, T)``."""
    n_channels = len(recording)
    rows, inverse = blocks.reshape(-1, n_channels), _precision(blocks, gamma, noise)
    projected = rows @ inverse
    mean = (np.repeat(gamma, blocks.shape[1])[:, None] * (projected @ recording)).reshape(
        *blocks.shape[:2], recording.shape[1]
    )
    information = (projected * rows).sum(1).reshape(blocks.shape[:2])
    return mean, information, noise * inverse @ recording


def _precision(blocks: Array, gamma: Array, noise: float) -> Array:
    """Inverse ``Σ⁻¹`` ``(C, C)`` of the covariance of the data."""
    n_channels = blocks.shape[2]
    weighted = (gamma[:, None, None] * blocks).reshape(-1, n_channels)
    covariance = blocks.reshape(-1, n_channels).T @ weighted + noise * np.eye(n_channels)
    return np.asarray(np.linalg.inv(covariance))


def _covariance(blocks: Array, gamma: Array, noise: float) -> Array:
    """Posterior covariance of the components of every source ``(S, O, O)``."""
    information = blocks @ _precision(blocks, gamma, noise) @ blocks.swapaxes(1, 2)
    variance = gamma[:, None, None]
    return np.asarray(variance * np.eye(blocks.shape[1]) - variance**2 * information)
