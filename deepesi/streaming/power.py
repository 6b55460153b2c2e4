"""Power of the parcels of a stream in its band: mean and standard deviation over stretches."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.atlas import Parcels
from deepesi.runtime.band import CYCLES, Band
from deepesi.utils.rows import write_rows
from deepesi.utils.running_mean import RunningMoments

Array = NDArray[np.float64]


class LivePower:
    """Mean and standard deviation over stretches of the power of every parcel.

    The power of a stretch is the mean over its samples of the squared RMS moment of the parcel. A
    stretch has `CYCLES` cycles of the lower edge, as in `deepesi.runtime.band.BandPower`. It does
    not reach across a gap: what came before is left out.

    Args:
        parcels: The parcels.
        band: Edges of the filter of the stream, Hz.
        sfreq: Sampling rate, Hz.

    Attributes:
        moments: Mean and standard deviation of the power ``(R,)``, (A m)².

    """

    def __init__(self, parcels: Parcels, band: Band, sfreq: float) -> None:
        self.parcels, self.band, self.sfreq = parcels, band, sfreq
        self.length, self.moments = max(1, round(CYCLES / band[0] * sfreq)), RunningMoments()
        self.sum, self.n, self.last = np.zeros(len(parcels.names)), 0, np.nan

    def push(self, times: Array, time_courses: Array) -> None:
        """Add estimates in order of time.

        Args:
            times: Times ``(m,)``, s.
            time_courses: RMS moments of the parcels ``(R, m)``, A m.

        """
        for time, moments in zip(times, time_courses.T, strict=True):
            if time - self.last > 1.5 / self.sfreq:
                self.sum, self.n = np.zeros_like(self.sum), 0
            self.sum, self.n, self.last = self.sum + moments**2, self.n + 1, time
            if self.n == self.length:
                self.moments.add(self.sum / self.n)
                self.sum, self.n = np.zeros_like(self.sum), 0

    def __str__(self) -> str:
        low, high = self.band
        if self.moments.n == 0:
            return f"no power from {low:g} to {high:g} Hz: no stretch of {self.length} samples"
        strongest = int(self.moments.mean.argmax())
        text = (
            f"strongest from {low:g} to {high:g} Hz: {self.parcels.names[strongest]}, RMS "
            f"{1e9 * np.sqrt(self.moments.mean[strongest]):.3g} nA m"
        )
        if self.moments.std is None:
            return f"{text}; one stretch, so without a standard deviation"
        share = self.moments.std[strongest] / self.moments.mean[strongest]
        return (
            f"{text}; standard deviation of the power {100 * share:.0f} % over {self.moments.n} "
            "stretches"
        )

    def write(self, path: Path) -> None:
        """Write mean and standard deviation of the power of every parcel as CSV, (A m)²."""
        moments, names = self.moments, self.parcels.names if self.moments.n else ()
        std = [None] * len(names) if moments.std is None else moments.std
        rows = [(*row, moments.n) for row in zip(names, moments.mean, std, strict=True)]
        write_rows(path, ["parcel", "mean", "std", "stretches"], rows)
