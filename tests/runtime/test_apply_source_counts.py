"""``deepesi apply`` says and writes how many sources a network sees."""

import csv
from pathlib import Path

import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.export.to_onnx import export_onnx
from deepesi.runtime.inverse import Inverse
from tests.conftest import make_covariance, save_evoked
from tests.counting import Counting


@pytest.fixture
def evoked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return save_evoked()


def test_number_of_sources(toy, toy_path, evoked, capsys, tmp_path):
    contract = export_onnx(Counting(), toy.montage_head("biosemi16"), tmp_path / "x.onnx")
    assert contract.kinds == ("mean", "source_counts")
    setup = ["--noise-cov", "x-cov.fif", "--head", str(toy_path), "--out", "out"]
    main(["apply", "x.onnx", "x-ave.fif", *setup])
    printed = capsys.readouterr().out
    with Path("out-source-counts.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["n_sources"] for row in rows] == ["1", "2", "3"]
    probabilities = np.array([float(row["probability"]) for row in rows])
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    inverse = Inverse.load(tmp_path / "x.onnx", head=toy_path).for_recording(
        evoked, make_covariance(evoked.info)
    )
    expected = inverse.source_counts(evoked.data[:, [3]])
    assert np.allclose(probabilities, expected, atol=1e-5)
    said = f"number of sources at {1e3 * evoked.times[3]:.0f} ms: 1: {100 * probabilities[0]:.0f} %"
    assert said in printed


def test_a_model_that_counts_no_sources(toy_path, evoked, capsys, tmp_path):
    export = ["--head", str(toy_path), "--montage", "biosemi16", "--out", "eloreta.onnx"]
    main(["export", "eloreta", *export])
    inverse = Inverse.load(tmp_path / "eloreta.onnx", head=toy_path).for_recording(
        evoked, make_covariance(evoked.info)
    )
    with pytest.raises(ValueError, match="counts no sources, it gives only mean. Use a network"):
        inverse.source_counts(evoked.data[:, [3]])
    main(
        [
            "apply",
            "eloreta.onnx",
            "x-ave.fif",
            "--noise-cov",
            "x-cov.fif",
            *export[:2],
            "--out",
            "out",
        ]
    )
    assert "number of sources" not in capsys.readouterr().out
    assert not list(tmp_path.glob("*source-counts*"))
