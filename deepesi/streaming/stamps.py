"""Marks of a clock: the line through them, and how late they usually are."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Length of a window, s; what the recent ones span, s, and how many they are at least.
WINDOW, RECENT, FEWEST = 0.1, 1.0, 4
#: Windows that the line is fitted to.
KEPT = 256
#: Standard deviation of the rate about the nominal one (a fraction), before there are marks.
RATE_SPREAD = 0.01
#: Standard deviations beyond which a window does not count in the fit.
OUTLYING = 3.0
#: Lateness that is allowed before a stream has shown its own, s.
FIRST_LATENESS = 0.1
#: Residuals this near are of one clock (a fraction of a period); a sample is no more than one off.
NEAR = 0.6
#: Range of the lateness of a device that stamps by its own clock (a fraction of a period).
EXACT = 0.1
#: How likely the recent windows may be by chance to say that the clock has shifted.
CHANCE = 1e-7


class Window(NamedTuple):
    """A window: when it was closed (s), and number and time (s) of its least late mark."""

    closed: float
    number: int
    time: float


class Track:
    """One clock of a stream (of its stamps, or of their arrival): its line and its lateness.

    A mark comes late for many reasons and never early, so the least late one of every window hardly
    varies. A line is fitted to these. The windows of the last second are held against those before:
    if all of them are later, or all earlier, than chance explains, the clock has shifted.

    Args:
        sfreq: Nominal rate, Hz.

    Attributes:
        newest: Time of the newest sample, s; NaN: none yet.
        period: Time between two samples, s.
        uncertain: Standard deviations of both, s.
        known: Whether the stream has shown its usual lateness.
        usual: How late the windows before the recent ones are, s.
        range: The range of these, s.
        rounding: Range of the shifts of marks by rounding, s.
        hidden: Part of the tick by which marks did not scatter yet, s.
        low: Least that a mark that is on time is late, s.
        high: Most, s.

    """

    def __init__(self, sfreq: float) -> None:
        self.nominal = self.period = 1 / sfreq
        self.newest, self.number, self.uncertain = np.nan, 0, (0.0, 0.0)
        self.before, self.recent = deque[Window](maxlen=KEPT), deque[Window]()
        self.least, self.mark = np.inf, (0, np.nan)
        self._tick, self.rounding = 0.0, 0.0
        self._bound()

    @property
    def tick(self) -> float:
        """Resolution of the marks where they scatter by it, s; else 0."""
        return self._tick

    @tick.setter
    def tick(self, tick: float) -> None:
        if tick != self._tick:
            self._tick = tick
            self._bound()

    def at(self, steps: int) -> float:
        """The time `steps` samples after the newest, s."""
        return self.newest + steps * self.period

    def late(self, time: float, steps: int) -> float:
        """How late a mark is, s; `steps` samples after the newest. NaN is no mark."""
        if np.isnan(self.newest) and np.isfinite(time):
            self.newest = time - steps * self.period
        late = time - self.at(steps)
        if late < self.least:
            self.least, self.mark = late, (self.number + steps, time)
        return late

    def advance(self, n: int) -> None:
        """Go on by `n` samples."""
        self.newest = self.at(n)
        self.number += n

    def move(self, missing: int, step: float) -> None:
        """Samples are missing, or the clock stepped (s): behind it, another second begins."""
        self.number += missing
        self.newest = self.at(missing) + step
        self.before = deque((w._replace(time=w.time + step) for w in self.before), maxlen=KEPT)
        self.recent.clear()
        self.least = np.inf

    def forget(self, n: int) -> None:
        """Forget the last `n` windows, and the one that is not closed."""
        for _ in range(min(n, len(self.recent))):
            self.recent.pop()
        self.least = np.inf

    def close(self, now: float) -> None:
        """Close a window."""
        if np.isfinite(self.least):
            self.recent.append(Window(now, *self.mark))
        self.least = np.inf

    def settle(self, now: float) -> None:
        """What was recent and is no more, is usual; the line is fitted to it."""
        while len(self.recent) > FEWEST and self.recent[0].closed < now - RECENT:
            self.before.append(self.recent.popleft())
        young = len(self.before) < 4 * FEWEST
        self._fit([*self.before, *self.recent] if young else [*self.before])
        self._bound()

    def _fit(self, windows: list[Window]) -> None:
        """Least squares, from the nominal rate on; then once more without outlying windows."""
        if len(windows) < FEWEST:
            return
        numbers, late = self._late(windows)
        slope, offset, rest = self._least_squares(numbers, late)
        counts = rest <= 1
        if FEWEST <= counts.sum() < len(counts):
            slope, offset, _ = self._least_squares(numbers[counts], late[counts])
        self.newest, self.period = self.newest + offset, self.period + slope

    def _least_squares(self, x: Array, y: Array) -> tuple[float, float, Array]:
        """Slope, value at 0, and how outlying each residual is (1: just so)."""
        n, x_mean, y_mean = len(x), x.mean(), y.mean()
        sxx, sxy = ((x - x_mean) ** 2).sum(), ((x - x_mean) * (y - y_mean)).sum()
        residual = y - y_mean - sxy / sxx * (x - x_mean)
        variance = max((residual**2).sum() / (n - 2), (1e-3 * self.nominal) ** 2)
        weight = variance / (RATE_SPREAD * self.nominal) ** 2  # of the nominal rate
        slope = (sxy + weight * (self.nominal - self.period)) / (sxx + weight)
        residual = y - y_mean - slope * (x - x_mean)
        self.uncertain = (
            float(np.sqrt(variance * (1 / n + x_mean**2 / (sxx + weight)))),
            float(np.sqrt(variance / (sxx + weight))),
        )
        most = max(OUTLYING * float(np.sqrt(variance)), EXACT * self.nominal) + self.rounding
        return float(slope), float(y_mean - slope * x_mean), np.abs(residual) / most

    def _bound(self) -> None:
        self.known = len(self.before) >= FEWEST
        self.usual = self._late(self.before)[1] if self.before else np.zeros(1)
        least, most = float(self.usual.min()), float(self.usual.max())
        self.range = most - least
        # The few there are so far have not shown their whole range. Coarse stamps that are nearly
        # in step with the samples take long to show it.
        self.hidden = max(0.0, self._tick - self.range)
        self.unseen = self.range * min(1.0, 2 * FEWEST / len(self.usual)) + self.hidden
        self.unseen += OUTLYING * self.uncertain[0]
        margin = NEAR * self.period + self.unseen
        margin = margin if self.known else max(FIRST_LATENESS, margin)
        self.low, self.high = least - margin, most + margin

    def _late(self, windows: Iterable[Window]) -> tuple[Array, Array]:
        """Numbers of windows, from the newest sample on, and how late they are by the line (s)."""
        _, numbers, times = np.array(list(windows)).reshape(-1, 3).T
        numbers = numbers - self.number
        return numbers, np.asarray(times - self.newest - numbers * self.period)

    @property
    def exact(self) -> bool:
        """Whether the marks hardly scatter."""
        return self.known and self.range + self.hidden < EXACT * self.period

    def lately(self, n: int = 0) -> Array:
        """How late the last `n` windows are, s; at least those of the last second."""
        recent = sum(window.closed >= self.recent[-1].closed - RECENT for window in self.recent)
        return self._late(list(self.recent)[-max(n, recent, FEWEST) :])[1]

    def shift(self, n: int = 0) -> tuple[float, float] | None:
        """How much later than usual the recent windows are, and how surely (both s).

        None: no more than chance explains, or not steadily, as a queue that empties is.

        """
        lately = self.lately(n)
        if len(lately) < FEWEST:
            return None
        sign = 1.0 if lately.min() > np.median(self.usual) else -1.0
        steady = 2 * (self.range + self.unseen) + NEAR * self.period
        allowed = steady if self.known else FIRST_LATENESS
        if np.ptp(lately) > allowed or not self._unlikely(sign * lately, sign * self.usual):
            return None
        return self.difference(lately)

    def _unlikely(self, lately: Array, usual: Array) -> bool:
        """Whether all recent windows lie so far above the usual that it is no chance."""
        least = lately.min() - OUTLYING * self.uncertain[0] - self.hidden
        scale = max(self.range, EXACT * self.period) if self.known else FIRST_LATENESS
        beyond = min(500.0, max(0.0, least - usual.max()) / scale)
        chance = (int((usual >= least).sum()) + 1) / (len(usual) + 1) * np.exp(-beyond)
        return bool(chance ** len(lately) < CHANCE)

    def difference(self, lately: Array) -> tuple[float, float]:
        """How much later than usual some windows are, and its standard deviation (both s).

        By the median or by the minimum, whichever varies less between stretches as long as this.
        """
        usual, n = self.usual, len(lately)
        spread = float(usual.std()) if self.known else FIRST_LATENESS
        deviation = 1.25 * spread * float(np.sqrt(1 / n + 1 / len(usual)))
        shift = float(np.median(lately) - np.median(usual))
        if len(usual) >= FEWEST * n:
            minima = usual[len(usual) % n :].reshape(-1, n).min(axis=1)
            if minima.std() < deviation:
                shift, deviation = float(lately.min() - minima.mean()), float(minima.std())
        return shift, float(np.hypot(deviation, self.uncertain[0]))
