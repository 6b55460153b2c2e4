"""Resolution of time stamps: a device may stamp to the millisecond, or to 1/100 s."""

import numpy as np
from numpy.typing import NDArray

from deepesi.streaming.timestamp_fit import NEAR

Array = NDArray[np.float64]

#: Resolution (periods) from which on several samples have one stamp, so that marks may scatter.
COARSE = 1.5
#: Distance from a whole number of ticks (a fraction of one) that rounding of numbers may cause.
ROUNDING = 1e-3
#: Smallest tick that is looked for (a fraction of a period).
FINEST = 0.02
#: How near a tick is to a whole fraction of a second to be taken for it (a fraction of the tick).
SAME = 1e-6
#: Share of steps that may be no multiples of the tick, of so many steps or more.
OTHERS, FEW_STEPS = 0.02, 100
#: Skipped ticks that show another rate, and how uneven the intervals between them may be.
SLIPS, UNEVEN = 3, 0.2


class Resolution:
    """The tick that time stamps are rounded to: what all steps between them are multiples of.

    A few other steps do not count: LSL moves the stamps by microseconds now and then, when it
    measures the clock of the device again.

    Args:
        period: Time between two samples, s.

    Attributes:
        tick: The tick, s; infinite before there are steps, 0 if there is none.
        whole: Whether stamps are whole multiples of the tick, and not only the steps between them.
        in_step: Whether no rounding was seen to shift stamps yet.

    """

    def __init__(self, period: float) -> None:
        self.period, self.tick = period, np.inf
        self.newest, self.in_step, self.whole = np.nan, True, True
        self.n_steps, self.n_others = 0, 0
        self.skipped: list[int] = []

    @property
    def coarse(self) -> float:
        """The tick if stamps of it scatter by more than a sample, s; else 0.

        Stamps with a tick of about a sample do so only if the rate is not quite the nominal one.
        Steps of several samples may be bursts; only stamps that are whole ticks are coarse.
        """
        if not self.tick < np.inf or (self.tick > COARSE * self.period and not self.whole):
            return 0.0
        return 0.0 if self.in_step and self.tick < COARSE * self.period else self.tick

    @property
    def rounding(self) -> float:
        """Range of the shifts of stamps by rounding, s; 0 if there is none."""
        return self.tick if self.tick < COARSE * self.period else self.coarse

    def explains(self, step: float) -> bool:
        """Whether rounding may shift stamps by so much (s); then they are not in step."""
        explained = abs(step) < self.rounding + NEAR * self.period
        self.in_step &= not explained
        return explained

    def slips(self, number: int) -> bool:
        """Whether stamps skip single ticks at equal intervals: the rate is off, nothing is lost.

        Args:
            number: Number of the sample behind a tick that was skipped.

        """
        self.skipped.append(number)
        if not abs(self.tick / self.period - 1) < NEAR or len(self.skipped) < SLIPS:
            return False
        intervals = np.diff(self.skipped[-SLIPS:])
        regular = bool(np.ptp(intervals) < UNEVEN * intervals.mean())
        self.in_step &= not regular
        return regular

    def hides(self, shift: float) -> bool:
        """Whether so small a shift (s) is no sign of missing samples, as stamps scatter by it."""
        return bool(self.coarse) and abs(shift) < self.coarse + NEAR * self.period

    def update(self, stamps: Array) -> None:
        """Update the tick by the next stamps ``(n,)``, s; NaN are no stamps."""
        stamps = stamps[np.isfinite(stamps)]
        if not self.tick or not len(stamps):
            return
        steps = np.abs(np.diff(stamps, prepend=self.newest))
        self.newest = stamps[-1]
        steps = steps[steps > ROUNDING * self.period]  # false for NaN, before the first stamp
        self.n_steps += len(steps)
        if np.isinf(self.tick):
            self._set(float(steps.min(initial=np.inf)))
        whole = np.round(steps / self.tick) * self.tick
        for step in steps[np.abs(steps - whole) > ROUNDING * self.period]:
            if self.tick:
                self._divide(float(step))
        if 0 < self.tick < np.inf:
            ticks = stamps / self.tick
            self.whole &= bool(np.abs(ticks - np.round(ticks)).max() < ROUNDING)

    def _divide(self, step: float) -> None:
        """Reduce the tick to one that the step is a multiple of, too."""
        tick = _common_divisor(step, self.tick, ROUNDING * self.period)
        if tick > FINEST * self.period:
            self._set(tick)
            return
        self.n_others += 1
        if self.n_others > OTHERS * max(self.n_steps, FEW_STEPS):
            self.tick = 0.0

    def _set(self, tick: float) -> None:
        """A new tick; a whole fraction of a second if it is as near as numbers are exact."""
        fraction = 1 / max(1, round(1 / tick))
        self.tick = fraction if abs(fraction - tick) < SAME * tick else tick
        self.whole = True


def _common_divisor(a: float, b: float, tolerance: float) -> float:
    """The largest number that both are multiples of (Euclid), as far as they are exact."""
    while b > tolerance:
        a, b = b, abs(a - b * round(a / b))
    return a
