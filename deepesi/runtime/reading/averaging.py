"""Averages of a raw recording about its events."""

from typing import TYPE_CHECKING

import numpy as np

from deepesi.runtime.corrections import Baseline, baselined
from deepesi.runtime.stretches import bad_epochs

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recording_type import Recording


def average(
    recording: "Recording",
    event: str,
    epoch: tuple[float, float],
    baseline: Baseline | None = None,
) -> "tuple[mne.Evoked, mne.Epochs, str]":
    """The evoked response to an event, its trials, and a line with their number.

    Trials that overlap stretches annotated ``BAD...``, boundaries between parts or the ends of the
    recording are excluded.

    Args:
        recording: Raw, with events as annotations.
        event: Description of the annotation: ``trial_type`` of ``events.tsv`` in BIDS.
        epoch: Start and end relative to the event, s; the start is below 0.
        baseline: Baseline to subtract from every trial, see `Baseline`; by default the mean before
            the event.

    Raises:
        ValueError: No raw recording, no such event, no time before or after it, no good trial, or a
            baseline that is not within the trials.

    """
    import mne

    start, stop = epoch
    if not start < 0 < stop:
        raise ValueError(
            f"--epoch {start:g} {stop:g} s must begin before the event and end after it: the part "
            "before it is the baseline and the noise, where nothing else is given."
        )
    if not isinstance(recording, mne.io.BaseRaw):
        raise ValueError("--event averages a raw recording; this one is epochs or an average.")
    known = sorted(set(recording.annotations.description))
    if event not in known:
        raise ValueError(f"the recording has no events {event!r}; it has {known or 'none at all'}.")
    events, _ = mne.events_from_annotations(recording, {event: 1}, verbose="error")
    trials = mne.Epochs(
        recording,
        events,
        {event: 1},
        start,
        stop,
        None,
        proj=False,
        preload=True,
        event_repeated="merge",
        verbose="error",
    )
    seams = bad_epochs(trials)
    trials.drop(seams, reason="BOUNDARY", verbose="error")
    if not len(trials):
        raise ValueError(
            f"no trial of the {len(events)} events {event!r} is good: {_reasons(trials)}. Use "
            "another --epoch, or look at the annotations BAD."
        )
    trials, _ = baselined(trials, (start, 0.0) if baseline is None else baseline)
    evoked = trials.average()
    evoked.comment = event
    line = f"{len(trials)} of {len(events)} events {event!r} averaged, {start:g} to {stop:g} s"
    excluded = _reasons(trials)
    return evoked, trials, line + (f"; excluded: {excluded}" if excluded else "")


def _reasons(trials: "mne.Epochs") -> str:
    """Reasons for excluded trials, from MNE-Python's log."""
    reasons = [reason for log in trials.drop_log for reason in log if reason != "IGNORED"]
    kinds, counts = np.unique(reasons, return_counts=True)
    return ", ".join(f"{n} {kind}" for kind, n in zip(kinds, counts, strict=True))
