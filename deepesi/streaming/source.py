"""Selects a stream of the Lab Streaming Layer and checks whether it fits an inverse."""

import ctypes
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.channel_names import check_channel_names, match_channels
from deepesi.physics.units import volts_per
from deepesi.utils.optional import require

Array = NDArray[np.float64]

#: Time to wait for all streams of a name, s, and their largest number.
LISTING, MOST = 1.5, 1000
#: Configuration of liblsl, unless the user has one (``LSLAPICFG``): only streams of this machine.
LOCAL = """[lab]
KnownPeers = {127.0.0.1}
[multicast]
ResolveScope = machine
ListenAddress = 127.0.0.1
"""


def library() -> ModuleType:
    """``mne_lsl.lsl``, with discovery on this machine only.

    Raises:
        ModuleNotFoundError: It is not installed.

    """
    if "LSLAPICFG" not in os.environ:
        file = Path(tempfile.mkdtemp(prefix="deepesi-lsl-")) / "lsl_api.cfg"
        file.write_text(LOCAL)
        os.environ["LSLAPICFG"] = str(file)  # read when liblsl is loaded
    return require("mne_lsl.lsl", "stream", "read and write LSL streams")


class Source(NamedTuple):
    """An EEG stream that fits a prepared inverse.

    Attributes:
        inlet: Opened ``mne_lsl.lsl.StreamInlet``.
        rows: Indices of its channels in the order of the inverse.
        factors: Factors to volts ``(C,)``.
        sfreq: Sampling rate, Hz.
        ignored: Channels that are not used.

    """

    inlet: Any
    rows: list[int]
    factors: Array
    sfreq: float
    ignored: list[str]


def choose(name: str, stype: str | None, source_id: str | None, timeout: float) -> Any:
    """The only stream with a name and, if given, a type and a source id.

    All streams of the name are listed first. With name and type, MNE-LSL takes the first stream
    that matches either, and returns none if it does not match both.

    Raises:
        FileNotFoundError: There is none.
        ValueError: There are several.

    """
    lsl, end = library(), time.monotonic() + timeout
    fitting: list[Any] = []
    while not fitting and (remaining := end - time.monotonic()) > 0:
        fitting = [
            info
            for info in outlets(name, min(remaining, LISTING))
            if stype in (None, info.stype) and source_id in (None, info.source_id)
        ]
    if not fitting:
        asked = [f"type {stype!r}"] * (stype is not None)
        asked += [f"source id {source_id!r}"] * (source_id is not None)
        others = lsl.resolve_streams(timeout=LISTING)
        namesakes = [described(info) for info in others if info.name == name]
        there = sorted(namesakes or {info.name for info in others})
        raise FileNotFoundError(
            f"there is no stream {' of '.join([repr(name), *asked])} (looked for {timeout:g} s); "
            f"there {'is' if len(there) == 1 else 'are'} {there or 'none'}. Start it, or let "
            "liblsl look beyond this machine (its configuration, LSLAPICFG)."
        )
    if len(fitting) > 1:
        raise ValueError(
            f"there are several streams {name!r}: {'; '.join(sorted(map(described, fitting)))}. "
            "Choose by --type or --source-id, or stop all but one; those that are alike in both "
            "need other source ids."
        )
    return fitting[0]


def outlets(name: str, timeout: float) -> list[Any]:
    """All streams of a name, including those that differ only by their outlet.

    ``resolve_streams`` of MNE-LSL merges streams with equal name, type, source id, rate and
    channels, whatever their ``uid``; so liblsl is called directly.
    """
    lsl = library()
    found = (ctypes.c_void_p * MOST)()
    n = lsl.functions.lib.lsl_resolve_byprop(
        ctypes.byref(found), MOST, b"name", name.encode(), MOST, ctypes.c_double(timeout)
    )
    listed = [lsl.functions._BaseStreamInfo(found[k]) for k in range(n)]
    return list({info.uid: info for info in listed}.values())


def described(info: Any) -> str:
    """Description of a stream that distinguishes it from others of its name."""
    return (
        f"type {info.stype!r}, source id {info.source_id!r}, on {info.hostname}, "
        f"{info.n_channels} channels at {info.sfreq:g} Hz (uid {info.uid[:8]})"
    )


