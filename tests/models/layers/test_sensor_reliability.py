"""Weights of electrodes by the expected effect of head errors."""

import pytest
import torch

from deepesi.core.contracts import as_tensors
from deepesi.models.layers.sensor_reliability import (
    LEADFIELD_ERROR,
    POSITION_ERROR,
    SensorReliability,
)
from deepesi.physics.head_inputs import prepare


@pytest.fixture
def trust():
    return SensorReliability()


@pytest.fixture
def inputs(trust, toy):
    return as_tensors(prepare(trust.head_inputs, toy.montage_head("biosemi32")))


def test_silence_is_trusted(trust, inputs):
    assert torch.equal(trust(torch.zeros(32, 4, 2), inputs), torch.ones(32, 2))


def test_errors_of_a_uniform_potential_are_those_of_the_lead_field(trust, inputs):
    """Without any slope a displaced electrode measures the same."""
    found = trust(torch.full((32, 1, 1), 20.0), inputs)
    assert torch.allclose(found, torch.tensor((1 + (20 * LEADFIELD_ERROR) ** 2) ** -0.5))


def test_errors_of_a_slope_are_those_of_a_displacement(trust, inputs):
    """A potential that grows by 1 per millimetre is off by 5 where an electrode is off by 5 mm."""
    with torch.no_grad():
        trust.log_mismatch[1] = -torch.inf
    right = 1e3 * position(inputs)[:, :1]
    error = trust(right[..., None], inputs).pow(-2) - 1
    # Neighbours lie in all directions, and slopes are seen along the way to each: less than all.
    steepest = (1e3 * POSITION_ERROR) ** 2
    assert (error <= steepest * (1 + 1e-4)).all()
    assert 0.2 * steepest < error.mean() < 0.8 * steepest


def position(inputs):
    return next(value for value in inputs.values() if value.shape[1:] == (3,))


def test_neither_sign_nor_a_rotation_of_the_samples_matters(trust, inputs):
    rng = torch.Generator().manual_seed(0)
    white = 10 * torch.randn(32, 3, 2, generator=rng)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=rng))[0]
    turned = torch.einsum("ctb,st->csb", white, turn)
    assert torch.allclose(trust(white, inputs), trust(-turned, inputs), atol=1e-6)


def test_loud_electrodes_among_quiet_ones_are_trusted_least(trust, inputs):
    white = torch.zeros(32, 1, 1)
    white[5] = 100.0
    found = trust(white, inputs)[:, 0]
    assert found.argmin() == 5
    assert found[5] < 0.2
    far = (position(inputs) - position(inputs)[5]).norm(dim=1) > 0.1
    assert (found[far] == 1).all()


def test_both_uncertainties_are_learned(trust, inputs):
    trust(10 * torch.randn(32, 2, 2), inputs).sum().backward()
    assert (trust.log_mismatch.grad < 0).all()
