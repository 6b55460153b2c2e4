"""Tests of posterior samples, against closed forms of Gaussians and of sbi."""

import numpy as np
import pytest
from scipy.stats import norm

from deepesi.calibration.coverage_tests import (
    c2st,
    c2st_categorical,
    contraction,
    coverage_deviation,
    expected_coverage,
    misspecification_p,
    tarp_p,
    tarp_ranks,
    z_scores,
)


def gaussian_posteriors(width=1.0, shift=0.0, n=400, n_samples=200, seed=0):
    """Prior N(0, 1) in two dimensions, noise 1: posterior N(v / 2, 1 / 2)."""
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(n, 2))
    data = targets + rng.normal(size=(n, 2))
    draws = rng.normal(size=(n_samples, n, 2))
    samples = data / 2 + shift + width * np.sqrt(0.5) * draws
    return samples, targets, rng.normal(size=(n, 2)), rng


def test_tarp_accepts_the_exact_posterior_and_refuses_others():
    samples, targets, references, rng = gaussian_posteriors()
    ranks = tarp_ranks(samples, targets, references)
    assert tarp_p(ranks, 200, rng) > 0.05
    assert coverage_deviation(ranks) < 0.03
    for wrong in ({"width": 0.5}, {"width": 2.0}, {"shift": 0.7}):
        samples, targets, references, rng = gaussian_posteriors(**wrong)
        ranks = tarp_ranks(samples, targets, references)
        assert tarp_p(ranks, 200, rng) < 1e-3
        assert coverage_deviation(ranks) > 0.04


def test_ranks_are_shares_of_samples_nearer_to_the_reference():
    samples = np.array([[[0.5]], [[2.0]], [[3.0]], [[1.0]]])
    assert tarp_ranks(samples, np.array([[1.0]]), np.array([[0.0]])).tolist() == [0.375]
    assert expected_coverage(np.array([0.1, 0.6]), np.array([0.1, 0.5, 1])).tolist() == [
        0.5,
        0.5,
        1,
    ]


def test_p_values_of_the_exact_posterior_are_uniform():
    small = [
        tarp_p(tarp_ranks(*found[:3]), 20, found[3]) < 0.1
        for found in (gaussian_posteriors(n=50, n_samples=20, seed=s) for s in range(400))
    ]
    assert np.mean(small) == pytest.approx(0.1, abs=0.05)


def test_contraction_and_z_scores_of_gaussians():
    samples, targets, _, _ = gaussian_posteriors(n=2000)
    assert contraction(samples, np.ones(2)) == pytest.approx([0.5, 0.5], abs=0.01)
    assert z_scores(samples, targets).std() == pytest.approx(1, abs=0.03)
    assert z_scores(*gaussian_posteriors(width=0.5)[:2]).std() == pytest.approx(2, abs=0.1)


def test_two_sample_tests_have_the_accuracy_of_the_best_classifier():
    """Two normal distributions one deviation apart: it errs with probability Phi(-1/2)."""
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 2000, 1))
    assert c2st(one, other) == pytest.approx(0.5, abs=0.03)
    assert c2st(one, other + 1) == pytest.approx(norm.cdf(0.5), abs=0.03)
    assert c2st(one, other + 20) == 1
    constant = np.zeros_like(one)
    assert c2st(constant, constant) <= 0.6
    with pytest.raises(ValueError, match="expected as many of each"):
        c2st(one, other[:-1])
    assert c2st_categorical(np.array([0.2, 0.8]), np.array([0.2, 0.8])) == 0.5
    assert c2st_categorical(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1
    assert c2st_categorical(np.array([0.6, 0.4]), np.array([0.4, 0.6])) == pytest.approx(0.6)
    with pytest.raises(ValueError, match="c2st_categorical: probabilities sum to 3, expected 1"):
        c2st_categorical(np.array([1.0, 2.0]), np.array([0.5, 0.5]))


def test_a_recording_like_the_others_has_any_p_value_and_an_unlike_one_a_small_one():
    simulated = np.random.default_rng(0).normal(size=99)
    ranks = [misspecification_p(value, simulated) for value in np.sort(simulated)]
    assert ranks == pytest.approx(np.arange(100, 1, -1) / 100)
    assert misspecification_p(50.0, simulated) == 0.01


def test_expected_coverage_is_that_of_sbi():
    torch = pytest.importorskip("torch")
    tarp = pytest.importorskip("sbi.diagnostics.tarp", reason="needs deepesi[sbi]")
    samples, targets, references, _ = gaussian_posteriors(width=0.7)
    theirs, _ = tarp._run_tarp(
        torch.from_numpy(samples).float(),
        torch.from_numpy(targets).float(),
        torch.from_numpy(references).float(),
        num_bins=50,
        z_score_theta=False,
    )
    ours = expected_coverage(tarp_ranks(samples, targets, references))
    assert ours == pytest.approx(theirs.numpy(), abs=0.02)  # they bin ranks
