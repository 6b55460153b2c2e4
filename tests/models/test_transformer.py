"""Transformer: what it finds before training, its spatial filters, its symmetries, its borders."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.core.contracts import as_tensors
from deepesi.models.layers.features import Morlet
from deepesi.models.layers.space_time import SpaceTimeBlock, Tokens, rotated
from deepesi.models.transformer import SourceTransformer
from deepesi.physics.head_inputs import SensorEncodings, prepare
from tests.models.free import free

POINTS = {"smallest": 1e-3, "largest": 1e-3, "n_radii": 1}
WIDE = {"smallest": 0.03, "largest": 0.06, "stretch": 4}  # patches of several sources


def trained(seed=0, **settings):
    """Weights as training might leave them: nothing is neutral any more."""
    torch.manual_seed(seed)
    model = SourceTransformer(**settings)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def apply(model, data, head, **options):
    inputs = as_tensors(prepare(model.head_inputs, head))
    with torch.no_grad():
        return model(torch.as_tensor(data, dtype=torch.float32), inputs, **options)


def recording(head, time_courses, noise=0.0, seed=0):
    """Data ``(1, C, T)`` of dipoles ``{number: time course (A m)}``, and noise."""
    n_times = len(next(iter(time_courses.values())))
    sources = np.zeros((head.space.n_dipoles, n_times))
    for number, time_course in time_courses.items():
        sources[number] = time_course
    white = np.random.default_rng(seed).normal(size=(head.n_channels, n_times))
    data = head.project(sources) + noise * head.noise_level * (white - white.mean(axis=0))
    return data[None]


@pytest.mark.parametrize("n_times", [1, 50, 500])
def test_untrained_it_finds_a_single_source_with_its_moment(head, n_times):
    model = SourceTransformer(n_components=1, n_rounds=1, **POINTS)
    time_course = -2e-7 * np.cos(np.arange(n_times) / 5)
    for number in range(0, 84, 21):
        mean = apply(model, recording(head, {number: time_course}), head).mean[0]
        assert mean.square().sum(1).argmax() == number
        assert mean[number, 0].item() == pytest.approx(-2e-7, rel=0.3)


def test_correlated_sources_are_separated(head):
    """A beamformer with the inverse covariance suppresses both."""
    time_course = 3e-7 * np.sin(np.arange(100) / 4)
    model = SourceTransformer(n_components=2, n_rounds=3, **POINTS)
    mean = apply(
        model, recording(head, {5: time_course, 60: 0.8 * time_course}, noise=0.1), head
    ).mean[0]
    assert set(mean.square().sum(1).topk(2).indices.tolist()) == {5, 60}


@pytest.mark.parametrize("n_times", [6, 40])
def test_the_filters_give_the_estimate(head, n_times):
    """They are another way of computing for windows shorter than the number of sensors."""
    model = trained(heteroscedastic=True, **WIDE)
    data = recording(head, {5: np.full(n_times, 1e-7)}, noise=1.0)
    plain = apply(model, data, head)
    estimate, attention = apply(model, data, head, return_attention=True)
    scale = plain.mean.abs().max().item()
    torch.testing.assert_close(plain.mean, estimate.mean, rtol=1e-3, atol=1e-4 * scale)
    product = attention.filters @ attention.signals
    torch.testing.assert_close(product, estimate.mean, rtol=1e-3, atol=1e-4 * scale)
    assert attention.filters.shape == (1, 84, 16)
    assert attention.sensors.shape == (1, 84, 16)
    torch.testing.assert_close(attention.sensors.sum(2), torch.ones(1, 84))


def test_sign_flip_flips_the_estimate(head):
    model = trained(heteroscedastic=True, **WIDE)
    data = recording(head, {5: np.full(9, 1e-7)}, noise=1.0)
    first, second = apply(model, data, head), apply(model, -data, head)
    torch.testing.assert_close(first.mean, -second.mean)
    torch.testing.assert_close(first.std, second.std)


def test_free_orientation_is_blind_to_the_frame(head):
    """Turning the axes of every source turns the moments with them."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    model, straight, turned = trained(**WIDE), free(head), free(head, turn)
    data = recording(straight, {15: np.full(5, 1e-7)}, noise=1.0)
    first = apply(model, data, straight).mean.unflatten(1, (-1, 3))
    second = apply(model, data, turned).mean.unflatten(1, (-1, 3))
    back = torch.as_tensor(turn, dtype=torch.float32) @ second
    assert torch.allclose(first, back, atol=1e-3 * first.abs().max().item())


