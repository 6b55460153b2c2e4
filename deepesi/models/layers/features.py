"""Time-frequency inputs: linear transforms of every channel, with operations that ONNX has."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.signal import firwin
from scipy.signal.windows import dpss
from torch import Tensor, nn
from torch.nn import functional

from deepesi.runtime.window_needs import WindowNeeds

#: Centres of the default bands, Hz: theta, alpha, beta, gamma.
FREQUENCIES = (6.0, 10.0, 20.0, 35.0)


class Features(nn.Module, ABC):
    """Base class: ``F`` groups of ``N`` numbers per channel, each linear in the data.

    Complex numbers are two of them. The mean square of a group is a power, so networks see signs
    and powers of the same transform.

    Attributes:
        n_groups: Number ``F`` of groups.
        least: Least number of samples of a window.
        sfreq: Sampling rate that the filters are made for, Hz; None: any.

    """

    n_groups: int
    least: int
    sfreq: float | None

    @property
    def window_needs(self) -> WindowNeeds:
        """What a window must be like."""
        return WindowNeeds(self.least, self.sfreq)

    @abstractmethod
    def transform(self, data: Float[Tensor, "B C T"]) -> Float[Tensor, "B C F N"]:
        """The numbers of every group."""

    def forward(self, data: Float[Tensor, "B C T"]) -> Float[Tensor, "B C F N"]:
        """`transform` of a window that is long enough.

        Raises:
            ValueError: The window is shorter than a taper or a filter.

        """
        if not torch.compiler.is_compiling() and data.shape[2] < self.least:
            raise ValueError(
                f"{type(self).__name__}: a window of {data.shape[2]} samples is shorter than its "
                f"longest filter. It needs {self.least} samples or more; give longer windows, "
                "higher frequencies, or model.features=null."
            )
        return self.transform(data)

    def log_powers(self, data: Float[Tensor, "B C T"], small: float) -> Float[Tensor, "B C F"]:
        """Logarithm of the mean square of every group, plus a small power."""
        return (self.forward(data).square().mean(3) + small).log()


class Raw(Features):
    """The data themselves: one group of ``T`` numbers."""

    n_groups, least, sfreq = 1, 1, None

    def transform(self, data: Float[Tensor, "B C T"]) -> Float[Tensor, "B C F N"]:
        """One group."""
        return data[:, :, None]


class _Filtered(Features):
    """Complex FIR filters of odd length; the result has the length of the window.

    Args:
        filters: Complex coefficients, one array per group.
        sfreq: Sampling rate, Hz.

    """

    kernel: Tensor

    def __init__(self, filters: Sequence[np.ndarray], sfreq: float) -> None:
        super().__init__()
        self.sfreq = float(sfreq)
        self.least = max(len(taps) for taps in filters)
        self.n_groups = len(filters)
        centred = np.stack([_centred(taps, self.least) for taps in filters])
        # The convolution of torch does not turn the filter around.
        kernel = np.stack([centred.real, centred.imag], 1)[:, :, ::-1].reshape(-1, 1, self.least)
        self.register_buffer("kernel", torch.tensor(kernel.copy(), dtype=torch.float32), False)

    def parts(self, data: Float[Tensor, "B C T"]) -> Float[Tensor, "B C F 2 T"]:
        """Real and imaginary part of every group; zeros are assumed beyond the window."""
        flat = data.flatten(0, 1)[:, None]
        out = functional.conv1d(flat, self.kernel.to(data), padding=self.least // 2)
        return out.unflatten(1, (-1, 2)).unflatten(0, data.shape[:2])

    def transform(self, data: Float[Tensor, "B C T"]) -> Float[Tensor, "B C F N"]:
        """Both parts, one after the other."""
        return self.parts(data).flatten(3)


def _centred(taps: np.ndarray, length: int) -> np.ndarray:
    margin = (length - len(taps)) // 2
    return np.pad(taps, margin)


class Morlet(_Filtered):
    """Complex Morlet wavelets, as `mne.time_frequency.morlet` with ``zero_mean=True``.

    Args:
        frequencies: Frequencies, Hz.
        n_cycles: Cycles within ``2 π`` standard deviations of the Gaussian.
        sfreq: Sampling rate, Hz.

    Raises:
        ValueError: A frequency is not between 0 and half the sampling rate; no cycles.

    Source: Tallon-Baudry et al. 1997, doi:10.1523/JNEUROSCI.17-02-00722.1997.

    """

    def __init__(
        self,
        frequencies: Sequence[float] = FREQUENCIES,
        n_cycles: float = 3.0,
        sfreq: float = 250.0,
    ) -> None:
        if not all(0 < f < sfreq / 2 for f in frequencies):
            raise ValueError(
                f"Morlet: frequencies must be above 0 and below {sfreq / 2:g} Hz (Nyquist at "
                f"sfreq={sfreq:g} Hz), got {list(frequencies)}."
            )
        if not n_cycles > 0:
            raise ValueError(f"Morlet: n_cycles must be above 0, got {n_cycles}.")
        super().__init__([_wavelet(f, n_cycles, sfreq) for f in frequencies], sfreq)


def _wavelet(frequency: float, n_cycles: float, sfreq: float) -> np.ndarray:
    """One wavelet of norm √2, with five standard deviations on each side."""
    sigma = n_cycles / (2 * math.pi * frequency)
    time = np.arange(0, 5 * sigma, 1 / sfreq)
    time = np.r_[-time[::-1], time[1:]]
    oscillation = np.exp(2j * np.pi * frequency * time)
    mean = np.exp(-2 * (np.pi * frequency * sigma) ** 2)
    wavelet = (oscillation - mean) * np.exp(-(time**2) / (2 * sigma**2))
    return np.asarray(wavelet / (np.sqrt(0.5) * np.linalg.norm(wavelet)))


class Hilbert(_Filtered):
    """Analytic signal of frequency bands, by one FIR filter per band.

    The filter is a linear-phase low-pass (`scipy.signal.firwin`, Blackman-Harris), moved to the
    positive frequencies of the band: its output is the analytic signal of the filtered data.
    `envelope_and_phase` gives what the Hilbert transform is used for.

    Args:
        bands: Edges of the bands, Hz.
        length: Taps of the filters, odd.
        sfreq: Sampling rate, Hz.

    Raises:
        ValueError: A band is not in order or not between 0 and half the sampling rate; the length
            is even, or too short to resolve a band.

    Source: complex FIR filters for analytic signals, Reilly et al. 1994, doi:10.1109/78.330385.

    """

    def __init__(
        self,
        bands: Sequence[Sequence[float]] = ((4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 45.0)),
        length: int = 249,
        sfreq: float = 250.0,
    ) -> None:
        _check_bands("Hilbert", bands, sfreq)
        narrowest = min(high - low for low, high in bands)
        least = math.ceil(2 * sfreq / narrowest)
        if length % 2 == 0 or length < least:
            raise ValueError(
                f"Hilbert: length must be odd and at least {least} taps to resolve a band of "
                f"{narrowest:g} Hz at {sfreq:g} Hz, got {length}."
            )
        super().__init__([_analytic(low, high, length, sfreq) for low, high in bands], sfreq)

    def envelope_and_phase(
        self, data: Float[Tensor, "B C T"]
    ) -> tuple[Float[Tensor, "B C F T"], Float[Tensor, "B C F T"]]:
        """Envelope, in the unit of the data, and phase, radians."""
        real, imaginary = self.parts(data).unbind(3)
        return (real.square() + imaginary.square()).sqrt(), torch.atan2(imaginary, real)


def _analytic(low: float, high: float, length: int, sfreq: float) -> np.ndarray:
    """A low-pass of half the width of the band, moved to its centre, with twice the gain."""
    low_pass = firwin(length, (high - low) / 2, window="blackmanharris", fs=sfreq)
    time = (np.arange(length) - length // 2) / sfreq
    return np.asarray(2 * low_pass * np.exp(1j * np.pi * (low + high) * time))


#: Least share of the energy of a taper within its bandwidth, as in MNE-Python.
MIN_CONCENTRATION = 0.9


class Multitaper(Features):
    """Spectra of a window under several orthogonal tapers (DPSS), in frequency bands.

    A group holds the complex amplitudes of all frequencies of a band under all tapers, scaled so
    that their mean square is the mean power spectral density of the band times half the sampling
    rate: 1 for white noise of variance 1. Densities are those of
    `mne.time_frequency.psd_array_multitaper` with ``adaptive=False``.

    Windows are cut into stretches of `length` samples with half overlap; what is left at the end,
    shorter than half a stretch, is not used.

    Args:
        bands: Edges of the bands, Hz.
        bandwidth: Full bandwidth of the tapers, Hz.
        length: Samples of a stretch.
        sfreq: Sampling rate, Hz.

    Raises:
        ValueError: A band is not in order or not between 0 and half the sampling rate, or holds no
            frequency; the bandwidth is below the resolution.

    Source: Thomson 1982, doi:10.1109/PROC.1982.12433.

    """

    basis: Tensor

    def __init__(
        self,
        bands: Sequence[Sequence[float]] = ((4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 45.0)),
        bandwidth: float = 4.0,
        length: int = 250,
        sfreq: float = 250.0,
    ) -> None:
        super().__init__()
        _check_bands("Multitaper", bands, sfreq)
        half = bandwidth * length / (2 * sfreq)
        if half < 0.5:
            raise ValueError(
                f"Multitaper: a bandwidth of {bandwidth:g} Hz is below the resolution of "
                f"{length} samples. It needs {math.ceil(sfreq / bandwidth)} samples or more."
            )
        self.least, self.n_groups, self.sfreq = length, len(bands), float(sfreq)
        tapers, ratios = dpss(length, half, max(1, int(2 * half)), sym=False, return_ratios=True)
        kept = ratios > MIN_CONCENTRATION
        kept[ratios.argmax()] = True
        tapers, ratios = tapers[kept], ratios[kept]
        tapers = tapers * np.sqrt(ratios / ratios.mean())[:, None]
        frequency = np.fft.rfftfreq(length, 1 / sfreq)
        waves = np.exp(-2j * np.pi * np.arange(length)[:, None] * frequency / sfreq)
        bands_of = [_in_band(frequency, band, length, sfreq) for band in bands]
        basis = []
        for inside in bands_of:
            tapered = (tapers[:, :, None] * waves[:, inside]).transpose(1, 0, 2)
            tapered = tapered.reshape(length, -1)
            basis.append(np.hstack([tapered.real, tapered.imag]) * math.sqrt(2))
        widest = max(part.shape[1] for part in basis)
        # Smaller groups are filled with zeros, and scaled so that their mean square stays.
        filled = [
            np.pad(part * math.sqrt(widest / part.shape[1]), ((0, 0), (0, widest - part.shape[1])))
            for part in basis
        ]
        stacked = torch.tensor(np.stack(filled, 1).reshape(length, -1), dtype=torch.float32)
        self.register_buffer("basis", stacked, False)

    def transform(self, data: Float[Tensor, "B C T"]) -> Float[Tensor, "B C F N"]:
        """Amplitudes of all stretches."""
        stretches = data.unfold(2, self.least, max(1, self.least // 2))
        amplitudes = stretches @ self.basis.to(data)
        return amplitudes.unflatten(3, (self.n_groups, -1)).transpose(2, 3).flatten(3)


def _in_band(frequency: np.ndarray, band: Sequence[float], length: int, sfreq: float) -> np.ndarray:
    """Which frequencies lie in a band."""
    low, high = band
    inside = (frequency >= low) & (frequency <= high)
    if not inside.any():
        raise ValueError(
            f"Multitaper: {length} samples have no frequency from {low:g} to {high:g} Hz. Take "
            f"{math.ceil(sfreq / (high - low))} samples or more, or wider bands."
        )
    return np.asarray(inside)


def _check_bands(name: str, bands: Sequence[Sequence[float]], sfreq: float) -> None:
    """Refuse bands that are out of order or beyond half the sampling rate."""
    for low, high in bands:
        if not 0 < low < high < sfreq / 2:
            raise ValueError(
                f"{name}: bands must be in order, above 0 and below {sfreq / 2:g} Hz (Nyquist at "
                f"sfreq={sfreq:g} Hz), got {low:g} to {high:g} Hz."
            )
