"""Importance weights against enumeration of patches and skulls, amplitudes integrated out."""

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
    chance = refined.effective.item() ** -0.5
    assert 50 < refined.effective.item() < 2700
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


def test_resampled_draws_follow_the_weights(simulate):
    model = posterior(2)
    batch = simulate(model.head_inputs, batch_size=2).batch(0)
    refined = refine(model, batch.data, batch.inputs, 500)
    again = refined.resampled(20_000, torch.Generator().manual_seed(0))
    for b in range(2):
        expected = (refined.weights[:, b] * refined.configuration.log_skull[:, b]).sum()
        assert again.log_skull[:, b].mean().item() == pytest.approx(expected.item(), abs=0.03)
    assert again.moments.shape == (20_000, 2, 2, 1)


def test_no_draws():
    with pytest.raises(ValueError, match="refine: the number of draws must be 1 or more, got 0"):
        refine(StructuredPosterior(), torch.zeros(1, 2, 1), {}, 0)