def open_source(
    name: str,
    ch_names: tuple[str, ...],
    rename: Mapping[str, str],
    unit: str | None = None,
    timeout: float = 10.0,
    stype: str | None = None,
    source_id: str | None = None,
) -> Source:
    """Open a stream and check it against a prepared inverse.

    Args:
        name: Name of the stream.
        ch_names: Channels of the prepared inverse.
        rename: From channel names of the stream to these names.
        unit: Unit of all channels, if the stream has none.
        timeout: Longest time to search for the stream, s.
        stype: Type of the stream (such as ``EEG``), if several have its name.
        source_id: Source id of the stream, if several have its name and type.

    Raises:
        FileNotFoundError: There is no such stream, or it does not answer.
        ValueError: Two of them; text instead of numbers, an irregular rate; channels missing,
            without a name, named twice or without a known unit.

    """
    stream = choose(name, stype, source_id, timeout)
    if stream.dtype == "string" or not stream.sfreq > 0:
        what = "sends text" if stream.dtype == "string" else "has no regular rate"
        raise ValueError(
            f"the stream {name!r} ({described(stream)}) {what}, as markers have it. EEG is numbers "
            "at a regular rate: choose its stream."
        )
    # No silent recovery: the recovered stream may have other channels or another rate.
    inlet = library().StreamInlet(stream, recover=False, processing_flags=["clocksync"])
    try:
        inlet.open_stream(timeout=timeout)
        info = inlet.get_sinfo(timeout=timeout)
    except TimeoutError as error:
        raise FileNotFoundError(
            f"the stream {name!r} was there and does not answer (waited {timeout:g} s). Start it "
            "again."
        ) from error
    own_names = _names(info)
    rows = _rows(name, own_names, ch_names, rename)
    units = info.get_channel_units() or [None] * len(own_names)
    factors = [_factor(name, own_names[row], units[row], unit) for row in rows]
    ignored = [c for row, c in enumerate(own_names) if row not in rows]
    return Source(inlet, rows, np.array(factors), float(info.sfreq), ignored)


def _names(info: Any) -> list[str]:
    """Names of all channels of a stream."""
    names = info.get_channel_names()
    if names is None or len(names) != info.n_channels:
        stated = "names none of them" if names is None else f"describes {len(names)}"
        raise ValueError(
            f"the stream {info.name!r} sends {info.n_channels} channels and {stated}, so their "
            "order is unknown. Set the names of all channels in the device or its bridge."
        )
    return [c or f"channel {number} (no name)" for number, c in enumerate(names)]


def _rows(
    name: str, own_names: Sequence[str], ch_names: Sequence[str], rename: Mapping[str, str]
) -> list[int]:
    """Indices of the channels of an inverse in a stream."""
    names = [rename.get(c, c) for c in own_names]
    unknown = sorted(set(rename) - set(own_names))
    twice = sorted({c for c in names if names.count(c) > 1 and c in ch_names})
    matched = match_channels(ch_names, list(dict.fromkeys(names)) if twice else names)
    missing = [c for c, row in zip(ch_names, matched, strict=True) if row is None]
    if unknown or missing or twice:
        raise ValueError(
            f"the stream {name!r} has the channels {names}: {missing} are missing, {twice} there "
            f"twice, and {unknown} to rename are not there. Rename its channels (--rename "
            "OLD=NEW), or prepare for the channels it has."
        )
    rows = [row for row in matched if row is not None]
    check_channel_names([names[row] for row in rows])
    return rows


def _factor(name: str, channel: str, own: str | None, unit: str | None) -> float:
    """Factor from the unit of a channel, its own or that of ``--unit``, to volts."""
    if unit is not None and volts_per(own) not in (None, 1.0, volts_per(unit)):
        raise ValueError(
            f"the stream {name!r} gives {channel} the unit {own!r}, but --unit is {unit}. "
            "Leave --unit out."
        )
    factor = volts_per(own if unit is None else unit)
    if factor is None:
        stated = f"that its unit is {own!r}" if own else "no unit"
        raise ValueError(
            f"the stream {name!r} says of {channel} {stated}; known are V, mV, uV and nV. Say it "
            "with --unit."
        )
    return factor
