"""Lab Streaming Layer: EEG from a stream of the network, regions into another."""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.channel_names import check_electrodes, match_channels
from deepesi.physics.optional import require
from deepesi.physics.units import UNITS, volts_per
from deepesi.streaming.atlas import Regions
from deepesi.streaming.live import LiveInverse
from deepesi.streaming.watch import Latency, Watch

Array = NDArray[np.float64]

#: What liblsl is told unless the user's own configuration (``LSLAPICFG``) says otherwise: streams
#: of this machine only.
LOCAL = """[lab]
KnownPeers = {127.0.0.1}
[multicast]
ResolveScope = machine
ListenAddress = 127.0.0.1
"""


def library() -> ModuleType:
    """``mne_lsl.lsl``, its discovery kept on the machine.

    Raises:
        ModuleNotFoundError: It is not installed.

    """
    if "LSLAPICFG" not in os.environ:
        file = Path(tempfile.mkdtemp(prefix="deepesi-lsl-")) / "lsl_api.cfg"
        file.write_text(LOCAL)
        os.environ["LSLAPICFG"] = str(file)  # liblsl reads it when it is loaded
    return require("mne_lsl.lsl", "stream", "read and write LSL streams")


class Source(NamedTuple):
    """A stream of EEG that fits a prepared inverse.

    Attributes:
        inlet: Opened ``mne_lsl.lsl.StreamInlet``.
        rows: Its channels in the order of the inverse.
        factors: That bring them to volts ``(C,)``.
        sfreq: Hz.
        ignored: Channels it has beside them.

    """

    inlet: Any
    rows: list[int]
    factors: Array
    sfreq: float
    ignored: list[str]


def choose(name: str, stype: str | None, source_id: str | None, timeout: float) -> Any:
    """The one stream of a name, and of a type and a source id where they are given.

    Raises:
        FileNotFoundError: There is none.
        ValueError: There are several.

    """
    lsl = library()
    found = lsl.resolve_streams(timeout, name, stype, source_id)
    if not found:
        asked = [f"type {stype!r}"] * (stype is not None)
        asked += [f"source id {source_id!r}"] * (source_id is not None)
        others = lsl.resolve_streams(timeout=1.0)
        namesakes = [described(info) for info in others if info.name == name]
        there = namesakes or sorted({info.name for info in others})
        raise FileNotFoundError(
            f"there is no stream {' of '.join([repr(name), *asked])} (looked for {timeout:g} s); "
            f"there {'is' if len(there) == 1 else 'are'} {there}. Start it, or let liblsl look "
            "beyond this machine (its configuration, LSLAPICFG)."
        )
    found = lsl.resolve_streams(1.5, name, stype, source_id, minimum=2)
    if len(found) > 1:
        raise ValueError(
            f"there are several streams {name!r}: {'; '.join(sorted(map(described, found)))}. "
            "Choose by --type or --source-id, or stop all but one."
        )
    return found[0]


