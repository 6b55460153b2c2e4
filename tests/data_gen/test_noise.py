import numpy as np
import pytest
import torch
from scipy.signal import periodogram

from deepesi.data_gen.coloured import coloured_noise, colouring_factor
from deepesi.data_gen.noise import NoiseRanges

SFREQ = 250.0


def draw_noise(toy, width=1.0, seed=0, **kinds):
    head = toy.montage_head("biosemi32")
    return NoiseRanges(level=(1e-6, 1e-6), **kinds).draw(
        head.leadfield,
        head.sensors,
        head.source_pos,
        toy.is_cortex,
        width,
        np.random.default_rng(seed),
    )


@pytest.mark.parametrize("kind", ["white", "coloured", "brain", "line", "drift"])
@pytest.mark.parametrize("n_times", [1, 40])
def test_sample_covariance_is_the_stated_one(toy, kind, n_times):
    kinds = {} if kind == "white" else {"white": (1e-3, 1e-3), kind: (1.0, 1.0)}
    noise = draw_noise(toy, **kinds)
    drawn = noise.draw(6000, n_times, SFREQ, torch.Generator().manual_seed(0))
    sample = torch.einsum("bct,bdt->cd", drawn, drawn).double() / (6000 * n_times)
    assert np.linalg.norm(sample - noise.cov) < 0.08 * np.linalg.norm(noise.cov)
    assert np.trace(noise.cov) == pytest.approx(31e-12)


def spectrum(noise, n_times=512):
    drawn = noise.draw(60, n_times, SFREQ, torch.Generator().manual_seed(0))
    frequency, power = periodogram(drawn.double().numpy(), SFREQ, window="hann")
    return frequency, power.mean(axis=(0, 1))


def test_brain_noise_falls_with_frequency(toy):
    noise = draw_noise(toy, white=(1e-6, 1e-6), brain=(1, 1), exponent=(1.5, 1.5))
    frequency, power = spectrum(noise)
    band = (frequency > 3) & (frequency < 80)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert slope == pytest.approx(-1.5, abs=0.1)


def test_line_noise_is_at_the_mains_and_its_harmonics(toy):
    frequency, power = spectrum(draw_noise(toy, line=(10, 10), line_frequency=[60.0]))
    peaks = frequency[np.argsort(power)[::-1][:6]]
    near = np.abs(peaks[:, None] - np.array([60, 120])).min(axis=1)
    assert near.max() < 1
    assert power.max() > 100 * np.median(power)


def test_drift_is_slow(toy):
    frequency, power = spectrum(draw_noise(toy, white=(1e-6, 1e-6), drift=(1, 1)))
    assert power[frequency < 1].sum() > 0.5 * power.sum()


def test_variance_changes_slowly(toy):
    """The envelope of neighbouring samples agrees, that of distant ones does not."""
    still, moving = (
        draw_noise(toy, variance_change=(s, s)).draw(
            2000, 500, SFREQ, torch.Generator().manual_seed(1)
        )
        for s in (0.0, 0.5)
    )
    log_power = [x.square().mean(1).log() for x in (still, moving)]
    assert log_power[1].std() > 1.5 * log_power[0].std()
    near = torch.corrcoef(torch.stack([log_power[1][:, 100], log_power[1][:, 101]]))[0, 1]
    far = torch.corrcoef(torch.stack([log_power[1][:, 0], log_power[1][:, 499]]))[0, 1]
    assert near > 0.8
    assert far < 0.3


def test_closed_width_leaves_white_noise(toy):
    noise = draw_noise(toy, width=0.0, brain=(10, 10), line=(1, 1))
    eigenvalues = np.linalg.eigvalsh(noise.cov)[1:]
    assert np.allclose(eigenvalues, 1e-12)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_factor_and_series_have_the_same_covariance(exponent):
    rng = torch.Generator().manual_seed(0)
    series = coloured_noise((40000,), 30, exponent, SFREQ, rng).double()
    factor = colouring_factor(30, exponent, SFREQ).double()
    assert torch.allclose(factor @ factor.T, series.T @ series / 40000, atol=0.04)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": (1, 2)}, r"level 1 to 2 .*V \(1 microvolt is 1e-6\)"),
        ({"white": None}, "white is None, expected a range of relative power"),
        ({"white": (0.0, 1.0)}, "white 0 to 1 must be an ascending range"),
        ({"brain": (2.0, 1.0)}, "brain 2 to 1 must be an ascending range"),
        ({"line_frequency": [0.05]}, "line_frequency 0.05 must lie within 10 to 100 Hz"),
        ({"variance_change": (0, 5)}, "variance_change 0 to 5"),
    ],
)
def test_ranges_out_of_order_or_unit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        NoiseRanges(**settings)
