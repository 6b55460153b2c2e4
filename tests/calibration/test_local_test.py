"""The local two-sample test, against Gaussians in closed form and the statistic of sbi."""

import numpy as np
import pytest

from deepesi.calibration.local_test import local_p, local_statistic


def gaussian_world(shift, n=600, seed=0):
    """Prior N(0, 1), noise 1: posterior N(v / 2, 1 / 2), wrong by `shift` times the recording."""
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(n, 1))
    data = targets + rng.normal(size=(n, 1))
    samples = data / 2 + shift * data + np.sqrt(0.5) * rng.normal(size=(n, 1))

    def observed(value, n_draws=200):
        draws = np.sqrt(0.5) * rng.normal(size=(n_draws, 1))
        return value / 2 + shift * value + draws, np.array([value])

    return targets, samples, data, observed


def best_statistic(value, shift):
    """Statistic of the best classifier, by integration over its samples."""
    grid = np.linspace(-8, 8, 4001) * np.sqrt(0.5)
    weight = np.exp(-(grid**2))
    log_ratio = -(grid**2) + (grid + shift * value) ** 2  # of sample to target, at the samples
    probability = 1 / (1 + np.exp(log_ratio))
    return float((weight * (probability - 0.5) ** 2).sum() / weight.sum())


def test_it_finds_where_the_posterior_is_wrong():
    """It is right near 0 and wrong at 2, with the statistic of the best classifier."""
    targets, samples, data, observed = gaussian_world(0.5, n=6000)
    for value in (0.0, 1.0, 2.0):
        found = local_statistic(targets, samples, data, *observed(value, 4000))
        assert found == pytest.approx(best_statistic(value, 0.5), abs=0.012)
    assert best_statistic(2.0, 0.5) > 0.07


def test_p_values_of_the_right_posterior_are_uniform_and_of_a_wrong_one_small():
    def p_value(shift, value, seed, n, n_trials):
        targets, samples, data, observed = gaussian_world(shift, n, seed)
        rng = np.random.default_rng(seed)
        return local_p(targets, samples, data, *observed(value, 20), rng, n_trials)

    right = [p_value(0.0, 1.0, seed, 40, 4) for seed in range(100)]
    assert np.mean(right) == pytest.approx(0.6, abs=4 * 0.0283)  # uniform on 0.2, 0.4 ... 1
    assert p_value(0.5, 2.0, 0, 600, 39) == 0.025


@pytest.mark.slow
def test_the_statistic_is_that_of_sbi():
    torch = pytest.importorskip("torch")
    lc2st = pytest.importorskip("sbi.diagnostics.lc2st", reason="needs deepesi[sbi]")
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    class Quadratic(LogisticRegression):
        def fit(self, values, labels):
            self.powers = PolynomialFeatures(2, include_bias=False).fit(values)
            self.scale = StandardScaler().fit(self.powers.transform(values))
            return super().fit(self.scale.transform(self.powers.transform(values)), labels)

        def predict_proba(self, values):
            return super().predict_proba(self.scale.transform(self.powers.transform(values)))

    targets, samples, data, observed = gaussian_world(0.5)
    own, recording = observed(1.5)
    tensors = [torch.from_numpy(v).float() for v in (targets, data, samples)]
    theirs = lc2st.LC2ST(*tensors, classifier=Quadratic, classifier_kwargs={"max_iter": 500})
    theirs.train_on_observed_data()
    expected = theirs.get_statistic_on_observed_data(
        torch.from_numpy(own).float(), torch.from_numpy(recording[None]).float()
    )
    found = local_statistic(targets, samples, data, own, recording)
    assert found == pytest.approx(float(expected), rel=1e-3)


def test_one_sample_of_each_recording():
    targets, samples, data, observed = gaussian_world(0.0, n=20)
    with pytest.raises(ValueError, match="got 20 targets, 19 samples and 20 recordings"):
        local_statistic(targets, samples[:-1], data, *observed(0.0))
