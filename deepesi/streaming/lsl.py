"""Lab Streaming Layer: EEG from a stream of the network, regions into another."""

import contextlib
import os
import tempfile
import time
from collections import deque
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


def open_source(
    name: str,
    ch_names: tuple[str, ...],
    rename: Mapping[str, str],
    unit: str | None = None,
    timeout: float = 10.0,
) -> Source:
    """Find a stream and hold it against what an inverse was prepared for.

    Args:
        name: Of the stream.
        ch_names: Channels the inverse was prepared for.
        rename: From names of the stream to those.
        unit: Of all channels, where the stream does not name it.
        timeout: How long to look for it, s.

    Raises:
        FileNotFoundError: There is no such stream, or it does not answer.
        ValueError: Two of them; channels missing, named twice or without a known unit; an
            irregular rate.

    """
    lsl = library()
    found = lsl.resolve_streams(timeout=timeout, name=name)
    if not found:
        others = sorted({info.name for info in lsl.resolve_streams(timeout=1.0)})
        raise FileNotFoundError(
            f"there is no stream {name!r} (looked for {timeout:g} s); there are {others}. Start "
            "it, or let liblsl look beyond this machine (its configuration, LSLAPICFG)."
        )
    if len(lsl.resolve_streams(timeout=1.5, name=name, minimum=2)) > 1:
        raise ValueError(f"there are several streams {name!r}. Stop all but one.")
    inlet = lsl.StreamInlet(found[0], processing_flags=["clocksync"])
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


class Latency:
    """Times from a sample's time stamp to its estimate, of the last samples."""

    def __init__(self, n_kept: int = 200_000) -> None:
        self.seconds: deque[float] = deque(maxlen=n_kept)

    def __str__(self) -> str:
        if not self.seconds:
            return "no estimate yet"
        values = 1e3 * np.array(self.seconds)
        median, p99 = np.percentile(values, [50, 99])
        return (
            f"latency {median:.1f} ms (median), {p99:.1f} ms (99 %), {values.max():.1f} ms "
            f"(largest), jitter {values.std():.1f} ms"
        )


def relay(
    find: Callable[[], Source],
    live: LiveInverse,
    outlet: Any,
    seconds: float,
    on_estimate: Callable[[Array, Array], None] = lambda times, courses: None,
    silence: float = 2.0,
    say: Callable[[str], None] = lambda line: None,
) -> Latency:
    """Take chunks from a stream, estimate, publish; until the time is over.

    A stream that stops is looked for again and again; when it is back, it goes on behind a gap.

    Args:
        find: Opens the stream, see `open_source`; with a short time to look for it.
        live: Takes its chunks.
        outlet: Of `open_outlet`.
        seconds: How long.
        on_estimate: Called with the time stamps and courses that were published.
        silence: After how long without a sample the stream counts as stopped, s.
        say: Called with lines.

    Raises:
        ValueError: The stream that is back is another one, see `open_source`.

    """
    lsl, latency = library(), Latency()
    source = find()
    begin = heard = time.monotonic()
    silent = False
    while time.monotonic() - begin < seconds:
        data, stamps = source.inlet.pull_chunk(timeout=0.0)
        now = time.monotonic()
        if len(stamps) == 0:
            if now - heard > silence:
                if not silent:
                    say(f"the stream has stopped; waiting ({live.counts})")
                silent, heard = True, now
                with contextlib.suppress(FileNotFoundError):
                    source = find()
            time.sleep(0.001)
            continue
        if silent:
            say("the stream is back")
        heard, silent = now, False
        chunk = source.factors[:, None] * np.asarray(data, dtype=np.float64).T[source.rows]
        times, courses = live.push(chunk, np.asarray(stamps, dtype=np.float64))
        if len(times):
            published = np.ascontiguousarray(courses.T, dtype=np.float32)
            if len(times) == 1:
                outlet.push_sample(published[0], float(times[0]))
            else:
                outlet.push_chunk(published, times)
            done = lsl.local_clock()
            latency.seconds.extend(done - times)
            on_estimate(times, courses)
    return latency
