"""Places the MEG coils of a recording about a template head.

The positions of coils are known in the head frame of the recording, which is that of another head
than the template. They are turned, scaled and shifted as the head of the recording is, in order of
preference

1. by a transform of the user;
2. by electrodes of the recording with names of the 10-05 system;
3. by at least 100 digitized points of the head;
4. by the three fiducials: one scale, no rotation.

The centres of the coils are scaled with the head, coils keep their size. This is the same as a
template that is scaled to the head of the recording, but for the strength of the sources.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deepesi.physics.cap_placement import (
    FAR_FROM_NAMES,
    FAR_FROM_SCALP,
    FEWEST_HEAD_POINTS,
    TRANSFORM,
    RecordedCap,
    places_of_names,
)
from deepesi.physics.cap_pose import CapPose, fit_pose, fit_pose_to_scalp
from deepesi.physics.graph import is_inside
from deepesi.physics.magnetic import Coils
from deepesi.physics.scalp import project_to_mesh
from deepesi.physics.template import Template

Array = NDArray[np.float64]

#: Mean distance of the fiducials after scaling, m, above which to warn.
FAR_FROM_FIDUCIALS = 0.008
#: Largest distance of the nearest coil of an array from the scalp, m: nobody sits that low in it.
FARTHEST = 0.08


@dataclass(frozen=True)
class Landmarks:
    """What a recording knows of its head, m, MNE head frame.

    Attributes:
        cap: Electrodes, maybe none, and other points of the scalp.
        fiducials: Left ear, nasion and right ear of the recording and of the template
            ``(2, 3, 3)``, each in its head frame; None: not known.

    """

    cap: RecordedCap
    fiducials: Array | None


@dataclass(frozen=True)
class CoilPlacement:
    """MEG coils about a template head, and how they came there.

    Attributes:
        coils: The coils in the head frame of the template.
        by: What they were placed by, as text.
        residual: Distance that the fit leaves, m: of the named electrodes or fiducials (mean), or
            of the points of the head from the scalp (median).
        limit: Residual above which to warn, m.
        gap: Distance of the nearest coil from the scalp, m.

    """

    coils: Coils
    by: str
    residual: float
    limit: float
    gap: float

    def __str__(self) -> str:
        return (
            f"placed by {self.by}, residual {1e3 * self.residual:.1f} mm, nearest coil "
            f"{1e3 * self.gap:.0f} mm from the scalp"
        )

    @property
    def warnings(self) -> list[str]:
        """What to doubt; empty for a good fit."""
        if self.residual <= self.limit:
            return []
        return [
            f"the head of the recording does not fit the template well: placed by {self.by} it is "
            f"{1e3 * self.residual:.1f} mm off, expected at most {1e3 * self.limit:g} mm. Check "
            "fiducials and head points, or give a transform (--trans, trans=) or a forward solution"
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
        ValueError: The recording has nothing to place them by, or they lie inside the head or far
            from it.

    """
    pose, by, residual, limit = _pose(template, landmarks, to_head)
    placed = _moved(coils, pose)
    scalp, faces = template.family.scalp_pos, template.family.scalp_faces
    gap = float(cKDTree(scalp).query(placed.points)[0].min())
    inside = bool(is_inside(placed.sensors.positions, scalp, faces).any())
    if inside or gap > FARTHEST:
        where = "inside the head" if inside else f"{1e3 * gap:.0f} mm from the scalp at the nearest"
        raise ValueError(
            f"recording: placed by {by}, its MEG coils lie {where} of {template.name}. Check the "
            "position of the head (info['dev_head_t']) and its points (info['dig']), or give a "
            "forward solution (--forward, forward=)."
        )
    return CoilPlacement(placed, by, residual, limit, gap)


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
    """Pose, what it was found by, its residual and the usual largest one, m."""
    cap, scalp = landmarks.cap, (template.family.scalp_pos, template.family.scalp_faces)
    on_scalp = np.concatenate([cap.positions.reshape(-1, 3), cap.head_points])
    if to_head is not None:
        pose, by = _pose_of(to_head), TRANSFORM
    elif (named := places_of_names(template, cap.ch_names))[0]:
        rows, places = named[0], named[1].positions
        pose = fit_pose(places, cap.positions[rows])
        off = np.linalg.norm(cap.positions[rows] - pose.recorded(places), axis=1).mean()
        return pose, f"{len(rows)} names of the 10-05 system", float(off), FAR_FROM_NAMES
    elif len(cap.head_points) >= FEWEST_HEAD_POINTS:
        pose, by = fit_pose_to_scalp(on_scalp, *scalp), f"{len(cap.head_points)} head points"
    else:
        return _by_fiducials(landmarks.fiducials)
    if not len(on_scalp):
        return pose, by, 0.0, FAR_FROM_SCALP
    off = np.median(project_to_mesh(pose.on_template(on_scalp), *scalp).distances)
    return pose, by, float(off), FAR_FROM_SCALP


def _pose_of(to_head: Array) -> CapPose:
    """The pose of a transform: its rotation, its shift and one scale."""
    left, scales, right = np.linalg.svd(to_head[:3, :3])
    scale = np.full(3, 1 / scales.prod() ** (1 / 3))
    return CapPose((left @ right).T, scale, np.zeros(3), to_head[:3, 3])


def _by_fiducials(fiducials: Array | None) -> tuple[CapPose, str, float, float]:
    """One scale between the fiducials of two heads, whose frames they define."""
    if fiducials is None:
        raise ValueError(
            "recording: nothing says where its head is relative to the template: no electrodes "
            f"with names of the 10-05 system, fewer than {FEWEST_HEAD_POINTS} points of the head "
            "and no fiducials (info['dig']). Give a transform (--trans, trans=) or a forward "
            "solution (--forward, forward=)."
        )
    recorded, places = fiducials
    scale = float((recorded * places).sum() / (places**2).sum())
    pose = CapPose(np.eye(3), np.full(3, scale), np.zeros(3), np.zeros(3))
    off = np.linalg.norm(pose.on_template(recorded) - places, axis=1).mean()
    return pose, "the fiducials", float(off), FAR_FROM_FIDUCIALS
