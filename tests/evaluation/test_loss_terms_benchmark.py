"""Ablation of terms of the loss, and error against the duration of a constant time course."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from benchmarks import durations, loss_terms
from benchmarks.without_labels import mean_text
from deepesi.composition import compose
from deepesi.utils.rows import read_rows

RESULTS = Path(__file__).parents[2] / "docs" / "_results"


def test_the_summary_is_that_of_the_stored_runs():
    rows = read_rows(RESULTS / "loss_terms_runs.csv", loss_terms.COLUMNS, "")
    with (RESULTS / "loss_terms.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [list(loss_terms.TABLE), *loss_terms.table(rows)]


def test_change_is_the_mean_with_an_interval_of_student():
    """Three differences of mean 1 and standard deviation 1: 4.303 / sqrt(3) to both sides."""
    assert mean_text(np.array([0.0, 1.0, 2.0]), 2, "+") == "+1.00 [-1.48, +3.48]"


@pytest.mark.parametrize("name", loss_terms.STUDIES)
def test_arms_differ_in_the_loss_only(name):
    study = loss_terms.STUDIES[name]
    arms = [compose("train", [*study.words, *words]) for words in study.arms.values()]
    first, *others = (OmegaConf.to_container(arm, resolve=False) for arm in arms)
    for other in others:
        assert {key for key in first if first[key] != other[key]} == {"loss"}


def test_a_constant_is_the_same_in_every_sample_and_at_every_length():
    scenario = durations.constant_scenario(-10.0, 4)
    rng = torch.Generator().manual_seed(0)
    drawn = scenario.sources.time_course.draw(2, 1, 7, 250.0, rng)
    assert torch.equal(drawn, torch.ones(2, 1, 7))
    assert scenario.snr_db == [-10.0]
