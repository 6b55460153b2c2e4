"""A model prepared for one recording set-up, which checks and localizes recordings."""

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from deepesi.calibration.conformal import estimated_snr_db
from deepesi.physics.cap_placement import Placement
from deepesi.physics.channel_check import unexplained_channels, unexplained_text
from deepesi.physics.coil_placement import CoilPlacement
from deepesi.physics.data_check import check_data
from deepesi.physics.head import magnitudes
from deepesi.physics.noise import spanned_by_data
from deepesi.physics.source_mesh import CortexMesh, source_mesh
from deepesi.physics.template import Template
from deepesi.runtime.corrections import Baseline, Corrected, baseline_data, corrected
from deepesi.runtime.estimates import Localization, check_parts, source_estimate
from deepesi.runtime.noise_check import (
    QUIETEST,
    check_baseline,
    check_noise,
    quietest_average,
)
from deepesi.runtime.prediction_sets import PredictionSet, PredictionSetFinder
from deepesi.runtime.prepared_model import PreparedModel
from deepesi.runtime.recording_checks import check_recording
from deepesi.runtime.recordings import (
    STRETCH,
    Segment,
    recording_rows,
    segments,
    windowed_parts,
)
from deepesi.utils.files import atomic

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recording_type import Recording

Array = NDArray[np.float64]


class ExtrapolationWarning(UserWarning):
    """A recording is out of distribution for a network."""


class CorrectionWarning(UserWarning):
    """A recording was changed before localization, or part of it was excluded."""


class NoiseWarning(UserWarning):
    """A recording has more noise than its noise covariance says."""


class PlacementWarning(UserWarning):
    """The electrodes of a recording do not fit the head well."""


class UnexplainedChannelWarning(UserWarning):
    """No source explains the data of a channel, given the other channels."""


