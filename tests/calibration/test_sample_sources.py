"""Sources of samples, counted by hand on a path of seven vertices."""

import numpy as np
import pytest

from deepesi.calibration.conformal import reach_kernel
from deepesi.calibration.sample_sources import (
    joint_set,
    number_probabilities,
    probability_near,
    source_peaks,
    sources_of,
)

EDGES = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6]])
POSITIONS = np.c_[0.008 * np.arange(7), np.zeros((7, 2))]  # 8 mm apart


def test_sources_are_local_maxima_and_equal_neighbours_count_once():
    magnitudes = np.array(
        [
            [0, 0, 3, 0, 0, 0, 0.0],
            [2, 1, 0, 0, 0, 1, 1.0],
            [0, 0, 0, 0, 0, 0, 0.0],
            [0, 100, 0, 0, 0, 0, 1.0],  # 1 % of the largest is no source
        ]
    )
    found = [np.flatnonzero(row).tolist() for row in source_peaks(magnitudes, EDGES)]
    assert found == [[2], [0, 5], [], [1]]
    assert number_probabilities(source_peaks(magnitudes, EDGES)).tolist() == [0.25, 0.5, 0.25]


def test_dense_samples_count_by_their_strongest_source():
    magnitudes = np.abs(np.random.default_rng(0).normal(size=(50, 7))) + 0.1
    peaks = source_peaks(magnitudes, EDGES)
    assert peaks.sum(axis=1).tolist() == [1] * 50
    assert (magnitudes[peaks] == magnitudes.max(axis=1)).all()
    assert sources_of(magnitudes, POSITIONS, EDGES).count_probabilities is None


def test_probability_of_a_source_within_ten_millimetres():
    peaks = np.zeros((4, 7), dtype=bool)
    peaks[0, 2] = peaks[1, 2] = peaks[2, [0, 6]] = True
    expected = [0.25, 0.75, 0.5, 0.5, 0, 0.25, 0.25]
    assert probability_near(peaks, POSITIONS).tolist() == expected
    assert probability_near(peaks, POSITIONS, 0.001).tolist() == [0.25, 0, 0.5, 0, 0, 0, 0.25]


@pytest.mark.parametrize(("level", "inside"), [(0.4, [2]), (0.8, [0, 2, 5]), (0.95, [0, 2, 4, 5])])
def test_the_joint_set_holds_all_sources_of_a_share_of_the_samples(level, inside):
    """Four times twenty samples: ten at 2, eight at 0 and 5 together, two at 4."""
    peaks = np.zeros((20, 7), dtype=bool)
    peaks[:10, 2] = peaks[10:18, 0] = peaks[10:18, 5] = peaks[18:, 4] = True
    found = joint_set(np.repeat(peaks, 4, axis=0), np.eye(7), level)
    assert np.flatnonzero(found).tolist() == inside
    assert joint_set(peaks[:8], np.eye(7), 0.9).all()  # too few samples


def test_the_joint_set_covers_one_more_configuration_at_its_level():
    """Also where a configuration has far more places than there are samples."""
    rng = np.random.default_rng(0)
    positions = rng.uniform(-0.07, 0.07, size=(300, 3))
    kernel = reach_kernel(positions)
    weights = rng.dirichlet(np.full(300, 0.5))

    def drawn(n):
        peaks = np.zeros((n, 300), dtype=bool)
        for row in peaks:
            row[rng.choice(300, size=2, replace=False, p=weights)] = True
        return peaks

    for level in (0.5, 0.9):
        covered = [
            (drawn(20)[:, ~joint_set(drawn(100), kernel, level)].sum(axis=1) == 0).mean()
            for _ in range(40)
        ]
        assert level - 0.02 <= np.mean(covered) < level + 0.08


def test_a_level_out_of_range():
    with pytest.raises(ValueError, match="joint_set: level must be between 0 and 1, got 90"):
        joint_set(np.ones((2, 7), dtype=bool), np.eye(7), 90)
