"""``deepesi stream``: live time courses of parcels from EEG of the Lab Streaming Layer."""

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.atlas import seitzman_parcels
from deepesi.physics.channel_names import parse_renaming
from deepesi.physics.units import parse_unit
from deepesi.runtime.inverse import Inverse
from deepesi.streaming.counts import Counts
from deepesi.streaming.live import LiveInverse, check_live
from deepesi.streaming.lsl import open_outlet, relay
from deepesi.streaming.page import LivePage
from deepesi.streaming.power import LivePower
from deepesi.streaming.source import open_source
from deepesi.streaming.watch import Latency
from deepesi.utils.files import check_file_out

Array = NDArray[np.float64]


def stream(
    model: Path,
    prepared: Path,
    name: str,
    rename: Sequence[str],
    unit: str | None,
    band: tuple[float, float],
    window: int,
    outlet: str,
    port: int | None,
    seconds: float | None,
    stype: str | None,
    source_id: str | None,
    power: Path | None,
    say: Callable[[str], None],
) -> None:
    """Localize a stream until the end of the duration or an interrupt.

    At the end, the power in the band of the strongest parcel is reported, and with `power` that of
    all is written.

    Raises:
        FileNotFoundError: No such file or stream.
        ValueError: The stream does not fit, as in `open_source` and `LiveInverse`; or there was no
            estimate.

    """
    if power is not None:
        check_file_out(power, ".csv", "--power")
    if unit is not None:
        parse_unit(unit)
    if seconds is not None and not seconds > 0:
        raise ValueError(f"--seconds {seconds:g}: expected a duration above 0 s.")
    if port is not None and not 0 <= port < 2**16:
        raise ValueError(f"--page {port}: expected a port below {2**16}; 0 takes any.")
    inverse = Inverse.load(model, n_threads=1).for_prepared(prepared)
    check_live(inverse, band, window)
    parcels = seitzman_parcels(inverse.space, inverse.template)
    find = functools.partial(
        open_source,
        name,
        inverse.ch_names,
        parse_renaming(rename),
        unit,
        stype=stype,
        source_id=source_id,
    )
    source = find()
    live = LiveInverse(inverse, parcels, source.sfreq, band, window, say)
    in_band = LivePower(parcels, band, source.sfreq)
    say(f"{prepared}: {inverse.origin}")
    say(
        f"{name}: {len(inverse.ch_names)} channels at {source.sfreq:g} Hz, beside them "
        f"{source.ignored or 'none'}; band {band[0]:g} to {band[1]:g} Hz; {len(parcels.names)} "
        f"parcels to the stream {outlet!r}"
    )
    with ExitStack() as stack:
        page = None
        if port is not None:
            page = stack.enter_context(LivePage(parcels, port))
            say(f"page at {page.address}")

        def show(times: Array, time_courses: Array) -> None:
            in_band.push(times, time_courses)
            if page is not None:
                page.show(times, time_courses, str(live.counts))

        latency = Latency()
        try:
            relay(
                functools.partial(find, timeout=3.0),
                live,
                open_outlet(parcels, source.sfreq, outlet),
                math.inf if seconds is None else seconds,
                show,
                say=say,
                latency=latency,
            )
        finally:  # also stopped
            say(f"{live.counts}; {latency}")
            say(str(in_band))
            if power is not None:
                in_band.write(power)
                say(f"wrote {power}")
    if not live.counts.estimated:
        raise ValueError(f"nothing was estimated of {name!r}. {live.why_nothing(Counts())}")
