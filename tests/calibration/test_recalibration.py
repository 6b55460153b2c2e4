"""Recalibration against distributions whose right answer is known."""

import numpy as np
import pytest
import torch

from deepesi.baselines.minimum_norm import BayesianMinimumNorm, MinimumNorm
from deepesi.calibration.intervals import (
    Intervals,
    StandardizedErrors,
    gaussian,
    standardized_errors,
)
from deepesi.calibration.recalibration import fit_balanced, fit_isotonic, fit_temperature
from deepesi.metrics.calibration import LEVELS, coverage, deviation
from deepesi.uncertainty.tempered import Tempered


def posterior(rng, wrong, n=40_000):
    """An exact Gaussian posterior (prior variance 4, noise 1), its deviation times `wrong`."""
    target = 2 * rng.normal(size=n)
    observed = target + rng.normal(size=n)
    return 0.8 * observed, np.full(n, wrong * np.sqrt(0.8)), target


@pytest.mark.parametrize("by", ["likelihood", "coverage"])
@pytest.mark.parametrize("wrong", [0.2, 1.0, 3.0])
def test_wrong_temperature_of_an_exact_posterior_is_found(by, wrong):
    rng = np.random.default_rng(0)
    mean, std, target = posterior(rng, wrong)
    found = fit_temperature(np.abs(mean - target) / std, LEVELS, by)
    assert found == pytest.approx(1 / wrong, rel=0.02)
    mean, std, target = posterior(rng, wrong)
    assert deviation(coverage(mean, found * std, target)).absolute < 0.005


def test_coverage_fits_what_large_errors_hide_from_likelihood():
    error = np.abs(np.random.default_rng(0).normal(size=10_000))
    error[:10] = 1000.0
    assert fit_temperature(error, LEVELS, "coverage") == pytest.approx(1, rel=0.05)
    assert fit_temperature(error, LEVELS, "likelihood") > 30


@pytest.mark.parametrize("tails", ["heavy", "short"])
def test_isotonic_map_makes_coverage_nominal(tails):
    rng = np.random.default_rng(0)
    draw = (
        (lambda n: rng.standard_cauchy(n)) if tails == "heavy" else (lambda n: rng.uniform(size=n))
    )
    fitted = fit_isotonic(np.abs(draw(20_000)), LEVELS)
    fresh = StandardizedErrors(
        np.abs(draw(20_000)), np.ones(20_000), np.zeros(20_000, int), np.ones(20_000)
    )
    before = np.abs(gaussian(LEVELS).coverage(fresh) - LEVELS).mean()
    after = np.abs(fitted.coverage(fresh) - LEVELS).mean()
    assert after < 0.01 < 0.1 < before


def test_gaussian_intervals_count_as_the_metric_does():
    mean, std, target = posterior(np.random.default_rng(0), 0.5, 500)
    observed = standardized_errors(mean, std, target, np.zeros(500, int))
    np.testing.assert_allclose(gaussian(LEVELS).coverage(observed), coverage(mean, std, target))
    twice = gaussian(LEVELS, 2.0).coverage(observed)
    np.testing.assert_allclose(twice, coverage(mean, 2 * std, target))


def recording(rng, n=30_000):
    """Few active sources, found with heavy tails; the rest near zero, deviations too large."""
    group = rng.choice(3, size=n, p=[0.05, 0.15, 0.8])
    target = np.where(group == 0, 10 + rng.normal(size=n), 0.0)
    error = np.select([group == 0, group == 1], [rng.standard_t(2, n), 0.3 * rng.normal(size=n)])
    error = np.where(group == 2, 0.01 * rng.normal(size=n), error)
    return standardized_errors(target + error, np.full(n, 2.0), target, group)


def test_balanced_intervals_cover_every_kind_of_source():
    rng = np.random.default_rng(0)
    fitted, fresh = fit_balanced(recording(rng), LEVELS), recording(rng)
    assert (np.diff(fitted.half_widths, axis=1) >= 0).all()
    for group in range(3):
        own = StandardizedErrors(*(a[fresh.group == group] for a in fresh))
        assert np.abs(fitted.coverage(own) - LEVELS).mean() < 0.03
        assert np.abs(gaussian(LEVELS).coverage(own) - LEVELS).mean() > 0.06
        assert np.abs(fit_isotonic(fresh.error, LEVELS).coverage(own) - LEVELS).mean() > 0.05


def test_exact_zeros_cannot_be_covered_less():
    """A sparse estimate that is right to be zero is inside any interval."""
    observed = standardized_errors(np.zeros(10), np.zeros(10), np.zeros(10), np.full(10, 2))
    assert (gaussian(LEVELS).coverage(observed) == 1).all()
    wrong = standardized_errors(np.zeros(10), np.zeros(10), np.ones(10), np.zeros(10, int))
    assert (gaussian(LEVELS, 1e6).coverage(wrong) == 0).all()
    assert np.isnan(gaussian(LEVELS).coverage(StandardizedErrors(*(a[:0] for a in observed)))).all()


def test_intervals_on_disk_and_between_levels(tmp_path):
    fitted = Intervals(np.array([0.5, 0.9]), np.array([1.0]), np.array([[0.1, 0.3], [2.0, 4.0]]))
    fitted.save(tmp_path / "intervals.json")
    again = Intervals.load(tmp_path / "intervals.json")
    signal = np.array([0.5, 3.0])
    np.testing.assert_allclose(again.at(0.7, signal), [0.2, 3.0])
    np.testing.assert_allclose(again.at(0.9, signal), [0.3, 4.0])
    with pytest.raises(ValueError, match=r"level must be from 0.5 to 0.9, got 0.95"):
        again.at(0.95, signal)


def test_tempered_model_multiplies_its_deviation(simulate):
    model = BayesianMinimumNorm()
    batch = simulate(model.head_inputs).batch(0)
    before, after = (m(batch.data, batch.inputs) for m in (model, Tempered(model, 3.0)))
    assert torch.equal(before.mean, after.mean)
    torch.testing.assert_close(after.std, 3 * before.std)


def test_bad_input_is_refused(simulate):
    silent = Tempered(MinimumNorm("MNE"), 2.0)
    batch = simulate(silent.head_inputs).batch(0)
    with pytest.raises(ValueError, match="MinimumNorm gives no standard deviation.*loss=uncertain"):
        silent(batch.data, batch.inputs)
    with pytest.raises(ValueError, match="there is nothing to recalibrate.*heteroscedas"):
        standardized_errors(np.ones(3), None, np.ones(3), np.zeros(3, int))
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"must be above 0, got {temperature}"):
            Tempered(MinimumNorm("MNE"), temperature)
    with pytest.raises(TypeError, match="needs an inverse model, got str"):
        Tempered("run")
    with pytest.raises(ValueError, match="'likelihood' or 'coverage', got 'hope'"):
        fit_temperature(np.ones(3), LEVELS, "hope")
    for nothing in (np.array([]), np.full(3, np.inf)):
        with pytest.raises(ValueError, match=f"no finite error among {len(nothing)} dipoles"):
            fit_temperature(nothing, LEVELS)
        with pytest.raises(ValueError, match="no finite error"):
            fit_isotonic(nothing, LEVELS)
    alone = StandardizedErrors(np.ones(3), np.ones(3), np.zeros(3, int), np.ones(3))
    with pytest.raises(ValueError, match=r"active, neighbouring and inactive.*got \[3, 0, 0\]"):
        fit_balanced(alone, LEVELS)
