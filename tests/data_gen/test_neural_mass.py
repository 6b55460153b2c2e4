import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from deepesi.data_gen.neural_mass import JansenRit, pyramidal_potential
from deepesi.data_gen.waveforms import Mixture

SFREQ = 250.0
PAPER = {
    "connectivity": (135, 135),
    "excitatory_gain": (3.25e-3, 3.25e-3),
    "inhibitory_gain": (22e-3, 22e-3),
}
# One column per row: input 1/s, C, A in mV, B in mV; alpha, spike-like, at rest, theta.
COLUMNS = np.array(
    [
        [150.0, 135.0, 3.25, 22.0],
        [300.0, 135.0, 3.25, 22.0],
        [220.0, 270.0, 3.25, 22.0],
        [50.0, 120.0, 3.00, 20.0],
        [200.0, 150.0, 3.60, 25.0],
    ]
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def paper_equations(_, y, p, c, big_a, big_b):
    """Equations (6) of Jansen & Rit 1995 as printed, in mV and s."""
    a, b, e0, v0, r = 100.0, 50.0, 2.5, 6.0, 0.56

    def sigm(v):
        return 2 * e0 / (1 + np.exp(r * (v0 - v)))

    return [
        y[3],
        y[4],
        y[5],
        big_a * a * sigm(y[1] - y[2]) - 2 * a * y[3] - a**2 * y[0],
        big_a * a * (p + 0.8 * c * sigm(c * y[0])) - 2 * a * y[4] - a**2 * y[1],
        big_b * b * 0.25 * c * sigm(0.25 * c * y[0]) - 2 * b * y[5] - b**2 * y[2],
    ]


@pytest.fixture(scope="module")
def solved() -> np.ndarray:
    """Potential in V at 2, 4 ... 1500 ms, ``(750, columns)``."""
    times = 2e-3 * np.arange(1, 751)
    potentials = []
    for column in COLUMNS:
        y = solve_ivp(
            paper_equations,
            (0, 1.5),
            np.zeros(6),
            "DOP853",
            times,
            args=column,
            rtol=1e-9,
            atol=1e-9,
        ).y
        potentials.append(1e-3 * (y[1] - y[2]))
    return np.stack(potentials, axis=1)


def simulated(per_sample: int, dtype: torch.dtype) -> np.ndarray:
    p, c, a, b = torch.tensor(COLUMNS.T, dtype=dtype)
    inputs = p.expand(750 * per_sample, -1)
    out = pyramidal_potential(inputs, c, a * 1e-3, b * 1e-3, 2e-3 / per_sample)
    return out[per_sample - 1 :: per_sample].double().numpy()


def test_potential_is_that_of_an_adaptive_solver(solved):
    """Within 5e-6 V over 1.5 s at 2 ms; of fourth order, so 16 times less at 1 ms."""
    coarse, fine = (abs(simulated(n, torch.float64) - solved).max(0) for n in (1, 2))
    assert np.ptp(solved[500:], axis=0).max() > 5e-3
    assert coarse[:2].max() < 1e-6
    assert coarse.max() < 2e-5
    assert (coarse / fine)[[0, 1, 2, 4]].min() > 8


def test_potential_is_right_in_single_precision(solved):
    assert abs(simulated(1, torch.float32) - solved).max() < 3e-5


def test_input_acts_during_its_step(solved):
    """An input that is switched on at 100 ms gives the solution from there on."""
    p, c, a, b = torch.tensor(COLUMNS.T)
    inputs = torch.cat([torch.zeros(50, len(p), dtype=p.dtype), p.expand(100, -1)])
    out = pyramidal_potential(inputs, c, 1e-3 * a, 1e-3 * b, 2e-3).numpy()
    column = COLUMNS[0]
    rest = solve_ivp(
        paper_equations, (0, 0.1), np.zeros(6), args=(0.0, *column[1:]), rtol=1e-9, atol=1e-9
    ).y[:, -1]
    after = solve_ivp(paper_equations, (0, 0.2), rest, args=column, rtol=1e-9, atol=1e-9).y[:, -1]
    assert out[-1, 0] == pytest.approx(1e-3 * (after[1] - after[2]), abs=2e-6)


@pytest.mark.parametrize("n_times", [2, 20, 100])
def test_every_time_course_has_peak_one(n_times):
    time_courses = JansenRit().draw(20, 3, n_times, SFREQ, seeded())
    assert time_courses.shape == (20, 3, n_times)
    assert time_courses.dtype == torch.float32
    assert torch.equal(time_courses.abs().amax(-1), torch.ones(20, 3))
    assert time_courses.mean(-1).abs().max() < 1e-4


def test_a_snapshot_has_no_time_course():
    assert torch.equal(JansenRit().draw(5, 2, 1, SFREQ, seeded()), torch.ones(5, 2, 1))


def test_time_courses_are_those_of_the_seed_and_all_different():
    time_courses = JansenRit().draw(20, 3, 100, SFREQ, seeded(1))
    assert torch.equal(time_courses, JansenRit().draw(20, 3, 100, SFREQ, seeded(1)))
    assert not torch.equal(time_courses, JansenRit().draw(20, 3, 100, SFREQ, seeded(2)))
    rows = time_courses.reshape(60, 100)
    assert (torch.cdist(rows, rows) + 10 * torch.eye(60)).min() > 1e-2


@pytest.mark.parametrize("sfreq", [128.0, 250.0, 1000.0])
def test_the_papers_parameters_give_an_alpha_rhythm(sfreq):
    """At 10.8 Hz, and at no other frequency when it is sampled differently."""
    kind = JansenRit(input_rate=(200, 320), noise=(58, 58), **PAPER)
    n_times = int(3 * sfreq)
    time_courses = kind.draw(100, 1, n_times, sfreq, seeded())
    power = torch.fft.rfft(time_courses, 10 * n_times).abs().square().numpy()
    frequency = np.fft.rfftfreq(10 * n_times, 1 / sfreq)
    peaks = frequency[power.argmax(-1)]
    assert ((peaks > 8) & (peaks < 12)).mean() > 0.98
    assert np.median(peaks) == pytest.approx(10.8, abs=0.3)


def test_stronger_coupling_gives_slow_spikes():
    """C = 270: slow and spike-like, as in figure 3 of the paper."""
    kind = JansenRit(**{**PAPER, "connectivity": (270, 270)})
    time_courses = kind.draw(50, 1, 750, SFREQ, seeded())
    power = torch.fft.rfft(time_courses, 7500).abs().square().numpy()
    peaks = np.fft.rfftfreq(7500, 1 / SFREQ)[power.argmax(-1)]
    assert 3 < np.median(peaks) < 7


def test_columns_are_not_in_step():
    """Equal columns with hardly any noise differ in phase: their mean all but cancels."""
    kind = JansenRit(input_rate=(220, 220), noise=(1, 1), **PAPER)
    time_courses = kind.draw(500, 1, 100, SFREQ, seeded())
    assert time_courses.mean((0, 1)).abs().max() < 0.3


def test_start_is_over_before_the_window():
    """Columns started at zero swing twice as far at first; 1.1 times is what remains."""
    time_courses = JansenRit(**PAPER)._time_courses((300, 1), 250, SFREQ, seeded())
    first, last = time_courses[..., :50].std(-1).mean(), time_courses[..., -50:].std(-1).mean()
    assert 0.8 < first / last < 1.25


def test_noise_has_the_same_power_at_every_step():
    """A resting column passes white noise on: its spread does not depend on the sampling rate."""
    kind = JansenRit((20, 20), (58, 58), (120, 120), (3e-3, 3e-3), (20e-3, 20e-3))
    spreads = [
        kind._time_courses((200, 1), int(sfreq), sfreq, seeded()).std().item()
        for sfreq in (250.0, 2000.0)
    ]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.1)


