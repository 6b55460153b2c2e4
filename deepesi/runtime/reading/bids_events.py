"""Events of BIDS: ``events.tsv`` as annotations of a raw recording."""

from typing import TYPE_CHECKING

import numpy as np

from deepesi.runtime.reading.bids_files import UNKNOWN, Table
from deepesi.runtime.stretches import is_bad, is_boundary

if TYPE_CHECKING:
    import mne

#: Columns with names of events, in order of priority: standard, older data sets, numbers.
NAMES = ("trial_type", "stim_type", "value")


def set_events(raw: "mne.io.BaseRaw", events: Table) -> list[str]:
    """Annotate a recording with its events, in place; its own ``BAD...`` and boundaries stay.

    Names are those of ``trial_type``, or of ``value`` where ``trial_type`` has none.

    Raises:
        ValueError: An onset or duration is no number, or all events lie outside the recording.

    """
    import mne

    path = events.path
    onset, duration, names = _events(events)
    outside = (onset < 0) | (onset > raw.times[-1])
    if len(onset) and outside.all():
        raise ValueError(
            f"{path}: all its {len(onset)} events lie outside the recording of "
            f"{raw.times[-1]:.1f} s; the first is at {onset[0]:g} s. Onsets are in seconds from "
            "the first sample."
        )
    named = np.array([name not in UNKNOWN for name in names], dtype=bool)
    kept = ~outside & named
    marks = mne.Annotations(onset[kept], duration[kept], np.array(names)[kept])
    _keep_own(marks, raw)
    raw.set_annotations(marks, verbose="error")
    line = f"{path.name} read; {kept.sum()} events"
    if outside.any():
        line += f", {outside.sum()} more lie outside the recording and are excluded"
    unnamed = np.count_nonzero(~outside & ~named)
    return [line + (f", {unnamed} more have no name and are excluded" if unnamed else "")]


def _events(table: Table) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Onsets and durations, s, and names; rows without onset are dropped."""
    rows = [row for row in table.rows if row["onset"] not in UNKNOWN]
    try:
        onset = np.array([float(row["onset"]) for row in rows])
        lasts = [0.0 if row["duration"] in UNKNOWN else float(row["duration"]) for row in rows]
    except ValueError as error:
        raise ValueError(
            f"{table.path}: not a readable table of events ({error!r:.300}). Onsets and durations "
            "should be numbers, in seconds."
        ) from error
    if not np.isfinite([*onset, *lasts]).all() or any(last < 0 for last in lasts):
        raise ValueError(
            f"{table.path}: an onset or a duration is not finite, or a duration is negative. Write "
            "n/a for what is unknown."
        )
    for column in NAMES:
        names = [row.get(column, "") for row in rows]
        if any(name not in UNKNOWN for name in names):
            break
    return onset, np.array(lasts), names


def _keep_own(marks: "mne.Annotations", raw: "mne.io.BaseRaw") -> None:
    """Add bad stretches and boundaries of the recording itself, without duplicates."""
    known = [(a["description"], a["onset"]) for a in marks]
    for own in raw.annotations:
        start = own["onset"] - raw.first_time  # from the first sample, as in BIDS
        among = any(
            name == own["description"] and abs(at - start) < 1 / raw.info["sfreq"]
            for name, at in known
        )
        if (is_bad(own["description"]) or is_boundary(own["description"])) and not among:
            marks.append(start, own["duration"], own["description"])
