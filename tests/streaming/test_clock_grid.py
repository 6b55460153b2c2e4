"""Simulated devices: bursts, jitter, steps of the clock, drift and gaps, over a grid of all.

A gap shorter than the scatter of the stamps looks like jitter. If arrivals scatter, a step of an
exact clock by whole samples looks like a gap. The grid holds the cases that can be distinguished.
"""

import numpy as np
import pytest

from deepesi.streaming.clock import FittedClock
from tests.conftest import slow

#: When the clock steps and when samples are dropped, s after the start; a grid that the bursts
#: do not fall on.
STEPS_AT, DROPPED_AT, SECONDS = 7.013, 11.003, 16.0


def device(sfreq, burst, jitter, ppm=0.0, step=0.0, missing=0, own_clock=False, seed=0):
    """Stamps and arrivals of a device (s).

    It sends bursts (s) that come late at random (mean `jitter`, s), and stamps them as it sends
    them, or by its own clock; its clock drifts and steps, and samples are dropped before sending.
    """
    rng = np.random.default_rng(seed)
    true = 1000 + np.arange(int(SECONDS * sfreq)) / sfreq * (1 + 1e-6 * ppm)
    true = np.delete(true, int(DROPPED_AT * sfreq) + np.arange(missing))
    size = max(1, round(burst * sfreq))
    number = np.arange(len(true)) // size
    ends = np.minimum((number + 1) * size, len(true)) - 1
    sent = np.maximum.accumulate(true[ends] + jitter * rng.exponential(size=len(true))[number])
    way = 2e-4 + max(jitter / 3, 5e-5) * rng.exponential(size=len(true))[number]
    stamps = true if own_clock else sent
    stamps = stamps + step * (stamps >= 1000 + STEPS_AT)
    return stamps, np.maximum.accumulate(sent + way)


def received(stamps, arrived, sfreq):
    """The clock, its decisions, and the lines that it reported; bursts come one after the other."""
    lines = []
    clock = FittedClock(sfreq, lines.append)
    bounds = np.flatnonzero(np.diff(arrived)) + 1
    parts = [
        clock.push(*burst)
        for burst in zip(np.split(stamps, bounds), np.split(arrived, bounds), strict=True)
    ]
    return clock, [np.concatenate(column) for column in zip(*parts, strict=True)], lines


def assert_right(clock, decided, lines, stamps, missing, tolerance, step):
    times, _, late, breaks = decided
    assert abs(clock.lost - missing) <= tolerance
    assert not late.any()
    assert len(times) == len(stamps) - len(clock.held)
    assert len(clock.held) <= 1.5 * clock.sfreq
    assert (np.diff(times) > 0).all()
    assert sum("stepped" in line for line in lines) == len(lines) <= (step != 0)
    assert breaks.sum() <= (step != 0) + (missing != 0)


RATES = [100.0, 250.0, 500.0, 2048.0]
BURSTS = [0.001, 0.02, 0.05, 0.2, 0.5]
#: Slow are high rates, and every second point of the others.
GRID = [
    slow(rate, burst) if rate > 250 or (i + j) % 2 else (rate, burst)
    for i, rate in enumerate(RATES)
    for j, burst in enumerate(BURSTS)
]


@pytest.mark.parametrize("own_clock", [slow(False), True])  # without: in the next test
@pytest.mark.parametrize(("sfreq", "burst"), GRID)
def test_nothing_is_lost_where_nothing_was_dropped(sfreq, burst, own_clock):
    """With jitter, drift, and steps forward and back; a step is reported, once."""
    steps = [0.0, -0.01, -0.1, 0.1, -1.0, 1.0, -10.0, 10.0]
    for i, step in enumerate(steps if sfreq < 2048 else steps[::3]):
        ppm, jitter = (-200.0, 0.0, 200.0)[i % 3], (0.003, 0.001)[i % 2]
        stamps, arrived = device(sfreq, burst, jitter, ppm, step, 0, own_clock, seed=i)
        clock, decided, lines = received(stamps, arrived, sfreq)
        assert_right(clock, decided, lines, stamps, 0, 0, step)
        assert len(lines) == (step != 0) or abs(step) < 0.1


@pytest.mark.parametrize("own_clock", [False, True])
@pytest.mark.parametrize(("sfreq", "burst"), GRID)
def test_dropped_samples_are_lost_ones(sfreq, burst, own_clock):
    """To the sample without jitter or by the device's own clock; else to the jitter of a burst."""
    cases = [(1, 0.0, 0.0), (10, 0.0, -1.0), (100, 0.003, 10.0), (int(sfreq), 0.003, -0.1)]
    for i, (missing, jitter, step) in enumerate(cases if sfreq < 2048 else cases[::2]):
        ppm = (0.0, 200.0, -200.0)[i % 3]
        stamps, arrived = device(sfreq, burst, jitter, ppm, step, missing, own_clock, seed=i)
        clock, decided, lines = received(stamps, arrived, sfreq)
        few = 2 if burst > 0.1 else 1  # four bursts tell less than the ten windows of a second
        tolerance = 0 if own_clock or not jitter else 1 + few * jitter * sfreq
        assert_right(clock, decided, lines, stamps, missing, tolerance, step)
        assert len(lines) == (step != 0)
