"""Stamps coarser than a sample: several samples with one stamp, rounded or rounded down.

A gap shorter than a tick looks like rounding; longer ones are counted to a tick.
"""

import numpy as np
import pytest

from deepesi.streaming.resolution import Resolution
from tests.conftest import slow
from tests.streaming.test_clock import in_bursts, run

TICKS = [(2048.0, 1e-3), (2048.0, 1 / 128), (2048.0, 1e-2), (1000.0, 1e-2), (500.0, 1 / 60)]


def device(sfreq, tick, rounding, off=0.0, missing=0, step=0.0, seed=0):
    """Stamps and arrivals (s) of 16 s, in bursts of 20 ms that come late by about 1 ms.

    The true rate is off the nominal one by a fraction; samples are dropped after 8 s; the clock of
    the device steps after 9 s.
    """
    true = 1000.0003 + np.arange(int(16 * sfreq)) / (sfreq * (1 + off))
    true = np.delete(true, int(8.003 * sfreq) + np.arange(missing))
    size = max(1, int(0.02 * sfreq))
    late = 1e-3 * np.random.default_rng(seed).exponential(size=len(true) // size + 1)
    arrived = np.maximum.accumulate(in_bursts(true, size) + late.repeat(size)[: len(true)])
    ticks = np.round((true + step * (true > 1009)) / tick, 9)
    return rounding(ticks) * tick, arrived


@pytest.mark.parametrize("rounding", [np.floor, np.round])
@pytest.mark.parametrize("off", [0.0, slow(2e-4), -4e-3])
@pytest.mark.parametrize(("sfreq", "tick"), TICKS)
def test_nothing_is_lost_where_nothing_was_dropped(sfreq, tick, off, rounding):
    clock, (times, _, late, breaks), lines = run(*device(sfreq, tick, rounding, off), sfreq)
    assert clock.lost == late.sum() == breaks.sum() == 0
    assert lines == []
    assert (np.diff(times) > 0).all()
    assert len(clock.held) < 0.1 * sfreq
    assert 1 / clock.stamps.period == pytest.approx(sfreq * (1 + off), rel=2e-3)
    true = 1000.0003 + np.arange(len(times)) / (sfreq * (1 + off))
    assert np.abs(times - true)[len(times) // 2 :].max() < 1.5 * tick  # samples, not ticks
    assert np.diff(times)[len(times) // 2 :].max() < tick


@pytest.mark.parametrize("rounding", [np.floor, np.round])
@pytest.mark.parametrize(("sfreq", "tick"), TICKS)
def test_a_gap_is_counted_to_a_tick(sfreq, tick, rounding):
    missing = int(0.4 * sfreq)
    stamps, arrived = device(sfreq, tick, rounding, missing=missing)
    clock, (_, _, late, breaks), lines = run(stamps, arrived, sfreq)
    assert abs(clock.lost - missing) <= tick * sfreq
    assert (late.sum(), breaks.sum(), lines) == (0, 1, [])


@pytest.mark.parametrize("seed", [0, slow(1), slow(2)])
@pytest.mark.parametrize("step", [-5.0, 0.5])
@pytest.mark.parametrize(("sfreq", "tick"), TICKS)
def test_a_clock_that_steps_loses_nothing(sfreq, tick, step, seed):
    stamps, arrived = device(sfreq, tick, np.round, step=step, seed=seed)
    clock, (_, _, late, breaks), lines = run(stamps, arrived, sfreq)
    assert clock.lost == late.sum() == 0
    assert breaks.sum() == len(lines) == 1
    assert "stepped by" in lines[0]


def test_resolution_of_stamps():
    moments = 1000 + np.arange(500) / 250
    for stamps, tick in (
        (moments, 0.0),  # one tick is one sample
        (np.floor(moments * 64) / 64, 1 / 64),
        (np.floor(moments * 10) / 10, 0.1),
        (in_bursts(moments, 10), 0.0),
        (moments + np.random.default_rng(0).normal(scale=1e-3, size=500), 0.0),
        (np.full(500, np.nan), 0.0),
    ):
        resolution = Resolution(1 / 250)
        for part in np.split(stamps, 10):
            resolution.update(part)
        assert resolution.coarse == pytest.approx(tick)
