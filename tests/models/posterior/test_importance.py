"""Importance weights against enumeration of patches and skulls, amplitudes integrated out."""

import math

import pytest
import torch

from deepesi.models.layers.patch_sequence import skull_weights
from deepesi.models.posterior.configuration import Configuration
from deepesi.models.posterior.importance import log_posterior, refine
from deepesi.models.posterior.structured import StructuredPosterior
from tests.models.posterior.test_structured import noise_for, posterior


def enumerated(model, batch, n_skulls=81):
    """Probability of every skull of a grid and patch ``(G, P)``, from covariances of the data."""
    recordings = model._known(batch.data, batch.inputs).recordings
    grid = torch.linspace(-model.log_widest, model.log_widest, n_skulls).double()
    weights = skull_weights(grid[:, None], model.log_widest, model.n_skulls)[:, 0]
    filters = torch.einsum("gm,mce->gce", weights, recordings.filters)
    rows = recordings.rows @ filters.mT
    rows = rows / rows.norm(dim=2, keepdim=True)
    strength = recordings.strength[0]
    energy = (rows @ recordings.white[0]).square().sum(2)
    n_times = batch.data.shape[2]
    evidence = 0.5 * (energy * strength / (1 + strength) - n_times * (1 + strength).log())
    return grid, torch.softmax(evidence.flatten(), 0).reshape(evidence.shape)


@pytest.mark.parametrize("n_times", [1, 2])
def test_weighted_draws_are_those_of_the_exact_posterior(simulate, n_times):
    model = posterior(1, moved=False)
    batch = simulate(model.head_inputs, batch_size=1, n_times=n_times, snr_db=(5, 5)).batch(0)
    grid, exact = enumerated(model, batch)
    refined = refine(model, batch.data, batch.inputs, 3000)
    patches, weights = refined.configuration.patches[:, 0, 0], refined.weights[:, 0].double()
    found = torch.zeros(exact.shape[1]).double().index_add(0, patches, weights)
    plain = torch.bincount(patches, minlength=exact.shape[1]) / 3000
    chance = refined.n_effective.item() ** -0.5
    assert 50 < refined.n_effective.item() < 2700
    off = (found - exact.sum(0)).abs().sum()
    assert off < 0.7 * (plain - exact.sum(0)).abs().sum()
    assert (found - exact.sum(0)).abs().max() < 3 * chance
    skull = (weights * refined.configuration.log_skull[:, 0]).sum()
    assert skull.item() == pytest.approx((exact.sum(1) * grid).sum().item(), abs=4 * chance)


def test_draws_of_an_exact_posterior_have_equal_weights_but_for_the_skull(simulate):
    """Moments and patches are drawn exactly without errors of the head, so only skulls differ."""
    model = posterior(1, moved=False)
    with torch.no_grad():
        model.log_error.bias.fill_(-30.0)
        model.memory.fill_(1.0)
        layers = (model.scores.last, model.next_patch.sharpness, model.moment_flow.across)
        for layer in layers:
            layer.weight.zero_()
    batch = simulate(model.head_inputs, batch_size=1, n_times=2, snr_db=(5, 5)).batch(0)
    drawn = model.sample_configurations(batch.data, batch.inputs, noise_for(model, batch, 200))
    one_skull = Configuration(torch.zeros_like(drawn.log_skull), *drawn[1:])
    redrawn = model._amplitudes  # moments were drawn under another skull: draw them again
    known = model._known(batch.data, batch.inputs)
    sequence = model._sequence(known, one_skull.log_skull)
    coordinates, scale = redrawn(known, sequence, drawn.patches, batch.inputs)
    noise = torch.randn(200, 1, 1, 2, generator=torch.Generator().manual_seed(1)).double()
    moments = coordinates.amplitudes(noise) * scale
    exact = one_skull._replace(moments=moments)
    ratio = log_posterior(model, batch.data, batch.inputs, exact) - model.log_density(
        batch.data, batch.inputs, exact
    )
    assert ratio.std() < 1e-2


