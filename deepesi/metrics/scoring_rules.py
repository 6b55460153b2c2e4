"""Proper scoring rules of probabilistic estimates: small if sharp and right.

Scores of samples and of standard deviations have the unit of the target, the log score has nats.

Source: Gneiting & Raftery 2007, doi:10.1198/016214506000001437. Difference: the spread of draws is
the mean over pairs of different draws, so that the score does not depend on how many there are; a
single draw scores as the point it is.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from scipy.special import ndtr

from deepesi.core.batch import Batch
from deepesi.core.contracts import PosteriorModel

Array = NDArray[np.float64]

#: From A m to nA m.
NANO = 1e9


def crps_gaussian(mean: Array, std: Array, target: Array) -> Array:
    """Continuous ranked probability score of normal distributions, at every element.

    ``σ [z (2 Φ(z) − 1) + 2 φ(z) − 1/√π]`` with ``z = (y − μ) / σ``; ``|y − μ|`` where ``σ`` is 0.

    Args:
        mean: ``μ``, any shape and unit.
        std: ``σ``, the same shape and unit, not negative.
        target: ``y``, the same shape and unit.

    """
    error = target - mean
    z = np.divide(error, std, out=np.zeros_like(error), where=std > 0)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    score = std * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return np.where(std > 0, score, np.abs(error))


def crps_samples(samples: Array, target: Array) -> Array:
    """Continuous ranked probability score from draws, ``E|X − y| − E|X − X'| / 2``, every element.

    Args:
        samples: Draws ``(N, ...)``, any unit.
        target: ``y`` ``(...)``, the same unit.

    """
    n = len(samples)
    weights = 2 * np.arange(1, n + 1) - n - 1  # in rising order, each value less those below it
    spread = np.tensordot(weights, np.sort(samples, axis=0), axes=1) / max(n * (n - 1), 1)
    return np.asarray(np.abs(samples - target).mean(axis=0) - spread)


def energy_score(samples: Array, target: Array) -> float:
    """Energy score of a whole map or window, ``E‖X − y‖ − E‖X − X'‖ / 2``, Euclidean norm.

    The continuous ranked probability score in several dimensions: unlike its mean over them, it
    also judges what the draws say about dipoles together.

    Args:
        samples: Draws ``(N, ...)``, any unit.
        target: ``y`` ``(...)``, the same unit.

    """
    flat = samples.reshape(len(samples), -1)
    error = np.linalg.norm(flat - target.ravel(), axis=1).mean()
    return float(error - (pdist(flat).mean() / 2 if len(flat) > 1 else 0.0))


def moments_crps(mean: Array, std: Array | None, samples: Array | None, target: Array) -> float:
    """Continuous ranked probability score of dipole moments, mean over dipoles and times, nA m.

    From draws where there are any, else of normal distributions; NaN without uncertainty.

    Args:
        mean: Estimated moments ``(D, T)``, A m.
        std: Their standard deviation ``(D, T)``, A m, or None.
        samples: Draws ``(N, D, T)``, A m, or None.
        target: Moments ``(D, T)``, A m.

    """
    if samples is not None:
        return NANO * float(crps_samples(samples, target).mean())
    return float("nan") if std is None else NANO * float(crps_gaussian(mean, std, target).mean())


def moments_energy_score(samples: Array | None, target: Array) -> float:
    """Energy score of the dipole moments of a whole window, nA m; NaN without draws.

    Args:
        samples: Draws ``(N, D, T)``, A m, or None.
        target: Moments ``(D, T)``, A m.

    """
    return float("nan") if samples is None else NANO * energy_score(samples, target)


def log_score(model: PosteriorModel, batch: Batch) -> Array:
    """Log score of what was simulated, nats ``(B,)``: minus the logarithm of its density.

    Only scores of models with the same kind of configuration can be compared. The density of a
    window is that of all its samples in time.

    Args:
        model: A posterior model with a density (`PosteriorModel.has_density`).
        batch: Simulated recordings.

    Raises:
        NotImplementedError: The model has no density.

    Source: Good 1952, doi:10.1111/j.2517-6161.1952.tb00104.x.

    """
    with torch.no_grad():
        density = model.log_density(batch.data, batch.inputs, model.target(batch))
    return -np.asarray(density[0].double().cpu())
