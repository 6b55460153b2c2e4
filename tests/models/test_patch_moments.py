"""Moments of the sources from patches: exact for one sample, and what a window shares."""

import pytest
import torch

from deepesi.core.patches import spread_patches, spread_profiles
from deepesi.models.layers.oriented_patches import Component, Products
from deepesi.models.layers.patch_moments import PatchMoments, Spread, Weighted, relative_power
from deepesi.physics.head_inputs import PatchPairs, PatchShares, prepare

K, S, B = 2, 84, 3


def random(*shape):
    return torch.randn(*shape, generator=random.rng, dtype=torch.float64)


@pytest.fixture
def parts(toy):
    random.rng = torch.Generator().manual_seed(0)
    pairs, shares = PatchPairs(0.03, 0.06, K), PatchShares(0.03, 0.06, K)
    inputs = prepare([pairs, shares], toy.montage_head("biosemi16"))
    directions = torch.nn.functional.normalize(random(S, 3), dim=1)
    spread = Spread(
        torch.as_tensor(inputs[pairs.key]), torch.as_tensor(inputs[shares.key]), directions
    )
    # Around one source the moments of all radii point to the same side, as those of real patches.
    moments = PatchMoments(
        random(B, K, S).abs(), random(3, 3, 1, 1, S).expand(3, 3, B, K, S), spread
    )
    weighted = []
    for _ in range(2):
        axes = random(3, B, 1, S).expand(3, B, K, S)
        component = Component(random(2 * K, S, B).abs() / S, axes, random(2, B).abs())
        weighted.append(Weighted(component, torch.rand(B, 2 * K, S, generator=random.rng).double()))
    return moments, weighted, spread


def products(n_times):
    normal = random(n_times, B, 1, S).expand(n_times, B, K, S)
    return Products(normal, list(random(3, n_times, B, 1, S).expand(3, n_times, B, K, S)))


def patch_by_patch(moments, weighted, spread, found, square=False):
    """Every patch of every component spread by itself."""
    loose, power = torch.stack(found.loose), 2 if square else 1
    total = 0
    for component, probability in weighted:
        strength = component.gamma.sum((0, 1))[:, None, None]
        turned = torch.einsum("pobks,obks->pbks", moments.loose, component.axes)
        amplitude = torch.einsum("obks,otbks->tbks", component.axes, loose)
        kinds = (
            (moments.normal[None], found.normal, probability[:, :K], spread.directions),
            (turned, amplitude, probability[:, K:], torch.ones(S, 3)),
        )
        for number, (moment, product, chance, directions) in enumerate(kinds):
            mean = strength * product
            if square:
                noise = component.variance[number][:, None, None] * strength / (1 + strength)
                mean = mean.square() + noise
            values = moment[:, None] ** power * chance * mean
            values = values.permute(3, 4, 0, 1, 2)
            sources = spread_patches(values, spread.pairs, spread.shares**power)
            total = total + directions[..., None, None] ** power * sources
    return total


def test_mean_of_one_sample_is_every_patch_spread_by_itself(parts):
    """The radii around a centre have one sign here within a component, as those of real patches."""
    moments, weighted, spread = parts
    found = products(1)
    expected = patch_by_patch(moments, weighted[:1], spread, found)
    assert torch.allclose(moments.mean(found, weighted[:1]), expected)


def test_the_total_moment_of_every_sample_is_that_of_the_patches(parts):
    """Several components and time courses: only the profile is shared over the window."""
    moments, weighted, spread = parts
    spread = spread._replace(directions=torch.zeros(S, 3).double())  # patches of any orientation
    moments.spread, found = spread, products(5)
    expected = patch_by_patch(moments, weighted, spread, found)
    assert torch.allclose(moments.mean(found, weighted).sum(0), expected.sum(0))


def test_power_of_one_sample_is_every_patch_spread_by_itself(parts):
    moments, weighted, spread = parts
    found = products(1)
    of_means, variance = moments.power(found, weighted)
    expected = patch_by_patch(moments, weighted, spread, found, square=True)
    assert torch.allclose(of_means + variance, expected)


def test_power_of_a_window_is_its_mean(parts):
    moments, weighted, spread = parts
    found = products(5)
    of_means, variance = moments.power(found, weighted)
    expected = patch_by_patch(moments, weighted, spread, found, square=True)
    assert torch.allclose(of_means + variance, expected.mean(2, keepdim=True))


def test_a_window_of_one_time_course_is_every_patch_spread_by_itself(parts):
    moments, weighted, spread = parts
    course = random(6, 1, 1, 1)
    one = products(1)
    found = Products(course * one.normal, [course * row for row in one.loose])
    mean = moments.mean(found, weighted[:1])
    assert torch.allclose(mean, patch_by_patch(moments, weighted[:1], spread, found))


def test_relative_power_has_mean_1_and_is_1_for_one_sample():
    random.rng = torch.Generator().manual_seed(0)
    level = relative_power(random(S, 3, 7, B))
    assert torch.allclose(level.mean(2), torch.ones(()).double())
    assert torch.allclose(relative_power(random(S, 3, 1, B)), torch.ones(()).double())


def test_profiles_are_spread_as_their_patches(parts):
    spread = parts[2]
    total, profiles = random(S, B, 4, 2), random(K, S, B)
    found = spread_profiles(total, profiles, spread.pairs, spread.shares)
    expected = spread_patches(profiles[..., None, None] * total, spread.pairs, spread.shares)
    assert found.shape == (S, B, 4, 2)
    assert torch.allclose(found, expected)
