"""Fit of a line to time stamps, and how late they usually are relative to it."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Length of a window, s; time that the recent windows span, s, and their smallest number.
WINDOW, RECENT, FEWEST = 0.1, 1.0, 4
#: Windows that the line is fitted to.
KEPT = 256
#: Standard deviation of the rate about the nominal one (a fraction), before there are marks.
RATE_SPREAD = 0.01
#: Number of standard deviations above which a window does not count in the fit.
OUTLYING = 3.0
#: Lateness that is allowed before the usual lateness of a stream is known, s.
FIRST_LATENESS = 0.1
#: Largest difference of residuals of one clock (a fraction of a period): less than one sample.
NEAR = 0.6
#: Range of the lateness of a device that stamps by its own clock (a fraction of a period).
EXACT = 0.1
#: Probability of the recent windows by chance, below which the clock has shifted.
CHANCE = 1e-7


class Window(NamedTuple):
    """Marks of a window.

    Attributes:
        closed: When it was closed, s.
        number: Number of the least late mark.
        time: Time of the least late mark, s.
        spread: How much later the latest mark is, s.

    """

    closed: float
    number: int
    time: float
    spread: float


class Track:
    """One clock of a stream: a line fitted to marks, and how late marks usually are.

    Marks are time stamps or times of arrival. Many causes make a mark late, none makes it early,
    so the least late mark of every window hardly varies. The line is fitted to these. The windows
    of the last second are compared with earlier ones: if all of them are later, or all earlier,
    than chance explains, the clock has shifted.

    Args:
        sfreq: Nominal rate, Hz.

    Attributes:
        newest: Time of the newest sample, s; NaN: none yet.
        period: Time between two samples, s.
        uncertain: Standard deviations of the two, s.
        known: Whether there are enough windows to know the usual lateness.
        usual: Lateness of the windows before the recent ones, s.
        range: Range of `usual`, s.
        rounding: Range of the shifts of marks by rounding, s.
        hidden: Part of the tick by which marks have not scattered so far, s.
        low: Smallest lateness of a mark that is on time, s.
        high: Largest lateness of a mark that is on time, s.

    """

    def __init__(self, sfreq: float) -> None:
        self.nominal = self.period = 1 / sfreq
        self.newest, self.number, self.uncertain = np.nan, 0, (0.0, 0.0)
        self.before, self.recent = deque[Window](maxlen=KEPT), deque[Window]()
        self.least, self.most, self.mark = np.inf, -np.inf, (0, np.nan)
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
        """Lateness (s) of the mark `steps` samples after the newest; NaN stands for no mark."""
        if np.isnan(self.newest) and np.isfinite(time):
            self.newest = time - steps * self.period
        late = time - self.at(steps)
        if late < self.least:
            self.least, self.mark = late, (self.number + steps, time)
        if late > self.most:
            self.most = late
        return late

    def advance(self, n: int) -> None:
        """Move the newest sample on by `n` samples."""
        self.newest = self.at(n)
        self.number += n

    def move(self, missing: int, step: float) -> None:
        """Move the line by missing samples or a step of the clock (s); delete recent windows."""
        self.number += missing
        self.newest = self.at(missing) + step
        self.before = deque((w._replace(time=w.time + step) for w in self.before), maxlen=KEPT)
        self.recent.clear()
        self._open()

    def forget(self, n: int) -> None:
        """Delete the last `n` windows and the one that is still open."""
        for _ in range(min(n, len(self.recent))):
            self.recent.pop()
        self._open()

    def close(self, now: float) -> None:
        """Close a window."""
        if np.isfinite(self.least):
            self.recent.append(Window(now, *self.mark, self.most - self.least))
        self._open()

    def _open(self) -> None:
        self.least, self.most = np.inf, -np.inf

    def settle(self, now: float) -> None:
        """Move windows that are no longer recent to the usual ones, and fit the line to them."""
        while len(self.recent) > FEWEST and self.recent[0].closed < now - RECENT:
            self.before.append(self.recent.popleft())
        young = len(self.before) < 4 * FEWEST
        self._fit([*self.before, *self.recent] if young else [*self.before])
        self._bound()

    def _fit(self, windows: list[Window]) -> None:
        """Fit by least squares with a prior at the nominal rate; again without outlying windows."""
        if len(windows) < FEWEST:
            return
        numbers, late = self._late(windows)
        slope, offset, rest = self._least_squares(numbers, late)
        counts = rest <= 1
        if FEWEST <= counts.sum() < len(counts):
            slope, offset, _ = self._least_squares(numbers[counts], late[counts])
        self.newest, self.period = self.newest + offset, self.period + slope

    def _least_squares(self, x: Array, y: Array) -> tuple[float, float, Array]:
        """Slope, value at 0, and residuals relative to the bound of outlying windows."""
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
        # A few windows do not span the whole range of lateness yet. Coarse stamps that are nearly
        # in step with the samples take long to do so.
        self.hidden = max(0.0, self._tick - self.range)
        self.unobserved_range = self.range * min(1.0, 2 * FEWEST / len(self.usual)) + self.hidden
        self.unobserved_range += OUTLYING * self.uncertain[0]
        margin = NEAR * self.period + self.unobserved_range
        margin = margin if self.known else max(FIRST_LATENESS, margin)
        self.low, self.high = least - margin, most + margin

    def _late(self, windows: Iterable[Window]) -> tuple[Array, Array]:
        """Numbers of windows, counted from the newest sample, and their lateness (s)."""
        _, numbers, times, _ = np.array(list(windows)).reshape(-1, 4).T
        numbers = numbers - self.number
        return numbers, np.asarray(times - self.newest - numbers * self.period)

    @property
    def exact(self) -> bool:
        """Whether the least late marks of the windows hardly scatter."""
        return self.known and self.range + self.hidden < EXACT * self.period

    @property
    def every_mark_exact(self) -> bool:
        """Whether no mark scatters, not even within a window."""
        limit = EXACT * self.period
        return self.exact and all(window.spread < limit for window in self.before)

    def lately(self, n: int = 0) -> Array:
        """Lateness of the last `n` windows, s; of more if the last second has more."""
        recent = sum(window.closed >= self.recent[-1].closed - RECENT for window in self.recent)
        return self._late(list(self.recent)[-max(n, recent, FEWEST) :])[1]

    def shift(self, n: int = 0) -> tuple[float, float] | None:
        """How much later than usual the recent windows are, and the standard deviation (both s).

        None if chance explains it, or if the lateness changes, as while a queue empties.

        """
        lately = self.lately(n)
        if len(lately) < FEWEST:
            return None
        sign = 1.0 if lately.min() > np.median(self.usual) else -1.0
        steady = 2 * (self.range + self.unobserved_range) + NEAR * self.period
        allowed = steady if self.known else FIRST_LATENESS
        if np.ptp(lately) > allowed or not self._unlikely(sign * lately, sign * self.usual):
            return None
        return self.difference(lately)

    def _unlikely(self, lately: Array, usual: Array) -> bool:
        """Whether all recent windows lie further above the usual ones than chance explains."""
        least = lately.min() - OUTLYING * self.uncertain[0] - self.hidden
        scale = max(self.range, EXACT * self.period) if self.known else FIRST_LATENESS
        excess = min(500.0, max(0.0, least - usual.max()) / scale)
        chance = (int((usual >= least).sum()) + 1) / (len(usual) + 1) * np.exp(-excess)
        return bool(chance ** len(lately) < CHANCE)

    def difference(self, lately: Array) -> tuple[float, float]:
        """How much later than usual some windows are, and the standard deviation (both s).

        Compares medians or minima, whichever varies less between stretches of this length.
        """
        usual, n = self.usual, len(lately)
        spread = float(usual.std()) if self.known else FIRST_LATENESS
        std = 1.25 * spread * float(np.sqrt(1 / n + 1 / len(usual)))
        shift = float(np.median(lately) - np.median(usual))
        if len(usual) >= FEWEST * n:
            minima = usual[len(usual) % n :].reshape(-1, n).min(axis=1)
            if minima.std() < std:
                shift, std = float(lately.min() - minima.mean()), float(minima.std())
        return shift, float(np.hypot(std, self.uncertain[0]))
