"""``deepesi apply`` and ``prepare``: localize a recording with an exported file, without torch."""

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.data_check import flat_channels
from deepesi.physics.io.channels import unused_channels, usable_channels
from deepesi.physics.io.head_mri import read_head_mri
from deepesi.physics.io.rank import RankChoice
from deepesi.runtime.band import BandPower, band_limited
from deepesi.runtime.corrections import Corrected
from deepesi.runtime.estimates import Localization
from deepesi.runtime.inverse import Inverse, PreparedInverse
from deepesi.runtime.noise_estimate import noise_of
from deepesi.runtime.reading.averaging import average
from deepesi.runtime.reading.channels import adopt_names
from deepesi.runtime.reading.file_units import check_noise_level
from deepesi.runtime.reading.recording import ReadingOptions, read_recording, read_setup
from deepesi.runtime.recordings import n_segments, recording_rows
from deepesi.runtime.writing.animated import Animated, check_animated, check_shown, write_animated
from deepesi.runtime.writing.estimate import (
    Peak,
    check_prefix,
    check_writable,
    file_writer,
    find_peak,
    in_window,
    write_picture,
    write_prediction_set,
)
from deepesi.runtime.writing.samples import Draws, check_draws, write_samples
from deepesi.runtime.writing.source_counts import write_source_counts
from deepesi.runtime.writing.subject_anatomy import SubjectAnatomy, subject_anatomy
from deepesi.runtime.writing.zarr_group import is_zarr, zarr_writer
from deepesi.utils.files import check_file_out, parsing

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recordings import Recording


Array = NDArray[np.float64]


class Where(NamedTuple):
    """Time window of the peak, s, and anatomy of the subject, if known."""

    window: Sequence[float]
    anatomy: SubjectAnatomy | None


class Applied(NamedTuple):
    """Result of the localization of a recording, beside its files.

    Attributes:
        peak: Source and time of the largest estimate; None if no piece reaches into the window.
        n_channels: Number of channels used.
        bads: Channels excluded as bad.
        nave: Number of trials averaged, 1 for single trials.

    """

    peak: Peak | None
    n_channels: int
    bads: tuple[str, ...]
    nave: float


class Opened(NamedTuple):
    """A recording and the model prepared for it.

    Attributes:
        data: The recording, or its average about an event.
        model: The model.
        inverse: The model prepared for the set-up of the recording.
        forward: The recording's own forward solution, if there is one.

    """

    data: "Recording"
    model: Inverse
    inverse: PreparedInverse
    forward: "mne.Forward | None"


NOT_FILTERED = "not high-pass filtered: drifts count as signal"


@dataclass(frozen=True)
class SetupOptions:
    """Noise covariance and head of a recording.

    Attributes:
        noise_cov: Noise covariance of single trials, ``-cov.fif``.
        noise_from: Time window of noise, s, in place of `noise_cov`; as in `noise_of`.
        forward: The recording's own ``-fwd.fif``; the packaged head if None.
        head: Packaged head or ``.npz``.
        prepared: ``head.npz`` of `prepare`, in place of all of these.
        subjects_dir: FreeSurfer's folder of the subject of `forward`: MNI positions and parcels.
        n_threads: Threads of one inference, 0 for all cores.
        rank: Dimensions of the noise, as in `RankChoice`.
        trans: ``-trans.fif`` that places the electrodes on the packaged or own head.

    """

    noise_cov: Path | None = None
    noise_from: Sequence[float] | None = None
    forward: Path | None = None
    head: str | None = None
    prepared: Path | None = None
    n_threads: int = 0
    subjects_dir: Path | None = None
    rank: RankChoice = None
    trans: Path | None = None

    def __post_init__(self) -> None:
        if self.noise_cov is not None and self.noise_from is not None:
            raise ValueError("--noise-cov and --noise-from both set the noise; give one.")
        others = (self.noise_cov, self.noise_from, self.forward, self.head, self.rank, self.trans)
        if self.prepared is not None and any(other is not None for other in others):
            raise ValueError(
                "--prepared already contains noise and head; leave --noise-cov, --noise-from, "
                "--forward, --head and --rank out, and --trans."
            )
        if self.forward is not None and self.head is not None:
            raise ValueError(
                "--forward and --head both set the head; give --forward for the "
                "recording's own, or --head for one of several subjects."
            )
        if self.forward is not None and self.trans is not None:
            raise ValueError(
                "--forward contains the transform from head to MRI that it was computed with; "
                "leave --trans out, or --forward to use the packaged head."
            )
        if self.subjects_dir is not None and self.forward is None:
            raise ValueError(
                "--subjects-dir needs --forward, the forward solution of the same subject; give "
                "both, or neither."
            )


