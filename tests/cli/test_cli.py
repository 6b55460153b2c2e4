import inspect
import re
import subprocess
import sys
from dataclasses import replace

import hydra
import mne
import numpy as np
import pytest
from omegaconf import OmegaConf

from deepesi.cli.main import main
from deepesi.evaluation.benchmark import Row
from deepesi.evaluation.card import how_good, how_trained
from deepesi.metrics.table import METRICS
from deepesi.utils.optional import require
from tests.conftest import make_covariance, make_evoked, slow


@pytest.fixture(scope="module")
def eloreta(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "eloreta.onnx"
    main(["export", "eloreta", "--out", str(path)])
    return path


@pytest.mark.parametrize(("condition", "hemisphere"), [slow("Left visual", 1), ("Right visual", 0)])
def test_visual_evoked_is_in_the_opposite_occipital_lobe(
    eloreta, sample_data, tmp_path, capsys, condition, hemisphere
):
    main(
        [
            "apply",
            str(eloreta),
            str(sample_data / "derived" / "sample_audvis_short_eegonly-ave.fif"),
            "--condition",
            condition,
            "--window",
            "0.08",
            "0.2",
            "--noise-cov",
            str(sample_data / "sample_audvis_short-cov.fif"),
            "--out",
            str(tmp_path / "stc"),
        ]
    )
    printed = capsys.readouterr().out
    assert "excluded as bad: ['EEG 053']" in printed
    assert "59 EEG channels" in printed
    x, y, _ = map(float, printed.split("MNI (")[1].split(")")[0].split(","))
    assert y < -55
    assert (x > 0) == bool(hemisphere)
    stc = mne.read_source_estimate(tmp_path / "stc")
    assert stc.data.shape[0] == 1284
    assert (tmp_path / "stc.png").stat().st_size > 50_000


@pytest.mark.parametrize(("condition", "side"), [("Left visual", "rh"), ("Right visual", "lh")])
def test_own_forward_solution_meets_v1(eloreta, sample_data, tmp_path, capsys, condition, side):
    """On the subject's own head, the peak lies within 10 mm of the opposite V1 label."""
    derived = sample_data / "derived"
    main(
        [
            "apply",
            str(eloreta),
            str(derived / "sample_audvis_short_eegonly-ave.fif"),
            "--condition",
            condition,
            "--window",
            "0.08",
            "0.2",
            "--noise-cov",
            str(sample_data / "sample_audvis_short-cov.fif"),
            "--forward",
            str(derived / "sample-oct5-eeg-fwd.fif"),
            "--out",
            str(tmp_path / "own"),
        ]
    )
    printed = capsys.readouterr().out
    assert "MNI" not in printed
    time = float(printed.split("strongest at ")[1].split(" ms")[0]) / 1e3
    stc = mne.read_source_estimate(tmp_path / "own")
    forward = mne.read_forward_solution(derived / "sample-oct5-eeg-fwd.fif", verbose="error")
    positions = np.concatenate([s["rr"][s["vertno"]] for s in forward["src"]])
    to_mri = mne.transforms.invert_transform(forward["mri_head_t"])
    column = np.abs(stc.data[:, np.abs(stc.times - time).argmin()])
    peak = mne.transforms.apply_trans(to_mri, positions[column.argmax()])
    label = mne.read_label(sample_data / "subjects" / "sample" / "label" / f"{side}.V1.label")
    assert np.linalg.norm(label.pos - peak, axis=1).min() < 0.010


def test_errors_are_one_line_and_write_nothing(eloreta, tmp_path):
    evoked = make_evoked()
    evoked.data *= 1e6
    evoked.save(tmp_path / "x-ave.fif", verbose="error")
    make_covariance(evoked.info).save(tmp_path / "x-cov.fif", verbose="error")
    before = sorted(p.name for p in tmp_path.iterdir())
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "deepesi.cli.main",
            "apply",
            str(eloreta),
            "x-ave.fif",
            "--noise-cov",
            "x-cov.fif",
            "--out",
            "stc",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
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
        (["x-ave.fif", "--condition", "seen"], "holds 0 conditions named 'seen'; .* 0: 'noise', 1"),
        (["x-ave.fif", "--condition", "noise"], "holds 2 conditions named 'noise'"),
        (
            ["x-ave.fif", "--noise-cov", "x-cov.fif", "--condition", "1", "--window", "5", "6"],
            "lies outside the recording",
        ),
    ],
)
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


