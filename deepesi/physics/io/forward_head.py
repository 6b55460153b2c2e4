"""The head of a forward solution under the channels of a recording."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from deepesi.physics.channel_names import match_channels
from deepesi.physics.head import HeadModel
from deepesi.physics.io.channels import MIN_CHANNELS, good_channels, sensor_array
from deepesi.physics.io.coils import check_compensation, check_head_position
from deepesi.physics.io.source_space import source_space
from deepesi.physics.noise import white_noise_cov
from deepesi.physics.sensors import SensorArray

if TYPE_CHECKING:
    import mne

#: Subject of MNE-Python whose cortex is an average, and whose MRI is MNI305 space.
TEMPLATE_SUBJECT = "fsaverage"


def forward_head(
    info: "mne.Info", forward: "mne.Forward", kinds: Collection[str], n_orient: int = 1
) -> HeadModel:
    """The head of a forward solution under the good channels of a recording, with white noise.

    Args:
        info: Measurement info.
        forward: Forward solution on a surface source space.
        kinds: Kinds of channels that both have, as in
            `deepesi.physics.io.selection.channels_to_localize`.
        n_orient: Dipole components per source: 1, along the normal, or 3.

    Raises:
        ValueError: No channel in common, good channels that the forward solution lacks, a volume
            source space, one of fixed orientation where three components are needed; or as in
            `HeadModel`.

    """
    import mne

    sensors = _common_sensors(info, forward, kinds)
    if any(s["type"] != "surf" for s in forward["src"]):
        raise ValueError(
            "forward solution: its source space is not a cortical surface, and only surfaces are "
            "supported. Compute it with mne.setup_source_space."
        )
    fixed = mne.convert_forward_solution(
        forward, surf_ori=True, force_fixed=True, use_cps=False, verbose="error"
    )
    solution = fixed if n_orient == 1 else _free(forward)
    matched = match_channels(sensors.names, forward["sol"]["row_names"])
    rows = [row for row in matched if row is not None]
    return HeadModel.referenced(
        leadfield=sensors.to_head(solution["sol"]["data"][rows]),
        noise_cov=white_noise_cov(sensors, 1e-6),
        sensors=sensors,
        source_pos=fixed["source_rr"],
        source_normals=fixed["source_nn"],
        space=source_space(fixed["src"], n_orient),
        own_normals=fixed["src"][0].get("subject_his_id") not in (None, TEMPLATE_SUBJECT),
    )


def _common_sensors(
    info: "mne.Info", forward: "mne.Forward", kinds: Collection[str]
) -> SensorArray:
    """Good channels of a recording, of the kinds that a forward solution has.

    Raises:
        ValueError: As in `forward_head`.

    """
    known = forward["sol"]["row_names"]
    good = good_channels(info, kinds or {"eeg"})
    rows = dict(zip(good, match_channels(good, known), strict=True))
    common = [name for name in good if rows[name] is not None]
    missing = [name for name in good if rows[name] is None]
    if not common:
        raise ValueError(
            f"forward solution: it has no channel in common with the recording. Recording: "
            f"{good[:5]} ...; forward solution: {known[:5]} ... Compute it for this recording, or "
            "rename the channels (mne.rename_channels)."
        )
    sensors = sensor_array(info, good)
    if len(common) < MIN_CHANNELS:
        raise ValueError(
            f"forward solution: only {len(common)} good {sensors.title} channels of the recording "
            f"are in it ({common}), expected at least {MIN_CHANNELS}."
        )
    if missing:
        raise ValueError(
            f"forward solution: {len(missing)} good {sensors.title} channels of the recording are "
            f"not in it: {missing}. Compute it for all of them, or mark these as bad "
            "(info['bads'])."
        )
    names = [known[row] for row in rows.values() if row is not None]
    computed = sensor_array(forward["info"], names, "forward solution")
    if "meg" in sensors.modalities:
        check_compensation(info, forward)
        coils = np.array(sensors.modalities) == "meg"
        check_head_position(
            sensors.positions[coils],
            computed.positions[coils],
            "forward solution",
            "Compute it with the info of this recording (mne.make_forward_solution).",
        )
    return sensors


def _free(forward: "mne.Forward") -> "mne.Forward":
    """The forward solution for x, y and z dipoles, head frame."""
    import mne

    if mne.forward.is_fixed_orient(forward):
        raise ValueError(
            "forward solution: it has fixed orientation, and the model needs three dipole "
            "components per source. Compute it with free orientation (mne.make_forward_solution), "
            "or use a model of fixed orientation, such as the packaged ensemble."
        )
    return mne.convert_forward_solution(forward, surf_ori=False, use_cps=False, verbose="error")
