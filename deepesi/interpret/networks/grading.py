"""Grades of attributions, where simulation knows what they should be.

An attribution is good if it ranks sensors as the exact answer does; if the explained value falls
when the sensors that it ranks highest are lost, and stays when only they are kept; and if it
changes with the weights of the model and with the target. A map that stays the same for random
weights shows the recording, not the model.

Source: deletion and insertion: Petsiuk et al. 2018, arXiv:1806.07421; randomization of weights:
Adebayo et al. 2018, arXiv:1810.03292. Differences: lost sensors are predicted by the others; the
exact answer is that of `BayesSinglePatch`; besides the weights, the explained neighbourhood is
exchanged for another one.
"""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import rankdata

from deepesi.core.contracts import InverseModel
from deepesi.interpret.any_model.frames import Explained
from deepesi.physics.channel_check import predicted_channels
from deepesi.physics.sensors import SensorArray

Array = NDArray[np.float64]

#: Shares of the sensors that are lost or kept.
FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
#: Largest rank correlation with the map for random weights, or for another target. A method above
#: it fails, because its map depends little on the model or the target.
LARGEST_CORRELATION = 0.5


def bayes_log_odds(
    data: Array, inside: NDArray[np.bool_], topographies: Array, whitener: Array
) -> float:
    """Log-odds that the only source lies in a neighbourhood, exact for one Gaussian patch.

    Args:
        data: Referenced data ``(C, T)``, V.
        inside: Which sources are in the neighbourhood ``(S,)``.
        topographies: Unit whitened topographies of the patches ``(K, D, C)``, from
            `deepesi.physics.head_inputs.PatchTopographies`.
        whitener: Whitening matrix ``(C, C)``, 1/V.

    """
    half, _ = _matched(data, len(inside), topographies, whitener)
    return float(logsumexp(half[:, inside]) - logsumexp(half[:, ~inside]))


def bayes_sensitivity(
    data: Array, inside: NDArray[np.bool_], topographies: Array, whitener: Array
) -> Array:
    """Derivative of `bayes_log_odds` by the data ``(C, T)``, 1/V, in closed form.

    The log-posterior of a patch is half the energy of its matched filter. Its derivative is its
    topography times its amplitude, and that of the log-odds is the posterior mean of these inside
    less that outside. Arguments as in `bayes_log_odds`.
    """
    half, amplitudes = _matched(data, len(inside), topographies, whitener)
    weights = np.zeros_like(half)
    for part, sign in ((inside, 1.0), (~inside, -1.0)):
        weights[:, part] = sign * np.exp(half[:, part] - logsumexp(half[:, part]))
    n_orient = amplitudes.shape[1] // len(inside)
    expected = np.repeat(weights, n_orient, axis=1)[..., None] * amplitudes
    return np.asarray(whitener.T @ np.einsum("kdc,kdt->ct", topographies, expected))


def _matched(
    data: Array, n_sources: int, topographies: Array, whitener: Array
) -> tuple[Array, Array]:
    """Half the energy of every patch ``(K, S)``, and the amplitudes ``(K, D, T)``."""
    amplitudes = topographies @ (whitener @ data)
    energy = (amplitudes**2).reshape(len(amplitudes), n_sources, -1).sum(2)
    return 0.5 * energy, amplitudes


def rank_correlation(first: Array, second: Array) -> float:
    """Spearman's correlation of two maps ``(C,)``; NaN if one of them is constant."""
    ranks = [rankdata(values) for values in (first, second)]
    centred = [values - values.mean() for values in ranks]
    norms = [float(np.linalg.norm(values)) for values in centred]
    product = float(centred[0] @ centred[1])
    return product / (norms[0] * norms[1]) if min(norms) > 0 else float("nan")


def curves(
    function: Explained,
    data: Array,
    precision: Array,
    sensors: SensorArray,
    order: NDArray[np.int64],
) -> tuple[float, float]:
    """The explained value without the first sensors of an order, and with them alone.

    Means over `FRACTIONS`. For a good order the first is small and the second large.

    Args:
        function: What is explained, of recordings ``(B, C, T)`` in NumPy.
        data: Referenced data ``(C, T)``, V.
        precision: Precision of the channels, from `deepesi.physics.channel_check`.
        sensors: The sensors.
        order: All sensors, the most important one first.

    """
    batch = []
    for keep in (False, True):
        for fraction in FRACTIONS:
            n = max(1, round(fraction * len(order)))
            lost = order[n:] if keep else order[:n]
            changed = data.copy()
            changed[lost] = predicted_channels(precision, data, lost)
            batch.append(sensors.reference(changed))
    values = np.asarray(function(np.stack(batch)))
    return float(values[: len(FRACTIONS)].mean()), float(values[len(FRACTIONS) :].mean())


def with_random_weights(model: InverseModel, seed: int = 0) -> InverseModel:
    """A copy of a network, the values of each weight tensor in random order.

    Raises:
        ValueError: The model has no weights.

    """
    if not any(True for _ in model.parameters()):
        raise ValueError(
            f"with_random_weights: {type(model).__name__} has no weights. Exchange the target "
            "instead, which every model has."
        )
    shuffled, rng = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in shuffled.parameters():
            order = torch.randperm(weights.numel(), generator=rng)
            weights.copy_(weights.flatten()[order].reshape(weights.shape))
    return shuffled.eval()
