"""Head models for recordings: on a packaged head, or from a forward solution."""

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deepesi.physics.cap_placement import Placement, RecordedCap, place_cap
from deepesi.physics.coil_placement import CoilPlacement
from deepesi.physics.head import HeadModel
from deepesi.physics.io.channels import good_eeg_channels, head_points, sensor_positions
from deepesi.physics.io.covariance import with_noise
from deepesi.physics.io.forward_head import forward_head
from deepesi.physics.io.head_mri import transform_to_template
from deepesi.physics.io.placed_coils import place_recorded_coils
from deepesi.physics.io.rank import RankChoice
from deepesi.physics.io.selection import channels_to_localize
from deepesi.physics.magnetic import Coils
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


class OnTemplate(NamedTuple):
    """A template head under the sensors of a recording, and where they were put.

    Attributes:
        head: The head, with white noise.
        placement: Its electrodes; None without EEG.
        coils: Its MEG coils; None without MEG.

    """

    head: HeadModel
    placement: Placement | None
    coils: CoilPlacement | None

    @property
    def warnings(self) -> list[str]:
        """Warnings of both, as in `Placement` and `CoilPlacement`."""
        return [text for part in (self.placement, self.coils) if part for text in part.warnings]

    def __str__(self) -> str:
        how = "" if self.placement is None else str(self.placement)
        if self.coils is None:
            return how
        return f"{how}{'; ' if how else ''}MEG coils {self.coils}"


def on_template(
    info: "mne.Info",
    kinds: Collection[str],
    template: Template,
    trans: "mne.Transform | None" = None,
) -> OnTemplate:
    """Good channels of these kinds on a template head.

    Args:
        info: Measurement info with positions in the head frame.
        kinds: Kinds of channels, as `deepesi.physics.io.selection.channels_to_localize` names them.
        template: The head to use.
        trans: Transform of the user, as in `transform_to_template`; None: as in `place_cap` and
            `deepesi.physics.coil_placement.place_coils`.

    Raises:
        ValueError: As in `place_recording`, `place_recorded_coils` and `template_head`.

    """
    placement, coils, magnetic = None, None, set(kinds) - {"eeg"}
    if "eeg" in kinds or not kinds:  # without any channels: the error says so
        placement = place_recording(info, template, trans)
    if magnetic:
        coils = place_recorded_coils(info, template, magnetic, trans)
    head = template_head(template, placement, None if coils is None else coils.coils)
    return OnTemplate(head, placement, coils)


def template_head(
    template: Template, placement: Placement | None, coils: Coils | None = None
) -> HeadModel:
    """A template head under the channels of a recording, with white noise.

    Args:
        template: The head to use.
        placement: Its electrodes, as `place_recording` placed them; None: no EEG.
        coils: Its MEG coils about the template, see `deepesi.physics.io.placed_coils`; None: no
            MEG.

    Raises:
        ValueError: As in `HeadModel`.

    """
    no_points = own_rows(template.family.scalp_pos, np.empty(0, dtype=np.int64))
    ch_names = () if placement is None else placement.ch_names
    points = no_points if placement is None else placement.points
    return template.head(ch_names, points, coils=coils)


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
        ValueError: As in `place_recording`, `template_head` and `with_noise`.

    """
    if placement is None and coils is None:
        placement = place_recording(info, template)
    head = template_head(template, placement, coils)
    return with_noise(head, info, noise_cov, nave, rank)


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
        ValueError: As in `forward_head` and `with_noise`.

    """
    kinds = set(channels_to_localize(info, forward).values())
    head = forward_head(info, forward, kinds, n_orient)
    return with_noise(head, info, noise_cov, nave, rank)
