"""Head models for recordings: on a packaged head, or from a forward solution."""

from typing import TYPE_CHECKING

import numpy as np

from deepesi.physics.cap_placement import Placement, RecordedCap, place_cap
from deepesi.physics.channel_names import match_channels
from deepesi.physics.head import HeadModel
from deepesi.physics.io.channels import (
    MIN_CHANNELS,
    good_channels,
    good_eeg_channels,
    head_points,
    sensor_array,
    sensor_positions,
    usable_channels,
)
from deepesi.physics.io.coils import check_compensation, check_head_position
from deepesi.physics.io.covariance import noise_covariance
from deepesi.physics.io.head_mri import transform_to_template
from deepesi.physics.io.rank import RankChoice, settle_rank
from deepesi.physics.io.source_space import source_space
from deepesi.physics.magnetic import Coils
from deepesi.physics.sensors import SensorArray
from deepesi.physics.template import Template, own_rows

if TYPE_CHECKING:
    import mne


def place_recording(
    info: "mne.Info", template: Template, trans: "mne.Transform | None" = None
) -> Placement:
    """Good EEG channels of a recording on a template head.

    Args:
        info: Measurement info with positions in the head frame.
        template: The head to use.
        trans: Transform of the user, as in `transform_to_template`; None: as in `place_cap`.

    Raises:
        ValueError: As in `good_eeg_channels`, `sensor_positions`, `transform_to_template` and
            `place_cap`.

    """
    ch_names = good_eeg_channels(info)
    to_head = None if trans is None else transform_to_template(trans, template)
    cap = RecordedCap(ch_names, sensor_positions(info, ch_names), head_points(info))
    return place_cap(template, cap, to_head)


def head_on_template(
    info: "mne.Info",
    noise_cov: "mne.Covariance",
    template: Template,
    nave: float = 1,
    rank: RankChoice = None,
    placement: Placement | None = None,
    coils: Coils | None = None,
) -> HeadModel:
    """The template head under the set-up of a recording: its good channels, its noise.

    Without coils the channels are those of EEG; with coils and no placement those of MEG.

    Args:
        info: Measurement info with positions in the head frame.
        noise_cov: Noise covariance of single trials.
        template: The head to use.
        nave: Number of trials averaged; the covariance is divided by it.
        rank: Dimensions of the noise, as in `deepesi.physics.io.rank.RankChoice`.
        placement: Its electrodes, if `place_recording` has placed them already.
        coils: Its MEG coils about the template, see `deepesi.physics.io.placed_coils`.

    Raises:
        ValueError: As in `place_recording`, `noise_covariance`, `HeadModel` and `settle_rank`.

    """
    if placement is None and coils is None:
        placement = place_recording(info, template)
    ch_names, points = [], own_rows(template.family.scalp_pos, np.empty(0, dtype=np.int64))
    if placement is not None:
        ch_names, points = good_eeg_channels(info), placement.points
    sensors = SensorArray.eeg(ch_names, points.positions)
    if coils is not None:
        sensors = sensors.joined(coils.sensors)
    cov = noise_covariance(noise_cov, sensors, nave)
    head = template.head(ch_names, points, cov, coils=coils)
    return settle_rank(head, info, rank)


def head_from_forward(
    info: "mne.Info",
    noise_cov: "mne.Covariance",
    forward: "mne.Forward",
    nave: float = 1,
    rank: RankChoice = None,
    n_orient: int = 1,
) -> HeadModel:
    """The head of a forward solution under the set-up of a recording.

    Channels are those of the kinds that both have: EEG, magnetometers, gradiometers. Without
    a kind in the forward solution the channels of this kind are not used.

    Args:
        info: Measurement info.
        noise_cov: Noise covariance of single trials.
        forward: Forward solution on a surface source space.
        nave: Number of trials averaged; the covariance is divided by it.
        rank: Dimensions of the noise, as in `deepesi.physics.io.rank.RankChoice`.
        n_orient: Dipole components per source: 1, along the normal, or 3.

    Raises:
        ValueError: No channel in common, good channels that the forward solution lacks, a volume
            source space, one of fixed orientation where three components are needed; or as in
            `head_on_template`.

    """
    import mne

    sensors = _common_sensors(info, forward)
    good, known = list(sensors.names), forward["sol"]["row_names"]
    if any(s["type"] != "surf" for s in forward["src"]):
        raise ValueError(
            "forward solution: its source space is not a cortical surface, and only surfaces are "
            "supported. Compute it with mne.setup_source_space."
        )
    fixed = mne.convert_forward_solution(
        forward, surf_ori=True, force_fixed=True, use_cps=False, verbose="error"
    )
    solution = fixed if n_orient == 1 else _free(forward)
    rows = [row for row in match_channels(good, known) if row is not None]
    head = HeadModel.referenced(
        leadfield=sensors.to_head(solution["sol"]["data"][rows]),
        noise_cov=noise_covariance(noise_cov, sensors, nave),
        sensors=sensors,
        source_pos=fixed["source_rr"],
        source_normals=fixed["source_nn"],
        space=source_space(fixed["src"], n_orient),
    )
    return settle_rank(head, info, rank)


def kinds_to_localize(info: "mne.Info", forward: "mne.Forward | None", picked: bool) -> set[str]:
    """Kinds of sensors that are localized: those of a recording for which there is a lead field.

    On a packaged head this is EEG. MEG of a recording with both is used there only if it was
    picked, because the head is not that of the recording.

    Args:
        info: Measurement info, with the picked channels only.
        forward: The forward solution of the recording; None: a packaged head.
        picked: Whether the user picked kinds of sensors.

    Raises:
        ValueError: The forward solution lacks a kind that was picked.

    """
    recorded = set(usable_channels(info).values())
    if forward is not None:
        shared = set(_shared_channels(info, forward).values())
        if picked and shared and shared < recorded:
            lacks, has = " and no ".join(sorted(recorded - shared)), sorted(shared)
            raise ValueError(
                f"picks: the forward solution has no {lacks} channels of the recording, only "
                f"{', '.join(has)}. Leave the others out (--picks {' '.join(has)}), or compute the "
                "forward solution for them."
            )
        return shared
    return {"eeg"} if "eeg" in recorded and not picked else recorded


def _shared_channels(info: "mne.Info", forward: "mne.Forward") -> dict[str, str]:
    """Kind of every good channel that a forward solution has, by its name in the recording."""
    recorded = usable_channels(info)
    rows = match_channels(list(recorded), forward["sol"]["row_names"])
    pairs = zip(recorded.items(), rows, strict=True)
    return dict(item for item, row in pairs if row is not None)


def _common_sensors(info: "mne.Info", forward: "mne.Forward") -> SensorArray:
    """Good channels of a recording, of the kinds that a forward solution has.

    Raises:
        ValueError: As in `head_from_forward`.

    """
    recorded, known = usable_channels(info), forward["sol"]["row_names"]
    shared = _shared_channels(info, forward)
    kinds = set(shared.values())
    good = good_channels(info, kinds or set(recorded.values()) or {"eeg"})
    common = [name for name in good if name in shared]
    missing = [name for name in good if name not in shared]
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
    own = dict(zip(good, match_channels(good, known), strict=True))
    names = [known[row] for row in own.values() if row is not None]
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
            "components per source. Compute it with free orientation (mne.make_forward_solution)."
        )
    return mne.convert_forward_solution(forward, surf_ori=False, use_cps=False, verbose="error")
