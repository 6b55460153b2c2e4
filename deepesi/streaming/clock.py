"""When the samples of a stream were taken: a clock fitted to time stamps that scatter.

Devices stamp on arrival, in bursts, with equal stamps, sometimes backwards, and clocks jump. One
stamp is inaccurate, but a line through many of them gives the moments at which the device samples.
Another line is fitted to the times of arrival on this computer, by a clock that does not step. A
sample may come late for many reasons, but never early. So a sample that is on time proves that no
earlier one is missing; samples that allow no decision yet are held. If the stamps become later or
earlier for good, the arrivals show why: if they shift by as much, samples are missing; if they do
not, the clock of the stream stepped. Without times of arrival, a step forward looks like a gap, and
is taken for one; a step back looks like samples that came twice.

Source: a regression of stamps on sample numbers, as liblsl's ``dejitter`` (Kothe et al. 2025,
doi:10.1162/IMAG.a.136). Difference: only the least late stamps count, see `Track`. The filter of
liblsl is not used, because it replaces the stamps for good, takes up to two minutes to settle, and
smears gaps and steps over the following minutes.
"""

from collections import deque
from collections.abc import Callable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from deepesi.streaming.rates import RateCheck, check_period
from deepesi.streaming.resolution import SLIPS, Resolution
from deepesi.streaming.samples import Decided, Marks, Sample
from deepesi.streaming.timestamp_fit import EXACT, NEAR, WINDOW, Track

Array = NDArray[np.float64]

#: Stamps this near to the clock are passed on as they are, s.
SAME = 1e-9
#: Windows that samples may wait for a decision; length of held samples that came at once, s.
LONGEST, AT_ONCE = 20, 3.0
#: Consecutive marks that prove a gap if stamps do not scatter.
FEW = 8
#: Largest distance of a gap from whole samples (in periods) if stamps do not scatter.
WHOLE = 0.2


