import pickle

import mne
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import norm, pearsonr
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from deepesi.core.contracts import Estimate
from deepesi.metrics import calibration, functional, moments
from deepesi.metrics.scoring_rules import crps_gaussian, crps_samples, energy_score
from deepesi.metrics.source_metric import SourceMetric, examples
from deepesi.metrics.table import IN_TABLES, METRICS
from deepesi.physics.graph import adjacency, mesh_edges, triangles, vertex_areas
from deepesi.physics.similarity import rdm

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
    dispersion = functional.spatial_dispersion(spikes(s2=1.0, s5=2.0), np.array([2]), LINE)
    assert dispersion == pytest.approx(np.sqrt(4 * 30**2 / 5))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=10, max_size=10), st.integers(0, 9))
def test_auc_equals_scikit_learn_ties_included(values, active):
    target = spikes(**{f"s{active}": 1.0}) + spikes(**{f"s{(active + 3) % 10}": 2.0})
    assert functional.auc(np.array(values, float), target) == pytest.approx(
        roc_auc_score(target > 0, values)
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
    for metric in map(SourceMetric, IN_TABLES):
        singles = []
        for batch in batches:
            alone = SourceMetric(metric.name)
            alone.update(Estimate(batch.sources.roll(3, dims=1)), batch)
            metric.update(Estimate(batch.sources.roll(3, dims=1)), batch)
            singles.append(alone.compute().item())
        assert metric.compute().item() == pytest.approx(sum(singles) / 2, rel=1e-5)


def test_the_target_itself_is_perfect(simulate):
    batch = simulate(n_times=4).batch(0)
    scores = {}
    for name in ("localization_error", "nemd", "auc"):
        metric = SourceMetric(name)
        metric.update(Estimate(batch.sources), batch)
        scores[name] = metric.compute().item()
    # Several sources may share a maximum or shade each other, hence not zero.
    assert scores["localization_error"] < 15
    assert scores["nemd"] == pytest.approx(0, abs=1e-6)
    assert scores["auc"] == pytest.approx(1)


def test_half_maximum_area_distance_is_half_of_two_ways():
    estimate, true = spikes(s2=1.0, s3=0.6, s9=0.4), spikes(s3=2.0, s6=1.0)
    # From 3 and 6 to the nearest of {2, 3}: 0 and 30; back from 2 and 3: 10 and 0.
    expected = (15 + 5) / 2
    assert functional.half_maximum_area_distance(estimate, true, DISTANCES) == pytest.approx(
        expected
    )


def test_half_maximum_area_distance_equals_mne(sample_data):
    path = sample_data / "derived" / "sample-oct5-metres-src.fif"
    src = mne.read_source_spaces(path, verbose="error")
    positions = np.concatenate([s["rr"][s["vertno"]] for s in src])
    vertices = [s["vertno"] for s in src]
    true, estimate = np.random.default_rng(0).random((2, len(positions)))
    theirs = mne.simulation.metrics.region_localization_error(
        *(mne.SourceEstimate(v[:, None], vertices, 0, 1) for v in (true, estimate)),
        src=src,
        threshold="50%",
        per_sample=False,
    )
    ours = functional.half_maximum_area_distance(estimate, true, 1e3 * cdist(positions, positions))
    assert ours == pytest.approx(1e3 * theirs)


def test_triangles_are_the_faces_and_share_their_area(toy):
    positions, edges = toy.source_pos, toy.space.edges
    faces = triangles(edges, len(positions))
    assert np.array_equal(mesh_edges(faces), np.unique(np.sort(edges, axis=1), axis=0))
    assert len(faces) == 2 * 80  # two icosahedral meshes, once subdivided
    corners = positions[faces]
    sides = corners - np.roll(corners, 1, axis=1)
    lengths = np.linalg.norm(sides, axis=2)
    half = lengths.sum(axis=1) / 2
    heron = np.sqrt(half * np.prod(half[:, None] - lengths, axis=1)).sum()
    assert vertex_areas(positions, faces).sum() == pytest.approx(heron)
    assert len(triangles(np.array([[0, 1], [1, 2], [2, 3], [0, 3]]), 4)) == 0


def test_width_of_a_disc_is_its_diameter():
    """On a flat lattice of triangles, a cone of slope 1 is half its height at half its radius."""
    rows, columns = np.mgrid[:61, :61].reshape(2, -1)
    flat = np.stack([columns + 0.5 * rows, rows * np.sqrt(3) / 2, 0 * rows], axis=1) / 1000
    here = np.arange(61 * 61).reshape(61, 61)
    first = np.stack([here[:-1, :-1], here[:-1, 1:], here[1:, :-1]], axis=-1).reshape(-1, 3)
    second = np.stack([here[:-1, 1:], here[1:, 1:], here[1:, :-1]], axis=-1).reshape(-1, 3)
    faces = np.concatenate([first, second])
    centre = flat[here[30, 30]]
    cone = np.maximum(0.02 - np.linalg.norm(flat - centre, axis=1), 0)
    ghost = cone.copy()
    ghost[0] = 0.02  # as strong, but not of the peak
    areas = vertex_areas(flat, faces)
    for values in (cone, ghost):
        width = functional.full_width_at_half_maximum(
            values + 1e-9 * cone, areas, adjacency(mesh_edges(faces), len(flat))
        )
        assert width == pytest.approx(20, rel=0.03)


def test_balanced_auc_falls_with_a_blur_and_the_plain_one_hardly_does():
    positions = np.stack([0.009 * np.arange(200), np.zeros(200), np.zeros(200)], axis=1)
    ground, target = 1e3 * cdist(positions, positions), np.zeros(200)
    target[100] = 1.0
    blurred = np.exp(-0.5 * ((np.arange(200) - 102) / 3) ** 2)
    assert functional.auc(blurred, target) > 0.95
    close = 3 / 6  # of 97 to 103, 101 to 103 exceed it
    assert functional.balanced_auc(blurred, target, ground) == pytest.approx(
        (close + far_auc(blurred, ground)) / 2
    )
    assert functional.balanced_auc(target, target, ground) == 1


def far_auc(values, ground):
    far = np.sort(values[ground[100] > 30])[::-1][:6]
    return float((values[100] > far).mean() + 0.5 * (values[100] == far).mean())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=10, max_size=10), st.integers(0, 9))
