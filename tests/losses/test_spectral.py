"""The spectral distance against closed forms."""

from dataclasses import replace

import pytest
import torch

from deepesi.core.contracts import Estimate
from deepesi.losses.spectral import SpectralDistance

SFREQ, N_TIMES = 250.0, 250


@pytest.fixture
def rhythm(simulate):
    """One source with a rhythm of 10 Hz; all others are silent."""
    batch = simulate(n_times=N_TIMES, batch_size=2).batch(0)
    sources = torch.zeros_like(batch.sources)
    sources[:, 7] = 1e-8 * sine(10.0)
    return replace(batch, sources=sources)


def sine(frequency, phase=0.0):
    return torch.sin(2 * torch.pi * frequency * torch.arange(N_TIMES) / SFREQ + phase)


ALPHA = {"bands": [(8.0, 13.0)], "segments": [125, 250]}


def test_a_factor_on_the_amplitude_is_its_log_power(rhythm):
    """Half of the weight is on the active source; the others agree on silence."""
    term = SpectralDistance(**ALPHA, floor=1e-9)
    value = term(Estimate(3.0 * rhythm.sources), rhythm)
    expected = (0.5 + 0.5 / 84) * 2 * torch.log(torch.tensor(3.0))
    torch.testing.assert_close(value, expected.expand(2), rtol=1e-4, atol=0)


def test_silence_costs_the_floor(rhythm):
    value = SpectralDistance(**ALPHA, floor=0.01)(Estimate(0 * rhythm.sources), rhythm)
    expected = (0.5 + 0.5 / 84) * torch.log(torch.tensor(1.01 / 0.01))
    torch.testing.assert_close(value, expected.expand(2), rtol=1e-4, atol=0)


def test_phase_and_sign_do_not_matter_and_frequency_does(rhythm):
    def moved(frequency, phase):
        sources = torch.zeros_like(rhythm.sources)
        sources[:, 7] = -1e-8 * sine(frequency, phase)
        return SpectralDistance(**ALPHA)(Estimate(sources), rhythm).max()

    assert moved(10.0, 1.0) < 0.02
    assert moved(40.0, 0.0) > 2.0


def test_power_of_welch(rhythm):
    """The distance of two recordings from the powers of SciPy."""
    from scipy.signal import welch

    noise = torch.randn(rhythm.sources.shape, generator=torch.Generator().manual_seed(0))
    other = 1e-8 * noise.roll(1, 1)
    value = SpectralDistance(bands=[(8.0, 13.0)], segments=[100], floor=1e-6)(
        Estimate(other), replace(rhythm, sources=1e-8 * noise)
    )

    def power(values):
        taper = torch.hann_window(102, periodic=False)[1:-1].numpy()
        settings = {"window": taper, "noverlap": 50, "detrend": False}
        frequency, density = welch(values.numpy(), SFREQ, nperseg=100, **settings)
        return torch.as_tensor(density[..., (frequency >= 8) & (frequency <= 13)].sum(-1))

    target, estimate = power(noise), power(noise.roll(1, 1))
    floor = 1e-6 * target.amax(1, keepdim=True)
    weights = 0.5 / 84 + 0.5 * target / target.sum(1, keepdim=True)
    expected = (weights * ((estimate + floor) / (target + floor)).log().abs()).sum(1)
    torch.testing.assert_close(value, expected.float(), rtol=1e-4, atol=0)


def test_one_sample_has_no_spectrum(simulate):
    batch = simulate(n_times=1).batch(0)
    estimate = batch.sources.clone().requires_grad_()
    value = SpectralDistance()(Estimate(estimate), batch)
    value.sum().backward()
    assert value.tolist() == [0.0] * 8
    assert not estimate.grad.any()


def test_a_short_window_names_the_least_length(simulate):
    batch = simulate(n_times=100).batch(0)
    with pytest.raises(ValueError, match=r"100 samples are shorter than a segment of 250. Set"):
        SpectralDistance()(Estimate(batch.sources), batch)


@pytest.mark.parametrize("band", [(13.0, 8.0), (100.0, 130.0), (-1.0, 5.0)])
def test_impossible_bands(band):
    with pytest.raises(
        ValueError, match=r"must be in order and below half the sampling rate \(125"
    ):
        SpectralDistance(bands=[band])


def test_a_band_between_two_frequencies():
    with pytest.raises(ValueError, match=r"resolves 12.5 Hz and has no frequency .* at least 50"):
        SpectralDistance(bands=[(5.0, 10.0)], segments=[20])


@pytest.mark.parametrize("floor", [0.0, float("inf")])
def test_a_floor_is_needed(floor):
    with pytest.raises(ValueError, match=r"floor must be a fraction above 0"):
        SpectralDistance(floor=floor)
