import subprocess
import sys

import mne
import numpy as np
import pytest

from deepesi.app.cli import main
from deepesi.physics.optional import require
from tests.conftest import make_covariance, make_evoked


@pytest.fixture(scope="module")
def eloreta(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "eloreta.onnx"
    main(["export", "eloreta", "--out", str(path)])
    return path


@pytest.mark.parametrize(("condition", "hemisphere"), [("Left visual", 1), ("Right visual", 0)])
def test_visual_evoked_is_in_the_opposite_occipital_lobe(
    eloreta, sample_data, tmp_path, capsys, condition, hemisphere
):
    main(
        ["apply", str(eloreta),
         str(sample_data / "derived" / "sample_audvis_short_eegonly-ave.fif"),
         "--condition", condition, "--window", "0.08", "0.2",
         "--noise-cov", str(sample_data / "sample_audvis_short-cov.fif"),
         "--out", str(tmp_path / "stc")]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "left out as bad: ['EEG 053']" in printed
    assert "59 EEG channels" in printed
    x, y, _ = eval(printed.split("MNI ")[1].split(" mm")[0])
    assert y < -55
    assert (x > 0) == bool(hemisphere)
    stc = mne.read_source_estimate(tmp_path / "stc")
    assert stc.data.shape[0] == 1284
    assert (tmp_path / "stc.png").stat().st_size > 50_000


def test_own_forward_solution_meets_v1(eloreta, sample_data, tmp_path):
    """On the subject's own head, left visual peaks within 15 mm of the right V1 label."""
    derived = sample_data / "derived"
    main(
        ["apply", str(eloreta), str(derived / "sample_audvis_short_eegonly-ave.fif"),
         "--condition", "Left visual", "--window", "0.08", "0.2",
         "--noise-cov", str(sample_data / "sample_audvis_short-cov.fif"),
         "--forward", str(derived / "sample-oct5-eeg-fwd.fif"), "--out", str(tmp_path / "own")]
    )  # fmt: skip
    stc = mne.read_source_estimate(tmp_path / "own")
    src = mne.read_source_spaces(derived / "sample-oct5-metres-src.fif", verbose="error")
    evoked = mne.read_evokeds(derived / "sample_audvis_short_eegonly-ave.fif", verbose="error")[2]
    assert evoked.comment == "Left visual"
    evoked.apply_baseline((None, 0)).pick("eeg", exclude="bads")
    inside = (evoked.times >= 0.08) & (evoked.times <= 0.2)
    sample = np.where(inside, (evoked.data - evoked.data.mean(0)).std(axis=0), 0).argmax()
    positions = np.concatenate([s["rr"][v] for s, v in zip(src, stc.vertices, strict=True)])
    peak = positions[np.abs(stc.data[:, sample]).argmax()]
    label = mne.read_label(sample_data / "subjects" / "sample" / "label" / "rh.V1.label")
    v1 = src[1]["rr"][label.vertices]
    assert np.linalg.norm(v1 - peak, axis=1).min() < 0.015


def test_errors_are_one_line_and_write_nothing(eloreta, tmp_path):
    evoked = make_evoked()
    evoked.data *= 1e6
    evoked.save(tmp_path / "x-ave.fif", verbose="error")
    make_covariance(evoked.info).save(tmp_path / "x-cov.fif", verbose="error")
    before = sorted(p.name for p in tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "deepesi.app.cli", "apply", str(eloreta), "x-ave.fif",
         "--noise-cov", "x-cov.fif", "--out", "stc"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("deepesi apply: recording: the data range from")
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x-ave.fif"], "noise covariance is missing"),
        (["none-ave.fif"], "there is no recording"),
        (["x-ave.fif", "--noise-cov", "none-cov.fif"], "there is no file"),
        (["x-ave.fif", "--condition", "seen"], r"holds 0 conditions 'seen': \['noise', 'noise'\]"),
        (["x-ave.fif", "--condition", "noise"], "holds 2 conditions 'noise'"),
        (["x-ave.fif", "--noise-cov", "x-cov.fif", "--condition", "1", "--window", "5", "6"],
         "lies outside the recording"),
    ],
)  # fmt: skip
def test_wrong_arguments(eloreta, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    evokeds = [make_evoked(), make_evoked(seed=1)]
    mne.write_evokeds("x-ave.fif", evokeds, verbose="error")
    make_covariance(evokeds[0].info).save("x-cov.fif", verbose="error")
    if "--condition" not in arguments:
        arguments = [*arguments, "--condition", "0"]
    with pytest.raises(SystemExit, match=message):
        main(["apply", str(eloreta), *arguments, "--out", "stc"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x-ave.fif", "x-cov.fif"]


def test_missing_extra_is_named():
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'deepesi\[train\]'"):
        require("no_such_package", "train", "fly")


def test_evaluate_command(eloreta, toy_path, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "deepesi.app.cli", "evaluate", f"models=[{eloreta}]",
         "baselines=[mne]", "scenario.n_examples=4", "scenario.snr_db=[10]",
         f"head.name={toy_path}", "scenario.sources.radius=[0.03,0.06]",
         f"hydra.run.dir={tmp_path}/run"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "eloreta.onnx" in (tmp_path / "run" / "benchmark.csv").read_text()
    assert (tmp_path / "run" / "report.html").exists()
