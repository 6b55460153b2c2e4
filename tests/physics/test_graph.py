import numpy as np
import pytest

from deepesi.physics import graph

# An octahedron of radius 1, counter-clockwise from outside.
CORNERS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)
FACES = np.array(
    [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
)


def test_adjacency_counts_every_edge_once():
    links = graph.adjacency(graph.mesh_edges(FACES), 6).toarray()
    assert (links.sum(axis=0) == 4).all()
    assert links[0, 1] == links[2, 3] == links[4, 5] == 0


def test_geodesic_distance_follows_edges():
    distance = graph.geodesic_distances(CORNERS, graph.mesh_edges(FACES))
    assert distance[0, 2] == pytest.approx(np.sqrt(2))
    assert distance[0, 1] == pytest.approx(2 * np.sqrt(2))
    assert np.allclose(distance, distance.T)


def test_hemispheres_are_infinitely_far_apart(template):
    distance = graph.geodesic_distances(template.source_pos, template.space.edges)
    assert np.isinf(distance[:642, 642:]).all()
    assert np.isfinite(distance[:642, :642]).all()


def test_normals_point_outwards():
    assert np.allclose(graph.vertex_normals(CORNERS, FACES), CORNERS)


def test_inside_and_outside():
    points = np.array([[0, 0, 0], [0.3, 0.3, 0.3], [0.4, 0.4, 0.4], [2, 0, 0]])
    assert graph.is_inside(points, CORNERS, FACES).tolist() == [True, True, False, False]


def test_distances_are_straight_in_a_volume_only():
    """Two squares: one on the cortex, one in the volume."""
    square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    sides = np.array([[0, 1], [1, 2], [2, 3], [0, 3]])
    positions, edges = np.concatenate([square, square + 5]), np.concatenate([sides, sides + 4])
    in_volume = np.arange(8) >= 4
    distance = graph.source_distances(positions, edges, in_volume)
    assert distance[0, 2] == 2
    assert distance[4, 6] == np.sqrt(2)
    assert np.isinf(distance[:4, 4:]).all()
    near = graph.source_distances(positions, edges, in_volume, limit=1.5)
    assert near[0, 1] == 1
    assert np.isinf(near[0, 2])
