from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from deepesi.cli.loading import load_scenarios
from deepesi.composition import compose
from deepesi.data_gen.heads import HeadOnDevice
from deepesi.data_gen.sources import PatchSources
from deepesi.data_gen.waveforms import Burst
from deepesi.physics.graph import adjacency


@pytest.fixture(scope="module")
def head(template):
    return HeadOnDevice(template)


def draw(head, n=200, n_times=1, seed=0, **settings):
    rng = torch.Generator().manual_seed(seed)
    return PatchSources(**settings).draw(head, head.normals, n, n_times, 250.0, rng)


def test_patches_lie_within_their_radius_and_apart(head):
    drawn = draw(head, n_sources=(2, 4), shapes=("gaussian", "flat"))
    counts = (drawn.peaks >= 0).sum(1)
    assert set(counts.tolist()) == {2, 3, 4}
    for patterns, peaks, extents in zip(drawn.patterns, drawn.peaks, drawn.extents, strict=True):
        kept = peaks >= 0
        inside = head.distances[peaks[kept]] <= extents[kept][:, None]
        assert (patterns[kept] != 0).equal(inside & (head.is_cortex > 0))
        apart = head.distances[peaks[kept]][:, peaks[kept]]
        assert apart.fill_diagonal_(1).min() > 0.03
        assert (patterns[~kept] == 0).all()
        assert (extents[~kept] == 0).all()


def test_simple_share_has_the_fewest_sources(head):
    """The rest draws 1, 2 or 3 sources, so a third of it has one source too."""
    counts = (draw(head, 3000, n_sources=(1, 3), simple_share=0.4).peaks >= 0).sum(1)
    shares = torch.bincount(counts, minlength=4)[1:] / 3000
    assert torch.allclose(shares, torch.tensor([0.6, 0.2, 0.2]), atol=0.03)


def unit_peak(drawn):
    values = drawn.patterns[:, 0].abs()
    assert torch.allclose(values.sum(1), drawn.moments[:, 0])
    return values / values.amax(1, keepdim=True)


def test_shapes(head):
    n = 300
    one = {"n_sources": (1, 1), "radius": (0.03, 0.03), "moment": (1e-8, 1e-8)}
    shape = {
        name: unit_peak(draw(head, n, shapes=[name], **one))
        for name in ("point", "flat", "gaussian", "diffused", "field")
    }
    peaks = draw(head, n, shapes=["point"], **one).peaks[:, 0]
    distance = head.distances[peaks]
    assert ((shape["point"] > 0).sum(1) == 1).all()
    assert set(shape["flat"].round(decimals=5).unique().tolist()) == {0.0, 1.0}
    expected = torch.exp(-2 * (distance / 0.03).square()) * (distance <= 0.03) * head.is_cortex
    assert torch.allclose(shape["gaussian"], expected, atol=1e-6)
    # Heat of width r/2 in two directions: mean square distance r²/2 (geodesics are 10 % long).
    weight = shape["diffused"].double()
    squared = distance.double().square().nan_to_num(posinf=0.0)
    spread = ((weight * squared).sum(1) / weight.sum(1)).mean().sqrt().item()
    assert spread == pytest.approx(0.03 / 2**0.5, rel=0.25)
    assert ((shape["field"] > 0).float().mean(1) > 0.9).all()


ONE = {"n_sources": (1, 1), "radius": (0.02, 0.04)}


