"""Channels that no source explains: each is compared with its prediction from the others.

With Gaussian sources and noise, the inverse of the channel covariance predicts each channel from
the others, with a standard deviation. A channel with a bad contact, a wrong gain or a wrong
connection differs from this prediction.

Source: leave-one-out prediction from the precision matrix, Rasmussen & Williams 2006 (section
5.4.2, doi:10.7551/mitpress/3206.001.0001). Difference: residuals are compared between channels,
because no head model is exact, and only channels that the others determine are checked.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.physics.noise import spanned_projector
from deepesi.physics.sensors import SensorArray

Array = NDArray[np.float64]

#: SNR of the prediction (power ratio); mismatch variance as a share of the signal variance.
SIGNAL, MISMATCH = 10**0.5, 0.05
#: Least ratio of a channel's residual to the median residual, both standardized.
MIN_RATIO = 3.0
#: Least ratio of the residual to the RMS of the recording, times the share that the others predict.
MIN_SIZE = 1.0
#: Correlation with the prediction below which a channel does not follow it.
FOLLOWS = 0.1
#: Largest ratio of its amplitude to the predicted one, and the inverse of the smallest.
LARGEST_GAIN = 12.0
#: Fewest samples and channels for a check.
FEWEST_SAMPLES, FEWEST_CHANNELS = 10, 8


def channel_precision(head: HeadModel) -> Array:
    """Inverse covariance ``(C, C)`` of referenced channels, of the rank after referencing.

    Sources are independent and equally strong, at 5 dB. Only the diagonal of the noise covariance
    is used, because brain noise has sources, too, and only in the dimensions that it spans.
    """
    gain, noise = spanned_projector(head.noise_cov) @ head.leadfield, np.diag(head.noise_cov)
    signal = gain @ gain.T
    signal *= SIGNAL * noise.sum() / np.trace(signal)
    covariance = signal + np.diag(noise + MISMATCH * np.diag(signal))
    referenced = head.sensors.reference_cov(covariance)
    return np.asarray(np.linalg.pinv(referenced, rcond=1e-12, hermitian=True))


def unexplained_channels(precision: Array, data: Array, sensors: SensorArray) -> list[int]:
    """Rows of the channels that no source explains, the worst first.

    They are detected one after the other. Each is excluded before the next search, so that one bad
    channel does not affect its neighbours.

    Args:
        precision: Result of `channel_precision` ``(C, C)``, in the order of the channels.
        data: ``(C, T)``, any reference; no check with too few samples or channels.
        sensors: The ``C`` sensors.

    """
    rows, unexplained = np.arange(len(data)), []
    while data.shape[1] >= FEWEST_SAMPLES and len(rows) >= FEWEST_CHANNELS:
        worst = _worst(precision, sensors[rows].to_head(data[rows]))
        if worst is None:
            break
        unexplained.append(int(rows[worst]))
        rows = np.delete(rows, worst)
        precision = _without(precision, worst)
    return unexplained


def predicted_channels(
    precision: Array, data: Array, rows: Sequence[int] | NDArray[np.int64]
) -> Array:
    """Conditional mean of some channels, given the others, in the unit of the data.

    The reference of the others counts as unknown. Otherwise a lost channel would follow from the
    sum over all channels, which is 0. So reference the result again.

    Args:
        precision: Result of `channel_precision` ``(C, C)``.
        data: Referenced data ``(C, T)``.
        rows: The channels ``(K,)``, fewer than all.

    Returns:
        ``(K, T)``.

    """
    inside = np.asarray(rows, dtype=np.int64)
    residual = np.linalg.solve(precision[np.ix_(inside, inside)], precision[inside] @ data)
    return np.asarray(data[inside] - residual)


def unexplained_text(name: str) -> str:
    """Warning for a channel that no source explains."""
    return (
        f"no source explains what {name} reads, given the other channels (bad contact, gain or "
        "plug?), so the estimate may be wrong: check it, and mark it as bad "
        "(info['bads'], --exclude) or correct it"
    )


def _worst(precision: Array, data: Array) -> int | None:
    """The channel of the largest residual among those that no source explains."""
    own = np.diag(precision)
    residual = precision @ data / own[:, None]
    predicted = data - residual
    size = np.sqrt(np.square(residual).mean(axis=1))
    ratio = size * np.sqrt(own)
    variance = np.diag(np.linalg.pinv(precision, rcond=1e-12, hermitian=True))
    determined = 1 - 1 / (own * variance)
    power, expected = np.square(data).mean(axis=1), np.square(predicted).mean(axis=1)
    shared = (data * predicted).mean(axis=1)
    follows = shared > FOLLOWS * np.sqrt(power * expected)
    alike = np.abs(np.log(power / expected)) < 2 * np.log(LARGEST_GAIN)
    bad = (
        (ratio > MIN_RATIO * np.median(ratio))
        & (size * determined > MIN_SIZE * np.sqrt(power.mean()))
        & ~(follows & alike)
    )
    return int(np.where(bad, ratio, 0).argmax()) if bad.any() else None


def _without(precision: Array, row: int) -> Array:
    """The precision matrix of the channels without one of them."""
    rest = np.delete(precision, row, axis=0)
    column = rest[:, row]
    return np.asarray(np.delete(rest, row, axis=1) - np.outer(column, column) / precision[row, row])
