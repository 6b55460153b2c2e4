import json
from dataclasses import replace

import numpy as np
import pytest

from deepesi.physics.head_inputs import (
    Gain,
    HeadInput,
    PatchTopographies,
    SensorEdgeFeatures,
    SensorGraph,
    SensorPositions,
    SourceNormals,
    TopographicMatrix,
    VoxelCorners,
    VoxelWeights,
    prepare,
)
from deepesi.physics.head_inputs.declaration import built_in
from deepesi.physics.head_inputs.images import azimuthal_projection

ALL = [kind() for kind in built_in().values()]


@pytest.mark.parametrize("declaration", ALL, ids=lambda d: d.key)
def test_declaration_travels_as_json(declaration):
    again = HeadInput.from_json(json.loads(json.dumps(declaration.to_json())))
    assert again == declaration
    assert again.key == declaration.key


@pytest.mark.parametrize("declaration", ALL, ids=lambda d: d.key)
def test_array_has_the_declared_shape(declaration, toy):
    head = toy.montage_head("biosemi16")
    sizes = {
        "channels": 16,
        "sources": 84,
        "dipoles": 84,
        "orientations": 1,
        "edges": 240,
        "neighbours": 6,
        "sensor_edges": 108,
        "patch_pairs": 186,
        "patch_members": 5,
    }
    expected = tuple(sizes.get(a, a) for a in declaration.axes)
    assert declaration.compute(head).shape == expected


def test_keys_tell_parameters_apart():
    assert TopographicMatrix(8, 8).key != TopographicMatrix(12, 12).key


def test_prepare_computes_each_once(toy):
    head = toy.montage_head("biosemi16")
    assert list(prepare([ALL[0], ALL[0]], head)) == [ALL[0].key]


def test_image_passes_through_the_electrodes(toy):
    """A potential linear on the disc is interpolated exactly, up to its mean."""
    head = toy.montage_head("biosemi128")
    flat = azimuthal_projection(head.sensors.positions)
    matrix = TopographicMatrix(21, 21).compute(head)
    image = (matrix @ (flat[:, 0] - flat[:, 0].mean())).reshape(21, 21)
    assert image[10, 12] - image[10, 8] == pytest.approx(0.4, abs=1e-6)
    assert image[12, 10] == pytest.approx(image[8, 10], abs=1e-6)


def test_nothing_is_extrapolated(toy):
    head = toy.montage_head("biosemi64")
    corners = TopographicMatrix(12, 12).compute(head).reshape(12, 12, -1)[0, 0]
    assert np.allclose(corners, 0)


def test_voxels_interpolate_linear_fields(toy):
    """Positions gathered from the grid with the trilinear weights are the sources' own."""
    head, grid = toy.montage_head("biosemi16"), (0.012, 13, 17, 14)
    corners = VoxelCorners(*grid).compute(head)
    weights = VoxelWeights(*grid).compute(head)
    centres = 0.012 * np.stack(np.unravel_index(corners, grid[1:]), axis=-1)
    found = (weights[..., None] * centres).sum(axis=1)
    assert np.allclose(found - found.mean(0), head.source_pos - head.source_pos.mean(0))
    assert np.allclose(weights.sum(axis=1), 1)
    assert (weights >= 0).all()
    margins = centres.min((0, 1)), 0.012 * (np.array(grid[1:]) - 1) - centres.max((0, 1))
    assert np.abs(margins[0] - margins[1]).max() <= 0.012


def test_sources_that_do_not_fit_the_voxels(toy):
    head = toy.montage_head("biosemi16")
    with pytest.raises(ValueError, match=r"VoxelCorners: the sources .* span 1\d\d x .*larger"):
        VoxelCorners(0.008).compute(head)
    with pytest.raises(ValueError, match="VoxelWeights: needs a positive spacing and 2 voxels"):
        VoxelWeights(n_y=1)
    low, high = head.source_pos.min(axis=0), head.source_pos.max(axis=0)
    tight = (float((high - low).max()), 2, 2, 2)
    assert VoxelCorners(*tight).compute(head).max() <= 7


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ({"type": "Telepathy"}, "does not know the head input 'Telepathy'"),
        (
            {"type": "TopographicMatrix", "height": 3},
            r"parameters \['denoise_snr_db', 'height', 'loose', 'width'\]",
        ),
        ({}, "does not know the head input None"),
    ],
)
def test_foreign_declarations_are_refused(declaration, message):
    with pytest.raises(ValueError, match=message):
        HeadInput.from_json(declaration)