def test_euclidean_extent_is_straight_and_crosses_a_sulcus(head):
    positions = torch.as_tensor(head.template.source_pos, dtype=torch.float32)
    drawn = draw(head, 200, shapes=["flat"], extent=["euclidean"], **ONE)
    assert drawn.euclidean.all()
    peaks, radius = drawn.peaks[:, 0], drawn.extents
    straight = torch.cdist(positions[peaks], positions)
    active = drawn.patterns[:, 0] != 0
    clear = (straight - radius).abs() > 1e-6  # sources on the border may be rounded either way
    assert active[clear].equal(((straight <= radius) & (head.is_cortex > 0))[clear])
    assert (active & (head.distances[peaks] > 2 * radius)).any(1).float().mean() > 0.3
    gaussian = unit_peak(draw(head, 200, shapes=["gaussian"], extent=["euclidean"], **ONE))
    expected = torch.exp(-2 * (straight / radius).square()) * active
    assert torch.allclose(gaussian[clear], expected[clear], atol=1e-5)


def test_every_patch_draws_its_extent(head):
    drawn = draw(head, 1000, extent=["geodesic", "euclidean"], **ONE)
    assert drawn.euclidean.float().mean() == pytest.approx(0.5, abs=0.05)
    along = head.distances[drawn.peaks[:, 0]] <= drawn.extents
    geodesic = ((drawn.patterns[:, 0] != 0) & ~along).sum(1) == 0
    assert geodesic[~drawn.euclidean[:, 0]].all()
    assert geodesic[drawn.euclidean[:, 0]].float().mean() < 0.2


def reached(head, active, centre):
    """Sources of a set that a walk over the edges reaches from the centre."""
    edges = head.template.space.edges
    inside = edges[active[edges].all(1)]
    links = adjacency(inside, len(active))
    labels = connected_components(links, directed=False)[1]
    return torch.as_tensor(labels == labels[centre]) & active


@pytest.mark.parametrize("extent", ["geodesic", "euclidean"])
def test_irregular_patches_are_connected_parts_with_their_peak_at_the_centre(head, extent):
    drawn = draw(head, 200, shapes=["irregular"], extent=[extent], **ONE)
    values, peaks = unit_peak(drawn), drawn.peaks[:, 0]
    assert values.argmax(1).equal(peaks)
    whole = unit_peak(draw(head, 200, shapes=["gaussian"], extent=[extent], **ONE))
    active = values > 0
    assert torch.allclose(values, whole * active, atol=1e-5)
    for region, peak in zip(active, peaks, strict=True):
        assert reached(head, region, int(peak)).equal(region)
    share = active.sum(1) / (whole > 0).sum(1)
    assert 0.3 < share.mean() < 0.7
    # They differ from each other: the same centre and radius give other regions with another seed.
    again = unit_peak(draw(head, 200, seed=1, shapes=["irregular"], extent=[extent], **ONE)) > 0
    assert not again.equal(active)


def test_split_patches_are_near_in_space_and_far_along_the_cortex(head):
    drawn = draw(head, 400, shapes=["split"], **ONE)
    values, peaks, radius = unit_peak(drawn), drawn.peaks[:, 0], drawn.extents
    assert values.argmax(1).equal(peaks)
    along, straight = head.distances[peaks], head.euclidean[peaks]
    first = along <= radius
    other = (values > 0) & ~first
    parted = other.any(1)
    assert 0.5 < parted.float().mean() < 0.95
    # The second part: its maximum is half of the first, near in space, far along the cortex.
    second = torch.where(other, values, 0).argmax(1)
    rows = torch.arange(400)
    near, far = straight[rows, second], along[rows, second]
    assert (near <= radius[:, 0])[parted].all()
    assert ((far >= 2 * radius[:, 0]) & far.isfinite())[parted].all()
    assert torch.allclose(values[rows, second][parted], torch.tensor(0.5), atol=1e-5)
    narrow = radius / 2**0.5
    assert (values > 0)[parted].equal(
        ((along <= narrow) | (head.distances[second] <= narrow))[parted] & (head.is_cortex > 0)
    )
    # Where there is no second place, a Gaussian of the whole radius.
    whole = torch.exp(-2 * (along / radius).square()) * first * head.is_cortex
    assert torch.allclose(values[~parted], whole[~parted], atol=1e-5)
    possible = (straight <= radius) & (along >= 2 * radius) & along.isfinite()
    assert (possible & (head.is_cortex > 0)).any(1).equal(parted)