def test_a_block_is_odd_in_signals_and_even_in_states():
    torch.manual_seed(0)
    block = SpaceTimeBlock(8, 2)
    for parameter in block.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    tokens, overlap = Tokens(torch.randn(2, 5, 3, 8), torch.randn(2, 5, 3, 8)), torch.eye(5)
    first, second = block(tokens, overlap), block(Tokens(-tokens.signal, tokens.state), overlap)
    torch.testing.assert_close(first.signal, -second.signal)
    torch.testing.assert_close(first.state, second.state)
    assert (first.signal - tokens.signal).abs().max() > 0.1


def test_untrained_a_block_adds_nothing():
    tokens = Tokens(torch.randn(2, 5, 3, 8), torch.randn(2, 5, 3, 8))
    after = SpaceTimeBlock(8, 2)(tokens, torch.eye(5))
    torch.testing.assert_close(after.signal, tokens.signal)


def test_rotary_products_depend_on_the_distance():
    query, key = torch.randn(8), torch.randn(8)
    scores = rotated(query.expand(6, 8)) @ rotated(key.expand(6, 8)).T
    for distance in range(-5, 6):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert scores[0].std() > 0.01


def test_encodings_of_sensors(head):
    encoded = SensorEncodings().compute(head)
    np.testing.assert_allclose(encoded[:, :3], head.sensors.positions / 0.1)
    assert not encoded[:, 3:6].any()
    np.testing.assert_array_equal(encoded[:, 6:], np.tile([1.0, 0.0, 0.0], (16, 1)))


def test_cost_is_linear_in_the_sources(head):
    """No tensor of the graph has two axes of sources: twice the sources, twice the operations."""
    from torch.utils.flop_counter import FlopCounterMode

    def operations(one):
        model = SourceTransformer(n_components=1, n_rounds=1, **POINTS)
        with FlopCounterMode(display=False) as counter:
            apply(model, recording(one, {5: np.full(40, 1e-7)}), one)
        return counter.get_total_flops()

    twice = replace(
        head,
        leadfield=np.hstack([head.leadfield, head.leadfield]),
        source_pos=np.vstack([head.source_pos, head.source_pos]),
        source_normals=np.vstack([head.source_normals, head.source_normals]),
        space=replace(
            head.space,
            vertices=tuple(np.r_[v, v + 1000] for v in head.space.vertices),
            edges=np.vstack([head.space.edges, head.space.edges + 84]),
        ),
    )
    assert operations(twice) < 2.05 * operations(head)


def test_features_share_the_covariance(head):
    """Weights that prefer a band find the source of that band under a louder one of another."""
    model = SourceTransformer(n_components=1, n_rounds=1, **POINTS, features=Morlet([10.0]))
    time = np.arange(250) / 250
    time_courses = {
        5: 1e-7 * np.sin(2 * np.pi * 10 * time),
        60: 3e-7 * np.sin(2 * np.pi * 40 * time),
    }
    data = recording(head, time_courses, noise=0.1)
    with torch.no_grad():
        model.trunk.mix.bias[:] = torch.tensor([-20.0, 20.0])
    assert apply(model, data, head).mean[0].square().sum(1).argmax() == 5
    with torch.no_grad():
        model.trunk.mix.bias[:] = torch.tensor([20.0, -20.0])
    assert apply(model, data, head).mean[0].square().sum(1).argmax() == 60


def test_impossible_sizes():
    with pytest.raises(ValueError, match=r"SourceTransformer: all sizes must be 1 or more"):
        SourceTransformer(n_blocks=0)
    with pytest.raises(
        ValueError, match=r"hidden must be a multiple of twice n_heads, got hidden=10"
    ):
        SourceTransformer(hidden=10, n_heads=4)
