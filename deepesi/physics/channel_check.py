"""Channels that no source explains: each held against what the others predict there.

Under Gaussian sources and noise the channels have a covariance, and its inverse tells what each
channel should read, given the others, and how sure that is. A channel with a bad contact, a wrong
gain or another one's plug reads something else.

Source: leave-one-out prediction from the precision matrix, Rasmussen & Williams 2006 (section
5.4.2, doi:10.7551/mitpress/3206.001.0001). Difference: residuals are compared between channels,
since no head is the true one, and a channel counts only where the others determine it.
"""

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.physics.sensors import SensorArray

Array = NDArray[np.float64]

#: Signal over noise of the prediction, power; share of the signal that a wrong head may add.
SIGNAL, MISMATCH = 10**0.5, 0.05
#: Residual of a channel over the median of all, both standardized, at least.
LEAST_RATIO = 3.0
#: Residual over the RMS of the whole recording, times the share the others determine, at least.
LEAST_SIZE = 1.0
#: A channel that correlates less with its prediction does not follow it.
FOLLOWS = 0.1
#: Largest ratio of its amplitude to the predicted one, and the inverse of the smallest.
LARGEST_GAIN = 12.0
#: Fewest samples and channels that tell.
FEWEST_SAMPLES, FEWEST_CHANNELS = 10, 8


def channel_precision(head: HeadModel) -> Array:
    """Inverse covariance ``(C, C)`` of referenced channels, of the rank that the reference leaves.

    Sources are independent and equally strong, at 5 dB. Of the noise covariance only the diagonal
    is used, for brain noise has sources, too.
    """
    signal, noise = head.leadfield @ head.leadfield.T, np.diag(head.noise_cov)
    signal *= SIGNAL * noise.sum() / np.trace(signal)
    covariance = signal + np.diag(noise + MISMATCH * np.diag(signal))
    referenced = head.sensors.reference_cov(covariance)
    return np.asarray(np.linalg.pinv(referenced, rcond=1e-12, hermitian=True))


def unexplained_channels(precision: Array, data: Array, sensors: SensorArray) -> list[int]:
    """Rows of the channels that no source explains, the worst first.

    They are found one after the other, each left out before the next is looked for, so that one bad
    channel does not spoil its neighbours.

    Args:
        precision: See `channel_precision`, in the order of the channels.
        data: ``(C, T)``, any reference; too few samples or channels tell nothing.
        sensors: The ``C`` sensors.

    """
    rows, found = np.arange(len(data)), []
    while data.shape[1] >= FEWEST_SAMPLES and len(rows) >= FEWEST_CHANNELS:
        worst = _worst(precision, sensors[rows].reference(data[rows]))
        if worst is None:
            break
        found.append(int(rows[worst]))
        rows = np.delete(rows, worst)
        precision = _without(precision, worst)
    return found


def unexplained_text(name: str) -> str:
    """What to say of a channel that no source explains."""
    return (
        f"no source explains what {name} reads, given the other channels (bad contact, gain or "
        "plug?), and the estimate may lie far away because of it: look at it, and mark it as bad "
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
        (ratio > LEAST_RATIO * np.median(ratio))
        & (size * determined > LEAST_SIZE * np.sqrt(power.mean()))
        & ~(follows & alike)
    )
    return int(np.where(bad, ratio, 0).argmax()) if bad.any() else None


def _without(precision: Array, row: int) -> Array:
    """The precision matrix of the channels without one of them."""
    rest = np.delete(precision, row, axis=0)
    column = rest[:, row]
    return np.delete(rest, row, axis=1) - np.outer(column, column) / precision[row, row]
