"""Refuses electrode positions that contradict names: turned or mirrored caps, exchanged electrodes.

A name of the 10-05 system gives a position. The positions of these names on fsaverage are fitted to
the recorded positions (`deepesi.physics.cap_faults`). Names of nets (``E1``, ``A1`` to ``D32``,
``EEG 001``) give one position for every net that has them (`deepesi.physics.nets`). They contradict
only if no net fits, and one does once it is turned or mirrored, or electrodes are exchanged.

Source: 10-05 system, Oostenveld & Praamstra 2001 (doi:10.1016/S1388-2457(00)00527-7); positions on
fsaverage and of nets from MNE-Python.
"""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.cap_faults import Tolerance, compare_cap
from deepesi.physics.cap_pose import USUAL_PITCH
from deepesi.physics.channel_names import plain_names, ten_five_name
from deepesi.physics.montage import standard_montage
from deepesi.physics.nets import possible_nets

Array = NDArray[np.float64]

#: Fewest electrodes with known names from which the pose of a cap is estimated.
FEWEST_NAMES = 8
#: Caps with names of the 10-05 system: every built-in montage of MNE-Python stays below 0.02 m, a
#: step of the 10-20 system is 0.05 to 0.06 m, and exchanges gain less by errors of 10 mm.
OF_NAMES = Tolerance((USUAL_PITCH, USUAL_PITCH), distance=0.04, gain=0.02)
#: Nets: the frames of MNE-Python's montages differ by up to 20 degrees of pitch, and two layouts of
#: one net of 256 electrodes by up to 0.03 m on cheeks and neck.
OF_NETS = Tolerance((-10.0, 10.0), distance=0.06, gain=0.03)
#: Largest mean distance of the nearest four fifths of the electrodes from the positions of their
#: net, m: 0.008 for electrodes off by 0.01 m, 0.005 between two layouts of one net, at least 0.016
#: for 16 electrodes at random positions.
FITS = 0.012
#: Largest share of the electrodes of a net that are exchanged or far away, and their number in a
#: small net. More are no mistake, but another cap: caps of the 10-10 system that are numbered row
#: by row resemble ``mgh60``.
MISPLACED, FEW_MISPLACED = 0.05, 2


def check_cap(ch_names: Sequence[str], positions: Array, origin: str = "recording") -> None:
    """Refuse electrodes whose positions contradict their names.

    Names of the 10-05 system are checked if there are at least 8 of them, and half of all names
    (any case; T3, T4, T5 and T6 are the older names of T7, T8, P7 and P8); else names of nets, if
    there are at least 16 of them, and nine tenths of all. The unit does not matter.

    Args:
        ch_names: Names of the electrodes.
        positions: ``(C, 3)``, m, MNE head frame.
        origin: Name of the source of the positions, for errors.

    Raises:
        ValueError: The cap is turned or mirrored, electrodes are exchanged, or one lies far from
            its expected position.

    """
    rows, electrodes = known_electrodes(ch_names)
    if rows:
        standard = np.array([_known_positions()[electrode] for electrode in electrodes])
        names = [ch_names[row] for row in rows]
        comparison = compare_cap(names, standard, positions[rows], OF_NAMES)
        if comparison is not None and comparison.fault:
            raise _contradiction(origin, comparison.fault)
    else:
        _check_net(ch_names, positions, origin)


def _check_net(ch_names: Sequence[str], positions: Array, origin: str) -> None:
    """Refuse positions that fit no net with these names, but one with a fault.

    Other caps with such names fit none, or with many electrodes elsewhere. One net that fits
    without a fault is enough.
    """
    fitting = []
    for net in possible_nets(ch_names):
        names = [ch_names[row] for row in net.rows]
        comparison = compare_cap(names, net.positions, positions[net.rows], OF_NETS)
        if comparison is None or comparison.error > FITS:
            continue
        if comparison.n_misplaced > max(FEW_MISPLACED, MISPLACED * len(names)):
            continue
        if not comparison.fault:
            return
        fitting.append((comparison.error, net.name, comparison.fault))
    if fitting:
        _, name, fault = min(fitting)
        cure = f"If it is no {name}, give its electrodes other names (--rename OLD=NEW). "
        raise _contradiction(origin, f"as a {name}, {fault}", cure)


def _contradiction(origin: str, fault: str, cure: str = "") -> ValueError:
    return ValueError(
        f"{origin}: the positions of its electrodes contradict their names: {fault}. In the "
        "MNE head frame x points to the right ear, y to the nose and z to the top of the head. "
        "Check axes and names in the file that the positions come from, or take standard "
        f"positions (--montage NAME, set_montage). {cure}".rstrip()
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
