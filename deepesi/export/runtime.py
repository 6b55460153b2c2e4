"""Applies an exported file to recordings: mne and onnxruntime, no torch."""

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from deepesi.export.contract import Contract
from deepesi.export.estimates import Localization, check_parts, source_estimate
from deepesi.export.packaged import model_path
from deepesi.export.prepared import read_prepared
from deepesi.export.recordings import (
    STRETCH,
    Segment,
    check_recording,
    recording_rows,
    segments,
)
from deepesi.export.regions import CalibratedRegions, Region
from deepesi.export.session import OpenModel, as_feeds, open_model
from deepesi.export.windows import Windows, overlap_add, windows_of
from deepesi.physics.files import atomic
from deepesi.physics.head import HeadModel, SourceSpace, average_reference
from deepesi.physics.head_inputs import prepare
from deepesi.physics.io import check_eeg, head_from_forward, head_on_template
from deepesi.physics.noise import whitener
from deepesi.physics.template import Template, load_template
from deepesi.uncertainty.conformal import estimated_snr_db

if TYPE_CHECKING:
    import mne

    from deepesi.export.recordings import Recording

Array = NDArray[np.float64]

#: Least whitened power of a recording: noise alone has 1, filtering takes some of it.
QUIETEST = 1e-2


class ExtrapolationWarning(UserWarning):
    """A recording lies outside what a network was trained on."""


