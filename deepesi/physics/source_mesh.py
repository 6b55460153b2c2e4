"""A cortex to draw on: the protocol, and the one that a forward solution holds.

The cortex of a forward solution is inflated here: the white surface is smoothed until the folds are
open, which shows the walls of the sulci.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array, vstack
from scipy.spatial import cKDTree

from deepesi.physics.graph import adjacency, mesh_edges, vertex_normals

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Length over which the surface is smoothed, m: about that of a fold; and most steps for it.
SMOOTHING, MAX_STEPS = 0.014, 250
#: Least number of faces of a hemisphere; coarser triangles of sources are divided.
MIN_FACES = 5000


class CortexSurface(NamedTuple):
    """One hemisphere to draw on; its first vertices are the sources.

    Attributes:
        positions: ``(N, 3)``, m.
        faces: ``(F, 3)``.
        sulci: Whether a vertex lies in a sulcus ``(N,)``.

    """

    positions: Array
    faces: Ints
    sulci: NDArray[np.bool_]


class CortexMesh(Protocol):
    """Two hemispheres to draw on."""

    @property
    def n_sources(self) -> int:
        """Number of sources of both hemispheres."""
        ...

    def surface(self, hemisphere: int) -> CortexSurface:
        """One hemisphere: 0 left, 1 right."""
        ...

    def places(self, sources: Ints) -> tuple[Ints, Ints]:
        """Hemisphere and vertex of sources."""
        ...

    def interpolate(self, values: Array) -> Sequence[Array] | Array:
        """Values at the sources ``(S,)`` to values at the vertices of every hemisphere."""
        ...


@dataclass(frozen=True)
class SourceMesh:
    """Cortex whose hemispheres have their own triangles, as that of a subject.

    Attributes:
        surfaces: Left and right.
        weights: Matrices ``(N, S)`` from the sources of a hemisphere to its vertices; 0 at vertices
            whose source a forward solution left out, as it is too near to the inner skull.

    """

    surfaces: tuple[CortexSurface, CortexSurface]
    weights: tuple[csr_array, csr_array]

    @property
    def n_sources(self) -> int:
        """Number of sources of both hemispheres."""
        return sum(weight.shape[1] for weight in self.weights)

    def surface(self, hemisphere: int) -> CortexSurface:
        """One hemisphere: 0 left, 1 right."""
        return self.surfaces[hemisphere]

    def places(self, sources: Ints) -> tuple[Ints, Ints]:
        """Hemisphere and vertex of sources."""
        n_left = self.weights[0].shape[1]
        hemisphere = (sources >= n_left).astype(np.int64)
        return hemisphere, sources - n_left * hemisphere

    def interpolate(self, values: Array) -> list[Array]:
        """Values at the sources ``(S,)`` to values at the vertices of every hemisphere."""
        parts = np.split(values, [self.weights[0].shape[1]])
        return [weight @ part for weight, part in zip(self.weights, parts, strict=True)]


def source_mesh(src: Any) -> SourceMesh | None:
    """The cortex of a source space of MNE-Python, inflated.

    Args:
        src: Source space, such as that of a forward solution.

    Returns:
        The cortex; None if it is not two surfaces whose sources all belong to triangles.

    """
    if len(src) != 2 or not all(_is_whole(part) for part in src):
        return None
    (left, left_weights), (right, right_weights) = (_hemisphere(part) for part in src)
    return SourceMesh((left, right), (left_weights, right_weights))


def _is_whole(part: Any) -> bool:
    """Whether every vertex and every source of a part of a source space is in a triangle."""
    if part["type"] != "surf" or not part["nuse_tri"] or not len(part["vertno"]):
        return False
    vertices = np.unique(part["tris"])
    in_triangles = np.isin(part["vertno"], part["use_tris"]).all()
    return len(vertices) == len(part["rr"]) and bool(in_triangles)


def _hemisphere(part: Any) -> tuple[CortexSurface, csr_array]:
    used, triangles = np.asarray(part["vertno"]), np.asarray(part["tris"], dtype=np.int64)
    white = np.asarray(part["rr"], dtype=np.float64)
    round_, sulci = inflated(white, triangles)
    drawn = np.union1d(used, part["use_tris"])  # also sources that were left out
    drawn = np.concatenate([used, np.setdiff1d(drawn, used)])
    row = np.empty(len(white), dtype=np.int64)
    row[drawn] = np.arange(len(drawn))
    faces, weights = row[np.asarray(part["use_tris"])], csr_array(eye_array(len(drawn)))
    while len(faces) < MIN_FACES:
        faces, weights = _divided(faces, weights)
    positions = np.asarray(weights @ round_[drawn])
    nearest = cKDTree(round_).query(positions)[1]
    return CortexSurface(positions, faces, sulci[nearest]), weights[:, : len(used)]


def _divided(faces: Ints, weights: csr_array) -> tuple[Ints, csr_array]:
    """Every triangle divided into four; new vertices are in the middle of the edges."""
    n = weights.shape[0]
    corners = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1), axis=-1)
    edges, of_side = np.unique(corners.reshape(-1, 2), axis=0, return_inverse=True)
    middle = n + of_side.reshape(faces.shape)  # between corners 0-1, 1-2 and 2-0
    divided = [middle]
    for corner in range(3):
        three = (faces[:, corner], middle[:, corner], middle[:, corner - 1])
        divided.append(np.stack(three, axis=1))
    middles = 0.5 * (weights[edges[:, 0]] + weights[edges[:, 1]])
    return np.concatenate(divided), csr_array(vstack([weights, middles]))


def inflated(positions: Array, faces: Ints) -> tuple[Array, NDArray[np.bool_]]:
    """Smooth a folded surface.

    Args:
        positions: ``(N, 3)``, m.
        faces: ``(F, 3)``, turned outward.

    Returns:
        Smooth positions ``(N, 3)``, m, and whether each vertex lies in a sulcus ``(N,)``: it moved
        outward, as in FreeSurfer's ``sulc``.

    """
    edges = mesh_edges(faces)
    joined = adjacency(edges, len(positions))
    degree = np.asarray(joined.sum(axis=1)).ravel()
    mean = csr_array(joined.multiply(1 / np.maximum(degree, 1)[:, None]))
    spacing = np.median(np.linalg.norm(positions[edges[:, 0]] - positions[edges[:, 1]], axis=1))
    steps = int(np.clip((SMOOTHING / max(spacing, 1e-6)) ** 2, 1, MAX_STEPS))
    centre = positions.mean(axis=0)
    size = np.sqrt(((positions - centre) ** 2).sum())
    smooth = positions - centre
    for _ in range(steps):
        smooth = mean @ smooth
        smooth -= smooth.mean(axis=0)
        smooth *= size / np.sqrt((smooth**2).sum())  # it would shrink
    smooth += centre
    moved = ((smooth - positions) * vertex_normals(positions, faces)).sum(axis=1)
    return smooth, np.asarray(moved > 0)
