"""Named montages: names and standard positions of electrodes."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.channel_names import (
    OLD_NAMES,
    check_channel_names,
    match_channels,
    ten_five_name,
)

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

#: The international 10-20 system (Jasper 1958), in clinical use without Fpz and Oz.
TEN_TWENTY = (
    "Fp1",
    "Fp2",
    "F7",
    "F3",
    "Fz",
    "F4",
    "F8",
    "T7",
    "C3",
    "Cz",
    "C4",
    "T8",
    "P7",
    "P3",
    "Pz",
    "P4",
    "P8",
    "O1",
    "O2",
)
OWN_MONTAGES = {"10-20-19": TEN_TWENTY, "10-20-21": (*TEN_TWENTY, "Fpz", "Oz")}
#: Montages that MNE-Python 1.13 renamed: old names warn until they are removed in 1.14.
RENAMED_MONTAGES = {
    f"standard_{kind}": f"colin27_{kind}"
    for kind in ("1005", "1020", "alphabetic", "postfixed", "prefixed", "primed")
}


def standard_montage(name: str) -> tuple[list[str], Array]:
    """Channel names and positions ``(C, 3)`` (m, MNE head frame) of a montage MNE knows.

    ``10-20-19`` and ``10-20-21`` are the electrodes of the 10-20 system, without and with Fpz, Oz.
    Older names of MNE-Python, such as ``standard_1020``, are in `RENAMED_MONTAGES`.

    Raises:
        ValueError: MNE has no montage of that name.

    """
    from mne.channels import compute_native_head_t, get_builtin_montages, make_standard_montage
    from mne.transforms import apply_trans

    if name in OWN_MONTAGES:
        names, positions = standard_montage("fsaverage_1020")
        chosen = OWN_MONTAGES[name]
        return list(chosen), positions[[names.index(c) for c in chosen]]
    try:
        montage = make_standard_montage(RENAMED_MONTAGES.get(name, name))
    except ValueError as error:
        raise ValueError(
            f"standard_montage: MNE has no montage {name!r}. Known: "
            f"{', '.join(sorted([*OWN_MONTAGES, *get_builtin_montages()]))}."
        ) from error
    positions = montage.get_positions()["ch_pos"]
    to_head = compute_native_head_t(montage)
    return list(positions), apply_trans(to_head, np.array(list(positions.values())))


def montage_names(ch_names: Sequence[str], name: str) -> list[str]:
    """Names in a standard montage of electrodes, in any spelling of the recording.

    Clinical names (``EEG FP1-REF``), older names (T3 for T7, where the montage lacks it) and any
    case are accepted, as in `deepesi.physics.channel_names`.

    Args:
        ch_names: Names of the electrodes in the recording.
        name: Montage name, as in `standard_montage`.

    Raises:
        ValueError: MNE has no such montage; it lacks an electrode; derivations between two
            electrodes, different references or two names of one electrode.

    """
    known = _without_old_names(standard_montage(name)[0])
    check_channel_names(ch_names)
    rows = match_channels(ch_names, known)
    unknown = [c for c, row in zip(ch_names, rows, strict=True) if row is None]
    if unknown:
        raise ValueError(_unknown_electrodes(unknown, len(ch_names), name))
    return [known[row] for row in rows if row is not None]


def _without_old_names(names: Sequence[str]) -> list[str]:
    """Names of a montage, without older names (T3) where it has the newer one (T7)."""
    lower = {name.lower() for name in names}
    return [name for name in names if OLD_NAMES.get(name.lower()) not in lower]


def _unknown_electrodes(unknown: Sequence[str], n_channels: int, montage: str) -> str:
    """Error message: which channels a montage lacks, and what to do."""
    if len(unknown) == n_channels > 1:
        return (
            f"head_montage: none of the channels is an electrode of the montage {montage!r}: "
            f"{list(unknown[:5])} ... Take the montage of the cap (--montage), or rename them "
            "(--rename OLD=NEW)."
        )
    placed = [c for c in unknown if ten_five_name(c) is not None]
    others = [c for c in unknown if c not in placed]
    text = f"head_montage: {list(unknown)} are no electrodes of the montage {montage!r}."
    if placed:
        text += f" {', '.join(placed)}: take a montage that has them (--montage fsaverage_1005)."
    if others:
        text += (
            f" Exclude channels that are no electrodes on the scalp (--exclude "
            f"{shlex.join(others)}), or rename them (--rename OLD=NEW)."
        )
    return text


def head_montage(
    ch_names: Sequence[str], name: str = "fsaverage_1005"
) -> "mne.channels.DigMontage":
    """Positions of electrodes in a standard montage, in any spelling of their names.

    In the MNE head frame, for ``set_montage`` of a recording.

    Args:
        ch_names: Names of the electrodes in the recording.
        name: Montage name, as in `standard_montage`.

    Raises:
        ValueError: As in `montage_names`.

    """
    import mne

    names, positions = standard_montage(name)
    rows = [names.index(known) for known in montage_names(ch_names, name)]
    known = dict(zip(ch_names, positions[rows], strict=True))
    return mne.channels.make_dig_montage(known, coord_frame="head")


def eeg_info(ch_names: Sequence[str], positions: Array) -> "mne.Info":
    """Measurement info of EEG electrodes at ``(C, 3)``, m, MNE head frame."""
    import mne

    info = mne.create_info(list(ch_names), 1000.0, "eeg")
    montage = mne.channels.make_dig_montage(
        dict(zip(ch_names, positions, strict=True)), coord_frame="head"
    )
    info.set_montage(montage, verbose="error")
    return info
