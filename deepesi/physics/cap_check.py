"""Compares electrode positions with names: turned or mirrored caps, exchanged electrodes.

A name of the 10-05 system gives a position. The positions of these names on fsaverage are rotated,
scaled along each axis and shifted to fit the recorded positions. A fit that no real cap would need
is an error. Names of other systems (``E1``, ``A1`` to ``D32``, ``EEG 001``) have no unique
position.

Source: 10-05 system, Oostenveld & Praamstra 2001 (doi:10.1016/S1388-2457(00)00527-7); positions on
fsaverage from MNE-Python. Fit of poses: `deepesi.physics.cap_pose.fit_pose`.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from deepesi.physics.cap_pose import USUAL_PITCH, fit_pose
from deepesi.physics.channel_names import plain_names, ten_five_name
from deepesi.physics.montage import standard_montage

Array = NDArray[np.float64]

#: Fewest electrodes with known names from which the pose of a cap is estimated.
FEWEST_NAMES = 8
#: Largest rotation from the usual pitch, degrees: real caps reach 6.5, and 20 degrees are an error.
LARGEST_ANGLE = 10.5
#: Largest distance of an electrode from its expected position, m: every built-in montage of
#: MNE-Python stays below 0.02, and a step of the 10-20 system is 0.05 to 0.06.
LARGEST_DISTANCE = 0.04
#: Least gain in distance by an exchange of names, m per electrode; errors of 10 mm gain less.
LEAST_GAIN = 0.02
#: Typical position error of one electrode, m. It makes the pose of a small cap uncertain.
ELECTRODE_ERROR = 0.006
#: Largest number of contradictions in a message.
MOST_NAMED = 6
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


def check_cap(ch_names: Sequence[str], positions: Array, origin: str = "recording") -> None:
    """Refuse electrodes whose positions contradict their names.

    No check if fewer than 8 names, or fewer than half of them, are of the 10-05 system (any case;
    T3, T4, T5 and T6 are the older names of T7, T8, P7 and P8). The unit does not matter.

    Args:
        ch_names: Names of the electrodes.
        positions: ``(C, 3)``, m, MNE head frame.
        origin: Name of the source of the positions, for errors.

    Raises:
        ValueError: The cap is turned or mirrored, electrodes are exchanged, or one lies far from
            its expected position.

    """
    rows, electrodes = known_electrodes(ch_names)
    if not rows:
        return
    names, own = [ch_names[row] for row in rows], positions[rows]
    standard = np.array([_known_positions()[electrode] for electrode in electrodes])
    size = _size(own)
    if size == 0:
        return  # another check refuses electrodes at one position
    contradiction = _contradiction(names, standard, own * _size(standard) / size)
    if contradiction:
        raise ValueError(
            f"{origin}: the positions of its electrodes contradict their names: "
            f"{contradiction}. In the "
            "MNE head frame x points to the right ear, y to the nose and z to the top of the head. "
            "Check axes and names in the file that the positions come from, or take standard "
            "positions (--montage NAME, set_montage)."
        )


def known_electrodes(ch_names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Channels with names of the 10-05 system: their rows, and the names in lower case.

    Both are empty if fewer than 8 names, or fewer than half of them, are of the system: other
    systems (``A1`` to ``D32``) give some of its names to other positions.
    """
    keys = _ten_five_keys(ch_names)
    rows = [row for row, key in enumerate(keys) if key in _known_positions()]
    if len(rows) < max(FEWEST_NAMES, len(ch_names) / 2):
        return [], []
    return rows, [keys[row] for row in rows]


def _size(points: Array) -> float:
    """Median distance of points ``(C, 3)`` from their median: robust to outliers."""
    return float(np.median(np.linalg.norm(points - np.median(points, axis=0), axis=1)))


def _contradiction(names: Sequence[str], standard: Array, positions: Array) -> str:
    """Description of a rotation or reflection that no real cap has; empty if there is none."""
    fit, mirrored = (_fitted(standard, positions, handedness) for handedness in (1, -1))
    error, mirrored_error = fit.distances.mean(), mirrored.distances.mean()
    if error > ELECTRODE_ERROR and mirrored_error < error / 2:
        return f"the cap is mirrored, {_axes(mirrored.turn)}"
    cos, sin = np.cos(np.radians(USUAL_PITCH)), np.sin(np.radians(USUAL_PITCH))
    usual = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    if _angle(fit.turn @ usual.T) > np.hypot(LARGEST_ANGLE, 5 * _angle_error(positions)):
        return _turned(fit.turn)
    texts = _misplaced(names, positions, fit)
    more = [f"and {len(texts) - MOST_NAMED} more"] if len(texts) > MOST_NAMED else []
    return "; ".join(texts[:MOST_NAMED] + more)


def _ten_five_keys(ch_names: Sequence[str]) -> list[str]:
    """Keys of names in `_known_positions`; empty if the capitals are those of another system (aF3).

    A reference that all names have in common (``Fp1-Cz``) is removed.
    """
    return [
        "" if name[:1].islower() and name != name.lower() else (ten_five_name(plain) or "").lower()
        for name, plain in zip(ch_names, plain_names(ch_names), strict=True)
    ]


@functools.cache
def _known_positions() -> dict[str, Array]:
    names, positions = standard_montage("fsaverage_1005")
    return dict(zip([name.lower() for name in names], positions, strict=True))


def _fitted(template_pos: Array, positions: Array, handedness: int) -> _Fit:
    """Fit of `fit_pose`, for a turned cap (1) or a mirrored one (-1)."""
    pose = fit_pose(template_pos, positions, handedness)
    expected = pose.recorded(template_pos)
    return _Fit(pose.turn, expected, np.linalg.norm(positions - expected, axis=1))


def _angle_error(positions: Array) -> float:
    """Standard error of the rotation about the least certain axis, degrees."""
    spread = np.linalg.svd(positions - positions.mean(axis=0), compute_uv=False)
    return float(np.degrees(ELECTRODE_ERROR / np.hypot(spread[1], spread[2])))


def _misplaced(names: Sequence[str], positions: Array, fit: _Fit) -> list[str]:
    """Descriptions of electrodes that are exchanged or far away, in a cap that fits as a whole."""
    rings = _exchanged(cdist(positions, fit.expected))
    texts = [
        f"{' and '.join(names[i] for i in ring)} are exchanged"
        if len(ring) == 2
        else f"{', '.join(names[i] for i in ring)} have each other's positions"
        for ring in rings
    ]
    explained = {i for ring in rings for i in ring}
    return texts + [
        f"{names[i]} lies {1e3 * fit.distances[i]:.0f} mm from the position of its name"
        for i in np.flatnonzero(fit.distances > LARGEST_DISTANCE).tolist()
        if i not in explained
    ]


def _exchanged(distances: Array) -> list[list[int]]:
    """Groups of electrodes that fit better with names exchanged in a ring.

    Args:
        distances: Distances of electrodes (rows) from the positions of names ``(C, C)``, m.

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
        if len(ring) > 1 and gain > LEAST_GAIN * len(ring):
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