class FittedClock:
    """Fits the time stamps of a stream; reports late samples and gaps.

    Only the last sample of a burst marks a time. Stamps may be coarser than a sample
    (`Resolution`). A gap or a step that is shorter than the scatter of the marks is not detected;
    neither does harm, because the times given are those of the line.

    Args:
        sfreq: Nominal rate, Hz.
        say: Called with a line of text if the clock stepped or the rate is off.

    Attributes:
        lost: Samples missing, by the fitted clock.
        held: Samples that wait for a decision.

    """

    def __init__(self, sfreq: float, say: Callable[[str], None] = lambda line: None) -> None:
        self.sfreq, self.say = sfreq, say
        self.lost, self.held = 0, list[Sample]()
        self.decided: list[tuple[float, float, bool, bool]] = []
        self.last = -np.inf  # the newest time that was given
        self.offset = 0.0  # from the clock of the stream to the times that are given
        self.broken, self.rate = False, RateCheck(sfreq, say)
        self._begin()

    def _begin(self) -> None:
        self.stamps, self.arrivals = Track(self.sfreq), Track(self.sfreq)
        self.resolution = Resolution(1 / self.sfreq)
        self.closed, self.waited, self.count = np.nan, 0, 0

    def push(self, stamps: Array, arrived: Array) -> Decided:
        """The next samples in the order they came.

        Args:
            stamps: Their time stamps ``(n,)``, s.
            arrived: When they came ``(n,)``, s, by a clock that does not step.

        Returns:
            Those that are decided on by now, of earlier calls, too.

        Raises:
            ValueError: There are no stamps, or they do not advance at the nominal rate.

        """
        last = np.diff(arrived, append=np.nan) != 0
        marks = last | (np.abs(np.diff(stamps, append=np.nan)) > 0.5 / self.sfreq)
        marks &= np.isfinite(stamps)
        columns = np.where(marks, stamps, np.nan), np.where(last, arrived, np.nan), arrived
        self.resolution.update(stamps)
        self.stamps.tick, self.stamps.rounding = self.resolution.coarse, self.resolution.rounding
        waiting = deque(zip(*(column.tolist() for column in columns), strict=True))
        while waiting:
            waiting.extendleft(reversed(self._take(*waiting.popleft())))
        rows, self.decided = self.decided, []
        times, came, late, breaks = np.array(rows, dtype=np.float64).reshape(-1, 4).T
        return Decided(times, came, late > 0, breaks > 0)

    @property
    def early(self) -> int:
        """Number of samples held that are late, unless later ones show that the clock stepped."""
        return len(self.held) if self._held_are_early() else 0

    def _held_are_early(self) -> bool:
        late = [sample.late for sample in self.held if np.isfinite(sample.late)]
        return bool(late) and max(late) < self.stamps.low

    def _take(self, stamp: float, arrival: float, arrived: float) -> list[Marks]:
        """Decide on a sample or hold it; returns samples to take again if the clock was moved."""
        n, track = len(self.held) + 1, self.stamps
        late, arrived_late = track.late(stamp, n), self.arrivals.late(arrival, n)
        sample = Sample(stamp, arrival, arrived, late, arrived_late)
        if track.low <= late <= track.high:
            self._release([*self.held, sample])
        elif self._held_came_beside(sample):
            self._drop()
            self._release([sample])
        else:
            self.held.append(sample)
            if np.isfinite(late) and self._shows_a_gap():
                marks = [s.late for s in self.held if np.isfinite(s.late)][-FEW:]
                shift = track.difference(np.array(marks))
                return self._move(*shift, *self._arrivals_shift()) or []
        return self._close_window(arrived) if np.isfinite(arrival) else []

    def _held_came_beside(self, sample: Sample) -> bool:
        """Whether stamps and arrivals go on as if the samples held had never come."""
        extra, track = len(self.held) * self.stamps.period, self.stamps
        on_time = track.low <= sample.late + extra <= track.high
        arrived_late = sample.arrived - self.arrivals.at(1)
        return on_time and self._held_are_early() and not arrived_late > extra / 2

    def _shows_a_gap(self) -> bool:
        """Whether held marks prove a gap, for streams whose stamps do not scatter."""
        period = self.stamps.period
        if len(self.held) < FEW or not self.stamps.every_mark_exact:
            return False
        marks = (sample.late for sample in reversed(self.held) if np.isfinite(sample.late))
        late = np.array([*islice(marks, FEW)])
        if len(late) < FEW or np.ptp(late) > EXACT * period:
            return False
        (shift, _), steps = self.stamps.difference(late), late[0] / period
        whole = steps > NEAR and abs(steps - round(steps)) < WHOLE
        return whole and self._missing(shift, *self._arrivals_shift()) == round(steps)

    def _arrivals_shift(self) -> tuple[float, float]:
        """How much later than usual held samples arrived, and the standard deviation (both s)."""
        late = [s.arrived_late for s in self.held if np.isfinite(s.arrived_late)]
        return self.arrivals.difference(np.array([min(late)])) if late else (0.0, 0.0)

    def _close_window(self, arrived: float) -> list[Marks]:
        """Close a window that is over, and check whether the clock has shifted."""
        if not arrived - self.closed < WINDOW:
            for track in (self.stamps, self.arrivals):
                track.close(arrived)
            self.closed = arrived
            self.waited = self.waited + 1 if self.held else 0
            # The first windows may have begun before the shift.
            since = 2 * self.waited // 3
            if (shift := self.stamps.shift(since)) is not None:
                lately = self.arrivals.lately(since)[1:]
                taken = self._move(*shift, *self.arrivals.difference(lately))
                if taken is not None:
                    return taken
            if not any(np.isfinite(sample.late) for sample in self.held):
                for track in (self.stamps, self.arrivals):
                    track.settle(arrived)
                length = self.count / self.sfreq if self.stamps.known else 0.0
                self.rate.check(self.stamps.period, self.stamps.uncertain[1], length)
        return self._overdue() if self.held else []

    def _missing(self, shift: float, arrived: float, std: float) -> int:
        """Number of missing samples, from the shifts of stamps and arrivals (s).

        If the arrivals scatter too much to decide, a shift by whole samples counts as a gap, for
        stamps that do not scatter.
        """
        period, nearest = self.stamps.period, round(shift / self.stamps.period)
        whole = self.stamps.exact and abs(shift / period - nearest) < WHOLE
        if whole and 0 < shift < 3 * std:
            return nearest
        if not abs(arrived - shift) >= abs(arrived):
            return nearest
        return round(arrived / period) if arrived > 3 * std + period else 0

    def _move(
        self, shift: float, uncertain: float, arrived: float, std: float
    ) -> list[Marks] | None:
        """Move the clock by its shift; returns the held samples, to take again.

        None if the shift is too small for a gap or a step: the line is then fitted to it.

        """
        period = self.stamps.period
        hidden = self.resolution.hides(shift)
        missing = 0 if hidden else self._missing(shift, arrived, std)
        step = shift - missing * period
        stepped = abs(step) > max(NEAR * period, 3 * uncertain)
        if not missing and stepped and self.resolution.explains(step):
            stepped = False
        if missing == 1 and not stepped and self.resolution.slips(self.stamps.number):
            self.lost, missing = max(0, self.lost + 1 - SLIPS), 0
        if not missing and not stepped:
            self.stamps.tick = self.resolution.coarse
            self._release(self.held)
            return None
        before, after = self._split_held(shift)
        self._release(before)
        self.lost = max(0, self.lost + missing)  # samples counted as lost may have been late
        self.broken |= missing > 0 or stepped
        self.stamps.move(missing, step if stepped else 0.0)
        self.arrivals.move(missing, 0.0)
        if stepped:
            self._step(step, missing)
        return [sample[:3] for sample in after]

    def _split_held(self, shift: float) -> tuple[list[Sample], list[Sample]]:
        """Held samples from before the clock shifted, and from after it."""
        half = float(np.median(self.stamps.usual)) + shift / 2
        old = [s.late < half if shift > 0 else s.late > half for s in self.held]
        first = 1 + max((i for i, is_old in enumerate(old) if is_old), default=-1)
        held, self.held, self.waited = self.held, [], 0
        return held[:first], held[first:]

    def _step(self, step: float, missing: int) -> None:
        self.offset -= step
        beside = f", and {missing:,} samples are missing" if missing > 0 else ""
        self.say(
            f"the clock of the stream stepped by {step:+,.3f} s{beside}: estimates start anew; "
            "published time stamps go on without the step"
        )

    def _overdue(self) -> list[Marks]:
        """Decide on samples held too long: refuse another rate, drop old samples, or fit anew."""
        at_once = len(self.held) > AT_ONCE * self.sfreq and not self.waited
        if not at_once and self.waited < LONGEST:
            return []
        late = [sample.late for sample in self.held if np.isfinite(sample.late)]
        if at_once and self._held_are_early():
            self._drop()  # many at once, all of them old
        elif self.stamps.known and late and late[0] > late[-1] > self.stamps.high:
            self._release(self.held)  # a queue that empties
        else:
            return self._fit_anew()
        return []

    def _fit_anew(self) -> list[Marks]:
        stamps = np.array([sample.stamp for sample in self.held])
        check_period(stamps, self.sfreq)
        self._begin()
        self.broken = True
        if np.isfinite(self.last):
            self.offset = self.last + 1 / self.sfreq - float(stamps[np.isfinite(stamps)][0])
        self.say("the time stamps of the stream follow no clock; it is fitted anew from here on")
        held, self.held = self.held, []
        return [sample[:3] for sample in held]

    def _drop(self) -> None:
        self.decided += [(np.nan, sample.arrived, True, False) for sample in self.held]
        self.stamps.forget(self.waited)
        self.arrivals.forget(self.waited)
        self.held, self.waited = [], 0

    def _release(self, samples: list[Sample]) -> None:
        """Give samples, in their order, the times of the line, and move the line on."""
        self.held, self.waited, line = [], 0, self.stamps
        for number, sample in enumerate(samples, 1):
            fitted = line.at(number)
            time = sample.stamp if abs(sample.stamp - fitted) < SAME else fitted
            self.last = max(time + self.offset, self.last + 0.5 * line.period)
            self.decided.append((self.last, sample.arrived, False, self.broken))
            self.broken = False
        self.count += len(samples)
        self.stamps.advance(len(samples))
        self.arrivals.advance(len(samples))
