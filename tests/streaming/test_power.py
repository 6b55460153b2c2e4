"""Power of the parcels of a stream in its band."""

import csv

import numpy as np
import pytest

from deepesi.runtime.band import CYCLES
from deepesi.streaming.live import LiveInverse
from deepesi.streaming.power import LivePower
from tests.conftest import make_evoked

SFREQ = 250.0


@pytest.fixture(scope="module")
def head(template):
    return template.montage_head("biosemi32").pick(make_evoked().ch_names)


def stream(head, parcels, seed=0):
    """One source at 10 Hz, another at 30 Hz with twice its moment, and noise; 12 s."""
    rng = np.random.default_rng(seed)
    time = np.arange(3000) / SFREQ
    number = rng.permutation(np.flatnonzero(parcels.of_source >= 0))[:2]
    sources = np.zeros((head.space.n_dipoles, 3000))
    sources[number[0]] = 1e-7 * np.sin(2 * np.pi * 10 * time)
    sources[number[1]] = 2e-7 * np.sin(2 * np.pi * 30 * time)
    data = head.project(sources) + rng.normal(scale=2e-6, size=(32, 3000))
    return number, data, time


def power_of(prepared, parcels, band, data, time, chunk=50):
    live, power = LiveInverse(prepared, parcels, SFREQ, band), LivePower(parcels, band, SFREQ)
    for start in range(0, len(time), chunk):
        part = slice(start, start + chunk)
        power.push(*live.push(data[:, part], time[part]))
    return power


def test_the_power_peaks_where_the_rhythm_of_the_band_is(prepared, parcels, head):
    """In the broad band the louder source wins."""
    positions = head.source_pos
    for seed in range(3):
        number, data, time = stream(head, parcels, seed)
        distances = {}
        for band in ((8.0, 13.0), (1.0, 40.0)):
            power = power_of(prepared, parcels, band, data, time)
            strongest = parcels.of_source == power.moments.mean.argmax()
            distances[band] = [
                np.linalg.norm(positions[strongest] - positions[n], axis=1).min() for n in number
            ]
        assert distances[8.0, 13.0][0] < 0.03
        assert distances[8.0, 13.0][0] < distances[8.0, 13.0][1]
        assert distances[1.0, 40.0][1] < distances[1.0, 40.0][0]


def test_it_is_the_power_of_the_whole_filtered_recording(prepared, parcels, head):
    """Filters keep their state between chunks, so chunks of any length leave no trace."""
    _, data, time = stream(head, parcels)
    band = (8.0, 13.0)
    whole = power_of(prepared, parcels, band, data, time, chunk=len(time)).moments
    parts = power_of(prepared, parcels, band, data, time, chunk=7).moments
    assert parts.n == whole.n > 10
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-4)
    np.testing.assert_allclose(parts.std, whole.std, rtol=1e-4, atol=1e-4 * whole.std.max())


def test_mean_and_deviation_of_stretches_without_gaps(parcels, tmp_path):
    power, n = LivePower(parcels, (10.0, 20.0), SFREQ), len(parcels.names)
    assert power.length == round(CYCLES / 10 * SFREQ)
    assert "no stretch of 125 samples" in str(power)
    time = np.arange(450) / SFREQ
    time[200:] += 0.5  # 75 samples before the gap are left out
    moments = np.ones((n, 450))
    moments[3, 325:] = 3.0
    power.push(time, moments)
    assert power.moments.n == 3
    assert power.moments.mean[3] == pytest.approx((1 + 1 + 9) / 3)
    assert power.moments.std[3] == pytest.approx(np.std([1, 1, 9], ddof=1))
    assert f"{parcels.names[3]}, RMS" in str(power)
    assert "126 % over 3 stretches" in str(power)
    power.write(tmp_path / "p.csv")
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == n
    assert float(rows[3]["mean"]) == pytest.approx(11 / 3)
