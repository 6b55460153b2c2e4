from dataclasses import replace

import pytest
import torch

from deepesi.contracts import Estimate
from deepesi.losses.base import WeightedSum
from deepesi.losses.physics import Reprojection
from deepesi.losses.smoothness import SurfaceLaplacian
from deepesi.losses.supervised import CosineDistance, NormalizedL1, NormalizedL2
from deepesi.physics.graph import adjacency

TERMS = [NormalizedL1(), NormalizedL2(), CosineDistance(), Reprojection(), SurfaceLaplacian()]


@pytest.fixture
def batch(simulate):
    return simulate([d for term in TERMS for d in term.head_inputs], n_times=3).batch(0)


def at(batch, factor):
    return Estimate(factor * batch.sources)


@pytest.mark.parametrize(
    ("term", "at_truth", "at_double", "at_zero"),
    [(NormalizedL1(), 0, 1, 1), (NormalizedL2(), 0, 1, 1), (CosineDistance(), 0, 0, 1)],
)
def test_supervised_values(batch, term, at_truth, at_double, at_zero):
    for factor, value in ((1, at_truth), (2, at_double), (0, at_zero)):
        assert torch.allclose(term(at(batch, factor), batch), torch.tensor(float(value)), atol=1e-5)


def test_cosine_of_the_opposite_is_two(batch):
    assert torch.allclose(CosineDistance()(at(batch, -1), batch), torch.tensor(2.0))


def test_reprojection_is_zero_where_the_lead_field_explains_the_data(batch):
    gain = torch.as_tensor(batch.head.leadfield).float()
    exact = replace(batch, eeg=gain @ batch.sources)
    assert Reprojection()(at(exact, 1), exact).max() < 1e-9
    assert torch.allclose(Reprojection()(at(exact, 0), exact), torch.tensor(1.0))
    assert torch.allclose(Reprojection()(at(exact, 3), exact), torch.tensor(4.0))


def test_laplacian_equals_the_matrix(batch):
    links = torch.as_tensor(adjacency(batch.head.space.edges, 84).toarray()).float()
    matrix = torch.eye(84) - links / links.sum(1, keepdim=True)
    expected = (matrix @ batch.sources).square().sum((1, 2)) / batch.sources.square().sum((1, 2))
    assert torch.allclose(SurfaceLaplacian()(at(batch, 1), batch), expected, rtol=1e-4)


def test_laplacian_of_a_constant_is_zero(batch):
    flat = Estimate(torch.full_like(batch.sources, 1e-9))
    assert SurfaceLaplacian()(flat, batch).max() < 1e-6


@pytest.mark.parametrize("term", TERMS, ids=lambda t: type(t).__name__)
def test_gradients(batch, term):
    """Along a random direction the gradient is the slope."""
    torch.manual_seed(0)
    # Double precision and units of order one, so that finite differences are exact enough.
    scale = batch.sources.abs().max()
    wide = replace(
        batch,
        eeg=batch.eeg.double() / scale,
        sources=batch.sources.double() / scale,
        inputs={k: v.double() if v.is_floating_point() else v for k, v in batch.inputs.items()},
    )
    start = (wide.sources + 0.1 * torch.randn_like(wide.sources)).requires_grad_()
    direction = torch.randn_like(start)
    (gradient,) = torch.autograd.grad(term(Estimate(start), wide).sum(), start)
    step = 1e-6
    with torch.no_grad():
        ahead = term(Estimate(start + step * direction), wide).sum()
        behind = term(Estimate(start - step * direction), wide).sum()
    slope = (gradient * direction).sum().item()
    assert slope == pytest.approx(((ahead - behind) / (2 * step)).item(), rel=1e-4)


@pytest.mark.parametrize("term", TERMS, ids=lambda t: type(t).__name__)
def test_one_value_per_example_whatever_the_scale(batch, term):
    small = replace(batch, eeg=1e-3 * batch.eeg, sources=1e-3 * batch.sources)
    value, same = term(at(batch, 0.5), batch), term(at(small, 0.5), small)
    assert value.shape == (8,)
    assert torch.allclose(value, same, rtol=1e-4, atol=1e-6)


def test_weighted_sum_and_its_log(batch):
    total = WeightedSum({"l1": NormalizedL1(), "l2": NormalizedL2()}, {"l1": 2.0, "l2": 0.5})
    value, log = total(at(batch, 0), batch)
    assert value.item() == pytest.approx(2.5)
    assert {k: v.item() for k, v in log.items()} == pytest.approx(
        {"raw/l1": 1, "raw/l2": 1, "weighted/l1": 2, "weighted/l2": 0.5}
    )


def test_weighted_sum_wants_one_weight_per_term():
    with pytest.raises(ValueError, match=r"terms \['l1'\] and weights \['l2'\]"):
        WeightedSum({"l1": NormalizedL1()}, {"l2": 1.0})
