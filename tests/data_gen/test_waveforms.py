import math

import numpy as np
import pytest
import torch

from deepesi.data_gen.coloured import coloured_noise
from deepesi.data_gen.waveforms import (
    Biphasic,
    Burst,
    Gabor,
    Mixture,
    PowerLaw,
    SpikeWave,
    TimeCourse,
)

SFREQ = 250.0
KINDS = [Gabor(), Biphasic(), Burst(), PowerLaw(), SpikeWave(), Mixture([Gabor(), Burst()])]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def power_spectrum(time_courses: torch.Tensor, padded: int) -> tuple[np.ndarray, np.ndarray]:
    window = torch.hann_window(time_courses.shape[-1])
    power = torch.fft.rfft(window * time_courses, padded).abs().square()
    return np.fft.rfftfreq(padded, 1 / SFREQ), power.numpy()


def fitted_exponent(time_courses: torch.Tensor) -> np.ndarray:
    """Slope of log power over log frequency, 3-80 Hz."""
    frequency, power = power_spectrum(time_courses, time_courses.shape[-1])
    band = (frequency >= 3) & (frequency <= 80)
    flat = power[..., band].reshape(-1, band.sum())
    return -np.polyfit(np.log(frequency[band]), np.log(flat.T), 1)[0]


@every_kind
@pytest.mark.parametrize("n_times", [2, 20, 400])
def test_every_time_course_has_peak_one(kind, n_times):
    time_courses = kind.draw(50, 3, n_times, SFREQ, seeded())
    assert time_courses.shape == (50, 3, n_times)
    assert time_courses.dtype == torch.float32
    assert torch.equal(time_courses.abs().amax(-1), torch.ones(50, 3))


@every_kind
def test_a_snapshot_has_no_time_course(kind):
    rng = seeded()
    assert torch.equal(kind.draw(5, 2, 1, SFREQ, rng), torch.ones(5, 2, 1))
    assert torch.equal(rng.get_state(), seeded().get_state())


@every_kind
def test_time_courses_are_those_of_the_seed_and_all_different(kind):
    time_courses = kind.draw(20, 3, 100, SFREQ, seeded(1))
    assert torch.equal(time_courses, kind.draw(20, 3, 100, SFREQ, seeded(1)))
    assert not torch.equal(time_courses, kind.draw(20, 3, 100, SFREQ, seeded(2)))
    rows = time_courses.reshape(60, 100)
    distance = torch.cdist(rows, rows) + 10 * torch.eye(60)
    assert distance.min() > 1e-2


def test_gabor_without_cycles_is_its_envelope():
    time_courses = Gabor((0.5, 0.5), (0.05, 0.05), (0, 0)).draw(4, 2, 101, SFREQ, seeded())
    time = (torch.arange(101) - 50) / SFREQ
    assert torch.allclose(time_courses.abs(), torch.exp(-(time**2) / (2 * 0.05**2)), atol=1e-5)


def test_gabor_has_its_cycles():
    """Two cycles within 4 x 50 ms are 10 Hz; the envelope has a spectral width of 3 Hz."""
    time_courses = Gabor((0.5, 0.5), (0.05, 0.05), (2, 2)).draw(200, 1, 250, SFREQ, seeded())
    frequency, power = power_spectrum(time_courses, 2500)
    assert abs(frequency[power.argmax(-1)] - 10).max() < 1
    mean = power.mean((0, 1))
    centre = (frequency * mean).sum() / mean.sum()
    assert math.sqrt(((frequency - centre) ** 2 * mean).sum() / mean.sum()) == pytest.approx(
        1 / (2 * math.pi * 0.05 * math.sqrt(2)), rel=0.1
    )


def test_biphasic_goes_up_then_down():
    """Far apart, the deflections are two Gaussians: at 0.2 of the window, 120 ms and 0.5 apart."""
    kind = Biphasic((0.2, 0.2), (0.02, 0.02), (3, 3), (0.5, 0.5))
    time_courses = kind.draw(3, 2, 101, SFREQ, seeded())
    assert (time_courses.argmax(-1) == 20).all()
    assert (time_courses.argmin(-1) == 50).all()
    assert torch.allclose(time_courses.amin(-1), torch.tensor(-0.5), atol=1e-3)
    drawn = Biphasic().draw(500, 2, 250, SFREQ, seeded())
    assert (drawn.argmax(-1) < drawn.argmin(-1)).float().mean() > 0.99
    assert drawn.amin(-1).std() > 0.1


