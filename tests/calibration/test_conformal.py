"""Prediction sets: the promise of coverage on exchangeable draws, ties, and finite samples."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from deepesi.calibration.conformal import (
    PredictionSets,
    estimated_snr_db,
    min_examples,
    proportion,
    reach_kernel,
    source_scores,
    target_scores,
    threshold,
)
from deepesi.physics.noise import rank_of, whitener


def problem(rng, n, snr_db):
    """Places on a line; the map is a bump whose centre misses the truth, less at higher SNR."""
    positions = np.c_[np.linspace(0, 0.1, 500), np.zeros((500, 2))]
    target = rng.integers(0, 500, n)
    centre = positions[target, 0] + 0.05 * 10 ** (-snr_db / 20) * rng.normal(size=n)
    maps = np.exp(-(((positions[None, :, 0] - centre[:, None]) / 0.01) ** 2))
    return source_scores(maps, reach_kernel(positions)), target


def test_coverage_on_exchangeable_draws_is_in_its_binomial_interval():
    """In every bin, with calibration and test drawn anew many times."""
    rng = np.random.default_rng(0)
    levels, hits, n_draws = (0.0, 10.0, 20.0), np.zeros(3), 40
    snr_db = np.tile(np.repeat(levels, 50), 2)
    for _ in range(n_draws):
        scores, target = problem(rng, 300, snr_db)
        of_truth = target_scores(scores, target[:, None], np.ones((300, 1)))
        sets = PredictionSets.fit(of_truth[:150], snr_db[:150] + rng.random(150), 0.9, 3)
        inside = sets.prediction_sets(scores[150:], snr_db[150:] + rng.random(150))
        inside = inside[np.arange(150), target[150:]]
        hits += [inside[snr_db[150:] == level].sum() for level in levels]
    promised, size = np.ceil(51 * 0.9) / 51, 50 * n_draws
    # The thresholds vary too: their coverage is beta-distributed, as wide as the test's own.
    slack = 3.3 * np.sqrt(promised * (1 - promised) * 2 / size)
    assert (np.abs(hits / size - promised) < slack).all()


def test_threshold_keeps_its_promise_exactly():
    """A new score is not above the threshold with probability ceil((n + 1) level) / (n + 1)."""
    rng = np.random.default_rng(0)
    n, hits, trials = 19, 0, 4000
    for _ in range(trials):
        scores = rng.random(n + 1)
        hits += scores[-1] <= threshold(scores[:-1], 0.9)
    low, high = binom.interval(0.999, trials, 18 / 20)
    assert low <= hits <= high


def test_finite_samples():
    assert min_examples(0.9) == 9
    assert min_examples(0.95) == 19
    assert threshold(np.arange(9.0), 0.9) == 8  # the largest of nine
    assert threshold(np.arange(19.0), 0.9) == 17
    with pytest.raises(
        ValueError, match="8 recordings are too few .* 0.9: it needs 9 or more.*bins"
    ):
        threshold(np.arange(8.0), 0.9)
    with pytest.raises(ValueError, match="7 recordings are too few"):
        PredictionSets.fit(np.arange(14.0), np.arange(14.0), 0.9, 2)


def test_scores_are_cumulative_mass_and_ties_count_together():
    alone = np.eye(5)
    maps = np.sqrt(np.array([[4.0, 2.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0, 3.0]]))
    found = source_scores(maps, alone)
    np.testing.assert_allclose(found[0], [0.4, 0.8, 0.8, 1.0, 1.0])
    np.testing.assert_allclose(found[1], [1, 1, 1, 1, 1])
    np.testing.assert_allclose(source_scores(np.zeros((1, 5)), alone), 1)
    np.testing.assert_allclose(source_scores(1e-9 * maps, alone), found)


def test_far_from_a_sparse_map_nearer_places_come_first():
    positions = np.c_[np.arange(6) * 0.02, np.zeros((6, 2))]
    (scores,) = source_scores(np.array([[1.0, 0, 0, 0, 0, 0]]), reach_kernel(positions))
    assert (np.diff(scores) > 0).all()


def test_what_is_covered_of_several_sources():
    scores = np.array([[0.1, 0.5, 0.9], [0.2, 0.6, 0.7]])
    peaks, moments = np.array([[0, 2], [1, -1]]), np.array([[2.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(target_scores(scores, peaks, moments, "all"), [0.9, 0.6])
    np.testing.assert_allclose(target_scores(scores, peaks, moments, "strongest"), [0.1, 0.6])
    with pytest.raises(ValueError, match="covers must be one of .*strongest.*got 'each'"):
        target_scores(scores, peaks, moments, "each")


@pytest.mark.parametrize("requested", [0.0, 10.0])
def test_estimated_snr_is_that_of_the_simulation(requested, simulate):
    batch = simulate(snr_db=(requested, requested), batch_size=64, n_times=20).batch(0)
    whitened = whitener(batch.head.noise_cov) @ batch.data.double().numpy()
    assert np.median(estimated_snr_db(whitened, rank_of(batch.head.noise_cov))) == pytest.approx(
        requested, abs=0.5
    )
    assert (estimated_snr_db(np.zeros((2, 4, 1)), 3) == -30).all()


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (181, 200)])
def test_proportion_is_clopper_pearson(hits, n):
    expected = binomtest(hits, n).proportion_ci(method="exact")
    assert proportion(hits, n) == pytest.approx((hits / n, expected.low, expected.high))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"0 <= hits <= n and n >= 1, got 3 of 2"):
        proportion(3, 2)
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 90"):
        threshold(np.arange(50.0), 90)
    with pytest.raises(ValueError, match="n_bins must be 1 or more, got 0"):
        PredictionSets.fit(np.arange(20.0), np.arange(20.0), 0.9, 0)
    with pytest.raises(ValueError, match=r"reach must be above 0 \(m\), got 0"):
        reach_kernel(np.zeros((2, 3)), 0)
