"""Pose of a cap: rotation, scales and shift between recorded positions and a template head.

The MNE head frame is defined by three points at the ears and the nose. They lie differently on
every head, so the same cap has another pitch (rotation about the axis through the ears) in the
frame of every subject. A fit of scales and shifts alone leaves that pitch in the positions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from deepesi.physics.graph import vertex_normals
from deepesi.physics.scalp import TriangleMesh

Array = NDArray[np.float64]

#: Pitch of real caps relative to fsaverage, degrees: midway between the observed -10 and +3.
USUAL_PITCH = -3.5
#: Standard deviations of the poses of real caps: rotation about x, y, z (degrees), shift (m), and
#: logarithm of the scales (4 % of head size, 2 to 3 % of the proportions).
ROTATION_SD, SHIFT_SD, SCALE_SD = (5.5, 2.0, 2.0), (0.002, 0.007, 0.007), 0.05
#: Middle of the head, m: poses are about this point.
MIDDLE = np.array([0.0, 0.0, 0.04])
#: Distance from the scalp of a point that fits, m; a point at twice this distance has a weight of
#: one fifth.
NEAR = 0.002
#: Lowest point of the fit to the scalp, m: jaw and neck differ from head to head.
LOWEST = -0.02


@dataclass(frozen=True)
class CapPose:
    """``position = centre + turn @ (scale * (template - origin))``.

    Attributes:
        turn: Orthogonal ``(3, 3)``, from the frame of the template to that of the recording.
        scale: Scales along the axes of the template ``(3,)``.
        centre: Point of the recording ``(3,)``, m.
        origin: The same point of the template ``(3,)``, m.

    """

    turn: Array
    scale: Array
    centre: Array
    origin: Array

    def recorded(self, template_pos: Array) -> Array:
        """Positions on the template ``(N, 3)``, m, in the frame of the recording."""
        return np.asarray(self.centre + ((template_pos - self.origin) * self.scale) @ self.turn.T)

    def on_template(self, positions: Array) -> Array:
        """Positions of the recording ``(N, 3)``, m, in the frame of the template."""
        return np.asarray(((positions - self.centre) @ self.turn) / self.scale + self.origin)

    @property
    def pitch(self) -> float:
        """Rotation of the cap about the axis through the ears, degrees; below 0: forehead down."""
        return pitch_of(self.turn)


def pitch_of(turn: Array) -> float:
    """Angle of a rotation ``(3, 3)`` about the x axis, degrees, before those about y and z."""
    return float(np.degrees(np.arctan2(turn[2, 1], turn[2, 2])))


def fit_pose(
    template_pos: Array, positions: Array, handedness: int = 1, n_iterations: int = 30
) -> CapPose:
    """The pose with the least sum of distances, by reweighted least squares.

    Args:
        template_pos: Positions of electrodes on the template ``(C, 3)``, m.
        positions: Recorded positions of the same electrodes ``(C, 3)``, m.
        handedness: 1 for a turned cap, -1 for a mirrored one.
        n_iterations: Alternations of pose, scales and weights.

    Source: Kabsch 1976 (doi:10.1107/S0567739476001873). Difference: scales per axis, and distances
    instead of their squares, so that few wrong electrodes have little effect.

    """
    weights, scale = np.ones(len(template_pos)), np.ones(3)
    for _ in range(n_iterations):
        share = weights[:, None] / weights.sum()
        centre, origin = (share * positions).sum(0), (share * template_pos).sum(0)
        here, there = positions - centre, template_pos - origin
        left, _, right = np.linalg.svd((share * here).T @ (there * scale))
        flip = handedness * np.sign(np.linalg.det(left @ right))
        turn = left @ np.diag([1.0, 1.0, flip]) @ right
        back = here @ turn
        spread, shared = (share * there**2).sum(0), (share * there * back).sum(0)
        even = shared.sum() / spread.sum()
        # Electrodes in a plane do not give the scale across it: a weak prior at the mean scale.
        scale = np.clip((shared + 4e-4 * even) / (spread + 4e-4), 0.5 * even, 2 * even)
        pose = CapPose(turn, scale, centre, origin)
        distances = np.linalg.norm(positions - pose.recorded(template_pos), axis=1)
        weights = 1 / np.maximum(distances, 5e-3)
    return pose


def fit_pose_to_scalp(
    points: Array, scalp_pos: Array, scalp_faces: NDArray[np.int64], n_iterations: int = 30
) -> CapPose:
    """The most probable pose of points on a scalp, whose names are not used.

    Iterated nearest points, with distances along the normals of the scalp. A skull is almost round,
    so points on the scalp alone do not determine the pose: its prior is that of real caps.

    Args:
        points: Electrodes and head points of the recording ``(N, 3)``, m, MNE head frame. Those
            below `LOWEST` do not count.
        scalp_pos: Scalp vertices of the template ``(V, 3)``, m, MNE head frame.
        scalp_faces: Scalp triangles ``(F, 3)``.
        n_iterations: Largest number of searches for nearest points.

    Source: Chen & Medioni 1992 (doi:10.1016/0262-8856(92)90066-C). Differences: scales per axis, a
    Gaussian prior, and Cauchy weights, so that points off the scalp have little effect.

    """
    points = points[points[:, 2] > LOWEST]
    normals, scalp = vertex_normals(scalp_pos, scalp_faces), TriangleMesh(scalp_pos, scalp_faces)
    sd = np.concatenate([np.radians(ROTATION_SD), SHIFT_SD, np.full(3, SCALE_SD)])
    usual = np.array([np.radians(USUAL_PITCH), *np.zeros(8)])
    parameters = usual
    for _ in range(n_iterations):
        feet = scalp.nearest(_pose(parameters).on_template(points))
        outward = np.einsum("pv,pvi->pi", feet.weights, normals[feet.vertices])
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        weights = 1 / np.hypot(NEAR, feet.distances)
        misfit = _misfit(points, feet.positions, outward * weights[:, None])
        step = least_squares(
            lambda x, misfit=misfit: np.append(misfit(_pose(x)), (x - usual) / sd),
            parameters,
            max_nfev=2,  # the next search for nearest points continues from there
        )
        moved, parameters = np.abs((step.x - parameters) / sd).max(), step.x
        if moved < 1e-3:
            break
    return _pose(parameters)


def _pose(parameters: Array) -> CapPose:
    """Pose of a rotation vector (rad), a shift (m) and the logarithms of the scales ``(9,)``."""
    turn = Rotation.from_rotvec(parameters[:3]).as_matrix()
    return CapPose(turn, np.exp(parameters[6:]), MIDDLE + parameters[3:6], MIDDLE)


def _misfit(points: Array, feet: Array, weighted_normals: Array) -> Callable[[CapPose], Array]:
    """Function from a pose to weighted distances ``(N,)`` of points from their scalp points."""
    return lambda pose: ((pose.on_template(points) - feet) * weighted_normals).sum(axis=1)
