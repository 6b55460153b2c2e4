"""What is told of a stream while it runs: how late estimates are, and why there are none."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deepesi.streaming.live import LiveInverse

Array = NDArray[np.float64]

#: Time stamps this far from the clock of this machine are of another one, s.
FOREIGN = 60.0


class Latency:
    """How long samples took to their published estimates, of the last ones.

    Two figures, as neither alone is honest. From the arrival in this process: what is spent here,
    waiting for the rest of a burst included. From the time stamp, that of the fitted clock: also
    what device and network take, as far as the device's stamps tell; of one that stamps on arrival
    they do not tell.

    Attributes:
        seconds: From arrival, s.
        from_stamps: From the fitted time stamp, s.

    """

    def __init__(self, n_kept: int = 200_000) -> None:
        self.seconds: deque[float] = deque(maxlen=n_kept)
        self.from_stamps: deque[float] = deque(maxlen=n_kept)

    def add(self, published: float, arrived: Array, times: Array) -> None:
        """Samples that came at `arrived`, of the times `times`, were published now, s."""
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
    """Says why nothing is estimated although samples come.

    Args:
        live: Is watched.
        say: Called with a line.
        patience: For how long without an estimate beyond the settling of the filter, s.

    """

    def __init__(
        self, live: LiveInverse, say: Callable[[str], None], patience: float = 5.0
    ) -> None:
        self.live, self.say = live, say
        self.patience = patience + live.filter.settled / live.sfreq
        self.before, self.since = replace(live.counts), -np.inf

    def look(self, now: float) -> None:
        """Call it often; `now` is the time of a clock that does not step, s."""
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
