"""Placement of the electrodes on a packaged head in ``apply``, ``prepare``, Python; --trans."""

import mne
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.physics.io.head_mri import mri_to_head
from deepesi.runtime.inverse import Inverse, PlacementWarning
from tests.conftest import make_covariance, make_evoked

BY_NAMES = "placed by 32 names of the 10-05 system, residual 3.4 mm, pitch 2.2 degrees"
BY_TRANSFORM = "placed by the transform, residual 0.0 mm, pitch 5.7 degrees"


@pytest.fixture(scope="module")
def eloreta(toy_path, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "e.onnx"
    main(
        ["export", "eloreta", "--head", str(toy_path), "--montage", "biosemi16", "--out", str(path)]
    )
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch, template):
    """``x-ave.fif``, ``x-cov.fif``, and ``fs-ave.fif`` with ``fs-trans.fif`` in another frame."""
    monkeypatch.chdir(tmp_path)
    evoked = make_evoked()
    evoked.save("x-ave.fif", verbose="error")
    make_covariance(evoked.info).save("x-cov.fif", verbose="error")
    evoked.set_montage(montage_of(evoked.ch_names, template, 0.1), verbose="error")
    evoked.save("fs-ave.fif", verbose="error")
    head_mri = np.linalg.inv(mri_to_head(template)) @ np.linalg.inv(mne.transforms.rotation(0.1))
    trans = mne.Transform("head", "mri", head_mri)
    mne.write_trans("fs-trans.fif", trans, verbose="error")
    return tmp_path


def montage_of(names, template, turn):
    """The places of names on the template, in a head frame that is pitched, rad."""
    known, places = template.montage("fsaverage_1005")
    positions = places.positions[[known.index(name) for name in names]]
    turned = mne.transforms.apply_trans(mne.transforms.rotation(turn), positions)
    return mne.channels.make_dig_montage(dict(zip(names, turned, strict=True)), coord_frame="head")


def command(name, model, toy_path, *more):
    start = [name, str(model)]
    main([*start, *more, "--noise-cov", "x-cov.fif", "--head", str(toy_path)])


def test_apply_says_how_the_electrodes_were_placed(eloreta, folder, toy_path, capsys):
    command("apply", eloreta, toy_path, "x-ave.fif", "--out", "stc")
    assert f"electrodes: {BY_NAMES}\n" in capsys.readouterr().out


def test_a_transform_places_them_exactly(eloreta, folder, toy_path, capsys):
    more = ("fs-ave.fif", "--trans", "fs-trans.fif")
    command("apply", eloreta, toy_path, *more, "--out", "stc")
    assert f"electrodes: {BY_TRANSFORM}\n" in capsys.readouterr().out
    command("prepare", eloreta, toy_path, *more, "--nave", "4", "--out", "head.npz")
    assert f"electrodes: {BY_TRANSFORM}\n" in capsys.readouterr().out
    main(["apply", str(eloreta), "fs-ave.fif", "--prepared", "head.npz", "--out", "live"])
    assert f"({BY_TRANSFORM})" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--trans", "absent-trans.fif"), "there is no file absent-trans.fif"),
        (("--trans", "x-cov.fif"), "x-cov.fif: not a readable transform"),
        (("--trans", "fs-trans.fif"), "puts the electrodes .* mm from the scalp"),
    ],
)
def test_a_wrong_transform_ends_apply_before_any_file_is_written(
    eloreta, folder, toy_path, more, message
):
    mne.write_trans(
        "fs-trans.fif", mne.Transform("head", "mri", np.eye(4)), overwrite=True, verbose="error"
    )
    with pytest.raises(SystemExit, match=message):
        command("apply", eloreta, toy_path, "x-ave.fif", *more, "--out", "stc")
    assert not list(folder.glob("stc*"))


@pytest.mark.parametrize(
    ("other", "message"),
    [("--forward", "--forward contains the transform"), ("--prepared", "leave .*--trans")],
)
def test_a_transform_beside_a_placed_cap_is_refused(eloreta, folder, other, message):
    arguments = ["apply", str(eloreta), "x-ave.fif", "--trans", "fs-trans.fif", "--out", "stc"]
    with pytest.raises(SystemExit, match=message):
        main([*arguments, other, "some.fif"])


def test_python_takes_the_transform_and_warns_of_a_bad_fit(eloreta, folder, toy_path, template):
    inverse = Inverse.load(eloreta, head=toy_path)
    evoked = mne.read_evokeds("fs-ave.fif", 0, verbose="error")
    covariance = make_covariance(evoked.info)
    trans = mne.read_trans("fs-trans.fif")
    placement = inverse.for_recording(evoked, covariance, trans=trans).placement
    assert placement is not None
    assert placement.method == "the transform"
    with pytest.raises(TypeError, match="trans is a str, expected an mne.Transform"):
        inverse.apply(evoked, covariance, trans="fs-trans.fif")
    inflated = mne.Transform("head", "mni_tal", np.diag([1.07] * 3 + [1.0]) @ trans["trans"])
    with pytest.warns(PlacementWarning, match=r"placed by the transform they are .* mm off"):
        inverse.apply(evoked, covariance, trans=inflated)


def test_a_transform_beside_a_forward_solution_is_refused(eloreta, sample_data, template):
    forward = mne.read_forward_solution(
        sample_data / "derived/sample-oct5-eeg-fwd.fif", verbose="error"
    )
    evoked = make_evoked()
    with pytest.raises(ValueError, match="contains its own transform, were given. Leave"):
        Inverse.load(eloreta).for_recording(
            evoked,
            make_covariance(evoked.info),
            forward,
            trans=mne.Transform("head", "mri", np.eye(4)),
        )
