"""How the minimum-norm family is regularized, and its posterior."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from deepesi.baselines.minimum_norm import BayesianMinimumNorm, BestMinimumNorm, MinimumNorm
from deepesi.calibration.sbc import normal_errors, ranks, uniformity
from deepesi.core.contracts import Estimate, as_tensors
from deepesi.data_gen.sources import PatchSources
from deepesi.metrics.calibration import LEVELS
from deepesi.metrics.source_metric import SourceMetric
from deepesi.physics.head_inputs import prepare
from deepesi.physics.linear_inverse import (
    METHODS,
    hat_matrix,
    linear_inverse,
    posterior_root,
    posterior_std,
    prior_std,
)
from deepesi.physics.noise import rank_of, whitener


@pytest.fixture
def head(toy):
    return toy.montage_head("biosemi32")


def test_hat_matrix_is_what_the_estimate_explains(head):
    kernel = linear_inverse(head.leadfield, head.noise_cov, 0.3, "eLORETA")
    data = head.leadfield @ np.random.default_rng(0).normal(size=(84, 5))
    white = whitener(head.noise_cov)
    hat = hat_matrix(head.leadfield, head.noise_cov, 0.3, "eLORETA")
    assert np.allclose(hat @ white @ data, white @ head.leadfield @ kernel @ data)
    assert 0 < np.trace(hat) < rank_of(head.noise_cov)


def test_deviation_equals_the_dense_posterior(head):
    """By the inverse of the sum of precisions, over sources."""
    gain = whitener(head.noise_cov) @ head.leadfield
    lambda2 = 0.1
    variance = 31 / (gain**2).sum() / lambda2
    unit = np.sqrt(variance)  # keeps the inverse well conditioned
    covariance = unit**2 * np.linalg.inv((unit * gain).T @ (unit * gain) + np.eye(84))
    found = posterior_std(head.leadfield, head.noise_cov, lambda2)
    assert np.allclose(found, np.sqrt(np.diag(covariance)))
    mean = covariance @ gain.T @ whitener(head.noise_cov)
    assert np.allclose(mean, linear_inverse(head.leadfield, head.noise_cov, lambda2, "MNE"))


def test_posterior_covers_sources_of_its_own_prior(head):
    """Independent sources of one variance at 10 dB: 90 % intervals hold 90 % of them."""
    model = BayesianMinimumNorm()
    rng = np.random.default_rng(0)
    gain = whitener(head.noise_cov) @ head.leadfield
    # Long windows: the SNR is read off their power.
    true = np.sqrt(31 / (gain**2).sum() * 10) * rng.normal(size=(20, 84, 200))
    noise = np.linalg.pinv(whitener(head.noise_cov)) @ rng.normal(size=(20, 32, 200))
    data = torch.as_tensor(head.leadfield @ true + noise).float()
    mean, std = model(data, as_tensors(prepare(model.head_inputs, head)))[:2]
    inside = (torch.as_tensor(true) - mean).abs() <= 1.6449 * std
    assert inside.float().mean().item() == pytest.approx(0.9, abs=0.02)


def posterior_covariance(head, lambda2):
    """``(Gᵀ G + I / s²)⁻¹`` ``(D, D)``, and the prior standard deviation ``s``."""
    gain = whitener(head.noise_cov) @ head.leadfield
    unit = prior_std(gain, rank_of(head.noise_cov), lambda2)
    return unit**2 * np.linalg.inv((unit * gain).T @ (unit * gain) + np.eye(gain.shape[1])), unit


@pytest.mark.parametrize("lambda2", [10.0, 0.1, 1e-3])
def test_posterior_root_is_that_of_the_covariance(head, lambda2):
    covariance, unit = posterior_covariance(head, lambda2)
    gain = whitener(head.noise_cov) @ head.leadfield
    matrix = posterior_root(head.leadfield, head.noise_cov, lambda2)
    root = unit * (np.eye(84) - gain.T @ matrix @ gain)
    assert np.allclose(root, root.T)
    assert np.allclose(root @ root, covariance, rtol=0, atol=1e-12 * unit**2)


def test_samples_have_the_posterior_mean_and_covariance(head):
    """Each unit vector as noise gives a column of the square root; no noise gives the mean."""
    model = BayesianMinimumNorm(snr_db=10)
    inputs = as_tensors(prepare(model.head_inputs, head))
    data = torch.as_tensor(head.leadfield[:, [7]] * 2e-8)[None].float()
    mean = model(data, inputs).mean
    noise = torch.cat([torch.zeros(1, 84), torch.eye(84)])[:, None]
    samples = model.sample(data, inputs, noise)
    assert torch.equal(samples[0], mean)
    columns = (samples[1:] - mean)[:, 0, :, 0].double().numpy()
    covariance, unit = posterior_covariance(head, 0.1)
    assert np.allclose(columns.T @ columns, covariance, rtol=0, atol=1e-5 * unit**2)
    drawn = model.draw(data, inputs, 20000)[:, 0, :, 0].double().numpy()
    error = np.sqrt(np.diag(covariance) / 20000)
    assert np.abs((drawn.mean(0) - mean[0, :, 0].numpy()) / error).max() < 5
    assert np.allclose(np.cov(drawn.T), covariance, rtol=0, atol=5 * unit**2 / np.sqrt(20000))


@pytest.mark.parametrize(("factor", "is_calibrated"), [(1.0, True), (2.0, False)])
def test_its_samples_are_calibrated_on_its_own_prior(head, factor, is_calibrated):
    """Ranks are uniform and every interval holds its share; not so of sources twice as strong."""
    model, n = BayesianMinimumNorm(snr_db=10), 400
    rng = np.random.default_rng(0)
    white = whitener(head.noise_cov)
    unit = posterior_covariance(head, 0.1)[1]
    target = factor * unit * rng.normal(size=(n, 84))
    noise = np.linalg.pinv(white) @ rng.normal(size=(32, n))
    data = torch.as_tensor((head.leadfield @ target.T + noise).T[..., None]).float()
    samples = model.draw(data, as_tensors(prepare(model.head_inputs, head)), 99)[..., 0]
    samples = samples.double().numpy()
    p = [
        uniformity(ranks(values, true, rng), 99)
        for values, true in (
            (samples[..., 3], target[:, 3]),
            (np.linalg.norm(samples, axis=-1), np.linalg.norm(target, axis=-1)),
        )
    ]
    errors = normal_errors(samples, target).ravel()
    covered = np.array([(errors <= norm.ppf((1 + level) / 2)).mean() for level in LEVELS])
    if is_calibrated:
        assert min(p) > 0.01
        assert covered == pytest.approx(LEVELS, abs=0.015)
    else:
        assert max(p) < 1e-6
        assert (covered < LEVELS - 0.02).all()


@pytest.mark.parametrize("method", METHODS)
def test_cross_validation_takes_the_least_of_its_criterion(method, simulate):
    model = MinimumNorm(method, "gcv")
    batch = simulate(model.head_inputs, n_times=4).batch(0)
    head, found = batch.head, model(batch.data, batch.inputs).mean
    white = whitener(head.noise_cov)
    for number, data in enumerate(batch.data.double().numpy()):
        scores = []
        for snr_db in -10 + 2.5 * np.arange(17):
            hat = hat_matrix(head.leadfield, head.noise_cov, 10 ** (-snr_db / 10), method)
            free = np.trace(np.eye(16) - hat) - 1
            scores.append((((np.eye(16) - hat) @ white @ data) ** 2).sum() / free**2)
        kernels = batch.inputs[model.kernels.key]
        expected = kernels[int(np.argmin(scores))] @ batch.data[number]
        assert torch.allclose(found[number], expected)


def test_cross_validation_follows_unknown_noise(simulate):
    """Noise ten times as strong as its covariance says: GCV still regularizes."""
    assumptions, not_told = MinimumNorm("MNE"), MinimumNorm("MNE", "gcv")
    batch = simulate(not_told.head_inputs, snr_db=(-10, -10), n_times=50).batch(0)
    louder = 10 * batch.data  # as if the noise, nearly all there is, were ten times its covariance
    sizes = [m(louder, batch.inputs).mean.square().sum() for m in (assumptions, not_told)]
    assert sizes[1] < 0.5 * sizes[0]


def test_best_regularization_is_no_worse_than_any(simulate):
    oracle = BestMinimumNorm("MNE")
    source = PatchSources((1, 1), (0.03, 0.06))
    batch = simulate(oracle.head_inputs, sources=source, batch_size=64).batch(0)
    error = SourceMetric("localization_error")
    error.update(oracle(batch), batch)
    for kernel in batch.inputs[oracle.kernels.key]:
        other = SourceMetric("localization_error")
        other.update(Estimate(kernel @ batch.data), batch)
        assert error.compute() <= other.compute() + 1e-4


def test_unknown_regularization_is_refused():
    with pytest.raises(ValueError, match="regularization must be one of .*got 'lcurve'"):
        MinimumNorm("MNE", "lcurve")
