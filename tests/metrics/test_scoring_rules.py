"""Scores against closed forms, quadrature and each other."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from deepesi.core.contracts import PosteriorModel
from deepesi.metrics.scoring_rules import crps_gaussian, crps_samples, energy_score, log_score

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("mean", "std", "target"), [(0, 1, 0.3), (2, 0.5, -1), (-1, 3, 8)])
def test_gaussian_crps_is_the_integral_over_thresholds(mean, std, target):
    """``∫ (F(x) − 1[x ≥ y])² dx``, what the score is defined as."""
    below = quad(lambda x: norm.cdf(x, mean, std) ** 2, -np.inf, target)[0]
    above = quad(lambda x: norm.sf(x, mean, std) ** 2, target, np.inf)[0]
    scores = crps_gaussian(*(np.array([float(v)]) for v in (mean, std, target)))
    assert scores == pytest.approx([below + above], rel=1e-6)


def test_certain_estimates_score_their_absolute_error():
    mean, target = np.array([1.0, 2.0, 0.0]), np.array([1.5, -1.0, 0.0])
    assert crps_gaussian(mean, np.zeros(3), target) == pytest.approx([0.5, 3, 0])
    assert crps_gaussian(mean, np.full(3, 1e-9), target) == pytest.approx([0.5, 3, 0], abs=1e-8)
    assert crps_samples(mean[None], target) == pytest.approx([0.5, 3, 0])
    assert energy_score(mean[None], target) == pytest.approx(np.sqrt(0.25 + 9))


def test_crps_of_draws_is_the_mean_over_pairs():
    samples, target = RNG.normal(size=(7, 4, 3)), RNG.normal(size=(4, 3))
    pairs = np.abs(samples[:, None] - samples[None]).sum(axis=(0, 1)) / (7 * 6)
    expected = np.abs(samples - target).mean(axis=0) - pairs / 2
    assert crps_samples(samples, target) == pytest.approx(expected)
    assert crps_samples(samples[::-1], target) == pytest.approx(expected)


@pytest.mark.parametrize("n_draws", [2, 50])
def test_crps_of_few_draws_is_that_of_the_distribution_on_average(n_draws):
    mean, std, target = 0.4, 1.7, -0.6
    draws = mean + std * RNG.normal(size=(n_draws, 200_000 // n_draws))
    scores = crps_samples(draws, np.full(draws.shape[1], target))
    exact = crps_gaussian(*(np.array([v]) for v in (mean, std, target)))[0]
    assert scores.mean() == pytest.approx(exact, abs=5 * scores.std() / np.sqrt(scores.size))


def test_energy_score_in_one_dimension_is_the_crps():
    samples = RNG.normal(size=(9, 1))
    assert energy_score(samples, np.array([0.3])) == pytest.approx(
        crps_samples(samples, np.array([0.3]))[0]
    )


def test_energy_score_of_a_normal_distribution():
    """``E‖X‖ − E‖X − X'‖ / 2`` of a standard normal in 2 dimensions, scored at its centre."""
    exact = np.sqrt(np.pi / 2) * (1 - np.sqrt(2) / 2)  # means of Rayleigh distributions
    scores = [energy_score(RNG.normal(size=(40, 2)), np.zeros(2)) for _ in range(500)]
    assert np.mean(scores) == pytest.approx(exact, abs=5 * np.std(scores) / np.sqrt(500))


def test_both_scores_are_least_for_the_distribution_that_was_drawn_from():
    """They are proper: neither a shifted, nor a wider, nor a narrower one scores less."""
    target = RNG.normal(size=(4000, 2))
    draws = RNG.normal(size=(64, 4000, 2))
    others = [(0, 1), (0.5, 1), (0, 0.5), (0, 2)]
    crps = [crps_samples(shift + scale * draws, target).mean() for shift, scale in others]
    energy = [
        np.mean(
            [energy_score(shift + scale * draws[:, i], target[i]) for i in range(0, len(target), 4)]
        )
        for shift, scale in others
    ]
    assert np.argmin(crps) == np.argmin(energy) == 0


def test_only_the_energy_score_depends_on_joint_distributions():
    """Draws of one correlation for targets of the other: the same alone, worse together."""
    common = RNG.normal(size=(1000, 1))
    target = np.concatenate([common, common], axis=1)
    draws = RNG.normal(size=(32, 1000, 1))
    together, against = (np.concatenate([draws, sign * draws], axis=2) for sign in (1, -1))
    assert crps_samples(together, target).mean() == pytest.approx(
        crps_samples(against, target).mean(), rel=0.05
    )
    right, wrong = (
        np.mean([energy_score(some[:, i], target[i]) for i in range(1000)])
        for some in (together, against)
    )
    assert wrong > 1.05 * right


class Normal(PosteriorModel):
    """The power of every recording is normal, whatever was measured."""

    head_inputs = ()
    noise_axes = (1,)
    has_density = True

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std

    def sample(self, data, inputs, noise):
        return self.mean + self.std * noise[..., None]

    def target(self, batch):
        return batch.sources.square().sum((1, 2))[None]

    def log_density(self, data, inputs, configuration):
        return torch.distributions.Normal(self.mean, self.std).log_prob(configuration)


def test_log_score_of_a_normal_density(simulate):
    """On average its entropy if mean and variance are those of the targets, else more."""
    batch = simulate([], batch_size=50).batch(0)
    power = batch.sources.double().square().sum((1, 2)).numpy()
    batch = replace(batch, sources=batch.sources / power.mean() ** 0.5)
    target = power / power.mean()
    mean, std = target.mean(), target.std()
    scores = log_score(Normal(mean, std), batch)
    assert scores == pytest.approx(-norm.logpdf(target, mean, std), rel=1e-4)
    least = 0.5 * math.log(2 * math.pi * math.e * std**2)
    assert scores.mean() == pytest.approx(least, rel=1e-4)
    for other in (Normal(mean + std, std), Normal(mean, 2 * std), Normal(mean, std / 2)):
        assert log_score(other, batch).mean() > least + 0.1
