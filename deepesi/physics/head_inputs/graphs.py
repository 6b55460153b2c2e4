"""Graphs of sources and of sensors: edges, neighbours, and features of nodes and edges."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs.declaration import ADDED_LATER, Array, Axes, HeadInput
from deepesi.physics.head_inputs.orientation import LooseInput
from deepesi.physics.linear_inverse import weighted_gain
from deepesi.physics.noise import whitener


@dataclass(frozen=True)
class MeshEdges(HeadInput):
    """Edges of the source mesh ``(E, 2)``, each once, as in a graph Laplacian."""

    axes: ClassVar[Axes] = ("edges", 2)

    def compute(self, head: HeadModel) -> NDArray[Any]:
        """Return the array, as in `deepesi.physics.head.SourceSpace`."""
        return head.space.edges


@dataclass(frozen=True)
class MeshNeighbours(HeadInput):
    """Neighbours of every source on the mesh ``(N, S)``; filled with ``S`` if fewer than ``N``."""

    axes: ClassVar[Axes] = ("neighbours", "sources")

    def compute(self, head: HeadModel) -> NDArray[Any]:
        """Return the array, as in `deepesi.physics.head.SourceSpace`."""
        edges, n_sources = head.space.edges, head.space.n_sources
        source, neighbour = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0).T
        degree = np.bincount(source, minlength=n_sources)
        table = np.full((n_sources, max(1, degree.max(initial=0))), n_sources)
        table[np.arange(table.shape[1]) < degree[:, None]] = neighbour
        return table.T


@dataclass(frozen=True)
class SourceNormals(HeadInput):
    """Unit normals of the cortex ``(S, 3)``, head frame; zero where there is no surface."""

    axes: ClassVar[Axes] = ("sources", 3)

    def compute(self, head: HeadModel) -> Array:
        """Return the array of the `HeadModel`."""
        return head.source_normals


@dataclass(frozen=True)
class FixedOrientations(HeadInput):
    """Components of a unit moment along the normal of every source ``(S, O)``.

    The normals, head frame, with free orientation; ones with fixed orientation.
    """

    axes: ClassVar[Axes] = ("sources", "orientations")

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        if head.space.n_orient == 1:
            return np.ones((head.space.n_sources, 1))
        return head.source_normals


@dataclass(frozen=True)
class SensorPositions(HeadInput):
    """Positions of the sensors ``(C, 3)``, m, head frame."""

    axes: ClassVar[Axes] = ("channels", 3)

    def compute(self, head: HeadModel) -> Array:
        """Return the array of the `HeadModel`."""
        return head.sensors.positions


@dataclass(frozen=True)
class _Nearest:
    """Parameters of the sensor graph.

    Attributes:
        n_neighbours: Least number of neighbours of a sensor; all if the head has fewer.

    """

    n_neighbours: int = 6

    def __post_init__(self) -> None:
        if self.n_neighbours < 1:
            raise ValueError(
                f"{type(self).__name__}: n_neighbours must be 1 or more, got {self.n_neighbours}."
            )

    def edges(self, head: HeadModel) -> NDArray[np.int64]:
        """Directed edges ``(E, 2)``, both ways, sorted: the same for every input of a graph."""
        distances = cdist(head.sensors.positions, head.sensors.positions)
        kinds = np.array(head.sensors.kinds)
        distances[kinds[:, None] != kinds] = np.inf
        # The nearest is the sensor itself.
        reach = np.sort(distances, axis=1)[:, : self.n_neighbours + 1][:, -1:]
        # Caps are symmetric: all sensors at the same distance are joined, not only the first.
        joined = np.isfinite(distances) & (distances <= (1 + 1e-6) * reach)
        np.fill_diagonal(joined, False)
        return np.argwhere(joined | joined.T)


@dataclass(frozen=True)
class SensorGraph(_Nearest, HeadInput):
    """Edges of the sensor graph ``(E, 2)``: sender, receiver.

    An edge joins two sensors of one kind if either is among the nearest of the other (Euclidean
    distance), so every sensor has neighbours. Every edge is listed in both directions.
    """

    axes: ClassVar[Axes] = ("sensor_edges", 2)

    def compute(self, head: HeadModel) -> NDArray[Any]:
        """Return the array."""
        return self.edges(head)


#: Usual distance of neighbouring sensors, m: scales the distances of a graph to order one.
SENSOR_SPACING = 0.05


@dataclass(frozen=True)
class SensorEdgeFeatures(_Nearest, LooseInput):
    """Features of the edges of `SensorGraph` ``(E, 2)``, no unit, in the same order.

    The distance over 5 cm, and the correlation of the whitened lead fields of the two sensors, -1
    to 1.

    Attributes:
        loose: Prior variance of tangential moments, relative to that along the normal, by which
            the lead fields are weighted.

    """

    loose: float = field(default=1.0, metadata=ADDED_LATER)

    axes: ClassVar[Axes] = ("sensor_edges", 2)

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        sender, receiver = self.edges(head).T
        offset = head.sensors.positions[sender] - head.sensors.positions[receiver]
        gain = whitener(head.noise_cov) @ head.leadfield
        if self.loose < 1:
            gain = weighted_gain(gain, self.root(head))
        gain /= np.linalg.norm(gain, axis=1, keepdims=True)
        correlation = (gain[sender] * gain[receiver]).sum(axis=1)
        return np.stack([np.linalg.norm(offset, axis=1) / SENSOR_SPACING, correlation], axis=1)
