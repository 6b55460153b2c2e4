"""Checks a recording against ``eeg.json`` of BIDS.

``SamplingFrequency``, ``EEGChannelCount``, ``EEGReference`` and ``RecordingDuration`` are checked.
Filters, power line frequency, ground, cap, amplifier and task have no effect on estimates.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepesi.runtime.reading.bids_files import UNKNOWN, Description

if TYPE_CHECKING:
    import mne

#: Relative difference of sampling rates that rounding in a header explains.
RATE_TOLERANCE = 0.005
#: References of data without a topography of potentials.
DERIVED = re.compile(
    r"\b(bipolar|laplacian|csd|current source density|derivations?|double banana)\b", re.I
)
OTHER_CHANNELS = re.compile(r"\b(v?h?eog|ecg|ekg|emg|unipolar|monopolar|not?|non)\b", re.I)


def check_facts(
    recording: "Any",
    info: "mne.Info",
    facts: Description,
    has_channels: bool,
    exclude: Collection[str] = (),
) -> list[str]:
    """Compare ``eeg.json`` with a recording, and report harmless differences.

    Args:
        recording: The recording, or its measurement info.
        info: Measurement info, with the types of ``channels.tsv``.
        facts: Entries of the ``.json`` files that apply.
        has_channels: Whether ``channels.tsv`` gives the types of channels; then a wrong number of
            channels is only reported.
        exclude: Channels that the user excludes.

    Raises:
        ValueError: Another sampling rate or number of channels, or a reference without a
            topography.

    """
    entries, name = facts.entries, facts.path
    _check_reference(str(entries.get("EEGReference", "")), name)
    _check_rate(_number(entries, "SamplingFrequency", name), info["sfreq"], name)
    eeg = [c for c, t in zip(info.ch_names, info.get_channel_types(), strict=True) if t == "eeg"]
    counts = {len(eeg), len(set(eeg) - set(exclude))}
    notes = _count(_number(entries, "EEGChannelCount", name), counts, name, has_channels)
    return notes + _duration(_number(entries, "RecordingDuration", name), recording, name)


def _number(entries: dict[str, Any], key: str, path: Path) -> float | None:
    value = entries.get(key)
    if value in UNKNOWN:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{path}: not a readable description of a recording in BIDS ({error!r:.300}). {key} "
            "should be a number."
        ) from error


def _check_reference(reference: str, path: Path) -> None:
    if DERIVED.search(reference) and not OTHER_CHANNELS.search(reference):
        raise ValueError(
            f"{path}: EEGReference is {reference!r}. Derivations and Laplacians have no map of "
            "potentials that could be localized; give the recording before, against one "
            "reference, or correct the file."
        )


def _check_rate(rate: float | None, sfreq: float, path: Path) -> None:
    if rate is not None and not abs(rate - sfreq) <= RATE_TOLERANCE * sfreq:
        raise ValueError(
            f"{path}: SamplingFrequency is {rate:g} Hz, that of the recording {sfreq:g} Hz. "
            "Correct the one that is wrong: times of events and of the map depend on it."
        )


def _count(count: float | None, found: set[int], path: Path, has_channels: bool) -> list[str]:
    if count is None or count in found:
        return []
    text = f"EEGChannelCount is {count:g}, the recording has {max(found)} EEG channels"
    if has_channels:
        return [f"{path.name}: {text}, by channels.tsv"]
    raise ValueError(
        f"{path}: {text}. Name the EEG channels in a channels.tsv, give --exclude, or correct the "
        "number. An eye channel that is used as EEG makes the estimate wrong."
    )


def _duration(duration: float | None, recording: "Any", path: Path) -> list[str]:
    import mne

    if duration is None or not isinstance(recording, mne.io.BaseRaw):
        return []
    length = recording.n_times / recording.info["sfreq"]
    if abs(duration - length) <= max(1.0, 0.01 * duration):
        return []
    return [f"{path.name}: RecordingDuration is {duration:g} s, the recording has {length:.1f} s"]