def test_burst_has_its_frequency_and_length():
    kind = Burst(frequency=(10, 12), cycles=(6, 8), centre=(0.5, 0.5), drift=(0, 0))
    time_courses = kind.draw(200, 2, 500, SFREQ, seeded())
    frequency, power = power_spectrum(time_courses, 5000)
    peaks = frequency[power.argmax(-1)]
    assert peaks.min() > 9.9
    assert peaks.max() < 12.1
    assert peaks.std() > 0.3
    lengths = (time_courses.abs() > 1e-6).sum(-1) / SFREQ
    assert lengths.min() > 6 / 12 - 0.02
    assert lengths.max() < 8 / 10 + 0.02


def test_burst_frequencies_are_log_uniform():
    kind = Burst((4, 40), (20, 20), (0.5, 0.5), (0, 0))
    frequency, power = power_spectrum(kind.draw(1000, 1, 1250, SFREQ, seeded()), 1250)
    below = (frequency[power.argmax(-1)] < math.sqrt(4 * 40)).mean()
    assert below == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 1000))


@pytest.mark.parametrize("drift", [-0.4, 0.4])
def test_burst_drifts(drift):
    """From f (1 - d/2) to f (1 + d/2): the halves of the window differ by some f d / 3."""
    kind = Burst((20, 20), (20, 20), (0.5, 0.5), (drift, drift))
    time_courses = kind.draw(50, 1, 251, SFREQ, seeded())
    peaks = []
    for half in (time_courses[..., :125], time_courses[..., 126:]):
        frequency, power = power_spectrum(half, 2500)
        peaks.append(frequency[power.argmax(-1)].mean())
    assert (peaks[1] - peaks[0]) / 20 == pytest.approx(drift / 3, abs=0.05)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("n_times", [1, 50])
def test_coloured_noise_has_variance_one_at_every_sample(exponent, n_times):
    n = 20000
    noise = coloured_noise((n,), n_times, exponent, SFREQ, seeded())
    assert noise.shape == (n, n_times)
    error = (noise.square().mean(0) - 1).abs().max()
    assert error < 4.5 * math.sqrt(2 / n)  # of 50 samples at most, two-sided 3e-4
    assert noise.mean(0).abs().max() < 4.5 / math.sqrt(n)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_coloured_noise_has_the_autocorrelation_of_its_spectrum(exponent):
    """Over the window, so that it is not periodic: its ends would correlate to 0.9 otherwise."""
    n, n_times = 20000, 100
    noise = coloured_noise((n,), n_times, exponent, SFREQ, seeded())
    frequency = np.fft.rfftfreq(2**18, 1 / SFREQ)
    expected = np.fft.irfft(np.maximum(frequency, 1.0) ** -exponent)[:n_times]
    expected = torch.from_numpy(expected / expected[0]).float()
    # Standard error at most sqrt(2 / n), and 0.006 from the length of the transform.
    assert ((noise[:, :1] * noise).mean(0) - expected).abs().max() < 0.006 + 4.5 / math.sqrt(n / 2)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_coloured_noise_has_its_exponent_and_corner(exponent):
    noise = coloured_noise((300,), 2000, exponent, SFREQ, seeded(), low=2.0)
    assert fitted_exponent(noise).mean() == pytest.approx(exponent, abs=0.05)
    frequency, power = power_spectrum(noise, 2000)
    mean = power.mean(0)
    flat = [mean[(frequency > low) & (frequency < low + 0.7)].mean() for low in (0.3, 1.0)]
    assert flat[0] / flat[1] == pytest.approx(1, abs=0.2)


def test_coloured_noise_takes_an_exponent_per_series():
    exponents = torch.tensor([[0.0], [1.0], [2.0]])
    noise = coloured_noise((3, 200), 1000, exponents, SFREQ, seeded())
    fitted = fitted_exponent(noise).reshape(3, 200).mean(1)
    assert np.allclose(fitted, [0, 1, 2], atol=0.05)
    assert torch.allclose(noise[0].var(), torch.tensor(1.0), atol=0.02)


@pytest.mark.parametrize("exponent", [0.5, 1.5])
def test_power_law_has_its_exponent(exponent):
    time_courses = PowerLaw((exponent, exponent)).draw(100, 3, 1000, SFREQ, seeded())
    assert fitted_exponent(time_courses).mean() == pytest.approx(exponent, abs=0.05)