def test_ends_of_the_accepted_ranges_stay_finite():
    kind = JansenRit((0, 1e3), (1, 1e3), (1, 2e3), (1e-4, 2e-2), (1e-3, 0.2))
    assert kind.draw(300, 2, 50, SFREQ, seeded()).isfinite().all()


def test_a_column_is_a_kind_of_a_mixture():
    time_courses = Mixture([JansenRit()]).draw(2, 2, 10, SFREQ, seeded())
    assert time_courses.shape == (2, 2, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JansenRit(input_rate=(-1, 5)), "JansenRit: input_rate -1 to 5"),
        (lambda: JansenRit(noise=(0, 58)), "JansenRit: noise 0 to 58 .* within 1 to 1000 1/s"),
        (lambda: JansenRit(connectivity=(150, 120)), "connectivity 150 to 120 .* ascending"),
        (lambda: JansenRit(excitatory_gain=(3.25, 3.25)), r"gain 3.25 to .* \(3.25 mV is 3.25e-3"),
        (lambda: JansenRit(inhibitory_gain=(22, 22)), "JansenRit: inhibitory_gain 22 to 22"),
        (lambda: JansenRit().draw(1, 1, 9, 100, seeded()), "JansenRit: its ranges reach 50 Hz"),
        (lambda: JansenRit().draw(1, 0, 9, SFREQ, seeded()), "JansenRit: n_examples, .* 1, 0 and"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_time_courses_lie_on_the_device_of_the_generator():
    rng = torch.Generator(device="cuda").manual_seed(0)
    assert JansenRit().draw(4, 2, 50, SFREQ, rng).device.type == "cuda"
