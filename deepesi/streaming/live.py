"""Samples as they come to time courses of regions: filter, window, invert, and what goes wrong."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt, sosfilt_zi

from deepesi.export.runtime import PreparedInverse
from deepesi.export.windows import fading
from deepesi.physics.io import check_eeg
from deepesi.streaming.atlas import Regions

Array = NDArray[np.float64]

#: Samples that come so much later than expected leave a gap, s: above the jitter of time stamps.
TOLERANCE = 0.025


@dataclass
class Counts:
    """What became of the samples of a stream.

    Attributes:
        received: All that came.
        estimated: That came out as regions.
        late: Dropped: older than what had come before (chunks out of order).
        lost: Missing between time stamps.
        broken: Dropped: NaN, infinite, or of a size or constancy that is none of EEG in volts.
        settling: That only went through the filter, at the start and after every gap.

    """

    received: int = 0
    estimated: int = 0
    late: int = 0
    lost: int = 0
    broken: int = 0
    settling: int = 0

    def __str__(self) -> str:
        return (
            f"{self.received:,} samples received, {self.estimated:,} estimated, {self.late:,} "
            f"late, {self.lost:,} lost, {self.broken:,} broken, {self.settling:,} while settling"
        )


class CausalBandpass:
    """Butterworth band-pass that looks at the past only and keeps its state between chunks.

    Args:
        low: Lower edge (-3 dB), Hz.
        high: Upper edge, Hz.
        sfreq: Sampling rate, Hz.
        order: Of each edge.

    Raises:
        ValueError: The edges are out of order or beyond half the sampling rate.

    """

    def __init__(self, low: float, high: float, sfreq: float, order: int = 2) -> None:
        if not 0 < low < high < sfreq / 2:
            raise ValueError(
                f"CausalBandpass: needs 0 < low < high < {sfreq / 2:g} Hz, half the sampling rate; "
                f"got {low:g} and {high:g} Hz."
            )
        self.sections = butter(order, (low, high), "bandpass", fs=sfreq, output="sos")
        self.settled = int(np.ceil(sfreq / low))
        self.state: Array | None = None

    def restart(self) -> None:
        """Forget the past."""
        self.state = None

    def __call__(self, data: Array) -> Array:
        """Filter the next samples ``(C, n)``; it starts as if the first had always been there."""
        if self.state is None:
            self.state = sosfilt_zi(self.sections)[:, None] * data[:, :1]
        filtered, self.state = sosfilt(self.sections, data, axis=1, zi=self.state)
        return np.asarray(filtered)


class LiveInverse:
    """Time courses of regions from chunks of a recording that is going on.

    Chunks are filtered, cut into windows that lie half over each other and estimated; a sample
    comes out once the last window it lies in is complete, so windows of one sample cost no time.
    What is older than what came before is dropped, for time does not run back. After a gap, the
    filter and the windows start anew and nothing comes out until the filter has settled: no
    estimate is made across it. Everything is counted.

    Args:
        inverse: Prepared for the recording; data come in the order of its `ch_names`.
        regions: Of its source space.
        sfreq: Sampling rate, Hz.
        band: Of the filter, Hz.
        window: Samples of a window, 1 or even.

    Raises:
        ValueError: A window that cannot be halved, or longer than the network was trained on; see
            `CausalBandpass`.

    """

    def __init__(
        self,
        inverse: PreparedInverse,
        regions: Regions,
        sfreq: float,
        band: tuple[float, float] = (1.0, 40.0),
        window: int = 1,
    ) -> None:
        trained = inverse.model.contract.trained
        longest = window if trained is None else trained.n_times[1]
        if window < 1 or (window > 1 and window % 2) or window > longest:
            raise ValueError(
                f"LiveInverse: a window of {window} samples; it must be 1 or even, and no longer "
                f"than in training ({longest})."
            )
        self.inverse, self.regions, self.sfreq = inverse, regions, sfreq
        self.filter, self.window = CausalBandpass(*band, sfreq), window
        self.weight = fading(window)
        self.counts = Counts()
        self.last: float | None = None  # time stamp of the newest sample
        self._restart()

    def _restart(self) -> None:
        self.filter.restart()
        self.to_settle = self.filter.settled
        n_channels = len(self.inverse.ch_names)
        self.waiting, self.stamps = np.zeros((n_channels, 0)), np.zeros(0)
        self.half: Array | None = None  # what the window before said of the samples still to come

    def push(self, data: Array, times: Array) -> tuple[Array, Array]:
        """The next chunk.

        Args:
            data: ``(C, n)``, V, any reference.
            times: Time stamps ``(n,)``, s.

        Returns:
            Time stamps ``(m,)`` and RMS moments of the regions ``(R, m)``, A m, of the samples that
            are done.

        Raises:
            ValueError: Another number of channels, or data that cannot be EEG in volts.

        """
        if data.ndim != 2 or data.shape != (len(self.inverse.ch_names), len(times)):
            raise ValueError(
                f"LiveInverse: a chunk of shape {data.shape} with {len(times)} time stamps, "
                f"expected ({len(self.inverse.ch_names)}, n) with n."
            )
        self.counts.received += len(times)
        found: list[tuple[Array, Array]] = []
        for stretch in self._in_order(data, times):
            if stretch is None:
                self._restart()
            else:
                found += self._estimate(data[:, stretch], times[stretch])
        if not found:
            return np.zeros(0), np.zeros((len(self.regions.names), 0))
        stamps, courses = zip(*found, strict=True)
        self.counts.estimated += sum(map(len, stamps))
        return np.concatenate(stamps), np.concatenate(courses, axis=1)

    def _in_order(self, data: Array, times: Array) -> list[slice | None]:
        """Stretches of what is new and whole; None: a break, across which nothing is estimated."""
        stretches: list[slice | None] = []
        whole = np.isfinite(data).all(axis=0)
        for i, time in enumerate(times):
            if self.last is not None and time <= self.last:
                self.counts.late += 1
                continue
            if self.last is not None and time - self.last > 1 / self.sfreq + TOLERANCE:
                self.counts.lost += round((time - self.last) * self.sfreq) - 1
                stretches.append(None)
            self.last = float(time)
            if not whole[i]:
                self.counts.broken += 1
                stretches.append(None)
                continue
            before = stretches[-1] if stretches else None
            if before is not None and before.stop == i:
                stretches[-1] = slice(before.start, i + 1)
            else:
                stretches.append(slice(i, i + 1))
        return stretches

    def _estimate(self, data: Array, times: Array) -> list[tuple[Array, Array]]:
        """Filter a stretch and estimate the windows it completes."""
        filtered = self.filter(data)
        if self.to_settle:
            settling = min(self.to_settle, len(times))
            self.to_settle -= settling
            self.counts.settling += settling
            filtered, times = filtered[:, settling:], times[settling:]
        self.waiting = np.concatenate([self.waiting, filtered], axis=1)
        self.stamps = np.concatenate([self.stamps, times])
        length, hop, found = self.window, max(1, self.window // 2), []
        if self.waiting.shape[1] >= length and not self._is_eeg():
            self.counts.broken += self.waiting.shape[1]
            self._restart()
            return []
        if length == 1 and len(self.stamps):
            found.append((self.stamps, self._courses(self.waiting)))
            self._consume(len(self.stamps))
        while length > 1 and self.waiting.shape[1] >= length:
            courses = self._courses(self.waiting[:, :length])
            # Of two windows, weights add up to one; the first has no other before it.
            begun = courses[:, :hop]
            if self.half is not None:
                begun = self.weight[:hop] * begun + self.half
            found.append((self.stamps[:hop], begun))
            self.half = self.weight[hop:] * courses[:, hop:]
            self._consume(hop)
        return found

    def _is_eeg(self) -> bool:
        """Whether what waits can be EEG in volts; if not so from the start, units are wrong."""
        try:
            check_eeg(self.waiting, self.inverse.ch_names)
        except ValueError:
            if not self.counts.estimated:
                raise
            return False
        return True

    def _courses(self, eeg: Array) -> Array:
        mean = self.inverse.estimate(eeg, self.window)[0]
        n_orient = self.inverse.space.n_orient
        by_source = mean.reshape(-1, n_orient, mean.shape[1])
        return self.regions.courses(np.linalg.norm(by_source, axis=1))

    def _consume(self, n: int) -> None:
        self.waiting, self.stamps = self.waiting[:, n:], self.stamps[n:]
