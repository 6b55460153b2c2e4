"""Electrodes of a recording on a template: by names, head points and size; the sample subject."""

from dataclasses import replace

import mne
import numpy as np
import pytest
from mne.transforms import apply_trans, combine_transforms, invert_transform
from scipy.spatial.transform import Rotation

from deepesi.physics.building.warps import Warp
from deepesi.physics.cap_check import known_electrodes
from deepesi.physics.cap_placement import (
    FAR_FROM_NAMES,
    FEWEST_HEAD_POINTS,
    Placement,
    RecordedCap,
    place_cap,
    positions_of_names,
)
from deepesi.physics.cap_pose import MIDDLE, CapPose, fit_pose, fit_pose_to_scalp
from deepesi.physics.channel_names import ten_five_name
from deepesi.physics.io.channels import good_eeg_channels, head_points, sensor_positions
from deepesi.physics.io.heads import head_on_template, place_recording
from deepesi.physics.montage import standard_montage
from deepesi.physics.noise import whitened_power, whitener
from deepesi.physics.scalp import displace, project_to_mesh
from deepesi.physics.template import load_template
from deepesi.validation.case import Case
from deepesi.validation.sample import sample_cases


def ten_ten(template):
    """Names of a cap of 72 electrodes, and their positions on the template."""
    names = [n for n in standard_montage("easycap-M1")[0] if ten_five_name(n) is not None]
    rows, known = positions_of_names(template, names)
    return [names[row] for row in rows], known.positions


def pitched(degrees, scale=(1.05, 0.96, 0.98), shift=(0.001, -0.006, 0.008)) -> CapPose:
    turn = Rotation.from_euler("x", degrees, degrees=True).as_matrix()
    return CapPose(turn, np.array(scale), MIDDLE + shift, MIDDLE)


def distance(placement: Placement, known) -> float:
    """Mean distance of placed electrodes from their true positions, mm."""
    return 1e3 * float(np.linalg.norm(placement.points.positions - known, axis=1).mean())


def scalp_of_another_head(template, seed, n_points, rng):
    """A warped head: its electrodes at the positions of their names, and points of its scalp."""
    warp, family = Warp.draw(seed), template.family
    names, known = ten_ten(template)
    corners = family.scalp_pos[family.scalp_faces[rng.integers(len(family.scalp_faces), size=900)]]
    points = np.einsum("pv,pvi->pi", rng.dirichlet([1, 1, 1], 900), corners)
    points = points[points[:, 2] > 0.0][:n_points]
    noise = rng.normal(scale=0.0015, size=(len(known) + len(points), 3))
    pose = pitched(rng.normal(-3.5, 5.5))
    worn = pose.recorded(np.concatenate([warp(known), warp(points)])) + noise
    return names, known, worn[: len(known)], worn[len(known) :], pose.pitch


# Poses


def test_a_pose_is_undone_by_its_inverse():
    points = np.random.default_rng(0).normal(scale=0.08, size=(9, 3))
    pose = pitched(-7.0)
    assert np.allclose(pose.on_template(pose.recorded(points)), points)
    assert pose.pitch == pytest.approx(-7)


@pytest.mark.parametrize("degrees", [-10, -3.5, 0, 3])
def test_the_pose_of_names_is_found_in_spite_of_wrong_electrodes(template, degrees):
    _, known = ten_ten(template)
    positions = pitched(degrees).recorded(known)
    positions[5] += [0.03, 0, 0.02]
    found = fit_pose(known, positions)
    assert found.pitch == pytest.approx(degrees, abs=0.5)
    assert np.allclose(found.scale, [1.05, 0.96, 0.98], atol=0.01)


@pytest.mark.parametrize("degrees", [-12, 5])
def test_the_pose_of_a_scalp_is_found_without_names(template, degrees):
    family = template.family
    points = family.scalp_pos[family.scalp_pos[:, 2] > 0][::4]
    found = fit_pose_to_scalp(
        pitched(degrees).recorded(points), family.scalp_pos, family.scalp_faces
    )
    assert found.pitch == pytest.approx(degrees, abs=1)


