"""The benchmark with the sample subject's own head as the true head."""

import csv
import sys

import numpy as np
import pytest

from benchmarks import subject_head
from deepesi.physics.noise import spanned_projector
from deepesi.validation.run import own_case_head
from deepesi.validation.sample import sample_cases


def test_recordings_have_unit_power_and_her_noise(sample_data):
    head = own_case_head(sample_cases(sample_data)[0]).head
    sources, clean, noise = subject_head.recordings(head, 400)
    assert len(set(sources.tolist())) == 400
    assert np.linalg.norm(clean, axis=1) == pytest.approx(np.ones(400))
    assert (noise**2).sum(1).mean() == pytest.approx(1.0, rel=0.1)
    outside = np.eye(head.n_channels) - spanned_projector(head.noise_cov)
    assert np.abs(outside @ noise.T).max() < 1e-9


@pytest.mark.slow
def test_a_scan_on_the_template_is_nearer_than_chance(sample_data, tmp_path, monkeypatch):
    out = tmp_path / "found.csv"
    options = ["--data", str(sample_data), "--examples", "40", "--models", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["subject_head", *options, "--baselines", "dipole_scan"])
    subject_head.main()
    with out.open() as file:
        errors = {
            float(row["snr_db"]): float(row["value"])
            for row in csv.DictReader(file)
            if row["method"] == "dipole scan"
        }
    assert sorted(errors) == [0.0, 5.0, 10.0, 20.0]
    assert 10 < errors[20.0] < errors[0.0] < 45  # two random sources are 80 mm apart
