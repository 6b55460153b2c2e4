"""Corrections of a recording before localization: baseline, channel offsets, bad stretches.

The mean is removed from the noise covariance. Without corrections, offsets of channels in the data
would be localized. Every correction is reported.
"""

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

    from deepesi.runtime.recording_type import Recording

Array = NDArray[np.float64]
#: What is subtracted from an average or from epochs: nothing, or the mean between two times, s
#: (None: first or last sample). None instead of both: the rule of `corrected`.
Baseline: TypeAlias = Literal["none"] | tuple[float | None, float | None]

#: Whitened power ``(T,)`` of data ``(C, T)``, any reference; 1 for noise alone.
Power: TypeAlias = Callable[[Array], Array]

#: Threshold for channel offsets of an average or epochs without baseline: whitened power of the
#: mean of the first samples. 20 dB is above any slow potential at their start.
OFFSET = 100.0
#: Threshold for the mean over all samples, without time before 0. Above it the recording is
#: refused, because it has no baseline to subtract. 30 dB is above any response of that length.
OFFSET_ALL = 1000.0
#: Threshold for the mean over a raw recording. Above it the mean is subtracted. Offsets below
#: -10 dB have no visible effect.
OFFSET_RAW = 0.1
#: Shortest part between boundaries of a raw recording, s: a shorter mean does not give an offset.
SHORTEST = 0.5
#: The first samples: their share of the time before 0, and their least number.
FIRST_SHARE, FEWEST_FIRST = 1 / 3, 2
#: Shortest baseline whose power is compared with the noise, s, and its fewest samples.
SHORTEST_BASELINE, FEWEST_BASELINE = 0.05, 5
#: Number of first epochs that are checked for offsets and noise.
N_FIRST_EPOCHS = 20


@dataclass(frozen=True)
class Corrected:
    """A recording after corrections, ready for localization.

    Attributes:
        recording: Averages and epochs with their baseline subtracted.
        stretches: Stretches of a raw recording that are not annotated as bad.
        offsets: Offsets to subtract from every part of a raw recording ``(C,)``, SI units.
        excluded: Indices of epochs that are annotated as bad.
        changes: Descriptions of automatic corrections.
        baseline: Description of the baseline; None for a raw recording.
        noise_warning: Warning about the noise covariance; None if it fits.

    """

    recording: "Recording"
    stretches: list[Stretch] = field(default_factory=list)
    offsets: dict[int, Array] = field(default_factory=dict)
    excluded: list[int] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    baseline: str | None = None
    noise_warning: str | None = None