def test_points_off_the_scalp_do_not_count(template):
    family = template.family
    points = pitched(-6).recorded(family.scalp_pos[family.scalp_pos[:, 2] > 0][::4])
    off = np.concatenate([points, points[:12] + np.array([0, 0, 0.05])])
    clean, spoilt = (
        fit_pose_to_scalp(p, family.scalp_pos, family.scalp_faces) for p in (points, off)
    )
    assert spoilt.pitch == pytest.approx(clean.pitch, abs=0.3)


# By names


@pytest.mark.parametrize("degrees", [-10, 3])
def test_names_undo_pitch_scale_and_shift(template, degrees):
    names, known = ten_ten(template)
    placed = place_cap(template, RecordedCap(names, pitched(degrees).recorded(known)))
    assert placed.method == f"{len(names)} names of the 10-05 system"
    assert placed.pitch == pytest.approx(degrees, abs=0.01)
    assert placed.residual < 5e-4  # the weak prior on equal scales
    assert placed.warnings == []
    assert distance(placed, known) < 0.5


def test_names_come_nearer_to_their_positions_than_scales_and_shifts(template):
    """Every montage of MNE-Python: 1 to 17 mm off by scales and shifts, 0 to 3.5 mm by names."""
    compared = []
    for montage in mne.channels.get_builtin_montages():
        names, positions = standard_montage(montage)
        rows, of_names = positions_of_names(template, names)
        if not rows:
            continue
        named = place_cap(template, RecordedCap(names, positions))
        fitted = template.electrodes(positions, names)
        off, fitted_off = (
            1e3 * np.linalg.norm(p.positions[rows] - of_names.positions, axis=1).mean()
            for p in (named.points, fitted)
        )
        assert off < 3.5, montage
        assert off < fitted_off or fitted_off == 0, montage  # 0: of fsaverage itself
        assert named.warnings == []
        compared.append(montage)
    assert len(compared) >= 10


def test_few_names_are_not_used(template):
    """``C3`` of an ABC layout is another electrode than C3 of the 10-05 system."""
    names, positions = standard_montage("biosemi128")
    assert known_electrodes(names) == ([], [])
    placed = place_cap(template, RecordedCap(names, positions))
    assert placed.method == "scales and shifts"
    assert placed.pitch is None
    expected = template.electrodes(positions, names).positions
    assert np.array_equal(placed.points.positions, expected)


def test_names_on_a_warped_head_are_those_of_its_own_positions():
    warped = load_template("warp9-ico3")
    names, known = ten_ten(warped)
    placed = place_cap(warped, RecordedCap(names, pitched(-5).recorded(known)))
    assert distance(placed, known) < 0.5


def test_a_bad_fit_of_names_is_said(template):
    names, known = ten_ten(template)
    rng = np.random.default_rng(0)
    steps = rng.normal(size=known.shape)
    spoilt = known + 0.014 * steps / np.linalg.norm(steps, axis=1, keepdims=True)
    placed = place_cap(template, RecordedCap(names, spoilt))
    assert placed.residual > FAR_FROM_NAMES
    (line,) = placed.warnings
    assert "placed by 72 names of the 10-05 system they are" in line
    assert "expected at most 10 mm" in line
    assert "--trans" in line


def test_worn_caps_with_ordinary_electrode_errors_give_no_warning(template):
    """7 mm per electrode, more than digitizers and template caps have, on other heads."""
    rng, family = np.random.default_rng(1), template.family
    residuals = []
    for seed in range(1000, 1020):
        names, _, positions, _, _ = scalp_of_another_head(template, seed, 0, rng)
        worn = displace(positions, family.scalp_pos, family.scalp_faces, 0.007, 1, rng)
        residuals.append(place_cap(template, RecordedCap(names, worn.positions[0, 0])).residual)
    assert max(residuals) < FAR_FROM_NAMES


