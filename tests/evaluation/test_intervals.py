"""Intervals hold what they say, by simulation; where methods are alike, none is marked."""

import numpy as np
import pytest
from scipy import stats

from deepesi.evaluation.intervals import (
    MIN_DIFFERENT,
    MIN_EXAMPLES,
    beats_all_others,
    bootstrap_interval,
    differences,
    simultaneous_intervals,
)
from tests.conftest import slow

#: Simulated runs, and three standard errors of a share of 95 % of them.
N_RUNS = 2000
MONTE_CARLO = 3 * np.sqrt(0.95 * 0.05 / N_RUNS)
LOWER = np.array([False])


def coverage(intervals, mean):
    return float(np.mean((intervals[0] <= mean) & (mean <= intervals[1])))


@pytest.mark.parametrize("spread", [0.5, 0.8])
@pytest.mark.parametrize("n", [20, 30, 40, 200])
def test_interval_of_skewed_errors_holds_its_level(n, spread):
    """Lognormal errors as localization errors are; the percentile interval falls short of it."""
    rng, mean = np.random.default_rng(n), np.exp(spread**2 / 2)
    held = [  # one set of resamples would serve all runs alike
        coverage(bootstrap_interval(rng.lognormal(0, spread, size=(n, N_RUNS // 8)), seed), mean)
        for seed in range(8)
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=MONTE_CARLO)


def test_percentile_intervals_do_not():
    """The earlier interval, by scipy: it misses the mean of 20 errors in one run of ten."""
    errors = np.random.default_rng(20).lognormal(0, 0.5, size=(20, N_RUNS))
    found = stats.bootstrap(
        (errors,), np.mean, n_resamples=500, method="percentile", axis=0, rng=0
    ).confidence_interval
    assert coverage((found.low, found.high), np.exp(0.5**2 / 2)) < 0.95 - MONTE_CARLO


def test_interval_of_normal_values_is_students():
    values = np.random.default_rng(0).normal(3, 1, size=200)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert bootstrap_interval(values) == pytest.approx(np.array(expected), abs=0.02)


def test_errors_that_are_mostly_zero_have_a_finite_interval():
    """A loud recording is localized exactly but for one of 40; resamples without it are alike."""
    errors = np.zeros(40)
    errors[3] = 12.0
    low, high = bootstrap_interval(errors)
    assert np.isfinite([low, high]).all()
    assert high > 2 * errors.mean()


@pytest.mark.parametrize("n", [3, MIN_EXAMPLES - 1])
def test_too_few_examples_have_no_interval(n):
    values = np.random.default_rng(0).lognormal(size=(n, 2))
    assert np.isnan(bootstrap_interval(values)).all()
    assert np.isnan(simultaneous_intervals(values)).all()
    assert not beats_all_others(np.stack([values, values + 100]), np.array([False, False])).any()


def test_what_is_not_known_is_no_example():
    values = np.random.default_rng(0).lognormal(size=(60, 2))
    values[20:, 1] = np.nan
    assert np.isfinite(bootstrap_interval(values)).all()
    values[MIN_EXAMPLES - 1 :, 1] = np.nan
    assert np.isfinite(bootstrap_interval(values)).all(axis=0).tolist() == [True, False]


def test_values_that_are_all_alike_have_no_interval():
    assert np.isnan(bootstrap_interval(np.full(100, 0.1))).all()


@pytest.mark.parametrize("n", [20, slow(60), slow(200)])
@pytest.mark.parametrize("n_columns", [1, 8])
def test_of_five_equal_methods_none_is_best(n, n_columns):
    """In at most 5 % of the runs any is marked in any column of the table."""
    rng, n_runs = np.random.default_rng(n + n_columns), 300
    lower = np.zeros(n_columns, dtype=bool)
    marked = [
        beats_all_others(rng.lognormal(0, 0.7, size=(5, n, n_columns)), lower).any()
        for _ in range(n_runs)
    ]
    assert np.mean(marked) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_runs)


@pytest.mark.parametrize("n", [20, slow(60), slow(200)])
def test_of_five_equal_methods_none_differs_from_the_reference(n):
    """Nor in the table of differences, over four methods and four metrics together."""
    rng, n_runs = np.random.default_rng(n), 300
    false = 0
    for _ in range(n_runs):
        # Examples are harder or easier for all methods, many errors are 0.
        hard = rng.lognormal(0, 0.5, size=(1, n, 1))
        errors = hard * rng.lognormal(0, 0.5, size=(5, n, 4)) * (rng.random((5, n, 4)) < 0.7)
        low, high = differences(errors, 0)
        false += bool(((low > 0) | (high < 0)).any())
    assert false / n_runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_runs)


def test_a_better_method_is_found():
    rng = np.random.default_rng(0)
    errors = rng.lognormal(0, 0.5, size=(5, 200, 1))
    errors[2] *= 0.5
    assert np.flatnonzero(beats_all_others(errors, LOWER)).tolist() == [2]
    assert not beats_all_others(errors, ~LOWER).any()  # where higher is better, it is the worst
    low, high = differences(errors, 0)
    assert high[2, 0] < 0
    assert np.isnan([low[0, 0], high[0, 0]]).all()
    assert (low[[1, 3, 4]] < 0).all()
    assert (high[[1, 3, 4]] > 0).all()


def test_two_that_are_better_share_no_mark():
    errors = np.random.default_rng(0).lognormal(0, 0.5, size=(3, 100, 1))
    errors[2] *= 5
    assert not beats_all_others(errors, LOWER).any()


def test_an_interval_that_touches_0_is_no_win():
    """The same difference in every example but zeros: the low end at 0 tells nothing."""
    better = np.zeros((2, 100, 1))
    better[1, : MIN_DIFFERENT - 1] = 1.0  # too few differ
    assert not beats_all_others(better, LOWER).any()
    assert np.isnan(differences(better, 0)).all()
    better[1, :60] = 1.0
    assert beats_all_others(better, LOWER)[0, 0]


def test_one_method_alone_is_not_best():
    assert not beats_all_others(np.random.default_rng(0).random((1, 50, 2)), LOWER).any()


def test_more_comparisons_make_wider_intervals():
    paired = np.random.default_rng(0).normal(size=(100, 300))
    one, many = simultaneous_intervals(paired[:, :1]), simultaneous_intervals(paired)
    assert many[1, 0] - many[0, 0] > 1.4 * (one[1, 0] - one[0, 0])


def test_blocks_of_columns_are_one_family(monkeypatch):
    paired = np.random.default_rng(0).normal(size=(50, 30))
    whole = simultaneous_intervals(paired)
    monkeypatch.setattr("deepesi.evaluation.intervals.BLOCK", 7)
    assert simultaneous_intervals(paired) == pytest.approx(whole)
