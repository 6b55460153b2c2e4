"""Transforms of the user: frames, directions, other subjects, and files that are none."""

from dataclasses import replace

import mne
import numpy as np
import pytest
from mne.transforms import Transform, apply_trans, invert_transform

from deepesi.physics.building.own_head import read_own_anatomy
from deepesi.physics.cap_placement import RecordedCap, place_cap
from deepesi.physics.io.head_mri import mri_to_head, read_head_mri, transform_to_template
from deepesi.physics.io.heads import place_recording
from deepesi.physics.montage import eeg_info
from deepesi.physics.template import load_template, save_template


@pytest.fixture(scope="module")
def head_mri(template) -> Transform:
    """From the head frame of fsaverage to its MRI."""
    return Transform("head", "mri", np.linalg.inv(mri_to_head(template)))


@pytest.fixture(scope="module")
def info(template) -> mne.Info:
    """A recording of fsaverage in its own head frame."""
    names, places = template.montage("fsaverage_1020")
    return eeg_info(names, places.positions)


# Frames and directions


def test_the_mri_of_the_packaged_heads_is_mni_space(template):
    mni = apply_trans(np.linalg.inv(mri_to_head(template)), template.source_pos)
    assert np.allclose(1e3 * mni, template.source_mni, atol=0.01)
    assert np.array_equal(mri_to_head(template), mri_to_head(template, from_mni=True))


@pytest.mark.parametrize("frame", ["mri", "mni_tal"])
@pytest.mark.parametrize("inverted", [False, True])
def test_frames_and_both_directions_are_read_off_the_transform(
    template, head_mri, info, frame, inverted
):
    trans = Transform("head", frame, head_mri["trans"])
    trans = invert_transform(trans) if inverted else trans
    placed = place_recording(info, template, trans)
    _, places = template.montage("fsaverage_1020")
    assert np.allclose(placed.points.positions, places.positions, atol=1e-6)
    assert str(placed) == "placed by the transform, residual 0.0 mm, pitch 0.0 degrees"


def test_pitch_and_warning_of_a_transform(template, head_mri, info):
    turn = mne.transforms.rotation(np.radians(4.0))
    turned = Transform("head", "mri", head_mri["trans"] @ turn)
    assert place_recording(info, template, turned).pitch == pytest.approx(-4, abs=0.01)
    outside = np.diag([1.07, 1.07, 1.07, 1.0]) @ head_mri["trans"]
    placed = place_recording(info, template, Transform("head", "mni_tal", outside))
    assert placed.residual > 0.005
    assert "the electrodes do not fit the head well" in placed.warnings[0]


def test_a_transform_to_mni_space_may_scale(template, head_mri, info):
    scaled = np.diag([1.03, 1.02, 0.99, 1.0]) @ head_mri["trans"]
    placed = place_recording(info, template, Transform("head", "mni_tal", scaled))
    assert placed.residual < 0.004
    with pytest.raises(ValueError, match=r"its matrix .* is not rigid .*scale in the subject"):
        transform_to_template(Transform("head", "mri", scaled), template)


@pytest.mark.parametrize("spoil", [np.diag([-1.0, 1, 1, 1]), np.full((4, 4), np.nan)])
def test_a_matrix_that_is_no_transform_is_refused(template, spoil):
    with pytest.raises(ValueError, match="is not affine, without a reflection"):
        transform_to_template(Transform("head", "mni_tal", spoil), template)


@pytest.mark.parametrize(("start", "end"), [("meg", "head"), ("mri", "mni_tal"), ("head", "head")])
def test_other_frames_are_refused(template, start, end):
    with pytest.raises(ValueError, match="expected the MNE head frame and the MRI"):
        transform_to_template(Transform(start, end, np.eye(4)), template)


# Wrong transforms


def test_the_wrong_way_round_is_refused(template, head_mri, info):
    """The matrix from MRI to head, in a file that says head to MRI."""
    wrong = Transform("head", "mri", np.linalg.inv(head_mri["trans"]))
    with pytest.raises(ValueError, match=r"puts the electrodes \d\d mm from .* way round"):
        place_recording(info, template, wrong)


def test_a_transform_in_millimetres_is_refused(template, head_mri, info):
    trans = head_mri["trans"].copy()
    trans[:3, 3] *= 1e3
    with pytest.raises(ValueError, match=r"puts the electrodes \d{5} mm from the scalp"):
        place_recording(info, template, Transform("head", "mri", trans))


