"""What a metric is a function of: one estimate with its target, and the head they are on."""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from deepesi.metrics.functional import transport
from deepesi.physics.graph import adjacency, distances_mm, source_areas
from deepesi.physics.head import HeadModel

Array = NDArray[np.float64]


class Example(NamedTuple):
    """One estimate and its target."""

    estimate: Array  # magnitudes (S,), A m
    target: Array  # magnitudes (S,), A m
    peaks: NDArray[np.int64]  # true peaks (K,)
    estimated_moments: Array  # (D, T), A m
    target_moments: Array  # (D, T), A m
    data: Array  # (C, T), V
    std: Array | None = None  # standard deviation of the estimated moments (D, T), A m
    samples: Array | None = None  # draws of the moments (N, D, T), A m


class Geometry:
    """What metrics need of a head, computed once.

    Args:
        head: The nominal head under its recording set-up.

    """

    def __init__(self, head: HeadModel) -> None:
        space = head.space
        self.positions, self.leadfield = head.source_pos, head.leadfield
        self.space, self.n_orient = space, space.n_orient
        self.distances_mm = distances_mm(head.source_pos, head.source_pos)
        self.neighbours: csr_array = adjacency(space.edges, space.n_sources)
        self._of_uniform: tuple[bytes, float] = (b"", 0.0)

    def explained(self, example: Example) -> Array:
        """Data of an estimate through the nominal lead field ``(C, T)``, head units."""
        return self.leadfield @ example.estimated_moments

    def uniform_mm(self, target: Array) -> float:
        """Earth mover's distance of the uniform map, mm: one for all methods on an example."""
        if self._of_uniform[0] != target.tobytes():
            uniform = transport(np.ones_like(target), target, self.distances_mm)
            self._of_uniform = target.tobytes(), uniform
        return self._of_uniform[1]

    @functools.cached_property
    def areas(self) -> Array:
        """Areas of the vertices ``(S,)``, m²; few metrics ask, and the triangles take time."""
        return source_areas(self.positions, self.space.edges)
