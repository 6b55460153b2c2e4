"""Faults of a cap: rotated, mirrored, electrodes exchanged or misplaced.

Expected positions are rotated, scaled along each axis and shifted to fit the recorded positions. A
fit that no real cap needs is a fault.

Source of the fit: `deepesi.physics.cap_pose.fit_pose`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from deepesi.physics.cap_pose import fit_pose, pitch_of

Array = NDArray[np.float64]

#: Largest rotation from the usual pitch, degrees: real caps reach 6.5, and 20 degrees are an error.
LARGEST_ANGLE = 10.5
#: Typical position error of one electrode, m. It makes the pose of a small cap uncertain.
ELECTRODE_ERROR = 0.006
#: Share of the electrodes, the nearest to their expected positions, that tell how well a cap fits.
NEAREST = 0.8
#: Largest number of contradictions in a message.
MAX_NAMED = 6
_DIRECTIONS = {
    (0, 1): "the right ear",
    (0, -1): "the left ear",
    (1, 1): "the nose",
    (1, -1): "the back of the head",
    (2, 1): "the top of the head",
    (2, -1): "the neck",
}
_TURNS = ("the axis through the ears", "the axis from back to front", "the vertical axis")


@dataclass(frozen=True)
class Tolerance:
    """How a real cap may differ from expected positions.

    Attributes:
        pitches: Lowest and highest usual pitch, degrees. A cap may be rotated by `LARGEST_ANGLE`
            more.
        distance: Largest distance of an electrode from its expected position, m.
        gain: Least gain in distance by an exchange of names, m per electrode.

    """

    pitches: tuple[float, float]
    distance: float
    gain: float


@dataclass(frozen=True)
class Comparison:
    """Recorded positions beside expected ones.

    Attributes:
        fault: Fault of the cap, as text; empty if there is none.
        error: Mean distance from expected positions, m, after the fit, of the four fifths of the
            electrodes that are nearest to theirs. Few wrong electrodes have little effect.
        n_misplaced: Number of electrodes that are exchanged or far away, in a cap that fits as a
            whole.

    """

    fault: str
    error: float
    n_misplaced: int = 0


@dataclass(frozen=True)
class _Fit:
    """The pose of a cap, with the residual distances.

    Attributes:
        turn: Orthogonal ``(3, 3)``, from the frame of the names to that of the positions.
        expected: Expected positions of the names ``(C, 3)``, m.
        distances: Distance of every electrode from its expected position ``(C,)``, m.

    """

    turn: Array
    expected: Array
    distances: Array

    @property
    def error(self) -> float:
        return float(self.distances.mean())

    @property
    def nearest_error(self) -> float:
        nearest = np.sort(self.distances)[: int(np.ceil(NEAREST * len(self.distances)))]
        return float(nearest.mean())


def compare_cap(
    names: Sequence[str], standard: Array, positions: Array, tolerance: Tolerance
) -> Comparison | None:
    """Compare the positions of a cap with standard positions of its names; the unit does not count.

    Args:
        names: Names of the electrodes.
        standard: Standard positions of these names ``(C, 3)``, m.
        positions: Recorded positions ``(C, 3)``.
        tolerance: How a real cap may differ.

    Returns:
        None if most electrodes are at one position, which another check refuses.

    """
    size = _size(positions)
    if size == 0:
        return None
    positions = positions * _size(standard) / size
    fit, mirrored = (_fitted(standard, positions, handedness) for handedness in (1, -1))
    if fit.error > ELECTRODE_ERROR and mirrored.error < fit.error / 2:
        return Comparison(f"the cap is mirrored, {_axes(mirrored.turn)}", mirrored.nearest_error)
    pitch = float(np.clip(pitch_of(fit.turn), *tolerance.pitches))
    cos, sin = np.cos(np.radians(pitch)), np.sin(np.radians(pitch))
    usual = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    if _angle(fit.turn @ usual.T) > np.hypot(LARGEST_ANGLE, 5 * _angle_error(positions)):
        return Comparison(_turned(fit.turn), fit.nearest_error)
    texts, n_misplaced = _misplaced(names, positions, fit, tolerance)
    more = [f"and {len(texts) - MAX_NAMED} more"] if len(texts) > MAX_NAMED else []
    return Comparison("; ".join(texts[:MAX_NAMED] + more), fit.nearest_error, n_misplaced)


def _size(points: Array) -> float:
    """Median distance of points ``(C, 3)`` from their median: robust to outliers."""
    return float(np.median(np.linalg.norm(points - np.median(points, axis=0), axis=1)))


def _fitted(template_pos: Array, positions: Array, handedness: int) -> _Fit:
    """Fit of `fit_pose`, for a turned cap (1) or a mirrored one (-1)."""
    pose = fit_pose(template_pos, positions, handedness)
    expected = pose.recorded(template_pos)
    return _Fit(pose.turn, expected, np.linalg.norm(positions - expected, axis=1))


def _angle_error(positions: Array) -> float:
    """Standard error of the rotation about the least certain axis, degrees."""
    spread = np.linalg.svd(positions - positions.mean(axis=0), compute_uv=False)
    return float(np.degrees(ELECTRODE_ERROR / np.hypot(spread[1], spread[2])))


def _misplaced(
    names: Sequence[str], positions: Array, fit: _Fit, tolerance: Tolerance
) -> tuple[list[str], int]:
    """Descriptions of electrodes that are exchanged or far away, and the number of these."""
    rings = _exchanged(cdist(positions, fit.expected), tolerance.gain)
    texts = [
        f"{' and '.join(names[i] for i in ring)} are exchanged"
        if len(ring) == 2
        else f"{', '.join(names[i] for i in ring)} have each other's positions"
        for ring in rings
    ]
    exchanged = {i for ring in rings for i in ring}
    far = np.flatnonzero(fit.distances > tolerance.distance).tolist()
    far = [i for i in far if i not in exchanged]
    texts += [
        f"{names[i]} lies {1e3 * fit.distances[i]:.0f} mm from the position of its name"
        for i in far
    ]
    return texts, len(exchanged) + len(far)


def _exchanged(distances: Array, least_gain: float) -> list[list[int]]:
    """Groups of electrodes that fit better with names exchanged in a ring.

    Args:
        distances: Distances of electrodes (rows) from the positions of names ``(C, C)``, m.
        least_gain: Least gain in distance, m per electrode.

    """
    _, takes = linear_sum_assignment(distances)
    rings, visited = [], set()
    for start in range(len(takes)):
        ring, row = [], start
        while row not in visited:
            visited.add(row)
            ring.append(row)
            row = int(takes[row])
        gain = (distances[ring, ring] - distances[ring, takes[ring]]).sum()
        if len(ring) > 1 and gain > least_gain * len(ring):
            rings.append(ring)
    return rings


def _axes(turn: Array) -> str:
    """Description of where the axes of the positions point, according to the names."""
    texts = []
    for letter, direction in zip("xyz", turn, strict=True):
        axis = int(np.abs(direction).argmax())
        texts.append(f"{letter} points to {_DIRECTIONS[axis, int(np.sign(direction[axis]))]}")
    return ", ".join(texts)


def _angle(turn: Array) -> float:
    """Angle of a rotation ``(3, 3)``, degrees."""
    return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))


def _turned(turn: Array) -> str:
    """Description of a rotation; with the axes, if it exchanges them."""
    axis = np.abs(np.linalg.svd(turn - np.eye(3))[2][-1])
    about = _TURNS[int(axis.argmax())] if axis.max() > 0.9 else "a slanted axis"
    text = f"the cap is turned by {_angle(turn):.0f} degrees about {about}"
    return text if (turn.argmax(axis=1) == range(3)).all() else f"{text}, {_axes(turn)}"