def test_electrodes_inside_the_head_are_refused(template, head_mri, info):
    deep = Transform("head", "mni_tal", np.diag([0.9, 0.9, 0.9, 1.0]) @ head_mri["trans"])
    with pytest.raises(ValueError, match=r"a tenth of them \d+ mm or more inside the head"):
        place_recording(info, template, deep)


def test_the_mri_of_another_subject_is_refused(sample_data, template):
    """The MRI of the sample subject in place of that of fsaverage."""
    recording = sample_data / "derived/sample_audvis_short_eegonly-ave.fif"
    info = mne.read_evokeds(recording, 0, proj=False, verbose="error").info
    trans = read_head_mri(sample_data / "MEG_sample/sample_audvis_trunc-trans.fif")
    with pytest.raises(ValueError, match=r"a tenth of them 11 mm or more inside .*another subject"):
        place_recording(info, template, trans)


def test_warped_heads_have_no_mri(head_mri):
    with pytest.raises(ValueError, match="the MRI of the head 'warp9-ico3' is not known"):
        transform_to_template(head_mri, load_template("warp9-ico3"))


# Files


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the name of the file
def test_files_that_are_no_transform_are_refused(tmp_path, sample_data):
    with pytest.raises(FileNotFoundError, match="--trans: there is no file"):
        read_head_mri(tmp_path / "absent-trans.fif")
    text = tmp_path / "x-trans.fif"
    text.write_text("not a transform")
    with pytest.raises(ValueError, match="not a readable transform"):
        read_head_mri(text)
    with pytest.raises(ValueError, match="not a readable transform"):
        read_head_mri(sample_data / "sample_audvis_short-cov.fif")


# A head of the user's own


def test_an_own_head_keeps_the_transform_to_its_mri(template, tmp_path):
    """Recordings of a later session, in another head frame, are placed by their transform."""
    mri_head = np.linalg.inv(mne.transforms.translation(0.001, 0.02, 0.03))
    own = replace(
        template,
        name="own",
        source_mni=np.full_like(template.source_mni, np.nan),
        mri_head=mri_head,
    )
    save_template(tmp_path / "own.npz", own)
    loaded = load_template(tmp_path / "own.npz")
    assert np.allclose(mri_to_head(loaded), mri_head)
    names, places = template.montage("fsaverage_1020")
    assert loaded.head(names, places).own_normals
    assert not template.head(names, places).own_normals
    later = mne.transforms.rotation(0.1, 0.02, 0.0) @ mne.transforms.translation(0, 0.004, 0)
    positions = apply_trans(later, places.positions)
    trans = Transform("head", "mri", np.linalg.inv(mri_head) @ np.linalg.inv(later))
    placed = place_cap(loaded, RecordedCap(names, positions), transform_to_template(trans, loaded))
    assert np.allclose(placed.points.positions, places.positions, atol=1e-6)
    with pytest.raises(ValueError, match="the MNI space of the head 'own' is not known"):
        transform_to_template(Transform("head", "mni_tal", np.eye(4)), loaded)


def test_the_sample_subject_on_her_own_scalp(sample_data, template):
    """Her transform puts the electrodes 1 mm from the scalp of her MRI, any other is refused."""
    files = {
        "bem": sample_data / "subjects/sample/bem/sample-320-320-320-bem.fif",
        "src": sample_data / "derived/sample-oct5-metres-src.fif",
        "trans": sample_data / "MEG_sample/sample_audvis_trunc-trans.fif",
    }
    anatomy = read_own_anatomy(**files, drop_outside=True)
    trans = read_head_mri(files["trans"])
    assert np.allclose(anatomy.mri_head, invert_transform(trans)["trans"])
    scalp, faces = anatomy.scalp
    own = replace(
        template,
        name="sample",
        family=replace(template.family, scalp_pos=scalp, scalp_faces=faces),
        source_mni=np.full_like(template.source_mni, np.nan),
        mri_head=anatomy.mri_head,
    )
    recording = sample_data / "derived/sample_audvis_short_eegonly-ave.fif"
    info = mne.read_evokeds(recording, 0, proj=False, verbose="error").info
    placed = place_recording(info, own, trans)
    assert placed.residual < 0.002
    assert abs(placed.pitch or 0) < 1e-4
    for wrong in (np.eye(4), np.linalg.inv(trans["trans"])):
        with pytest.raises(ValueError, match="puts the electrodes .* mm from the scalp of sample"):
            place_recording(info, own, Transform("head", "mri", wrong))
