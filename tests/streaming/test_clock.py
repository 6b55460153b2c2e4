"""Stamps that scatter, jump or lack, on generated series: what is late, lost, and at what times."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepesi.streaming.clock import FittedClock

SFREQ = 250.0


def moments(n=3000, sfreq=SFREQ):
    """When the device samples, s."""
    return 1000 + np.arange(n) / sfreq


def in_bursts(times, size):
    """Stamps on arrival of samples that are sent `size` at a time."""
    last = np.minimum((np.arange(len(times)) // size + 1) * size, len(times)) - 1
    return times[last]


def run(stamps, arrived=None, sfreq=SFREQ):
    """A clock, its decisions, and the lines that it reported."""
    lines = []
    clock = FittedClock(sfreq, lines.append)
    arrived = np.maximum.accumulate(stamps) if arrived is None else arrived
    new = np.flatnonzero(np.diff(arrived)) + 1  # bursts come whole
    bounds = np.unique(new[np.searchsorted(new, np.arange(97, new[-1:].sum(), 97))])
    chunks = zip(np.split(stamps, bounds), np.split(arrived, bounds), strict=True)
    parts = [clock.push(*chunk) for chunk in chunks]
    return clock, [np.concatenate(column) for column in zip(*parts, strict=True)], lines


def assert_whole(stamps, clock, decided, lines):
    """Every sample has a time, none is lost, and times rise."""
    times, _, late, breaks = decided
    assert len(times) == len(stamps) - len(clock.held)
    assert len(clock.held) < 100
    assert clock.lost == late.sum() == breaks.sum() == 0
    assert (np.diff(times) > 0).all()
    assert lines == []


@pytest.mark.parametrize("size", [2, 4, 10, 32, 50, 125])
@pytest.mark.parametrize("rate", [250.0, 250.3, 249.0])
def test_bursts_stamped_on_arrival_lose_nothing(size, rate):
    """Equal stamps, and a nominal rate that is a little off."""
    true = moments(6000, rate)
    stamps = in_bursts(true, size)
    clock, decided, lines = run(stamps)
    assert_whole(stamps, clock, decided, lines)
    assert 1 / clock.stamps.period == pytest.approx(rate, rel=1e-6)
    settled = slice(4000, 6000 - 300)  # the times are those of the samples, not of the bursts
    np.testing.assert_allclose(decided[0][settled], true[settled], atol=1e-6)


@pytest.mark.parametrize(
    "shake",
    [
        lambda true, rng: in_bursts(true, 10) + np.tile(2e-5 * np.arange(10), 300),
        lambda true, rng: in_bursts(true, 10) - np.tile(np.arange(10) / SFREQ, 300),
        lambda true, rng: in_bursts(true, 10) + rng.exponential(0.004, 300).repeat(10),
        lambda true, rng: true + rng.normal(scale=3e-4, size=3000),
        lambda true, rng: true + rng.normal(scale=3e-3, size=3000),
        lambda true, rng: np.maximum.accumulate(true + rng.exponential(0.005, 3000)),
        lambda true, rng: np.where((true > 1006) & (true < 1006.3), 1006.3, true),
        lambda true, rng: np.maximum(true, np.where(true > 1006, 1006.3 + 0.3 * (true - 1006), 0)),
        lambda true, rng: np.where(rng.random(3000) < 0.1, np.nan, true),
    ],
    ids=[
        "spread",
        "backwards",
        "uneven",
        "jitter",
        "strong jitter",
        "queue",
        "stall",
        "slow stall",
        "some without",
    ],
)
def test_scatter_of_any_kind_loses_nothing(shake):
    true = moments()
    stamps = shake(true, np.random.default_rng(0))
    assert_whole(stamps, *run(stamps, np.fmax.accumulate(stamps)))


def test_any_gap_is_counted_to_the_sample(request):
    """In streams whose stamps' lower bound scatters by less than a sample, wherever it falls."""

    @settings(
        max_examples=request.config.getoption("--fuzz"),
        deadline=None,
        derandomize=True,
        database=None,
    )
    @given(
        st.integers(1, 700),
        st.integers(900, 1200),
        st.sampled_from([1, 4, 10]),
        st.sampled_from([249.5, 250.0, 250.3]),
        st.floats(0, 5e-4),
        st.booleans(),
    )
    def check(missing, at, size, rate, jitter, before_sending):
        true = moments(2600, rate)
        if before_sending:  # the device skips samples and sends bursts of its size
            stamps = in_bursts(np.delete(true, np.s_[at : at + missing]), size)
        else:  # they are lost on the way
            stamps = np.delete(in_bursts(true, size), np.s_[at : at + missing])
        shaken = np.random.default_rng(at).uniform(0, jitter, len(stamps))
        stamps = np.sort(stamps + shaken) if size == 1 else stamps
        clock, (times, _, late, breaks), lines = run(stamps)
        assert clock.lost == missing
        assert not late.any()
        places = np.flatnonzero(breaks)
        assert at - size <= places[0] <= at  # nothing behind the gap counts as before it
        assert places[-1] <= at + size
        assert (np.diff(times) > 0).all()
        assert lines == []

    check()


