"""Tests of posterior samples with a p value: expected coverage (TARP) and two-sample tests."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstest

Array = NDArray[np.float64]

#: Nominal levels of the curve of expected coverage.
LEVELS = np.linspace(0, 1, 51)


def tarp_ranks(samples: Array, targets: Array, references: Array) -> Array:
    """Share of the samples nearer to a reference point than the target ``(R,)``.

    Uniform from 0 to 1 if the samples are those of the posterior, for any reference that does not
    depend on the target. Ties count half.

    Args:
        samples: Posterior samples ``(N, R, P)`` of ``R`` recordings.
        targets: Targets ``(R, P)``.
        references: Reference points ``(R, P)``, drawn from any distribution; they may depend on
            the recording.

    Source: Lemos et al. 2023, arXiv:2302.03026.

    """
    own = np.linalg.norm(targets - references, axis=1)
    others = np.linalg.norm(samples - references, axis=2)
    return np.asarray((others < own).mean(axis=0) + 0.5 * (others == own).mean(axis=0))


def expected_coverage(ranks: Array, levels: Array = LEVELS) -> Array:
    """Share of the recordings whose target lies within each nominal level ``(L,)``.

    Args:
        ranks: Result of `tarp_ranks`.
        levels: Nominal levels.

    """
    return np.asarray((ranks[:, None] <= levels).mean(axis=0))


def coverage_deviation(ranks: Array, levels: Array = LEVELS) -> float:
    """Mean absolute difference between expected coverage and nominal level (no unit)."""
    return float(np.abs(expected_coverage(ranks, levels) - levels).mean())


def tarp_p(ranks: Array, n_samples: int, rng: np.random.Generator) -> float:
    """P value of a Kolmogorov-Smirnov test that ranks of `n_samples` samples are uniform.

    Ranks are multiples of ``1 / n_samples``; they are spread evenly over the steps between them.
    """
    spread = (ranks * n_samples + rng.random(len(ranks))) / (n_samples + 1)
    return float(kstest(spread, "uniform").pvalue)


def contraction(samples: Array, prior_variance: Array) -> Array:
    """One minus posterior variance over prior variance, by parameter: 1 if all is known ``(P,)``.

    Args:
        samples: Posterior samples ``(N, R, P)``.
        prior_variance: Variance of the prior ``(P,)``.

    Source: Betancourt 2018, arXiv:1803.08393.

    """
    return np.asarray(1 - samples.var(axis=0).mean(axis=0) / prior_variance)


def z_scores(samples: Array, targets: Array) -> Array:
    """Posterior mean minus target, over the posterior standard deviation ``(R, P)``.

    Args:
        samples: Posterior samples ``(N, R, P)``; two or more, not all equal.
        targets: Targets ``(R, P)``.

    Source: Betancourt 2018, arXiv:1803.08393.

    """
    return np.asarray((samples.mean(axis=0) - targets) / samples.std(axis=0))


def c2st_categorical(one: Array, other: Array) -> float:
    """Accuracy of the best classifier between two distributions over the same categories.

    0.5 if they are equal, 1 if they have no category in common: ``(1 + total variation) / 2``.

    Args:
        one: Probabilities ``(P,)``, sum 1.
        other: Probabilities ``(P,)``, sum 1.

    Raises:
        ValueError: The probabilities do not sum to 1.

    Source: Lopez-Paz & Oquab 2017, arXiv:1610.06545. Difference: the classifier is the optimum
    (Bayes), not a trained one, because all categories are known.

    """
    for values in (one, other):
        if not np.isclose(values.sum(), 1, atol=1e-4):
            raise ValueError(
                f"c2st_categorical: probabilities sum to {values.sum():g}, expected 1. Divide "
                "counts by their number."
            )
    return float(0.5 + 0.25 * np.abs(one - other).sum())


def c2st(one: Array, other: Array, seed: int = 0, n_folds: int = 5) -> float:
    """Accuracy of a trained classifier between two sets of samples, by cross-validation.

    Args:
        one: Samples ``(N, P)``.
        other: Samples ``(N, P)``; as many as the first, so that chance is 0.5.
        seed: Random seed of classifier and folds.
        n_folds: Number of folds.

    Raises:
        ValueError: The sets are not of the same size.
        ModuleNotFoundError: scikit-learn is not installed.

    Source: Lopez-Paz & Oquab 2017, arXiv:1610.06545; classifier as in Lueckmann et al. 2021,
    arXiv:2101.04653, with nearest neighbours in place of a network, which are exact enough for few
    parameters and have nothing to tune.

    """
    from deepesi.utils.optional import require

    if one.shape != other.shape:
        raise ValueError(
            f"c2st: got samples {one.shape} and {other.shape}, expected as many of each. Take the "
            "same number from the larger set."
        )
    neighbours = require("sklearn.neighbors", "train", "compare two sets of samples")
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    values, labels = np.concatenate([one, other]), np.repeat([0, 1], [len(one), len(other)])
    scale = one.std(axis=0)
    values = (values - one.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    classifier = neighbours.KNeighborsClassifier(max(1, int(np.sqrt(len(values)))))
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    return float(cross_val_score(classifier, values, labels, cv=folds).mean())


def misspecification_p(statistic: float, simulated: Array) -> float:
    """P value that a recording is like those of training: share at least as extreme, plus one.

    Args:
        statistic: A summary of the recording; large is unusual, such as the power that no source
            explains.
        simulated: The same of simulated recordings ``(R,)``.

    """
    return float((1 + (simulated >= statistic).sum()) / (1 + len(simulated)))