def test_a_split_patch_in_a_volume_is_one_gaussian(template):
    volume = HeadOnDevice(replace(template, source_normals=np.zeros((1284, 3))))
    settings = {"n_sources": (1, 1), "orientation": "random"}
    parts = draw(volume, 20, shapes=["split"], **settings).patterns
    assert torch.allclose(parts, draw(volume, 20, shapes=["gaussian"], **settings).patterns)


def test_new_definitions_draw_no_number_of_the_others(head):
    """Other shapes have the same random numbers as before there were these."""
    before = draw(head, 50, shapes=("gaussian", "flat", "diffused"))
    one = draw(head, 50, shapes=("gaussian", "flat", "diffused"), extent=["euclidean"])
    assert one.peaks.equal(before.peaks)
    assert one.moments.equal(before.moments)


def test_fields_are_smooth_and_their_centre_is_the_strongest_source(head):
    drawn = draw(head, 100, n_sources=(1, 1), shapes=["field"], radius=(0.03, 0.03))
    values = drawn.patterns[:, 0]
    assert torch.equal(drawn.peaks[:, 0], values.abs().argmax(1))
    assert drawn.extents.isinf().all()
    edges = torch.as_tensor(head.template.space.edges)
    neighbours = (values[:, edges[:, 0]] - values[:, edges[:, 1]]).square().mean()
    other = values[:, torch.randperm(1284, generator=torch.Generator().manual_seed(0))]
    assert neighbours < 0.3 * (values - other).square().mean()


@pytest.mark.slow
def test_centres_are_uniform_over_the_sources(head):
    drawn = draw(head, 40000, n_sources=(1, 1), shapes=["point"])
    counts = torch.bincount(drawn.peaks[:, 0], minlength=1284).double()
    cortex = torch.as_tensor(head.template.is_cortex)
    assert (~cortex).sum() == 105
    mean = 40000 / 1179
    assert (counts[~cortex] == 0).all()
    # Chi-square of 1178 degrees of freedom: 1178 ± 5 standard deviations.
    chi_square = ((counts[cortex] - mean).square() / mean).sum().item()
    assert chi_square == pytest.approx(1178, abs=5 * 49)


def test_placement_balances_depth_or_area(head, template):
    depth, _ = cKDTree(template.family.scalp_pos).query(template.source_pos)
    deepest = depth[template.is_cortex].max()

    def spread(placement):
        peaks = draw(head, 5000, n_sources=(1, 1), shapes=["point"], placement=placement).peaks
        share, _ = np.histogram(depth[peaks[:, 0]], bins=8, range=(depth.min(), deepest))
        return share / share.sum()

    uniform, balanced = spread("vertices"), spread("depth")
    assert balanced.std() < 0.5 * uniform.std()
    area = head.placement("area")
    assert area.sum() == pytest.approx(1)
    assert area.max() > 3 * area[area > 0].min()


def test_correlated_time_courses(head):
    def correlation(rho):
        time_courses = draw(
            head, 500, 100, n_sources=(2, 2), correlation=(rho, rho), time_course=Burst((8, 12))
        ).time_courses
        assert torch.allclose(time_courses.abs().amax(2), torch.ones(500, 2))
        centred = time_courses - time_courses.mean(2, keepdim=True)
        unit = centred / centred.norm(dim=2, keepdim=True)
        return (unit[:, 0] * unit[:, 1]).sum(1).mean().item()

    assert abs(correlation(0.0)) < 0.1
    assert 0.4 < correlation(0.8) < 0.9
    assert correlation(1.0) == pytest.approx(1, abs=1e-4)


