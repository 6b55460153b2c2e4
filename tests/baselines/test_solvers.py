"""Solvers meet their optimality conditions, or equal the library that has the method."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import MultiTaskLasso

from deepesi.baselines.beamformer import LCMV
from deepesi.baselines.mixed_norm import MixedNorm
from deepesi.baselines.music import RecursiveMUSIC, signal_subspace
from deepesi.baselines.sparse_bayes import UPDATES, SparseBayes, _posterior
from deepesi.baselines.sparse_regression import SparseRegression
from deepesi.core.contracts import as_tensors
from deepesi.physics.head_inputs import prepare
from deepesi.physics.head_inputs.patches import patch_profiles
from tests.models.free import free

N_CHANNELS, N_SOURCES = 24, 60


def problem(n_orient=1, n_times=5, places=(7, 41), noise=0.0, amplitude=30.0, seed=0):
    """A random lead field of unit order and a recording of a few independent sources."""
    rng = np.random.default_rng(seed)
    gain = rng.normal(size=(N_CHANNELS, N_SOURCES * n_orient))
    gain -= gain.mean(axis=0)
    true = np.zeros((N_SOURCES * n_orient, n_times))
    for place in places:
        direction = rng.normal(size=(n_orient, 1))
        course = rng.normal(size=(1, n_times))
        true[n_orient * place : n_orient * (place + 1)] = (
            amplitude * direction / np.linalg.norm(direction) * course / np.linalg.norm(gain[:, 0])
        )
    white = rng.normal(size=(N_CHANNELS, n_times))
    return gain, gain @ true + noise * (white - white.mean(axis=0)), true


def magnitudes(moments, n_orient):
    return np.linalg.norm(moments.reshape(-1, n_orient, moments.shape[1]), axis=(1, 2))


@pytest.mark.parametrize("n_orient", [1, 3])
@pytest.mark.parametrize("update", UPDATES)
def test_variances_stand_still_where_the_likelihood_does(update, n_orient):
    """``∂ log p(v) / ∂γ = 0`` where ``γ > 0``: energy of the mean is ``γ² tr(gᵀ Σ⁻¹ g)``."""
    gain, recording, _ = problem(n_orient, noise=1.0)
    blocks = gain.T.reshape(-1, n_orient, N_CHANNELS)
    solver = SparseBayes(update, n_steps=3000, tolerance=1e-9)
    active, gamma, noise = solver.learn(recording, blocks, N_CHANNELS)
    mean, taken, _ = _posterior(recording, blocks[active], gamma, noise)
    energy = (mean**2).sum((1, 2)) / recording.shape[1]
    strong = gamma > 0.01 * gamma.max()
    assert energy[strong] == pytest.approx((gamma**2 * taken.sum(1))[strong], rel=0.02)
    assert {7, 41} <= set(active[strong].tolist())


def log_likelihood(recording, blocks, gamma):
    rows = blocks.reshape(-1, N_CHANNELS)
    covariance = rows.T @ (np.repeat(gamma, blocks.shape[1])[:, None] * rows) + np.eye(N_CHANNELS)
    _, determinant = np.linalg.slogdet(covariance)
    fit = (recording * np.linalg.solve(covariance, recording)).sum()
    return -0.5 * (recording.shape[1] * determinant + fit)


@pytest.mark.parametrize("update", ["em", "convex"])
def test_likelihood_never_falls(update):
    gain, recording, _ = problem(noise=1.0)
    blocks = gain.T.reshape(-1, 1, N_CHANNELS)
    course = []
    for n_steps in range(1, 25):
        active, gamma, _ = SparseBayes(update, n_steps=n_steps).learn(recording, blocks, N_CHANNELS)
        course.append(log_likelihood(recording, blocks[active], gamma))
    assert np.diff(course).min() > -1e-3 * np.ptp(course)
    assert course[-1] > course[0]


def test_posterior_equals_the_dense_formula():
    gain, recording, _ = problem(noise=1.0)
    gamma = np.random.default_rng(1).random(N_SOURCES)
    mean, taken, residual = _posterior(recording, gain.T[:, None], gamma, 0.7)
    precision = gain.T @ gain / 0.7 + np.diag(1 / gamma)
    covariance = np.linalg.inv(precision)
    assert np.allclose(mean[:, 0], covariance @ gain.T @ recording / 0.7)
    assert np.allclose(gamma - gamma**2 * taken[:, 0], np.diag(covariance))
    assert np.allclose(residual, recording - gain @ mean[:, 0])


def test_noise_level_is_learned():
    """Eight times the assumed noise: learned within a third from 24 channels, 200 samples."""
    gain, recording, _ = problem(noise=8.0, n_times=200)
    blocks = gain.T.reshape(-1, 1, N_CHANNELS)
    *_, noise = SparseBayes("convex", learn_noise=True, n_steps=500).learn(
        recording, blocks, N_CHANNELS
    )
    assert 64 * 0.67 < noise < 64 * 1.33


def test_lasso_meets_its_optimality_conditions():
    """``|gᵀ (v − G j)| <= n α``, with equality and the sign of ``j`` where ``j`` is not zero."""
    gain, recording, _ = problem(n_times=1, noise=1.0)
    columns = gain / np.linalg.norm(gain, axis=0)
    solver = SparseRegression()
    alpha = 0.05 * np.abs(columns.T @ recording).max() / N_CHANNELS
    fitted = solver._fit(columns, recording, alpha)
    slope = columns.T @ (recording - columns @ fitted) / (N_CHANNELS * alpha)
    active = fitted != 0
    assert np.abs(slope).max() < 1.02
    assert slope[active] == pytest.approx(np.sign(fitted[active]), abs=0.02)


def test_ridge_equals_its_closed_form():
    gain, recording, _ = problem(noise=1.0)
    fitted = SparseRegression(l1_ratio=0.0)._fit(gain, recording, 3.0)
    expected = gain.T @ np.linalg.solve(gain @ gain.T + 3 * np.eye(N_CHANNELS), recording)
    assert np.allclose(fitted, expected)


def test_cross_validation_prefers_what_predicts():
    gain, recording, true = problem(n_times=1, noise=0.5)
    curve = SparseRegression().curve(recording, gain)
    assert curve.n_active[0] == 0
    assert (np.diff(curve.n_active) >= -1).all()
    assert curve.r2[0] <= 0 < curve.r2.max()
    found = SparseRegression().solve(recording, gain, 1, N_CHANNELS).mean
    assert set(np.argsort(-np.abs(found[:, 0]))[:2]) == set(np.flatnonzero(true[:, 0]))


def test_nothing_predictable_is_answered_with_nothing():
    gain, _, _ = problem()
    silence = np.zeros((N_CHANNELS, 3))
    for solver in (SparseRegression(), SparseRegression(l1_ratio=0.0), MixedNorm(), SparseBayes()):
        assert (solver.solve(silence, gain, 1, N_CHANNELS).mean == 0).all()


@pytest.mark.parametrize("n_orient", [1, 3])
def test_mixed_norm_has_the_support_of_the_group_lasso(n_orient):
    gain, recording, _ = problem(n_orient, noise=1.0)
    found = magnitudes(
        MixedNorm(alpha=30.0).solve(recording, gain, n_orient, N_CHANNELS).mean, n_orient
    )
    blocks = gain.reshape(N_CHANNELS, -1, n_orient)
    norms = np.linalg.norm(blocks, axis=(0, 2))
    columns = (blocks / norms[:, None]).reshape(gain.shape)
    largest = magnitudes(columns.T @ recording, n_orient).max()
    if n_orient == 1:
        lasso = MultiTaskLasso(0.3 * largest / N_CHANNELS, fit_intercept=False, tol=1e-8)
        expected = np.flatnonzero(lasso.fit(columns, recording).coef_.any(axis=0))
        assert np.array_equal(np.flatnonzero(found), expected)
    assert {7, 41} == set(np.argsort(-found)[:2].tolist())


@pytest.mark.parametrize("n_orient", [1, 3])
def test_beamformer_finds_a_single_source_and_has_unit_noise_gain(n_orient):
    """Without bias: the output over its noise is largest at the source, wherever that is."""
    for place in range(0, N_SOURCES, 7):
        gain, recording, _ = problem(n_orient, places=(place,), n_times=40)
        found = magnitudes(LCMV().solve(recording, gain, n_orient, N_CHANNELS).mean, n_orient)
        assert found.argmax() == place


def test_beamformer_suppresses_what_does_not_vary_with_the_source():
    """Two independent sources: at either, the time course of the other hardly shows."""
    gain, recording, true = problem(n_times=400)
    found = LCMV().solve(recording, gain, 1, N_CHANNELS).mean
    for own, other in ((7, 41), (41, 7)):
        assert abs(np.corrcoef(found[own], true[own])[0, 1]) > 0.99
        assert abs(np.corrcoef(found[own], true[other])[0, 1]) < 0.15


def test_dipole_scan_is_the_least_residual():
    gain, recording, _ = problem(n_orient=3, n_times=1, noise=2.0)
    found = magnitudes(RecursiveMUSIC(n_sources=1).solve(recording, gain, 3, N_CHANNELS).mean, 3)
    residuals = [
        np.linalg.lstsq(gain[:, 3 * s : 3 * s + 3], recording, rcond=None)[1][0]
        for s in range(N_SOURCES)
    ]
    assert np.flatnonzero(found).tolist() == [int(np.argmin(residuals))]


@pytest.mark.parametrize("n_orient", [1, 3])
def test_music_finds_every_source_and_no_other(n_orient):
    gain, recording, true = problem(n_orient, places=(3, 20, 41), n_times=30, noise=0.1)
    found = RecursiveMUSIC().solve(recording, gain, n_orient, N_CHANNELS).mean
    assert np.flatnonzero(magnitudes(found, n_orient)).tolist() == [3, 20, 41]
    assert np.allclose(found, true, atol=0.1 * np.abs(true).max())


def test_noise_alone_has_one_direction_at_least():
    rng = np.random.default_rng(0)
    found = [signal_subspace(rng.normal(size=(24, 50)), 24).shape[1] for _ in range(50)]
    assert np.mean(found) < 1.2
    assert min(found) == 1


def test_solvers_follow_the_head(simulate):
    """Through the declared inputs of fixed orientation; the posterior comes as `std`."""
    batch = simulate(SparseBayes().head_inputs, n_times=3).batch(0)
    estimate = SparseBayes()(batch.data, batch.inputs)
    assert estimate.mean.shape == estimate.std.shape == batch.sources.shape
    assert torch.isfinite(estimate.std).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SparseBayes("newton"), "update must be one of .*got 'newton'"),
        (lambda: SparseBayes(n_steps=0), "n_steps must be 1 or more"),
        (lambda: SparseRegression(l1_ratio=2.0), "l1_ratio must lie within 0 to 1"),
        (lambda: MixedNorm(alpha=100.0), "alpha must lie between 0 and 100 %"),
        (lambda: RecursiveMUSIC(n_sources=0), "n_sources must be 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("n_orient", [1, 3])
def test_patches_stand_for_the_fields_they_spread(toy, n_orient):
    """A patch alone, without noise, is one basis function, and comes back whole."""
    head = toy.montage_head("biosemi32") if n_orient == 1 else free(toy.montage_head("biosemi32"))
    profile = patch_profiles(head, 0.06)[[20]].toarray()[0]
    direction = np.ones(1) if n_orient == 1 else np.array([0.6, 0.0, 0.8])
    true = 1e-8 * np.kron(profile, direction)
    # Loud, so that the noise the solver expects is nothing beside it.
    quiet = replace(head, noise_cov=1e-8 * head.noise_cov)
    solver = SparseBayes("convex", patches=(0.03, 0.06, 2), n_steps=500)
    inputs = as_tensors(prepare(solver.head_inputs, quiet))
    data = torch.as_tensor(quiet.project(true)[None, :, None]).float()
    mean, std = (a[0, :, 0].double().numpy() for a in solver(data, inputs)[:2])
    assert np.corrcoef(mean, true)[0, 1] > 0.95
    assert (std >= 0).all()
    points = SparseBayes("convex", n_steps=500)
    at_points = points(data, as_tensors(prepare(points.head_inputs, quiet))).mean[0, :, 0].numpy()
    assert np.corrcoef(at_points, true)[0, 1] < 0.9


def test_radii_of_patches_are_three_numbers():
    with pytest.raises(ValueError, match="patches must be a smallest and a largest radius .* got"):
        SparseBayes(patches=(0.01, 0.025))


def test_more_noise_explains_less():
    """The constant of sparse Bayes and of the beamformer makes room for what is not explained."""
    gain, recording, _ = problem(noise=1.0)
    for quiet, loud in (
        (SparseBayes("convex"), SparseBayes("convex", noise=16)),
        (LCMV(), LCMV(noise=1e6)),
    ):
        found = [solver.solve(recording, gain, 1, N_CHANNELS).mean for solver in (quiet, loud)]
        assert not np.allclose(*found)
    left = [
        np.linalg.norm(
            recording
            - gain @ SparseBayes("convex", noise=n).solve(recording, gain, 1, N_CHANNELS).mean
        )
        for n in (1, 16)
    ]
    assert left[0] < left[1]


def test_strength_is_a_share_of_the_largest():
    """Near the largest few components are left, and no cross-validation is made."""
    gain, recording, _ = problem(n_times=1, noise=0.5)
    few, more = (
        np.count_nonzero(
            SparseRegression(strength=share).solve(recording, gain, 1, N_CHANNELS).mean
        )
        for share in (0.8, 0.1)
    )
    assert 1 <= few < more


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: LCMV(noise=0), "LCMV: noise must be positive, got 0"),
        (lambda: SparseBayes(noise=-1), "noise must be positive.*got noise=-1"),
        (lambda: SparseBayes(noise=2, learn_noise=True), "either given or learned, got noise=2"),
        (lambda: SparseRegression(strength=1.0), "strength must lie between 0 and 1, got 1.0"),
    ],
)
def test_constants_out_of_range_are_refused(make, error):
    with pytest.raises(ValueError, match=error):
        make()
