"""The card that ``deepesi export`` writes beside a file; of a run: ``test_training.py``."""

import ast
import json
import re
import shlex
from dataclasses import asdict

import pytest

from deepesi.cli import export
from deepesi.cli.main import main
from deepesi.models.convdip import ConvDip
from deepesi.runtime.contract import CALIBRATION_FILE, Calibration
from deepesi.runtime.session import open_model
from deepesi.training.weights import save_network
from tests.conftest import slow

FITTED = Calibration(0.9, "all", (3.0, 8.5), (0.99, 0.8, 0.5), 1.7, "a few recordings of a toy")


def test_linear_inverse(toy_path, tmp_path, capsys):
    out = tmp_path / "e.onnx"
    main(["export", "eloreta", "--head", str(toy_path), "--out", str(out)])
    card = (tmp_path / "e.md").read_text()
    assert capsys.readouterr().out == f"wrote {out} and its card, {tmp_path / 'e.md'}\n"
    for part in (
        "# eLORETA\n\nEEG and MEG source localization of deepesi ",
        ", EEG channels in V, average reference; magnetometer channels in units of 5e-08 T; "
        "gradiometer channels in units of 1e-06 T/m, and the head inputs\n",
        "; 0 weights",
        "nothing was trained",
        "follows that of the head it is given",
        "| asks of a head | Whitener, Rank, LinearInverse |",
        "deepesi apply e.onnx ",
        "Not measured yet: `deepesi evaluate 'models=[e.onnx]'`",
        "7 samples and 32 channels",
    ):
        assert part in card, part
    assert "simulations" not in card
    difference = float(re.search(r"largest difference (\S+) of", card)[1])
    assert 0 <= difference < 1e-5
    assert float(re.search(r"on one core: (\S+) ms", card)[1]) > 0
    assert "None" not in card


def test_a_posterior_model(toy_path, tmp_path):
    """The file gives samples, and its card says so."""
    main(
        [
            "export",
            "bayesian_minimum_norm",
            "--head",
            str(toy_path),
            "--montage",
            "biosemi16",
            "--out",
            str(tmp_path / "b.onnx"),
        ]
    )
    card = (tmp_path / "b.md").read_text()
    assert "# BayesianMinimumNorm\n" in card
    assert "| posterior samples | yes |" in card
    contract = open_model(tmp_path / "b.onnx").contract
    assert contract.kinds == ("mean", "std", "samples")
    assert contract.noise == ("dipoles", "times")
    assert contract.model == {"_target_": "deepesi.baselines.minimum_norm.BayesianMinimumNorm"}


@pytest.mark.parametrize("name", [slow("e 1.onnx"), "it's $x.onnx", slow('say "e".onnx')])
def test_commands_of_a_file_with_blanks_or_quotes_can_be_typed(name, toy_path, tmp_path):
    main(["export", "eloreta", "--head", str(toy_path), "--out", str(tmp_path / name)])
    card = (tmp_path / name).with_suffix(".md").read_text()
    (shell,) = re.findall("^deepesi apply .*", card, re.MULTILINE)
    assert shlex.split(shell)[:4] == ["deepesi", "apply", name, "EVOKED-ave.fif"]
    (python,) = re.findall(r"Inverse\.load\((.*)\)\.for_recording", card)
    assert ast.literal_eval(python) == name


def test_calibrated_network(toy, toy_path, tmp_path):
    """``fitted/N``: the fitted values, and what the file is bound to."""
    model = ConvDip(84, height=8, width=8, hidden=16, heteroscedastic=True)
    kind = "deepesi.models.convdip.ConvDip"
    sizes = {"n_dipoles": 84, "height": 8, "width": 8, "hidden": 16, "heteroscedastic": True}
    identity = {
        "model": {"_target_": kind, **sizes},
        "space": toy.space.name,
        "space_fingerprint": toy.space.fingerprint,
        "command": "python train.py seed=3",
        "trained": {
            "n_channels": [8, 64],
            "n_times": [1, 1],
            "sfreq": 250.0,
            "snr_db": None,
            "band_hz": None,
        },
    }
    save_network(model, identity, tmp_path / "model")
    (tmp_path / CALIBRATION_FILE).write_text(json.dumps(asdict(FITTED)))
    main(
        [
            "export",
            str(tmp_path),
            "--head",
            str(toy_path),
            "--montage",
            "biosemi16",
            "--out",
            str(tmp_path / "c.onnx"),
        ]
    )
    card = (tmp_path / "c.md").read_text()
    n_weights = sum(p.numel() for p in model.parameters())
    for part in (
        "# ConvDip\n\nEEG source localization of deepesi ",
        ", EEG channels in V, average reference, and the head inputs\n",
        f"{n_weights:,} weights",
        "| channels | 8 to 64 |",
        "| samples of a window | 1 |",
        "| SNR | that of the sources drawn |",
        "(all) with a probability of 90 %",
        "a few recordings of a toy",
        "| temperature | 1.7,",
        "| standard deviations | yes |",
        "| posterior samples | no |",
        f"{toy.space.name}, 42 + 42 sources (`{toy.space.fingerprint}`)",
        toy.fingerprint,
        "```\npython train.py seed=3\n```",
        "hidden: 16",
        "any other is refused",
    ):
        assert part in card, part
    assert "gives no uncertainty" not in card
    assert open_model(tmp_path / "c.onnx").contract.calibration == FITTED


def test_nothing_is_written_of_a_file_that_deviates(toy_path, tmp_path, monkeypatch):
    def deviates(*_):
        raise ValueError("it deviates")

    monkeypatch.setattr(export, "check_parity", deviates)
    with pytest.raises(SystemExit, match="it deviates"):
        main(["export", "mne", "--head", str(toy_path), "--out", str(tmp_path / "m.onnx")])
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_onnx(tmp_path):
    with pytest.raises(SystemExit, match=r"m.md: expected a name that ends in .onnx"):
        main(["export", "mne", "--out", str(tmp_path / "m.md")])
