"""The peak on a subject's own head: head frame, MNI position and parcel by FreeSurfer's folder."""

import mne
import nibabel
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.physics.head_inputs import OwnNormals
from deepesi.physics.io.forward_head import forward_head
from deepesi.runtime.writing.subject_anatomy import subject_anatomy
from tests.conftest import make_covariance, make_evoked, write_subject

SUBJECT = "anna"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An evoked response, and a forward solution on two small hemispheres of one subject."""
    monkeypatch.chdir(tmp_path)
    evoked = make_evoked()
    evoked.save("x-ave.fif", verbose="error")
    make_covariance(evoked.info).save("x-cov.fif", verbose="error")
    sphere = mne.make_sphere_model("auto", "auto", evoked.info, verbose="error")
    parts = []
    for side in (-1, 1):
        rng = np.random.default_rng(5)
        normals = rng.normal(size=(30, 3)) * [1, 2, 2] + [2 * side, 0, 1]
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        parts.append({"rr": 0.07 * normals + sphere["r0"], "nn": normals})
    spaces = [
        mne.setup_volume_source_space(pos=pos, sphere_units="m", verbose="error")[0]
        for pos in parts
    ]
    for number, space in enumerate(spaces):
        space.update(type="surf", id=101 + number, subject_his_id=SUBJECT)
        space.update(use_tris=np.array([[0, 1, 2]]), nuse_tri=1, ntri=1, tris=np.array([[0, 1, 2]]))
    forward = mne.make_forward_solution(
        evoked.info, None, mne.SourceSpaces(spaces), sphere, meg=False, verbose="error"
    )
    mne.write_forward_solution("x-fwd.fif", forward, overwrite=True, verbose="error")
    return tmp_path


def make_subject(folder):
    """A Talairach transform that doubles and shifts, and two parcels in every hemisphere."""
    write_subject(folder / SUBJECT, "2 0 0 1\n0 2 0 2\n0 0 2 3")


def apply(*more):
    main(
        [
            "apply",
            "eloreta",
            "x-ave.fif",
            "--noise-cov",
            "x-cov.fif",
            "--forward",
            "x-fwd.fif",
            "--out",
            "o",
            *more,
        ]
    )


def test_without_the_folder_the_position_is_in_the_head_frame(folder, capsys):
    apply()
    printed = capsys.readouterr().out
    place = printed.split("strongest source there: ")[1].split("\n")[0]
    source = mne.read_source_estimate("o")
    assert "mm in the head frame" in place
    assert "MNI" not in place
    forward = mne.read_forward_solution("x-fwd.fif", verbose="error")
    x, y, z = (float(v) for v in place.split("at (")[1].split(")")[0].split(","))
    hits = np.linalg.norm(1e3 * forward["source_rr"] - [x, y, z], axis=1) < 1
    assert hits.sum() == 1
    sample = np.abs(source.data[hits]).argmax()
    assert np.abs(source.data[:, sample]).argmax() == np.flatnonzero(hits)[0]


@pytest.mark.parametrize(("subject", "own"), [(SUBJECT, True), ("fsaverage", False), (None, False)])
def test_normals_are_her_own_unless_the_cortex_is_that_of_fsaverage(folder, subject, own):
    forward = mne.read_forward_solution("x-fwd.fif", verbose="error")
    info = mne.io.read_info("x-ave.fif", verbose="error")
    for part in forward["src"]:
        part["subject_his_id"] = subject
    head = forward_head(info, forward, {"eeg"})
    assert head.own_normals is own
    assert head.pick(head.sensors.names[:8]).own_normals is own
    assert OwnNormals().compute(head).tolist() == [float(own)]


def test_mni_by_the_transform_of_the_subject(folder, capsys):
    make_subject(folder)
    forward = mne.read_forward_solution("x-fwd.fif", verbose="error")
    found = subject_anatomy(forward, folder)
    expected = mne.head_to_mni(
        forward["source_rr"], SUBJECT, forward["mri_head_t"], folder, verbose="error"
    )
    np.testing.assert_allclose(found.mni, expected)
    assert found.parcels == ()
    apply("--subjects-dir", str(folder))
    assert ", MNI (" in capsys.readouterr().out


def test_parcels_of_the_subject(folder, monkeypatch, capsys):
    """Every vertex of the left hemisphere lies in one parcel; half of the right in none."""
    make_subject(folder)
    labels = folder / SUBJECT / "label"
    labels.mkdir()
    forward = mne.read_forward_solution("x-fwd.fif", verbose="error")
    for hemi, n_inside in (("lh", 30), ("rh", 15)):
        of_vertex = np.where(np.arange(30) < n_inside, 0, -1)
        nibabel.freesurfer.write_annot(
            labels / f"{hemi}.aparc.annot", of_vertex, np.array([[9, 8, 7, 0, 0]]), ["insula"]
        )
    found = subject_anatomy(forward, folder)
    assert found.parcels == ("insula",) * 45 + ("",) * 15
    apply("--subjects-dir", str(folder))
    assert ", parcel " in capsys.readouterr().out


def test_a_subject_that_is_not_there(folder):
    with pytest.raises(SystemExit, match=r"there is no .*anna.*talairach.xfm"):
        apply("--subjects-dir", str(folder))
    with pytest.raises(SystemExit, match="--subjects-dir needs --forward, the forward solution of"):
        main(
            [
                "apply",
                "eloreta",
                "x-ave.fif",
                "--noise-cov",
                "x-cov.fif",
                "--subjects-dir",
                ".",
                "--out",
                "o",
            ]
        )
