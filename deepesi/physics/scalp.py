"""Points on a scalp mesh: projection, fit of a cap, displacement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]

#: Mean length of a Gaussian vector of three components with unit standard deviation.
MEAN_LENGTH = 2 * float(np.sqrt(2 / np.pi))


@dataclass(frozen=True)
class ScalpPoints:
    """Points on a scalp mesh, as the barycentric combination of three vertices each.

    Attributes:
        vertices: Vertex numbers ``(..., 3)``.
        weights: Barycentric weights ``(..., 3)``, not negative, sum 1.
        positions: The points themselves ``(..., 3)``, m, head frame.
        distances: Distance of the original points from the mesh ``(...)``, m.

    """

    vertices: NDArray[np.int64]
    weights: Array
    positions: Array
    distances: Array

    def __getitem__(self, index: Any) -> "ScalpPoints":
        """Selected points, or the same points with new axes; indexed like an array."""
        return ScalpPoints(*(part[index] for part in vars(self).values()))


def _closest_on_triangle(p: Array, a: Array, b: Array, c: Array) -> Array:
    """Barycentric weights ``(..., 3)`` of the point of triangle ``abc`` nearest to ``p``."""
    ab, ac, ap = b - a, c - a, p - a
    pairs = ((ab, ab), (ab, ac), (ac, ac), (ap, ab), (ap, ac))
    d00, d01, d11, d20, d21 = (_dot(x, y) for x, y in pairs)
    det = d00 * d11 - d01**2
    v, w = (d11 * d20 - d01 * d21) / det, (d00 * d21 - d01 * d20) / det
    inner = np.stack([1 - v - w, v, w], axis=-1)
    corners = (a, b, c)
    best, best_distance = inner, np.where((inner >= 0).all(-1), 0.0, np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        edge = corners[j] - corners[i]
        t = np.clip(_dot(p - corners[i], edge) / _dot(edge, edge), 0, 1)
        off = p - corners[i] - t[..., None] * edge
        distance = _dot(off, off)
        weights = np.zeros_like(inner)
        weights[..., i], weights[..., j] = 1 - t, t
        nearer = distance < best_distance
        best = np.where(nearer[..., None], weights, best)
        best_distance = np.where(nearer, distance, best_distance)
    return best


def _dot(x: Array, y: Array) -> Array:
    return np.asarray(np.einsum("...i,...i->...", x, y))


class TriangleMesh:
    """A triangle mesh with a search for its points nearest to others.

    Args:
        vertices: ``(N, 3)``, m.
        faces: Triangles ``(F, 3)``.

    """

    def __init__(self, vertices: Array, faces: NDArray[np.int64]) -> None:
        self.faces, self.corners = faces, vertices[faces]
        centres = self.corners.mean(axis=1)
        self.radii = np.linalg.norm(self.corners - centres[:, None], axis=2).max(axis=1)
        # As exact as a balanced tree, and built faster.
        self.tree = cKDTree(centres, balanced_tree=False, compact_nodes=False)

    def nearest(self, points: Array) -> ScalpPoints:
        """Nearest points of the mesh, as in `project_to_mesh`."""
        shape, flat = points.shape[:-1], points.reshape(-1, 3)
        apart, candidates = self.tree.query(flat, k=range(1, min(16, len(self.faces)) + 1))
        # A triangle is not nearer than its centre less its radius; the first one is as near as its
        # centre.
        row, rank = np.nonzero(apart - self.radii[candidates] <= apart[:, :1])
        near = candidates[row, rank]
        corners = self.corners[near]
        weights = _closest_on_triangle(flat[row], *(corners[:, k] for k in range(3)))
        feet = np.einsum("pc,pci->pi", weights, corners)
        distance, number = np.full(candidates.shape, np.inf), np.zeros(candidates.shape, int)
        distance[row, rank] = np.linalg.norm(feet - flat[row], axis=-1)
        number[row, rank] = np.arange(len(row))
        every, nearest = np.arange(len(flat)), distance.argmin(axis=1)
        best = number[every, nearest]
        return ScalpPoints(
            vertices=self.faces[near[best]].reshape(*shape, 3),
            weights=weights[best].reshape(*shape, 3),
            positions=feet[best].reshape(*shape, 3),
            distances=distance[every, nearest].reshape(shape),
        )


def project_to_mesh(points: Array, vertices: Array, faces: NDArray[np.int64]) -> ScalpPoints:
    """Nearest points of a triangle mesh.

    Args:
        points: ``(..., 3)``, m, in the frame of the mesh.
        vertices: Mesh vertices ``(N, 3)``, m.
        faces: Triangles ``(F, 3)``.

    The 16 triangles with the nearest centres are searched, enough for meshes of even triangles.
    """
    return TriangleMesh(vertices, faces).nearest(points)


#: Weight of the prior of `fit_to_scalp`, per electrode: no change where a cap does not determine
#: the fit.
RIDGE_SHIFT, RIDGE_SCALE = 0.03, 0.03 * 0.08**2


def fit_to_scalp(
    positions: Array,
    ch_names: Sequence[str],
    scalp_pos: Array,
    scalp_faces: NDArray[np.int64],
    n_iterations: int = 30,
) -> ScalpPoints:
    """Put the electrodes of one head onto the scalp of another.

    Both are in the MNE head frame, so the fiducials already align origin and axes. The electrodes
    are scaled along each axis and shifted in the sagittal plane to fit the scalp (iterated nearest
    points, with a weak prior at no change), then projected onto it. This brings the spherical
    biosemi64 template within 5 mm (mean) of the same 10-20 positions on fsaverage; uniform
    scaling gives 13 mm.

    Args:
        positions: Electrodes ``(C, 3)``, m, MNE head frame.
        ch_names: Names of the electrodes, for errors.
        scalp_pos: Scalp vertices ``(N, 3)``, m, MNE head frame.
        scalp_faces: Scalp triangles ``(F, 3)``.
        n_iterations: Alternations of nearest points and best fit.

    Raises:
        ValueError: The electrodes do not look like a cap in metres in the head frame.

    """
    check_metres(positions)
    scale, shift = np.ones(3), np.zeros(3)
    scalp = TriangleMesh(scalp_pos, scalp_faces)
    for _ in range(n_iterations):
        feet = scalp.nearest(scale * positions + shift).positions
        for axis in range(3):
            design = np.stack([positions[:, axis], np.ones(len(positions))], axis=1)
            design = design[:, : 1 if axis == 0 else 2]  # heads are symmetric: no shift sideways
            ridge = len(positions) * np.diag([RIDGE_SCALE, RIDGE_SHIFT][: design.shape[1]])
            change = np.linalg.solve(
                design.T @ design + ridge, design.T @ (feet - positions)[:, axis]
            )
            scale[axis] = 1 + change[0]
            shift[axis] = 0.0 if axis == 0 else change[1]
    points = scalp.nearest(scale * positions + shift)
    check_on_scalp(points, ch_names, scale)
    return points


def check_metres(positions: Array) -> None:
    """Refuse electrodes ``(C, 3)`` that do not look like a cap in metres in the head frame.

    Raises:
        ValueError: Their distance from the origin is not that of a scalp.

    """
    radius = np.median(np.linalg.norm(positions, axis=1))
    if not 0.05 < radius < 0.2:
        raise ValueError(
            f"electrode positions: they lie {radius:.3g} m (median) from the origin of the head "
            "frame, expected 0.05-0.2 m. Check that positions are in metres and in the MNE head "
            "frame (mne.channels.DigMontage with nasion, lpa and rpa)."
        )


def check_on_scalp(points: ScalpPoints, ch_names: Sequence[str], scale: Array) -> None:
    """Refuse electrodes that do not fit a scalp, as a whole or one of them.

    Args:
        points: Electrodes ``(C,)`` after the fit.
        ch_names: Names of the electrodes.
        scale: Scales of the fit ``(3,)``.

    Raises:
        ValueError: The message names the distances, the scales or the electrodes.

    """
    if np.median(points.distances) > 0.015 or not (0.6 < scale.min() <= scale.max() < 1.6):
        raise ValueError(
            f"electrode positions: they do not fit a scalp: scaled by {scale.round(2)} they "
            f"still lie {1e3 * np.median(points.distances):.0f} mm (median) from it, expected "
            "scales of 0.6-1.6 and less than 15 mm. Check the coordinate frame and the fiducials "
            "of the montage."
        )
    far = points.distances > 0.025
    if far.any():
        names = [n for n, f in zip(ch_names, np.atleast_1d(far), strict=True) if f]
        raise ValueError(
            f"electrode positions: the electrodes {names} lie "
            f"{1e3 * points.distances.max():.0f} mm off the scalp while the others fit it. Correct "
            "their positions, or mark them as bad."
        )


def displace(
    positions: Array,
    scalp_pos: Array,
    scalp_faces: NDArray[np.int64],
    displacement: float,
    n_copies: int,
    rng: np.random.Generator,
    shift: float = 0.0,
    rotation: float = 0.0,
    n_poses: int = 1,
) -> ScalpPoints:
    """Copies ``(n_poses, n_copies, C)`` of electrodes, displaced together and individually.

    Args:
        positions: Electrodes on the scalp ``(C, 3)``, m.
        scalp_pos: Scalp vertices ``(N, 3)``, m.
        scalp_faces: Scalp triangles ``(F, 3)``.
        displacement: Mean length of the Gaussian step of each electrode along the scalp, m. It
            has two components, so its mean length is ``sqrt(pi/2)`` times their standard
            deviation.
        n_copies: Copies of each pose, with different steps of the electrodes.
        rng: Random generator.
        shift: Mean length of the shift of all electrodes together (co-registration error), m.
        rotation: Mean angle of their rotation about the centre of the scalp, rad.
        n_poses: Number of such poses.

    """
    centre = scalp_pos.mean(axis=0)
    steps = steps_along_scalp(positions, centre, displacement, (n_poses, n_copies), rng)
    moved = rng.normal(scale=shift / MEAN_LENGTH, size=(n_poses, 3))
    turn = Rotation.from_rotvec(rng.normal(scale=rotation / MEAN_LENGTH, size=(n_poses, 3)))
    displaced = turn_caps(positions + steps, turn.as_matrix(), moved, centre)
    return project_to_mesh(displaced, scalp_pos, scalp_faces)


def steps_along_scalp(
    positions: Array,
    centre: Array,
    displacement: float,
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> Array:
    """Gaussian steps ``(*shape, C, 3)`` of electrodes ``(C, 3)``, across the radius, m.

    Args:
        positions: Electrodes ``(C, 3)``, m.
        centre: Centre of the scalp ``(3,)``, m.
        displacement: Mean length of the steps, m, as in `displace`.
        shape: Number of sets of steps.
        rng: Random generator.

    """
    sigma = displacement / np.sqrt(np.pi / 2)
    steps = rng.normal(scale=sigma, size=(*shape, *positions.shape))
    radial = positions - centre
    radial = radial / np.linalg.norm(radial, axis=1, keepdims=True)
    return np.asarray(steps - (steps * radial).sum(-1, keepdims=True) * radial)


def turn_caps(positions: Array, turns: Array, shifts: Array, centre: Array) -> Array:
    """Caps ``(P, M, C, 3)``, m, rotated about a centre and shifted, each in its pose.

    Args:
        positions: Electrodes ``(P, M, C, 3)``, m.
        turns: Rotations ``(P, 3, 3)``.
        shifts: Shifts ``(P, 3)``, m.
        centre: Centre of the rotations ``(3,)``, m.

    """
    turned = np.einsum("pij,pmcj->pmci", turns, positions - centre)
    return np.asarray(turned + centre + shifts[:, None, None])
