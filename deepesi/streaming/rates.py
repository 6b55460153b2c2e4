"""Checks the rate of time stamps against the nominal rate of the stream."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import siegelslopes

Array = NDArray[np.float64]

#: Difference from the nominal rate above which a stream is refused (a fraction).
RATE_REFUSED = 0.05
#: Difference from the nominal rate that is reported (a fraction).
RATE_REPORTED = 0.005
#: Length of the stream before its rate is reported, s; a quarter of it suffices to refuse it.
TIME_TO_REPORT = 20.0
#: Largest number of stamps that a rate is computed from.
MOST = 200


def check_period(stamps: Array, sfreq: float) -> None:
    """Refuse stamps that do not advance at the nominal rate.

    The rate is a median of slopes, so one step of the clock does not change it.

    Args:
        stamps: Time stamps of consecutive samples ``(n,)``, s; NaN where there is none.
        sfreq: Nominal rate, Hz.

    Raises:
        ValueError: There are no stamps, or they advance at another rate.

    """
    numbers = np.flatnonzero(np.isfinite(stamps))
    if not len(numbers):
        raise ValueError(
            f"the stream has no time stamps: {len(stamps):,} samples came with NaN. Have "
            "the device or its bridge stamp them; LSL does where none is given."
        )
    numbers = numbers[:: 1 + len(numbers) // MOST]
    period = float(siegelslopes(stamps[numbers], numbers).slope) if len(numbers) > 1 else 0.0
    if abs(period * sfreq - 1) > RATE_REFUSED:
        raise other_rate(period, sfreq)


def other_rate(period: float, sfreq: float) -> ValueError:
    """The error for stamps that advance by `period` (s) and not at `sfreq` (Hz)."""
    rate = f"at {1 / period:,.4g} Hz" if period * sfreq > 1e-3 else "not at all"
    return ValueError(
        f"the stream says it has {sfreq:g} Hz, but its time stamps advance {rate}. "
        "Have the device or its bridge name the true rate, and stamp in seconds."
    )


class RateCheck:
    """Compares the rate of the fitted clock with the nominal one.

    Args:
        sfreq: Nominal rate, Hz.
        say: Called once with a line if the rate is a little off.

    """

    def __init__(self, sfreq: float, say: Callable[[str], None]) -> None:
        self.sfreq, self.say, self.reported = sfreq, say, False

    def check(self, period: float, std: float, length: float) -> None:
        """Check the fitted period.

        Args:
            period: Time between two samples, s.
            std: Standard deviation of the period, s.
            length: Length of the stream (s) that the period is fitted to.

        Raises:
            ValueError: Another rate than the nominal one.

        """
        off = abs(period * self.sfreq - 1) - 5 * std * self.sfreq
        if off > RATE_REFUSED and length > TIME_TO_REPORT / 4:
            raise other_rate(period, self.sfreq)
        if off > RATE_REPORTED and length > TIME_TO_REPORT and not self.reported:
            self.reported = True
            self.say(
                f"the stream says it has {self.sfreq:g} Hz; by its time stamps it has "
                f"{1 / period:.4g} Hz, and these are published"
            )