def test_power_law_draws_an_exponent_per_source():
    """Uniform within 0.5-2: mean 1.25, standard deviation 0.43, besides the error of the fit."""
    fitted = fitted_exponent(PowerLaw((0.5, 2.0)).draw(100, 3, 4000, SFREQ, seeded()))
    assert fitted.mean() == pytest.approx(1.25, abs=4 * 0.43 / math.sqrt(300))
    assert fitted.std() == pytest.approx(0.43, abs=0.08)
    assert fitted.reshape(100, 3).std(1).mean() > 0.25


@pytest.mark.parametrize("rate", [(3, 3), (2.5, 4)])
def test_spike_wave_repeats_at_its_rate(rate):
    """The fundamental, the largest peak below 4.5 Hz, is uniform over the range."""
    time_courses = SpikeWave(rate).draw(300, 1, 2500, SFREQ, seeded())
    frequency, power = power_spectrum(time_courses - time_courses.mean(-1, keepdim=True), 10000)
    peaks = frequency[power[..., frequency < 4.5].argmax(-1)]
    assert peaks.min() > rate[0] - 0.05
    assert peaks.max() < rate[1] + 0.05
    assert peaks.mean() == pytest.approx(np.mean(rate), abs=0.1)
    assert peaks.std() == pytest.approx((rate[1] - rate[0]) / math.sqrt(12), abs=0.05)


def test_spike_wave_has_no_jumps():
    """Steeper than the flank of the spike, 0.61 per standard deviation, it is nowhere."""
    kind = SpikeWave((2.5, 4), (0.01, 0.01), (1, 1), jitter=0.9)
    time_courses = kind.draw(200, 1, 2000, 1000.0, seeded())
    assert time_courses.diff().abs().max() < 1.2 * 0.61 / (0.01 * 1000)


def test_spike_wave_has_one_sharp_spike_in_a_complex():
    kind = SpikeWave((3, 3), (0.01, 0.01), (0.4, 0.4), jitter=0)
    time_courses = kind.draw(50, 2, 2500, SFREQ, seeded())
    above = time_courses > 0.7
    starts = (above[..., 1:] & ~above[..., :-1]).sum(-1)
    assert ((starts - 30).abs() <= 1).all()
    # A Gaussian is above 0.7 for 1.69 standard deviations.
    assert above.float().mean().item() == pytest.approx(3 * 1.69 * 0.01, rel=0.1)


def test_spikes_vary_by_the_jitter():
    kind = SpikeWave((3, 3), (0.015, 0.015), (0.05, 0.05), jitter=0.2)
    complexes = kind.draw(200, 1, 2490, SFREQ, seeded()).reshape(200, 30, 83)
    # Complexes of 83.3 samples drift by 10 over the window: leave out windows with a spike cut.
    heights = complexes.amax(-1)
    heights = heights[(complexes.argmax(-1) - 41).abs().amax(1) < 30]
    assert len(heights) > 50
    assert heights.min() > 0.8 / 1.2 - 0.02
    assert heights.std(1).mean().item() == pytest.approx(0.4 / math.sqrt(12) / 1.19, rel=0.1)


class Marked(TimeCourse):
    """Ones but for a -1 at one sample; keeps the number of examples asked for."""

    highest_frequency = 0.0

    def __init__(self, mark: int) -> None:
        self.mark, self.asked = mark, []

    def _time_courses(self, shape, n_times, sfreq, rng):
        self.asked.append(shape[0])
        time_courses = torch.ones(*shape, n_times)
        time_courses[..., self.mark] = -1
        return time_courses


