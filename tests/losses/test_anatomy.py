"""Anatomical priors against closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.core.contracts import Estimate
from deepesi.losses.anatomy import CurvatureSmoothness, OffCortexRidge


@pytest.fixture
def batch(simulate):
    declared = (*CurvatureSmoothness().head_inputs, *OffCortexRidge().head_inputs)
    return simulate(declared, n_times=2).batch(0)


def value(term, batch, inputs):
    return term(Estimate(batch.sources), replace(batch, inputs=batch.inputs | inputs))


def test_on_a_sphere_all_edges_count_alike(batch):
    """The normals turn by the central angle, so the curvature is one over the radius but for the
    chord, which is shorter than the arc."""
    term, flat = CurvatureSmoothness(20.0), CurvatureSmoothness(float("inf"))
    normals = torch.nn.functional.normalize(batch.inputs[term.positions.key], dim=1)
    sphere = {term.normals.key: normals, term.positions.key: 0.05 * normals}
    first, second = batch.inputs[term.edges.key].T
    cosine = (normals[first] * normals[second]).sum(1)
    chord = 0.05 * (2 - 2 * cosine).sqrt()
    weights = term.weights(batch.inputs | sphere)
    expected = 1 / (1 + (cosine.acos() / chord / 20.0) ** 2)
    torch.testing.assert_close(weights, expected, rtol=1e-3, atol=0)
    assert ((weights - 0.5).abs() < 0.1).all()
    ratio = value(term, batch, sphere) / value(flat, batch, {})
    assert ((ratio - 0.5).abs() < 0.1).all()


def test_a_point_counts_its_edges(batch):
    """Without curvature, ``degree / mean degree``."""
    edges = batch.head.space.edges
    degree = np.bincount(edges.ravel(), minlength=84)
    sources = torch.zeros_like(batch.sources)
    sources[:, 7, 0] = 1e-9
    loss = value(CurvatureSmoothness(float("inf")), replace(batch, sources=sources), {})
    torch.testing.assert_close(loss, torch.full((8,), degree[7] / degree.mean()).float())


def test_sources_without_a_surface_count_fully(batch):
    term = CurvatureSmoothness()
    none = {term.normals.key: torch.zeros_like(batch.inputs[term.normals.key])}
    assert torch.equal(term.weights(batch.inputs | none), torch.ones(len(batch.head.space.edges)))


def test_curvature_needs_a_mesh_and_a_scale(batch):
    term = CurvatureSmoothness()
    none = {term.edges.key: torch.zeros(0, 2, dtype=torch.int64)}
    with pytest.raises(ValueError, match=r"CurvatureSmoothness: the source space '.*' has no mesh"):
        value(term, batch, none)
    with pytest.raises(ValueError, match="curvature must be above 0, got 0.0"):
        CurvatureSmoothness(0.0)


def test_what_lies_off_the_cortex_and_what_it_costs(batch):
    """Vertices lie on it; of two sources outside, one is half way and one further."""
    term = OffCortexRidge(0.02)
    positions = batch.inputs[term.positions.key].clone()
    top = positions[:, 2].argmax()
    positions[:2] = positions[top] + torch.tensor([[0, 0, 0.03], [0, 0, 0.2]])
    inputs = {term.positions.key: positions, term.normals.key: torch.zeros_like(positions)}
    share = term.share(batch.inputs | inputs)
    assert 0.2 < share[0] < 0.6
    assert share[1] == 1.0
    assert not share[2:].any()
    power = batch.sources.square().sum(2)
    expected = (share[:2] * power[:, :2]).sum(1) / power.sum(1)
    torch.testing.assert_close(value(term, batch, inputs), expected.float())
    assert not value(term, batch, {}).any()  # the toy head is a cortex


def test_ridge_needs_a_reach():
    with pytest.raises(ValueError, match="reach must be a distance above 0 m, got 0.0"):
        OffCortexRidge(0.0)
