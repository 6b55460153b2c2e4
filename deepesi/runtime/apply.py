"""``deepesi apply`` and ``prepare``: localize a recording with an exported file, without torch."""

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from deepesi.runtime.band import BandPower
from deepesi.runtime.corrections import Corrected
from deepesi.runtime.estimates import Localization
from deepesi.runtime.inverse import PreparedInverse
from deepesi.runtime.opening import (
    bads_of,
    check_good_window,
    check_window,
    correct_recording,
    open_recording,
)
from deepesi.runtime.reading.recording import ReadingOptions, read_setup
from deepesi.runtime.recordings import n_segments
from deepesi.runtime.setup import (
    Opener,
    SetupOptions,
    open_file,
    read_covariance,
    read_forward,
    read_transform,
)
from deepesi.runtime.writing.animated import (
    AnimationOptions,
    check_animated,
    check_shown,
    write_animated,
)
from deepesi.runtime.writing.estimate import (
    Peak,
    check_prefix,
    check_writable,
    file_writer,
    find_peak,
    write_picture,
    write_prediction_set,
)
from deepesi.runtime.writing.samples import Draws, check_draws, write_samples
from deepesi.runtime.writing.source_counts import write_source_counts
from deepesi.runtime.writing.subject_anatomy import SubjectAnatomy, anatomy_of
from deepesi.runtime.writing.zarr_group import is_zarr, zarr_writer
from deepesi.utils.files import check_file_out


class PeakSearch(NamedTuple):
    """Time window of the peak, s, and anatomy of the subject, if known."""

    window: Sequence[float]
    anatomy: SubjectAnatomy | None


class Applied(NamedTuple):
    """Result of the localization of a recording, in addition to its files.

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


def apply(
    model: Path,
    recording: Path,
    out: Path,
    reading: ReadingOptions,
    setup: SetupOptions,
    window: Sequence[float],
    progress: bool = True,
    open_inverse: Opener = open_file,
    animated: AnimationOptions | None = None,
    draws: Draws | None = None,
) -> Generator[str, None, Applied]:
    """Localize a recording and report each step.

    An evoked response gives ``OUT-lh.stc``, ``OUT-rh.stc`` and ``OUT.png``, from a calibrated file
    ``OUT-prediction-set-lh.label`` and ``-rh.label`` as well, from a network that counts sources
    ``OUT-source-counts.csv``, and with draws the files of `write_samples`. Epochs and raw
    recordings are localized piece by piece: ``OUT-0000-lh.stc`` and so on, numbered from 0 in
    the order of the file, each written before the next is computed, without a picture. Files of
    volumes and of free orientation: see `deepesi.runtime.writing.estimate.write_estimate`. If
    ``out`` ends in ``.zarr``, all estimates are written there in place of the ``.stc``, by
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
        progress: Show a bar on a terminal while epochs and raw recordings are localized, and while
            movies are written.
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
        check_shown(data, inverse, window)
        if animated.html is not None and "eeg" not in inverse.sensors.kinds:
            raise ValueError(
                "--html shows potentials on the scalp, and the recording has MEG only. Leave it "
                "out; OUT.png and --movie show the estimate."
            )
    if draws is not None:
        check_draws(draws, data, inverse)
    ready = yield from correct_recording(opened, reading)
    check_good_window(window, ready)
    anatomy = anatomy_of(opened.forward, setup.subjects_dir)
    where = PeakSearch(window, anatomy)
    if reading.band is not None:
        power = _band_power(ready, inverse, reading.band, progress)
        yield from power.write(inverse, out, anatomy)
        return Applied(None, len(inverse.ch_names), tuple(bads_of(data)), inverse.nave)
    peak = yield from _localize(ready, inverse, where, out, progress, animated, draws)
    return Applied(peak, len(inverse.ch_names), tuple(bads_of(data)), inverse.nave)


def _localize(
    ready: Corrected,
    inverse: PreparedInverse,
    where: PeakSearch,
    out: Path,
    progress: bool,
    animated: AnimationOptions | None,
    draws: Draws | None,
) -> Generator[str, None, Peak | None]:
    """Estimate, describe and write, one piece in memory at a time; returns the strongest peak."""
    import mne

    data, to_zarr = ready.recording, is_zarr(out)
    is_evoked = isinstance(data, mne.Evoked)
    pieces = inverse.localize(ready) if is_evoked else _with_progress(ready, inverse, progress)
    strongest = None
    with zarr_writer(out, inverse, data) if to_zarr else file_writer(out, not is_evoked) as write:
        for result in pieces:
            for line in inverse.unexplained(result.data):
                yield line if is_evoked else f"{result.number:04d}: {line}"
            peak = find_peak(result, inverse, where.window, where.anatomy)
            yield str(peak) if is_evoked else _with_number(result, peak, inverse, where.window)
            if peak is not None and (strongest is None or peak.power > strongest.power):
                strongest = peak
            yield from write(result)
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
            yield from write_samples(draws, result, peak, inverse, prefix, progress)
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


def _with_number(
    result: Localization, peak: Peak | None, inverse: PreparedInverse, window: Sequence[float]
) -> str:
    """Output line for an epoch or a piece of a raw recording."""
    first, last = result.stc.times[[0, -1]]
    text = f"{first:g} to {last:g} s lies outside --window {window[0]:g} {window[1]:g}, so no peak"
    if peak is not None:
        text = str(peak)
    outside = "".join(
        f"; out of distribution: {line}" for line in inverse.piece_out_of_distribution(result)
    )
    return f"{result.number:04d}: {text}{outside}"


def _with_progress(
    ready: Corrected, inverse: PreparedInverse, progress: bool
) -> Iterable[Localization]:
    """Estimates one after the other; on a terminal with a progress bar."""
    from tqdm import tqdm

    estimates: Iterable[Localization] = tqdm(
        inverse.localize(ready),
        total=n_segments(ready),
        leave=False,
        dynamic_ncols=True,
        mininterval=0,
        miniters=1,
        disable=None if progress else True,
    )
    return estimates


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
        read_covariance(setup.noise_cov, others=""),
        read_forward(setup.forward),
        nave,
        setup.rank,
        read_transform(setup.trans),
        setup.picks,
    )
    inverse.save(out)
    wrote = f"wrote {out}: {len(inverse.ch_names)} channels, {inverse.space.name}"
    return "\n".join([*notes, *inverse.placement_lines, wrote])
