"""The main job with its defaults: it must win, and in time. Slow: minutes on two cores."""

import csv
import subprocess
import sys
import time

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_convdip_beats_eloreta_within_ten_minutes(tmp_path):
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "deepesi.cli.main", "train", f"hydra.run.dir={tmp_path}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    elapsed = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    with (tmp_path / "benchmark.csv").open() as file:
        value = {
            (row["method"], float(row["snr_db"]), row["metric"]): float(row["value"])
            for row in csv.DictReader(file)
        }
    for snr_db in (0, 5, 10):
        ours, theirs = (value[m, snr_db, "localization_error"] for m in ("ConvDip", "eLORETA"))
        assert ours <= 0.85 * theirs, f"{snr_db} dB: {ours:.1f} against {theirs:.1f} mm"
    for snr_db in (0, 5, 10, 20):
        assert value["ConvDip", snr_db, "nemd"] < value["eLORETA", snr_db, "nemd"]
    assert "examples/s: about " in done.stdout
    assert elapsed < 600
