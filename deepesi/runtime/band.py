"""Source power in a frequency band: the recording is filtered, localized, and squared."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.runtime.estimates import Localization, magnitudes_of, source_estimate
from deepesi.runtime.inverse import PreparedInverse
from deepesi.runtime.writing.estimate import location, write_estimate
from deepesi.utils.running_mean import RunningMoments

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recording_type import Recording
    from deepesi.runtime.writing.subject_anatomy import SubjectAnatomy

Array = NDArray[np.float64]
Band = tuple[float, float]

#: Cycles of the lower edge in a stretch of which the power is taken.
CYCLES = 5


def check_band(info: "mne.Info", band: Band) -> None:
    """Refuse a band that the recording does not have.

    Args:
        info: Description of the recording.
        band: Edges, Hz.

    Raises:
        ValueError: The band is out of order, or beyond half the sampling rate or the filters of
            the recording.

    """
    low, high = band
    nyquist = info["sfreq"] / 2
    if not 0 < low < high < nyquist:
        raise ValueError(
            f"--band {low:g} {high:g}: the edges must be in order, above 0 and below {nyquist:g} "
            f"Hz, half the sampling rate of the recording ({info['sfreq']:g} Hz)."
        )
    if low < info["highpass"] or high > info["lowpass"]:
        raise ValueError(
            f"--band {low:g} {high:g}: the recording was filtered from {info['highpass']:g} to "
            f"{info['lowpass']:g} Hz and has no power outside. Choose a band inside, or use the "
            "recording before it was filtered."
        )


def band_limited(recording: "Recording", band: Band) -> "Recording":
    """A copy of the recording, filtered to a band without shift in time (FIR, MNE-Python).

    Raises:
        ValueError: As in `check_band`, or the recording or its epochs are shorter than the filter.

    """
    import mne

    check_band(recording.info, band)
    sfreq = recording.info["sfreq"]
    taps = len(mne.filter.create_filter(None, sfreq, *band, verbose="error"))
    n_times = len(recording.times)
    if n_times < taps:
        raise ValueError(
            f"--band {band[0]:g} {band[1]:g}: {n_times / sfreq:.2f} s are shorter than the filter, "
            f"which needs {taps / sfreq:.2f} s. Give longer epochs, the raw recording, or a wider "
            "band at higher frequencies."
        )
    copied = recording.copy()
    if not isinstance(copied, mne.Evoked):  # an average is in memory
        copied.load_data()
    return copied.filter(*band, picks="all", verbose="error")


class BandPower:
    """Mean and standard deviation over stretches of the power of every source.

    The power of a stretch is the mean of the squared moments over its samples, summed over
    components. A stretch has `CYCLES` cycles of the lower edge; a shorter rest counts as part of
    the one before, and a piece that is shorter is one stretch.

    Args:
        band: Edges, Hz.
        tstep: Time between samples, s.

    Attributes:
        moments: Mean and standard deviation over stretches ``(S,)``, (A m)².

    """

    def __init__(self, band: Band, tstep: float) -> None:
        self.band, self.length = band, max(1, round(CYCLES / band[0] / tstep))
        self.moments = RunningMoments()

    def add(self, result: Localization) -> None:
        """Add a localized piece; what is kept does not grow with the number of pieces."""
        squares = magnitudes_of(result.stc) ** 2
        n_stretches = max(1, squares.shape[1] // self.length)
        ends = self.length * np.arange(1, n_stretches)
        for part in np.split(squares, ends, axis=1):
            self.moments.add(part.mean(axis=1))

    def write(
        self, inverse: PreparedInverse, out: Path, anatomy: "SubjectAnatomy | None" = None
    ) -> Iterator[str]:
        """Write ``OUT-band`` and ``OUT-band-std`` as source estimates of one sample."""
        low, high = self.band
        source = int(self.moments.mean.argmax())
        rms = 1e9 * np.sqrt(self.moments.mean[source])
        where = location(source, inverse, anatomy)
        yield (
            f"strongest from {low:g} to {high:g} Hz: {where}; RMS {rms:.3g} nA m; "
            f"{self._spread(source)}"
        )
        for suffix, values in (("-band", self.moments.mean), ("-band-std", self.moments.std)):
            if values is not None:
                stc = source_estimate(values[:, None], inverse.space.fixed, 0.0, 1.0)
                for path in write_estimate(stc, out.with_name(out.name + suffix)):
                    yield f"wrote {path}"

    def _spread(self, source: int) -> str:
        std, n = self.moments.std, self.moments.n
        if std is None:
            return "one stretch, so without a standard deviation"
        share = std[source] / self.moments.mean[source]
        return f"standard deviation of the power {100 * share:.0f} % over {n} stretches"
