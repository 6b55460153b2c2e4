"""A recording and the model prepared for it, corrected for localization."""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.data_check import flat_channels
from deepesi.physics.io.selection import channels_to_localize, unused_channels
from deepesi.runtime.band import band_limited
from deepesi.runtime.corrections import Corrected
from deepesi.runtime.inverse import Inverse, PreparedInverse
from deepesi.runtime.noise_estimate import plausible_noise_of
from deepesi.runtime.reading.averaging import average
from deepesi.runtime.reading.channels import adopt_names
from deepesi.runtime.reading.recording import ReadingOptions, read_recording
from deepesi.runtime.recording_checks import nave_of
from deepesi.runtime.recordings import recording_rows
from deepesi.runtime.setup import (
    Opener,
    SetupOptions,
    open_file,
    read_covariance,
    read_forward,
    read_transform,
)
from deepesi.runtime.writing.estimate import in_window

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recording_type import Recording

Array = NDArray[np.float64]

NOT_FILTERED = "not high-pass filtered: drifts count as signal"


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
    forward, trans = read_forward(setup.forward), read_transform(setup.trans)
    if setup.prepared is not None:
        opened = open_inverse(model, setup)
        inverse = opened.for_prepared(setup.prepared)
        yield from adopt_names(data, inverse.ch_names)
        yield f"{setup.prepared}: {inverse.origin}"
    else:
        channels = channels_to_localize(data.info, forward, setup.picks)
        covariance = (
            read_covariance(setup.noise_cov)
            if noise_from is None
            else plausible_noise_of(trials, noise_from, channels)
        )
        opened = open_inverse(model, setup)  # a wrong recording is refused before it is opened
        inverse = opened.for_channels(
            data.info, channels, covariance, nave_of(data), forward, setup.rank, trans
        )
        yield from inverse.placement_lines
    return Opened(data, opened, inverse, forward)


def check_window(window: Sequence[float], times: Array) -> None:
    """Refuse a time window (s) that holds no sample."""
    if in_window(times, window).any():
        return
    low, high = window
    if not low <= high:
        why = "ends before it begins"
    else:
        inside = times[0] <= low and high <= times[-1]
        why = "lies between two samples of" if inside else "lies outside"
        why += f" the recording ({times[0]:g} to {times[-1]:g} s)"
    raise ValueError(f"--window {low:g} {high:g} s {why}. Give start and end in s.")


def check_good_window(window: Sequence[float], ready: Corrected) -> None:
    """Refuse a time window (s) of a raw recording of which everything was excluded."""
    times = ready.recording.times
    if ready.stretches and not any(
        in_window(times[s.start : s.stop], window).any() for s in ready.stretches
    ):
        raise ValueError(
            f"--window {window[0]:g} {window[1]:g} s holds only data annotated BAD, which are "
            "excluded. Choose another window, or correct the annotations."
        )


def correct_recording(opened: Opened, reading: ReadingOptions) -> Generator[str, None, Corrected]:
    """Correct a recording for localization, and report what it is and what was done."""
    inverse = opened.inverse
    ready = inverse.correct(opened.data, reading.baseline)
    yield _summary(ready, inverse)
    yield from ready.changes
    if ready.noise_warning is not None:
        yield f"warning: {ready.noise_warning}"
    for line in inverse.out_of_distribution(ready.recording):
        yield f"out of distribution: {line}"
    return ready


def _summary(ready: Corrected, inverse: PreparedInverse) -> str:
    import mne

    data = ready.recording
    bads = bads_of(data)
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
        line += f"; not used: {unused}"
    if isinstance(data, mne.Evoked):
        rows = recording_rows(data, inverse.ch_names)
        for i in flat_channels(data.data[rows]):
            line += f"; {inverse.ch_names[i]} is constant, taken for the reference"
    return line


def bads_of(data: "Recording") -> list[str]:
    """Channels of the recording that are marked as bad."""
    return [c for c in data.info["bads"] if c in data.ch_names]