def test_moments_are_log_uniform_with_either_sign(head):
    drawn = draw(head, 4000, n_sources=(1, 1), moment=(5e-9, 1e-7))
    log = drawn.moments.double().log()
    middle = np.log(5e-9 * 1e-7) / 2
    assert log.median().item() == pytest.approx(middle, abs=0.1)
    at_peak = drawn.patterns[torch.arange(4000), 0, drawn.peaks[:, 0]]
    assert torch.allclose(drawn.patterns.abs().sum((1, 2)), drawn.moments[:, 0])
    assert (at_peak > 0).float().mean() == pytest.approx(0.5, abs=0.04)


def test_straight_distances_in_a_volume_only(template):
    """Off a surface there is no cortex to walk along; one hemisphere is still a surface."""
    volume = HeadOnDevice(replace(template, source_normals=np.zeros((1284, 3))))
    expected = np.linalg.norm(template.source_pos[3] - template.source_pos[700])
    assert volume.distances[3, 700].item() == pytest.approx(expected, rel=1e-3)
    assert volume.n_directions == 3
    normals = template.source_normals.copy()
    normals[642:] = 0
    mixed = HeadOnDevice(replace(template, source_normals=normals))
    assert mixed.distances[3, 700].isinf()
    straight = np.linalg.norm(template.source_pos[3] - template.source_pos[300])
    assert mixed.distances[3, 300] > 1.05 * straight


def test_sources_without_room_are_left_out(head):
    drawn = draw(head, 20, n_sources=(50, 50), min_distance=0.06, shapes=["point"])
    there = drawn.peaks >= 0
    assert there.sum(1).min() > 4
    assert there.sum(1).max() < 50
    assert (drawn.moments > 0).equal(there)
    for peaks in drawn.peaks:
        kept = peaks[peaks >= 0]
        assert head.distances[kept][:, kept].fill_diagonal_(1).min() > 0.06


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": (10, 25)}, r"radius 10 to 25 .*m \(10 mm is 0.010\)"),
        ({"radius": (2e-5, 0.01)}, "radius 2e-05 to 0.01 must be an ascending range within 0.001"),
        ({"min_distance": 30}, "min_distance 30 must lie within 0 to 0.06"),
        ({"n_sources": (3, 1)}, "n_sources must be a range within 1-50, got 3-1"),
        ({"simple_share": 50}, "simple_share 50 must lie within 0 to 1"),
        ({"moment": (5, 100)}, r"moment 5 to 100 .*A m \(50 nAm is 5e-8\)"),
        ({"correlation": (0, 2)}, "correlation 0 to 2"),
        ({"shapes": ["blob"]}, r"shapes \['blob'\] unknown, expected some of \['point'"),
        ({"shapes": ["gaussian", "banana"]}, r"shapes .*'banana'.* unknown.*'irregular', 'split'"),
        ({"extent": ["straight"]}, r"extent \['straight'\] unknown, expected .*'euclidean'"),
        ({"extent": []}, r"extent \[\] unknown, expected some of \['geodesic', 'euclidean'\]"),
        ({"placement": "deep"}, "placement .*'deep'.* unknown"),
        ({"orientation": "up"}, "orientation .*'up'.* unknown"),
    ],
)
def test_ranges_out_of_order_or_unit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PatchSources(**settings)


def test_strangers_and_the_scenario_have_every_definition():
    stranger = compose("train", ["head=stranger"]).data.sources
    assert list(stranger.shapes) == ["gaussian", "flat", "diffused", "irregular", "split"]
    assert list(stranger.extent) == ["geodesic", "euclidean"]
    levels = load_scenarios([compose("evaluate", ["scenario=patch_shape"]).scenario])
    found = {level.level: (*level.sources.shapes, *level.sources.extent) for level in levels}
    assert found == {
        "Gaussian": ("gaussian", "geodesic"),
        "flat": ("flat", "geodesic"),
        "Euclidean": ("gaussian", "euclidean"),
        "diffused": ("diffused", "geodesic"),
        "irregular": ("irregular", "geodesic"),
        "split": ("split", "geodesic"),
    }
