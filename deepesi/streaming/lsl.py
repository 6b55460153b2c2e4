"""Lab Streaming Layer: EEG from a stream of the network, parcels into another."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepesi.streaming.atlas import Parcels
from deepesi.streaming.live import LiveInverse
from deepesi.streaming.source import Source, library
from deepesi.streaming.watch import Latency, Watch

Array = NDArray[np.float64]


def open_outlet(parcels: Parcels, sfreq: float, name: str = "deepesi") -> Any:
    """A stream of the RMS moments of the parcels (A m), with their names and MNI centres (mm)."""
    lsl = library()
    info = lsl.StreamInfo(name, "parcels", len(parcels.names), sfreq, "float32", f"{name}-parcels")
    info.set_channel_names(list(parcels.names))
    info.set_channel_types("misc")
    info.set_channel_units("A m")
    centres = info.desc.append_child("mni_centres_mm")
    for parcel, centre in zip(parcels.names, parcels.centres, strict=True):
        child = centres.append_child("parcel")
        child.append_child_value("name", parcel)
        child.append_child_value("xyz", " ".join(f"{x:.2f}" for x in centre))
    return lsl.StreamOutlet(info)


def relay(
    find: Callable[[], Source],
    live: LiveInverse,
    outlet: Any,
    seconds: float,
    on_estimate: Callable[[Array, Array], None] = lambda times, time_courses: None,
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
        times, time_courses = live.push(chunk, stamps, np.full(len(stamps), arrived))
        if len(times):
            publish(outlet, times, time_courses)
            latency.add(lsl.local_clock(), live.arrived, times)
            on_estimate(times, time_courses)
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


def publish(outlet: Any, times: Array, time_courses: Array) -> None:
    """Push parcels ``(R, n)`` at their times."""
    values = np.ascontiguousarray(time_courses.T, dtype=np.float32)
    if len(times) == 1:
        outlet.push_sample(values[0], float(times[0]))
    else:
        outlet.push_chunk(values, times)
