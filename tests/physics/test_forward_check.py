"""Forward check: what an estimate explains of a recording, in units of the noise."""

import numpy as np
import pytest

from deepesi.physics.forward_check import forward_check
from deepesi.physics.noise import whitener


@pytest.fixture(scope="module")
def head(toy):
    return toy.montage_head("biosemi32")


def check(head, moments, data):
    return forward_check(head.leadfield, whitener(head.noise_cov), moments, data)


def test_shares_of_right_scaled_and_no_estimates(head):
    moments = np.zeros(84)
    moments[5] = 20e-9
    data = head.leadfield @ moments
    right = check(head, moments, data)
    assert right.share == pytest.approx(1)
    assert np.abs(right.residual).max() < 1e-9
    half = check(head, 0.5 * moments, data)
    assert half.share == pytest.approx(0.75)
    assert half.scaled_share == pytest.approx(1)
    assert check(head, 0 * moments, data).share == 0
    assert check(head, -moments, data).share == pytest.approx(-3)


def test_residuals_of_noise_have_unit_variance_and_no_misfits(head):
    rng = np.random.default_rng(0)
    noise = head.sensors.reference(1e-6 * rng.standard_normal((32, 300)))
    checks = [check(head, np.zeros(84), sample) for sample in noise.T]
    residuals = np.array([c.residual for c in checks])
    np.testing.assert_allclose(residuals.std(axis=0), 1, atol=0.2)
    assert np.mean([bool(c.misfits) for c in checks]) < 0.05


def test_a_channel_that_does_not_fit_is_named(head):
    rng = np.random.default_rng(1)
    moments = np.zeros(84)
    moments[5] = 20e-9
    data = head.leadfield @ moments + 1e-6 * rng.standard_normal(32)
    data[[9, 20]] += [30e-6, -12e-6]
    assert check(head, moments, head.sensors.reference(data)).misfits == [9, 20]


def test_arrays_that_do_not_fit_together_are_refused(head):
    with pytest.raises(ValueError, match=r"lead field \(32, 84\).*expected \(32, 83\)"):
        check(head, np.zeros(83), np.zeros(32))
