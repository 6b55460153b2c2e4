"""Discrepancy and adversary against closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import energy_distance

from deepesi.core.contracts import Estimate
from deepesi.losses.alignment import (
    N_MOMENTS,
    DomainAdversary,
    MaximumMeanDiscrepancy,
    SkullAlignment,
    map_moments,
    reverse_gradient,
)


def normal(n, shift=0.0, seed=0, n_features=1):
    rng = torch.Generator().manual_seed(seed)
    return shift + torch.randn(n, n_features, generator=rng)


@pytest.mark.parametrize(("linear", "tolerance"), [(False, 0.02), (True, 0.05)])
def test_two_normals_and_a_gaussian_kernel(linear, tolerance):
    """``2 a (1 - exp(-m² a² / 2 h²))`` with ``a² = h² / (h² + 2)`` for means ``m`` apart."""
    width, shift, n = 1.5, 1.0, 1600 if not linear else 40_000
    term = MaximumMeanDiscrepancy(bandwidths=[width], unit=1.0, linear=linear)
    value = term(normal(n), normal(n, shift, seed=1))
    a = (width**2 / (width**2 + 2)) ** 0.5
    expected = 2 * a * (1 - math.exp(-(shift**2) / (2 * (width**2 + 2))))
    assert value.item() == pytest.approx(expected, rel=tolerance + 0.05)
    assert abs(term(normal(n), normal(n, seed=2)).item()) < 0.01


def test_the_energy_kernel_gives_scipys_energy_distance():
    first, second = normal(300), 1.0 + 2 * normal(200, seed=1)
    value = MaximumMeanDiscrepancy(["energy"], [1.0], unit=1.0)(first, second).item()
    # Without the pairs of an example with itself, whose distance is zero.
    within = [np.abs(x - x.T).sum() for x in (first.numpy(), second.numpy())]
    unbiased = -within[0] / (300 * 299) - within[1] / (200 * 199)
    biased = -within[0] / 300**2 - within[1] / 200**2
    scipys = energy_distance(first[:, 0].numpy(), second[:, 0].numpy()) ** 2
    assert value == pytest.approx(scipys + unbiased - biased, rel=1e-4)


def test_the_unit_makes_it_free_of_scale():
    term, first, second = MaximumMeanDiscrepancy(), normal(40), normal(40, 1.0, seed=1)
    assert term(first, second) == pytest.approx(term(1e3 * first, 1e3 * second).item(), rel=1e-4)


def test_linear_time_needs_pairs():
    term = MaximumMeanDiscrepancy(linear=True)
    with pytest.raises(ValueError, match=r"same even number of rows, got 5 and 4"):
        term(normal(5), normal(4))


def test_bad_kernels_widths_and_samples():
    with pytest.raises(ValueError, match=r"kernels must be of \['energy', 'gaussian', 'laplace'\]"):
        MaximumMeanDiscrepancy(["cubic"])
    with pytest.raises(ValueError, match=r"bandwidths and unit must be above 0"):
        MaximumMeanDiscrepancy(bandwidths=[0.0])
    with pytest.raises(ValueError, match=r"samples of 4 and 1 rows; without bias it needs two"):
        MaximumMeanDiscrepancy()(normal(4), normal(1))


def test_a_reversed_gradient():
    values = torch.randn(5, requires_grad=True)
    reversed_values = reverse_gradient(values, 0.3)
    assert torch.equal(reversed_values, values)
    (reversed_values * torch.arange(5.0)).sum().backward()
    torch.testing.assert_close(values.grad, -0.3 * torch.arange(5.0))


def test_an_adversary_learns_and_the_features_go_the_other_way():
    torch.manual_seed(0)
    adversary = DomainAdversary(2)
    first, second = normal(64, 2.0, n_features=2), normal(64, -2.0, 1, n_features=2)
    optimizer = torch.optim.Adam(adversary.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        adversary(first, second).backward()
        optimizer.step()
    assert adversary(first, second) < 0.1
    assert adversary(first, first) > math.log(2) - 1e-3  # nothing can tell these apart
    features = first.clone().requires_grad_()
    adversary(features, second).backward()
    moved = features.detach() - 10.0 * 64 * features.grad  # a step of gradient descent
    assert adversary(moved, second) > adversary(first, second)


def test_an_adversary_without_strength_only_watches():
    features = normal(8).requires_grad_()
    adversary = DomainAdversary(1, strength=0.0)
    adversary(features, normal(8, seed=1)).backward()
    assert not features.grad.any()
    assert adversary.classifier[0].weight.grad.any()
    with pytest.raises(ValueError, match=r"strength 0 or more, got 1, 32 and -1.0"):
        DomainAdversary(1, strength=-1.0)


def test_moments_of_a_point_and_of_two(simulate):
    batch = simulate([SkullAlignment(MaximumMeanDiscrepancy()).positions], n_times=1).batch(0)
    positions = torch.as_tensor(batch.head.source_pos).float()
    values = torch.zeros_like(batch.sources)
    values[0, 5] = 1.0
    values[1:, [5, 60]] = 1.0
    batch = replace(batch, sources=values)
    moments = map_moments(Estimate(-2 * values), batch, positions)
    assert moments.shape == (8, N_MOMENTS)
    torch.testing.assert_close(moments[0, :3], positions[5] / 0.1, atol=2e-3, rtol=0)
    assert moments[0, 3:9].abs().max() < 2e-3
    torch.testing.assert_close(moments[1, :3], positions[[5, 60]].mean(0) / 0.1, atol=2e-3, rtol=0)
    torch.testing.assert_close(moments[:2, 9].exp(), torch.tensor([1.0, 2.0]), rtol=1e-2, atol=0)


def test_a_skull_that_moves_the_estimate_is_detected(simulate):
    """Estimates that lie to the left for low conductivities, and anywhere."""
    term = SkullAlignment(MaximumMeanDiscrepancy())
    batch = simulate(term.head_inputs, batch_size=64, n_times=1).batch(0)
    assert abs(term(Estimate(batch.sources), batch)[0]) < 0.1
    low = batch.scene.tissues[:, 0] <= batch.scene.tissues[:, 0].median()
    left = torch.as_tensor(batch.head.source_pos[:, 0] < 0)
    values = torch.where((low[:, None] == left)[..., None], 1.0, 0.0)
    assert term(Estimate(values), batch)[0] > 0.5


def test_alignment_needs_known_skulls(simulate):
    term = SkullAlignment(MaximumMeanDiscrepancy())
    batch = simulate(term.head_inputs, batch_size=8).batch(0)
    unknown = replace(batch.scene, tissues=torch.full_like(batch.scene.tissues, torch.nan))
    with pytest.raises(ValueError, match=r"4 examples or more with known skull conductivities"):
        term(Estimate(batch.sources), replace(batch, scene=unknown))
