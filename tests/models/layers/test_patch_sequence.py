"""The evidence of patches one after the other, against Gaussian formulas with full matrices."""

import math

import pytest
import torch

from deepesi.models.layers.amplitude_coordinates import (
    AmplitudeCoordinates,
    log_density_across,
    split,
)
from deepesi.models.layers.patch_sequence import (
    PatchSequence,
    greedy,
    matched_filters,
    skull_weights,
)
from deepesi.models.layers.scalar_flow import ScalarFlow


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def recordings():
    rows = torch.nn.functional.normalize(drawn(12, 6, seed=1), dim=1)
    filters = torch.eye(6).double() + 0.3 * drawn(3, 6, 6, seed=2)
    return matched_filters(
        3 * drawn(2, 6, 4, seed=3), rows, filters, torch.tensor([5.0, 9.0]).double()
    )


@pytest.fixture
def skull():
    return skull_weights(torch.tensor([[0.3, -0.7], [0.0, 1.5]]).double(), math.log(3), 3)


def seen(recordings, weights):
    """Unit topographies of one configuration, from its own filter."""
    filtered = torch.einsum("m,mce,pe->pc", weights, recordings.filters, recordings.rows)
    return torch.nn.functional.normalize(filtered, dim=1)


def test_weights_of_skulls_are_linear_between_them():
    weights = skull_weights(
        torch.tensor([[0.0, math.log(3), 9.0, -math.log(3) / 4]]), math.log(3), 3
    )
    expected = torch.tensor([[0.0, 1, 0], [0, 0, 1], [0, 0, 1], [0.25, 0.75, 0]])
    torch.testing.assert_close(weights[0], expected)
    assert skull_weights(torch.zeros(1, 2), math.log(3), 1).tolist() == [[[1], [1]]]


def test_evidence_of_one_more_patch_is_that_of_a_gaussian(recordings, skull):
    """Differences between patches of the log-density of the data under ``I + strength R R^T``."""
    taken = torch.tensor([[3, 7], [0, 11]]), torch.tensor([[5, -1], [1, 2]])
    sequence = PatchSequence(recordings, skull)
    for number in taken:
        sequence.take(sequence.topography(number))
    found = 0.5 * recordings.white.shape[2] * sequence.evidence()
    for n in range(2):
        for b in range(2):
            rows = seen(recordings, skull[n, b])
            earlier = [rows[t[n, b]] for t in taken if t[n, b] >= 0]
            densities = []
            for row in rows:
                basis = torch.stack([*earlier, row])
                covariance = torch.eye(6).double() + recordings.strength[b] * basis.T @ basis
                normal = torch.distributions.MultivariateNormal(torch.zeros(6).double(), covariance)
                densities.append(normal.log_prob(recordings.white[b].T).sum())
            exact = torch.stack(densities)
            torch.testing.assert_close(found[n, b] - found[n, b, 0], exact - exact[0])


def test_what_is_left_and_explained_adds_up(recordings, skull):
    sequence = PatchSequence(recordings, skull)
    power = recordings.white.square().sum(1).mean(1)
    best = sequence.explained().max(2)
    sequence.take(sequence.topography(best.indices))
    torch.testing.assert_close(sequence.remaining(), power - best.values)


def test_greedy_explains_more_with_more_patches_and_all_with_a_basis(recordings):
    strong = recordings._replace(strength=torch.full((2,), 1e6).double())
    explained = greedy(strong, 6)
    assert (explained.diff(dim=0) >= 0).all()
    power = strong.white.square().sum(1).mean(1)
    torch.testing.assert_close(explained[-1], power.expand(3, -1), rtol=1e-4, atol=0)


@pytest.fixture
def coordinates(recordings):
    rows = torch.nn.functional.normalize(drawn(1, 2, 3, 6, seed=4), dim=3)
    rows[0, 1, 2] = 0  # one patch fewer
    noise = torch.tensor([1.0, 1.4]).double()
    args = rows, recordings.white, recordings.strength, noise
    return AmplitudeCoordinates(*args), args


def test_coordinates_are_standard_under_the_exact_posterior(coordinates):
    map_, (rows, white, strength, noise) = coordinates
    zero = map_.amplitudes(torch.zeros(1, 2, 3, 4).double())
    eye = torch.eye(3).double()
    for b in range(2):
        precision = rows[0, b] @ rows[0, b].T + eye / strength[b]
        torch.testing.assert_close(zero[0, b], torch.linalg.solve(precision, rows[0, b] @ white[b]))
        steps = torch.stack([map_.amplitudes(e.view(1, 1, 3, 1).expand(1, 2, 3, 4)) for e in eye])
        root = (steps - zero)[:, 0, b, :, 0].T
        torch.testing.assert_close(root @ root.T, noise[b] ** 2 * precision.inverse())
        log_det = 0.5 * (noise[b] ** 2 * precision.inverse()).logdet()
        torch.testing.assert_close(map_.log_volume()[0, b].sum(), log_det)


def test_coordinates_and_back(coordinates):
    map_, _ = coordinates
    y = drawn(1, 2, 3, 4, seed=5)
    torch.testing.assert_close(map_.coordinates(map_.amplitudes(y)), y)


def test_density_along_and_across_is_that_of_all_samples():
    y, direction = (
        drawn(1, 2, 3, 4),
        torch.nn.functional.normalize(drawn(1, 2, 3, 4, seed=1), dim=3),
    )
    along, rest = split(y, direction)
    normal = torch.distributions.Normal(0.0, 1.0)
    both = normal.log_prob(along) + log_density_across(rest, torch.zeros(1, 2, 3).double())
    torch.testing.assert_close(both, normal.log_prob(y).sum(3))
    scaled = log_density_across(2 * rest, torch.full((1, 2, 3), math.log(2)).double())
    expected = log_density_across(rest, torch.zeros(1, 2, 3).double()) - 3 * math.log(2)
    torch.testing.assert_close(scaled, expected)


def test_a_flow_starts_standard_normal_and_stays_a_density():
    torch.manual_seed(0)
    values = torch.linspace(-40, 40, 8001)  # weights may move the mass far out
    flow, context = ScalarFlow(2, 8), torch.zeros(len(values), 2)
    normal = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(flow.log_density(values, context), normal.log_prob(values))
    for parameter in flow.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    context = torch.ones(len(values), 2)
    density = flow.log_density(values, context).exp()
    assert torch.trapezoid(density, values).item() == pytest.approx(1, abs=1e-3)
    back = flow.transform(context)(flow.from_noise(values[:,], context)[:, None])[:, 0]
    inside = values.abs() < 2
    torch.testing.assert_close(back[inside], values[inside], rtol=0, atol=1e-3)
