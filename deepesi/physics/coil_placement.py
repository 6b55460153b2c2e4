"""Places the MEG coils of a recording about a template head.

The positions of coils are known in the head frame of the recording, which is that of another head
than the template. They are turned, scaled and shifted together with the head of the recording. In
order of preference, the pose of this head is estimated

1. by a transform of the user;
2. by electrodes of the recording with names of the 10-05 system;
3. by at least 100 digitized points of the head;
4. by the three fiducials: one scale, no rotation.

The centres of the coils are scaled with the head, coils keep their size. This is the same as a
template that is scaled to the head of the recording, except for the strength of the sources.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deepesi.physics.cap_placement import (
    FAR_FROM_NAMES,
    FAR_FROM_SCALP,
    FEWEST_HEAD_POINTS,
    OFF_SCALP,
    TRANSFORM,
    RecordedCap,
    positions_of_names,
)
from deepesi.physics.cap_pose import CapPose, fit_pose, fit_pose_to_scalp
from deepesi.physics.graph import is_inside
from deepesi.physics.magnetic import Coils
from deepesi.physics.scalp import project_to_mesh
from deepesi.physics.template import Template

Array = NDArray[np.float64]

#: Mean distance of the fiducials after scaling, m, above which to warn.
FAR_FROM_FIDUCIALS = 0.008
#: Largest distance of the nearest coil of an array from the scalp, m: more means a wrong position
#: of the head.
FARTHEST = 0.08


@dataclass(frozen=True)
class Landmarks:
    """Electrodes, scalp points and fiducials of a recording, m, MNE head frame.

    Attributes:
        cap: Electrodes, maybe none, and other points of the scalp.
        fiducials: Left ear, nasion and right ear of the recording and of the template
            ``(2, 3, 3)``, each in its head frame; None: not known.

    """

    cap: RecordedCap
    fiducials: Array | None

    @property
    def on_scalp(self) -> Array:
        """Electrodes and other points of the scalp ``(N, 3)``, maybe none."""
        return np.concatenate([self.cap.positions.reshape(-1, 3), self.cap.head_points])


@dataclass(frozen=True)
class CoilPlacement:
    """MEG coils about a template head, and how they were placed.

    Attributes:
        coils: The coils in the head frame of the template.
        method: Method of the placement, as text.
        residual: Residual distance of the fit, m: of the named electrodes or fiducials (mean), or
            of the points of the head from the scalp (median). NaN: not measured.
        max_residual: Residual above which to warn, m.
        gap: Distance of the nearest coil from the scalp, m.

    """

    coils: Coils
    method: str
    residual: float
    max_residual: float
    gap: float

    def __str__(self) -> str:
        off = "not measured" if np.isnan(self.residual) else f"{1e3 * self.residual:.1f} mm"
        return (
            f"placed by {self.method}, residual {off}, nearest coil {1e3 * self.gap:.0f} mm from "
            "the scalp"
        )

    @property
    def warnings(self) -> list[str]:
        """Warnings; empty for a good fit and for one that was not measured."""
        if not self.residual > self.max_residual:
            return []
        return [
            "the head of the recording does not fit the template well: placed by "
            f"{self.method} it is {1e3 * self.residual:.1f} mm off, expected at most "
            f"{1e3 * self.max_residual:g} mm. Check fiducials and head points, or give a transform "
            "(--trans, trans=) or a forward solution"
        ]


def place_coils(
    template: Template, coils: Coils, landmarks: Landmarks, to_head: Array | None = None
) -> CoilPlacement:
    """Place the coils of a recording about a template head.

    Args:
        template: The head.
        coils: The coils in the head frame of the recording.
        landmarks: Points of the head of the recording.
        to_head: Transform ``(4, 4)`` of the user, from the head frame of the recording to that of
            the template; None to fit one.

    Raises:
        ValueError: The recording has no points to place them by, a transform puts its head off the
            scalp, or coils lie inside the head or all far from it.

    """
    pose, method, residual, max_residual = _pose(template, landmarks, to_head)
    placed = _moved(coils, pose)
    gap = float(cKDTree(template.family.scalp_pos).query(placed.points)[0].min())
    _check_around(template, placed, method, gap)
    return CoilPlacement(placed, method, residual, max_residual, gap)


def _check_around(template: Template, placed: Coils, method: str, gap: float) -> None:
    """Refuse coils inside the head, or an array that is far from it."""
    scalp, names = template.family, placed.sensors.names
    rows = np.flatnonzero(is_inside(placed.sensors.positions, scalp.scalp_pos, scalp.scalp_faces))
    advice = (
        "Check the position of the head (info['dev_head_t']) and its points (info['dig']), or give "
        "a forward solution (--forward, forward=)."
    )
    if len(rows):
        some = ", ".join(names[row] for row in rows[:5]) + (" ..." if len(rows) > 5 else "")
        raise ValueError(
            f"recording: placed by {method}, {len(rows)} of its {len(names)} MEG coils lie inside "
            f"the head of {template.name}: {some}. If only these are wrong, mark them as bad "
            f"(info['bads']). {advice}"
        )
    if gap > FARTHEST:
        raise ValueError(
            f"recording: placed by {method}, its MEG coils lie {1e3 * gap:.0f} mm from the scalp "
            f"at the nearest, expected at most {1e3 * FARTHEST:g} mm. {advice}"
        )


def _moved(coils: Coils, pose: CapPose) -> Coils:
    """Coils after a pose: centres are scaled with the head, sizes are kept."""
    centres = coils.sensors.positions
    offsets = (coils.points - centres[coils.coil]) @ pose.turn
    positions = pose.on_template(centres)
    sensors = replace(
        coils.sensors, positions=positions, orientations=coils.sensors.orientations @ pose.turn
    )
    return replace(
        coils,
        sensors=sensors,
        points=positions[coils.coil] + offsets,
        directions=coils.directions @ pose.turn,
    )


def _pose(
    template: Template, landmarks: Landmarks, to_head: Array | None
) -> tuple[CapPose, str, float, float]:
    """Pose, method, residual (m) and residual above which to warn (m)."""
    if to_head is not None:
        return _by_transform(template, landmarks, to_head)
    cap, scalp = landmarks.cap, template.family
    rows, points = positions_of_names(template, cap.ch_names)
    if rows:
        known = points.positions
        pose = fit_pose(known, cap.positions[rows])
        off = np.linalg.norm(cap.positions[rows] - pose.recorded(known), axis=1).mean()
        return pose, f"{len(rows)} names of the 10-05 system", float(off), FAR_FROM_NAMES
    if len(cap.head_points) >= FEWEST_HEAD_POINTS:
        pose = fit_pose_to_scalp(landmarks.on_scalp, scalp.scalp_pos, scalp.scalp_faces)
        off = _from_scalp(template, pose, landmarks)
        return pose, f"{len(cap.head_points)} head points", off, FAR_FROM_SCALP
    return _by_fiducials(landmarks.fiducials)


def _by_transform(
    template: Template, landmarks: Landmarks, to_head: Array
) -> tuple[CapPose, str, float, float]:
    """The transform of the user, with the residual of the points of the recording."""
    pose = _pose_of(to_head)
    if not len(landmarks.on_scalp):
        off = np.nan if landmarks.fiducials is None else _from_fiducials(pose, landmarks.fiducials)
        return pose, TRANSFORM, off, FAR_FROM_FIDUCIALS
    off = _from_scalp(template, pose, landmarks)
    if off > OFF_SCALP:
        raise ValueError(
            f"--trans: it puts the head {1e3 * off:.0f} mm off the scalp of {template.name} "
            f"(median of electrodes and head points), expected at most {1e3 * OFF_SCALP:g} mm. It "
            "is of another subject, another head or another session, or the wrong way round. It "
            "must end in the MRI of fsaverage or in MNI space, see docs/deployment.md."
        )
    return pose, TRANSFORM, off, FAR_FROM_SCALP


def _from_scalp(template: Template, pose: CapPose, landmarks: Landmarks) -> float:
    """Median distance of the points of a head from the scalp of the template, m."""
    placed, scalp = pose.on_template(landmarks.on_scalp), template.family
    return float(np.median(project_to_mesh(placed, scalp.scalp_pos, scalp.scalp_faces).distances))


def _from_fiducials(pose: CapPose, fiducials: Array) -> float:
    """Mean distance of the fiducials from those of the template, m."""
    recorded, template_pos = fiducials
    return float(np.linalg.norm(pose.on_template(recorded) - template_pos, axis=1).mean())


def _pose_of(to_head: Array) -> CapPose:
    """The pose of a transform: its rotation, its shift and one scale."""
    left, scales, right = np.linalg.svd(to_head[:3, :3])
    scale = np.full(3, 1 / scales.prod() ** (1 / 3))
    return CapPose((left @ right).T, scale, np.zeros(3), to_head[:3, 3])


def _by_fiducials(fiducials: Array | None) -> tuple[CapPose, str, float, float]:
    """One scale between the fiducials of two heads, whose frames they define."""
    if fiducials is None:
        raise ValueError(
            "recording: the position of its head on the template is unknown: no electrodes "
            f"with names of the 10-05 system, fewer than {FEWEST_HEAD_POINTS} points of the head "
            "and no fiducials (info['dig']). Give a transform (--trans, trans=) or a forward "
            "solution (--forward, forward=)."
        )
    recorded, template_pos = fiducials
    scale = float((recorded * template_pos).sum() / (template_pos**2).sum())
    pose = CapPose(np.eye(3), np.full(3, scale), np.zeros(3), np.zeros(3))
    return pose, "the fiducials", _from_fiducials(pose, fiducials), FAR_FROM_FIDUCIALS
