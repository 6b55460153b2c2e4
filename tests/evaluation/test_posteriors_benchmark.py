"""The table of posteriors beside other methods: its parts on small inputs, and the command."""

import csv
import sys

import numpy as np
import pytest
import torch
import yaml

from benchmarks import posterior_example, posteriors
from deepesi.baselines.bayes_single_patch import BayesSinglePatch

POSITIONS = 0.01 * np.arange(12.0).reshape(4, 3)


def test_summaries_are_the_place_of_the_strongest_source_and_the_size():
    samples = np.array([[0, 3.0, 0, 4], [1, 0, 0, 0]])
    found = posteriors.summaries(samples, POSITIONS)
    np.testing.assert_allclose(found[:, :3], 100 * POSITIONS[[3, 0]])
    np.testing.assert_allclose(found[:, 3], [np.log(5), 0])


def test_draws_of_the_reference_have_the_exact_probabilities(simulate):
    model = BayesSinglePatch(0.03, 0.06, 2)
    batch = simulate(model.head_inputs, batch_size=2, n_times=1, snr_db=(10, 10)).batch(0)
    with torch.no_grad():
        exact = model.probabilities(batch.data, batch.inputs).sum(0)
    torch.testing.assert_close(exact.sum(0), torch.ones(2))
    drawn = posteriors.single_source_draws(model, batch, 4000, seed=0)
    best = exact[:, 0].argmax()
    there = np.isclose(drawn[:, 0], 100 * batch.head.source_pos[best]).all(axis=1)
    assert there.mean() == pytest.approx(exact[best, 0].item(), abs=0.04)


def test_cells_are_those_of_all_snrs_and_empty_where_there_are_no_samples():
    def row(group, metric, value, snr_db=posteriors.ALL):
        return posteriors.CalibrationRow(
            "x", "toy", "toy", snr_db, "none", group, metric, None, value, None, None, 9
        )

    rows = [row("prediction_set", "coverage", 0.9), row("prediction_set", "area_cm2", 12.3)]
    rows += [row("recording", "crps", 0.1234), row("recording", "crps", 7.0, "5")]
    cells = posteriors.calibration_cells(rows)
    assert cells == ["0.900 [-]", "12 [-]", "0.123 [-]", "-", "-", "- / -"]
    samples = [row("distance", "tarp_deviation", 0.02), row("peak", "sbc_p", 0.3)]
    samples += [row("norm", "sbc_p", 0.4), row("recording", "energy_score", 5.6789)]
    assert posteriors.calibration_cells(rows + samples)[3:] == ["5.679 [-]", "0.020", "0.3 / 0.4"]
    assert posteriors.with_interval(np.array([np.nan]), 2) == "-"


def test_corrected_levels_have_their_coverage_on_the_validation_recordings():
    """Samples that are too narrow: ranks of targets are often extreme."""
    ranks = np.repeat([[0], [99]], 50, axis=0).repeat(3, axis=1)
    ranks[::5] = np.arange(0, 100, 5)[:, None]
    nothing = np.empty(0)
    observed = posteriors.Observations([], *[nothing] * 4, [], nothing, nothing, ranks)
    wrong = posteriors.coverage_deviation(ranks[:, 2] / posteriors.N_DRAWS)
    assert wrong > 0.15
    assert float(posteriors.corrected_deviation(observed, observed)) < wrong
    assert posteriors.corrected_deviation(observed, observed._replace(ranks=None)) == "-"


@pytest.mark.slow
def test_the_command_writes_all_tables(tmp_path, monkeypatch):
    """Tables of an untrained network and of the Bayesian minimum norm."""
    settings = ["models=[untrained:structured_posterior]", "baselines=[bayesian_minimum_norm]"]
    settings += ["scenario=several", "scenario.sources.n_sources=[1,3]", "scenario.snr_db=[10]"]
    settings += ["scenario.n_examples=10", "n_validation=10", "n_bins=1"]
    options = ["--draws", "20", "--compared", "2", "--refined", "--out", str(tmp_path / "found")]
    monkeypatch.setattr(sys, "argv", ["posteriors", *settings, *options])
    posteriors.main()
    with (tmp_path / "found.csv").open(newline="") as file:
        network, minimum_norm, refined, itself = csv.DictReader(file)
    for row in (network, minimum_norm, refined, itself):
        assert 0.4 < float(row["C2ST, one source"].split()[0]) <= 1
    one, several = refined["effective draws"].split(" / ")
    assert 1 <= float(one) <= 20
    assert 1 <= float(several) <= 20
    assert (itself["method"], itself["effective draws"]) == ("the reference itself", "-")
    with (tmp_path / "found_joint.csv").open(newline="") as file:
        assert {row["sources"] for row in csv.DictReader(file)} >= {"all", "1"}
    with (tmp_path / "found_skull.csv").open(newline="") as file:
        (skull,) = csv.DictReader(file)
    assert int(skull["recordings"]) == 10
    facts = yaml.safe_load((tmp_path / "found.yaml").read_text())
    assert facts["command"].startswith("python -m benchmarks.posteriors models=")


@pytest.mark.slow
def test_samples_of_one_recording_are_stored(tmp_path, monkeypatch):
    out = tmp_path / "posterior.csv"
    options = ["untrained:structured_posterior", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["posterior_example", *options])
    posterior_example.main()
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    draws = {row["draw"] for row in rows}
    assert len(draws) == 1 + posterior_example.N_DRAWS
    total = sum(float(row["moment (nA m)"]) for row in rows if row["draw"] == "target")
    assert 50 < total < 200  # two patches
    facts = yaml.safe_load(out.with_suffix(".yaml").read_text())
    assert facts["command"].startswith("python -m benchmarks.posterior_example untrained:")
