"""Paired differences from stored scores: against known values, and runs that do not fit."""

import csv

import numpy as np
import pytest

from benchmarks import paired

N = 40


@pytest.fixture
def run(tmp_path):
    """Writes the folder of an evaluation with some methods at two SNRs."""

    def write(name, methods, first_depth=0.0):
        folder = tmp_path / name
        (folder / "scores").mkdir(parents=True)
        lines = ["scenario,level,snr_db,axis"]
        for snr in (0, 10):
            lines.append(f"several,{snr},{snr}.0,SNR (dB)")
            for first in range(0, N, 20):
                path = folder / "scores" / f"several_all_{snr}dB_0_{first:03d}.csv"
                rows = ["example,method,depth_mm,localization_error,nemd"]
                for i in range(first, first + 20):
                    for method, shift in methods.items():
                        hard = 20 * np.sin(i) ** 2  # the same for all methods
                        error = hard + shift * (1 + 0.5 * np.cos(i)) - snr
                        rows.append(f"{i},{method},{first_depth + i},{error},{error / 100}")
                path.write_text("\n".join(rows) + "\n")
        (folder / "benchmark.csv").write_text("\n".join(lines) + "\n")
        return folder

    return write


def test_differences_on_the_same_recordings(run, tmp_path):
    """Examples differ far more than methods: only pairs show the difference of 2 mm."""
    folders = [run("one", {"A": 2.0, "B": 4.0}), run("two", {"C": 2.0})]
    out = tmp_path / "paired.csv"
    paired.main([*map(str, folders), "--method", "A", "--out", str(out)])
    with out.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["difference to", "0 dB", "10 dB"]
    assert [row[0] for row in rows] == ["B, mm", "B, nEMD", "C, mm", "C, nEMD"]
    assert rows[0][1] == rows[0][2]
    mean, low, high = (float(v.strip("[],")) for v in rows[0][1].split())
    assert low < -2.0 < high < -1
    assert mean == pytest.approx(-2.0, abs=0.05)
    assert rows[2][1] == "+0.0 [-]"  # no example differs


def test_only_some_other_methods(run):
    scores = paired.merged([run("one", {"A": 2.0, "B": 4.0, "C": 3.0})])
    assert [row[0] for row in paired.paired(scores, "A", ["C"])[1:]] == ["C, mm", "C, nEMD"]
    with pytest.raises(ValueError, match="no scores of D, expected names among A, B, C"):
        paired.paired(scores, "A", ["D"])


def test_other_recordings_are_refused(run):
    folders = [run("one", {"A": 2.0}), run("two", {"B": 2.0}, first_depth=1.0)]
    with pytest.raises(ValueError, match="two has other recordings than .*one"):
        paired.merged(folders)


def test_a_folder_without_an_evaluation_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="Give the folder of a finished"):
        paired.merged([tmp_path])