@pytest.mark.parametrize("montage", ["biosemi16", "biosemi64"])
@pytest.mark.parametrize("n_neighbours", [3, 6])
def test_sensor_graph_joins_the_nearest_both_ways(toy, montage, n_neighbours):
    head = toy.montage_head(montage)
    edges = SensorGraph(n_neighbours).compute(head)
    pairs = set(map(tuple, edges.tolist()))
    assert len(pairs) == len(edges)
    assert all((receiver, sender) in pairs and sender != receiver for sender, receiver in pairs)
    distance = np.linalg.norm(
        head.sensors.positions[:, None] - head.sensors.positions[None], axis=-1
    )
    for electrode in range(head.n_channels):
        joined = edges[edges[:, 0] == electrode, 1]
        nearest = np.argsort(distance[electrode])[1 : n_neighbours + 1]
        assert set(nearest) <= set(joined)


def test_sensor_graph_of_few_electrodes_is_complete(toy):
    head = toy.montage_head("biosemi16")
    few = head.pick(head.sensors.names[:4])
    assert len(SensorGraph(6).compute(few)) == 4 * 3


def test_order_of_electrodes_does_not_change_the_sensor_graph(toy):
    """On a symmetric cap, where electrodes are as near as each other, too."""
    head = toy.montage_head("biosemi64")
    ring = np.array([[np.cos(a), np.sin(a), 0.0] for a in 2 * np.pi * np.arange(64) / 64])
    head = replace(head, sensors=replace(head.sensors, positions=0.1 * ring))
    order = np.random.default_rng(0).permutation(64)
    shuffled = head.pick([head.sensors.names[i] for i in order])
    first, second = (SensorGraph(5).compute(h) for h in (head, shuffled))
    assert len(first) == 64 * 6  # the fifth nearest is as near as the sixth
    assert set(map(tuple, first)) == set(map(tuple, order[second]))


def test_sensor_edges_tell_how_far_and_how_alike(toy):
    head = toy.montage_head("biosemi16")
    edges, features = SensorGraph().compute(head), SensorEdgeFeatures().compute(head)
    backwards = {tuple(edge): row for edge, row in zip(edges[:, ::-1], features, strict=True)}
    for edge, row in zip(edges, features, strict=True):
        assert np.allclose(row, backwards[tuple(edge)])
    sender, receiver = edges[0]
    gap = np.linalg.norm(head.sensors.positions[sender] - head.sensors.positions[receiver])
    assert features[0, 0] == pytest.approx(gap / 0.05)
    white = Gain(whitened=True).compute(head)
    expected = (
        white[sender] @ white[receiver] / np.prod(np.linalg.norm(white[[sender, receiver]], axis=1))
    )
    assert features[0, 1] == pytest.approx(expected)
    assert np.abs(features[:, 1]).max() <= 1


def test_nodes_of_the_graphs_are_those_of_the_head(toy):
    head = toy.montage_head("biosemi16")
    assert np.array_equal(SensorPositions().compute(head), head.sensors.positions)
    assert np.array_equal(SourceNormals().compute(head), head.source_normals)


@pytest.mark.parametrize("kind", [SensorGraph, SensorEdgeFeatures])
def test_sensor_graph_without_neighbours_is_refused(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__}: n_neighbours must be 1 or more, got 0"):
        kind(0)


@pytest.mark.parametrize(
    "radii", [(0.0, 0.01, 3), (0.02, 0.01, 3), (10.0, 25.0, 3), (0.01, 0.02, 0)]
)
def test_radii_out_of_range_are_refused(radii):
    with pytest.raises(ValueError, match=r"radii must be positive.*at most 0.1 m.*in metres"):
        PatchTopographies(*radii)
