"""Filters between electrodes against lead fields at other conductivities of the skull."""

from dataclasses import replace

import numpy as np
import pytest

from deepesi.physics.family import Tissues
from deepesi.physics.head_inputs import SkullFilters, SkullPowers, Whitener
from deepesi.physics.head_inputs.patches import orthonormal_topographies
from deepesi.physics.head_inputs.skull import SHELLS, SOFT, skull_filter
from deepesi.physics.sensors import SensorArray
from deepesi.physics.similarity import rdm
from deepesi.physics.sphere import ShellModel, leadfield


def spread_on_sphere(n):
    """Directions ``(n, 3)`` on a golden spiral over the upper half and some below."""
    z = np.linspace(0.95, -0.4, n)
    angle = np.pi * (1 + 5**0.5) * np.arange(n)
    flat = np.sqrt(1 - z**2)
    return np.stack([flat * np.cos(angle), flat * np.sin(angle), z], axis=1)


def median_rdm(a, b):
    return np.median([rdm(x, y) for x, y in zip(a.T, b.T, strict=True)])


@pytest.mark.parametrize("ratio", [1 / 3, 3])
def test_on_the_sphere_it_is_another_skull(ratio):
    """There it is exact but for what electrodes cannot resolve, whatever the source."""
    electrodes = np.array([0.01, -0.02, 0.03]) + SHELLS[-1] * spread_on_sphere(96)
    sources = np.array([0.01, -0.02, 0.03]) + 0.055 * spread_on_sphere(40)
    nominal, other = (
        leadfield(
            ShellModel(SHELLS, np.array([SOFT, 0.01 * r, SOFT]), np.array([0.01, -0.02, 0.03])),
            electrodes,
            sources,
        )
        for r in (1, ratio)
    )
    nominal, other = (field - field.mean(axis=0) for field in (nominal, other))
    sensors = SensorArray.eeg([str(i) for i in range(len(electrodes))], electrodes)
    filtered = skull_filter(sensors, ratio) @ nominal
    assert median_rdm(other, nominal) > 0.1
    assert median_rdm(other, filtered) < 0.015
    strength = np.linalg.norm(filtered, axis=0) / np.linalg.norm(other, axis=0)
    assert np.median(strength) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("montage", ["biosemi32", "biosemi64", "biosemi128"])
@pytest.mark.parametrize("skull", [0.004, 0.025])
def test_on_the_template_it_removes_most_of_the_mismatch(template, montage, skull):
    names, electrodes = template.montage(montage)
    head = template.head(names, electrodes)
    other = template.family.leadfield(Tissues(skull_conductivity=skull), electrodes)
    filtered = skull_filter(head.sensors, skull / 0.01) @ head.leadfield
    assert median_rdm(other, filtered) < 0.5 * median_rdm(other, head.leadfield)


def test_the_nominal_skull_changes_nothing(toy):
    head = toy.montage_head("biosemi32")
    assert np.allclose(skull_filter(head.sensors, 1.0) @ head.leadfield, head.leadfield)
    filters, powers = SkullFilters().compute(head), SkullPowers().compute(head)
    white = Whitener().compute(head) @ head.leadfield
    assert np.allclose(filters[2] @ white, white)
    assert np.allclose(powers[2].sum(axis=2), 1)


def test_powers_are_those_of_filtered_patches(toy):
    head = toy.montage_head("biosemi32")
    filters = SkullFilters(2.0, 3).compute(head)
    powers = SkullPowers(2.0, 3, 0.03, 0.06, 2).compute(head)
    seen = orthonormal_topographies(head, 0.06) @ filters[0].T
    assert np.allclose(powers[0, 1], seen**2)


def test_four_electrodes_are_enough(toy):
    """Few or coplanar ones define no sphere; what comes out is finite all the same."""
    head = toy.montage_head("biosemi16")
    flat = replace(head.sensors, positions=head.sensors.positions * [1, 1, 0])
    for sensors in (head.sensors[range(4)], flat):
        assert np.isfinite(skull_filter(sensors, 3.0)).all()


@pytest.mark.parametrize("settings", [(0.5, 5), (20.0, 5), (3.0, 4), (3.0, 0)])
def test_ratios_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="widest must be above 1 and at most 10, n_ratios odd"):
        SkullFilters(*settings)
