"""Rules of the verdict."""

import numpy as np
import pytest
from scipy.stats import chi2

from deepesi.advice.rules import (
    Compared,
    Error,
    Evidence,
    gains,
    hints,
    noise_probability,
    reasons,
)
from deepesi.advice.study import errors_mm


def evidence(p_noise=1e-6, misfit=(0.2, 0.3, 0.4), p_apart=0.5, medians=(15.0, 16.0, 17.0)):
    expected = {
        name: Error(median, 2 * median)
        for name, median in zip(("net", "eLORETA", "scan"), medians, strict=True)
    }
    compared = tuple(Compared(0.5, 0.2, 0.4, p) for p in misfit)
    return Evidence(p_noise, compared, Compared(90, 20, 60, p_apart), expected)


def test_a_recording_like_those_of_strangers_has_no_reason():
    assert reasons(evidence()) == []
    assert reasons(evidence(misfit=(0.001, 0.005, 0.02))) == []  # three sources may be right
    assert evidence(misfit=(0.001, 0.02, 0.005)).p_misfit == 0.02


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"p_noise": 0.02}, "The peak may be noise: .* in 2 % of such recordings"),
        ({"misfit": (0.009, 0.005, 0.002)}, r"3 leave 50 % .* strangers 20 % \(p = 0.009\)"),
        ({"medians": (31, 10, 10)}, r"31 mm \(median\), 62 mm \(90 %\): more than 30 mm"),
        ({"p_apart": 0.005}, "net, eLORETA, scan lie up to 90 mm apart"),
    ],
)
def test_every_rule_gives_its_reason(changed, text):
    (reason,) = reasons(evidence(**changed))
    with pytest.raises(ValueError, match=text):
        raise ValueError(reason)


def test_hints_name_a_better_method_and_unusual_distances():
    far, better = hints(evidence(medians=(15, 14, 12.9)))
    assert "up to 90 mm apart, in 90 % of strangers up to 60 mm" in far
    assert "than net: scan, 13 mm (median), 26 mm (90 %), instead of 15 mm" in better
    assert len(hints(evidence(p_apart=0.005, medians=(15, 14, 14)))) == 0  # a reason already


def test_p_values_count_the_recording_itself():
    strangers = np.arange(99.0)
    assert Compared.of(100, strangers).p == 0.01
    assert Compared.of(0, strangers).p == 1
    assert Compared.of(89.5, strangers).p == 0.1
    assert Compared.of(100, strangers).strangers_median == 49


def test_noise_is_as_strong_as_chi_squared():
    power, rank = 1.8, 31
    one = chi2.sf(rank * power, rank)
    assert noise_probability(power, rank, 1) == pytest.approx(one, rel=1e-3)
    drawn = np.random.default_rng(0).chisquare(rank, size=(4000, 20)).max(1) / rank
    expected = (drawn >= power).mean()
    assert noise_probability(power, rank, 20) == pytest.approx(expected, abs=0.02)
    assert noise_probability(0.5, rank, 20) == 1
    assert noise_probability(100, rank, 1000) == 0


def test_errors_are_to_the_nearest_true_centre():
    positions = np.array([[0, 0, 0], [0.01, 0, 0], [0.05, 0, 0], [0, 0.03, 0]])
    strongest, peaks = np.array([[1, 3], [2, 0]]), np.array([[0, 2], [3, -1]])
    expected = [[10, 30], [np.hypot(50, 30), 30]]
    np.testing.assert_allclose(errors_mm(positions, strongest, peaks), expected)


def test_gains_compare_the_same_strangers():
    errors = np.r_[np.full(100, 20.0), np.full(100, 90.0)]
    gained = gains(errors, {"a": np.full(100, 18.0), "b": np.full(100, 5.0)})
    assert [(gain.set_up, gain.median_mm, gain.gain_mm) for gain in gained] == [
        ("b", 5, 15),
        ("a", 18, 2),
    ]
