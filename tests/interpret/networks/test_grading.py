"""Grades of attributions: the exact sensitivity, curves and randomized weights."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from benchmarks.shuffled_targets import ShuffledTargets
from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.core.contracts import Estimate
from deepesi.interpret.networks.grading import (
    bayes_log_odds,
    bayes_sensitivity,
    curves,
    rank_correlation,
    with_random_weights,
)
from deepesi.losses.supervised import CosineDistance
from deepesi.losses.transport import PeakTransport
from deepesi.models.convdip import ConvDip
from deepesi.physics.channel_check import channel_precision
from deepesi.physics.head_inputs import PatchTopographies, prepare
from deepesi.physics.noise import whitener


@pytest.fixture(scope="module")
def head(toy):
    return toy.montage_head("biosemi16")


def test_bayes_sensitivity_is_the_derivative_of_the_log_odds(head):
    patches = PatchTopographies(0.03, 0.06, 2)
    topographies = prepare([patches], head)[patches.key].astype(float)
    rng = np.random.default_rng(0)
    data = head.leadfield[:, [7]] * [100e-9, 50e-9] + 1e-6 * rng.standard_normal((16, 2))
    data = head.sensors.reference(data)
    inside = np.linalg.norm(head.source_pos - head.source_pos[7], axis=1) < 0.03
    given = inside, topographies, whitener(head.noise_cov)
    found = bayes_sensitivity(data, *given)
    for row, column in ((0, 0), (5, 1), (11, 0)):
        step = np.zeros_like(data)
        step[row, column] = 1e-9
        slope = bayes_log_odds(data + step, *given) - bayes_log_odds(data - step, *given)
        assert found[row, column] == pytest.approx(slope / 2e-9, rel=1e-4)
    assert bayes_log_odds(data, *given) > bayes_log_odds(0 * data, *given)


def test_rank_correlation_equals_that_of_scipy():
    first, second = np.random.default_rng(0).standard_normal((2, 9)).round(1)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert np.isnan(rank_correlation(first, np.ones(9)))


def test_a_good_order_has_better_curves(head):
    """The explained value depends on two channels only, which the others do not predict."""
    data = np.zeros((16, 1))
    data[[3, 8], 0] = 5e-6, 3e-6
    data = head.sensors.reference(data)
    precision = channel_precision(head)
    own = data[[3, 8], 0].sum()

    def function(batch):
        return (batch[:, [3, 8], 0].sum(1) / own).clip(-1, 1)

    good = np.r_[3, 8, np.setdiff1d(np.arange(16), [3, 8])]
    deleted, inserted = curves(function, data, precision, head.sensors, good)
    worse = curves(function, data, precision, head.sensors, good[::-1])
    assert deleted < worse[0] - 0.2
    assert inserted > worse[1] + 0.2


def test_random_weights_are_the_same_numbers_in_another_order():
    torch.manual_seed(0)
    model = ConvDip(n_dipoles=84, hidden=16)
    shuffled = with_random_weights(model, 1)
    for own, other in zip(model.parameters(), shuffled.parameters(), strict=True):
        torch.testing.assert_close(own.flatten().sort().values, other.flatten().sort().values)
    assert not torch.equal(model.first.weight, shuffled.first.weight)
    again = with_random_weights(model, 1)
    assert torch.equal(again.first.weight, shuffled.first.weight)
    with pytest.raises(ValueError, match="MinimumNorm has no weights. Exchange the target"):
        with_random_weights(MinimumNorm())


def test_shuffled_targets_are_those_of_other_recordings(simulate):
    """The loss is small for the targets of the recording before, for peaks and moments."""
    terms = {"cosine": CosineDistance(), "peaks": PeakTransport()}
    loss = ShuffledTargets(terms, {"cosine": 1.0, "peaks": 1.0})
    batch = simulate(loss.head_inputs, n_times=1).batch(0)
    _, other = loss(Estimate(batch.sources.roll(1, 0)), batch)
    _, own = loss(Estimate(batch.sources), batch)
    for name in ("raw/cosine", "raw/peaks"):
        assert other[name] < 0.3 * own[name]
    assert other["raw/cosine"] == pytest.approx(0, abs=1e-5)
