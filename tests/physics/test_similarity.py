import numpy as np
import pytest

from deepesi.physics.similarity import (
    cosine,
    ln_magnitude,
    rdm,
    residual_variance,
    scaled_residual_variance,
)

TRUE = np.random.default_rng(0).normal(size=(30, 8))


def test_residual_variance_of_a_scaled_and_an_orthogonal_potential():
    data, other = np.array([1.0, -1.0, 0.0]), np.array([1.0, 1.0, -2.0])
    assert residual_variance(0.5 * data, data) == pytest.approx(0.25)
    assert scaled_residual_variance(0.5 * data, data) == pytest.approx(0, abs=1e-12)
    assert scaled_residual_variance(other, data) == pytest.approx(1)
    assert scaled_residual_variance(0 * data, data) == 1


def test_moments_of_a_scaled_target():
    assert residual_variance(0.5 * TRUE, TRUE) == pytest.approx(0.25)
    assert residual_variance(0.9 * TRUE, TRUE) == pytest.approx(0.01)
    assert residual_variance(0 * TRUE, TRUE) == pytest.approx(1)
    assert scaled_residual_variance(-0.5 * TRUE, TRUE) == pytest.approx(0)
    assert scaled_residual_variance(0 * TRUE, TRUE) == pytest.approx(1)
    assert cosine(-3 * TRUE, TRUE) == pytest.approx(-1)


def test_scaled_error_is_the_least_of_any_scale():
    found = TRUE + np.random.default_rng(1).normal(size=TRUE.shape)
    scale, *_ = np.linalg.lstsq(found.reshape(-1, 1), TRUE.ravel())
    expected = residual_variance(scale * found, TRUE)
    assert scaled_residual_variance(found, TRUE) == pytest.approx(expected)


def test_measures_of_topographies():
    a, b = np.array([3.0, 0.0, 0.0]), np.array([0.0, 2.0, 0.0])
    assert rdm(a, b) == pytest.approx(np.sqrt(2))
    assert rdm(a, -2 * a) == pytest.approx(2)
    assert ln_magnitude(a, b) == pytest.approx(np.log(1.5))
    columns = np.stack([b, -2 * a], axis=1)
    assert rdm(np.stack([a, a], axis=1), columns) == pytest.approx([np.sqrt(2), 2])
    assert ln_magnitude(np.stack([a, a], axis=1), columns) == pytest.approx(np.log([1.5, 0.5]))
