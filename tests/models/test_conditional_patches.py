"""One more patch given the others, against Gaussians with their covariances."""

import math

import pytest
import torch

from deepesi.models.layers.conditional_patches import (
    Patches,
    Slots,
    chosen,
    conditional,
    draw,
    span,
)

N_SOURCES, N_CHANNELS, LEVEL = 5, 9, 1.7


def random(*shape):
    return torch.randn(*shape, generator=random.rng, dtype=torch.float64)


@pytest.fixture(autouse=True)
def seeded():
    random.rng = torch.Generator().manual_seed(0)


@pytest.fixture
def patches():
    normal = torch.nn.functional.normalize(random(2, N_SOURCES, N_CHANNELS), dim=2)
    blocks = torch.linalg.qr(random(1, N_SOURCES, N_CHANNELS, 3))[0].permute(3, 0, 1, 2)
    power = random(3, 1, N_SOURCES, 1).abs() + 0.2
    loose = blocks * (3 * power / power.sum(0)).sqrt()
    return Patches.of(normal, loose, random(2, N_SOURCES).abs() + 0.5, random(3, 3, 1, N_SOURCES))


def covariances(patches, level):
    """Contribution of a patch to the covariance of a sample, ``(K S, C, C)``."""
    deviation = level / patches.normal_moments
    straight = torch.einsum("ksc,ksd,ks->kscd", patches.normal, patches.normal, deviation.square())
    own = (level / patches.loose_size).square()
    turned = torch.einsum("oksc,oksd,ks->kscd", patches.loose, patches.loose, own)
    return torch.cat([straight, turned]).flatten(0, 1)


def log_density(cov, data):
    gaussian = torch.distributions.MultivariateNormal(torch.zeros(N_CHANNELS).double(), cov)
    return gaussian.log_prob(data.T).sum()


@pytest.mark.parametrize("n_others", [0, 2])
def test_evidence_of_one_sample_is_that_of_the_covariance(patches, n_others):
    others, data = random(1, n_others, N_CHANNELS), 3 * random(1, N_CHANNELS, 1)
    found = conditional(patches, others, data, torch.tensor([LEVEL]).double())
    base = torch.eye(N_CHANNELS).double() + others[0].T @ others[0]
    without = log_density(base, data[0])
    expected = [
        log_density(base + extra, data[0]) - without for extra in covariances(patches, LEVEL)
    ]
    assert torch.allclose(found.evidence.flatten(), torch.stack(expected))


def test_evidence_of_a_window_is_exact_along_the_normals_and_bounded_otherwise(patches):
    """A patch of any orientation has one in the window: more likely than one in each sample."""
    others, moment = random(1, 1, N_CHANNELS), random(3)
    row = torch.einsum("o,oc->c", moment, patches.loose[:, 0, 2])
    data = (4 * row[:, None] * random(8) + random(N_CHANNELS, 8))[None]
    found = conditional(patches, others, data, torch.tensor([LEVEL]).double())
    base = torch.eye(N_CHANNELS).double() + others[0].T @ others[0]
    exact = torch.stack(
        [
            log_density(base + e, data[0]) - log_density(base, data[0])
            for e in covariances(patches, LEVEL)
        ]
    ).unflatten(0, (3, N_SOURCES))
    assert torch.allclose(found.evidence[0, :2], exact[:2])
    assert found.evidence[0, 2, 2] > exact[2, 2]
    assert int(found.evidence[0, 2].argmax()) == 2
    cosine = torch.nn.functional.cosine_similarity(
        torch.einsum("o,oc->c", found.axes[:, 0, 0, 2], patches.loose[:, 0, 2]), row, dim=0
    )
    assert abs(cosine) > 0.95


def test_moments_are_those_of_the_gaussian_posterior(patches):
    others, data = random(1, 2, N_CHANNELS), 3 * random(1, N_CHANNELS, 1)
    found = conditional(patches, others, data, torch.tensor([LEVEL]).double())
    base = torch.eye(N_CHANNELS).double() + others[0].T @ others[0]
    # Along the normals.
    row, moment = patches.normal[1, 3], patches.normal_moments[1, 3]
    variance = (LEVEL / moment) ** 2
    weights = variance * row @ torch.linalg.inv(base + variance * torch.outer(row, row))
    mean = found.shrinkage[0, 1, 3] * found.normal[0, 0, 1, 3]
    assert torch.allclose(mean, (weights @ data[0])[0])
    assert torch.allclose(found.shrinkage[0, 1, 3], variance - weights @ row * variance)


def test_the_axis_of_one_sample_is_along_the_posterior_mean(patches):
    others, data = random(1, 2, N_CHANNELS), 3 * random(1, N_CHANNELS, 1)
    found = conditional(patches, others, data, torch.tensor([LEVEL]).double())
    base = torch.eye(N_CHANNELS).double() + others[0].T @ others[0]
    rows = patches.loose[:, 0, 1]
    variance = (LEVEL / patches.loose_size[0, 1]) ** 2
    cov = base + variance * rows.T @ rows
    mean = (rows @ torch.linalg.inv(cov) @ data[0])[:, 0]
    cosine = torch.nn.functional.cosine_similarity(found.axes[:, 0, 0, 1], mean, dim=0)
    assert abs(cosine) == pytest.approx(1)


def test_span_inverts():
    rows = random(2, 3, N_CHANNELS)
    vectors, log_det = span(rows)
    for row, vector, value in zip(rows, vectors, log_det, strict=True):
        cov = torch.eye(N_CHANNELS).double() + row.T @ row
        assert torch.allclose(torch.eye(N_CHANNELS) - vector.T @ vector, torch.linalg.inv(cov))
        assert torch.allclose(value, torch.linalg.slogdet(cov)[1])


def test_an_empty_slot_changes_nothing(patches):
    others, data = random(1, 1, N_CHANNELS), random(1, N_CHANNELS, 4)
    level = torch.tensor([LEVEL]).double()
    one = conditional(patches, others, data, level)
    two = conditional(patches, torch.cat([others, 0 * others], dim=1), data, level)
    assert torch.allclose(one.evidence, two.evidence)


def test_draws_have_the_probabilities():
    weights = torch.tensor([0.5, 0.2, 0.0, 0.3]).double()
    uniform = (torch.arange(1000) + 0.5).double() / 1000
    number, shares = draw(weights.log().expand(1000, -1), uniform)
    assert torch.bincount(number, minlength=4).tolist() == [500, 200, 0, 300]
    assert torch.allclose(shares[0], weights)


def test_a_chosen_patch_has_unit_norm_and_its_moment(patches):
    found = conditional(
        patches, random(4, 0, N_CHANNELS), 3 * random(4, N_CHANNELS, 2), torch.ones(4).double()
    )
    last = 3 * N_SOURCES
    slots = chosen(patches, found, torch.tensor([7, 12, 14, last]))
    assert isinstance(slots, Slots)
    assert slots.centres[:, 0].tolist() == [2, 2, 4, -1]
    assert torch.allclose(
        slots.topographies.norm(dim=2)[:, 0], torch.tensor([1.0, 1, 1, 0]).double()
    )
    assert torch.allclose(slots.topographies[0, 0], patches.normal[1, 2])
    assert torch.allclose(slots.moments[0, 0], patches.normal_moments[1, 2])
    weights = found.axes[:, 1, 0, 2]
    # Prior: weights of variance v have a mean square of 3 v; the level is that of the moment.
    deviation = 1 / patches.loose_size[0, 2] * math.sqrt(3) / weights.norm()
    assert torch.allclose(1 / slots.moments[1, 0], deviation)
