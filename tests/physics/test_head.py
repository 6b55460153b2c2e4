from dataclasses import replace

import numpy as np
import pytest

from deepesi.physics.head import SourceSpace


@pytest.fixture(scope="module")
def head(toy):
    return toy.montage_head("biosemi16")


def test_projection_and_backprojection_are_adjoint(head):
    rng = np.random.default_rng(0)
    j, v = rng.normal(size=84), rng.normal(size=16)
    assert head.project(j) @ v == pytest.approx(j @ head.backproject(v))


def test_pick_keeps_rows_together(head):
    names = list(reversed(head.sensors.names[:10]))
    picked = head.pick(names)
    assert picked.sensors.names == tuple(names)
    assert np.allclose(picked.sensors.positions, head.sensors.positions[9::-1])
    assert np.allclose(picked.leadfield.sum(axis=0), 0)
    difference = picked.leadfield[0] - picked.leadfield[1]
    assert np.allclose(difference, head.leadfield[9] - head.leadfield[8])


def test_magnitude_is_the_norm_over_orientation_and_rms_over_time(toy):
    head = toy.montage_head("biosemi16")
    values = np.zeros((84, 2))
    values[3] = [3, 4]
    assert head.magnitude(values)[3] == pytest.approx(np.sqrt(12.5))


def test_space_identity_is_in_vertices_and_orientation(toy):
    space = toy.space
    assert SourceSpace(space.name, space.vertices, space.edges).fingerprint == space.fingerprint
    assert SourceSpace(space.name, space.vertices, space.edges, 3).fingerprint != space.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda h: {"sensors": h.sensors[range(15)]},
            r"channel counts disagree: .*'sensors': 15.*pick",
        ),
        (lambda h: {"source_pos": h.source_pos[:-1]}, r"source counts disagree: .*83"),
        (lambda h: {"leadfield": h.leadfield * np.nan}, "leadfield holds NaN"),
        (lambda h: {"leadfield": h.leadfield + 1}, "leadfield has another reference"),
        (lambda h: {"noise_cov": np.eye(16)}, "noise_cov has another reference than its sensors"),
        (lambda h: {"noise_cov": 0 * np.eye(16)}, "noise_cov is no covariance: .* between 0 and 0"),
        (lambda h: {"noise_cov": -h.noise_cov}, "noise_cov is no covariance"),
    ],
)
def test_inconsistent_heads_are_refused(head, change, message):
    with pytest.raises(ValueError, match=message):
        replace(head, **change(head))


def test_pick_names_the_unknown(head):
    with pytest.raises(ValueError, match=r"channels \['Q1'\] are not part"):
        head.pick(["Q1", *head.sensors.names])


def test_orientation_is_one_or_three(toy):
    with pytest.raises(ValueError, match="n_orient must be 1 or 3, got 2"):
        SourceSpace("x", toy.space.vertices, toy.space.edges, 2)