@dataclass(frozen=True)
class PreparedInverse:
    """A model with its inputs prepared for one recording set-up.

    Attributes:
        model: The opened file.
        feeds: Its prepared head inputs.
        ch_names: The channels it expects, in this order.
        space: Where its estimates live.
        positions: Of the sources ``(S, 3)``, m.
        whitener: ``(C, C)``, 1/V.
        nave: Number of trials averaged in the data it is for.
        origin: Where electrodes and noise come from, in words.

    """

    model: OpenModel
    feeds: dict[str, NDArray[Any]]
    ch_names: tuple[str, ...]
    space: SourceSpace
    positions: Array
    whitener: Array
    nave: int
    origin: str

    def estimate(self, eeg: Array, window: int | None = None) -> list[Array]:
        """Frames ``(C, T)`` in V, any reference, in the order of `ch_names`, to ``[mean, std?]``.

        Each ``(D, T)``, A m.

        Args:
            eeg: See above.
            window: Samples that are estimated as one, see `deepesi.export.windows.overlap_add`; by
                default the longest the network was trained on.

        Raises:
            ValueError: Another number of channels, or data that cannot be EEG in volts.

        """
        if eeg.ndim != 2 or len(eeg) != len(self.ch_names):
            raise ValueError(
                f"PreparedInverse: data of shape {eeg.shape}, expected ({len(self.ch_names)} "
                f"channels, times): {list(self.ch_names[:5])} ... Select and order the channels."
            )
        check_eeg(eeg, self.ch_names)
        n_times = eeg.shape[1]
        return self._windowed(eeg, windows_of(n_times, window or self._longest, 0, n_times))

    @property
    def _longest(self) -> int | None:
        """The longest window the network has seen in training, samples; None: any goes."""
        trained = self.model.contract.trained
        return None if trained is None else trained.n_times[1]

    def _windowed(self, eeg: Array, windows: Windows) -> list[Array]:
        return overlap_add(self._run, average_reference(eeg), windows)

    def _run(self, batch: Array) -> list[NDArray[np.float32]]:
        """Windows ``(B, C, T)`` to ``(B, D, T)``, of the size the source space has."""
        outputs = self.model.run(batch, self.feeds)
        expected = (len(batch), self.space.n_dipoles, batch.shape[2])
        for output in outputs:
            if output.shape != expected:
                raise ValueError(
                    f"PreparedInverse: the model gave an estimate of shape {output.shape}, the "
                    f"source space {self.space.name} has room for {expected}. The file is "
                    "not what its contract says; export it again."
                )
            if not np.isfinite(output).all():
                raise ValueError(
                    f"PreparedInverse: the model gave NaN or infinite moments for a window of "
                    f"{batch.shape[2]} samples. It cannot take this recording; use shorter "
                    "windows (estimate(..., window=)), or another model."
                )
        return outputs

    @overload
    def apply(self, recording: "mne.Evoked", chunk: float = ...) -> Localization: ...

    @overload
    def apply(
        self, recording: "mne.BaseEpochs | mne.io.BaseRaw", chunk: float = ...
    ) -> Iterator[Localization]: ...

    def apply(
        self, recording: "Recording", chunk: float = STRETCH
    ) -> Localization | Iterator[Localization]:
        """Localize an evoked response, every epoch of epochs, or a raw recording in stretches.

        Epochs are not averaged. A raw recording is read stretch by stretch, so memory does not
        grow with its length; a model that reads the strength of its noise off the data does so
        in each epoch and each stretch.

        Args:
            recording: `mne.Evoked`, `mne.Epochs` or `mne.io.Raw`.
            chunk: Longest stretch of a raw recording, s.

        Returns:
            One `Localization` of an evoked response; else an iterator of them, in time's order.

        Raises:
            TypeError: Not a recording of MNE-Python.
            ValueError: Its good EEG channels or its number of trials (1 unless averaged) are not
                those this was prepared for; it is quieter than its noise; the source space is no
                surface and no single volume; see `estimate`.

        Warns:
            ExtrapolationWarning: It lies `beyond` what the network was trained on.

        """
        import mne

        check_parts(self.space)
        check_recording(recording, self.ch_names, self.nave)
        for line in self.beyond(recording):
            warnings.warn(f"the recording has {line}", ExtrapolationWarning, stacklevel=2)
        pieces = segments(recording, self.ch_names, chunk, self._longest)
        tstep = 1 / recording.info["sfreq"]
        found = (self._localize(piece, tstep) for piece in pieces)
        return next(found) if isinstance(recording, mne.Evoked) else found

    def beyond(self, recording: "Recording") -> list[str]:
        """What of a recording lies outside the training of the network, in words.

        Channels, sampling rate, what filters left, and the SNR of an evoked response at its
        strongest sample (power over that of the noise), where the file says what it was trained on.
        """
        import mne

        trained = self.model.contract.trained
        if trained is None:
            return []
        snr_db = None
        if isinstance(recording, mne.Evoked):
            rows = recording_rows(recording, self.ch_names)
            samples = self._whitened(recording.data[rows]).T[:, :, None]
            snr_db = float(estimated_snr_db(samples).max())
        info = recording.info
        passband_hz = (info["highpass"], info["lowpass"])
        return trained.beyond(len(self.ch_names), info["sfreq"], passband_hz, snr_db)

    def _whitened(self, eeg: Array) -> Array:
        return np.asarray(self.whitener @ average_reference(eeg))

    def _check_noise(self, eeg: Array) -> None:
        """Refuse a recording quieter than its noise, which every recording holds."""
        power = float(np.square(self._whitened(eeg)).mean())
        if power < QUIETEST:
            raise ValueError(
                f"PreparedInverse: the recording has {power:.2g} times the power that its noise "
                "covariance says noise alone has. Both must be in volts and of the same "
                "recording, and the number of trials right."
            )

    def region(self, mean: Array, eeg: Array) -> Region | None:
        """Where the source of one sample is with the probability the file was calibrated for.

        Args:
            mean: Estimate of the sample ``(D,)``, A m.
            eeg: The sample ``(C,)``, V, any reference, in the order of `ch_names`.

        Returns:
            None where the file was not calibrated.

        Raises:
            ValueError: Another number of dipoles or channels.

        """
        if mean.shape != (self.space.n_dipoles,) or eeg.shape != (len(self.ch_names),):
            raise ValueError(
                f"PreparedInverse: one sample of estimate and recording have shapes {mean.shape} "
                f"and {eeg.shape}, expected ({self.space.n_dipoles},) and ({len(self.ch_names)},)."
            )
        if self._calibrated is None:
            return None
        magnitudes = np.linalg.norm(mean.reshape(-1, self.space.n_orient), axis=1)
        return self._calibrated.region(magnitudes, self._whitened(eeg))

    @functools.cached_property
    def _calibrated(self) -> CalibratedRegions | None:
        calibration = self.model.contract.calibration
        if calibration is None:
            return None
        return CalibratedRegions(calibration, self.positions, self.space)

    def _localize(self, segment: Segment, tstep: float) -> Localization:
        check_eeg(segment.eeg, self.ch_names)
        estimates = self._windowed(segment.eeg, segment.windows)
        self._check_noise(segment.own)
        mean, *std = (
            source_estimate(values, self.space, segment.tmin, tstep) for values in estimates
        )
        return Localization(mean, std[0] if std else None, average_reference(segment.own))

    def save(self, path: Path) -> None:
        """Write ``head.npz`` (no pickle): the prepared inputs, for a live system."""
        content: dict[str, Any] = {f"input/{key}": value for key, value in self.feeds.items()}
        content |= {
            "ch_names": np.array(self.ch_names),
            "space_name": np.array(self.space.name),
            "edges": self.space.edges,
            "n_orient": np.array(self.space.n_orient),
            "positions": self.positions,
            "whitener": self.whitener,
            "nave": np.array(self.nave),
            "origin": np.array(self.origin),
        }
        content |= {f"vertices{i}": v for i, v in enumerate(self.space.vertices)}
        with atomic(path) as partial:
            np.savez_compressed(partial, allow_pickle=False, **content)


