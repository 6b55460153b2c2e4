"""Packaged networks on recordings of reduced rank: as accurate as at full rank, information aside.

The recordings are those of the published table of the scenario ``snr``, cleaned as a user would.
The information that a cleaning takes away is what the error of the exact Bayes estimate gains.
"""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

import hydra
import mne
import numpy as np
import pytest

from deepesi.composition import compose
from deepesi.evaluation.solvers import SolverModel
from deepesi.physics.cohort import Cohort
from deepesi.physics.head_inputs import OwnNormals
from deepesi.physics.sensors import average_reference
from deepesi.physics.template import load_template
from deepesi.runtime.inverse import Inverse
from tests.conftest import slow

RESULTS = Path(__file__).parents[2] / "docs" / "_results"
TABLES = (RESULTS / "snr.csv", RESULTS / "snr_default.csv")
OWN = OwnNormals().key
BAYES = "Bayes, single patch, nominal lead field"


class Published(NamedTuple):
    """Mean localization error in the table and the upper end of its 95 % interval, mm."""

    value: float
    ci_high: float


@cache
def published(snr_db):
    """Published localization errors at an SNR, by name of the method."""
    rows = [row for table in TABLES for row in csv.DictReader(table.read_text().splitlines())]
    return {
        row["method"]: Published(float(row["value"]), float(row["ci_high"]))
        for row in rows
        if row["metric"] == "localization_error" and float(row["snr_db"]) == snr_db
    }


@cache
def recorded(snr_db):
    """The test recordings of the table at an SNR: batch and info."""
    scenario = hydra.utils.instantiate(compose("evaluate", []).scenario, _convert_="all")
    batch = next(scenario.batches(Cohort.single(load_template()), snr_db, []))
    sensors = batch.head.sensors
    info = mne.create_info(list(sensors.names), 250.0, "eeg")
    places = dict(zip(sensors.names, sensors.positions, strict=True))
    return batch, info.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"))


def signal_and_noise(batch, n_artifacts=5):
    """Covariance of a whole recording: noise, brain signals as strong, and artifacts."""
    noise = batch.head.noise_cov
    brain = batch.head.leadfield @ batch.head.leadfield.T
    artifacts = average_reference(np.random.default_rng(7).normal(size=(64, n_artifacts)))
    parts = [noise, brain, artifacts @ artifacts.T]
    return sum(part / np.trace(part) for part in parts) * np.trace(noise)


def without_components(n, batch, info):
    """ICA: ``n`` components of the whitened recording are removed, any rotation of them."""
    values, vectors = np.linalg.eigh(signal_and_noise(batch))
    values, vectors = values[1:], vectors[:, 1:]  # the average reference has none
    removed = np.linalg.qr(np.random.default_rng(n).normal(size=(63, n)))[0]
    kept = np.eye(63) - removed @ removed.T
    return vectors * np.sqrt(values) @ kept @ (vectors / np.sqrt(values)).T, info


def interpolated(n, batch, info):
    """Channels all over the head are interpolated, one impulse per channel through MNE-Python."""
    impulses = mne.EvokedArray(np.eye(64), info.copy(), verbose="error")
    impulses.info["bads"] = info["ch_names"][5 :: 64 // n][:n]
    return impulses.interpolate_bads(verbose="error").data, info


def projected(n, batch, info):
    """SSP: the directions of most power of a recording are projected out, as its info says."""
    rng = np.random.default_rng(n)
    data = rng.multivariate_normal(np.zeros(64), signal_and_noise(batch), 2000).T
    raw = mne.io.RawArray(data, info.copy(), verbose="error")
    raw.add_proj(mne.compute_proj_raw(raw, n_eeg=n, verbose="error"), verbose="error")
    raw.apply_proj(verbose="error")
    operator, _, _ = mne.proj.make_projector(raw.info["projs"], raw.ch_names)
    return operator, raw.info


def errors(inverse, snr_db, operator, info, n):
    """Localization errors of the first ``n`` recordings, mm, and the rank in use."""
    batch, _ = recorded(snr_db)
    noise = operator @ batch.head.noise_cov @ operator.T
    covariance = mne.Covariance(noise, info["ch_names"], [], [], nfree=10_000, verbose="error")
    prepared = inverse.for_recording(info, covariance)
    data = operator @ batch.data[:n].double().numpy()
    feeds = dict(prepared.feeds)
    if OWN in feeds:  # as in the table: the recorded cortex is the template's
        feeds[OWN] = np.ones_like(feeds[OWN])
    mean = prepared.model.run(prepared.sensors.reference(data), feeds)["mean"]
    by_source = mean[..., 0].reshape(n, len(prepared.positions), -1)
    peaks = np.linalg.norm(by_source, axis=2).argmax(axis=1)
    true = batch.scene.peaks[:n, 0].numpy()
    apart = np.linalg.norm(prepared.positions[peaks] - prepared.positions[true], axis=1)
    return 1e3 * apart, prepared.rank


@cache
def opened(name):
    return Inverse.load(name, n_threads=1)


@cache
def bayes():
    return Inverse(SolverModel("bayes_single_patch"))


def assert_within(name, snr_db, cleaning, rank, n):
    """The network exceeds the exact Bayes estimate of the same rank by no more than in the table.

    Two standard errors are allowed, as the mean of so few recordings is not exact.
    """
    network, used = errors(opened(name), snr_db, *cleaning, n)
    best, same = errors(bayes(), snr_db, *cleaning, n)
    assert used == same == rank
    table, excess = published(snr_db), network - best
    allowed = table[f"packaged `{name}`"].ci_high - table[BAYES].value
    assert excess.mean() - 2 * excess.std() / np.sqrt(n) <= allowed


COMPONENTS, CHANNELS, DIRECTIONS = [1, 5, 10, 20], [1, 3, 6], [1, 3]
CLEANED = [
    *[(without_components, n) if n == 10 else slow(without_components, n) for n in COMPONENTS],
    *[(interpolated, n) if n == 6 else slow(interpolated, n) for n in CHANNELS],
    *[(projected, n) if n == 3 else slow(projected, n) for n in DIRECTIONS],
]
SNRS = [slow(0.0), 5.0, slow(10.0), slow(20.0)]


@pytest.mark.parametrize(("clean", "n"), CLEANED)
@pytest.mark.parametrize("snr_db", SNRS)
@pytest.mark.parametrize(
    ("name", "n_recordings"), [("convdip", 200), slow("ensemble", 200), slow("default", 200)]
)
def test_networks_stay_within_their_benchmark_error(name, n_recordings, snr_db, clean, n):
    cleaning = clean(n, *recorded(snr_db))
    assert_within(name, snr_db, cleaning, 63 - n, n_recordings)


@pytest.mark.parametrize("name", ["ensemble", "default"])
def test_a_few_projected_recordings_for_the_slower_networks(name):
    assert_within(name, 5.0, projected(3, *recorded(5.0)), 60, 60)
