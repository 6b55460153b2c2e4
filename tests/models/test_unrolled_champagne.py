"""Unrolled Champagne: fixed point of Champagne before training, symmetries, borders."""

import numpy as np
import pytest
import torch

from deepesi.baselines.sparse_bayes import SparseBayes
from deepesi.core.contracts import as_tensors
from deepesi.models.layers.mismatch_noise import mismatch_noise
from deepesi.models.layers.source_counts import FASTER, count_loss
from deepesi.models.layers.symmetric_inverse import symmetric_inverse
from deepesi.models.unrolled_champagne import UnrolledChampagne
from deepesi.physics.head_inputs import PatchPairs, PatchShares, prepare
from deepesi.uncertainty.tempered import Tempered
from tests.conftest import slow
from tests.models.free import apply, free

WIDE = {"smallest": 0.03, "largest": 0.06, "n_radii": 2}
PAIRS = PatchPairs(*WIDE.values()), PatchShares(*WIDE.values())


def make(**settings):
    return UnrolledChampagne(**(WIDE | {"n_strongest": 30, "hidden": 4} | settings)).eval()


def trained(**settings):
    """Weights as training might leave them: nothing is neutral any more."""
    torch.manual_seed(0)
    model = make(**settings)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def learned_variances(model, data, head):
    """Variances of all patches ``(B, A)``, and what the model whitens and projects on."""
    arrays = prepare(model.head_inputs, head)
    inputs = {
        k: torch.as_tensor(v).double() if v.dtype.kind == "f" else torch.as_tensor(v)
        for k, v in arrays.items()
    }
    n_orient = head.space.n_orient
    rows = inputs[model.topographies.key].flatten(0, 1).unflatten(0, (-1, n_orient))
    white = inputs[model.whitener.key] @ data.double()
    with torch.no_grad():
        gamma = model.double()._of_all(white, rows[None], as_tensors(arrays) | inputs)
        if model.n_dense < model.n_steps:
            strongest = model._of_strongest(white, rows[None], gamma)
            gamma = torch.zeros_like(gamma).scatter(1, strongest.numbers, strongest.gamma)
    return gamma.numpy(), white.numpy(), rows.numpy()


@pytest.mark.parametrize("exponent", [0.5, 1.0])
@pytest.mark.parametrize("n_times", [slow(1), 6])
def test_many_steps_reach_the_fixed_point_of_champagne(simulate, n_times, exponent):
    batch = simulate([], n_times=n_times, batch_size=2, snr_db=(10, 10)).batch(0)
    model = make(n_steps=400, n_dense=400, count=0.1, exponent=exponent)
    gamma, white, rows = learned_variances(model, batch.data, batch.head)
    for variances, data in zip(gamma, white, strict=True):
        precision = np.linalg.inv(
            np.eye(len(data)) + np.einsum("a,aoc,aod->cd", variances, rows, rows)
        )
        energy = np.square(rows @ precision @ data).sum((1, 2)) / n_times
        information = np.einsum("aoc,cd,aod->a", rows, precision, rows)
        active = variances > 0.1 * variances.max()
        assert 1 <= active.sum() < len(rows) / 4
        np.testing.assert_allclose(energy[active], information[active], rtol=0.03)
        assert (energy <= 1.1 * information).all()  # no other patch would raise the likelihood


def test_many_steps_equal_the_baseline(simulate):
    """The start differs, so a recording with one clear source has the same optimum."""
    batch = simulate([], n_times=6, batch_size=2, snr_db=(15, 15)).batch(0)
    gamma, white, rows = learned_variances(
        make(n_steps=400, n_dense=400, count=0.1, exponent=0.5), batch.data, batch.head
    )
    champagne = SparseBayes("convex", n_steps=4000, tolerance=1e-8)
    for variances, data in zip(gamma, white, strict=True):
        active, learned, _ = champagne.learn(data, rows, rank=len(data) - 1)
        expected = np.zeros(len(rows))
        expected[active] = learned
        np.testing.assert_allclose(variances, expected, atol=0.01 * expected.max())


def test_the_last_steps_take_the_strongest_patches_only(simulate):
    batch = simulate([], n_times=3, batch_size=2).batch(0)
    gamma, *_ = learned_variances(make(n_steps=4, n_dense=2), batch.data, batch.head)
    assert ((gamma > 0).sum(1) == 30).all()
    all_of_them, *_ = learned_variances(make(n_steps=4, n_dense=4), batch.data, batch.head)
    assert (all_of_them > 0).all()


def test_standard_deviation_is_that_of_the_posterior(simulate):
    """Under the variances found, dipoles are normal: the moments have a closed form."""
    batch = simulate([], n_times=2, batch_size=1).batch(0)
    every = {"n_steps": 3, "n_dense": 3, "n_strongest": 168}
    model = make(**every)
    gamma, white, rows = learned_variances(make(**every), batch.data, batch.head)
    with torch.no_grad():
        model = model.double()
        recording = torch.as_tensor(white)
        rank = torch.tensor([white.shape[1] - 1.0])
        noise = mismatch_noise(recording, rank, model.log_mismatch).item()
    gamma, *_ = learned_variances(model, batch.data / noise, batch.head)
    estimate = apply(model.float(), batch.data, batch.head)
    arrays = prepare(model.head_inputs, batch.head)
    moments = arrays[model.moments.key].reshape(2, -1)  # fixed orientation
    pairs, shares = (d.compute(batch.head) for d in PAIRS)
    n_sources = moments.shape[1]
    spread = np.zeros((n_sources, 2, n_sources))  # dipole, radius, centre
    for (source, centre), share in zip(pairs, shares, strict=True):
        spread[source, :, centre] += share * moments[:, centre]
    prior = spread.reshape(n_sources, -1)
    columns = rows[:, 0].T
    covariance = np.diag(gamma[0]) - np.diag(gamma[0]) @ columns.T @ np.linalg.solve(
        np.eye(len(columns)) + columns @ np.diag(gamma[0]) @ columns.T,
        columns @ np.diag(gamma[0]),
    )
    expected = noise * np.sqrt(np.diag(prior @ covariance @ prior.T))
    largest = expected.max()
    np.testing.assert_allclose(
        estimate.std[0, :, 0].numpy(), expected, rtol=1e-3, atol=1e-3 * largest
    )
    mean = covariance @ columns.T @ white[0] / noise
    np.testing.assert_allclose(
        estimate.mean[0].numpy(), noise * prior @ mean, atol=1e-3 * np.abs(estimate.mean).max()
    )


