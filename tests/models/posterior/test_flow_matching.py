"""Flow matching: untrained it is the Bayesian minimum norm in closed form, and it learns."""

import pytest
import torch

from deepesi.metrics.scoring_rules import log_score
from deepesi.models.posterior.flow_matching import FlowMatching


def ignored(estimate, batch):
    """An objective that the velocity does not need."""
    raise AssertionError


def untrained(n_steps=32, n_conjugate=15):
    model = FlowMatching(n_steps, 8, 1, n_conjugate).eval()
    torch.nn.init.zeros_(model.denoiser.last.weight)
    return model


def test_untrained_samples_are_those_of_independent_normal_sources(simulate):
    """They are linear in the noise, so mean and covariance follow from one draw per direction."""
    model = untrained()
    batch = simulate(model.head_inputs, batch_size=1, n_times=1, snr_db=(10, 10)).batch(0)
    noise = torch.cat([torch.zeros(1, 84), torch.eye(84)])[:, None]
    with torch.no_grad():
        setting, unit = model.units(batch.data, batch.inputs)
        drawn = model.sample(batch.data, batch.inputs, noise)[:, 0, :, 0]
        mean, *columns = (drawn / unit[0, :, 0]).double()
    root = torch.stack(columns) - mean
    topographies, variance = setting.topographies.double(), 1 / 84
    seen = topographies.T @ topographies * variance
    inverse = torch.linalg.inv(seen + setting.noise.double() * torch.eye(16))
    kernel = variance * topographies @ inverse
    covariance = variance * (torch.eye(84) - kernel @ topographies.T)
    expected = kernel @ setting.data[0, 0].double()
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.02 * expected.abs().max().item())
    found = root.T @ root
    torch.testing.assert_close(found, covariance, rtol=0, atol=0.03 * covariance.max().item())


def test_samples_turn_with_the_samples_in_time(simulate):
    model = FlowMatching(2, 8, 1, 4).eval()
    batch = simulate(model.head_inputs, batch_size=1, n_times=3).batch(0)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    noise = torch.randn(2, 1, 84, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first = model.sample(batch.data, batch.inputs, noise.flatten(2)) @ rotation
        second = model.sample(batch.data @ rotation, batch.inputs, (noise @ rotation).flatten(2))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4 * first.abs().max().item())


def test_training_lowers_the_error_of_the_velocity(simulate):
    torch.manual_seed(0)
    model = FlowMatching(4, 8, 1, 4).train()
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    batch = simulate(model.head_inputs, batch_size=16, n_times=2).batch(0)
    losses = []
    for _ in range(15):  # the same times and noise
        loss = model.training_loss(batch, ignored, torch.Generator().manual_seed(0))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


def test_sources_point_along_the_normals_on_a_head_of_free_orientation(simulate, free_toy):
    model = FlowMatching(2, 8, 1, 4).eval()
    batch = simulate(model.head_inputs, heads=free_toy).batch(0)
    with torch.no_grad():
        vectors = model.draw(batch.data, batch.inputs, 2)[..., 0].unflatten(2, (84, 3))
    normals = torch.as_tensor(free_toy.source_normals, dtype=torch.float32)
    along = (vectors * normals).sum(3, keepdim=True) * normals
    torch.testing.assert_close(vectors, along, rtol=1e-4, atol=1e-12)


def test_it_has_no_density(simulate):
    model = untrained(2, 2)
    batch = simulate(model.head_inputs).batch(0)
    with pytest.raises(NotImplementedError, match="FlowMatching draws samples and has no log-dens"):
        model.log_density(batch.data, batch.inputs, batch.sources)
    with pytest.raises(NotImplementedError, match="draws samples and has no log-density"):
        log_score(model, batch)


def test_bad_sizes():
    with pytest.raises(ValueError, match="n_steps must be 2 or more and noise_std above 0"):
        FlowMatching(n_steps=1)
    with pytest.raises(ValueError, match="FlowMatching: all sizes must be 1 or more"):
        FlowMatching(hidden=0)
