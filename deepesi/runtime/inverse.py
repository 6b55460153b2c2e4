"""Applies an exported file to recordings, with mne and onnxruntime, without torch."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast, overload

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.cap_placement import Placement
from deepesi.physics.channel_check import channel_precision
from deepesi.physics.coil_placement import CoilPlacement
from deepesi.physics.head import HeadModel, SourceSpace
from deepesi.physics.head_inputs import prepare
from deepesi.physics.io.channels import sensor_array
from deepesi.physics.io.covariance import with_noise
from deepesi.physics.io.forward_head import forward_head
from deepesi.physics.io.heads import on_template
from deepesi.physics.io.rank import RankChoice, rank_reason
from deepesi.physics.io.selection import channels_to_localize
from deepesi.physics.noise import whitener
from deepesi.physics.sensors import SensorArray
from deepesi.physics.template import Template, load_oriented, template_of
from deepesi.runtime.contract import Contract
from deepesi.runtime.packaged import model_path
from deepesi.runtime.prepared import read_prepared
from deepesi.runtime.prepared_inverse import (
    CorrectionWarning,
    ExtrapolationWarning,
    NoiseWarning,
    PlacementWarning,
    PreparedInverse,
    UnexplainedChannelWarning,
)
from deepesi.runtime.prepared_model import Model
from deepesi.runtime.recording_checks import check_kind, trials_averaged
from deepesi.runtime.session import as_feeds, open_model

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.estimates import Localization
    from deepesi.runtime.recording_type import Recording

    Stc: TypeAlias = mne.source_estimate._BaseSourceEstimate

__all__ = [
    "CorrectionWarning",
    "ExtrapolationWarning",
    "Inverse",
    "NoiseWarning",
    "PlacementWarning",
    "PreparedInverse",
    "UnexplainedChannelWarning",
    "apply",
]


class _Placed(NamedTuple):
    """A head under the sensors of a recording, with white noise.

    Attributes:
        head: The head.
        origin: Description of where it is from.
        placement: As in `PreparedInverse`, like the others.
        coils: How MEG coils were placed.
        recorded_pos: Positions in the recording.

    """

    head: HeadModel
    origin: str
    placement: Placement | None = None
    coils: CoilPlacement | None = None
    recorded_pos: NDArray[np.float64] | None = None


class Inverse:
    """An exported model that can be prepared for a recording.

    Args:
        model: An opened file (`Inverse.load`), or a solver.
        head: Packaged head, ``.npz``, or a head that was loaded; None: the packaged head of the
            model's source space.

    """

    def __init__(self, model: Model, head: str | Path | Template | None = None) -> None:
        self.model, self.head = model, head

    @classmethod
    def load(
        cls, path: str | Path, n_threads: int = 0, head: str | Path | Template | None = None
    ) -> "Inverse":
        """Open an exported file, or a packaged one by its name; errors as in `open_model`."""
        return cls(open_model(model_path(path), n_threads), head)

    @property
    def contract(self) -> Contract:
        """Contract of the model: its inputs and outputs."""
        return self.model.contract

    @property
    def template(self) -> Template:
        """The head used where a recording has no forward solution of its own.

        Raises:
            ValueError: The model was trained on another anatomy.

        """
        head = self.head or self.contract.space_name or "fsaverage-ico3"
        if not isinstance(head, Template):
            head = load_oriented(head, self.contract.n_orient)
        template = head
        anatomy = self.contract.anatomy
        if anatomy not in (None, template.fingerprint):
            raise ValueError(
                f"Inverse: the model was trained on the head {anatomy[:16]}, {template.name} is "
                f"{template.fingerprint[:16]}. Give the .npz it was trained on (head=..., --head)."
            )
        return template

    @overload
    def apply(
        self,
        recording: "mne.Evoked",
        noise_cov: "mne.Covariance",
        forward: "mne.Forward | None" = ...,
        rank: RankChoice = ...,
        trans: "mne.Transform | None" = ...,
        picks: str | Sequence[str] | None = ...,
    ) -> "Stc": ...

    @overload
    def apply(  # type: ignore[overload-cannot-match] # MNE-Python has no types
        self,
        recording: "mne.BaseEpochs | mne.io.BaseRaw",
        noise_cov: "mne.Covariance",
        forward: "mne.Forward | None" = ...,
        rank: RankChoice = ...,
        trans: "mne.Transform | None" = ...,
        picks: str | Sequence[str] | None = ...,
    ) -> "Iterator[Stc]": ...

    def apply(
        self,
        recording: "Recording",
        noise_cov: "mne.Covariance",
        forward: "mne.Forward | None" = None,
        rank: RankChoice = None,
        trans: "mne.Transform | None" = None,
        picks: str | Sequence[str] | None = None,
    ) -> "Stc | Iterator[Stc]":
        """Localize a recording: prepare for its set-up, then estimate.

        ``for_recording(...).apply(recording)`` does the same, and also gives the standard
        deviation. The prepared model can be applied to more recordings of one set-up.

        Args:
            recording: `mne.Evoked`, `mne.Epochs` or `mne.io.Raw`; it is not changed.
            noise_cov: Noise covariance of single trials, SI units (V² for EEG).
            forward: The recording's own forward solution; the packaged head if None.
            rank: Dimensions of the noise, as in `for_recording`.
            trans: Transform that places the sensors on the head, as in `for_recording`.
            picks: Kinds of sensors to use, as in `for_recording`.

        Returns:
            The estimate of an evoked response, A m; for epochs or a raw recording an iterator of
            estimates, one per epoch or stretch. On a volume, or with free orientation, the
            matching class of MNE.

        Raises:
            TypeError: An argument is not the expected object of MNE-Python.
            ValueError: As in `for_recording` and `PreparedInverse.apply`, which also warns.

        """
        import mne

        check_kind(recording)
        _check_mne("noise_cov", noise_cov, mne.Covariance, "mne.compute_covariance or mne.read_cov")
        if forward is not None:
            _check_mne("forward", forward, mne.Forward, "mne.read_forward_solution")
        if trans is not None:
            _check_mne("trans", trans, mne.Transform, "mne.read_trans")
        prepared = self.for_recording(
            recording, noise_cov, forward, rank=rank, trans=trans, picks=picks
        )
        if isinstance(recording, mne.Evoked):
            return prepared.apply(recording).stc
        results = cast("Iterator[Localization]", prepared.apply(recording))
        return (result.stc for result in results)

    def for_recording(
        self,
        recording: "mne.Info | Recording",
        noise_cov: "mne.Covariance",
        forward: "mne.Forward | None" = None,
        nave: float | None = None,
        rank: RankChoice = None,
        trans: "mne.Transform | None" = None,
        picks: str | Sequence[str] | None = None,
    ) -> PreparedInverse:
        """Prepare for the set-up of a recording.

        Args:
            recording: The recording itself, or its info: channels, positions (head frame) and bad
                channels.
            noise_cov: Noise covariance of single trials.
            forward: The recording's own forward solution; the packaged head if None.
            nave: Number of trials averaged; by default that of the recording, 1 for an info.
            rank: Dimensions of the noise, as in MNE-Python: None (what its covariance spans),
                ``"info"`` (channels less reference and applied projectors), their number, or the
                number of each modality (``{"eeg": 30, "meg": 64}``).
            trans: Transform that places the sensors on the head, as in
                `deepesi.physics.io.head_mri.transform_to_template`; None: by their names, by head
                points or by size, as in `deepesi.physics.cap_placement`; MEG as in
                `deepesi.physics.coil_placement`.
            picks: Kinds of sensors to use: ``"eeg"``, ``"meg"``, ``"mag"``, ``"grad"`` or a list of
                them. By default those that recording and forward solution share; on a packaged
                head EEG, if there is some.

        Raises:
            ValueError: The recording, covariance, forward solution or transform does not fit, as in
                `channels_to_localize` and `for_channels`.

        """
        import mne

        self._check_one_head(forward, trans)
        if isinstance(recording, mne.Info):
            info, nave = recording, 1.0 if nave is None else float(nave)
        else:
            nave = trials_averaged(recording) if nave is None else float(nave)
            info = recording.info
        channels = channels_to_localize(info, forward, picks)
        return self.for_channels(info, channels, noise_cov, nave, forward, rank, trans)

    def for_channels(
        self,
        info: "mne.Info",
        channels: Mapping[str, str],
        noise_cov: "mne.Covariance",
        nave: float,
        forward: "mne.Forward | None" = None,
        rank: RankChoice = None,
        trans: "mne.Transform | None" = None,
    ) -> PreparedInverse:
        """Prepare for the channels of a recording that are localized.

        Args:
            info: Channels, positions (head frame) and bad channels of the recording.
            channels: Kind of every channel to localize, from `channels_to_localize`.
            noise_cov: As in `for_recording`, like the other arguments.
            nave: Number of trials averaged.
            forward: The recording's own forward solution.
            rank: Dimensions of the noise.
            trans: Transform that places the sensors on the head.

        Raises:
            ValueError: The channels, covariance, forward solution or transform does not fit, as in
                `on_template`, `forward_head`, `with_noise` and `prepare_for`; the file does not
                take a kind of sensor; the filters of the model are made for another sampling rate;
                or a forward solution is given together with a head or a transform.

        """
        self._check_one_head(forward, trans)
        kinds = set(channels.values())
        self.contract.check_sensors(kinds)
        self.contract.window_needs.check_rate(info["sfreq"])
        if forward is None:
            placed = self._on_template(info, kinds, trans)
        else:
            head = forward_head(info, forward, kinds, self.contract.n_orient or 1)
            placed = _Placed(head, f"forward solution of a recording ({head.space.name})")
        head = with_noise(placed.head, info, noise_cov, nave, rank)
        origin = f"{placed.origin}, its noise covariance"
        return replace(
            self.prepare_for(head, nave, origin, rank_reason(head, rank)),
            placement=placed.placement,
            coils=placed.coils,
            recorded_pos=placed.recorded_pos,
            src=None if forward is None else forward["src"],
        )

    def _head_of(self, space: SourceSpace) -> Template | None:
        """The given head if it has these sources, else an installed one that has; or None."""
        if self.head is not None and self.template.space.fingerprint == space.fingerprint:
            return self.template
        return template_of(space)

    def _check_one_head(self, forward: "mne.Forward | None", trans: "mne.Transform | None") -> None:
        """Refuse a forward solution together with another head or a transform."""
        if forward is not None and self.head is not None:
            raise ValueError(
                f"Inverse: both a head, {_name(self.head)} (head=, --head), and a forward solution "
                "(forward=, --forward) were given. Leave one of them out."
            )
        if forward is not None and trans is not None:
            raise ValueError(
                "Inverse: both a transform (trans=, --trans) and a forward solution (forward=, "
                "--forward), which contains its own transform, were given. Leave one of them out."
            )

    def _on_template(
        self, info: "mne.Info", kinds: Collection[str], trans: "mne.Transform | None"
    ) -> "_Placed":
        """Channels of these kinds on a packaged head; other args as in `for_channels`."""
        placed = on_template(info, kinds, self.template, trans)
        head, recorded_pos = placed.head, None
        if placed.coils is not None:
            recorded_pos = sensor_array(info, head.sensors.names).positions
        origin = f"sensors of a recording on {head.space.name} ({placed})"
        return _Placed(head, origin, placed.placement, placed.coils, recorded_pos)

    def prepare_for(
        self, head: HeadModel, nave: float, origin: str, why_rank: str = "as prepared"
    ) -> PreparedInverse:
        """Prepare for a head with the noise covariance of averages of `nave` trials.

        Raises:
            ValueError: The model belongs to another source space, or does not take a kind of
                sensor.

        """
        self.contract.check_space(head.space)
        self.contract.check_sensors(head.sensors.kinds)
        feeds = as_feeds(dict(prepare(self.contract.head_inputs, head)))
        return PreparedInverse(
            self.model,
            feeds,
            head.sensors,
            head.space,
            head.source_pos,
            whitener(head.noise_cov),
            why_rank,
            nave,
            origin,
            channel_precision(head),
            template=self._head_of(head.space),
        )

    def for_prepared(self, path: str | Path) -> PreparedInverse:
        """Prepare from a file of `PreparedInverse.save`.

        Raises:
            ValueError: Not such a file, or written for a model with other inputs or source space.

        """
        content = read_prepared(Path(path), self.contract)
        parts = sum(key.startswith("vertices") for key in content)
        vertices = tuple(content[f"vertices{i}"].astype(np.int64) for i in range(parts))
        n_orient = int(content["n_orient"])
        space = SourceSpace(str(content["space_name"]), vertices, content["edges"], n_orient)
        self.contract.check_space(space)
        self.contract.check_sensors(content["ch_kinds"].tolist())
        feeds = as_feeds({d.key: content[f"input/{d.key}"] for d in self.contract.head_inputs})
        return PreparedInverse(
            self.model,
            feeds,
            SensorArray(
                tuple(content["ch_names"].tolist()),
                tuple(content["ch_kinds"].tolist()),
                content["sensor_pos"],
                content["sensor_ori"],
            ),
            space,
            content["positions"],
            content["whitener"],
            str(content["rank_reason"]),
            float(content["nave"]),
            str(content["origin"]),
            content["channel_precision"],
            recorded_pos=content["recorded_pos"],
            template=self._head_of(space),
        )


def apply(
    model: str | Path | Inverse,
    recording: "Recording",
    noise_cov: "mne.Covariance",
    forward: "mne.Forward | None" = None,
    rank: RankChoice = None,
    trans: "mne.Transform | None" = None,
    picks: str | Sequence[str] | None = None,
) -> "Stc | Iterator[Stc]":
    """Localize a recording with an exported file, or with a packaged one by its name.

    The same as `Inverse.apply`, whose types tell what each kind of recording gives.

    Args:
        model: Path of an ``.onnx`` file; the name of a packaged one, ``"default"``,
            ``"ensemble"`` or ``"convdip"``; or an opened `Inverse`.
        recording: `mne.Evoked`, `mne.Epochs` or `mne.io.Raw`; result and errors as in
            `Inverse.apply`.
        noise_cov: Noise covariance of single trials, SI units (V² for EEG).
        forward: The recording's own forward solution; the packaged head if None.
        rank: Dimensions of the noise, as in `Inverse.for_recording`.
        trans: Transform that places the sensors on the head, as in `Inverse.for_recording`.
        picks: Kinds of sensors to use, as in `Inverse.for_recording`.

    """
    inverse = model if isinstance(model, Inverse) else Inverse.load(model)
    return inverse.apply(recording, noise_cov, forward, rank, trans, picks)


def _name(head: str | Path | Template) -> str:
    return head.name if isinstance(head, Template) else str(head)


def _check_mne(argument: str, value: object, kind: type, source: str) -> None:
    """Refuse anything but the expected object of MNE-Python, such as a path."""
    if not isinstance(value, kind):
        raise TypeError(
            f"Inverse.apply: {argument} is a {type(value).__name__}, expected an "
            f"mne.{kind.__name__}. Read or compute one with {source}."
        )