def corrected(
    recording: "Recording",
    rows: list[int],
    sensors: SensorArray,
    power: Power,
    baseline: Baseline | None = None,
) -> Corrected:
    """Subtract baseline or offsets, apply annotations; the recording itself is not changed.

    By default the baseline is that of the file: subtracted before, or none. The exception is an
    average, or epochs, without a baseline in the file and with more than `OFFSET` times the power
    of the noise in the first samples. They have channel offsets, so the mean before time 0 is
    subtracted. For a raw recording, the mean of every part is subtracted above `OFFSET_RAW`.

    Args:
        recording: `mne.Evoked`, `mne.Epochs` or `mne.io.Raw`.
        rows: Rows of the channels for localization ``(C,)``.
        sensors: Sensors of these channels.
        power: Whitened power of data, see `Power`.
        baseline: Baseline to subtract, see `Baseline`.

    Raises:
        ValueError: A baseline outside the recording, or for a raw recording; only bad stretches;
            offsets of channels without time before 0.

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
                f"the file has no baseline, and its first samples have {times_noise:.0f} times "
                "the power of the noise, as offsets of channels do: the mean before 0 ms was "
                "subtracted (keep it with --baseline none)"
            )
    if baseline is None and recording.baseline is None and recording.times[0] >= 0:
        _check_offsets(recording, rows, sensors, _offset_power(recording, rows, power))
    recording, text = baselined(recording, baseline)
    excluded = bad_epochs(recording) if isinstance(recording, mne.BaseEpochs) else []
    if excluded:
        changes.append(f"epochs {excluded} are annotated BAD and excluded")
        if len(excluded) == len(recording):
            raise ValueError(
                f"recording: all {len(excluded)} epochs are annotated BAD, so there is nothing to "
                "localize. Correct the annotations."
            )
    return Corrected(recording, excluded=excluded, changes=changes, baseline=text)


def baselined(
    recording: "mne.Evoked | mne.BaseEpochs", baseline: Baseline | None
) -> tuple["mne.Evoked | mne.BaseEpochs", str]:
    """An average or epochs with the requested baseline, and its description.

    Raises:
        ValueError: A baseline outside the recording, or with less than two samples.

    """
    if baseline is None or baseline == "none":
        if recording.baseline is None:
            return recording, "no baseline subtracted"
        return recording, f"{_text(recording.baseline)}, subtracted before"
    first, last = recording.times[0], recording.times[-1]
    low = first if baseline[0] is None else baseline[0]
    high = last if baseline[1] is None else baseline[1]
    # Times of a saved recording are rounded differently from those in memory.
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


def baseline_data(recording: "mne.Evoked | mne.BaseEpochs", rows: list[int]) -> list[Array]:
    """Data ``(C, T)`` of the baseline without their mean, of an average or of some epochs.

    The baseline is that of the recording where it ends by 0, else the first third of the time
    before 0, in which a slow potential has hardly begun. Empty without such a time, or if it is too
    short.
    """
    times, own = recording.times, recording.baseline
    nearly = 1e-3 / recording.info["sfreq"]
    if own is not None and own[1] <= nearly:
        inside = (times >= own[0] - nearly) & (times <= own[1] + nearly)
    else:
        inside = times < times[0] * (1 - FIRST_SHARE)
    n_times = int(inside.sum())
    if n_times < max(FEWEST_BASELINE, SHORTEST_BASELINE * recording.info["sfreq"]):
        return []
    data = _first_epochs(recording, rows)[:, :, inside]
    if not np.isfinite(data).all():  # refused later
        return []
    return [one - one.mean(axis=1, keepdims=True) for one in data]


def _check_offsets(
    recording: "mne.Evoked | mne.BaseEpochs",
    rows: list[int],
    sensors: SensorArray,
    times_noise: float,
) -> None:
    """Refuse a recording with channel offsets and without time before 0 to estimate them."""
    if times_noise > OFFSET_ALL:
        data = np.hstack(list(_first_epochs(recording, rows)))
        check_data(data, sensors)  # perhaps another unit
        raise ValueError(
            f"recording: the mean over its time has {times_noise:.0f} times the power of the "
            "noise, as offsets of channels have, and there is no time before 0 to subtract. Give "
            "--baseline FROM TO, high-pass filter the recording before it is cut, or keep it as it "
            "is with --baseline none."
        )


def _offset_power(recording: "mne.Evoked | mne.BaseEpochs", rows: list[int], power: Power) -> float:
    """Whitened power of the mean of the first samples; for epochs, the median over some.

    The mean over all samples, if there is no time before 0.
    """
    before = int((recording.times < 0).sum())
    first = slice(0, max(FEWEST_FIRST, round(FIRST_SHARE * before)) if before else None)
    data = _first_epochs(recording, rows)
    if not (len(data) and np.isfinite(data).all()):  # refused later
        return 0.0
    return float(np.median(power(data[:, :, first].mean(axis=2).T)))


def _first_epochs(recording: "mne.Evoked | mne.BaseEpochs", rows: list[int]) -> Array:
    """An average, or the first epochs ``(N, C, T)``, V."""
    import mne

    if isinstance(recording, mne.BaseEpochs):
        first = recording[:N_FIRST_EPOCHS].get_data(copy=False, verbose="error")
        return np.asarray(first[:, rows])
    return np.asarray(recording.data[None, rows])


def _raw(
    raw: "mne.io.BaseRaw", rows: list[int], sensors: SensorArray, power: Power, least: float
) -> Corrected:
    """Stretches that are not bad, and offsets of parts above this whitened power."""
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
    offsets, largest = {}, np.zeros(len(rows))
    for part in dict.fromkeys(s.part for s in stretches):
        mean, constant = mean_of(raw, rows, parts[part])
        _check_constant(raw, rows, mean, constant)
        apart = sensors.reference(mean[:, None])
        offsets[part] = np.zeros_like(mean)
        if power(mean[:, None])[0] > least:
            offsets[part], largest = mean, np.maximum(largest, np.abs(apart[:, 0]))
    changes = [text] if (text := text_of(raw, stretches)) else []
    if short and len(parts) > 1:
        changes.append(
            f"{len(short)} part(s) between boundaries, shorter than {SHORTEST:g} s, excluded"
        )
    if largest.any():
        changes.insert(
            0,
            f"offsets of channels, their means over time, were subtracted (up to "
            f"{sensors.text_by_kind(largest, np.max)})",
        )
    return Corrected(raw, stretches, offsets, changes=changes)


def _check_constant(
    raw: "mne.io.BaseRaw", rows: list[int], mean: Array, constant: NDArray[np.bool_]
) -> None:
    """Refuse constant channels, before subtraction of the mean turns them into zeros."""
    names = [raw.ch_names[rows[i]] for i in np.flatnonzero(constant)]
    if len(names) > 1 or mean[constant].any():
        raise ValueError(
            f"recording: the channels {names} are constant, as if nothing were connected, and "
            "would be localized like any other. Mark them as bad (info['bads'])."
        )
