"""Resolution of time stamps: a device may stamp to the millisecond, or to 1/100 s."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Resolution (periods) from which on several samples have one stamp, so that marks may scatter.
COARSE = 1.5
#: Distance from a whole number of ticks (a fraction of one) that rounding of numbers may cause.
ROUNDING = 1e-3


class Resolution:
    """The tick that all stamps of a stream are whole multiples of, if there is one.

    Args:
        period: Time between two samples, s.

    """

    def __init__(self, period: float) -> None:
        self.period, self.tick = period, np.inf
        self.newest, self.in_step = np.nan, True

    @property
    def coarse(self) -> float:
        """The tick if stamps of it scatter by more than a sample, s; else 0.

        Stamps with a tick of about a sample do so only if the rate is not quite the nominal one.
        """
        least = COARSE * self.period if self.in_step else 0.0
        return self.tick if least < self.tick < np.inf else 0.0

    def explains(self, step: float) -> bool:
        """Whether rounding may shift stamps by so much (s); then they are not in step."""
        explained = bool(0 < self.tick < np.inf and abs(step) < (1 + ROUNDING) * self.tick)
        self.in_step &= not explained
        return explained

    def see(self, stamps: Array) -> None:
        """Update the tick by the next stamps ``(n,)``, s; NaN are no stamps."""
        stamps = stamps[np.isfinite(stamps)]
        if not self.tick or not len(stamps):
            return
        steps = np.abs(np.diff(stamps, prepend=self.newest))
        self.newest = stamps[-1]
        steps = steps[steps > ROUNDING * self.period]
        self.tick = min(self.tick, float(steps.min(initial=np.inf)))
        if np.isfinite(self.tick):
            ticks = stamps / self.tick
            if np.abs(ticks - np.round(ticks)).max() > ROUNDING:
                self.tick = 0.0
