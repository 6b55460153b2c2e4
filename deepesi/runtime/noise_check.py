"""Refuses recordings with a power that is not plausible for brain and noise together."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

Array = NDArray[np.float64]

#: Least whitened power of an epoch or a piece of a raw recording. Noise alone has 1, but noise
#: varies over a recording, and filters remove part of it.
QUIETEST = 1e-2
#: Least whitened power of an average. Below it the number of trials, the unit or the filters differ
#: from those of the covariance.
QUIETEST_AVERAGE = 0.5
#: Probability with which short averages may be below it by chance; independent samples of EEG noise
#: per second, about.
CHANCE, INDEPENDENT = 1e-4, 10.0
#: Largest whitened power of a baseline, without its mean. Averages have about 1, by definition of
#: the noise covariance: 1.0 to 1.1 in the sample recording of MNE-Python, up to 2 where noise
#: doubles during a recording.
LOUDEST_BASELINE = 5.0
#: Largest ratio of that power to the number of trials if the covariance was divided by it before.
NEAR_NAVE = 3.0
#: Largest whitened power of a sample, 60 dB: no response of the brain is that strong.
LOUDEST = 1e6


def quietest_average(rank: int, seconds: float) -> float:
    """Least whitened power of an average of this duration, s, with noise of this rank."""
    half = rank * max(1.0, INDEPENDENT * seconds) / 2  # of the degrees of freedom of its power
    return min(QUIETEST_AVERAGE, float(gammaincinv(half, CHANCE) / half))


def check_baseline(white: Sequence[Array], rank: int, nave: float) -> str | None:
    """Compare the power of a baseline with its noise.

    Args:
        white: Whitened data ``(C, T)`` of the baseline of an average, or of some epochs, without
            their mean.
        rank: Dimensions of the noise.
        nave: Number of averaged trials that the noise covariance is for.

    Returns:
        A warning if the power is larger than noise has; else None.

    Raises:
        ValueError: It is about `nave`: the covariance is one of averages, and was divided again.

    """
    if not white:
        return None
    powers = np.median([(one**2).mean(axis=1) * len(one) / rank for one in white], axis=0)
    power = float(powers.mean())
    if power < LOUDEST_BASELINE:
        return None
    typical = float(np.median(powers))  # of a channel, where few others are bad
    stated = (
        f"the baseline has {power:.3g} times the power of noise, by the noise covariance; expected "
        "about 1"
    )
    if typical > LOUDEST_BASELINE and nave / NEAR_NAVE < typical < nave * NEAR_NAVE:
        raise ValueError(
            f"noise covariance: {stated}. It seems to be divided by the number of trials already "
            f"({nave:g}). Give that of single trials (mne.compute_covariance of epochs), or say "
            "that it is of the average (--nave 1, evoked.nave = 1). If the time before 0 is not "
            "at rest, keep it as it is (--baseline none, baseline='none')."
        )
    return (
        f"{stated}. The covariance is of another recording, filter or unit, channels are bad, or "
        "the time before 0 is not at rest; the estimate takes this noise for signal"
    )


def check_noise(power: Array, quietest: float, nave: float) -> None:
    """Refuse a recording with less power than its noise, or with far more.

    Args:
        power: Whitened power of every sample ``(T,)``, 1 for noise.
        quietest: Least plausible mean of the power.
        nave: Number of averaged trials that the noise covariance is for.

    Raises:
        ValueError: Less than `quietest`, or more than `LOUDEST`.

    """
    if power.mean() < quietest:
        raise ValueError(
            f"PreparedInverse: the recording has {power.mean():.2g} times the power of noise "
            f"alone, by its noise covariance; expected at least {quietest:.2g}. Both must be in "
            "volts, of the same recording and filtered alike, and the number of averaged trials "
            f"right: it is taken to be {nave:g} (--nave, nave=)."
        )
    if power.max() > LOUDEST:
        raise ValueError(
            f"PreparedInverse: the recording has up to {power.max():.2g} times the power of its "
            f"noise, more than {LOUDEST:g}, which no brain activity has. Remove offsets of "
            "channels (a high-pass filter, --baseline), and check that recording and noise "
            "covariance are of the same recording, in volts, and that the number of averaged "
            f"trials is right: it is taken to be {nave:g} (--nave, nave=)."
        )
