"""Streams whose time stamps are not those of the rate they name."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import siegelslopes

Array = NDArray[np.float64]

#: How far the true rate may be from the nominal one (a fraction).
RATE_REFUSED = 0.05
#: Difference from the nominal rate that is reported (a fraction).
RATE_SAID = 0.005
#: Time before the rate is reported, s; a quarter of it before it is refused.
RATE_SHOWN = 20.0
#: Stamps that a rate is taken from, at most.
MOST = 200


def check_period(stamps: Array, sfreq: float) -> None:
    """Refuse stamps that do not advance at the nominal rate.

    The median of slopes does not see a step among them.

    Args:
        stamps: Of samples that follow each other ``(n,)``, s; NaN where there is none.
        sfreq: Nominal rate, Hz.

    Raises:
        ValueError: There are none, or they advance otherwise.

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

    def check(self, period: float, std: float, shown: float) -> None:
        """Check the fitted period.

        Args:
            period: Time between two samples, s.
            std: Standard deviation of the period, s.
            shown: Length of the stream that the period is fitted to, s.

        Raises:
            ValueError: Another rate than the nominal one.

        """
        off = abs(period * self.sfreq - 1) - 5 * std * self.sfreq
        if off > RATE_REFUSED and shown > RATE_SHOWN / 4:
            raise other_rate(period, self.sfreq)
        if off > RATE_SAID and shown > RATE_SHOWN and not self.reported:
            self.reported = True
            self.say(
                f"the stream says it has {self.sfreq:g} Hz; by its time stamps it has "
                f"{1 / period:.4g} Hz, and these are published"
            )
