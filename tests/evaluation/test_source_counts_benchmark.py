"""Scores of the number of sources: against closed forms, and the command from end to end."""

import csv
import sys

import numpy as np
import pytest

from benchmarks import source_counts

#: Two recordings, with one and with three sources.
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.55, 0.4, 0.05]])
TRUE = np.array([1, 3])


def test_scores_of_two_recordings():
    log_score, of_shares, accuracy, covered = source_counts.scores(PROBABILITIES, TRUE)
    assert log_score == pytest.approx(-(np.log(0.7) + np.log(0.05)) / 2)
    assert of_shares == pytest.approx(np.log(2))  # each number in half of the recordings
    assert accuracy == 0.5
    assert covered == 0.5  # the set of the second recording, one and two, already has 95 %


def test_frequencies_of_calibrated_probabilities_are_these():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([0.5, 0.5, 0.5], 4000)
    true = 1 + (probabilities.cumsum(1) < rng.random((4000, 1))).sum(1)
    bins = list(source_counts.reliability(probabilities, true))
    assert sum(n for *_, n in bins) == 3 * 4000
    for predicted, observed, *_ in bins:
        assert observed == pytest.approx(predicted, abs=0.05)


def test_a_model_that_counts_no_sources_is_refused(monkeypatch, tmp_path):
    options = ["convdip", "--examples", "2", "--out", str(tmp_path / "counts")]
    monkeypatch.setattr(sys, "argv", ["source_counts", *options])
    with pytest.raises(ValueError, match="counts no sources"):
        source_counts.main()


@pytest.mark.slow
def test_the_command_writes_all_tables(monkeypatch, tmp_path):
    out = tmp_path / "counts"
    options = ["untrained:unrolled_champagne", "--examples", "3", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["source_counts", *options])
    source_counts.main()
    with (out / "scores.csv").open(newline="") as file:
        *by_snr, total = csv.DictReader(file)
    assert [row["SNR (dB)"] for row in by_snr] == ["0", "5", "10", "20"]
    assert total["recordings"] == "12"
    with (out / "confusion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row[str(number)]) for row in rows for number in range(1, 11)) == 12
    assert (out / "reliability.png").stat().st_size > 1000
