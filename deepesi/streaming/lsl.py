"""Lab Streaming Layer: EEG from one stream, time courses of parcels to another."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.atlas import Parcels
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
    """Take chunks from a stream, estimate and publish, for a given duration.

    After a stream stops, it is searched for repeatedly; estimation continues when it is back, after
    a gap. If samples arrive without estimates for some seconds, the reason is reported.

    Args:
        find: Opens the stream, as `open_source` with a short timeout.
        live: Live inverse that processes the chunks.
        outlet: Outlet from `open_outlet`.
        seconds: Duration, s.
        on_estimate: Called with the published time stamps and time courses.
        silence: Time without samples after which the stream counts as stopped, s.
        say: Called with lines to print.
        latency: Collects latencies of estimates; a new one by default.

    Raises:
        ValueError: The stream that is back is another one, as in `open_source`; or as in
            `LiveInverse.push`.

    """
    lsl, latency = library(), Latency() if latency is None else latency
    watch = Watch(live, say)
    source = at_rate(find(), live.sfreq)
    begin = received = time.monotonic()
    silent = False
    while time.monotonic() - begin < seconds:
        data, stamps, lost = pull(source)
        arrived, now = lsl.local_clock(), time.monotonic()
        watch.look(now)
        if len(stamps) == 0:
            if lost or now - received > silence:
                if not silent:
                    say(f"the stream has stopped; waiting ({live.counts})")
                silent, received = True, now
                with contextlib.suppress(FileNotFoundError):
                    source = at_rate(find(), live.sfreq)
            time.sleep(0.001)
            continue
        if silent:
            say("the stream is back")
        received, silent = now, False
        chunk = source.factors[:, None] * np.asarray(data, dtype=np.float64).T[source.rows]
        stamps = np.asarray(stamps, dtype=np.float64)
        times, time_courses = live.push(chunk, stamps, np.full(len(stamps), arrived))
        if len(times):
            publish(outlet, times, time_courses)
            latency.add(lsl.local_clock(), live.arrived, times)
            on_estimate(times, time_courses)
    return latency


def pull(source: Source) -> tuple[Any, Array, bool]:
    """Received samples ``(n, C)``, their time stamps, and whether the connection is lost."""
    try:
        return *source.inlet.pull_chunk(timeout=0.0), False
    except RuntimeError:  # error of MNE-LSL for a lost stream
        return np.zeros((0, 0)), np.zeros(0), True


def at_rate(source: Source, sfreq: float) -> Source:
    """The source, after a check of its sampling rate.

    Raises:
        ValueError: The rate differs.

    """
    if source.sfreq != sfreq:
        raise ValueError(
            f"the stream is back with {source.sfreq:g} Hz and had {sfreq:g} Hz. Start again, for "
            "filter and windows are those of a rate."
        )
    return source


def publish(outlet: Any, times: Array, time_courses: Array) -> None:
    """Publish parcels ``(R, n)`` with their time stamps."""
    values = np.ascontiguousarray(time_courses.T, dtype=np.float32)
    if len(times) == 1:
        outlet.push_sample(values[0], float(times[0]))
    else:
        outlet.push_chunk(values, times)
