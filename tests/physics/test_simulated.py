"""Simulated recordings of MNE-Python: signal, noise, positions, errors."""

import numpy as np
import pytest

from deepesi.physics.simulated import simulated_raw


@pytest.fixture(scope="module")
def head(toy):
    return toy.montage_head("biosemi32")


def test_signal_and_noise_are_those_of_the_head(head):
    moments = np.zeros((84, 4000))
    noise = simulated_raw(head, moments, 200.0, seed=1)
    cov = np.cov(noise.get_data())
    assert np.abs(cov - head.noise_cov).max() < 0.1 * head.noise_cov.max()
    moments[5] = 50e-9
    both = simulated_raw(head, moments, 200.0, seed=1)
    expected = 50e-9 * head.leadfield[:, [5]]
    np.testing.assert_allclose(
        both.get_data() - noise.get_data(), expected + 0 * moments[:32], atol=1e-12
    )
    assert both.info["sfreq"] == 200
    positions = np.array([channel["loc"][:3] for channel in both.info["chs"]])
    np.testing.assert_allclose(positions, head.sensors.positions, atol=1e-6)


def test_the_seed_decides_the_noise(head):
    first, same, other = (
        simulated_raw(head, np.zeros((84, 10)), 200.0, seed).get_data() for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        (np.zeros((83, 10)), r"shape \(83, 10\), expected \(84 dipoles"),
        (np.zeros(84), r"shape \(84,\)"),
        (np.full((84, 2), np.nan), "not finite"),
    ],
)
def test_moments_that_do_not_fit(head, moments, message):
    with pytest.raises(ValueError, match=message):
        simulated_raw(head, moments, 200.0)