def test_two_gaps_and_what_came_out_of_order():
    true = moments()
    stamps = np.delete(true, np.r_[1000:1007, 1020:1050])
    clock, (times, _, late, breaks), _ = run(stamps)
    assert (clock.lost, breaks.sum(), late.sum()) == (37, 2, 0)
    np.testing.assert_allclose(times, stamps[: len(times)], atol=1e-9)
    swapped = true.copy()
    swapped[1000:1100] = np.r_[true[1050:1100], true[1000:1050]]
    clock, (times, _, late, _), _ = run(swapped, np.maximum.accumulate(swapped))
    assert (clock.lost, late.sum()) == (50, 50)
    np.testing.assert_array_equal(late[1000:1100], np.arange(100) >= 50)
    assert (np.diff(times[~late]) > 0).all()


@pytest.mark.parametrize("step", [-3600.0, -0.5, -0.048, 0.05, 0.5, 3600.0])
@pytest.mark.parametrize("size", [1, 10])
def test_a_clock_that_steps_loses_nothing(step, size):
    """Samples come on, so none is missing: a break, which is reported; times go on as before."""
    true = moments()
    came = in_bursts(true, size)
    clock, (times, _, late, breaks), lines = run(came + step * (np.arange(3000) >= 1500), came)
    assert clock.lost == late.sum() == 0
    (first,) = np.flatnonzero(breaks)
    assert 1500 - size <= first <= 1500
    assert len(lines) == 1
    assert f"stepped by {step:+,.3f} s" in lines[0]
    np.testing.assert_allclose(np.diff(times), 1 / SFREQ, atol=2e-3)


def test_a_device_that_restarts_with_another_clock():
    """Samples after the gap arrive 4 s later, and as many count as lost."""
    true = moments()
    came = np.r_[true[:1500], true[1500:] + 4.0]
    clock, (times, _, late, breaks), lines = run(np.r_[true[:1500], true[1500:] - 900], came)
    assert (clock.lost, late.sum(), breaks.sum()) == (1000, 0, 1)
    assert "stepped by -904.000 s, and 1,000 samples are missing" in lines[0]
    assert np.diff(times).max() == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize("off", [-1000.0, 1e6])
def test_first_stamps_that_are_far_off_are_no_gap(off):
    """Before the stream has shown its scatter: arrival tells a step, and no sample is missing."""
    true = moments()
    clock, (times, _, late, breaks), lines = run(true + off * (np.arange(3000) < 5), true)
    assert clock.lost == late.sum() == 0
    np.testing.assert_array_equal(np.flatnonzero(breaks), [5])
    assert f"stepped by {-off:+,.0f}" in lines[0]
    np.testing.assert_allclose(np.diff(times), 1 / SFREQ, atol=2e-2)


def test_a_step_within_a_burst_leaves_the_rate_alone():
    """Held samples from before an hour's step are no measure of the clock."""
    true = moments(32768, 2048.0)
    came = in_bursts(true, 20)
    stamps = came + 3600 * (np.arange(32768) >= 16394)
    clock, (_, _, late, _), _ = run(stamps, came, 2048.0)
    assert clock.lost == late.sum() == 0
    assert 1 / clock.stamps.period == pytest.approx(2048, rel=1e-3)


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        (moments(3000, 500.0), "has 250 Hz, but its time stamps advance at 500 Hz"),
        (moments(3000, 125.0), "advance at 125 Hz"),
        (moments(3000, 200.0), "advance at 200 Hz"),
        (in_bursts(moments(3000, 200.0), 10), "advance at 200"),
        (1e3 * moments(), r"advance at 0.25 Hz.*stamp in seconds"),
        (np.full(3000, 7.0), "advance not at all"),
        (np.r_[moments(1500), np.full(1500, 1006.0)], "advance not at all"),
        (np.full(3000, np.nan), "has no time stamps: .* came with NaN"),
    ],
)
def test_stamps_that_are_none_of_the_nominal_rate(stamps, message):
    with pytest.raises(ValueError, match=message):
        run(stamps, moments())


def test_a_rate_that_is_a_little_off_is_said_once():
    clock, decided, lines = run(in_bursts(moments(6000, 245.0), 10))
    assert len(lines) == 1
    assert "says it has 250 Hz; by its time stamps it has 245" in lines[0]
    assert clock.lost == decided[2].sum() == decided[3].sum() == 0


def test_nothing_waits_for_long_where_stamps_are_good():
    """Jitter below a sample: no sample waits for another; of a burst, for the burst's last."""
    true = moments() + np.random.default_rng(0).uniform(0, 1e-3, 3000)
    clock = FittedClock(SFREQ)
    for stamp in true:
        assert len(clock.push(np.array([stamp]), np.array([stamp])).times) == 1
    clock, bursts = FittedClock(SFREQ), in_bursts(moments(), 10)
    for part in bursts.reshape(-1, 10):
        assert len(clock.push(part, part).times) == 10