def test_the_strongest_patch_is_the_first(simulate):
    model = posterior(2)
    batch = simulate(model.head_inputs, batch_size=1).batch(0)
    unit = batch.inputs[model.moments.key].flatten()
    patches = torch.tensor([[[3, 40]], [[3, 40]], [[3, -1]]])
    sizes = torch.tensor([[2.0, 1.0], [1.0, 2.0], [1.0, 0.0]])
    moments = (sizes * unit[patches[:, 0].clamp_min(0)])[:, None, :, None]
    found = log_posterior(
        model, batch.data, batch.inputs, Configuration(torch.zeros(3, 1), patches, moments)
    )
    assert found.isfinite()[:, 0].tolist() == [True, False, True]


def test_the_density_of_ordered_patches(simulate):
    """Two patches and one, by hand: n patches in one order have n! times the density of any."""
    model = posterior(2)
    batch = simulate(model.head_inputs, batch_size=1, n_times=2).batch(0)
    recordings = model._known(batch.data, batch.inputs).recordings
    unit, size = batch.inputs[model.unit.key].double(), batch.inputs[model.moments.key].flatten()
    rows = recordings.rows @ recordings.filters[model.n_skulls // 2].T
    norms, patches = rows.norm(dim=1), torch.tensor([3, 40])
    moments = size[patches, None].double() * torch.tensor([[2.0, 1.5], [1.0, -0.5]]).double()

    def by_hand(n):
        scale = size[patches[:n], None].double() / norms[patches[:n], None]
        seen = (rows / norms[:, None])[patches[:n]].T @ (moments[:n] / scale)
        deviation = recordings.strength.sqrt() * scale / unit
        prior = torch.distributions.Normal(0, deviation).log_prob(moments[:n] / unit).sum()
        off = (recordings.white[0] - seen).square().sum()
        return -0.5 * off + prior - n * math.log(len(rows)) + math.log(math.factorial(n))

    configuration = Configuration(
        torch.zeros(2, 1),
        torch.stack([patches, torch.tensor([3, -1])])[:, None],
        torch.stack([moments, moments * torch.tensor([[1], [0]])])[:, None],
    )
    found = log_posterior(model, batch.data, batch.inputs, configuration)[:, 0]
    expected = by_hand(2) - by_hand(1)
    assert (found[0] - found[1]).item() == pytest.approx(expected.item(), abs=1e-4)


def test_resampled_draws_follow_the_weights(simulate):
    model = posterior(2)
    batch = simulate(model.head_inputs, batch_size=2).batch(0)
    refined = refine(model, batch.data, batch.inputs, 500)
    again = refined.resampled(20_000, torch.Generator().manual_seed(0))
    for b in range(2):
        expected = (refined.weights[:, b] * refined.configuration.log_skull[:, b]).sum()
        assert again.log_skull[:, b].mean().item() == pytest.approx(expected.item(), abs=0.03)
    assert again.moments.shape == (20_000, 2, 2, 1)


def test_weights_do_not_depend_on_the_mode_of_the_model(simulate):
    model = posterior(2)
    batch = simulate(model.head_inputs, batch_size=2).batch(0)
    expected = refine(model, batch.data, batch.inputs, 50).weights
    found = refine(model.train(), batch.data, batch.inputs, 50).weights
    assert torch.equal(found, expected)


def test_draws_that_are_all_in_the_wrong_order(simulate):
    model = posterior(2)
    batch = simulate(model.head_inputs, batch_size=1).batch(0)
    sample, unit = model.sample_configurations, batch.inputs[model.moments.key].flatten()

    def swapped(*args):
        drawn = sample(*args)
        patches = torch.tensor([3, 40]).expand_as(drawn.patches)
        sizes = torch.tensor([1.0, 2.0])[:, None].expand_as(drawn.moments)
        return drawn._replace(patches=patches, moments=sizes * unit[[3, 40], None])

    model.sample_configurations = swapped
    message = r"none of the 5 draws of a recording has its strongest patch first. Draw more .n."
    with pytest.raises(ValueError, match=message):
        refine(model, batch.data, batch.inputs, 5)


def test_no_draws():
    with pytest.raises(ValueError, match="refine: the number of draws must be 1 or more, got 0"):
        refine(StructuredPosterior(), torch.zeros(1, 2, 1), {}, 0)
