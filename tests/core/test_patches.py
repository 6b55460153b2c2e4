"""Operators on prepared inputs equal the matrices they stand for."""

import numpy as np
import pytest
import torch

from deepesi.core.contracts import as_tensors
from deepesi.core.patches import (
    PatchDictionary,
    along_axes,
    energy_by_chance,
    neighbour_mean,
    spread_patches,
)
from deepesi.physics.graph import adjacency
from deepesi.physics.head_inputs import (
    MemberShares,
    MeshNeighbours,
    PatchMembers,
    PatchPairs,
    PatchShares,
    prepare,
)
from deepesi.physics.head_inputs.patches import patch_profiles


def test_neighbour_mean_equals_the_matrix(toy):
    head = toy.montage_head("biosemi16")
    neighbours = as_tensors(prepare([MeshNeighbours()], head))[MeshNeighbours().key]
    links = adjacency(head.space.edges, 84).toarray()
    values = np.random.default_rng(0).normal(size=(84, 3))
    found = neighbour_mean(torch.as_tensor(values), neighbours)
    assert np.allclose(found, links / links.sum(axis=1, keepdims=True) @ values)


def test_a_source_without_neighbours_hears_nothing():
    found = neighbour_mean(torch.ones(3, 2), torch.tensor([[1, 0, 3]]))
    assert found.tolist() == [[1, 1], [1, 1], [0, 0]]


def test_moments_along_the_axes_equal_the_product():
    moments, amplitudes = torch.randn(2, 5, 3, 3), torch.randn(2, 5, 3, 4, 6)
    expected = torch.einsum("ksop,ksptb->ksotb", moments, amplitudes)
    assert torch.allclose(along_axes(moments, amplitudes), expected, atol=1e-5)


def test_spread_patches_equals_the_profiles(toy):
    head = toy.montage_head("biosemi16")
    pairs, shares = PatchPairs(0.03, 0.06, 2), PatchShares(0.03, 0.06, 2)
    inputs = as_tensors(prepare([pairs, shares], head))
    moments = np.random.default_rng(0).normal(size=(2, 84, 5))
    found = spread_patches(torch.as_tensor(moments), inputs[pairs.key], inputs[shares.key].double())
    expected = sum(
        patch_profiles(head, r).T @ m for r, m in zip((0.03, 0.06), moments, strict=True)
    )
    assert np.allclose(found, expected, atol=1e-6)


def test_members_of_patches_are_their_pairs(toy):
    head = toy.montage_head("biosemi16")
    radii = (0.03, 0.06, 2)
    pairs, shares = PatchPairs(*radii).compute(head), PatchShares(*radii).compute(head)
    members, by_member = PatchMembers(*radii).compute(head), MemberShares(*radii).compute(head)
    expected, found = np.zeros((2, 84, 85)), np.zeros((2, 84, 85))
    expected[:, pairs[:, 1], pairs[:, 0]] = shares.T
    np.put_along_axis(found, np.broadcast_to(members, by_member.shape), by_member, axis=2)
    assert np.array_equal(found, expected)
    assert not by_member[:, members == 84].any()


def patches_at_work(n_active, n_orient):
    """Unit topographies of 42 patches, variances of a few of them, a recording."""
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 21 * n_orient, 9, generator=rng, dtype=torch.float64)
    rows = torch.nn.functional.normalize(rows, dim=2)
    gamma = torch.zeros(42, 3, dtype=torch.float64)
    for example in range(3):
        places = torch.randperm(42, generator=rng)[:n_active]
        gamma[places, example] = 5 * torch.rand(n_active, generator=rng, dtype=torch.float64)
    recording = torch.randn(9, 4, 3, generator=rng, dtype=torch.float64)
    return rows, gamma.unflatten(0, (2, 21)), recording


def exact_residual(rows, gamma, recording, n_orient):
    by_row = gamma.repeat_interleave(n_orient, 1)
    explained = torch.einsum("kdc,kdb,kde->bce", rows, by_row, rows)
    left = torch.linalg.solve(torch.eye(9) + explained, recording.permute(2, 0, 1))
    return left.permute(1, 2, 0)


@pytest.mark.parametrize("n_orient", [1, 3])
def test_residual_is_what_the_posterior_mean_leaves(n_orient):
    """Conjugate gradients end at ``(I + Q gamma Qᵀ)⁻¹ v``, which is ``v`` minus its explanation."""
    rows, gamma, recording = patches_at_work(6, n_orient)
    dictionary = PatchDictionary(rows, n_orient)
    residual = dictionary.residual(recording, gamma, n_strongest=6, n_steps=30)
    assert torch.allclose(residual, exact_residual(rows, gamma, recording, n_orient), atol=2e-4)
    explained = dictionary.explain(gamma[:, :, None, None] * dictionary.filter(residual))
    assert torch.allclose(recording - explained, residual, atol=2e-4)


