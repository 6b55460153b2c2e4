"""Electrode positions of BIDS: ``electrodes.tsv`` in the frame of ``coordsystem.json``."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.runtime.reading.bids_files import Description, Table

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
    info: "mne.Info",
    electrodes: Table,
    coordsystem: Description | None,
    exclude: Collection[str] = (),
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
            f"{electrodes.path}: there is no coordsystem.json, so frame and unit of its positions "
            f"are unknown. {CURE}"
        )
    scale = _unit(coordsystem)
    positions = {name: scale * where for name, where in _positions(electrodes).items()}
    _check_complete(info, {*positions, *exclude}, electrodes.path)
    landmarks = _landmarks(coordsystem)
    frame = str(coordsystem.entries["EEGCoordinateSystem"])
    if landmarks is None:
        positions = {name: _to_head(frame, p, coordsystem.path) for name, p in positions.items()}
        montage = mne.channels.make_dig_montage(positions, coord_frame="head")
    else:
        montage = mne.channels.make_dig_montage(positions, *landmarks, coord_frame="unknown")
    info.set_montage(montage, on_missing="ignore", verbose="error")
    how = "" if landmarks is None else " and its landmarks"
    return [f"positions from {electrodes.path.name} ({frame}{how})"]


def _unit(coordsystem: Description) -> float:
    """Unit of the positions, m."""
    path, system = coordsystem
    missing = [k for k in ("EEGCoordinateSystem", "EEGCoordinateUnits") if k not in system]
    if missing:
        raise ValueError(f"{path}: it lacks {missing}. {CURE}")
    if system["EEGCoordinateUnits"] not in LENGTHS:
        raise ValueError(
            f"{path}: positions are in {system['EEGCoordinateUnits']!r}, expected one of "
            f"{', '.join(LENGTHS)}. {CURE}"
        )
    return LENGTHS[system["EEGCoordinateUnits"]]


def _positions(table: Table) -> dict[str, Array]:
    """Positions by channel, in the unit of the file, without unknown ones."""
    try:
        found = {
            row["name"]: np.array([float(row[axis]) for axis in "xyz"])
            for row in table.rows
            if "n/a" not in (row["x"], row["y"], row["z"])
        }
    except ValueError as error:
        raise ValueError(
            f"{table.path}: not a readable table of electrodes ({error!r:.300}). Positions should "
            "be numbers or n/a."
        ) from error
    infinite = [name for name, where in found.items() if not np.isfinite(where).all()]
    if infinite:
        raise ValueError(f"{table.path}: the positions of {infinite} are not finite. {CURE}")
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


def _landmarks(coordsystem: Description) -> tuple[Array, ...] | None:
    """Nasion, left and right preauricular point, m, in the frame of the electrodes."""
    path, system = coordsystem
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
    try:
        points = [LENGTHS[unit] * np.array(given[k], dtype=np.float64) for k in LANDMARKS]
        return tuple(point.reshape(3) for point in points)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{path}: not a readable coordinate system of BIDS ({error!r:.300}). Landmarks should "
            "be three numbers each."
        ) from error


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