def test_unapplied_projectors_are_left_unapplied(eloreta, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    evoked = make_evoked()
    make_covariance(evoked.info).save("x-cov.fif", verbose="error")
    evoked.add_proj(mne.compute_proj_evoked(evoked, n_eeg=1, verbose="error"), verbose="error")
    evoked.save("x-ave.fif", verbose="error")
    main(["apply", str(eloreta), "x-ave.fif", "--noise-cov", "x-cov.fif", "--out", "stc"])
    assert "wrote stc.png" in capsys.readouterr().out


def test_head_that_was_built_by_the_user(toy_path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    evoked = make_evoked()
    make_covariance(evoked.info).save("x-cov.fif", verbose="error")
    evoked.save("x-ave.fif", verbose="error")
    main(["export", "eloreta", "--head", str(toy_path), "--out", "e.onnx"])
    common = ["e.onnx", "x-ave.fif", "--noise-cov", "x-cov.fif", "--head", str(toy_path)]
    main(["apply", *common, "--out", "stc"])
    assert mne.read_source_estimate("stc").data.shape[0] == 84
    main(["prepare", *common, "--nave", "4", "--out", "head.npz"])
    main(["apply", "e.onnx", "x-ave.fif", "--prepared", "head.npz", "--out", "live"])
    assert "sensors of a recording on fsaverage-ico1" in capsys.readouterr().out
    with pytest.raises(
        SystemExit,
        match="leave --noise-cov, --noise-from, .*, --trans and --picks out",
    ):
        main(["apply", *common, "--prepared", "head.npz", "--out", "both"])


@pytest.mark.parametrize(
    ("rank", "said"),
    [
        ([], "rank 29 (what its noise covariance spans: cleaned, projected or interpolated)"),
        slow(["--rank", "20"], "rank 20 (as asked for)"),
        slow(["--rank", "info"], "rank 29 (channels less reference and applied projectors)"),
    ],
)
def test_the_rank_used_and_why(eloreta, toy_path, tmp_path, monkeypatch, capsys, rank, said):
    """Also by a prepared head; the recording has two projectors applied."""
    monkeypatch.chdir(tmp_path)
    evoked = make_evoked()
    make_covariance(evoked.info).save("x-cov.fif", verbose="error")
    evoked.add_proj(mne.compute_proj_evoked(evoked, n_eeg=2, verbose="error"), verbose="error")
    evoked.apply_proj(verbose="error").save("x-ave.fif", verbose="error")
    recording = [str(eloreta), "x-ave.fif"]
    setup = ["--noise-cov", "x-cov.fif", "--head", str(toy_path), *rank]
    main(["apply", *recording, *setup, "--out", "stc"])
    assert f"32 EEG channels of {said}, 4 trials" in capsys.readouterr().out
    main(["prepare", *recording, *setup, "--nave", "4", "--out", "head.npz"])
    main(["apply", *recording, "--prepared", "head.npz", "--out", "live"])
    assert f"32 EEG channels of {said}, 4 trials" in capsys.readouterr().out
    found = [mne.read_source_estimate(name).data for name in ("stc", "live")]
    assert np.array_equal(*found)


def test_a_rank_that_is_none(eloreta, capsys):
    with pytest.raises(SystemExit):
        main(["apply", str(eloreta), "x-ave.fif", "--rank", "all", "--out", "stc"])
    assert "expected a number of dimensions or info, got 'all'" in capsys.readouterr().err


def test_missing_extra_is_named():
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'deepesi\[train\]'"):
        require("no_such_package", "train", "fly")


@pytest.mark.slow
def test_evaluate_command(eloreta, toy_path, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "deepesi.cli.main",
            "evaluate",
            f"models=[{eloreta}]",
            "baselines=[mne]",
            "scenario.n_examples=4",
            "scenario=[snr,several]",
            "scenario.snr_db=[10]",
            "processes=2",
            f"head.name={toy_path}",
            "scenario.sources.radius=[0.03,0.06]",
            f"hydra.run.dir={tmp_path}/run",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "run" / "benchmark.csv").read_text()
    assert "eloreta.onnx" in table
    assert (tmp_path / "run" / "report.html").exists()
    assert "## snr" in (tmp_path / "run" / "benchmark.md").read_text()
    # Interrupted, it goes on from its own folder and needs to be told nothing else.
    for file in ("benchmark.csv", f"scores/{sorted(p.name for p in scores(tmp_path))[0]}"):
        (tmp_path / "run" / file).unlink()
    again = subprocess.run(
        [sys.executable, "-m", "deepesi.cli.main", "evaluate", f"resume={tmp_path}/run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "run" / "benchmark.csv").read_text() == table


def scores(folder):
    return list((folder / "run" / "scores").glob("*.csv"))


def test_every_setting_of_the_data_is_in_its_yaml():
    """So that any can be overridden on the command line, where unknown keys are refused."""
    given_by_code = {"heads", "nominal_head", "declarations", "seed", "split", "rank"}
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        config = OmegaConf.to_container(hydra.compose("train").data)

    def check(node, optional=frozenset()):
        kind = hydra.utils.get_class(node["_target_"])
        expected = set(inspect.signature(kind).parameters) - optional
        assert set(node) - {"_target_", "_partial_"} == expected, kind.__name__

    check(config, given_by_code)
    for part in (config["sources"], config["setups"], config["setups"]["noise"], config["tissues"]):
        check(part)


@pytest.mark.parametrize("data", ["snapshot", "erp", "oscillation", "neural_mass", "everything"])
def test_card_says_what_the_data_were(data):
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        config = hydra.compose("train", [f"data={data}", "data.snr_db=null", "name=x"])
    row = Row("ConvDip", "snr", 5.0, "1", "localization_error", 9.0, 8.0, 10.0, 9.0, 20)
    rows = [replace(row, metric=m) for m in METRICS]
    plain = OmegaConf.to_container(config, resolve=False)
    contract = {"model": {"_target_": "ConvDip"}, "config_sha256": "ab" * 32}
    text = how_trained(contract, 9, plain, "deepesi train", ["No eyes."])
    text += how_good(rows, plain["scenario"])
    assert "snr_db: null" in text
    assert "No eyes." in text
    assert "```\ndeepesi train\n```" in text
    assert "| ConvDip | 9.0 [8.0, 10.0] |" in text
    assert all(montage in text for montage in config.data.setups.montages)


HUNGRY = """
import os, sys
from deepesi.cli import main as cli

class Parser:
    command = "apply"
    def parse_known_args(self, argv):
        return self, []
    def run(self, arguments):
        import numpy as np
        np.empty(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), np.uint8)
        print("got it")

cli.build_parser = Parser
cli.main([])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds what is mapped")
def test_what_asks_for_all_the_memory_there_is_gets_an_error():
    """A damaged header may; the system would grant it, and end a process once it is used."""
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith("deepesi apply: more memory is needed than there is. Used: 0.")
    assert re.search(r"Allowed: \d+\.\d\d GB of the \d+\.\d\d GB of this machine", message)
    assert "Not granted: Unable to allocate" in message
    assert "Take a head with fewer sources" in message
    assert "got it" not in done.stdout
