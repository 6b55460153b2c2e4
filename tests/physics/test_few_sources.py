"""Best explanations of topographies by few sources, held to exhaustive search."""

import itertools

import numpy as np
import pytest

from deepesi.physics.few_sources import few_sources


@pytest.fixture(scope="module")
def gain():
    """A lead field of 40 sources of free orientation on 20 channels; neighbours are alike."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(20, 40, 3)).cumsum(axis=1)
    return steps.reshape(20, 120)


def left_by(gain, data, sources):
    """Share of the power that these sources leave, by least squares."""
    columns = np.concatenate([3 * source + np.arange(3) for source in sources])
    fitted = gain[:, columns] @ np.linalg.lstsq(gain[:, columns], data, rcond=None)[0]
    return ((data - fitted) ** 2).sum() / (data**2).sum()


def test_one_source_is_the_best_of_all(gain):
    data = np.random.default_rng(1).normal(size=(70, 20))  # more than are explained at once
    best, left = few_sources(gain, data, 1)
    all_left = np.array([[left_by(gain, d, [s]) for s in range(40)] for d in data])
    np.testing.assert_array_equal(best, all_left.argmin(1))
    np.testing.assert_allclose(left[:, 0], all_left.min(1), rtol=1e-9)


def made_by(gain, n_sources, n, rng):
    """Topographies of some random sources, with a little noise."""
    moments = np.zeros((n, 40, 3))
    for moment in moments:
        moment[rng.choice(40, n_sources, replace=False)] = rng.normal(size=(n_sources, 3))
    clean = moments.reshape(n, 120) @ gain.T
    return clean + 0.1 * clean.std() * rng.normal(size=clean.shape)


def test_two_sources_are_mostly_the_best_pair(gain):
    data = made_by(gain, 2, 20, np.random.default_rng(2))
    left = few_sources(gain, data, 2)[1]
    pairs = list(itertools.combinations(range(40), 2))
    best = np.array([min(left_by(gain, d, pair) for pair in pairs) for d in data])
    assert (left[:, 1] >= best - 1e-9).all()
    assert (left[:, 1] <= 1.01 * best).mean() >= 0.75


def test_three_sources_explain_what_three_sources_made(gain):
    data = made_by(gain, 3, 30, np.random.default_rng(3))
    left = few_sources(gain, data)[1]
    assert left.shape == (30, 3)
    assert (np.diff(left, axis=1) <= 1e-9).all()
    assert np.median(left[:, 2]) < 0.02
    assert np.median(left[:, 0]) > 0.05


def test_the_scale_does_not_matter(gain):
    data = np.random.default_rng(4).normal(size=(5, 20))
    once, again = few_sources(gain, data), few_sources(1e-9 * gain, 1e6 * data)
    np.testing.assert_array_equal(once[0], again[0])
    np.testing.assert_allclose(once[1], again[1], rtol=1e-6)


def test_lead_fields_that_do_not_fit_are_refused(gain):
    with pytest.raises(ValueError, match=r"lead field of shape \(20, 119\).* 3 sources"):
        few_sources(gain[:, 1:], np.ones((1, 20)))
    with pytest.raises(ValueError, match=r"data of shape \(1, 19\).*channels"):
        few_sources(gain, np.ones((1, 19)))
