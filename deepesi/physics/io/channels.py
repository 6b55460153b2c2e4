"""Good channels of a recording, and positions of their sensors."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.cap_check import check_cap
from deepesi.physics.channel_names import check_channel_names
from deepesi.physics.io.coils import coil_orientations, coil_positions, good_coils
from deepesi.physics.sensors import KINDS, SensorArray

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

#: Fewest channels to localize with.
MIN_CHANNELS = 8


def good_channels(info: "mne.Info", kinds: Collection[str]) -> list[str]:
    """Names of the channels of these kinds that are not marked bad, in the order of the recording.

    Args:
        info: Measurement info.
        kinds: Keys of `deepesi.physics.sensors.KINDS`.

    Raises:
        ValueError: As in `good_eeg_channels` and `deepesi.physics.io.coils.good_coils`, where
            there are such kinds.

    """
    eeg = good_eeg_channels(info) if "eeg" in kinds else []
    coils = [kind for kind in kinds if KINDS[kind].modality == "meg"]
    wanted = {*eeg, *(good_coils(info, coils) if coils else ())}
    return [name for name in info["ch_names"] if name in wanted]


def good_eeg_channels(info: "mne.Info") -> list[str]:
    """Names of the EEG channels that are not marked bad, in the order of the recording.

    Raises:
        ValueError: There are none, or fewer than 8; or they are derivations, by coil type or by
            name (`check_channel_names`), which cannot be re-referenced.

    """
    import mne

    check_derivations(info)
    names = [info["ch_names"][i] for i in mne.pick_types(info, meg=False, eeg=True, exclude=[])]
    if not names:
        kinds = sorted(set(info.get_channel_types()))
        raise ValueError(
            f"recording: it has no EEG channels, only {', '.join(kinds)}. Set the channel types if "
            "they are wrong (set_channel_types). MEG is localized with its own forward solution "
            "(forward=, --forward), or picked on a packaged head (picks='meg', --picks meg)."
        )
    good = [c for c in names if c not in info["bads"]]
    if not good:
        raise ValueError(
            f"recording: all {len(names)} EEG channels are marked bad in info['bads'], so there is "
            "nothing to reference to an average. Unmark the good ones."
        )
    if len(good) < MIN_CHANNELS:
        raise ValueError(
            f"recording: {len(good)} good EEG channels ({', '.join(good)}), expected at least "
            f"{MIN_CHANNELS}. Use a recording with more channels."
        )
    check_channel_names(good)
    return good


def check_derivations(info: "mne.Info") -> None:
    """Refuse channels that are differences of electrodes or a surface Laplacian.

    Raises:
        ValueError: Some are.

    """
    import mne
    from mne._fiff.constants import FIFF

    picks = mne.pick_types(info, meg=False, eeg=True, exclude=())
    bipolar = [
        info["ch_names"][i]
        for i in picks
        if info["chs"][i]["coil_type"] == FIFF.FIFFV_COIL_EEG_BIPOLAR
    ]
    if bipolar:
        raise ValueError(
            f"recording: the channels {bipolar} are bipolar derivations, differences of two "
            "electrodes, which cannot be turned into the average reference. Give the recording "
            "before they were formed (before mne.set_bipolar_reference)."
        )
    has_csd = bool(mne.pick_types(info, meg=False, csd=True, exclude=()).size)
    if has_csd or info["custom_ref_applied"] == FIFF.FIFFV_MNE_CUSTOM_REF_CSD:
        raise ValueError(
            "recording: it holds a current source density (surface Laplacian), no potentials. "
            "Give the recording before mne.preprocessing.compute_current_source_density."
        )


def sensor_positions(info: "mne.Info", ch_names: list[str], origin: str = "recording") -> Array:
    """Positions of EEG channels ``(C, 3)``, m, MNE head frame; `origin` is for errors.

    Raises:
        ValueError: A channel has no position, or positions contradict names (`check_cap`).

    """
    rows = {c["ch_name"]: c["loc"][:3] for c in info["chs"]}
    positions = np.array([rows[name] for name in ch_names], dtype=np.float64)
    absent = ~np.isfinite(positions).all(axis=1) | (np.abs(positions).sum(axis=1) == 0)
    if absent.any():
        names = [n for n, a in zip(ch_names, absent, strict=True) if a]
        raise ValueError(
            f"{origin}: {len(names)} of {len(ch_names)} EEG channels have no position: {names}. "
            "Set digitized positions or a template montage (set_montage, --montage), or mark "
            "them bad."
        )
    check_cap(ch_names, positions, origin)
    return positions


def head_points(info: "mne.Info") -> Array:
    """Digitized points of the scalp that are no electrodes ``(N, 3)``, m, MNE head frame."""
    from mne._fiff.constants import FIFF

    points = [
        point["r"]
        for point in info["dig"] or ()
        if point["kind"] == FIFF.FIFFV_POINT_EXTRA and point["coord_frame"] == FIFF.FIFFV_COORD_HEAD
    ]
    return np.array(points, dtype=np.float64).reshape(-1, 3)


def sensor_array(
    info: "mne.Info", ch_names: Sequence[str], origin: str = "recording"
) -> SensorArray:
    """Sensors of EEG and MEG channels, in the MNE head frame; `origin` is for errors.

    Raises:
        ValueError: As in `sensor_positions` and `deepesi.physics.io.coils.coil_positions`.

    """
    kinds = dict(zip(info["ch_names"], info.get_channel_types(), strict=True))
    positions, orientations = np.zeros((2, len(ch_names), 3))
    is_coil = np.array([kinds[name] != "eeg" for name in ch_names])
    coils = [name for name in ch_names if kinds[name] != "eeg"]
    scalp = [name for name in ch_names if kinds[name] == "eeg"]
    if scalp:
        positions[~is_coil] = sensor_positions(info, scalp, origin)
    if coils:
        positions[is_coil] = coil_positions(info, coils, origin)
        orientations[is_coil] = coil_orientations(info, coils)
    return SensorArray(
        tuple(ch_names), tuple(kinds[name] for name in ch_names), positions, orientations
    )
