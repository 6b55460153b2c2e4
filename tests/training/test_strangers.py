"""The second test set of a training: somebody else's head."""

import csv

import hydra
import pytest

from deepesi.cli.train import run
from tests.training.toy import TOY, quoted

STRANGERS = [
    "strangers.n_examples=4",
    "strangers.batch_size=2",
    "strangers.snr_db=[10]",
    "strangers.setups.montages=[biosemi16]",
    "strangers.sources.radius=[0.03,0.06]",
]


@pytest.fixture
def finished(toy_path, tmp_path):
    words = [*(word for word in TOY if word != "strangers=null"), f"head.name={toy_path}"]
    words += ["name=toy", f"logger.save_dir={quoted(tmp_path)}"]
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        config = hydra.compose("train", [*words, "baselines=[eloreta]", *STRANGERS])
    (tmp_path / "config.yaml").write_text("")
    run(config, tmp_path, command="a test")
    return tmp_path


@pytest.mark.slow
def test_both_test_sets_are_in_table_report_and_card(finished):
    with (finished / "benchmark.csv").open() as file:
        rows = list(csv.DictReader(file))
    for scenario in ("snr", "stranger_typical"):
        own = {row["method"] for row in rows if row["scenario"] == scenario}
        assert own == {"ConvDip", "eLORETA"}
    card = (finished / "export" / "card.md").read_text()
    strangers = card.index("Scenario `stranger_typical`: on heads that are not the analyst's")
    crime = card.index("Scenario `snr`: sources on the analyst's grid, along its normals (an inv")
    assert strangers < crime  # the honest one first
    page = (finished / "report.html").read_text()
    assert "somebody else&#x27;s cortex" in page or "somebody else's cortex" in page
    assert "(an inverse crime)" in page
