import numpy as np
import pytest

from deepesi.physics.montage import standard_montage
from deepesi.physics.scalp import displace, fit_to_scalp, project_to_mesh


def test_projection_onto_a_triangle():
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], float)
    points = np.array([[0.2, 0.3, 0.5], [2, -1, 0], [0.5, 0.5, 0], [-1, 0.5, 0]])
    feet = project_to_mesh(points, corners, np.array([[0, 1, 2]]))
    assert np.allclose(feet.positions, [[0.2, 0.3, 0], [1, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0]])
    assert np.allclose(feet.distances, [0.5, np.sqrt(2), 0, 1])
    assert np.allclose(feet.weights.sum(axis=-1), 1)
    assert (feet.weights >= 0).all()


def test_electrodes_lie_on_the_scalp(template):
    names, positions = standard_montage("biosemi64")
    points = template.electrodes(positions, names)
    combined = np.einsum("cv,cvi->ci", points.weights, template.family.scalp_pos[points.vertices])
    assert np.allclose(combined, points.positions)


def test_spherical_template_meets_the_measured_10_20_positions(template):
    """Uniform scaling about the head-frame origin leaves 13 mm; the fit here, 5 mm."""
    names, positions = standard_montage("biosemi64")
    true_names, true_positions = standard_montage("fsaverage_1005")
    placed = template.electrodes(positions, names).positions
    reference = template.electrodes(true_positions, true_names).positions
    common = [n for n in names if n in true_names]
    distance = np.linalg.norm(
        placed[[names.index(n) for n in common]] - reference[[true_names.index(n) for n in common]],
        axis=1,
    )
    assert len(common) > 60
    assert distance.mean() < 0.006


def test_displacement_has_the_mean_length_asked_for(template):
    start = template.montage_head("biosemi64").sensors.positions
    family = template.family
    copies = displace(
        start, family.scalp_pos, family.scalp_faces, 0.005, 200, np.random.default_rng(0)
    )
    steps = np.linalg.norm(copies.positions - start, axis=-1)
    assert steps.mean() == pytest.approx(0.005, rel=0.05)


def test_unknown_montage_lists_the_known():
    with pytest.raises(ValueError, match=r"no montage 'mine'. Known: .*biosemi64"):
        standard_montage("mine")


def test_positions_in_millimetres_are_refused(template):
    names, positions = standard_montage("biosemi32")
    with pytest.raises(ValueError, match="expected 0.05-0.2 m"):
        template.electrodes(1e3 * positions, names)


def test_positions_in_another_frame_are_refused(template):
    names, positions = standard_montage("biosemi32")
    with pytest.raises(ValueError, match="do not fit a scalp"):
        fit_to_scalp(
            positions * [0.5, 1.0, 0.1] + [0.08, 0, 0],
            names,
            template.family.scalp_pos,
            template.family.scalp_faces,
        )


def test_a_single_electrode_off_the_scalp_is_named(template):
    names, positions = standard_montage("biosemi32")
    positions[7] *= 1.6
    with pytest.raises(ValueError, match=rf"electrodes \['{names[7]}'\] lie .* mm off the scalp"):
        template.electrodes(positions, names)
