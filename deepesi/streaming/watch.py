"""Reports on a running stream: latency of estimates, and reasons for missing estimates."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deepesi.streaming.live import LiveInverse

Array = NDArray[np.float64]

#: Difference between time stamps and the local clock that shows another clock, s.
FOREIGN = 60.0


class Latency:
    """Latencies from samples to published estimates, for the last samples.

    There are two latencies. From the arrival in this process: the time spent here, including the
    wait for the rest of a burst. From the time stamp of the fitted clock: also the time of device
    and network, if the device stamps samples before they are sent.

    Attributes:
        seconds: Latencies from arrival, s.
        from_stamps: Latencies from the fitted time stamp, s.

    """

    def __init__(self, n_kept: int = 200_000) -> None:
        self.seconds: deque[float] = deque(maxlen=n_kept)
        self.from_stamps: deque[float] = deque(maxlen=n_kept)

    def add(self, published: float, arrived: Array, times: Array) -> None:
        """Add samples with these arrival times and time stamps, published now, s."""
        self.seconds.extend(published - arrived)
        self.from_stamps.extend(published - times)

    def __str__(self) -> str:
        if not self.seconds:
            return "no estimate yet"
        here, stamps = (1e3 * np.array(kept) for kept in (self.seconds, self.from_stamps))
        foreign = abs(np.median(stamps)) > 1e3 * FOREIGN
        return (
            f"latency from arrival {_quantiles(here)}, jitter {here.std():.1f} ms; from the fitted "
            f"time stamps {'none, as they are of another clock' if foreign else _quantiles(stamps)}"
        )


def _quantiles(values: Array) -> str:
    median, p99 = np.percentile(values, [50, 99])
    return f"{median:.1f} ms (median), {p99:.1f} ms (99 %), {values.max():.1f} ms (largest)"


class Watch:
    """Reports why there are no estimates although samples arrive.

    Args:
        live: Live inverse to watch.
        say: Called with a line to print.
        patience: Time without an estimate before a report, after the filter has settled, s.

    """

    def __init__(
        self, live: LiveInverse, say: Callable[[str], None], patience: float = 5.0
    ) -> None:
        self.live, self.say = live, say
        self.patience = patience + live.filter.settled / live.sfreq
        self.before, self.since = replace(live.counts), -np.inf

    def look(self, now: float) -> None:
        """Check, to be called often; `now` is the time of a monotonic clock, s."""
        counts = self.live.counts
        if counts.estimated > self.before.estimated or self.since == -np.inf:
            self.before, self.since = replace(counts), now
        elif now - self.since > self.patience:
            if counts.received > self.before.received:
                self.say(
                    f"nothing was estimated for {now - self.since:.0f} s, although samples come. "
                    f"{self.live.why_nothing(self.before)} ({counts})"
                )
            self.before, self.since = replace(counts), now
