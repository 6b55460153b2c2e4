"""Gaussian series with a 1/f spectrum: drawn one by one, or through a factor drawn once."""

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
    """Stationary Gaussian series of expected variance 1 with the spectrum ``1 / max(f, low)^e``.

    White noise is filtered in the frequency domain over two periods of the corner frequency more
    than the window, and cropped: the window is not periodic. Its autocorrelation is within 0.006
    of that of the spectrum for exponents to 2 and windows to 0.4 s, within 0.02 for exponents to
    3 and windows to 10 s.

    Args:
        shape: Leading dimensions.
        n_times: Samples ``T``.
        exponent: ``e``, no unit, a number or a tensor that broadcasts to `shape`; 0 is white.
        sfreq: Sampling rate, Hz.
        rng: Source of randomness; the series lie on its device.
        low: Corner frequency, Hz; the spectrum is flat below.

    Raises:
        ValueError: No samples, or a corner outside 0 to half the sampling rate.

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
    """Matrix ``F`` with ``white @ Fᵀ`` distributed as `coloured_noise`, for many short series.

    The Cholesky factor of the same autocorrelation, on the CPU; its cost grows with ``T³``.
    """
    if n_times == 1 or exponent == 0:
        return torch.eye(n_times)
    gain, length = _spectrum(n_times, exponent, sfreq, low, torch.device("cpu"))
    lags = torch.fft.irfft(gain.double().square(), length)[:n_times]
    index = torch.arange(n_times)
    covariance = lags[(index[:, None] - index).abs()] / lags[0]
    # A steep spectrum leaves the smallest eigenvalues at the rounding error.
    return torch.linalg.cholesky(covariance + 1e-6 * torch.eye(n_times)).float()


def _spectrum(
    n_times: int, exponent: float | Tensor, sfreq: float, low: float, device: torch.device
) -> tuple[Tensor, int]:
    """Gain at every frequency ``(..., F)`` for expected variance 1, and the length it is for."""
    length = next_fast_len(n_times + math.ceil(2 * sfreq / low), real=True)
    frequency = torch.fft.rfftfreq(length, 1 / sfreq, device=device).clamp_min(low) / low
    exponent = torch.as_tensor(exponent, dtype=torch.float32, device=device)[..., None]
    gain = frequency ** (-exponent / 2)
    # A real series has every bin twice but the first and, if even, the last.
    counts = torch.full_like(frequency, 2.0)
    counts[0] = 1.0
    if length % 2 == 0:
        counts[-1] = 1.0
    return gain * (length / (counts * gain.square()).sum(-1, keepdim=True)).sqrt(), length
