"""A model prepared for one recording set-up, which checks and localizes recordings."""

import functools
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from deepesi.calibration.conformal import estimated_snr_db
from deepesi.physics.cap_placement import Placement
from deepesi.physics.channel_check import unexplained_channels, unexplained_text
from deepesi.physics.coil_placement import CoilPlacement
from deepesi.physics.data_check import check_data
from deepesi.physics.head import SourceSpace, magnitudes
from deepesi.physics.noise import spanned_by_data, whitened_power
from deepesi.physics.sensors import SensorArray
from deepesi.runtime.contract import Contract
from deepesi.runtime.corrections import Baseline, Corrected, corrected
from deepesi.runtime.estimates import Localization, check_parts, source_estimate
from deepesi.runtime.noise_check import QUIETEST, check_noise, quietest_average
from deepesi.runtime.prediction_sets import PredictionSet, PredictionSetFinder
from deepesi.runtime.recordings import (
    STRETCH,
    Segment,
    check_recording,
    recording_rows,
    segments,
    windowed_parts,
)
from deepesi.runtime.windows import Windows, overlap_add, windows_of
from deepesi.utils.files import atomic

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recordings import Recording

Array = NDArray[np.float64]


class ExtrapolationWarning(UserWarning):
    """A recording is out of distribution for a network."""


class CorrectionWarning(UserWarning):
    """A recording was changed before localization, or part of it was excluded."""


class PlacementWarning(UserWarning):
    """The electrodes of a recording do not fit the head well."""


class UnexplainedChannelWarning(UserWarning):
    """No source explains the data of a channel, given the other channels."""


