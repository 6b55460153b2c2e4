"""CapRanges: the cap as a rigid body with electrode errors, and the analyst's knowledge of it.

The pose of a cap differs from head to head, above all in pitch. An analyst who takes positions by
the names of the electrodes, or from a standard montage, has the lead field of another pose than the
true one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from deepesi.data_gen.ranges import METRES, RADIANS, check_number, check_range
from deepesi.physics.cap_placement import positions_of_names
from deepesi.physics.cap_pose import MIDDLE, fit_pose
from deepesi.physics.scalp import ScalpPoints, project_to_mesh, steps_along_scalp, turn_caps
from deepesi.physics.template import Template

Array = NDArray[np.float64]

#: What an analyst can know of the positions of electrodes.
NAMES, TEMPLATE, DIGITIZED = KNOWLEDGE = ("names", "template", "digitized")


@dataclass(frozen=True)
class CapRanges:
    """Ranges of the caps of recording set-ups.

    Args:
        pitch: Mean pitch, the rotation about the x axis (through the ears), rad; below 0 the
            forehead is down.
        pitch_sd: Standard deviation of the pitch, rad.
        rotation_sd: Standard deviation of the rotation about the other two axes, rad.
        lateral_shift_sd: Standard deviation of the shift along x (to the right), m.
        shift_sd: Range of the standard deviation of the shifts along y and z, one per set-up, m.
        electrode_error: Range of the mean step of an electrode along the scalp, one per set-up, m.
        knowledge: What the analyst knows, one per set-up: ``names``, the positions of the names on
            the head; ``template``, the standard montage of the cap, fitted to the scalp;
            ``digitized``, the true positions but for the three errors below.
        digitization_error: Range of the mean step of a digitized electrode, one per set-up, m.
        coregistration_shift_sd: Range of the standard deviation of the shift along each axis, m.
        coregistration_rotation_sd: Range of the standard deviation of the rotation about each
            axis, rad.

    Raises:
        ValueError: A range is out of order or not in SI units, or a level of knowledge is unknown.

    Source: poses of real caps relative to the positions of their names on fsaverage (pitch -10 to
    +3 degrees); electrode errors: Dalal et al. 2014, doi:10.3389/fnins.2014.00042.

    """

    pitch: float = float(np.radians(-3.5))
    pitch_sd: float = float(np.radians(5.5))
    rotation_sd: float = float(np.radians(2.0))
    lateral_shift_sd: float = 0.002
    shift_sd: tuple[float, float] = (0.006, 0.008)
    electrode_error: tuple[float, float] = (0.003, 0.007)
    knowledge: Sequence[str] = KNOWLEDGE
    digitization_error: tuple[float, float] = (0.001, 0.003)
    coregistration_shift_sd: tuple[float, float] = (0.001, 0.003)
    coregistration_rotation_sd: tuple[float, float] = (
        float(np.radians(1.0)),
        float(np.radians(3.0)),
    )

    def __post_init__(self) -> None:
        who = "CapRanges"
        check_number(who, "pitch", self.pitch, -0.35, 0.35, RADIANS)
        check_number(who, "pitch_sd", self.pitch_sd, 0, 0.35, RADIANS)
        check_number(who, "rotation_sd", self.rotation_sd, 0, 0.35, RADIANS)
        check_number(who, "lateral_shift_sd", self.lateral_shift_sd, 0, 0.03, METRES)
        check_range(who, "shift_sd", self.shift_sd, 0, 0.03, METRES)
        check_range(who, "electrode_error", self.electrode_error, 0, 0.03, METRES)
        check_range(who, "digitization_error", self.digitization_error, 0, 0.03, METRES)
        check_range(who, "coregistration_shift_sd", self.coregistration_shift_sd, 0, 0.03, METRES)
        rotation = self.coregistration_rotation_sd
        check_range(who, "coregistration_rotation_sd", rotation, 0, 0.35, RADIANS)
        if not self.knowledge or not set(self.knowledge) <= set(KNOWLEDGE):
            raise ValueError(
                f"CapRanges: knowledge {list(self.knowledge)}, expected some of {list(KNOWLEDGE)}."
            )


class Movement(NamedTuple):
    """Distribution of the differences between two sets of positions of a cap.

    Attributes:
        turn: Mean rotation vector ``(3,)``, rad.
        turn_sd: Standard deviations of the rotation vector ``(3,)``, rad.
        shift_sd: Standard deviations of the shift ``(3,)``, m.
        step: Mean step of an electrode along the scalp, m.

    """

    turn: Array
    turn_sd: Array
    shift_sd: Array
    step: float

    @property
    def is_none(self) -> bool:
        """Whether nothing moves."""
        return not (self.turn.any() or self.turn_sd.any() or self.shift_sd.any() or self.step)


class DrawnCap(NamedTuple):
    """One cap.

    Attributes:
        displaced: True electrodes ``(P, M, C)``: poses, and copies of every electrode in each.
        nominal: Electrodes that the analyst takes ``(C,)``.
        knowledge: What the analyst knows, one of `KNOWLEDGE`.

    """

    displaced: ScalpPoints
    nominal: ScalpPoints
    knowledge: str


def draw_cap(
    template: Template,
    montage: str,
    ch_names: Sequence[str],
    ranges: CapRanges,
    n_poses: int,
    n_copies: int,
    rng: np.random.Generator,
) -> DrawnCap:
    """Draw a cap on a head, in several poses, and the positions that the analyst takes.

    A set-up renders every example through one pose, and in it one copy of every electrode. The true
    positions of ``names`` and ``template`` are the positions of the names, displaced. Those of
    ``digitized`` are one such cap, the analyst's, displaced by errors of digitization. Poses are
    about the middle of the head. The cap is then projected onto the scalp, which keeps rotations,
    and of shifts what is along the scalp: half along x, two thirds along y, nearly all along z.

    >>> from deepesi.physics.template import load_template
    >>> template = load_template("fsaverage-ico3")
    >>> names, _ = template.montage("biosemi32")
    >>> rng = np.random.default_rng(0)
    >>> cap = draw_cap(template, "biosemi32", names, CapRanges(), 2, 4, rng)
    >>> cap.displaced.vertices.shape  # RecordingSetup.displaced: these, and the weights
    (2, 4, 32, 3)
    >>> head = template.head(names, cap.nominal)  # RecordingSetup.head
    >>> # An analyst without the anatomy puts the nominal positions on another head:
    >>> # place_cap(nominal_head, RecordedCap(names, cap.nominal.positions)).points

    Args:
        template: The head. If it is known by a forward solution only, nothing is displaced.
        montage: Name of the montage of the cap.
        ch_names: Electrodes of the montage that are used.
        ranges: Ranges of the cap.
        n_poses: Number ``P`` of poses of the whole cap.
        n_copies: Number ``M`` of positions of every electrode in each pose.
        rng: Random generator.

    """
    known, positions = template.montage(montage)
    fitted = positions[[known.index(name) for name in ch_names]]
    knowledge = str(rng.choice(list(ranges.knowledge)))
    if template.cap is not None:
        return DrawnCap(fitted[None, None], fitted, knowledge)
    named = _named(template, ch_names, fitted)
    movement = _movement_of_cap(ranges, rng)
    if knowledge != DIGITIZED:
        displaced = displace_cap(template, named, movement, n_poses, n_copies, rng)
        return DrawnCap(displaced, named if knowledge == NAMES else fitted, knowledge)
    digitized = displace_cap(template, named, movement, 1, 1, rng)[0, 0]
    errors = _digitization(ranges, rng)
    displaced = displace_cap(template, digitized, errors, n_poses, n_copies, rng)
    return DrawnCap(displaced, digitized, knowledge)


def _named(template: Template, ch_names: Sequence[str], fitted: ScalpPoints) -> ScalpPoints:
    """Positions of the names; electrodes with other names keep their position among the others."""
    rows, known = positions_of_names(template, ch_names)
    if len(rows) in (0, len(ch_names)):
        return known if rows else fitted
    pose = fit_pose(known.positions, fitted.positions[rows])
    family = template.family
    named = project_to_mesh(
        pose.on_template(fitted.positions), family.scalp_pos, family.scalp_faces
    )
    for part, own in zip(vars(named).values(), vars(known).values(), strict=True):
        part[rows] = own
    return named


def movement_of(ranges: CapRanges, knowledge: str, rng: np.random.Generator) -> Movement:
    """Draw how true electrodes differ from those that an analyst with this knowledge takes."""
    return _digitization(ranges, rng) if knowledge == DIGITIZED else _movement_of_cap(ranges, rng)


def _movement_of_cap(ranges: CapRanges, rng: np.random.Generator) -> Movement:
    """Movement of a cap on a head, relative to the positions of its names."""
    other, lateral, shift = (
        ranges.rotation_sd,
        ranges.lateral_shift_sd,
        rng.uniform(*ranges.shift_sd),
    )
    return Movement(
        turn=np.array([ranges.pitch, 0.0, 0.0]),
        turn_sd=np.array([ranges.pitch_sd, other, other]),
        shift_sd=np.array([lateral, shift, shift]),
        step=float(rng.uniform(*ranges.electrode_error)),
    )


def _digitization(ranges: CapRanges, rng: np.random.Generator) -> Movement:
    """Errors of digitized positions."""
    return Movement(
        turn=np.zeros(3),
        turn_sd=np.full(3, rng.uniform(*ranges.coregistration_rotation_sd)),
        shift_sd=np.full(3, rng.uniform(*ranges.coregistration_shift_sd)),
        step=float(rng.uniform(*ranges.digitization_error)),
    )


def displace_cap(
    template: Template,
    electrodes: ScalpPoints,
    movement: Movement,
    n_poses: int,
    n_copies: int,
    rng: np.random.Generator,
) -> ScalpPoints:
    """Displaced electrodes ``(P, M, C)``; the electrodes themselves ``(1, 1, C)`` if none moves."""
    if movement.is_none:
        return electrodes[None, None]
    moved = moved_cap(template, electrodes, movement, n_poses, n_copies, rng)
    return project_to_mesh(moved, template.family.scalp_pos, template.family.scalp_faces)


def moved_cap(
    template: Template,
    electrodes: ScalpPoints,
    movement: Movement,
    n_poses: int,
    n_copies: int,
    rng: np.random.Generator,
) -> Array:
    """Electrodes ``(P, M, C, 3)``, m, of a cap that moves as a rigid body, off the scalp."""
    centre, shape = template.family.scalp_pos.mean(axis=0), (n_poses, n_copies)
    steps = steps_along_scalp(electrodes.positions, centre, movement.step, shape, rng)
    turns = Rotation.from_rotvec(movement.turn + movement.turn_sd * rng.normal(size=(n_poses, 3)))
    shifts = movement.shift_sd * rng.normal(size=(n_poses, 3))
    return turn_caps(electrodes.positions + steps, turns.as_matrix(), shifts, MIDDLE)
