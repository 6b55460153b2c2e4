"""Each quantity in torch equals the one in NumPy, and its gradient is finite."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.core import quantities
from deepesi.physics import noise, similarity
from deepesi.physics.head import magnitudes


@pytest.mark.parametrize("n_orient", [1, 3])
def test_magnitude_is_that_of_a_head(toy, n_orient):
    head = toy.montage_head("biosemi16")
    head = replace(
        head,
        leadfield=np.repeat(head.leadfield, n_orient, axis=1),
        space=replace(head.space, n_orient=n_orient),
    )
    values = np.random.default_rng(0).normal(size=(2, head.space.n_dipoles, 5))
    found = quantities.magnitude(torch.as_tensor(values), n_orient).numpy()
    assert np.allclose(found, [head.magnitude(v) for v in values], rtol=1e-14)
    one = quantities.magnitude(torch.as_tensor(values[..., :1]), n_orient).numpy()
    assert np.allclose(one, [magnitudes(v[:, 0], n_orient) for v in values], rtol=1e-14)


def test_magnitude_of_a_silent_source_has_a_gradient():
    values = torch.zeros(1, 6, 4, requires_grad=True)
    quantities.magnitude(values, 3).sum().backward()
    assert torch.equal(values.grad, torch.zeros_like(values))


def test_whitened_power():
    whitened = np.random.default_rng(0).normal(size=(2, 8, 5))
    rank = torch.tensor([7.0], dtype=torch.float64)
    found = quantities.whitened_power(torch.as_tensor(whitened), rank).numpy()
    assert np.allclose(found, noise.whitened_power(whitened, 7).mean(axis=1), rtol=1e-14)
    assert np.allclose(quantities.summed_power(torch.as_tensor(whitened)), 7 * found, rtol=1e-14)


def test_snr_of_power():
    power = np.array([[0.2, 1.0, 1.0005], [2.0, 11.0, 101.0]])
    expected = [[-30, -30, -30], [0, 10, 20]]
    assert np.allclose(noise.snr_db_of_power(power), expected, atol=1e-12)
    found = quantities.snr_db_of_power(torch.as_tensor(power)).numpy()
    assert np.allclose(found, expected, atol=1e-12)


def test_residual_variance():
    estimate, target = np.random.default_rng(0).normal(size=(2, 3, 8, 5))
    found = quantities.residual_variance(*map(torch.as_tensor, (estimate, target))).numpy()
    expected = [similarity.residual_variance(*pair) for pair in zip(estimate, target, strict=True)]
    assert np.allclose(found, expected, rtol=1e-14)


def test_scaled_signals_are_so_many_db_over_the_reference():
    power, decibel = torch.tensor([2.0, 8.0, 5.0]), torch.tensor([-10.0, 0.0, 20.0])
    scaled = quantities.scale_to_db(power, 4.0, decibel).square() * power
    assert torch.allclose(scaled, torch.tensor([0.4, 4.0, 400.0]))
