import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from deepesi.contracts import Estimate
from deepesi.metrics import functional
from deepesi.metrics.classes import AUC, NEMD, LocalizationError, SpatialDispersion
from deepesi.physics.graph import adjacency, mesh_edges

# Ten sources in a row, 10 mm apart; a strip of triangles that joins each to the next two.
LINE = np.stack([0.01 * np.arange(10), np.zeros(10), np.zeros(10)], axis=1)
FACES = np.stack([np.arange(8), np.arange(1, 9), np.arange(2, 10)], axis=1)
NEIGHBOURS = adjacency(mesh_edges(FACES), 10)
DISTANCES = 1e3 * cdist(LINE, LINE)


def spikes(**heights):
    values = np.zeros(10)
    for name, height in heights.items():
        values[int(name[1:])] = height
    return values


def error(values, peaks):
    return functional.localization_error(values, np.array(peaks), LINE, NEIGHBOURS)


def test_localization_error_of_one_source_is_the_distance_of_the_peak():
    assert error(spikes(s2=1.0, s8=0.9), [5]) == pytest.approx(30)


def test_two_sources_are_matched_whatever_their_strength():
    assert error(spikes(s1=0.2, s8=1.0), [8, 2]) == pytest.approx((0 + 10) / 2)


def test_shoulders_are_no_maxima():
    assert functional.local_maxima(
        spikes(s1=1, s2=0.9, s3=0.8, s7=0.1), NEIGHBOURS, 3
    ).tolist() == [1, 7]


def test_a_missing_maximum_costs_its_distance():
    assert error(spikes(s2=1.0), [2, 7]) == pytest.approx((0 + 50) / 2)


def test_an_empty_estimate_is_scored_not_dropped():
    empty = np.zeros(10)
    assert np.isfinite(error(empty, [4]))
    assert functional.nemd(empty, spikes(s4=1.0), DISTANCES) == pytest.approx(1)
    assert functional.auc(empty, spikes(s4=1.0)) == pytest.approx(0.5)
    assert np.isfinite(functional.spatial_dispersion(empty, np.array([4]), LINE))


def test_transport_of_two_points_is_their_distance():
    uniform = DISTANCES[2].mean()
    assert functional.nemd(spikes(s6=3.0), spikes(s2=1.0), DISTANCES) == pytest.approx(40 / uniform)


def test_transport_of_the_uniform_map_is_one():
    assert functional.nemd(np.full(10, 7.0), spikes(s1=1.0, s5=2.0), DISTANCES) == pytest.approx(1)


def test_spatial_dispersion_of_two_spikes():
    found = functional.spatial_dispersion(spikes(s2=1.0, s5=2.0), np.array([2]), LINE)
    assert found == pytest.approx(np.sqrt(4 * 30**2 / 5))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=10, max_size=10), st.integers(0, 9))
def test_auc_equals_scikit_learn_ties_included(values, active):
    truth = spikes(**{f"s{active}": 1.0}) + spikes(**{f"s{(active + 3) % 10}": 2.0})
    assert functional.auc(np.array(values, float), truth) == pytest.approx(
        roc_auc_score(truth > 0, values)
    )


def test_localization_error_and_dispersion_equal_mne(sample_data):
    """`mne.minimum_norm.resolution_metrics` (in cm) on the sample's source space."""
    path = sample_data / "derived" / "sample-oct5-metres-src.fif"
    src = mne.read_source_spaces(path, verbose="error")
    positions = np.concatenate([s["rr"][s["vertno"]] for s in src])
    columns = np.random.default_rng(0).random((len(positions), len(positions)))
    theirs = {
        metric: mne.minimum_norm.resolution_metrics(
            columns, src, function="psf", metric=metric, verbose="error"
        ).data[:, 0]
        for metric in ("peak_err", "sd_ext")
    }
    for peak in range(0, len(positions), 200):
        column, peaks = columns[:, peak], np.array([peak])
        distance = functional.localization_error(column, peaks, positions, None)
        assert distance == pytest.approx(10 * theirs["peak_err"][peak])
        spread = functional.spatial_dispersion(column, peaks, positions)
        assert spread == pytest.approx(10 * theirs["sd_ext"][peak])


def test_classes_accumulate_over_batches(simulate):
    recordings = simulate(snr_db=(10, 10))
    batches = [recordings.batch(0), recordings.batch(1)]
    for metric in (LocalizationError(), NEMD(), AUC(), SpatialDispersion()):
        singles = []
        for batch in batches:
            alone = type(metric)()
            alone.update(Estimate(batch.sources.roll(3, dims=1)), batch)
            metric.update(Estimate(batch.sources.roll(3, dims=1)), batch)
            singles.append(alone.compute().item())
        assert metric.compute().item() == pytest.approx(sum(singles) / 2, rel=1e-5)


def test_the_truth_itself_is_perfect(simulate):
    batch = simulate(n_times=4).batch(0)
    scores = {}
    for metric in (LocalizationError(), NEMD(), AUC()):
        metric.update(Estimate(batch.sources), batch)
        scores[type(metric).__name__] = metric.compute().item()
    # Several sources may share a maximum or shade each other, hence not zero.
    assert scores["LocalizationError"] < 15
    assert scores["NEMD"] == pytest.approx(0, abs=1e-6)
    assert scores["AUC"] == pytest.approx(1)
