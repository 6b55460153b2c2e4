"""The packaged model: one command, no training."""

import re

import mne
import numpy as np

from deepesi.app.cli import main
from deepesi.export.packaged import model_path
from deepesi.export.runtime import Inverse
from tests.conftest import make_covariance, make_evoked


def test_it_says_what_it_is_and_fits_into_the_package():
    path = model_path("default")
    assert path.stat().st_size < 20e6
    assert "How it was trained" in path.with_name("card.md").read_text()
    contract = Inverse.load("default").contract
    assert contract.trained.n_channels[0] <= 19
    assert contract.calibration.level == 0.9
    assert contract.config_sha256 is not None
    assert contract.space_name is None  # it follows any head


def test_a_file_of_that_name_goes_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_path("default").name == "model.onnx"
    (tmp_path / "default").write_text("x")
    assert model_path("default").read_text() == "x"


def test_it_finds_a_patch_and_says_where_it_may_be(template):
    """A simulated patch of the right occipital lobe, 20 dB, on 32 electrodes."""
    evoked = make_evoked(n_times=5)
    covariance = make_covariance(evoked.info)
    inverse = Inverse.load("default", n_threads=1).for_recording(evoked.info, covariance, nave=4)
    head = template.head(
        list(inverse.ch_names),
        template.electrodes(
            np.array([c["loc"][:3] for c in evoked.info["chs"]]), list(inverse.ch_names)
        ),
        1e-12 * np.eye(32),
    )
    source = int(np.linalg.norm(template.source_mni - [25, -85, 5], axis=1).argmin())
    apart = np.linalg.norm(template.source_pos - template.source_pos[source], axis=1)
    patch = np.exp(-((apart / 0.008) ** 2))
    potential = head.leadfield @ patch
    evoked.data[:] += 10e-6 * (potential / potential.std())[:, None]
    mean = inverse.estimate(evoked.data, window=1)[0][:, 2]
    found = int(np.abs(mean).argmax())
    assert apart[found] < 0.015
    region = inverse.region(mean, evoked.data[:, 2])
    assert region.places[source]
    assert region.area < 0.01  # m²


def test_one_command_on_a_visual_response(sample_data, tmp_path, monkeypatch, capsys):
    """Left half-field: right occipital lobe; the same on the right is known to fail (card.md)."""
    monkeypatch.chdir(tmp_path)
    recording = sample_data / "derived/sample_audvis_short_eegonly-ave.fif"
    covariance = sample_data / "sample_audvis_short-cov.fif"
    main([
        "apply", "default", str(recording), "--condition", "Left visual",
        "--noise-cov", str(covariance),
        "--window", "0.08", "0.2", "--out", "left",
    ])  # fmt: skip
    printed = capsys.readouterr().out
    place = re.search(
        r"right hemisphere, vertex \d+, MNI \((-?\d+), (-?\d+), (-?\d+)\) mm", printed
    )
    assert place is not None, printed
    assert np.linalg.norm(np.array(place.groups(), dtype=float) - [16, -73, 9]) < 40
    assert "90 % region, calibrated on simulations: " in printed
    assert mne.read_source_estimate("left").data.shape[0] == 1284
    assert list(tmp_path.glob("left-region-*.label"))
