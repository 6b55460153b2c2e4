"""Sensors of every kind: reference, units, positions; no module above asks for the kind."""

from dataclasses import replace

import mne
import numpy as np
import pytest

from deepesi.physics.data_check import check_data
from deepesi.physics.head import HeadModel
from deepesi.physics.io.covariance import noise_covariance
from deepesi.physics.linear_inverse import linear_inverse
from deepesi.physics.noise import rank_of, white_noise_cov, whitener
from deepesi.physics.sensors import KINDS, SensorArray, average_reference


def positions(n, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 3))
    return 0.1 * points / np.linalg.norm(points, axis=1, keepdims=True)


def mixed(n_eeg=10, n_positions=4):
    """EEG, and Neuromag triplets whose three coils share a position."""
    coils = np.repeat(positions(n_positions, 1), 3, axis=0)
    kinds = ("eeg",) * n_eeg + ("mag", "grad", "grad") * n_positions
    normals = np.r_[np.zeros((n_eeg, 3)), coils / np.linalg.norm(coils, axis=1, keepdims=True)]
    names = tuple(f"{kind} {i}" for i, kind in enumerate(kinds))
    return SensorArray(names, kinds, np.r_[positions(n_eeg), coils], normals)


def test_reference_of_eeg_is_the_average():
    sensors = SensorArray.eeg([str(i) for i in range(10)], positions(10))
    data = np.random.default_rng(2).normal(size=(10, 6))
    assert np.array_equal(sensors.reference(data), average_reference(data))
    assert np.array_equal(sensors.reference(data.T, axis=1), average_reference(data.T, axis=1))
    assert sensors.rank == 9
    assert np.linalg.matrix_rank(sensors.reference_operator) == 9


def test_reference_of_meg_is_none():
    sensors = mixed()[range(10, 22)]
    data = np.random.default_rng(2).normal(size=(12, 6))
    assert np.array_equal(sensors.reference(data), data)
    assert np.array_equal(sensors.reference_operator, np.eye(12))
    assert sensors.rank == 12


@pytest.mark.parametrize("axis", [0, 1])
def test_reference_of_both_is_that_of_each(axis):
    sensors, data = mixed(), np.random.default_rng(2).normal(size=(22, 22))
    found = np.moveaxis(sensors.reference(data, axis), axis, 0)
    before = np.moveaxis(data, axis, 0)
    assert np.allclose(found[:10], average_reference(before[:10]))
    assert np.array_equal(found[10:], before[10:])
    assert np.allclose(sensors.reference_operator @ data, sensors.reference(data))
    assert sensors.rank == 21


def test_reference_to_some_of_the_channels():
    sensors, data = mixed(), np.random.default_rng(2).normal(size=(22, 5))
    found = sensors.reference_to([1, 3, 4, 12]) @ data
    assert np.allclose(found[:10], data[:10] - data[[1, 3, 4]].mean(axis=0))
    assert np.array_equal(found[10:], data[10:])
    assert np.allclose(sensors.reference_to(range(22)), sensors.reference_operator)
    assert np.array_equal(sensors.reference_to([12, 13]), np.eye(22))


def test_picked_sensors_keep_their_kinds_together():
    sensors = mixed()
    some = sensors[[12, 0, 10]]
    assert some.kinds == ("grad", "eeg", "mag")
    assert some.names == (sensors.names[12], sensors.names[0], sensors.names[10])
    assert np.array_equal(some.positions, sensors.positions[[12, 0, 10]])
    assert some.units == ("T/m", "V", "T")


def test_a_head_of_coils_needs_no_reference(toy):
    """Lead field, noise and inverse keep their full rank: nothing takes a dimension away."""
    sensors = mixed()[range(10, 22, 3)]  # magnetometers
    rng = np.random.default_rng(3)
    head = HeadModel.referenced(
        leadfield=1e-7 * rng.normal(size=(4, 84)),
        noise_cov=white_noise_cov(sensors, 1e-14),
        sensors=sensors,
        source_pos=toy.source_pos,
        source_normals=toy.source_normals,
        space=toy.space,
    )
    assert rank_of(head.noise_cov) == 4
    assert np.allclose(whitener(head.noise_cov), 1e14 * np.eye(4))
    gain = 1e14 * head.leadfield
    signal = 4 / np.trace(gain @ gain.T) * gain @ gain.T
    expected = 4 / np.trace(gain @ gain.T) * gain.T @ np.linalg.inv(signal + 0.1 * np.eye(4)) * 1e14
    assert np.allclose(linear_inverse(head.leadfield, head.noise_cov, 0.1, "MNE"), expected)
    picked = head.pick(sensors.names[:2])
    assert np.array_equal(picked.leadfield, head.leadfield[:2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"kinds": s.kinds[1:]}, r"channel counts disagree: .*'kinds': 21.*one kind"),
        (lambda s: {"names": ("A", *s.names[1:-1], "A")}, r"names repeat: \['A'\]"),
        (lambda s: {"kinds": ("ecg", *s.kinds[1:])}, r"kinds \['ecg'\] unknown, .*'eeg', 'mag'"),
        (lambda s: {"positions": s.positions * np.nan}, "positions hold NaN"),
        (
            lambda s: {"positions": s.positions[[0, *range(21)]]},
            r"EEG sensors at the same position \(within 1 mm\): \[\('eeg 0', 'eeg 1'\)\]",
        ),
    ],
)
def test_inconsistent_sensors_are_refused(change, message):
    sensors = mixed()
    with pytest.raises(ValueError, match=message):
        replace(sensors, **change(sensors))


@pytest.mark.parametrize("kind", KINDS)
def test_amplitudes_are_checked_in_the_unit_of_each_kind(kind):
    sensors, low_high = mixed(), KINDS[kind].amplitude
    usual = np.array([np.sqrt(np.prod(KINDS[k].amplitude)) for k in sensors.kinds])
    data = usual[:, None] * np.random.default_rng(4).normal(size=(22, 30))
    check_data(data, sensors)
    rows = sensors.rows_of(kind)
    for factor, guess in ((10 * low_high[1], KINDS[kind].too_large), (low_high[0] / 10, "flat")):
        wrong = data.copy()
        wrong[rows] *= factor / usual[rows[0]]
        with pytest.raises(ValueError, match=f"{KINDS[kind].title} in .* look like .*{guess}"):
            check_data(wrong, sensors)
        cov = mne.Covariance(wrong.var(axis=1), list(sensors.names), [], [], 1000, verbose="error")
        with pytest.raises(ValueError, match=f"{KINDS[kind].title} in .* Covariances are in"):
            noise_covariance(cov, sensors, 1)