@dataclass(frozen=True)
class PreparedInverse(PreparedModel):
    """A model prepared for the set-up of recordings, which checks and localizes them.

    It has the attributes of `PreparedModel`, too.

    Attributes:
        rank_reason: Reason for the rank of the data, as text.
        nave: Number of averaged trials in the data; effective numbers may be fractions.
        origin: Description of the origin of sensors and noise.
        channel_precision: Precision matrix of the channels ``(C, C)``, in the units of the
            whitener, for `unexplained`.
        placement: How the electrodes were placed on a packaged head; None with a forward solution,
            and when read from a file, whose `origin` says it.
        coils: How the MEG coils were placed about a packaged head; None as for `placement`.
        recorded_pos: Positions of the sensors in the head frame of the recording ``(C, 3)``, m;
            None: those of `sensors`.
        template: Packaged or own head with the sources of this model; None: a subject's own
            forward solution.
        src: Source space of that forward solution, to draw on; None: not known.

    """

    rank_reason: str
    nave: float
    origin: str
    channel_precision: Array
    placement: Placement | None = None
    coils: CoilPlacement | None = None
    recorded_pos: Array | None = None
    template: Template | None = None
    src: "mne.SourceSpaces | None" = None

    @functools.cached_property
    def cortex(self) -> CortexMesh | None:
        """Cortex to draw on: of the template, or of the forward solution; None: there is none."""
        if self.template is not None:
            return self.template.display
        return None if self.src is None else source_mesh(self.src)

    @property
    def placement_warnings(self) -> list[str]:
        """Warnings about the placement of the sensors on a packaged head."""
        placed = (self.placement, self.coils)
        return [line for placement in placed if placement for line in placement.warnings]

    @property
    def placement_lines(self) -> list[str]:
        """Lines that describe the placement of the sensors on a packaged head."""
        placed = {"electrodes": self.placement, "MEG coils": self.coils}
        lines = [f"{what}: {how}" for what, how in placed.items() if how is not None]
        return lines + [f"warning: {line}" for line in self.placement_warnings]

    @overload
    def apply(
        self, recording: "mne.Evoked", chunk: float = ..., baseline: Baseline | None = ...
    ) -> Localization: ...

    @overload
    def apply(  # type: ignore[overload-cannot-match] # MNE-Python has no types
        self,
        recording: "mne.BaseEpochs | mne.io.BaseRaw",
        chunk: float = ...,
        baseline: Baseline | None = ...,
    ) -> Iterator[Localization]: ...

    def apply(
        self,
        recording: "Recording",
        chunk: float = STRETCH,
        baseline: Baseline | None = None,
    ) -> Localization | Iterator[Localization]:
        """Localize an evoked response, every epoch of epochs, or a raw recording in stretches.

        The same as ``deepesi apply``. Epochs are not averaged. A raw recording is read piece by
        piece, so memory does not grow with its length. A model that estimates the noise level from
        the data does so in each epoch and each piece.

        Args:
            recording: `mne.Evoked`, `mne.Epochs` or `mne.io.Raw`; it is not changed.
            chunk: Longest piece of a raw recording, s.
            baseline: Baseline to subtract: ``"none"``, or start and end, s; by default that of the
                file, as in `deepesi.runtime.corrections.corrected`.

        Returns:
            One `Localization` for an evoked response; else an iterator of them, in order of time.

        Raises:
            TypeError: Not a recording of MNE-Python.
            ValueError: The good channels or the number of trials (1 unless averaged) differ
                from the prepared ones; the recording is shorter than a filter of the model, or of
                another sampling rate than its filters; power too low or too high for the noise
                covariance, as in `deepesi.runtime.noise_check`; a baseline outside the recording;
                the source space is neither a surface nor a single volume; or as in `estimate`.

        Warns:
            ExtrapolationWarning: The recording is `out_of_distribution`.
            NoiseWarning: The baseline has more power than noise.
            CorrectionWarning: Offsets were subtracted, or data annotated BAD were excluded.
            UnexplainedChannelWarning: A channel, or a dimension of the noise, is `unexplained`.
            PlacementWarning: The electrodes do not fit the head well.

        """
        import mne

        for line in self.placement_warnings:
            warnings.warn(line, PlacementWarning, stacklevel=2)
        ready = self.correct(recording, baseline)
        for line in ready.changes:
            warnings.warn(f"the recording was changed: {line}", CorrectionWarning, stacklevel=2)
        if ready.noise_warning is not None:
            warnings.warn(ready.noise_warning, NoiseWarning, stacklevel=2)
        for line in self.out_of_distribution(ready.recording):
            warnings.warn(f"the recording has {line}", ExtrapolationWarning, stacklevel=2)
        found = self._warned(self.localize(ready, chunk))
        return next(found) if isinstance(recording, mne.Evoked) else found

    def _warned(self, results: Iterator[Localization]) -> Iterator[Localization]:
        """Pieces of `localize`, with a warning for every channel that is unexplained in a piece."""
        for result in results:
            for line in self.unexplained(result.data):
                warnings.warn(line, UnexplainedChannelWarning, stacklevel=3)
            yield result

    def correct(self, recording: "Recording", baseline: Baseline | None = None) -> Corrected:
        """Check that a recording fits the prepared set-up, and correct it for localization.

        Args and errors as in `apply`.
        """
        import mne

        check_parts(self.space)
        check_recording(recording, self.sensors, self.nave, self.recorded_pos)
        needs = self.model.contract.window_needs
        needs.check_rate(recording.info["sfreq"])
        rows = recording_rows(recording, self.ch_names)
        ready = corrected(recording, rows, self.sensors, self.power, baseline)
        if baseline != "none" and not isinstance(ready.recording, mne.io.BaseRaw):
            at_rest = [self._whitened(data) for data in baseline_data(ready.recording, rows)]
            ready = replace(ready, noise_warning=check_baseline(at_rest, self.rank, self.nave))
        for what, n_times in windowed_parts(ready):
            needs.check_length(n_times, what)
        return ready

    def localize(self, ready: Corrected, chunk: float = STRETCH) -> Iterator[Localization]:
        """Localize the result of `correct`, piece by piece; an error if there is no piece."""
        import mne

        tstep, piece = 1 / ready.recording.info["sfreq"], None
        is_average = isinstance(ready.recording, mne.Evoked)
        for piece in segments(ready, self.ch_names, chunk, self.model.longest):
            yield self._localize(piece, tstep, is_average)
        if piece is None:
            raise ValueError(
                "recording: it holds no epochs, all were dropped, so there is nothing to localize."
            )

    def out_of_distribution(self, recording: "Recording") -> list[str]:
        """Descriptions of the properties of a recording that are out of distribution.

        Channels, sampling rate, passband, and the SNR of an evoked response at its strongest sample
        (power ratio to the noise), if the file contains its training ranges.
        """
        import mne

        trained = self.model.contract.trained
        if trained is None:
            return []
        snr_db = None
        if isinstance(recording, mne.Evoked):
            rows = recording_rows(recording, self.ch_names)
            snr_db = self._largest_snr_db(recording.data[rows])
        info = recording.info
        passband_hz = (info["highpass"], info["lowpass"])
        return trained.out_of_distribution(len(self.ch_names), info["sfreq"], passband_hz, snr_db)

    def piece_out_of_distribution(self, result: Localization) -> list[str]:
        """Description of an SNR of an epoch or a piece that is `out_of_distribution`."""
        trained = self.model.contract.trained
        return (
            []
            if trained is None
            else trained.snr_out_of_distribution(self._largest_snr_db(result.data))
        )

    def _largest_snr_db(self, data: Array) -> float:
        samples = self._whitened(data).T[:, :, None]
        return float(estimated_snr_db(samples, self.rank).max())

    def unexplained(self, data: Array) -> list[str]:
        """Descriptions of what no source explains in data ``(C, T)``, SI units, any reference.

        First dimensions of the noise that the recording lacks (`spanned_by_data`), then channels,
        the worst first (`deepesi.physics.channel_check`).
        """
        spanned, lines = spanned_by_data(self._whitened(data), self.rank), list[str]()
        if spanned < self.rank:
            lines.append(
                f"the recording spans {spanned} of the {self.rank} dimensions of its noise "
                "covariance (cleaned by ICA, projected or interpolated after that was computed?), "
                "so the estimate may be wrong: compute the covariance from the "
                "recording as it is (mne.compute_covariance with rank=None)"
            )
        return lines + [
            unexplained_text(self.ch_names[row])
            for row in unexplained_channels(self.channel_precision, data, self.sensors)
        ]

    def prediction_set(self, mean: Array, data: Array) -> PredictionSet | None:
        """Prediction set of the source of one sample, at the calibrated probability.

        Args:
            mean: Estimate of the sample ``(D,)``, A m, or ``(S, 3)`` as in MNE-Python's vector
                estimates.
            data: The sample ``(C,)``, SI units, any reference, in the order of `ch_names`.

        Returns:
            None if the file was not calibrated.

        Raises:
            ValueError: Another number of dipoles or channels.

        """
        mean = mean.ravel()
        if mean.shape != (self.space.n_dipoles,) or data.shape != (len(self.ch_names),):
            raise ValueError(
                f"PreparedInverse: one sample of estimate and recording have shapes {mean.shape} "
                f"and {data.shape}, expected ({self.space.n_dipoles},) and ({len(self.ch_names)},)."
            )
        if self._calibrated is None:
            return None
        return self._calibrated.prediction_set(
            magnitudes(mean, self.space.n_orient), self._whitened(data), self.rank
        )

    @functools.cached_property
    def _calibrated(self) -> PredictionSetFinder | None:
        calibration = self.model.contract.calibration
        if calibration is None:
            return None
        return PredictionSetFinder(calibration, self.positions, self.space)

    def _localize(self, segment: Segment, tstep: float, is_average: bool) -> Localization:
        check_data(segment.data, self.sensors)
        seconds = segment.own.shape[1] * tstep
        quietest = quietest_average(self.rank, seconds) if is_average else QUIETEST
        check_noise(self.power(segment.own), quietest, self.nave)
        estimates = self._windowed(segment.data, segment.windows)
        mean, *std = (
            source_estimate(values, self.space, segment.tmin, tstep) for values in estimates
        )
        return Localization(
            mean,
            std[0] if std else None,
            self.sensors.reference(segment.own),
            segment.number,
            segment.first,
        )

    def save(self, path: str | Path) -> None:
        """Write the prepared inputs as ``head.npz`` (no pickle), for a live system."""
        content: dict[str, Any] = {f"input/{key}": value for key, value in self.feeds.items()}
        content |= {
            "ch_names": np.array(self.sensors.names),
            "ch_kinds": np.array(self.sensors.kinds),
            "sensor_pos": self.sensors.positions,
            "sensor_ori": self.sensors.orientations,
            "recorded_pos": (
                self.sensors.positions if self.recorded_pos is None else self.recorded_pos
            ),
            "rank_reason": np.array(self.rank_reason),
            "space_name": np.array(self.space.name),
            "edges": self.space.edges,
            "n_orient": np.array(self.space.n_orient),
            "positions": self.positions,
            "whitener": self.whitener,
            "nave": np.array(self.nave),
            "origin": np.array(self.origin),
            "channel_precision": self.channel_precision,
        }
        content |= {f"vertices{i}": v for i, v in enumerate(self.space.vertices)}
        with atomic(Path(path)) as partial:
            np.savez_compressed(partial, allow_pickle=False, **content)
