"""Refuses recordings that cannot be localized, or that do not fit a prepared model."""

import math
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.channel_names import channel_keys
from deepesi.physics.io.channels import check_derivations, good_channels
from deepesi.physics.io.coils import check_head_position, coil_positions
from deepesi.physics.io.covariance import check_nave
from deepesi.physics.sensors import SensorArray
from deepesi.utils.files import parsing

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recording_type import Recording

Array = NDArray[np.float64]

#: Kinds of evoked data of MNE-Python that are potentials.
SIGNALS = ("average", "single_epoch", "partial_average")
#: Number of samples of a raw recording whose signs are checked.
FIRST_SAMPLES = 200
#: Mean of an envelope, in its standard deviations: about 2. With offsets it is far more.
FARTHEST_MEAN = 4.0


def check_average(recording: "Recording", command: str) -> None:
    """Refuse anything but an average, for a command that judges one response.

    Raises:
        ValueError: Epochs or a raw recording.

    """
    import mne

    if not isinstance(recording, mne.Evoked):
        raise ValueError(
            f"{command}: the recording is {type(recording).__name__}, expected an average. Give an "
            "-ave.fif, or the events to average about in a raw recording (--event NAME)."
        )


def trials_averaged(recording: "Recording") -> float:
    """Number of averaged trials: ``nave`` of an evoked response, else 1.

    Effective numbers for weighted averages and differences may be fractions.

    Raises:
        TypeError: Not a recording of MNE-Python.
        ValueError: As in `check_kind`.

    """
    check_kind(recording)
    return nave_of(recording)


def nave_of(recording: "Recording") -> float:
    """`trials_averaged` of a recording that was checked already."""
    import mne

    return float(recording.nave) if isinstance(recording, mne.Evoked) else 1.0


def check_kind(recording: "Recording") -> None:
    """Refuse anything but recordings of potentials, and averages of an unknown number of trials.

    Raises:
        TypeError: Not a recording of MNE-Python.
        ValueError: Derivations or a Laplacian; complex data; an envelope or power; a standard
            error; a grand average with an unknown number of trials; an invalid number of trials.

    """
    import mne

    if not isinstance(recording, mne.Evoked | mne.BaseEpochs | mne.io.BaseRaw):
        raise TypeError(
            f"recording: got {type(recording).__name__}, expected mne.Evoked, mne.Epochs or "
            "mne.io.Raw. For arrays use PreparedInverse.estimate()."
        )
    if np.iscomplexobj(_first_values(recording)):
        raise ValueError(
            "recording: its data are complex (after apply_hilbert?). Localize the real signal, "
            "which is linear for a linear inverse, and transform the time courses of the sources."
        )
    if isinstance(recording, mne.Evoked):
        _check_evoked(recording)
    check_derivations(recording.info)
    _check_signs(recording)


def _check_evoked(evoked: "mne.Evoked") -> None:
    """Refuse anything but an average of a known number of trials."""
    if evoked.kind not in SIGNALS:
        raise ValueError(
            f"recording: {evoked.comment!r} holds a {evoked.kind.replace('_', ' ')}, no "
            "average, so it has no topography of a source; give the average."
        )
    n_averages = _averages_counted_as_trials(evoked)
    if n_averages is not None:
        raise ValueError(
            f"recording: {evoked.comment!r} is an average of {n_averages} averages, which it "
            "counts as trials, so its noise is unknown. Give the total number of trials "
            "(--nave, or evoked.nave = N)."
        )
    check_nave(evoked.nave)


def _averages_counted_as_trials(evoked: "mne.Evoked") -> int | None:
    """Number of averages in a grand average whose ``nave`` is this number; else None."""
    found = re.fullmatch(r"Grand average \(n = (\d+)\)", evoked.comment or "")
    return int(found[1]) if found and int(found[1]) == evoked.nave else None


def _check_signs(recording: "Recording") -> None:
    """Refuse EEG that is nowhere negative, and not by an offset: an envelope or power."""
    import mne

    rows = mne.pick_types(recording.info, meg=False, eeg=True)
    if not len(rows):
        return
    if isinstance(recording, mne.io.BaseRaw):
        with parsing_data(recording):
            data = recording.get_data(rows, 0, FIRST_SAMPLES)
    else:
        data = np.squeeze(_first_values(recording))
        data = data[rows] if data.ndim == 2 else np.zeros((1, 1))
    spread = data.std(axis=1)
    if data.min() >= 0 and spread.all() and np.median(data.mean(axis=1) / spread) < FARTHEST_MEAN:
        raise ValueError(
            "recording: none of its values is negative, as of an envelope, of power or of absolute "
            "values, which have no topography of a source. Localize the signal itself, and compute "
            "the envelope of the time courses of the sources."
        )


def _first_values(recording: "Recording") -> NDArray[np.generic]:
    """Data of an average, of the first epoch, or one sample of a raw recording."""
    import mne

    if isinstance(recording, mne.Evoked):
        return np.asarray(recording.data)
    if isinstance(recording, mne.io.BaseRaw):
        return np.asarray(recording.get_data([0], 0, 1))
    with parsing_data(recording):
        return np.asarray(recording[:1].get_data(copy=False, verbose="error"))


def check_recording(
    recording: "Recording", sensors: SensorArray, nave: float, recorded_pos: Array | None = None
) -> None:
    """Refuse a recording that does not have the set-up for which a model was prepared.

    Args:
        recording: The recording.
        sensors: Sensors of the set-up.
        nave: Number of averaged trials.
        recorded_pos: Positions ``(C, 3)``, m, in the head frame of the recording; None: those of
            the sensors.

    Raises:
        TypeError: Not a recording of MNE-Python.
        ValueError: Its good channels of the prepared kinds, or its number of trials, differ.

    """
    found = trials_averaged(recording)
    if not math.isclose(found, nave, rel_tol=1e-6):
        raise ValueError(
            f"PreparedInverse: prepared for averages of {nave:g} trials, the recording is "
            f"one of {found:g}, with other noise. Prepare again for {found:g} (--nave {found:g}, "
            f"nave={found:g}); or, if {nave:g} is right, set it in the recording (--nave {nave:g}, "
            f"evoked.nave = {nave:g})."
        )
    good, ch_names = good_channels(recording.info, set(sensors.kinds)), sensors.names
    mine, theirs = (dict(zip(channel_keys(n), n, strict=True)) for n in (good, ch_names))
    if set(mine) != set(theirs):
        missing = sorted(theirs[key] for key in set(theirs) - set(mine))
        extra = sorted(mine[key] for key in set(mine) - set(theirs))
        raise ValueError(
            f"PreparedInverse: prepared for {len(ch_names)} channels; the recording lacks "
            f"{missing} and has {extra} beside them. Prepare again for this recording."
        )
    meg = [row for row, modality in enumerate(sensors.modalities) if modality == "meg"]
    if meg:
        keys = channel_keys(ch_names)
        names = [mine[keys[row]] for row in meg]
        check_head_position(
            coil_positions(recording.info, names),
            (sensors.positions if recorded_pos is None else recorded_pos)[meg],
            "PreparedInverse",
            "Prepare again for this recording.",
        )


def parsing_data(recording: "mne.BaseEpochs | mne.io.BaseRaw") -> AbstractContextManager[None]:
    """Turn errors of damaged data into one; MNE-Python reads them from disk on access."""
    names = getattr(recording, "filenames", None) or (getattr(recording, "filename", None),)
    path = Path(str(names[0] or "the recording"))
    return parsing(path, "recording", "It is damaged from there on.")