def test_detection_equals_scikit_learn(values, active):
    target = spikes(**{f"s{active}": 1.0}) + spikes(**{f"s{(active + 3) % 10}": 2.0})
    values = np.array(values, float)
    scores = functional.detection(values, target)
    called = values >= functional.otsu_threshold(values)
    for ours, theirs in zip(scores, (precision_score, recall_score, f1_score), strict=True):
        assert ours == pytest.approx(theirs(target > 0, called))


def test_otsu_parts_two_classes():
    values = np.r_[np.linspace(0, 0.2, 50), np.linspace(0.9, 1, 5)]
    assert functional.otsu_threshold(values) == pytest.approx(0.9)


TRUE = np.random.default_rng(0).normal(size=(30, 8))


def test_correlations_equal_scipy():
    estimate = TRUE + np.random.default_rng(1).normal(size=TRUE.shape)
    assert moments.amplitude_correlation(estimate[:, 0], TRUE[:, 0]) == pytest.approx(
        pearsonr(estimate[:, 0], TRUE[:, 0])[0]
    )
    expected = np.mean([abs(pearsonr(estimate[i], TRUE[i])[0]) for i in (3, 7)])
    assert moments.temporal_correlation(estimate, TRUE, np.array([3, 7]), 1) == pytest.approx(
        expected
    )
    assert np.isnan(moments.temporal_correlation(estimate[:, :1], TRUE[:, :1], np.array([3]), 1))


def test_time_course_of_a_free_source_is_along_its_direction():
    time_course, direction = TRUE[0], np.array([1.0, 2.0, -2.0]) / 3
    true = np.zeros((6, 8))
    true[3:] = np.outer(direction, time_course)
    across = true + np.outer(np.r_[0, 0, 0, 0, 1, 1], TRUE[1])  # at right angles to it
    assert moments.temporal_correlation(across, true, np.array([1]), 3) == pytest.approx(1)


def test_topographies_are_compared_where_the_recording_is_strongest():
    data = np.array([[1.0, 4.0, 0.0], [1.0, -4.0, 0.0]])
    explained = np.array([[5.0, 0.0, 0.0], [0.0, 2.0, 7.0]])
    strongest = explained[:, 1], data[:, 1]
    assert moments.topographic_rdm(explained, data) == pytest.approx(rdm(*strongest))
    assert moments.topographic_ln_magnitude(explained, data) == pytest.approx(np.log(2 / 32**0.5))
    assert moments.topographic_rdm(0 * explained, data) == pytest.approx(np.sqrt(2))
    assert moments.topographic_ln_magnitude(0 * explained, data) == pytest.approx(np.log(1e-6))
    assert moments.topographic_ln_magnitude(1e-9 * explained, data) == pytest.approx(np.log(1e-6))