def test_a_head_of_the_users_own_does_not_use_names(template):
    own = replace(template, name="own", source_mni=np.full_like(template.source_mni, np.nan))
    names, known = ten_ten(template)
    positions = pitched(-8, scale=(1, 1, 1), shift=(0, 0, 0)).recorded(known)
    cap = RecordedCap(names, positions, template.family.scalp_pos[::10])
    assert place_cap(own, cap).method == "scales and shifts"


def test_positions_in_millimetres_are_refused(template):
    names, known = ten_ten(template)
    with pytest.raises(ValueError, match="expected 0.05-0.2 m"):
        place_cap(template, RecordedCap(names, 1e3 * known))


@pytest.mark.parametrize("step", [0.0, 0.002])
def test_electrodes_at_one_point_or_on_a_line_are_no_cap(template, step):
    names = [f"E{i}" for i in range(16)]
    positions = np.array([0.0, 0.0, 0.1]) + step * np.outer(np.arange(16), [1.0, 0.0, 0.0])
    for ch_names in (names, standard_montage("10-20-19")[0][:16]):
        with pytest.raises(ValueError, match="all 16 lie within .* mm .* of one point or line"):
            place_cap(template, RecordedCap(ch_names, positions))


def test_an_electrode_off_the_scalp_is_named(template):
    names, known = ten_ten(template)
    positions = known.copy()
    positions[7] *= 1.3
    with pytest.raises(ValueError, match=rf"electrodes \['{names[7]}'\] lie .* mm off the scalp"):
        place_cap(template, RecordedCap(names, positions))


# By head points


def test_head_points_lower_the_error_of_electrodes_without_known_names(template):
    """On 8 warped heads with caps in the poses of real ones."""
    rng = np.random.default_rng(0)
    errors, pitches = [], []
    for seed in range(1000, 1008):
        names, known, positions, points, pitch = scalp_of_another_head(template, seed, 150, rng)
        unknown = [f"E{i}" for i in range(len(names))]
        placed = place_cap(template, RecordedCap(unknown, positions, points))
        assert placed.method == "150 head points"
        fitted = place_cap(template, RecordedCap(unknown, positions))
        errors.append([distance(placed, known), distance(fitted, known)])
        assert placed.pitch is not None
        pitches.append(placed.pitch - pitch)
    mean, fitted_mean = np.mean(errors, axis=0)
    assert mean < 5
    assert mean < 0.75 * fitted_mean
    assert np.sqrt(np.mean(np.square(pitches))) < 3


def test_few_head_points_are_not_used(template):
    names, known = ten_ten(template)
    unknown = [f"E{i}" for i in range(len(names))]
    cap = RecordedCap(unknown, known, template.family.scalp_pos[: FEWEST_HEAD_POINTS - 1])
    assert len(cap.head_points) == 99
    assert place_cap(template, cap).method == "scales and shifts"


# The sample subject of MNE-Python


@pytest.fixture(scope="module")
def cases(sample_data) -> dict[str, Case]:
    return {case.condition: case for case in sample_cases(sample_data)}


@pytest.fixture(scope="module")
def own_scalp(sample_data):
    """Scalp of the subject from her MRI, m, head frame: vertices and faces."""
    subject = sample_data / "subjects/sample/bem/sample-320-320-320-bem.fif"
    scalp = next(s for s in mne.read_bem_surfaces(subject, verbose="error") if s["id"] == 4)
    head_mri = mne.read_trans(sample_data / "MEG_sample/sample_audvis_trunc-trans.fif")
    return apply_trans(invert_transform(head_mri), scalp["rr"]), np.asarray(scalp["tris"], np.int64)


