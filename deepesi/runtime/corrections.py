"""What is done to a recording before it is localized: baseline, channel offsets, bad stretches.

The noise covariance has its mean removed; data that have not would be localized with the offsets of
their channels. Everything that is done is said.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.data_check import check_constant, check_data
from deepesi.physics.sensors import SensorArray
from deepesi.runtime.stretches import Stretch, bad_epochs, good_stretches, mean_of, text_of

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recordings import Recording

Array = NDArray[np.float64]
#: What is subtracted of an average or of epochs: nothing, or the mean from one time to another, s
#: (None: from the first, to the last sample). None in its place: what `corrected` says.
Baseline: TypeAlias = Literal["none"] | tuple[float | None, float | None]

#: Whitened power ``(T,)`` of data ``(C, T)``, any reference; of noise alone 1.
Power: TypeAlias = Callable[[Array], Array]

#: Whitened power of the mean of its first samples from which on an average or epochs without
#: baseline are taken to stand on channel offsets: 20 dB, above any slow potential that they could
#: begin with.
OFFSET = 100.0
#: The same of the mean over all of one without time before 0, from which on it is refused, as there
#: is no baseline to subtract: 30 dB, above any response of that length.
OFFSET_ALL = 1000.0
#: The same of the mean over all of a raw recording, from which on it is subtracted: -10 dB, so that
#: what stays does not show.
OFFSET_RAW = 0.1
#: Shortest part between boundaries of a raw recording, s: the mean of less is not its offset.
SHORTEST = 0.5
#: Share of the time before 0 that these first samples are, and how many there are at least.
FIRST_SHARE, FEWEST_FIRST = 1 / 3, 2
#: Epochs that are looked at for offsets, from the first on.
EPOCHS_LOOKED_AT = 20


@dataclass(frozen=True)
class Corrected:
    """A recording as it is localized.

    Attributes:
        recording: Averages and epochs with their baseline subtracted.
        stretches: Of a raw recording, what is not annotated as bad.
        offsets: To subtract from every part of a raw recording ``(C,)``, V.
        excluded: Numbers of epochs that are annotated as bad.
        changes: What was done to it without being asked, in words.
        baseline: What its baseline is, in words; None of a raw recording.

    """

    recording: "Recording"
    stretches: list[Stretch] = field(default_factory=list)
    offsets: dict[int, Array] = field(default_factory=dict)
    excluded: list[int] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    baseline: str | None = None


def corrected(
    recording: "Recording",
    rows: list[int],
    sensors: SensorArray,
    power: Power,
    baseline: Baseline | None = None,
) -> Corrected:
    """Subtract baseline or offsets, obey annotations, and say so; the recording is not changed.

    By default the baseline is what the file says: subtracted before, or not wanted. One case is an
    exception: an average, or epochs, whose file names no baseline and whose first samples have more
    than `OFFSET` times the power of the noise. They stand on channel offsets, and the mean before
    time 0 is subtracted. Of a raw recording the mean of every part is, above `OFFSET_RAW`.

    Args:
        recording: `mne.Evoked`, `mne.Epochs` or `mne.io.Raw`.
        rows: Of its channels to localize with ``(C,)``.
        sensors: Of these channels.
        power: See `Power`.
        baseline: See `Baseline`.

    Raises:
        ValueError: A baseline outside the recording, or of a raw recording; nothing but bad
            stretches; offsets of channels without time before 0.

    """
    import mne

    if isinstance(recording, mne.io.BaseRaw):
        if baseline not in (None, "none"):
            raise ValueError(
                "baseline: a raw recording has none; offsets of its channels are subtracted. "
                "High-pass filter it, or cut epochs from it."
            )
        offset = np.inf if baseline == "none" else OFFSET_RAW
        return _raw(recording, rows, sensors, power, offset)
    changes = []
    if baseline is None and recording.baseline is None and recording.times[0] < 0:
        times_noise = _offset_power(recording, rows, power)
        if times_noise > OFFSET:
            if isinstance(recording, mne.Evoked):  # a constant channel would become zero
                check_constant(recording.data[rows], [recording.ch_names[row] for row in rows])
            baseline = (None, 0.0)
            changes.append(
                f"its file names no baseline, and its first samples have {times_noise:.0f} times "
                "the power of the noise, as offsets of channels do: the mean before 0 ms was "
                "subtracted (keep it with --baseline none)"
            )
    if baseline is None and recording.baseline is None and recording.times[0] >= 0:
        _check_offsets(recording, rows, sensors, _offset_power(recording, rows, power))
    recording, text = baselined(recording, baseline)
    excluded = bad_epochs(recording) if isinstance(recording, mne.BaseEpochs) else []
    if excluded:
        changes.append(f"epochs {excluded} are annotated BAD and left out")
        if len(excluded) == len(recording):
            raise ValueError(
                f"recording: all {len(excluded)} epochs are annotated BAD, so there is nothing to "
                "localize. Correct the annotations."
            )
    return Corrected(recording, excluded=excluded, changes=changes, baseline=text)


def baselined(
    recording: "mne.Evoked | mne.BaseEpochs", baseline: Baseline | None
) -> tuple["mne.Evoked | mne.BaseEpochs", str]:
    """An average or epochs with the baseline asked for, and what that is in words.

    Raises:
        ValueError: A baseline outside the recording, or of less than two samples.

    """
    if baseline is None or baseline == "none":
        if recording.baseline is None:
            return recording, "no baseline subtracted"
        return recording, f"{_text(recording.baseline)}, subtracted before"
    first, last = recording.times[0], recording.times[-1]
    low = first if baseline[0] is None else baseline[0]
    high = last if baseline[1] is None else baseline[1]
    # A saved recording has times that are rounded otherwise than those in memory.
    nearly = 1e-3 / recording.info["sfreq"]
    if not first - nearly <= low <= high <= last + nearly:
        raise ValueError(
            f"baseline: {low:g} to {high:g} s is not within the recording, {first:g} to {last:g} "
            "s, or ends before it begins."
        )
    inside = recording.times[(recording.times >= low - nearly) & (recording.times <= high + nearly)]
    if len(inside) < 2:
        raise ValueError(
            f"baseline: {low:g} to {high:g} s holds less than two samples. Take a longer one."
        )
    copy = recording.copy().apply_baseline((inside[0], inside[-1]), verbose="error")
    return copy, f"{_text((low, high))}, subtracted now"


def _text(baseline: tuple[float, float]) -> str:
    return f"baseline {1e3 * baseline[0]:.0f} to {1e3 * baseline[1]:.0f} ms"


def _check_offsets(
    recording: "mne.Evoked | mne.BaseEpochs",
    rows: list[int],
    sensors: SensorArray,
    times_noise: float,
) -> None:
    """Refuse what stands on offsets of channels and has no time before 0 to tell them by."""
    if times_noise > OFFSET_ALL:
        data = np.hstack(list(_looked_at(recording, rows)))
        check_data(data, sensors)  # another unit, say
        raise ValueError(
            f"recording: the mean over its time has {times_noise:.0f} times the power of the "
            "noise, as offsets of channels have, and there is no time before 0 to subtract. Give "
            "--baseline FROM TO, high-pass filter the recording before it is cut, or keep it as it "
            "is with --baseline none."
        )


def _offset_power(recording: "mne.Evoked | mne.BaseEpochs", rows: list[int], power: Power) -> float:
    """Whitened power of the mean of the first samples; of epochs, the median of some.

    Of all samples, where there is no time before 0.
    """
    before = int((recording.times < 0).sum())
    first = slice(0, max(FEWEST_FIRST, round(FIRST_SHARE * before)) if before else None)
    data = _looked_at(recording, rows)
    if not (len(data) and np.isfinite(data).all()):  # refused later
        return 0.0
    return float(np.median(power(data[:, :, first].mean(axis=2).T)))


def _looked_at(recording: "mne.Evoked | mne.BaseEpochs", rows: list[int]) -> Array:
    """An average, or the first epochs ``(N, C, T)``, V."""
    import mne

    if isinstance(recording, mne.BaseEpochs):
        first = recording[:EPOCHS_LOOKED_AT].get_data(copy=False, verbose="error")
        return np.asarray(first[:, rows])
    return np.asarray(recording.data[None, rows])


def _raw(
    raw: "mne.io.BaseRaw", rows: list[int], sensors: SensorArray, power: Power, least: float
) -> Corrected:
    """Stretches that are not bad, and the offsets of its parts from this whitened power on."""
    stretches = good_stretches(raw)
    if not stretches:
        raise ValueError(
            f"recording: all {raw.times[-1]:.0f} s are annotated BAD, so there is nothing to "
            "localize. Correct the annotations (raw.annotations)."
        )
    shortest = SHORTEST * raw.info["sfreq"]
    parts = {part: [s for s in stretches if s.part == part] for part in {s.part for s in stretches}}
    short = [part for part, own in parts.items() if sum(s.stop - s.start for s in own) < shortest]
    if short and len(parts) > 1:
        stretches = [s for s in stretches if s.part not in short]
    offsets, largest = {}, 0.0
    for part in dict.fromkeys(s.part for s in stretches):
        mean, constant = mean_of(raw, rows, parts[part])
        _check_constant(raw, rows, mean, constant)
        apart = sensors.reference(mean[:, None])
        offsets[part] = np.zeros_like(mean)
        if power(mean[:, None])[0] > least:
            offsets[part], largest = mean, max(largest, float(np.abs(apart).max()))
    changes = [text] if (text := text_of(raw, stretches)) else []
    if short and len(parts) > 1:
        changes.append(
            f"{len(short)} part(s) between boundaries, shorter than {SHORTEST:g} s, left out"
        )
    if largest:
        changes.insert(
            0,
            f"offsets of channels, its mean over time, were subtracted (up to "
            f"{1e6 * largest:.3g} µV)",
        )
    return Corrected(raw, stretches, offsets, changes=changes)


def _check_constant(
    raw: "mne.io.BaseRaw", rows: list[int], mean: Array, constant: NDArray[np.bool_]
) -> None:
    """Refuse channels that are constant throughout, before their mean makes zeros of them."""
    names = [raw.ch_names[rows[i]] for i in np.flatnonzero(constant)]
    if len(names) > 1 or mean[constant].any():
        raise ValueError(
            f"recording: the channels {names} are constant, as if nothing were connected, and "
            "would be localized like any other. Mark them as bad (info['bads'])."
        )


def averages_counted_as_trials(evoked: "mne.Evoked") -> int | None:
    """Of a grand average whose ``nave`` is the number of averages, that number."""
    found = re.fullmatch(r"Grand average \(n = (\d+)\)", evoked.comment or "")
    return int(found[1]) if found and int(found[1]) == evoked.nave else None
