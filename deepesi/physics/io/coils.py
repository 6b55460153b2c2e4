"""MEG channels of a recording: coils in the head frame, compensation grade, rank after SSS."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.magnetic import Coils
from deepesi.physics.sensors import SensorArray

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

#: Fewest good MEG channels to localize with.
MIN_COILS = 8
#: Largest mean distance, m, of the coils of a recording from those of its forward solution.
SAME_POSITION = 0.005
#: Number of FIFF for the frame of the MEG device.
DEVICE_FRAME = 1


def good_coils(info: "mne.Info", kinds: Collection[str]) -> list[str]:
    """Names of the MEG channels of some kinds that are not marked bad.

    Args:
        info: Measurement info.
        kinds: ``"mag"``, ``"grad"`` or both. Reference channels are neither.

    Raises:
        ValueError: There are fewer than 8.

    """
    types = zip(info["ch_names"], info.get_channel_types(), strict=True)
    names = [name for name, kind in types if kind in kinds]
    good = [name for name in names if name not in info["bads"]]
    if len(good) < MIN_COILS:
        raise ValueError(
            f"recording: {len(good)} of its {len(names)} MEG channels ({', '.join(sorted(kinds))}) "
            f"are good, expected at least {MIN_COILS}. Unmark good ones in info['bads'], or use a "
            "recording with more channels."
        )
    return good


def coil_positions(info: "mne.Info", ch_names: Sequence[str], origin: str = "recording") -> Array:
    """Centres of coils ``(C, 3)``, m, MNE head frame; `origin` is for errors.

    Raises:
        ValueError: There is no transform from device to head, or a coil has no position.

    """
    positions = _coils(info, ch_names)[:, :3]
    absent = np.flatnonzero(~np.isfinite(positions).all(axis=1)).tolist()
    if absent:
        names = [ch_names[row] for row in absent]
        raise ValueError(
            f"{origin}: {len(names)} of {len(ch_names)} MEG channels have no position: {names}. "
            "Mark them as bad (info['bads']), or read the recording again with its sensors."
        )
    if not _in_device_frame(info, ch_names):
        return positions
    to_head = _to_head(info, origin)
    return np.asarray(positions @ to_head[:3, :3].T + to_head[:3, 3])


def coil_orientations(info: "mne.Info", ch_names: Sequence[str]) -> Array:
    """Unit normals of coils ``(C, 3)``, MNE head frame; errors as in `coil_positions`."""
    normals = _coils(info, ch_names)[:, 9:12]
    if _in_device_frame(info, ch_names):
        normals = normals @ _to_head(info, "recording")[:3, :3].T
    return np.asarray(normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12))


def _coils(info: "mne.Info", ch_names: Sequence[str]) -> Array:
    """Position and axes of every coil as MNE-Python stores them ``(C, 12)``."""
    rows = {channel["ch_name"]: channel["loc"] for channel in info["chs"]}
    return np.array([rows[name] for name in ch_names], dtype=np.float64)


def _in_device_frame(info: "mne.Info", ch_names: Sequence[str]) -> bool:
    frames = {c["ch_name"]: int(c["coord_frame"]) for c in info["chs"]}
    return any(frames[name] == DEVICE_FRAME for name in ch_names)


def _to_head(info: "mne.Info", origin: str) -> Array:
    if info["dev_head_t"] is None:
        raise ValueError(
            f"{origin}: its MEG channels are in the frame of the device, and the position of the "
            "head in it is missing (info['dev_head_t'] is None, as in empty-room recordings). "
            "Take the transform of a recording of the subject in the same run "
            "(info['dev_head_t'] = other.info['dev_head_t'])."
        )
    return np.asarray(info["dev_head_t"]["trans"], dtype=np.float64)


def check_compensation(info: "mne.Info", forward: "mne.Forward") -> None:
    """Refuse a forward solution for another gradient compensation (CTF) than the recording has.

    Raises:
        ValueError: The grades differ.

    """
    from mne._fiff.compensator import get_current_comp

    own, computed = get_current_comp(info) or 0, get_current_comp(forward["info"]) or 0
    if own != computed:
        raise ValueError(
            f"forward solution: it is for compensation grade {computed}, the recording has grade "
            f"{own}. Compute it with the info of this recording (mne.make_forward_solution), or "
            f"change the recording (apply_gradient_compensation({computed}))."
        )


def check_head_position(recorded: Array, computed: Array, origin: str, cure: str) -> None:
    """Refuse a lead field for another position of the head in the helmet.

    Args:
        recorded: Coils of the recording ``(C, 3)``, m, head frame.
        computed: The same coils in the set-up of the lead field.
        origin: Name of that set-up, for the error.
        cure: Sentence for the error that tells the user what to do.

    Raises:
        ValueError: They lie more than 5 mm apart on average.

    """
    apart = float(np.linalg.norm(recorded - computed, axis=1).mean())
    if apart > SAME_POSITION:
        raise ValueError(
            f"{origin}: its MEG coils lie {1e3 * apart:.0f} mm (mean) from those of the "
            "recording, in the head frame: it is for another position of the head in the helmet. "
            f"{cure}"
        )


def sss_rank(info: "mne.Info") -> int | None:
    """Number of dimensions of the MEG channels after Maxwell filtering (SSS); None without SSS."""
    ranks = [
        int(step["max_info"]["sss_info"]["nfree"])
        for step in info["proc_history"]
        if len(step.get("max_info", {}).get("sss_info", {}))
    ]
    return min(ranks, default=None)


def coils_of(info: "mne.Info", in_device: bool = False) -> Coils:
    """The MEG channels of a measurement info, with the integration points of MNE-Python.

    Args:
        info: Measurement info. Reference channels and gradient compensation are left out.
        in_device: Whether to stay in the frame of the device; else the MNE head frame.

    Raises:
        ValueError: As in `coil_positions`.

    """
    from mne.forward._make_forward import _prep_meg_channels

    kinds = dict(zip(info["ch_names"], info.get_channel_types(), strict=True))
    names = [name for name, kind in kinds.items() if kind in ("mag", "grad")]
    if in_device:
        positions, normals = _coils(info, names)[:, :3], _coils(info, names)[:, 9:12]
    else:
        positions, normals = coil_positions(info, names), coil_orientations(info, names)
    defined = _prep_meg_channels(info, ignore_ref=True, head_frame=not in_device, verbose="error")[
        "defs"
    ]
    sensors = SensorArray(
        tuple(names),
        tuple(kinds[name] for name in names),
        positions,
        normals,
    )
    return Coils(
        sensors,
        np.concatenate([coil["rmag"] for coil in defined]),
        np.concatenate([coil["cosmag"] for coil in defined]),
        np.concatenate([coil["w"] for coil in defined]),
        np.repeat(np.arange(len(names)), [len(coil["w"]) for coil in defined]),
    )