def cap_of(case: Case, points) -> RecordedCap:
    names = good_eeg_channels(case.evoked.info)
    return RecordedCap(names, sensor_positions(case.evoked.info, names), points)


def scanned(case: Case, template, placement: Placement) -> float:
    """Distance of the best single dipole of the strongest sample from the landmark, mm."""
    evoked = case.evoked
    head = head_on_template(evoked.info, case.noise_cov, template, evoked.nave, None, placement)
    white = whitener(head.noise_cov)
    data = white @ head.sensors.reference(evoked.get_data(picks=list(head.sensors.names)))
    inside = (evoked.times >= case.window[0]) & (evoked.times <= case.window[1])
    sample = data[:, np.where(inside, whitened_power(data, 1), 0).argmax()]
    gain = white @ head.leadfield
    best = int(((gain.T @ sample) ** 2 / (gain**2).sum(axis=0)).argmax())
    return float(np.linalg.norm(template.source_mni[best] - case.expectation.landmark))


def test_electrodes_by_anatomy_bring_the_visual_responses_nearer(cases, own_scalp, template):
    """With the scalp of her MRI as head points the left response moves from 29 to 14 mm."""
    found = {}
    for name in ("Left visual", "Right visual"):
        cap = cap_of(cases[name], own_scalp[0])
        fitted = place_cap(template, RecordedCap(cap.ch_names, cap.positions))
        placed = place_cap(template, cap)
        assert placed.pitch == pytest.approx(-9.5, abs=2)
        found[name] = [scanned(cases[name], template, p) for p in (fitted, placed)]
    assert found["Left visual"] == pytest.approx([29.1, 14.1], abs=1)
    assert found["Right visual"] == pytest.approx([27.3, 19.8], abs=1)


def test_her_digitized_head_points_are_too_few(cases, template):
    """They give -4 of -9 degrees of pitch, and move the right visual response off (decision 11)."""
    info = cases["Right visual"].evoked.info
    assert len(head_points(info)) == 78
    placed = place_recording(info, template)
    assert str(placed).startswith("placed by scales and shifts, residual ")
    assert placed.warnings == []


def test_a_fit_to_her_digitized_head_points_brings_the_electrodes_nearer_to_the_anatomy(
    cases, own_scalp, template
):
    """From 13 to 8 mm off the positions that the scalp of her MRI gives; pitch -4 of -9 degrees."""
    case, family = cases["Left visual"], template.family
    cap = cap_of(case, head_points(case.evoked.info))
    on_scalp = np.concatenate([cap.positions, cap.head_points])
    pose = fit_pose_to_scalp(on_scalp, family.scalp_pos, family.scalp_faces)
    points = project_to_mesh(pose.on_template(cap.positions), family.scalp_pos, family.scalp_faces)
    by_anatomy = place_cap(template, cap_of(case, own_scalp[0])).points.positions
    by_fit = 1e3 * np.linalg.norm(points.positions - by_anatomy, axis=1).mean()
    assert by_fit == pytest.approx(8, abs=1)
    assert distance(place_cap(template, cap), by_anatomy) == pytest.approx(13, abs=1)
    assert pose.pitch == pytest.approx(-3.7, abs=1)


def test_the_transform_to_mni_space_places_them_without_a_fit(cases, sample_data, template):
    head_mri = mne.read_trans(sample_data / "MEG_sample/sample_audvis_trunc-trans.fif")
    mri_mni = mne.read_talxfm("sample", sample_data / "subjects", verbose="error")
    head_mni = combine_transforms(head_mri, mri_mni, "head", "mni_tal")
    info = cases["Left visual"].evoked.info
    placed = place_recording(info, template, head_mni)
    assert placed.method == "the transform"
    assert placed.residual < 0.004
    assert placed.pitch == pytest.approx(-9, abs=1)
    turned_round = invert_transform(head_mni)
    again = place_recording(info, template, turned_round).points.positions
    assert np.allclose(again, placed.points.positions, atol=1e-6)
