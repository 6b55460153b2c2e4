"""The benchmarks of test-time adaptation: samples of a recording, and both commands as they run."""

import csv

import numpy as np
import pytest

from benchmarks import test_time, test_time_real
from benchmarks.test_time_real import spread


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_samples_are_spread_over_recordings_in_order():
    first, second = np.arange(30.0).reshape(1, 30), np.arange(30.0, 100).reshape(1, 70)
    samples = spread([first, second], 12)
    assert samples.shape == (12, 1, 1)
    assert np.array_equal(samples.flatten(), np.arange(0, 100, 9))


def test_a_folder_is_needed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        test_time_real.main(["--out", str(tmp_path / "x.csv")])
    assert "give --sample, --eeglab or both" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_response_with_and_without(eeglab_data, tmp_path):
    path = tmp_path / "real.csv"
    test_time_real.main(["--model", "convdip", "--eeglab", str(eeglab_data), "--out", str(path)])
    (row,) = read(path)
    assert row["response"] == "Left targets, template head"
    shown = "" if row["kept"] == "False" else "unchecked_"
    assert row["adapted_distance_mm"] == row[f"{shown}distance_mm"]
    assert row["adapted_target_in_set"] == row[f"{shown}target_in_set"]
    assert float(row["seconds"]) > 0


@pytest.mark.slow
def test_heads_with_and_without(tmp_path):
    path = tmp_path / "heads.csv"
    words = ["--model", "convdip", "--split", "validation", "--heads", "1", "--snr", "15"]
    words += ["--windows", "64", "--samples-per-source", "8"]
    test_time.main([*words, "--out", str(path)])
    rows = {row["nominal_head"]: row for row in read(path)}
    for nominal in ("template", "own head"):
        for name in ("adapted", "turns"):
            row = rows[f"{nominal}, {name}, strength 1"]
            unchecked = rows[f"{nominal}, {name} unchecked, strength 1"]
            kept = row["kept"] == "True"
            assert row["error_mm"] == (unchecked if kept else rows[nominal])["error_mm"]
    assert rows["template"]["change_mm"] == "0.0"
