"""Ridge, LASSO and elastic net, with a constant strength or cross-validation."""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, MultiTaskElasticNet, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold

from deepesi.baselines.solver import Array, Solution, Solver
from deepesi.core.contracts import Assumptions

#: Largest number of rounds of coordinate descent, in cross-validation and in the final fit. With
#: few rounds in cross-validation, now and then a neighbouring strength is chosen.
N_ROUNDS_TO_COMPARE, N_ROUNDS = 100, 2000


class RegularizationCurve(NamedTuple):
    """Result of cross-validation for every regularization strength."""

    alphas: Array  # strengths (A,), as in scikit-learn
    r2: Array  # R² at the held-out sensors, mean over folds (A,)
    n_active: Array  # nonzero components in a fit to all sensors (A,)


class SparseRegression(Solver):
    """Linear regression of the recording on the lead field. Sensors are the samples.

    Columns have unit norm, so that deep sources have no disadvantage. With several samples one
    penalty groups the samples of a component (the l21 norm: group LASSO over time); ridge treats
    every sample alone. Cross-validation holds out sensors. The strength with the largest R² at
    the held-out sensors is used to fit all sensors. Strengths that make all sources zero
    are not chosen.

    Args:
        l1_ratio: 1: LASSO; 0: ridge; between: elastic net.
        n_alphas: Number of strengths, from the smallest one that makes all sources zero (ridge:
            the largest eigenvalue) down by a factor of 1000, with equal steps of the logarithm.
        n_folds: Number of folds of sensors.
        seed: Random seed of the folds.
        strength: Share of the smallest strength that makes all sources zero (ridge: of the
            largest eigenvalue), for every recording. None: by cross-validation.

    Raises:
        ValueError: Ratio or strength is outside 0 to 1, or there are fewer than 2 strengths or
            folds.

    Source: Tibshirani 1996, doi:10.1111/j.2517-6161.1996.tb02080.x; Zou & Hastie 2005,
    doi:10.1111/j.1467-9868.2005.00503.x; Uutela et al. 1999, doi:10.1006/nimg.1999.0454 (minimum
    current estimates). Solvers: scikit-learn.

    """

    def __init__(
        self,
        l1_ratio: float = 1.0,
        n_alphas: int = 12,
        n_folds: int = 5,
        seed: int = 0,
        strength: float | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= l1_ratio <= 1 or min(n_alphas, n_folds) < 2:
            raise ValueError(
                "SparseRegression: l1_ratio must lie within 0 to 1, n_alphas and n_folds be 2 or "
                f"more, got {l1_ratio}, {n_alphas} and {n_folds}."
            )
        if strength is not None and not 0 < strength < 1:
            raise ValueError(
                f"SparseRegression: strength must lie between 0 and 1, got {strength}."
            )
        self.strength = strength
        self.l1_ratio, self.n_alphas, self.n_folds, self.seed = l1_ratio, n_alphas, n_folds, seed

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the method; cross-validation does not use the noise level."""
        known = super().assumptions
        return known if self.strength is not None else known._replace(noise="covariance")

    def solve(self, recording: Array, gain: Array, n_orient: int, rank: int) -> Solution:
        """Choose the strength, then fit the data of all sensors."""
        norms = np.linalg.norm(gain, axis=0)
        if not recording.any():
            return Solution(np.zeros((gain.shape[1], recording.shape[1])))
        if self.strength is None:
            curve = self.curve(recording, gain, N_ROUNDS_TO_COMPARE)
            best = np.where(curve.n_active > 0, curve.r2, -np.inf).argmax()
            alpha = float(curve.alphas[best])
        else:
            alpha = self.strength * self._largest(gain / norms, recording)
        fitted = self._fit(gain / norms, recording, alpha)
        return Solution(fitted / norms[:, None])

    def curve(self, recording: Array, gain: Array, n_rounds: int = N_ROUNDS) -> RegularizationCurve:
        """Held-out R² and sparsity for every strength, for one recording.

        Args:
            recording: Whitened data ``(C, T)``, no unit.
            gain: Whitened lead field ``(C, D)``, 1/(A m).
            n_rounds: Largest number of rounds of coordinate descent.

        """
        # Sort channels by their lead field, so that folds do not depend on the channel order.
        order = np.lexsort(gain.T[:3])
        recording, gain = recording[order], gain[order]
        columns = gain / np.linalg.norm(gain, axis=0)
        alphas = self._alphas(columns, recording)
        folds = KFold(self.n_folds, shuffle=True, random_state=self.seed).split(columns)
        r2 = np.zeros((self.n_folds, self.n_alphas))
        for fold, (kept, excluded) in enumerate(folds):
            for number, fitted in enumerate(
                self._path(columns[kept], recording[kept], alphas, n_rounds)
            ):
                predicted = columns[excluded] @ fitted
                r2[fold, number] = (
                    r2_score(recording[excluded].ravel(), predicted.ravel(), force_finite=False)
                    if recording[excluded].any()
                    else 0.0
                )
        n_active = [
            np.count_nonzero(fitted.any(axis=1))
            for fitted in self._path(columns, recording, alphas, n_rounds)
        ]
        return RegularizationCurve(alphas, r2.mean(axis=0), np.array(n_active))

    def _alphas(self, columns: Array, recording: Array) -> Array:
        return self._largest(columns, recording) * np.logspace(0, -3, self.n_alphas)

    def _largest(self, columns: Array, recording: Array) -> float:
        """Smallest strength that makes all sources zero; for ridge, the largest eigenvalue."""
        if self.l1_ratio == 0:
            top = np.linalg.norm(columns, 2) ** 2
        else:
            top = np.linalg.norm(columns.T @ recording, axis=1).max()
            top /= len(columns) * self.l1_ratio
        return max(float(top), 1e-12)

    def _path(self, columns: Array, recording: Array, alphas: Array, n_rounds: int) -> list[Array]:
        """Fits ``(D, T)`` from strong to weak; each starts from the previous one."""
        if self.l1_ratio == 0:
            return [self._fit(columns, recording, alpha) for alpha in alphas]
        model = self._sparse(recording.shape[1]).set_params(max_iter=n_rounds, warm_start=True)
        return [_weights(model.set_params(alpha=alpha), columns, recording) for alpha in alphas]

    def _fit(self, columns: Array, recording: Array, alpha: float) -> Array:
        if self.l1_ratio == 0:
            ridge = Ridge(alpha=alpha, fit_intercept=False, solver="cholesky")
            coefficients = np.asarray(ridge.fit(columns, recording).coef_)
            return coefficients.reshape(recording.shape[1], -1).T
        model = self._sparse(recording.shape[1])
        return _weights(model.set_params(alpha=alpha), columns, recording)

    def _sparse(self, n_times: int) -> ElasticNet | MultiTaskElasticNet:
        kind = ElasticNet if n_times == 1 else MultiTaskElasticNet
        return kind(l1_ratio=self.l1_ratio, fit_intercept=False, max_iter=N_ROUNDS, tol=1e-4)


def _weights(model: ElasticNet | MultiTaskElasticNet, columns: Array, recording: Array) -> Array:
    """Fitted weights ``(D, T)``. With a weak penalty the fit may not have converged."""
    data = recording[:, 0] if recording.shape[1] == 1 else recording
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(np.asfortranarray(columns), data)
    return np.asarray(model.coef_, dtype=np.float64).reshape(recording.shape[1], -1).T.copy()
