"""The packaged models: one command, no training."""

import re

import mne
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.physics.head import magnitudes
from deepesi.physics.head_inputs import Rank
from deepesi.physics.io.heads import place_recording
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.packaged import PACKAGED, model_path
from tests.conftest import make_covariance, make_evoked, slow


@pytest.mark.parametrize("name", PACKAGED)
def test_it_says_what_it_is(name):
    card = model_path(name).with_suffix(".md").read_text()
    experiment = "stranger" if name == "default" else "evoked"
    command = f"python train.py experiment={experiment}"
    for part in ("How it was trained", command, "Real recordings"):
        assert part in card
    contract = Inverse.load(name).contract
    assert contract.trained.n_channels[0] <= 19
    assert contract.calibration.level == 0.9
    assert contract.config_sha256 is not None
    assert "biosemi64" in contract.montages


def test_they_fit_into_the_package():
    assert sum(model_path(name).stat().st_size for name in PACKAGED) < 20e6
    default, ensemble, convdip = (Inverse.load(name).contract for name in PACKAGED)
    for network in (default, ensemble):
        assert network.space_name is None  # it follows any head
        assert network.kinds == ("mean", "std")
        assert Rank() in network.head_inputs  # in place of the channels less one
    assert default.n_orient == 3
    assert default.calibration.covers == "strongest"
    assert default.calibration.temperature < 3
    assert len(ensemble.model["model"]["members"]) == 3
    assert convdip.space_name == "fsaverage-ico3"
    assert convdip.precision == "int8"


def test_a_file_of_that_name_goes_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "convdip").mkdir()  # a folder is no model
    assert [model_path(name).name for name in PACKAGED] == [
        "default.onnx",
        "ensemble.onnx",
        "convdip.onnx",
    ]
    (tmp_path / "default").write_text("x")
    assert model_path("default").read_text() == "x"


@pytest.mark.parametrize("name", PACKAGED)
def test_it_finds_a_patch_and_says_where_it_may_be(template, name):
    """A simulated patch of the right occipital lobe, 20 dB, on 32 electrodes."""
    evoked = make_evoked(n_times=5)
    covariance = make_covariance(evoked.info)
    inverse = Inverse.load(name, n_threads=1).for_recording(evoked.info, covariance, nave=4)
    head = template.head(
        list(inverse.ch_names),
        place_recording(evoked.info, template).points,
        1e-12 * np.eye(32),
    )
    source = int(np.linalg.norm(template.source_mni - [25, -85, 5], axis=1).argmin())
    apart = np.linalg.norm(template.source_pos - template.source_pos[source], axis=1)
    patch = np.exp(-((apart / 0.008) ** 2))
    potential = head.leadfield @ patch
    evoked.data[:] += 10e-6 * (potential / potential.std())[:, None]
    mean = inverse.estimate(evoked.data, window=1)[0][:, 2]
    found = int(magnitudes(mean[:, None], inverse.space.n_orient)[:, 0].argmax())
    assert apart[found] < 0.015
    prediction_set = inverse.prediction_set(mean, evoked.data[:, 2])
    assert prediction_set.sources[source]
    # m²; that of somebody else's head with one to three sources excludes less
    assert prediction_set.area < (0.02 if name == "default" else 0.01)


@pytest.mark.parametrize(
    ("condition", "side", "target"),
    [("Left visual", "right", (16, -73, 9)), slow("Right visual", "left", (-7, -79, 6))],
)
def test_one_command_on_a_visual_response(
    sample_data, tmp_path, monkeypatch, capsys, condition, side, target
):
    """In the occipital lobe opposite to the stimulus; on the right that is a near thing (card)."""
    monkeypatch.chdir(tmp_path)
    recording = sample_data / "derived/sample_audvis_short_eegonly-ave.fif"
    covariance = sample_data / "sample_audvis_short-cov.fif"
    main(
        [
            "apply",
            "default",
            str(recording),
            "--condition",
            condition,
            "--noise-cov",
            str(covariance),
            "--window",
            "0.08",
            "0.2",
            "--out",
            "found",
        ]
    )
    printed = capsys.readouterr().out
    place = re.search(
        rf"{side} hemisphere, vertex \d+, MNI \((-?\d+), (-?\d+), (-?\d+)\) mm", printed
    )
    assert place is not None, printed
    assert np.linalg.norm(np.array(place.groups(), dtype=float) - target) < 45
    assert "90 % prediction set, calibrated on simulations: " in printed
    assert mne.read_source_estimate("found").data.shape[0] == 1284
    assert mne.read_source_estimate("found-std").data.min() > 0
    assert list(tmp_path.glob("found-prediction-set-*.label"))
