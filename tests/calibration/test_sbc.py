"""Posterior samples against what they are to hold."""

import numpy as np
import pytest
from scipy.stats import norm

from deepesi.calibration.intervals import gaussian, standardized_errors
from deepesi.calibration.sbc import half_width, normal_errors, ranks, uniformity
from deepesi.metrics.calibration import LEVELS


def test_ranks_count_what_lies_below():
    samples = np.arange(9.0)[:, None].repeat(3, axis=1)
    found = ranks(samples, np.array([-1.0, 3.5, 20.0]), np.random.default_rng(0))
    assert found.tolist() == [0, 4, 9]


def test_ties_are_broken_by_chance():
    """A target of zero among zeros and some above: every rank up to the number of zeros."""
    samples = np.r_[np.zeros(4), np.ones(5)][:, None].repeat(5000, axis=1)
    found = ranks(samples, np.zeros(5000), np.random.default_rng(0))
    counts = np.bincount(found)
    assert len(counts) == 5
    assert counts.min() > 900


def test_ranks_of_the_same_distribution_are_uniform_and_of_another_not():
    rng = np.random.default_rng(0)
    samples, target = rng.normal(size=(99, 2000)), rng.normal(size=2000)
    assert uniformity(ranks(samples, target, rng), 99) > 0.01
    assert uniformity(ranks(0.8 * samples, target, rng), 99) < 1e-6
    assert uniformity(ranks(samples + 0.2, target, rng), 99) < 1e-6


def test_p_values_of_uniform_ranks_are_uniform():
    """Also with bins of unequal size: 12 ranks in five bins."""
    rng = np.random.default_rng(0)
    p = [uniformity(rng.integers(0, 12, size=25), 11) for _ in range(2000)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.02)


def test_too_few_ranks():
    with pytest.raises(ValueError, match="uniformity: 9 ranks of 99 samples, expected 10 ranks or"):
        uniformity(np.zeros(9, int), 99)


def test_errors_of_normal_samples_are_those_of_their_deviation():
    rng = np.random.default_rng(0)
    target = np.linspace(-2, 2, 9)
    samples = 3 + 0.5 * rng.normal(size=(20000, 9))
    errors = normal_errors(samples, 3 + 0.5 * target)
    assert errors == pytest.approx(np.abs(target), abs=0.05)
    assert half_width(samples, 0.9) == pytest.approx(0.5 * norm.ppf(0.95), rel=0.03)


def test_an_interval_of_samples_holds_what_its_errors_say():
    """Skewed: the normal interval of mean and deviation would hold another share."""
    rng = np.random.default_rng(0)
    samples, target = rng.exponential(size=(199, 4000)), rng.exponential(size=4000)
    group = np.zeros(4000, int)
    observed = standardized_errors(samples.mean(0), None, target, group, samples)
    assert gaussian(LEVELS).coverage(observed) == pytest.approx(LEVELS, abs=0.02)
    low, high = np.quantile(samples, [0.05, 0.95], axis=0)
    inside = (low <= target) & (target <= high)
    assert (observed.error <= norm.ppf(0.95)).mean() == pytest.approx(inside.mean(), abs=0.01)
    width = 2 * norm.ppf(0.95) * observed.width * target.max()
    assert width == pytest.approx(high - low)
    by_std = standardized_errors(samples.mean(0), samples.std(0), target, group)
    assert np.abs(gaussian(LEVELS).coverage(by_std) - LEVELS).max() > 0.05


def test_ranks_are_those_of_sbi():
    torch = pytest.importorskip("torch")
    sbc = pytest.importorskip("sbi.diagnostics.sbc", reason="needs deepesi[sbi]")
    rng = np.random.default_rng(0)
    target, data = rng.normal(size=(120, 2)), rng.normal(size=(120, 3))
    samples = 1.3 * rng.normal(size=(50, 120, 2))

    class Posterior:
        """Gives samples in the form that sbi asks for."""

        def sample_batched(self, sample_shape, x, show_progress_bars):
            assert sample_shape == (50,)
            assert torch.equal(x, torch.from_numpy(data))
            return torch.from_numpy(samples)

    theirs, _ = sbc.run_sbc(
        torch.from_numpy(target), torch.from_numpy(data), Posterior(), 50, show_progress_bar=False
    )
    assert np.array_equal(ranks(samples, target, rng), theirs.numpy())
