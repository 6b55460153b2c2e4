"""Refuses data that are not plausible for their sensors: units, dead channels, missing values."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.sensors import KINDS, SensorArray, SensorKind

Array = NDArray[np.float64]

#: Fewest samples for a check of constant channels.
FEWEST_FLAT = 8


def check_data(data: Array, sensors: SensorArray) -> None:
    """Refuse data that are not plausible for their sensors, in SI units.

    Args:
        data: ``(C, T)``, any reference.
        sensors: The ``C`` sensors.

    Raises:
        ValueError: NaN or infinite samples, an amplitude that a kind of sensor does not have, or
            channels that are constant (one that is zero throughout may be the reference).

    """
    broken = np.asarray(~np.isfinite(data).all(axis=1))
    if broken.any():
        names = [n for n, b in zip(sensors.names, broken, strict=True) if b]
        raise ValueError(
            f"recording: NaN or infinite samples in channels {names}. Mark these channels as bad "
            "(info['bads']) or cut the samples out."
        )
    referenced = sensors.reference(data)
    for name, kind in KINDS.items():
        rows = sensors.rows_of(name)
        if len(rows):
            names = [sensors.names[row] for row in rows]
            _check_amplitude(data[rows], referenced[rows], names, kind)
    check_constant(data, sensors.names)


def _check_amplitude(
    data: Array, referenced: Array, ch_names: Sequence[str], kind: SensorKind
) -> None:
    """Refuse data ``(C, T)`` of one kind with an amplitude that is not plausible in its unit."""
    centred = referenced
    if data.shape[1] > 1:
        centred = centred - centred.mean(axis=1, keepdims=True)
    low, high = kind.amplitude
    amplitude = float(centred.std())
    own = (data - np.median(data, axis=0)).std(axis=1)  # robust to a loud channel
    if amplitude >= high and low < np.median(own) < high:
        loud = [n for n, d in zip(ch_names, own, strict=True) if d >= high]
        raise ValueError(
            f"recording: the channels {loud} have a standard deviation above {high:g} "
            f"{kind.unit}, the others of {np.median(own):.2g} {kind.unit} (median). Are they in "
            f"another unit, or no {kind.title}? Convert them to {kind.unit_name}, mark them as bad "
            "(info['bads']) or exclude them (--exclude)."
        )
    if not low < amplitude < high:
        too_large = amplitude > high
        guess = kind.too_large if too_large else f"{kind.too_small}, or a flat recording"
        advice = kind.advice if too_large else "is the unit given with --unit right?"
        raise ValueError(
            f"recording: the data range from {data.min():.3g} to {data.max():.3g} with standard "
            f"deviation {amplitude:.3g}; {kind.title} in {kind.unit_name} has {low:g}-{high:g}. "
            f"They look like {guess}. Convert to {kind.unit_name} ({advice})."
        )


def check_constant(data: Array, ch_names: Sequence[str]) -> None:
    """Refuse data ``(C, T)`` with constant channels; one that is zero may be the reference.

    Raises:
        ValueError: Several are constant, or one that is not zero.

    """
    flat = flat_channels(data)
    if len(flat) > 1 or (len(flat) == 1 and data[flat[0]].any()):
        raise ValueError(
            f"recording: the channels {[ch_names[i] for i in flat]} are constant, as if nothing "
            "were connected, and would be localized like any other. Mark them as bad "
            "(info['bads'])."
        )


def flat_channels(data: Array) -> NDArray[np.int64]:
    """Numbers of the channels ``(C, T)`` that are constant; none in a few samples."""
    if data.shape[1] < FEWEST_FLAT:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(np.ptp(data, axis=1) == 0)