class Inverse:
    """An exported model, ready to be prepared for a recording.

    Args:
        model: An opened file; see `Inverse.load`.
        head: Packaged head or ``.npz``; None: the packaged head of the model's source space.

    """

    def __init__(self, model: OpenModel, head: str | Path | None = None) -> None:
        self.model, self.head = model, head

    @classmethod
    def load(
        cls, path: str | Path, n_threads: int = 0, head: str | Path | None = None
    ) -> "Inverse":
        """Open an exported file, or a packaged one by its name; errors as of `open_model`."""
        return cls(open_model(model_path(path), n_threads), head)

    @property
    def contract(self) -> Contract:
        """What the model needs and gives."""
        return self.model.contract

    @property
    def template(self) -> Template:
        """The head used where a recording has no forward solution of its own.

        Raises:
            ValueError: The model was trained on another anatomy.

        """
        name = self.head or self.contract.space_name or "fsaverage-ico3"
        template = load_template(name)
        anatomy = self.contract.anatomy
        if anatomy not in (None, template.fingerprint):
            raise ValueError(
                f"Inverse: the model was trained on the head {anatomy[:16]}, {name} is "
                f"{template.fingerprint[:16]}. Give the .npz it was trained on (head=..., --head)."
            )
        return template

    def for_recording(
        self,
        info: "mne.Info",
        noise_cov: "mne.Covariance",
        forward: "mne.Forward | None" = None,
        nave: int = 1,
    ) -> PreparedInverse:
        """Prepare for the set-up of a recording.

        Args:
            info: Channels, positions (head frame) and bad channels of the recording.
            noise_cov: Noise covariance of single trials.
            forward: The recording's own forward solution; the packaged head if None.
            nave: Number of trials averaged.

        Raises:
            ValueError: The recording, covariance or forward solution does not fit; see
                `head_on_template`, `head_from_forward` and `prepare_for`.

        """
        if forward is None:
            head = head_on_template(info, noise_cov, self.template, nave)
            origin = f"electrodes of a recording on {head.space.name}, its noise covariance"
        else:
            head = head_from_forward(info, noise_cov, forward, nave)
            origin = f"forward solution of a recording ({head.space.name}), its noise covariance"
        return self.prepare_for(head, nave, origin)

    def prepare_for(self, head: HeadModel, nave: int, origin: str) -> PreparedInverse:
        """Prepare for a head whose noise covariance is that of averages of `nave` trials.

        Raises:
            ValueError: The model belongs to another source space.

        """
        self._check_space(head.space)
        feeds = as_feeds(dict(prepare(self.contract.head_inputs, head)))
        return PreparedInverse(
            self.model, feeds, head.ch_names, head.space, head.source_pos,
            whitener(head.noise_cov), nave, origin,
        )  # fmt: skip

    def for_prepared(self, path: str | Path) -> PreparedInverse:
        """Use what `PreparedInverse.save` wrote.

        Raises:
            ValueError: Not such a file, or written for a model with other inputs or source space.

        """
        content = read_prepared(Path(path), self.contract)
        parts = sum(key.startswith("vertices") for key in content)
        vertices = tuple(content[f"vertices{i}"].astype(np.int64) for i in range(parts))
        n_orient = int(content["n_orient"])
        space = SourceSpace(str(content["space_name"]), vertices, content["edges"], n_orient)
        self._check_space(space)
        feeds = as_feeds({d.key: content[f"input/{d.key}"] for d in self.contract.head_inputs})
        return PreparedInverse(
            self.model,
            feeds,
            tuple(content["ch_names"].tolist()),
            space,
            content["positions"],
            content["whitener"],
            int(content["nave"]),
            str(content["origin"]),
        )

    def _check_space(self, space: SourceSpace) -> None:
        if self.contract.space_fingerprint not in (None, space.fingerprint):
            raise ValueError(
                f"Inverse: the model belongs to the source space {self.contract.space_name} "
                f"({self.contract.space_fingerprint}), the head has {space.name} with "
                f"{space.n_sources} sources ({space.fingerprint}). Leave the forward "
                "solution out to use the packaged head, compute it on that source space, or use a "
                "model that follows any source space (an exported eLORETA, say)."
            )
        if self.contract.n_orient not in (None, space.n_orient):
            raise ValueError(
                f"Inverse: the model gives {self.contract.n_orient} orientation(s) per source, the "
                f"head {space.name} has {space.n_orient}. Convert the forward solution "
                "(mne.convert_forward_solution, force_fixed), or export the model on such a head."
            )