@pytest.mark.parametrize("weights", [(1, 2, 5, 0), None])
def test_mixture_draws_kinds_by_their_weights(weights):
    kinds = [Marked(mark) for mark in range(4)]
    time_courses = Mixture(kinds, weights).draw(4000, 2, 8, SFREQ, seeded())
    drawn = time_courses.argmin(-1)
    assert (time_courses.amin(-1) == -1).all()
    assert torch.equal(drawn[:, 0], drawn[:, 1])
    expected = np.array(weights or (1, 1, 1, 1)) / sum(weights or (1, 1, 1, 1))
    counts = np.bincount(drawn[:, 0].numpy(), minlength=4)
    assert (abs(counts / 4000 - expected) <= 4 * np.sqrt(expected * (1 - expected) / 4000)).all()
    assert [sum(kind.asked) for kind in kinds] == counts.tolist()
    assert not weights or kinds[3].asked == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gabor(width=(20, 80)), r"Gabor: width 20 to 80 .* \(80 ms is 0.08\)"),
        (lambda: Gabor(centre=(0.8, 0.2)), "Gabor: centre 0.8 to 0.2 must be an ascending range"),
        (lambda: Gabor(cycles=(-1, 2)), "Gabor: cycles -1 to 2 must be"),
        (lambda: Biphasic(latency=(0, 2)), "Biphasic: latency 0 to 2 .* of the window"),
        (lambda: Biphasic(width=(10, 40)), "Biphasic: width 10 to 40"),
        (lambda: Biphasic(separation=(0, 1)), "Biphasic: separation 0 to 1"),
        (lambda: Biphasic(ratio=(1, math.nan)), "Biphasic: ratio 1 to nan"),
        (lambda: Burst(frequency=(0, 40)), "Burst: frequency 0 to 40 .* Hz"),
        (lambda: Burst(cycles=(0.5, 2)), "Burst: cycles 0.5 to 2"),
        (lambda: Burst(centre=(0.5,)), "Burst: centre 0.5 must be an ascending range"),
        (lambda: Burst(drift=(-2, 2)), "Burst: drift -2 to 2"),
        (lambda: PowerLaw(exponent=(1, 5)), "PowerLaw: exponent 1 to 5 .* within 0 to 4"),
        (lambda: PowerLaw(low=0), "PowerLaw: low 0 to 0 .* Hz"),
        (lambda: SpikeWave(rate=(3, 30)), "SpikeWave: rate 3 to 30"),
        (lambda: SpikeWave(spike_width=(0.02, 0.04)), "spike_width 0.02 to 0.04 .* to 0.03125 s"),
        (lambda: SpikeWave(wave=(1, 0.5)), "SpikeWave: wave 1 to 0.5"),
        (lambda: SpikeWave(jitter=1), "SpikeWave: jitter 1 to 1 .* 0 to 0.9"),
        (lambda: Mixture([]), "Mixture: kinds is empty"),
        (lambda: Mixture([Gabor()], [1, 2]), r"Mixture: weights \[1.0, 2.0\] .* the 1 kinds"),
        (lambda: Mixture([Gabor()], [0]), r"weights \[0.0\] .* not all 0"),
        (lambda: Mixture([Gabor(), Burst()], [2, -1]), r"weights \[2.0, -1.0\] .* 0 or more"),
        (lambda: Gabor().draw(0, 1, 5, SFREQ, seeded()), "Gabor: n_examples, .* got 0, 1 and 5"),
        (lambda: Gabor().draw(1, 1, 5, 40, seeded()), "Gabor: .* 50 Hz, but sfreq .* below 20 Hz"),
        (lambda: Biphasic().draw(1, 1, 5, 100, seeded()), "Biphasic: its ranges reach 50 Hz"),
        (lambda: Burst((4, 200)).draw(1, 1, 5, SFREQ, seeded()), "Burst: .* 220 Hz.*raise sfreq"),
        (lambda: PowerLaw(low=20).draw(1, 1, 5, 30, seeded()), "PowerLaw: its ranges reach 20 Hz"),
        (lambda: SpikeWave().draw(1, 1, 5, 0, seeded()), "SpikeWave: .* below 0 Hz"),
        (lambda: Mixture([Gabor(), Burst((4, 200))], [1, 0]).check(SFREQ), "Burst: its ranges"),
        (lambda: coloured_noise((2,), 0, 1.0, SFREQ, seeded()), "coloured_noise: n_times 0"),
        (lambda: coloured_noise((2,), 5, 1.0, 2, seeded()), "low 1 Hz between 0 and half of sfreq"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_kind
def test_time_courses_lie_on_the_device_of_the_generator(kind):
    rng = torch.Generator(device="cuda").manual_seed(0)
    assert kind.draw(4, 2, 50, SFREQ, rng).device.type == "cuda"


def test_the_band_holds_nine_tenths_of_the_power():
    """Bursts of 10 to 12 Hz that last most of a second; of windows of a second, every hertz."""
    kind = Burst(frequency=(10, 12), cycles=(8, 8), centre=(0.5, 0.5), drift=(0, 0))
    assert kind.band(250, SFREQ) == (9, 13)
    low, high = kind.band(2500, SFREQ)
    assert 9 < low < 10
    assert 12 < high < 13


def test_a_wide_band_is_that_of_the_time_course():
    """Most power of ``1/f²`` from 1 Hz on, in windows of four seconds, is slow."""
    low, high = PowerLaw().band(1000, SFREQ)
    assert low < 1
    assert high > 5


def test_snapshots_have_no_band():
    assert Gabor().band(1, SFREQ) is None
