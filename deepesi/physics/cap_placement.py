"""Places the electrodes of a recording on a template head: by transform, names or head points.

Recorded positions belong to another head than the template. In order of preference they are placed

1. by a transform of the user, exactly;
2. by names: the positions are turned, scaled and shifted to the positions of these names on the
   template, if at least 8 names, and half of all, are of the 10-05 system;
3. by head points: electrodes and digitized head points are fitted to the scalp of the template with
   rotation, if there are at least 100 head points;
4. by scales and shifts to the scalp, as standard montages are. Their pitch stays as it is.

Names and head points are not used on a head of the user's own, where they would move electrodes
away from positions that were recorded on that head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.cap_check import known_electrodes
from deepesi.physics.cap_pose import CapPose, fit_pose, fit_pose_to_scalp, pitch_of
from deepesi.physics.graph import is_inside
from deepesi.physics.scalp import ScalpPoints, check_metres, check_on_scalp, project_to_mesh
from deepesi.physics.template import Template

Array = NDArray[np.float64]

#: Fewest head points that determine the shape of a head. With 70 to 78 points only 40 % of the
#: pitch is recovered. In simulation they help little (eLORETA 18.8 to 16.5 mm, dipole scan 19.1 to
#: 18.8, convdip 11.6 to 11.4, standard error 0.8 to 1.5), and on the sample subject they make it
#: worse (right visual response: eLORETA 27 to 36 mm, packaged `ensemble` 40 to 107 mm). 162 points
#: of her scalp improve every method (14/14/14 and 20/20/24 mm). See
#: docs/decisions/0011-electrode-positions.md.
FEWEST_HEAD_POINTS = 100
#: Mean distance of electrodes from the positions of their names, m, above which to warn: montages
#: of MNE-Python have less than 6.5 mm, caps on other heads with electrode errors of 7 mm below 9.5.
FAR_FROM_NAMES = 0.010
#: Median distance of electrodes from the scalp, m, above which to warn, and for transforms the
#: largest: on the sample subject the right transform has 1 mm, one that is 10 degrees or 10 mm off
#: has 4 to 6 mm, the MRI of another head 7 mm, and an inverted transform 39 mm.
FAR_FROM_SCALP, OFF_SCALP = 0.005, 0.010
#: Largest depth in the head of all but a tenth of the electrodes, m: 1 mm with the right transform,
#: 11 mm with the MRI of another head.
DEEPEST = 0.008
#: Least RMS distance, m, of the electrodes of a cap from a line.
MIN_SPREAD = 0.005
#: `Placement.method` of electrodes that a transform of the user placed.
TRANSFORM = "the transform"


@dataclass(frozen=True)
class RecordedCap:
    """Electrodes of a recording, m, MNE head frame.

    Attributes:
        ch_names: Names of the electrodes.
        positions: ``(C, 3)``.
        head_points: Further points on the scalp ``(N, 3)``.

    """

    ch_names: Sequence[str]
    positions: Array
    head_points: Array = field(default_factory=lambda: np.empty((0, 3)))


@dataclass(frozen=True)
class Placement:
    """Electrodes on a template head, and how they were placed.

    Attributes:
        ch_names: Names of the electrodes.
        points: Electrodes on the scalp of the template ``(C,)``.
        method: Method of the placement, as text.
        residual: Residual distance of the fit, m: mean distance from the positions of names, or
            else median distance from the scalp.
        max_residual: Residual above which to warn, m.
        pitch: Rotation of the cap about the axis through the ears, relative to the template,
            degrees; below 0 the forehead is down. None: not estimated.

    """

    ch_names: Sequence[str]
    points: ScalpPoints
    method: str
    residual: float
    max_residual: float = FAR_FROM_SCALP
    pitch: float | None = None

    def __str__(self) -> str:
        pitch = "not estimated" if self.pitch is None else f"{self.pitch:.1f} degrees"
        return f"placed by {self.method}, residual {1e3 * self.residual:.1f} mm, pitch {pitch}"

    @property
    def warnings(self) -> list[str]:
        """Warnings; empty for a good fit."""
        if self.residual <= self.max_residual:
            return []
        return [
            f"the electrodes do not fit the head well: placed by {self.method} they are "
            f"{1e3 * self.residual:.1f} mm off, expected at most {1e3 * self.max_residual:g} mm. "
            "Check their positions and fiducials, or give a transform (--trans, trans=)"
        ]


def place_cap(template: Template, cap: RecordedCap, to_head: Array | None = None) -> Placement:
    """Place the electrodes of a recording on a template head.

    Args:
        template: The head.
        cap: Electrodes and head points of the recording.
        to_head: Transform ``(4, 4)`` of the user, from the head frame of the recording to that of
            the template; None to fit one.

    Raises:
        ValueError: The electrodes do not fit, or the head has no scalp to put them on.

    """
    if template.cap is not None:  # refused
        template.electrodes(cap.positions, cap.ch_names)
    check_metres(cap.positions)
    _check_spread(cap.positions)
    if to_head is not None:
        return _by_transform(template, cap, to_head)
    if np.isfinite(template.source_mni).all():  # fsaverage and its warps
        rows, known = positions_of_names(template, cap.ch_names)
        if rows:
            return _by_names(template, cap, rows, known.positions)
        if len(cap.head_points) >= FEWEST_HEAD_POINTS:
            return _by_head_points(template, cap)
    points = template.electrodes(cap.positions, cap.ch_names)
    return Placement(cap.ch_names, points, "scales and shifts", _from_scalp(points))


def _check_spread(positions: Array) -> None:
    """Refuse electrodes ``(C, 3)`` at one point or on a line, to which no cap can be fitted."""
    centred = positions - positions.mean(axis=0)
    _, across, *_ = np.linalg.svd(centred, compute_uv=False) / np.sqrt(len(positions))
    if across < MIN_SPREAD:
        raise ValueError(
            f"electrode positions: all {len(positions)} lie within {1e3 * across:.1f} mm (RMS) of "
            "one point or line. Take the positions of every electrode, or standard ones "
            "(--montage NAME, set_montage)."
        )


def positions_of_names(
    template: Template, ch_names: Sequence[str]
) -> tuple[list[int], ScalpPoints]:
    """Rows of the channels with names of the 10-05 system, and their positions on a template head.

    Both are empty where there are too few such names, as in `known_electrodes`.
    """
    rows, electrodes = known_electrodes(ch_names)
    names, positions = template.montage("fsaverage_1005")
    numbers = {name.lower(): number for number, name in enumerate(names)}
    return rows, positions[[numbers[electrode] for electrode in electrodes]]


def _by_names(template: Template, cap: RecordedCap, rows: list[int], known: Array) -> Placement:
    """Electrodes turned, scaled and shifted to the known positions of some rows."""
    pose = fit_pose(known, cap.positions[rows])
    off = np.linalg.norm(cap.positions[rows] - pose.recorded(known), axis=1).mean()
    method, points = f"{len(rows)} names of the 10-05 system", _projected(template, cap, pose)
    return Placement(cap.ch_names, points, method, float(off), FAR_FROM_NAMES, pose.pitch)


def _by_head_points(template: Template, cap: RecordedCap) -> Placement:
    """Electrodes and head points fitted to the scalp."""
    on_scalp = np.concatenate([cap.positions, cap.head_points])
    pose = fit_pose_to_scalp(on_scalp, template.family.scalp_pos, template.family.scalp_faces)
    method, points = f"{len(cap.head_points)} head points", _projected(template, cap, pose)
    return Placement(cap.ch_names, points, method, _from_scalp(points), pitch=pose.pitch)


def _projected(template: Template, cap: RecordedCap, pose: CapPose) -> ScalpPoints:
    """Electrodes on the scalp of the template after a fit, which is checked."""
    family = template.family
    placed = pose.on_template(cap.positions)
    points = project_to_mesh(placed, family.scalp_pos, family.scalp_faces)
    check_on_scalp(points, cap.ch_names, 1 / pose.scale)
    return points


def _from_scalp(points: ScalpPoints) -> float:
    return float(np.median(points.distances))


def _by_transform(template: Template, cap: RecordedCap, to_head: Array) -> Placement:
    """Electrodes where a transform puts them, if that is on the scalp."""
    family = template.family
    placed = cap.positions @ to_head[:3, :3].T + to_head[:3, 3]
    points = project_to_mesh(placed, family.scalp_pos, family.scalp_faces)
    inside = is_inside(placed, family.scalp_pos, family.scalp_faces)
    depth = float(np.quantile(np.where(inside, points.distances, -points.distances), 0.9))
    off = _from_scalp(points)
    if off > OFF_SCALP or depth > DEEPEST:
        raise ValueError(
            f"--trans: it puts the electrodes {1e3 * off:.0f} mm from the scalp of {template.name} "
            f"(median), a tenth of them {1e3 * max(depth, 0):.0f} mm or more inside the head; "
            f"expected at most {1e3 * OFF_SCALP:g} and {1e3 * DEEPEST:g} mm. It is of another "
            "subject, another head or another session, or the wrong way round. For the packaged "
            "head it must end in the MRI of fsaverage or in MNI space, see docs/deployment.md."
        )
    left, _, right = np.linalg.svd(to_head[:3, :3])  # the rotation in it, to the template
    return Placement(cap.ch_names, points, TRANSFORM, off, pitch=pitch_of((left @ right).T))