def described(info: Any) -> str:
    """What tells a stream from others of its name."""
    return (
        f"type {info.stype!r}, source id {info.source_id!r}, on {info.hostname}, "
        f"{info.n_channels} channels at {info.sfreq:g} Hz"
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
    """Find a stream and hold it against what an inverse was prepared for.

    Args:
        name: Of the stream.
        ch_names: Channels the inverse was prepared for.
        rename: From names of the stream to those.
        unit: Of all channels, where the stream does not name it.
        timeout: How long to look for it, s.
        stype: Its type (``EEG``, say), where there are several of its name.
        source_id: Its source id, likewise.

    Raises:
        FileNotFoundError: There is no such stream, or it does not answer.
        ValueError: Two of them; channels missing, named twice or without a known unit; an
            irregular rate.

    """
    found = choose(name, stype, source_id, timeout)
    # Not recovered silently: what comes back may have other channels or another rate.
    inlet = library().StreamInlet(found, recover=False, processing_flags=["clocksync"])
    try:
        inlet.open_stream(timeout=timeout)
        info = inlet.get_sinfo(timeout=timeout)
    except TimeoutError as error:
        raise FileNotFoundError(
            f"the stream {name!r} was there and does not answer (waited {timeout:g} s). Start it "
            "again."
        ) from error
    names = [rename.get(c, c) for c in info.get_channel_names() or []]
    unknown = sorted(set(rename) - set(info.get_channel_names() or []))
    twice = sorted({c for c in names if names.count(c) > 1 and c in ch_names})
    found_rows = match_channels(ch_names, list(dict.fromkeys(names)) if twice else names)
    missing = [c for c, row in zip(ch_names, found_rows, strict=True) if row is None]
    if unknown or missing or twice:
        raise ValueError(
            f"the stream {name!r} has the channels {names}: {missing} are missing, {twice} there "
            f"twice, and {unknown} to rename are not there. Rename its channels (--rename "
            "OLD=NEW), or prepare for the channels it has."
        )
    if not info.sfreq > 0:
        raise ValueError(f"the stream {name!r} has no regular rate. EEG has one.")
    rows = [row for row in found_rows if row is not None]
    check_electrodes([names[row] for row in rows])
    units = info.get_channel_units() or [None] * len(names)
    factors = []
    for row in rows:
        own = volts_per(units[row])
        if unit is not None and own not in (None, 1.0, volts_per(unit)):
            raise ValueError(
                f"the stream {name!r} says of {names[row]} that its unit is {units[row]!r}, --unit "
                f"{unit} says another. Leave --unit out."
            )
        said = unit if unit is not None else units[row]
        factor = volts_per(said)
        if factor is None:
            raise ValueError(
                f"the stream {name!r} says of {names[row]} that its unit is {said!r}; known are "
                f"{sorted(UNITS)}. Say it with --unit."
            )
        factors.append(factor)
    ignored = [c for row, c in enumerate(names) if row not in rows]
    return Source(inlet, rows, np.array(factors), float(info.sfreq), ignored)


def open_outlet(regions: Regions, sfreq: float, name: str = "deepesi") -> Any:
    """A stream of the RMS moments of the regions (A m), with their names and MNI centres (mm)."""
    lsl = library()
    info = lsl.StreamInfo(name, "regions", len(regions.names), sfreq, "float32", f"{name}-regions")
    info.set_channel_names(list(regions.names))
    info.set_channel_types("misc")
    info.set_channel_units("A m")
    centres = info.desc.append_child("mni_centres_mm")
    for region, centre in zip(regions.names, regions.centres, strict=True):
        child = centres.append_child("region")
        child.append_child_value("name", region)
        child.append_child_value("xyz", " ".join(f"{x:.2f}" for x in centre))
    return lsl.StreamOutlet(info)


def relay(
    find: Callable[[], Source],
    live: LiveInverse,
    outlet: Any,
    seconds: float,
    on_estimate: Callable[[Array, Array], None] = lambda times, courses: None,
    silence: float = 2.0,
    say: Callable[[str], None] = lambda line: None,
    latency: Latency | None = None,
) -> Latency:
    """Take chunks from a stream, estimate, publish; until the time is over.

    A stream that stops is looked for again and again; when it is back, it goes on behind a gap.
    Where samples come and nothing is estimated for some seconds, it is said why.

    Args:
        find: Opens the stream, see `open_source`; with a short time to look for it.
        live: Takes its chunks.
        outlet: Of `open_outlet`.
        seconds: How long.
        on_estimate: Called with the time stamps and courses that were published.
        silence: After how long without a sample the stream counts as stopped, s.
        say: Called with lines.
        latency: Where to keep how long estimates took; a new one by default.

    Raises:
        ValueError: The stream that is back is another one, see `open_source`; or see
            `LiveInverse.push`.

    """
    lsl, latency = library(), Latency() if latency is None else latency
    watch = Watch(live, say)
    source = at_rate(find(), live.sfreq)
    begin = heard = time.monotonic()
    silent = False
    while time.monotonic() - begin < seconds:
        data, stamps, lost = pull(source)
        arrived, now = lsl.local_clock(), time.monotonic()
        watch.look(now)
        if len(stamps) == 0:
            if lost or now - heard > silence:
                if not silent:
                    say(f"the stream has stopped; waiting ({live.counts})")
                silent, heard = True, now
                with contextlib.suppress(FileNotFoundError):
                    source = at_rate(find(), live.sfreq)
            time.sleep(0.001)
            continue
        if silent:
            say("the stream is back")
        heard, silent = now, False
        chunk = source.factors[:, None] * np.asarray(data, dtype=np.float64).T[source.rows]
        stamps = np.asarray(stamps, dtype=np.float64)
        times, courses = live.push(chunk, stamps, np.full(len(stamps), arrived))
        if len(times):
            publish(outlet, times, courses)
            latency.add(lsl.local_clock(), live.arrived, times)
            on_estimate(times, courses)
    return latency


def pull(source: Source) -> tuple[Any, Array, bool]:
    """What came: samples ``(n, C)``, their stamps, and whether the connection is lost."""
    try:
        return *source.inlet.pull_chunk(timeout=0.0), False
    except RuntimeError:  # MNE-LSL's for a stream that is gone for good
        return np.zeros((0, 0)), np.zeros(0), True


def at_rate(source: Source, sfreq: float) -> Source:
    """The source, held against the rate that is estimated at.

    Raises:
        ValueError: Another rate.

    """
    if source.sfreq != sfreq:
        raise ValueError(
            f"the stream is back with {source.sfreq:g} Hz and had {sfreq:g} Hz. Start again, for "
            "filter and windows are those of a rate."
        )
    return source


def publish(outlet: Any, times: Array, courses: Array) -> None:
    """Push regions ``(R, n)`` at their times."""
    values = np.ascontiguousarray(courses.T, dtype=np.float32)
    if len(times) == 1:
        outlet.push_sample(values[0], float(times[0]))
    else:
        outlet.push_chunk(values, times)
