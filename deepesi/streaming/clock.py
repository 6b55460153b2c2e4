"""When the samples of a stream were taken: a clock fitted to time stamps that scatter.

Devices stamp on arrival, in bursts, with equal stamps, now and then backwards; clocks jump. One
stamp says little, many say at which moments the device samples. A line is fitted to them, and
gaps and steps are told by the lower bound of its residuals: a sample comes late for many reasons,
never early, so one that is on time proves that none before it is missing. What cannot be told
yet is held back.

Source: the line is that of liblsl's ``dejitter``, see `RecursiveLine`. Not liblsl's own, as it
replaces the stamps for good, takes up to two minutes to settle, and neither sees gaps nor steps:
it smears them over the next minutes.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.streaming.stamps import RecursiveLine, Scatter

Array = NDArray[np.float64]

#: How far the true rate may be from the nominal one, and from where on it is said.
RATE_REFUSED, RATE_SAID = 0.05, 0.005
#: Stamps this near to the clock are passed on as they are, s.
EXACT = 1e-9
#: How long samples must go on coming early until the clock is moved, s.
EARLY = 0.25
#: How long samples may wait for a decision, s.
LONGEST = 2.0
#: How unsteady the residuals behind a gap may be, s: a queue that empties has falling ones.
UNSTEADY = 0.02


class Sample(NamedTuple):
    """A sample: its stamp, when it came, and how much its stamp is after the clock, s."""

    stamp: float
    arrived: float
    residual: float


class Decided(NamedTuple):
    """Samples that were decided on, in the order they came.

    Attributes:
        times: Of the fitted clock ``(n,)``, s, strictly rising; NaN where late.
        arrived: When they came ``(n,)``, s.
        late: Older than what had come before ``(n,)``.
        breaks: Behind a gap or a step of the clock ``(n,)``.

    """

    times: Array
    arrived: Array
    late: NDArray[np.bool_]
    breaks: NDArray[np.bool_]


class FittedClock:
    """Fits the time stamps of a stream; says which samples are late and where some are missing.

    A gap that is shorter than the scatter of the stamps' lower bound cannot be told.

    Args:
        sfreq: Nominal rate, Hz.
        say: Called with lines: the clock stepped, the rate is off.

    Attributes:
        lost: Samples missing, by the fitted clock.
        held: Samples that wait for a decision.

    """

    def __init__(self, sfreq: float, say: Callable[[str], None] = lambda line: None) -> None:
        self.sfreq, self.say = sfreq, say
        self.line, self.scatter = RecursiveLine(sfreq), Scatter(sfreq)
        self.lost, self.held = 0, list[Sample]()
        self.decided: list[tuple[float, float, bool, bool]] = []
        self.before: Sample | None = None  # the newest that was decided on
        self.last = -np.inf  # the newest time that was given
        self.offset = 0.0  # from the clock of the stream to the times that are given
        self.advanced = 0.0  # of the stamps, without gaps and steps, s
        self.broken = self.rate_said = False

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
        finite = np.where(np.isfinite(stamps), stamps, np.nan)
        waiting = deque(zip(finite.tolist(), arrived.tolist(), strict=True))
        while waiting:
            waiting.extendleft(reversed(self._take(*waiting.popleft())))
        rows, self.decided = self.decided, []
        columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
        return Decided(columns[0], columns[1], columns[2] > 0, columns[3] > 0)

    @property
    def early(self) -> int:
        """Samples held that are late, unless those to come show that the clock stepped."""
        low, _ = self.scatter.on_time(self.line.period)
        return len(self.held) if self._held_are_early(low) else 0

    def _take(self, stamp: float, arrived: float) -> list[tuple[float, float]]:
        """Decide on a sample or hold it; returns those to take again, as the clock was moved."""
        line, (low, high) = self.line, self.scatter.on_time(self.line.period)
        if np.isnan(line.newest):
            line.newest = stamp - (len(self.held) + 1) * line.period
            self.scatter.usual_delay = arrived - stamp  # all that is known of it so far
        sample = Sample(stamp, arrived, stamp - line.at(len(self.held) + 1))
        on_time = low <= sample.residual <= high
        if on_time and self._held_are_a_late_chunk(low):
            self._drop()
            return [(stamp, arrived)]
        if on_time:
            self._release([*self.held, sample])
        elif low <= stamp - line.at(1) <= high and self._held_came_beside(arrived, low):
            self._drop()
            self._release([sample._replace(residual=stamp - line.at(1))])
        elif self._held_are_newer(stamp, high):
            return [*self._move(self.held), (stamp, arrived)]
        else:
            self.held.append(sample)
            return self._decide(low, high)
        return []

    def _held_came_beside(self, arrived: float, low: float) -> bool:
        """The clock goes on as if those held had not come, by this machine's clock as well."""
        extra = len(self.held) * self.line.period
        delayed = arrived - self.line.at(1) - self.scatter.usual_delay
        told = extra >= 2 * self.scatter.margin(self.line.period)  # from jitter
        return told and self._held_are_early(low) and not delayed > extra / 2

    def _held_are_a_late_chunk(self, low: float) -> bool:
        """They came at once, with stamps that advance, and all of them before the clock."""
        n = len(self.held)
        if n < self.scatter.length or not self._held_are_early(low):
            return False
        span = self.held[-1].arrived - self.held[0].arrived
        return span < 0.5 * n * self.line.period and self._steady(n)

    def _held_are_early(self, low: float) -> bool:
        return bool(self.held) and all(sample.residual < low for sample in self.held)

    def _held_are_newer(self, stamp: float, high: float) -> bool:
        """Chunks came out of order: something is missing before those that are held."""
        before = stamp + self.scatter.width + self.scatter.margin(self.line.period)
        return bool(self.held) and all(s.residual > high and s.stamp > before for s in self.held)

    def _decide(self, low: float, high: float) -> list[tuple[float, float]]:
        """Whether those held show that samples are missing or that the clock stepped."""
        waited = self.held[-1].arrived - self.held[0].arrived
        n, needed = self.scatter.length, self.scatter.needed(self.line.period)
        if self._goes_on(needed) and min(s.residual for s in self.held[-needed:]) > high:
            return self._move(self.held[-needed:])
        if waited >= EARLY and self._goes_on(n) and max(s.residual for s in self.held[-n:]) < low:
            return self._move(self.held[-n:])
        if len(self.held) > (LONGEST + 3 * self.scatter.pause) * self.sfreq:
            if waited >= EARLY:
                return self._fit_anew()
            if self._held_are_early(low):
                self._drop()  # many at once, all of them old
        return []

    def _goes_on(self, n: int) -> bool:
        """The last `n` held came one after the other, with stamps that advance as they should."""
        if len(self.held) < n:
            return False
        span = self.held[-1].arrived - self.held[-n].arrived
        return span >= 0.5 * n * self.line.period and self._steady(n)

    def _steady(self, n: int) -> bool:
        residuals = [sample.residual for sample in self.held[-n:]]
        change = abs(min(residuals[n // 2 :]) - min(residuals[: n // 2]))
        return change <= min(UNSTEADY, self.scatter.margin(self.line.period)) + self.line.period

    def _move(self, run: list[Sample]) -> list[tuple[float, float]]:
        """Move the clock to where a run of samples shows it; returns those held, to take again."""
        shift = self.scatter.shift(np.array([sample.residual for sample in run]))
        usual = self.scatter.usual_delay
        came = min(s.arrived - s.stamp + s.residual for s in run) - usual  # by this machine's clock
        count = round(shift / self.line.period)
        if abs(shift) < self.scatter.margin(self.line.period):  # too little for either
            self._release(self.held)
            return []
        if np.isfinite(came) and abs(came - shift) > abs(came):
            self._step(shift, max(0.0, came))
        elif shift > 0:
            self.lost, self.broken = self.lost + max(1, count), True
        else:  # what seemed lost had only been late
            self.lost = max(0, self.lost + count)
        self.line.newest += shift
        return self._taken_back()

    def _step(self, shift: float, came: float) -> None:
        self.offset, self.broken = self.offset - shift + came, True
        self.say(
            f"the clock of the stream stepped by {shift:+,.3f} s (its samples came on after "
            f"{came:.3f} s): estimates start anew; published time stamps go on without the step"
        )

    def _fit_anew(self) -> list[tuple[float, float]]:
        """Nothing fits the clock: refuse another rate, else begin again."""
        stamps, half = np.array([s.stamp for s in self.held]), len(self.held) // 2
        if not np.isfinite(stamps).any():
            raise ValueError(
                f"the stream has no time stamps: {len(stamps):,} samples came with NaN. Have "
                "the device or its bridge stamp them; LSL does where none is given."
            )
        period = float(np.nanmedian(stamps[half:] - stamps[: len(stamps) - half])) / half
        if abs(period * self.sfreq - 1) > RATE_REFUSED:
            raise self._other_rate(period)
        self.line, self.scatter, self.broken = RecursiveLine(self.sfreq), Scatter(self.sfreq), True
        if np.isfinite(self.last):
            self.offset = self.last + 1 / self.sfreq - float(stamps[np.isfinite(stamps)][0])
        self.advanced = 0.0
        self.say("the time stamps of the stream follow no clock; it is fitted anew from here on")
        return self._taken_back()

    def _taken_back(self) -> list[tuple[float, float]]:
        held, self.held, self.before = self.held, [], None
        return [(sample.stamp, sample.arrived) for sample in held]

    def _drop(self) -> None:
        self.decided += [(np.nan, sample.arrived, True, False) for sample in self.held]
        self.held = []

    def _release(self, samples: list[Sample]) -> None:
        """Fit the clock to samples in their order, and give them its times."""
        self.held = []
        # A queue that emptied says nothing of the clock but for its last sample.
        queued = len(samples) > self.scatter.length and self.scatter.known
        earliest = self.scatter.on_time(self.line.period)[0] - EARLY  # else before a step
        for i, sample in enumerate(samples):
            residual = sample.stamp - self.line.at(1)
            most = self.scatter.most(self.line.period)
            counts = residual >= earliest and not (queued and i < len(samples) - 1)
            self.line.advance(min(most, max(-most, residual)) if counts else 0.0)
            if counts:
                self._note(Sample(sample.stamp, sample.arrived, residual))
            fitted = self.line.newest
            time = sample.stamp if abs(sample.stamp - fitted) < EXACT else fitted
            self.last = max(time + self.offset, self.last + 0.5 * self.line.period)
            self.decided.append((self.last, sample.arrived, False, self.broken))
            self.broken = False

    def _note(self, sample: Sample) -> None:
        """Keep how a sample lies about the clock."""
        before, self.before = self.before, sample
        if before is None:
            return
        self.advanced += sample.stamp - before.stamp
        pause = max(sample.stamp - before.stamp, sample.arrived - before.arrived)
        self.scatter.add(sample.residual, sample.arrived - self.line.newest, pause)
        if self.scatter.known and not self.scatter.window:
            self._check_rate()

    def _check_rate(self) -> None:
        """Refuse another rate than the nominal one; say once where it is a little off."""
        off, scatter = abs(self.line.period * self.sfreq - 1), self.scatter
        shown = min(scatter.count / self.sfreq, scatter.span, scatter.span - 10 * scatter.pause)
        if off > RATE_REFUSED and shown > 3:
            raise self._other_rate(self.advanced / scatter.count)
        if off > RATE_SAID and shown > 10 and not self.rate_said:
            self.rate_said = True
            self.say(
                f"the stream says it has {self.sfreq:g} Hz; by its time stamps it has "
                f"{1 / self.line.period:.4g} Hz, and these are published"
            )

    def _other_rate(self, period: float) -> ValueError:
        rate = f"at {1 / period:,.4g} Hz" if period * self.sfreq > 1e-3 else "not at all"
        return ValueError(
            f"the stream says it has {self.sfreq:g} Hz, but its time stamps advance {rate}. "
            "Have the device or its bridge name the true rate, and stamp in seconds."
        )
