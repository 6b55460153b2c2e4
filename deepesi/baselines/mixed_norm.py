"""Mixed-norm estimates: few sources, with any time course and orientation (group LASSO)."""

import numpy as np

from deepesi.baselines.solver import Array, Solution, Solver


class MixedNorm(Solver):
    """MxNE and irMxNE, computed with the solver of MNE-Python.

    Minimizes ``½ ‖v − G j‖² + α Σ_s ‖j_s‖`` with the norm over orientations and samples of a
    source. With reweighting the penalty becomes the square root of that norm. Columns are divided
    by their norms. The amplitudes of the active sources are debiased.

    Args:
        alpha: Regularization strength, percent of the smallest one that makes all sources zero.
        n_reweighted: Number of reweighted solutions. 1: MxNE.
        loose: Variance of the tangential components relative to that along the normal, as in
            `Solver`.

    Raises:
        ValueError: `alpha` is outside 0 to 100, or `n_reweighted` is below 1.

    Source: Gramfort et al. 2012, doi:10.1088/0031-9155/57/7/1937 (MxNE); Strohmeier et al. 2016,
    doi:10.1109/TMI.2016.2553445 (irMxNE).

    """

    def __init__(
        self, alpha: float = 40.0, n_reweighted: int = 1, loose: float | int = 1.0
    ) -> None:
        super().__init__(loose=loose)
        if not 0 < alpha < 100 or n_reweighted < 1:
            raise ValueError(
                "MixedNorm: alpha must lie between 0 and 100 % and n_reweighted be 1 or more, got "
                f"{alpha} and {n_reweighted}."
            )
        self.alpha, self.n_reweighted = alpha, n_reweighted

    def solve(self, recording: Array, gain: Array, n_orient: int, rank: int) -> Solution:
        """Solve with the given share of the largest regularization strength."""
        from mne.inverse_sparse.mxne_optim import iterative_mixed_norm_solver

        blocks = gain.reshape(len(gain), -1, n_orient)
        norms = np.linalg.norm(blocks, axis=(0, 2))
        columns = (blocks / norms[:, None]).reshape(gain.shape)
        correlation = (columns.T @ recording).reshape(len(norms), -1)
        largest = np.linalg.norm(correlation, axis=1).max()
        mean = np.zeros((gain.shape[1], recording.shape[1]))
        if largest > 0:
            weights, active, _ = iterative_mixed_norm_solver(
                recording / largest,
                columns,
                self.alpha / 100,
                self.n_reweighted,
                n_orient=n_orient,
                debias=True,
                verbose="error",
            )
            mean[active] = largest * weights
        return Solution(mean / np.repeat(norms, n_orient)[:, None])
