"""Operators on prepared inputs equal the matrices they stand for."""

import numpy as np
import torch

from deepesi.contracts import as_tensors
from deepesi.operators import PatchDictionary, energy_by_chance, neighbour_mean, spread_patches
from deepesi.physics.graph import adjacency
from deepesi.physics.head_inputs import MeshEdges, PatchPairs, PatchShares, prepare
from deepesi.physics.head_inputs.patches import patch_profiles


def test_neighbour_mean_equals_the_matrix(toy):
    head = toy.montage_head("biosemi16")
    edges = as_tensors(prepare([MeshEdges()], head))[MeshEdges().key]
    links = adjacency(head.space.edges, 84).toarray()
    values = np.random.default_rng(0).normal(size=(84, 3))
    found = neighbour_mean(torch.as_tensor(values), edges)
    assert np.allclose(found, links / links.sum(axis=1, keepdims=True) @ values)


def test_a_source_without_neighbours_hears_nothing():
    found = neighbour_mean(torch.ones(3, 2), torch.tensor([[0, 1]]))
    assert found.tolist() == [[1, 1], [1, 1], [0, 0]]


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


def test_residual_is_what_the_posterior_mean_leaves():
    """Conjugate gradients end at ``(I + Q gamma Qᵀ)⁻¹ v``, which is ``v`` minus its explanation."""
    rng = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(2, 20, 9, generator=rng), dim=2)
    gamma = torch.rand(2, 20, 3, generator=rng) * 5
    recording = torch.randn(9, 4, 3, generator=rng)
    dictionary = PatchDictionary(rows, n_orient=1)
    residual = dictionary.residual(recording, gamma, n_steps=30)
    for example in range(3):
        explained = torch.einsum("kdc,kd,kde->ce", rows, gamma[..., example], rows)
        exact = torch.linalg.solve(torch.eye(9) + explained, recording[..., example])
        assert torch.allclose(residual[..., example], exact, atol=1e-4)


def test_explaining_is_the_adjoint_of_filtering():
    rng = torch.Generator().manual_seed(0)
    dictionary = PatchDictionary(torch.randn(2, 21, 9, generator=rng), n_orient=3)
    data = torch.randn(9, 4, 5, generator=rng)
    amplitudes = torch.randn(2, 7, 3, 4, 5, generator=rng)
    there = (dictionary.filter(data) * amplitudes).sum()
    back = (data * dictionary.explain(amplitudes)).sum()
    assert torch.allclose(there, back, rtol=1e-4)


def test_noise_reaches_about_what_chance_allows():
    """The largest of 400 chi-squared energies, for few and many degrees of freedom."""
    rng = np.random.default_rng(0)
    for freedom in (1, 20):
        largest = rng.chisquare(freedom, size=(2000, 400)).max(axis=1).mean()
        bound = energy_by_chance(torch.tensor(float(freedom))).item()
        assert 0.5 * bound < largest < bound