@pytest.mark.parametrize("orientation", ["fixed", "free", "loose"])
def test_symmetries(simulate, orientation):
    batch = simulate([], n_times=4).batch(0)
    head = batch.head if orientation == "fixed" else free(batch.head)
    model = trained(loose=0.3 if orientation == "loose" else 1.0)
    estimate = apply(model, batch.data, head)
    back = apply(model, -batch.data, head)
    assert torch.allclose(estimate.mean, -back.mean)
    assert torch.allclose(estimate.std, back.std)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))[0]
    turned = apply(model, batch.data @ rotation, head).mean
    largest = float(estimate.mean.abs().max())
    assert torch.allclose(turned, estimate.mean @ rotation, rtol=1e-3, atol=1e-3 * largest)
    alone = apply(model, batch.data[2:3], head)
    assert torch.allclose(alone.mean, estimate.mean[2:3], rtol=1e-3, atol=1e-4 * largest)


def test_calibration_keeps_the_number_of_sources(simulate):
    batch = simulate([], n_times=1).batch(0)
    model = make(n_steps=1, n_dense=1)
    found, scaled = (apply(m, batch.data, batch.head) for m in (model, Tempered(model, 2.0)))
    assert torch.equal(scaled.source_counts, found.source_counts)
    assert torch.allclose(scaled.std, 2 * found.std)


def test_more_of_the_strongest_patches_than_there_are(simulate):
    batch = simulate([], n_times=2).batch(0)
    with pytest.raises(ValueError, match=r"n_strongest=500 is more than the 168 patches"):
        apply(make(n_strongest=500), batch.data, batch.head)


def test_silence_is_silence(simulate):
    batch = simulate([], n_times=2).batch(0)
    estimate = apply(trained(), 0 * batch.data, batch.head)
    assert (estimate.mean == 0).all()
    assert torch.isfinite(estimate.std).all()
    assert (estimate.std > 0).all()


def test_every_weight_learns(simulate):
    model = trained().train()
    batch = simulate(model.head_inputs, n_times=3).batch(0)
    estimate, log_counts = model._estimate(batch.data, batch.inputs)
    moments = 1e8 * (estimate.mean.square().sum().sqrt() + estimate.std.sum())
    (moments + count_loss(log_counts, torch.arange(8))).backward()
    assert all(float(p.grad.abs().max()) > 0 for p in model.parameters())


def test_sharpness_follows_the_number_of_sources():
    """Variances relative to the largest get the power ``exp(constant + slope E[log K])``."""
    model = make()
    gamma = torch.tensor([[4.0, 1.0, 0.25]] * 2)
    certain = torch.log(torch.eye(10)[[0, 3]].clamp_min(1e-30))  # one source, four sources
    torch.testing.assert_close(model._sharpened(gamma, certain), gamma)
    model.sharpness.data = torch.tensor([np.log(2.0), -1 / 2]) / FASTER
    expected = torch.stack([4 * (gamma[0] / 4) ** 2, gamma[1]])  # 2 exp(-log(4) / 2) = 1
    torch.testing.assert_close(model._sharpened(gamma, certain), expected)


@pytest.mark.parametrize("condition", [10.0, 1e5])
def test_inverse_by_products(condition):
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    matrix = (vectors * np.geomspace(1, condition, 12)) @ vectors.T
    found = symmetric_inverse(torch.as_tensor(matrix)[None], 14, least=1.0)[0].numpy()
    np.testing.assert_allclose(found, np.linalg.inv(matrix), atol=1e-7)


def test_gradient_of_the_inverse():
    """Also in single precision, where the factors of the last iterations overflow."""
    matrix = (2 * torch.eye(3) + 0.5 * torch.ones(3, 3))[None].requires_grad_()
    symmetric_inverse(matrix, 12, least=1.0)[0, 0, 1].backward()
    inverse = torch.linalg.inv(matrix[0]).detach()
    expected = -torch.outer(inverse[0], inverse[1])
    assert torch.allclose(matrix.grad[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_steps": 2, "n_dense": 3}, "n_dense must be at most n_steps, .* got 3 and 2"),
        ({"exponent": 1.5}, "exponent must be above 0 and at most 1, count positive, got 1.5"),
        ({"count": 0.0}, "count positive, got 1.0 and 0.0"),
        ({"mismatch": 1.0}, "mismatch must be between 0 and 1, got 1.0"),
        ({"single": 0.0}, "single must be between 0 and 1, got 0.0"),
        ({"hidden": 0}, "hidden"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)
