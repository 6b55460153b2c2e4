"""Channels of EDF, BDF and GDF with different sampling rates.

MNE-Python resamples slower channels to the rate of the fastest, piece by piece as they are read,
which leaves artifacts at the edges of every piece.
"""

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from deepesi.runtime.reading.file_units import HEADERS

if TYPE_CHECKING:
    import mne


def channel_rates(raw: "mne.io.BaseRaw", path: Path) -> dict[str, float]:
    """Sampling rate of every channel in the file, Hz; empty for formats with one rate."""
    if path.suffix.lower() not in HEADERS:
        return {}
    extras = raw._raw_extras[0]
    sfreq, samples = raw.info["sfreq"], extras["n_samps"][extras["sel"]]
    rates = (sfreq * samples / extras["max_samp"]).tolist()
    return dict(zip(raw.ch_names, rates, strict=True))


def at_own_rate(raw: "mne.io.BaseRaw", path: Path, exclude: Collection[str]) -> "mne.io.BaseRaw":
    """The recording without excluded channels that are faster than all others.

    It is read again where there are some: with them, MNE-Python would resample the others.
    """
    import mne

    rates = channel_rates(raw, path)
    kept = [rate for name, rate in rates.items() if name not in exclude]
    faster = [name for name, rate in rates.items() if kept and rate > max(kept)]
    if not faster:
        return raw
    return mne.io.read_raw(path, exclude=faster, preload=False, verbose="error")


def check_rates(recording: "mne.io.BaseRaw", path: Path, rates: dict[str, float]) -> None:
    """Refuse EEG channels that MNE-Python would resample to the rate of a faster channel.

    Args:
        recording: The recording, without excluded channels.
        path: Its file.
        rates: Rates from `channel_rates`.

    Raises:
        ValueError: There are some.

    """
    sfreq, kinds = recording.info["sfreq"], recording.get_channel_types()
    eeg = [n for n, kind in zip(recording.ch_names, kinds, strict=True) if kind == "eeg"]
    if all(rates.get(name, sfreq) == sfreq for name in eeg):
        return
    usual = sorted(rates[name] for name in eeg)[len(eeg) // 2]
    other = [n for n in recording.ch_names if rates[n] > usual or (n in eeg and rates[n] < usual)]
    stated = ", ".join(f"{name} at {rates[name]:g} Hz" for name in other[:10])
    raise ValueError(
        f"{path}: its EEG is sampled at {usual:g} Hz, and {stated}. MNE-Python would resample "
        f"all to {sfreq:g} Hz in pieces, with artifacts at their edges. Exclude the channels of "
        f"another rate (--exclude {shlex.join(other)})."
    )