def test_coverage_of_an_exact_posterior_is_its_level():
    rng = np.random.default_rng(0)
    std = rng.uniform(0.5, 2, size=(2000, 20))
    target = rng.normal(size=std.shape) * std
    covered = calibration.coverage(np.zeros_like(std), std, target)
    assert covered == pytest.approx(calibration.LEVELS, abs=0.01)
    assert calibration.deviation(covered).absolute < 0.01


def test_too_narrow_intervals_deviate_downwards():
    target = np.random.default_rng(0).normal(size=20000)
    covered = calibration.coverage(np.zeros(20000), np.full(20000, 0.5), target)
    exact = 2 * norm.cdf(0.5 * norm.ppf((1 + calibration.LEVELS) / 2)) - 1
    assert covered == pytest.approx(exact, abs=0.01)
    deviation = calibration.deviation(covered)
    assert deviation.signed == pytest.approx(-deviation.absolute)


def test_sharpness_is_the_width_over_the_largest_moment():
    width = calibration.sharpness(np.full(5, 0.1), np.array([0, 0, -2.0, 1, 0]))
    assert width == pytest.approx(2 * 1.6449 * 0.1 / 2, rel=1e-4)


def test_groups_of_sources():
    groups = calibration.groups(spikes(s4=1.0), DISTANCES)
    numbers = {name: np.flatnonzero(mask).tolist() for name, mask in groups.items()}
    assert numbers == {"active": [4], "neighbouring": [2, 3, 5, 6], "inactive": [0, 1, 7, 8, 9]}


def with_samples(mean, scale=1e-10):
    """An estimate of this mean, and as uncertain as noise of this scale."""
    noise = torch.randn((8, *mean.shape), generator=torch.Generator().manual_seed(1))
    return Estimate(mean, torch.full_like(mean, scale), mean + scale * noise)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_orders_the_target_before_noise(name, simulate):
    """And none turns an estimate of zero into anything but a number."""
    batch = simulate(n_times=4, snr_db=(10, 10)).batch(0)
    noise = torch.randn(batch.sources.shape, generator=torch.Generator().manual_seed(0))
    scores, metric = [], METRICS[name]
    for mean in (batch.sources, 1e-8 * noise, 0 * noise):
        scored = SourceMetric(name)
        scored.update(with_samples(mean), batch)
        scores.append(scored.compute().item())
    assert np.isfinite(scores).all()
    low, high = metric.limits
    assert all(low - 1e-6 <= score <= high + 1e-6 for score in scores)  # rounding
    if metric.higher_is_better is not None:
        sign = 1 if metric.higher_is_better else -1
        assert sign * scores[0] > sign * scores[1]
    assert scored.higher_is_better is metric.higher_is_better


def test_the_table_has_what_a_table_shows():
    assert IN_TABLES == ("localization_error", "nemd", "auc", "spatial_dispersion")
    labels = [METRICS[name].label for name in IN_TABLES]
    assert labels == ["loc. error (mm)", "nEMD", "AUC", "dispersion (mm)"]
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)


def test_unknown_metric_names_the_nearest():
    with pytest.raises(ValueError, match="SourceMetric: no metric 'nmed'. Nearest: .*nemd.*; a"):
        SourceMetric("nmed")


def test_metrics_travel_to_other_processes():
    assert pickle.loads(pickle.dumps(SourceMetric("crps"))).name == "crps"


@pytest.mark.parametrize("name", ["crps", "energy_score"])
def test_an_estimate_without_uncertainty_has_no_score_of_it(name, simulate):
    batch = simulate().batch(0)
    for example in examples(Estimate(batch.sources), batch):
        assert example.std is None
        assert example.samples is None
        assert np.isnan(METRICS[name].function(example, None))


def test_scores_are_of_the_samples_where_there_are_any(simulate):
    batch = simulate(n_times=3).batch(0)
    estimate = with_samples(batch.sources.roll(1, 1), 1e-9)
    for number, example in enumerate(examples(estimate, batch)):
        assert np.array_equal(example.samples, estimate.samples[:, number].double().numpy())
        assert np.array_equal(example.std, estimate.std[number].double().numpy())
        crps = 1e9 * crps_samples(example.samples, example.target_moments).mean()
        assert METRICS["crps"].function(example, None) == pytest.approx(crps)
        energy = 1e9 * energy_score(example.samples, example.target_moments)
        assert METRICS["energy_score"].function(example, None) == pytest.approx(energy)
        alone = example._replace(samples=None)
        gaussian = crps_gaussian(example.estimated_moments, example.std, example.target_moments)
        assert METRICS["crps"].function(alone, None) == pytest.approx(1e9 * gaussian.mean())
        assert np.isnan(METRICS["energy_score"].function(alone, None))