def read_covariance(path: Path | None) -> "mne.Covariance":
    """Read a noise covariance of single trials.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No path, or not a file of a covariance.

    """
    import mne

    if path is None:
        raise ValueError(
            "the noise covariance is missing: the model needs the level of the noise. Give "
            "--noise-cov COV.fif (mne.compute_covariance of the baseline of single trials), or "
            "--noise-from FROM TO with epochs or a raw recording."
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    with parsing(path, "noise covariance", "Write it again with mne.write_cov."):
        return mne.read_cov(path, verbose="error")


def read_forward(path: Path | None) -> "mne.Forward | None":
    """The recording's own forward solution, if there is one.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not a file of a forward solution.

    """
    import mne

    if path is None:
        return None
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    with parsing(path, "forward solution", "Write it again with mne.write_forward_solution."):
        return mne.read_forward_solution(path, verbose="error")


def _transform(path: Path | None) -> "mne.Transform | None":
    """The transform of the user, if there is one."""
    return None if path is None else read_head_mri(path)


#: Opens a model by its path or name for a set-up, such as `open_file`.
Opener = Callable[[Path, SetupOptions], Inverse]


def open_file(model: Path, setup: SetupOptions) -> Inverse:
    """Open an exported or packaged file.

    Args:
        model: Path of an exported file, or the name of a packaged one.
        setup: Set-up with the head and the number of threads.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It was not written by deepesi, or was damaged.

    """
    return Inverse.load(model, setup.n_threads, setup.head)


def apply(
    model: Path,
    recording: Path,
    out: Path,
    reading: ReadingOptions,
    setup: SetupOptions,
    window: Sequence[float],
    progress: bool = True,
    open_inverse: Opener = open_file,
    animated: Animated | None = None,
    draws: Draws | None = None,
) -> Generator[str, None, Applied]:
    """Localize a recording and report each step.

    An evoked response gives ``OUT-lh.stc``, ``OUT-rh.stc`` and ``OUT.png``, from a calibrated file
    ``OUT-prediction_set-lh.label`` and ``-rh.label`` as well. Epochs and raw
    recordings are localized piece by piece: ``OUT-0000-lh.stc`` and so on, numbered from 0 in
    the order of the file, each written before the next is computed, without a picture. Volumes and
    free orientation are written by `deepesi.runtime.writing.estimate.write_estimate`. If ``out``
    ends in ``.zarr``, all estimates are written there in place of the ``.stc``, by
    `deepesi.runtime.writing.zarr_group.ZarrGroup`. With a band (``reading.band``) only the power of
    the sources in it is written, as ``OUT-band`` and ``OUT-band-std``, see
    `deepesi.runtime.band.BandPower`.

    Args:
        model: Exported file, or another model that `open_inverse` knows.
        recording: Path of the recording, as in `read_recording`.
        out: Prefix of the files to write, or one ``.zarr``.
        reading: Options for reading the recording.
        setup: Noise covariance and head.
        window: Start and end of the search for the peak, s.
        progress: Show a bar on a terminal while epochs and raw recordings are localized.
        open_inverse: Opens the model; the command line also knows solvers by their names.
        animated: Movie and page to write of an evoked response.
        draws: Posterior samples to draw and write, as in `write_samples`.

    Returns:
        The peak and the channels, after all lines are consumed.

    Raises:
        ValueError: The recording does not fit the model; nothing is written. A piece whose data
            are not plausible EEG ends the run; earlier pieces are complete, a ``.zarr`` is not
            written.

    """
    check_prefix(out)
    if animated is not None:
        check_animated(animated)
    opened = yield from open_recording(model, recording, reading, setup, open_inverse)
    data, inverse = opened.data, opened.inverse
    check_writable(inverse.space, out)
    check_window(window, data.times)
    if animated is not None:
        check_shown(data, inverse.space, window)
    if draws is not None:
        check_draws(draws, data, inverse)
    ready = yield from correct_recording(opened, reading)
    forward = opened.forward
    anatomy = None
    if forward is not None and setup.subjects_dir is not None:
        anatomy = subject_anatomy(forward, setup.subjects_dir)
    where = Where(window, anatomy)
    if reading.band is not None:
        power = _band_power(ready, inverse, reading.band, progress)
        yield from power.write(inverse, out, anatomy)
        return Applied(None, len(inverse.ch_names), tuple(_bads(data)), inverse.nave)
    peak = yield from _localize(ready, inverse, where, out, progress, animated, draws)
    return Applied(peak, len(inverse.ch_names), tuple(_bads(data)), inverse.nave)


def open_recording(
    model: Path,
    recording: Path,
    reading: ReadingOptions,
    setup: SetupOptions,
    open_inverse: Opener = open_file,
) -> Generator[str, None, Opened]:
    """Read a recording and prepare a model for it, and report each step; args as in `apply`."""
    notes: list[str] = []
    data = read_recording(recording, reading, notes.append)
    yield from notes
    if reading.band is not None:
        data = band_limited(data, reading.band)
        yield "filtered to {:g} to {:g} Hz; the noise must be of this band, too".format(
            *reading.band
        )
    trials, noise_from = data, setup.noise_from
    if reading.event is not None:
        data, trials, line = average(data, reading.event, reading.epoch, reading.baseline)
        yield line
        if setup.prepared is None and setup.noise_cov is None and noise_from is None:
            noise_from = (reading.epoch[0], 0.0)
            yield f"noise: from the trials, {noise_from[0]:g} to 0 s"
    forward, trans = read_forward(setup.forward), _transform(setup.trans)
    covariance = None
    if setup.prepared is None:  # refused before the model is opened
        kinds = {"eeg"} if forward is None else set(usable_channels(forward["info"]).values())
        covariance = _noise(trials, noise_from, setup.noise_cov, kinds)
    opened = open_inverse(model, setup)
    if setup.prepared is None:
        inverse = opened.for_recording(data, covariance, forward, rank=setup.rank, trans=trans)
        yield from _placement_lines(inverse)
    else:
        inverse = opened.for_prepared(setup.prepared)
        yield from adopt_names(data, inverse.ch_names)
        yield f"{setup.prepared}: {inverse.origin}"
    return Opened(data, opened, inverse, forward)


def _noise(
    trials: "Recording",
    window: Sequence[float] | None,
    path: Path | None,
    kinds: Collection[str],
) -> "mne.Covariance":
    """Noise covariance of a file, or of a time window of the trials; checked for some channels."""
    if window is None:
        return read_covariance(path)
    covariance = noise_of(trials, window, kinds)
    used = {name: kind for name, kind in usable_channels(trials.info).items() if kind in kinds}
    check_noise_level(covariance, used)
    return covariance


def correct_recording(opened: Opened, reading: ReadingOptions) -> Generator[str, None, Corrected]:
    """Correct a recording for localization, and report what it is and what was done."""
    inverse = opened.inverse
    ready = inverse.correct(opened.data, reading.baseline)
    yield _summary(ready, inverse)
    yield from ready.changes
    for line in inverse.out_of_distribution(ready.recording):
        yield f"out of distribution: {line}"
    return ready


def _placement_lines(inverse: PreparedInverse) -> list[str]:
    """Output lines about the electrodes on a packaged head."""
    placement = inverse.placement
    if placement is None:
        return []
    return [f"electrodes: {placement}", *(f"doubtful: {line}" for line in placement.warnings)]


def _bads(data: "Recording") -> list[str]:
    return [c for c in data.info["bads"] if c in data.ch_names]


def _summary(ready: Corrected, inverse: PreparedInverse) -> str:
    import mne

    data = ready.recording
    bads = _bads(data)
    if isinstance(data, mne.Evoked):
        kind = f"{data.nave:g} trials"
    elif isinstance(data, mne.io.BaseRaw):
        high_pass = data.info["highpass"]
        filtered = f"high-pass {high_pass:g} Hz" if high_pass > 0 else NOT_FILTERED
        kind = f"raw recording of {data.times[-1]:.0f} s, {filtered}"
    else:
        kind = "epochs, localized one by one"
    if ready.baseline is not None:
        kind += f", {ready.baseline}"
    channels = f"{inverse.sensors.summary} of rank {inverse.rank}"
    channels += f" ({inverse.rank_reason})"
    line = f"{channels}, {kind}; excluded as bad: {bads or 'none'}"
    unused = unused_channels(data.info, inverse.sensors)
    if unused:
        line += f"; not used, as the head has none: {unused}"
    if isinstance(data, mne.Evoked):
        rows = recording_rows(data, inverse.ch_names)
        for i in flat_channels(data.data[rows]):
            line += f"; {inverse.ch_names[i]} is constant, taken for the reference"
    return line


def check_window(window: Sequence[float], times: Array) -> None:
    """Refuse a time window (s) that holds no sample."""
    if not in_window(times, window).any():
        raise ValueError(
            f"--window {window[0]:g} {window[1]:g} s lies outside the recording "
            f"({times[0]:g} to {times[-1]:g} s)."
        )


def _localize(
    ready: Corrected,
    inverse: PreparedInverse,
    where: Where,
    out: Path,
    progress: bool,
    animated: Animated | None,
    draws: Draws | None,
) -> Generator[str, None, Peak | None]:
    """Estimate, describe and write, one piece in memory at a time; returns the strongest peak."""
    import mne

    data, to_zarr = ready.recording, is_zarr(out)
    is_evoked = isinstance(data, mne.Evoked)
    pieces = inverse.localize(ready) if is_evoked else _with_progress(ready, inverse, progress)
    result, strongest = None, None
    with zarr_writer(out, inverse, data) if to_zarr else file_writer(out, not is_evoked) as write:
        for result in pieces:
            for line in inverse.unexplained(result.data):
                yield line if is_evoked else f"{result.number:04d}: {line}"
            peak = find_peak(result, inverse, where.window, where.anatomy)
            if peak is not None:
                yield str(peak) if is_evoked else _with_number(result, peak, inverse)
                if strongest is None or peak.power > strongest.power:
                    strongest = peak
            yield from write(result)
        if result is None:
            raise ValueError(
                "the recording holds no epochs: all were dropped. Nothing was written."
            )
    if to_zarr:
        yield f"wrote {out}"
    if is_evoked:
        assert isinstance(data, mne.Evoked)
        assert peak is not None
        prefix = out.with_suffix("") if to_zarr else out
        yield from write_prediction_set(peak, inverse.space, prefix)
        yield write_picture(result, peak, inverse, data, prefix)
        yield from write_source_counts(result, peak, inverse, prefix)
        if draws is not None:
            yield from write_samples(draws, result, peak, inverse, prefix)
        if animated is not None:
            yield from write_animated(animated, result, peak, inverse, data, where.window, progress)
    return strongest


def _band_power(
    ready: Corrected,
    inverse: PreparedInverse,
    band: tuple[float, float],
    progress: bool,
) -> BandPower:
    """Power of every source in the band of the recording, over all pieces."""
    power = BandPower(band, 1 / ready.recording.info["sfreq"])
    for result in _with_progress(ready, inverse, progress):
        power.add(result)
    return power


def _with_number(result: Localization, peak: Peak, inverse: PreparedInverse) -> str:
    """Output line for an epoch or a piece of a raw recording."""
    outside = "".join(
        f"; out of distribution: {text}" for text in inverse.piece_out_of_distribution(result)
    )
    return f"{result.number:04d}: {peak}{outside}"


def _with_progress(
    ready: Corrected, inverse: PreparedInverse, progress: bool
) -> Iterable[Localization]:
    """Estimates one after the other; on a terminal with a progress bar."""
    from tqdm import tqdm

    return tqdm(
        inverse.localize(ready),
        total=n_segments(ready),
        leave=False,
        dynamic_ncols=True,
        mininterval=0,
        miniters=1,
        disable=None if progress else True,
    )


def prepare(
    model: Path,
    recording: Path,
    out: Path,
    reading: ReadingOptions,
    setup: SetupOptions,
    nave: float,
    open_inverse: Opener = open_file,
) -> str:
    """Prepare a model for the set-up of a recording and write ``head.npz``."""
    check_file_out(out, ".npz")
    notes: list[str] = []
    info = read_setup(recording, reading, notes.append)
    inverse = open_inverse(model, setup).for_recording(
        info,
        read_covariance(setup.noise_cov),
        read_forward(setup.forward),
        nave,
        setup.rank,
        _transform(setup.trans),
    )
    inverse.save(out)
    wrote = f"wrote {out}: {len(inverse.ch_names)} channels, {inverse.space.name}"
    return "\n".join([*notes, *_placement_lines(inverse), wrote])
