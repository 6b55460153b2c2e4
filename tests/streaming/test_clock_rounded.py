"""Stamps rounded to 1 ms by a device whose clock is a little off its nominal rate.

Rounding then shifts a stamp by 1 ms now and then. That is neither a gap nor a step of the clock.
"""

import numpy as np
import pytest

from deepesi.streaming.resolution import Resolution
from tests.conftest import slow
from tests.streaming.test_clock import in_bursts, run

TICK = 1e-3


def device(sfreq, off, size, rounding, on_arrival, missing=0):
    """Stamps of 20 s and arrivals (s), in bursts that come late by about 1 ms; dropped at 12 s."""
    true = 1000.0003 + np.arange(int(20 * sfreq)) / (sfreq * (1 + off))
    true = np.delete(true, int(12 * sfreq) + np.arange(missing))
    late = 1e-3 * np.random.default_rng(0).exponential(size=len(true) // size + 1)
    arrived = np.maximum.accumulate(in_bursts(true, size) + late.repeat(size)[: len(true)])
    stamps = arrived if on_arrival else true
    return rounding(np.round(stamps / TICK, 9)) * TICK, arrived


@pytest.mark.parametrize("rounding", [np.round, slow(np.floor)])
@pytest.mark.parametrize("size", [10, slow(1), slow(4), slow(32)])
@pytest.mark.parametrize("off", [2e-4, -2e-4, slow(2e-5), slow(-5e-5), slow(1e-3), slow(-4e-3)])
@pytest.mark.parametrize("sfreq", [250.0, *map(slow, (125.0, 256.0, 500.0, 1000.0, 2048.0))])
def test_rounding_of_another_rate_loses_nothing(sfreq, off, size, rounding):
    for on_arrival in (False, True):
        stamps, arrived = device(sfreq, off, size, rounding, on_arrival)
        clock, (times, _, late, _), lines = run(stamps, arrived, sfreq)
        # Ticks of one sample look like gaps, until three at equal intervals show the rate.
        assert clock.lost == 0 or (sfreq == 1000 and clock.lost < 3 and 20 * abs(off) < 3.5 * TICK)
        assert late.sum() == 0
        assert lines == []
        assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("off", [2e-5, -5e-5])
def test_single_late_marks_prove_no_gap(off):
    """The least late marks are in step to the tick; eight late ones in a row come by chance."""
    stamps, arrived = device(1000.0, off, 1, np.floor, on_arrival=True)
    clock, (_, _, late, _), lines = run(stamps[:4000], arrived[:4000], 1000.0)
    assert (clock.lost, late.sum(), lines) == (0, 0, [])
    assert clock.stamps.exact
    assert not clock.stamps.every_mark_exact


@pytest.mark.parametrize("off", [0.0, 2e-4, slow(-2e-4)])
@pytest.mark.parametrize("sfreq", [250.0, slow(500.0), slow(1000.0)])
def test_a_gap_in_rounded_stamps_is_counted(sfreq, off):
    missing = int(0.1 * sfreq)
    stamps, arrived = device(sfreq, off, 10, np.round, on_arrival=False, missing=missing)
    clock, (_, _, late, _), lines = run(stamps, arrived, sfreq)
    assert abs(clock.lost - missing) <= max(1, sfreq * TICK)
    assert (late.sum(), lines) == (0, [])


def test_the_tick_is_found_from_the_steps():
    moments = 54321.0003 + np.arange(5000) / 250.05
    stamps = np.round(moments * 1000) / 1000
    measured_again = stamps + np.arange(5000) // 1250 * 7e-6  # as LSL moves them
    for series in (stamps, measured_again):
        resolution = Resolution(1 / 250)
        for part in np.split(series, 50):
            resolution.update(part)
        assert resolution.rounding == pytest.approx(TICK)
        assert resolution.coarse == 0
    scattering = Resolution(1 / 250)
    scattering.update(moments + np.random.default_rng(0).normal(scale=1e-4, size=5000))
    assert scattering.rounding == 0
