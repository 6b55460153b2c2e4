"""Time stamps that scatter: the line through them, and how they lie about it."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: After what time a stamp weighs half in the regression, s (that of liblsl).
HALF_LIFE = 90.0
#: Standard deviations the regression starts from: of the rate (a fraction), of a stamp (s).
RATE_SPREAD, STAMP_SPREAD = 0.01, 0.01
#: Farthest that the rate may be from the nominal one (a fraction).
RATE_BOUND = 0.06
#: Scatter that is allowed before a stream has shown its own, s.
FIRST_SCATTER = 0.1
#: Windows that the scatter is taken from, and how many it needs.
N_WINDOWS, FEWEST_WINDOWS = 32, 4
#: Scatter (a fraction of a period) of a device's own clock, and how long others are looked at, s.
EXACT, DECISION = 0.1, 1.0
#: Shortest window before the scatter is known, and then, s.
FIRST_WINDOW, WINDOW = 0.1, 0.03


class RecursiveLine:
    """Regression of time stamps on sample numbers that forgets; seen from the newest sample.

    Args:
        sfreq: Nominal rate, Hz; where the regression starts.

    Attributes:
        newest: Time of the newest sample, s; NaN: none yet.
        period: Time between two samples, s.

    Source: the recursive least squares with forgetting of liblsl's post-processing ``dejitter``,
    its half-life included (Kothe et al. 2025, doi:10.1162/IMAG.a.136). Ours starts from the nominal
    rate with a finite variance and stays near it, so that it is of use from the first burst on, and
    its origin moves along, which keeps the covariance well conditioned for days.

    """

    def __init__(self, sfreq: float) -> None:
        self.newest, self.period = np.nan, 1 / sfreq
        self.shortest, self.longest = (1 - RATE_BOUND) / sfreq, (1 + RATE_BOUND) / sfreq
        self.forgetting = 2 ** (-1 / (HALF_LIFE * sfreq))
        # Covariance of (newest, period), in units of the variance of a stamp.
        self.p00, self.p01 = 1.0, 0.0
        self.p11 = (RATE_SPREAD / sfreq / STAMP_SPREAD) ** 2

    def at(self, steps: int) -> float:
        """The time `steps` samples after the newest, s."""
        return self.newest + steps * self.period

    def advance(self, residual: float) -> None:
        """Go on by one sample whose stamp is `residual` after ``at(1)``, s."""
        p00 = (self.p00 + 2 * self.p01 + self.p11) / self.forgetting
        p01, p11 = (self.p01 + self.p11) / self.forgetting, self.p11 / self.forgetting
        gain0, gain1 = p00 / (1 + p00), p01 / (1 + p00)
        self.p00, self.p01, self.p11 = p00 - gain0 * p00, p01 - gain0 * p01, p11 - gain1 * p01
        self.newest = self.at(1) + gain0 * residual
        self.period = min(self.longest, max(self.shortest, self.period + gain1 * residual))


class Scatter:
    """How the residuals of a stream's time stamps are spread: statistics of its last windows.

    A window holds two bursts or more, so that some sample in it is on time: its smallest residual
    hardly varies, however late the others are.

    Args:
        sfreq: Nominal rate, Hz.

    Attributes:
        known: Whether the stream has shown its scatter.
        count: Samples so far.
        span: For how long they have been coming, s.
        pause: The usual longest time between two arrivals, s; one that was longer does not count.
        length: Samples of a window.

    """

    def __init__(self, sfreq: float) -> None:
        self.sfreq, self.count, self.span, self.known = sfreq, 0, 0.0, False
        self.minima, self.maxima, self.means, self.delays, self.pauses = (
            deque[float](maxlen=N_WINDOWS) for _ in range(5)
        )
        self.window: list[tuple[float, float, float]] = []
        self._summarize()

    def add(self, residual: float, delay: float, pause: float) -> None:
        """The next sample.

        Args:
            residual: Its stamp after the clock, s.
            delay: Its arrival after the clock, s.
            pause: Since the sample before, s.

        """
        self.count, self.span = self.count + 1, self.span + max(0.0, pause)
        self.window.append((residual, delay, pause))
        if len(self.window) >= self.length:
            residuals, delays, pauses = zip(*self.window, strict=True)
            self.minima.append(min(residuals))
            self.maxima.append(max(residuals))
            self.means.append(sum(residuals) / len(residuals))
            self.delays.append(min(delays))
            self.pauses.append(max(pauses))
            self.window.clear()
            self._summarize()

    def _summarize(self) -> None:
        pauses = sorted([0.0, 0.0, *self.pauses])
        enough = len(self.minima) >= FEWEST_WINDOWS and self.span >= 4 * pauses[-1]
        self.known = self.known or enough
        self.pause = pauses[-2 if self.known else -1]
        least = max(8.0, (WINDOW if self.known else FIRST_WINDOW) * self.sfreq)
        self.length = int(np.ceil(max(least, 2.5 * self.pause * self.sfreq)))
        minima, means = list(self.minima) or [0.0], list(self.means) or [0.0]
        self.first, self.last = min(minima), max(minima)
        self.usual = float(np.median(minima))
        self.by_minimum = self.known and float(np.std(minima)) < float(np.std(means))
        self.usual_delay = float(np.median(self.delays)) if self.delays else np.nan
        self.width = max(self.maxima, default=0.0) - self.first

    def margin(self, period: float) -> float:
        """How far from the usual a sample may be and still be on time, s."""
        if not self.known:
            return max(FIRST_SCATTER, 1.5 * self.pause)
        return max(0.6 * period, self.last - self.first)

    def on_time(self, period: float) -> tuple[float, float]:
        """Bounds of the residual of a sample that is on time, s."""
        margin = self.margin(period)
        if not self.known:
            return -margin, margin
        return self.first - margin, self.last + margin

    def most(self, period: float) -> float:
        """The most that one residual may count in the regression, s."""
        return self.margin(period) + 3 * abs(self.usual)

    def needed(self, period: float) -> int:
        """Samples that must be late to show a gap.

        A few of a device that stamps by its own clock. Those who stamp on arrival are late as well
        while their computer is busy; to wait costs nothing there, as behind a gap the filter
        settles for as long.
        """
        if not self.known or self.width < EXACT * period:
            return self.length
        return max(self.length, int(DECISION * self.sfreq))

    def shift(self, residuals: Array) -> float:
        """How much later than usual a run of residuals is, s: by the statistic that varies less."""
        if self.by_minimum:
            return float(residuals.min() - self.usual)
        return float(residuals.mean())