class Model(Protocol):
    """Interface for computing estimates: an opened file, or a solver.

    Attributes:
        contract: Inputs and outputs.
        longest: Longest window, samples; None: any.
        sha256: SHA-256 of the file.

    """

    @property
    def contract(self) -> Contract: ...  # noqa: D102

    @property
    def longest(self) -> int | None: ...  # noqa: D102

    @property
    def sha256(self) -> str: ...  # noqa: D102

    def run(
        self,
        data: NDArray[Any],
        inputs: dict[str, NDArray[Any]],
        noise: NDArray[Any] | None = None,
        kinds: Collection[str] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Estimates by kind, as in `deepesi.runtime.session.OpenModel.run`."""
        ...

    def noise_size(self, data: NDArray[Any], inputs: dict[str, NDArray[Any]]) -> int:
        """Size of the noise of one draw, as in `deepesi.runtime.session.OpenModel.noise_size`."""
        ...


@dataclass(frozen=True)
class PreparedInverse:
    """A model with its inputs prepared for one recording set-up.

    Attributes:
        model: Opened file, or a solver.
        feeds: Prepared head inputs of the model.
        sensors: Expected channels, in this order.
        space: Source space of the estimates.
        positions: Source locations ``(S, 3)``, m.
        whitener: Whitening matrix ``(C, C)``, one over `SensorArray.head_units`.
        rank_reason: Reason for the rank of the data, as text.
        nave: Number of averaged trials in the data; effective numbers may be fractions.
        origin: Description of the origin of sensors and noise.
        channel_precision: Precision matrix of the channels ``(C, C)``, in the same units, for
            `unexplained`.
        placement: How the electrodes were placed on a packaged head; None with a forward solution,
            and when read from a file, whose `origin` says it.
        coils: How the MEG coils were placed about a packaged head; None as for `placement`.
        recorded_pos: Positions of the sensors in the head frame of the recording ``(C, 3)``, m;
            None: those of `sensors`.

    """

    model: Model
    feeds: dict[str, NDArray[Any]]
    sensors: SensorArray
    space: SourceSpace
    positions: Array
    whitener: Array
    rank_reason: str
    nave: float
    origin: str
    channel_precision: Array
    placement: Placement | None = None
    coils: CoilPlacement | None = None
    recorded_pos: Array | None = None

    @property
    def ch_names(self) -> tuple[str, ...]:
        """Names of the channels it expects, in this order."""
        return self.sensors.names

    @property
    def doubts(self) -> list[str]:
        """What to doubt of the placement of its sensors on a packaged head."""
        placed = (self.placement, self.coils)
        return [line for placement in placed if placement for line in placement.warnings]

    @functools.cached_property
    def rank(self) -> int:
        """Number of dimensions that the noise spans, for the reason in `rank_reason`."""
        values = np.linalg.eigvalsh(self.whitener)
        return int((values > 1e-7 * values[-1]).sum())

    def estimate(self, data: Array, window: int | None = None) -> list[Array]:
        """Estimate from data ``(C, T)``, SI units, any reference: ``[mean]`` or ``[mean, std]``.

        Each ``(D, T)``, A m.

        Args:
            data: ``(C, T)``, SI units, in the order of `ch_names`.
            window: Window length, samples, as in `deepesi.runtime.windows.overlap_add`; by
                default the longest window of training.

        Raises:
            ValueError: Another number of channels, or data that are not plausible in the units
                of their kind.

        """
        self._check_frames(data)
        n_times = data.shape[1]
        return self._windowed(data, windows_of(n_times, window or self.model.longest, 0, n_times))

    def sample(self, data: Array, n: int, seed: int = 0) -> NDArray[np.float32]:
        """Draw from the posterior of one window ``(C, T)``, SI units, any reference.

        Args:
            data: ``(C, T)``, SI units, in the order of `ch_names`.
            n: Number of draws.
            seed: Random seed; the same seed gives the same samples.

        Returns:
            ``(n, D, T)``, A m.

        Raises:
            ValueError: The model has no samples; fewer than one draw; more samples in time than
                in training; or as in `estimate`.

        """
        self._check_frames(data)
        self.check_samples(n, data.shape[1])
        batch = self.sensors.to_head(data)[None]
        size = self.model.noise_size(batch, self.feeds)
        noise = np.random.default_rng(seed).standard_normal((n, 1, size), dtype=np.float32)
        return self._outputs(batch, noise)["samples"][:, 0]

    def source_counts(self, data: Array) -> NDArray[np.float32]:
        """Probabilities ``(K,)`` of 1, 2, ... sources in one window, any reference.

        Args:
            data: ``(C, T)``, SI units, in the order of `ch_names`.

        Raises:
            ValueError: The model counts no sources; or as in `estimate`.

        """
        self._check_frames(data)
        if "source_counts" not in self.model.contract.kinds:
            raise ValueError(
                "PreparedInverse: the model counts no sources, it gives only "
                f"{' and '.join(self.model.contract.kinds)}. Use a network that does "
                "(an exported unrolled_champagne)."
            )
        return self._outputs(self.sensors.to_head(data)[None])["source_counts"][0]

    def check_samples(self, n: int, n_times: int) -> None:
        """Refuse draws that the model cannot give; errors as in `sample`."""
        if self.model.contract.noise is None:
            raise ValueError(
                "PreparedInverse: the model gives no posterior samples, only "
                f"{' and '.join(self.model.contract.kinds)}. Use a posterior model (an exported "
                "bayesian_minimum_norm, say)."
            )
        longest = self.model.longest
        if n < 1 or (longest is not None and n_times > longest):
            raise ValueError(
                f"PreparedInverse: asked for {n} draws of {n_times} samples in time, "
                f"expected 1 draw or more of at most {longest} samples. Draw from shorter windows: "
                "those of a long recording are means over windows, which draws are not."
            )

    def _check_frames(self, data: Array) -> None:
        if data.ndim != 2 or len(data) != len(self.ch_names):
            raise ValueError(
                f"PreparedInverse: data of shape {data.shape}, expected ({len(self.ch_names)} "
                f"channels, times): {list(self.ch_names[:5])} ... Select and order the channels."
            )
        check_data(data, self.sensors)

    def _windowed(self, data: Array, windows: Windows) -> list[Array]:
        return overlap_add(self._run, self.sensors.to_head(data), windows)

    def _run(self, batch: Array) -> list[NDArray[np.float32]]:
        """Windows ``(B, C, T)`` to ``[mean, std?]``, ``(B, D, T)`` each."""
        outputs = self._outputs(batch)
        return [outputs[kind] for kind in ("mean", "std") if kind in outputs]

    def _outputs(
        self, batch: Array, noise: NDArray[np.float32] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Estimates of windows by kind, checked for shape and finite values."""
        kinds = None if noise is None else ("samples",)
        outputs = self.model.run(batch, self.feeds, noise, kinds)
        expected = (len(batch), self.space.n_dipoles, batch.shape[2])
        for kind, output in outputs.items():
            if kind != "source_counts" and output.shape[-3:] != expected:
                raise ValueError(
                    f"PreparedInverse: the model gave an estimate of shape {output.shape}, the "
                    f"source space {self.space.name} has room for {expected}. The file is "
                    "not as in its contract; export it again."
                )
            if not np.isfinite(output).all():
                raise ValueError(
                    f"PreparedInverse: the model gave NaN or infinite moments for a window of "
                    f"{batch.shape[2]} samples. It cannot take this recording; use shorter "
                    "windows (estimate(..., window=)), or another model."
                )
        return outputs

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
                covariance; a baseline outside the recording; the source space is neither a surface
                nor a single volume; or as in `estimate`.

        Warns:
            ExtrapolationWarning: The recording is `out_of_distribution`.
            CorrectionWarning: Offsets were subtracted, or data annotated BAD were excluded.
            UnexplainedChannelWarning: A channel, or a dimension of the noise, is `unexplained`.
            PlacementWarning: The electrodes do not fit the head well.

        """
        import mne

        for line in self.doubts:
            warnings.warn(line, PlacementWarning, stacklevel=2)
        ready = self.correct(recording, baseline)
        for line in ready.changes:
            warnings.warn(f"the recording was changed: {line}", CorrectionWarning, stacklevel=2)
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
        check_parts(self.space)
        check_recording(recording, self.sensors, self.nave, self.recorded_pos)
        needs = self.model.contract.window_needs
        needs.check_rate(recording.info["sfreq"])
        rows = recording_rows(recording, self.ch_names)
        ready = corrected(recording, rows, self.sensors, self.power, baseline)
        for what, n_times in windowed_parts(ready):
            needs.check_length(n_times, what)
        return ready

    def localize(self, ready: Corrected, chunk: float = STRETCH) -> Iterator[Localization]:
        """Localize the result of `correct`, piece by piece."""
        import mne

        tstep = 1 / ready.recording.info["sfreq"]
        is_average = isinstance(ready.recording, mne.Evoked)
        for piece in segments(ready, self.ch_names, chunk, self.model.longest):
            yield self._localize(piece, tstep, is_average)

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

    def _whitened(self, data: Array) -> Array:
        return np.asarray(self.whitener @ self.sensors.to_head(data))

    def power(self, data: Array) -> Array:
        """Whitened power ``(T,)`` of data ``(C, T)`` (SI, any reference); 1 for noise alone."""
        return whitened_power(self._whitened(data), self.rank)

    def prediction_set(self, mean: Array, data: Array) -> PredictionSet | None:
        """Prediction set of the source of one sample, at the calibrated probability.

        Args:
            mean: Estimate of the sample ``(D,)``, A m.
            data: The sample ``(C,)``, SI units, any reference, in the order of `ch_names`.

        Returns:
            None if the file was not calibrated.

        Raises:
            ValueError: Another number of dipoles or channels.

        """
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
