"""Local two-sample test: tests the posterior of one recording without a reference posterior."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Array = NDArray[np.float64]

#: Trials under the null hypothesis: smallest p value 1/101.
N_TRIALS = 100
#: Steps of Newton's method, and the regularization of its equations.
N_NEWTON, TINY = 12, 1e-9


def _features(parameters: Array, data: Array) -> Array:
    """All products of up to two values ``(R, F)``: log-ratios of normal distributions."""
    values = np.concatenate([parameters, data], axis=1)
    rows, columns = np.triu_indices(values.shape[1])
    return np.concatenate([values, values[:, rows] * values[:, columns]], axis=1)


def _probability(ones: Array, others: Array, at: Array) -> Array:
    """Probability that features are of the first kind, by logistic regression between both.

    Newton's method; features are standardized and their weights have a standard normal prior.
    """
    values = np.concatenate([ones, others])
    centre, scale = values.mean(axis=0), values.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)

    def rows(features: Array) -> Array:
        return np.concatenate([(features - centre) / scale, np.ones((len(features), 1))], axis=1)

    design, first = rows(values), np.repeat([1.0, 0.0], [len(ones), len(others)])
    prior = np.append(np.ones(len(centre)), 0.0)
    weights = np.zeros_like(prior)
    for _ in range(N_NEWTON):
        found = expit(design @ weights)
        slope = design.T @ (first - found) - prior * weights
        curvature = (design.T * (found * (1 - found))) @ design + np.diag(prior + TINY)
        weights = weights + np.linalg.solve(curvature, slope)
    return np.asarray(expit(rows(at) @ weights))


def local_statistic(
    targets: Array, samples: Array, data: Array, observed_samples: Array, observed: Array
) -> float:
    """Statistic of the local two-sample test (L-C2ST): 0 where samples are like targets.

    A classifier learns to distinguish pairs of target and data from pairs of sample and data. The
    statistic is the mean squared distance of its probability from 1/2, over samples of one
    recording. The classifier is a logistic regression on all products of two values, which is the
    best one for normal distributions.

    Args:
        targets: Targets of simulated recordings ``(R, P)``, in units of order 1.
        samples: One posterior sample of each ``(R, P)``.
        data: Summaries of the recordings ``(R, Q)``, in units of order 1.
        observed_samples: Posterior samples of the recording ``(N, P)``.
        observed: Its summaries ``(Q,)``.

    Raises:
        ValueError: The numbers of targets, samples and recordings differ.

    Source: Linhart et al. 2023, arXiv:2306.03580. Difference: the classifier.

    """
    if not len(targets) == len(samples) == len(data):
        raise ValueError(
            f"local_statistic: got {len(targets)} targets, {len(samples)} samples and {len(data)} "
            "recordings, expected one sample and one target of each recording."
        )
    at = _features(observed_samples, np.tile(observed, (len(observed_samples), 1)))
    found = _probability(_features(targets, data), _features(samples, data), at)
    return float(np.square(found - 0.5).mean())


def local_p(
    targets: Array,
    samples: Array,
    data: Array,
    observed_samples: Array,
    observed: Array,
    rng: np.random.Generator,
    n_trials: int = N_TRIALS,
) -> float:
    """P value that the posterior of one recording is right: small if it is not.

    Under the null hypothesis target and sample of a recording can be exchanged. So a trial
    exchanges them at random and computes the statistic again.

    Args:
        targets: Targets ``(R, P)``.
        samples: One sample of each ``(R, P)``.
        data: Summaries ``(R, Q)``.
        observed_samples: Samples of the recording ``(N, P)``.
        observed: Its summaries ``(Q,)``.
        rng: Random generator of the trials.
        n_trials: Number of trials.

    Raises:
        ValueError: As in `local_statistic`.

    """
    found = local_statistic(targets, samples, data, observed_samples, observed)
    larger = 0
    for _ in range(n_trials):
        swapped = rng.random(len(targets))[:, None] < 0.5
        one, other = np.where(swapped, samples, targets), np.where(swapped, targets, samples)
        larger += local_statistic(one, other, data, observed_samples, observed) >= found
    return (1 + larger) / (1 + n_trials)
