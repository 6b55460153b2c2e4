"""Gaussian time series with a 1/f spectrum, by FFT or by a Cholesky factor."""

import math

import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Generator, Tensor


def coloured_noise(
    shape: tuple[int, ...],
    n_times: int,
    exponent: float | Tensor,
    sfreq: float,
    rng: Generator,
    low: float = 1.0,
) -> Float[Tensor, "... T"]:
    """Stationary Gaussian series with expected variance 1 and spectrum ``1 / max(f, low)^e``.

    White noise is filtered in the frequency domain and cropped to the window. The filtered series
    is longer by two periods of the corner frequency, so the window is not periodic. The
    autocorrelation differs from that of the spectrum by at most 0.006 for exponents up to 2 and
    windows up to 0.4 s, by at most 0.02 for exponents up to 3 and windows up to 10 s.

    Args:
        shape: Leading dimensions.
        n_times: Number of samples ``T``.
        exponent: ``e``, no unit, a number or a tensor that broadcasts to `shape`. 0: white.
        sfreq: Sampling rate, Hz.
        rng: Random generator; the series are created on its device.
        low: Corner frequency, Hz. The spectrum is flat below.

    Raises:
        ValueError: There are no samples, or the corner is outside 0 to half the sampling rate.

    """
    if n_times < 1 or not 0 < low < sfreq / 2 < math.inf:
        raise ValueError(
            f"coloured_noise: n_times {n_times} must be 1 or more and the corner low {low:g} Hz "
            f"between 0 and half of sfreq {sfreq:g} Hz."
        )
    is_white = isinstance(exponent, int | float) and exponent == 0
    if n_times == 1 or is_white:
        return torch.randn(*shape, n_times, generator=rng, device=rng.device)
    gain, length = _spectrum(n_times, exponent, sfreq, low, rng.device)
    white = torch.randn(*shape, length, generator=rng, device=rng.device)
    return torch.fft.irfft(gain * torch.fft.rfft(white), length)[..., :n_times]


def colouring_factor(
    n_times: int, exponent: float, sfreq: float, low: float = 1.0
) -> Float[Tensor, "T T"]:
    """Matrix ``F`` so that ``white @ Fᵀ`` has the distribution of `coloured_noise`.

    Cholesky factor of the autocorrelation, computed on the CPU. The cost grows with ``T³``, so it
    is meant for many short series.
    """
    if n_times == 1 or exponent == 0:
        return torch.eye(n_times)
    gain, length = _spectrum(n_times, exponent, sfreq, low, torch.device("cpu"))
    lags = torch.fft.irfft(gain.double().square(), length)[:n_times]
    index = torch.arange(n_times)
    covariance = lags[(index[:, None] - index).abs()] / lags[0]
    # With a steep spectrum the smallest eigenvalues are as small as the rounding error.
    return torch.linalg.cholesky(covariance + 1e-6 * torch.eye(n_times)).float()


def _spectrum(
    n_times: int, exponent: float | Tensor, sfreq: float, low: float, device: torch.device
) -> tuple[Tensor, int]:
    """Gain at every frequency ``(..., F)`` for expected variance 1, and the FFT length."""
    length = next_fast_len(n_times + math.ceil(2 * sfreq / low), real=True)
    frequency = torch.fft.rfftfreq(length, 1 / sfreq, device=device).clamp_min(low) / low
    exponent = torch.as_tensor(exponent, dtype=torch.float32, device=device)[..., None]
    gain = frequency ** (-exponent / 2)
    # A real series has two bins per frequency, except the first and, if even, the last.
    counts = torch.full_like(frequency, 2.0)
    counts[0] = 1.0
    if length % 2 == 0:
        counts[-1] = 1.0
    return gain * (length / (counts * gain.square()).sum(-1, keepdim=True)).sqrt(), length
