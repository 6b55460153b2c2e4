"""From incoming samples to time courses of parcels: filter, windows, inversion, checks."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.atlas import Parcels
from deepesi.physics.data_check import check_constant, check_data, flat_channels
from deepesi.physics.head import magnitudes
from deepesi.runtime.inverse import PreparedInverse
from deepesi.runtime.noise_check import LOUDEST_BASELINE, QUIETEST, check_noise
from deepesi.runtime.windows import fading
from deepesi.streaming.bandpass import CausalBandpass
from deepesi.streaming.clock import FittedClock
from deepesi.streaming.counts import Counts
from deepesi.streaming.samples import Decided

Array = NDArray[np.float64]

#: Time whose power is compared with that of the noise, s.
COMPARED = 5.0


class LiveInverse:
    """Time courses of parcels from chunks of a running recording.

    Time stamps are fitted to a clock (`FittedClock`); samples with uncertain times wait. Chunks are
    filtered, cut into windows with half overlap and estimated. The estimate of a sample is ready
    when its last window is complete, so windows of one sample have no delay. Samples older than
    earlier ones are dropped. After a gap, or a step of the clock of the stream, filter and windows
    start again, and there are no estimates until the filter has settled. All samples are counted.

    Args:
        inverse: Prepared inverse; channels of the data are in the order of its `ch_names`.
        parcels: Parcels of its source space.
        sfreq: Sampling rate, Hz.
        band: Edges of the filter, Hz.
        window: Window length, samples, 1 or even.
        say: Called with lines that report a step of the clock, a slightly different rate, a
            constant channel, or a noise covariance that is too small.

    Attributes:
        counts: Counts of the samples.
        arrived: Arrival times of the samples that the last `push` returned ``(m,)``, s.
        trouble: Reason why the newest broken samples were dropped.

    Raises:
        ValueError: An odd window, or one longer than in training or shorter than a filter of the
            model; a stream of another sampling rate than its filters; a model prepared for
            averages; or as in `CausalBandpass`.

    """

    def __init__(
        self,
        inverse: PreparedInverse,
        parcels: Parcels,
        sfreq: float,
        band: tuple[float, float] = (1.0, 40.0),
        window: int = 1,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        check_live(inverse, band, window)
        inverse.model.contract.window_needs.check_rate(sfreq, "LiveInverse: the stream")
        self.inverse, self.parcels, self.sfreq = inverse, parcels, sfreq
        self.filter, self.window = CausalBandpass(*band, sfreq), window
        self.weight = fading(window)
        self.counts, self.clock, self.trouble = Counts(), FittedClock(sfreq, say), ""
        self.dropped = 0  # late samples
        self.held, self.newest = np.zeros((len(inverse.ch_names), 0)), -np.inf
        self.arrived, self.say = np.zeros(0), say
        self.first: Array | None = np.zeros(
            (len(inverse.ch_names), 0)
        )  # to check for flat channels
        self.powers: Array | None = np.zeros(0)  # whitened, of the first seconds
        self._restart()

    def _restart(self) -> None:
        self.filter.restart()
        self.to_settle = self.filter.settled
        n_channels = len(self.inverse.ch_names)
        self.waiting, self.stamps = np.zeros((n_channels, 0)), np.zeros((2, 0))
        self.half: Array | None = None  # share of the previous window in the next samples

    @property
    def pending(self) -> int:
        """Number of waiting samples: uncertain times, or an incomplete window."""
        return self.held.shape[1] - self.clock.early + self.waiting.shape[1]

    def push(self, data: Array, times: Array, arrived: Array | None = None) -> tuple[Array, Array]:
        """Process the next chunk.

        Args:
            data: ``(C, n)``, V, any reference.
            times: Time stamps ``(n,)``, s.
            arrived: Arrival times ``(n,)``, s, of a monotonic clock, to distinguish gaps from steps
                of the clock of the stream. By default, the time stamps.

        Returns:
            Times of the fitted clock ``(m,)``, strictly ascending, and RMS moments of the parcels
            ``(R, m)``, A m, of the completed samples.

        Raises:
            ValueError: Another number of channels, data that are not plausible EEG in volts, or
                time stamps that do not advance at the nominal rate.

        """
        if data.ndim != 2 or data.shape != (len(self.inverse.ch_names), len(times)):
            raise ValueError(
                f"LiveInverse: a chunk of shape {data.shape} with {len(times)} time stamps, "
                f"expected ({len(self.inverse.ch_names)}, n) with n."
            )
        self.counts.received += len(times)
        decided = self.clock.push(times, self._arrival(times) if arrived is None else arrived)
        self.dropped += int(decided.late.sum())
        self.counts.lost, self.counts.late = self.clock.lost, self.dropped + self.clock.early
        self.held = np.concatenate([self.held, data], axis=1)
        ready, self.held = np.split(self.held, [len(decided.times)], axis=1)
        estimates: list[tuple[Array, Array]] = []
        stamps = np.stack([decided.times, decided.arrived])
        for stretch in self._in_order(ready, decided):
            if stretch is None:
                self._restart()
            else:
                estimates += self._estimate(ready[:, stretch], stamps[:, stretch])
        done = [np.zeros((2, 0)), *(stamps for stamps, _ in estimates)]
        time_courses = [
            np.zeros((len(self.parcels.names), 0)),
            *(values for _, values in estimates),
        ]
        given, self.arrived = np.concatenate(done, axis=1)
        self.counts.estimated += len(given)
        return given, np.concatenate(time_courses, axis=1)

    def _arrival(self, times: Array) -> Array:
        """Time stamps as arrival times, made monotonic."""
        arrived = np.fmax.accumulate(np.r_[self.newest, times])[1:]
        self.newest = float(arrived[-1]) if len(arrived) else self.newest
        return arrived

    def _in_order(self, data: Array, decided: Decided) -> list[slice | None]:
        """Stretches of new, complete samples; None: a break without estimates across it."""
        stretches: list[slice | None] = []
        whole = np.all(np.isfinite(data), axis=0)
        for i, late in enumerate(decided.late):
            if late:
                continue
            if decided.breaks[i]:
                stretches.append(None)
            if not whole[i]:
                self.counts.broken += 1
                self.trouble = "samples are NaN or infinite"
                stretches.append(None)
                continue
            before = stretches[-1] if stretches else None
            if before is not None and before.stop == i:
                stretches[-1] = slice(before.start, i + 1)
            else:
                stretches.append(slice(i, i + 1))
        return stretches

    def _estimate(self, data: Array, stamps: Array) -> list[tuple[Array, Array]]:
        """Filter a stretch and estimate the completed windows."""
        if self.first is not None:
            self._look_for_flat(data)
        filtered = self.filter(data)
        settling = min(self.to_settle, data.shape[1])
        self.to_settle -= settling
        self.counts.settling += settling
        self.waiting = np.concatenate([self.waiting, filtered[:, settling:]], axis=1)
        self.stamps = np.concatenate([self.stamps, stamps[:, settling:]], axis=1)
        self._compare_with_noise(filtered[:, settling:])
        length, hop, estimates = self.window, max(1, self.window // 2), []
        if self.waiting.shape[1] >= length and not self._check_level():
            self.counts.broken += self.waiting.shape[1]
            self._restart()
            return []
        if length == 1 and self.waiting.shape[1]:
            estimates.append((self.stamps, self._time_courses(self.waiting)))
            self._consume(self.waiting.shape[1])
        while length > 1 and self.waiting.shape[1] >= length:
            time_courses = self._time_courses(self.waiting[:, :length])
            # Weights of two windows sum to one; the first window has no other before it.
            begun = time_courses[:, :hop]
            if self.half is not None:
                begun = self.weight[:hop] * begun + self.half
            estimates.append((self.stamps[:, :hop], begun))
            self.half = self.weight[hop:] * time_courses[:, hop:]
            self._consume(hop)
        return estimates

    def _look_for_flat(self, data: Array) -> None:
        """Refuse channels that were constant while the filter settled; one of zeros is reported."""
        assert self.first is not None
        self.first = np.concatenate([self.first, data], axis=1)
        if self.first.shape[1] < self.filter.settled:
            return
        names = self.inverse.ch_names
        check_constant(self.first, names)
        for row in flat_channels(self.first):
            self.say(f"{names[row]} is constant, taken for the reference")
        self.first = None

    def _compare_with_noise(self, data: Array) -> None:
        """Report a noise covariance that is too small for most of the first seconds."""
        if self.powers is None:
            return
        self.powers = np.append(self.powers, self.inverse.power(data))
        if len(self.powers) < COMPARED * self.sfreq:
            return
        power, self.powers = float(np.median(self.powers)), None
        if power > LOUDEST_BASELINE:
            self.say(
                f"the stream has {power:.3g} times the power of noise (median of {COMPARED:g} s), "
                "by the noise covariance; expected about 1. Is that divided by a number of trials "
                "already, or of another recording? Prepare again with that of single trials"
            )

    def _check_level(self) -> bool:
        """Whether waiting samples are plausible EEG in volts with the prepared noise.

        If not from the start, units or noise covariance are wrong.
        """
        try:
            check_data(self.waiting, self.inverse.sensors)
            check_noise(self.inverse.power(self.waiting), QUIETEST, self.inverse.nave)
        except ValueError as error:
            if not self.counts.estimated:
                raise
            self.trouble = str(error)
            return False
        return True

    def _time_courses(self, data: Array) -> Array:
        mean = self.inverse.estimate(data, self.window)[0]
        return self.parcels.time_courses(magnitudes(mean, self.inverse.space.n_orient))

    def _consume(self, n: int) -> None:
        self.waiting, self.stamps = self.waiting[:, n:], self.stamps[:, n:]

    def why_nothing(self, before: Counts) -> str:
        """Reason why the samples since `before` gave no estimate, and a solution."""
        now, settle = self.counts, self.filter.settled / self.sfreq
        if now.received == before.received:
            return "No sample came. Start the device."
        became = {
            "broken": now.broken - before.broken,
            "late": now.late - before.late,
            "settling": now.settling - before.settling,
            "held": self.held.shape[1],
        }
        reasons = {
            "broken": self.trouble,
            "late": "Their time stamps are older than those of samples before. Correct the "
            "stamps of the device or its bridge",
            "settling": f"The filter needs {settle:.3g} s without a gap to settle. Run for longer, "
            "or keep the device from losing samples",
            "held": f"Their time stamps follow no clock of {self.sfreq:g} Hz. Correct the "
            "stamps of the device or its bridge, or the rate it names",
        }
        return f"{reasons[max(became, key=lambda key: became[key])].rstrip('.')}."


def check_live(inverse: PreparedInverse, band: tuple[float, float], window: int) -> None:
    """Refuse what no stream can be localized with; errors as in `LiveInverse`."""
    trained = inverse.model.contract.trained
    longest = window if trained is None else trained.n_times[1]
    if window < 1 or (window > 1 and window % 2) or window > longest:
        raise ValueError(
            f"LiveInverse: a window of {window} samples; it must be 1 or even, and no longer "
            f"than in training ({longest})."
        )
    inverse.model.contract.window_needs.check_length(window, "LiveInverse: a window")
    if inverse.nave != 1:
        raise ValueError(
            f"LiveInverse: prepared for averages of {inverse.nave:g} trials, a stream is of "
            "single ones, with more noise. Prepare again without --nave."
        )
    if not 0 < band[0] < band[1]:
        raise ValueError(
            f"LiveInverse: the band {band[0]:g} to {band[1]:g} Hz must begin above 0 and end above "
            "its beginning (--band LOW HIGH)."
        )
