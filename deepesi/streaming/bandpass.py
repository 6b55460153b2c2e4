"""Causal band-pass for a stream."""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt, sosfilt_zi

Array = NDArray[np.float64]


class CausalBandpass:
    """Causal Butterworth band-pass that keeps its state between chunks.

    Args:
        low: Lower edge (-3 dB), Hz.
        high: Upper edge, Hz.
        sfreq: Sampling rate, Hz.
        order: Order of each edge.

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
        """Reset the state."""
        self.state = None

    def __call__(self, data: Array) -> Array:
        """Filter the next samples ``(C, n)``; the initial state is a constant first sample."""
        if self.state is None:
            self.state = sosfilt_zi(self.sections)[:, None] * data[:, :1]
        filtered, self.state = sosfilt(self.sections, data, axis=1, zi=self.state)
        return np.asarray(filtered)
