"""Electrode positions of BIDS: ``electrodes.tsv`` in the frame of ``coordsystem.json``."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepesi.runtime.reading.bids_table import read_table
from deepesi.utils.files import parsing

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

#: Lengths in m.
LENGTHS = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}
#: Frames with the origin between the preauricular points, and their axes.
RIGHT_ANTERIOR = ("CapTrak", "ElektaNeuromag", "NeuromagElektaMEGIN")
ANTERIOR_LEFT = ("CTF", "EEGLAB", "4DBti")
#: Landmarks that define the head frame.
LANDMARKS = ("NAS", "LPA", "RPA")
CURE = "Give --montage with standard positions instead, or correct the file."


def set_positions(
    info: "mne.Info", electrodes: Path, coordsystem: Path | None, exclude: Collection[str] = ()
) -> list[str]:
    """Give the channels of a recording the positions of ``electrodes.tsv``, in the head frame.

    Landmarks of ``coordsystem.json`` (nasion and preauricular points) define the head frame. Where
    it has none, CapTrak and MEGIN are taken as the head frame, and CTF, EEGLAB and 4D-BTi as the
    head frame with other axes (the direction of the nasion differs by a few degrees). Any other
    frame, such as a template brain, is refused.

    Raises:
        ValueError: No ``coordsystem.json``, another frame or unit, or an EEG channel of the
            recording that is neither bad nor excluded (``exclude``) is not in the table.

    """
    import mne

    if coordsystem is None:
        raise ValueError(
            f"{electrodes}: there is no coordsystem.json, so frame and unit of its positions are "
            f"unknown. {CURE}"
        )
    system, scale = _read_system(coordsystem)
    positions = {name: scale * where for name, where in _read_positions(electrodes).items()}
    _check_complete(info, {*positions, *exclude}, electrodes)
    landmarks = _landmarks(coordsystem, system)
    frame = str(system["EEGCoordinateSystem"])
    if landmarks is None:
        positions = {name: _to_head(frame, p, coordsystem) for name, p in positions.items()}
        montage = mne.channels.make_dig_montage(positions, coord_frame="head")
    else:
        montage = mne.channels.make_dig_montage(positions, *landmarks, coord_frame="unknown")
    info.set_montage(montage, on_missing="ignore", verbose="error")
    how = "" if landmarks is None else " and its landmarks"
    return [f"positions from {electrodes.name} ({frame}{how})"]


def _read_system(path: Path) -> tuple[dict[str, Any], float]:
    """The content of ``coordsystem.json`` and its unit, m."""
    with parsing(path, "coordinate system of BIDS", "It should be JSON."):
        system = dict(json.loads(path.read_text(encoding="utf-8-sig")))
    missing = [k for k in ("EEGCoordinateSystem", "EEGCoordinateUnits") if k not in system]
    if missing:
        raise ValueError(f"{path}: it lacks {missing}. {CURE}")
    if system["EEGCoordinateUnits"] not in LENGTHS:
        raise ValueError(
            f"{path}: positions are in {system['EEGCoordinateUnits']!r}, expected one of "
            f"{', '.join(LENGTHS)}. {CURE}"
        )
    return system, LENGTHS[system["EEGCoordinateUnits"]]


def _read_positions(path: Path) -> dict[str, Array]:
    """Positions by channel, in the unit of the file, without unknown ones."""
    rows = read_table(path, ("name", "x", "y", "z"))
    with parsing(path, "table of electrodes", "Positions should be numbers or n/a."):
        found = {
            row["name"]: np.array([float(row[axis]) for axis in "xyz"])
            for row in rows
            if "n/a" not in (row["x"], row["y"], row["z"])
        }
    infinite = [name for name, where in found.items() if not np.isfinite(where).all()]
    if infinite:
        raise ValueError(f"{path}: the positions of {infinite} are not finite. {CURE}")
    return found


def _check_complete(info: "mne.Info", placed: Collection[str], path: Path) -> None:
    import mne

    eeg = [info.ch_names[i] for i in mne.pick_types(info, meg=False, eeg=True)]  # without bad ones
    missing = [name for name in eeg if name not in placed]
    if missing:
        raise ValueError(
            f"{path}: it has no position for {missing}, EEG channels that are not bad. Add them, "
            "mark the channels bad or as no EEG in channels.tsv, or give --montage."
        )


def _landmarks(path: Path, system: dict[str, Any]) -> tuple[Array, ...] | None:
    """Nasion, left and right preauricular point, m, in the frame of the electrodes."""
    given = system.get("AnatomicalLandmarkCoordinates") or {}
    if not all(name in given for name in LANDMARKS):
        return None
    frame = system.get("AnatomicalLandmarkCoordinateSystem", system["EEGCoordinateSystem"])
    unit = system.get("AnatomicalLandmarkCoordinateUnits", system["EEGCoordinateUnits"])
    if frame != system["EEGCoordinateSystem"] or unit not in LENGTHS:
        raise ValueError(
            f"{path}: its landmarks are in {frame!r} and {unit!r}, its electrodes in "
            f"{system['EEGCoordinateSystem']!r} and {system['EEGCoordinateUnits']!r}. {CURE}"
        )
    with parsing(path, "coordinate system of BIDS", "Landmarks should be three numbers each."):
        points = [LENGTHS[unit] * np.array(given[k], dtype=np.float64) for k in LANDMARKS]
        return tuple(point.reshape(3) for point in points)


def _to_head(frame: str, position: Array, path: Path) -> Array:
    if frame in RIGHT_ANTERIOR:
        return position
    if frame in ANTERIOR_LEFT:
        return np.array([-position[1], position[0], position[2]])
    raise ValueError(
        f"{path}: positions are in the frame {frame!r} and there are no landmarks "
        f"(AnatomicalLandmarkCoordinates with {', '.join(LANDMARKS)}) to bring them to the head. "
        f"Without, one of {', '.join(RIGHT_ANTERIOR + ANTERIOR_LEFT)} is understood. {CURE}"
    )