def test_strongest_patches_stand_for_all():
    """Weaker ones are left out, their variance is not: the trace of what explains stays."""
    rows, gamma, recording = patches_at_work(12, 1)
    residual = PatchDictionary(rows, 1).residual(recording, gamma, n_strongest=8, n_steps=30)
    flat = gamma.flatten(0, 1)
    kept = (flat - flat.sort(0, descending=True)[0][8]).clamp_min(0)
    kept = (kept * flat.sum(0) / kept.sum(0)).unflatten(0, (2, 21))
    assert torch.allclose(residual, exact_residual(rows, kept, recording, 1), atol=2e-4)


def test_nothing_jumps_where_two_patches_change_their_order():
    rows, gamma, recording = patches_at_work(12, 1)
    flat = gamma.flatten(0, 1)
    order = flat.argsort(0, descending=True)
    tie = flat.gather(0, order)[7]
    found = []
    for shift in (-1e-9, 1e-9):
        moved = flat.scatter(0, order[8:9], (tie + shift)[None]).unflatten(0, (2, 21))
        found.append(PatchDictionary(rows, 1).residual(recording, moved, 8, 30))
    assert torch.allclose(*found, atol=1e-7)


def test_explaining_is_the_adjoint_of_filtering():
    rng = torch.Generator().manual_seed(0)
    dictionary = PatchDictionary(torch.randn(2, 21, 9, generator=rng), n_orient=3)
    data = torch.randn(9, 4, 5, generator=rng)
    amplitudes = torch.randn(2, 7, 3, 4, 5, generator=rng)
    there = (dictionary.filter(data) * amplitudes).sum()
    back = (data * dictionary.explain(amplitudes)).sum()
    assert torch.allclose(there, back, rtol=1e-4)


def test_patches_behind_a_filter_are_the_filtered_topographies():
    """A dictionary with a filter per example equals one built of its filtered, normalized rows."""
    rows, gamma, recording = patches_at_work(6, 1)
    rng = torch.Generator().manual_seed(3)
    filters = torch.eye(9) + 0.2 * torch.randn(3, 9, 9, generator=rng)
    filters = filters.double()
    seen = torch.einsum("bce,kde->kdbc", filters, rows)
    norms = seen.norm(dim=3)
    through = PatchDictionary(rows, 1, (filters, norms))
    for number in range(3):
        one = slice(number, number + 1)
        plain = PatchDictionary(seen[:, :, number] / norms[:, :, number, None], 1)
        data, own = recording[..., one], gamma[..., one]
        found = through.filter(recording)[..., one]
        assert torch.allclose(found, plain.filter(data))
        assert torch.allclose(through.energy(recording)[..., one], plain.energy(data))
        left = through.residual(recording, gamma, 6, 30)[..., one]
        assert torch.allclose(left, plain.residual(data, own, 6, 30))
        explained = through.explain(through.filter(recording))[..., one]
        assert torch.allclose(explained, plain.explain(plain.filter(data)))


@pytest.mark.parametrize("n_times", [1, 5])
def test_spreading_is_the_same_in_training_and_exported(toy, n_times):
    head = toy.montage_head("biosemi16")
    pairs, shares = PatchPairs(0.03, 0.06, 2), PatchShares(0.03, 0.06, 2)
    inputs = as_tensors(prepare([pairs, shares], head))
    arguments = inputs[pairs.key], inputs[shares.key]
    rng = torch.Generator().manual_seed(0)
    moments = torch.randn(2, 84, n_times, generator=rng, requires_grad=True)
    weight = torch.randn(84, n_times, generator=rng)
    trained = spread_patches(moments, *arguments)
    (trained * weight).sum().backward()
    with torch.no_grad():
        assert torch.allclose(spread_patches(moments, *arguments), trained, atol=1e-6)
        ones = torch.eye(2 * 84).unflatten(0, (2, 84))
        matrix = spread_patches(ones, *arguments)  # (S, K S)
        assert torch.allclose(moments.grad.flatten(0, 1), matrix.T @ weight, atol=1e-5)


def test_noise_reaches_about_what_chance_allows():
    """The largest of 400 chi-squared energies, for few and many degrees of freedom."""
    rng = np.random.default_rng(0)
    for freedom in (1, 20):
        largest = rng.chisquare(freedom, size=(2000, 400)).max(axis=1).mean()
        bound = energy_by_chance(torch.tensor(float(freedom))).item()
        assert 0.5 * bound < largest < bound
