"""Noise covariances of MNE-Python as arrays, checked."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.channel_names import match_channels
from deepesi.physics.sensors import KINDS, SensorArray, SensorKind

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

#: Least number of samples per channel for the estimate of a noise covariance.
FEWEST_SAMPLES = 3
#: Ratio to the standard deviation of other channels that shows another unit.
ANOTHER_UNIT = 1e3


def noise_covariance(noise_cov: "mne.Covariance", sensors: SensorArray, nave: float) -> Array:
    """Noise covariance ``(C, C)`` of an average of `nave` trials, as heads have it.

    In the order and the `SensorArray.head_units` of the sensors. Covariances of potentials with
    magnetic fields count as zero, as in MNE-Python.

    Raises:
        ValueError: A channel is missing from the covariance, a value is not finite or complex, it
            is not in SI units, it is of too few samples, or of channels that are constant or in
            other units than the others.

    """
    ch_names, names = sensors.names, noise_cov["names"]
    matched = match_channels(ch_names, names)
    missing = [c for c, row in zip(ch_names, matched, strict=True) if row is None]
    if missing:
        raise ValueError(
            f"noise covariance: {len(missing)} of the {len(ch_names)} good {sensors.title} "
            f"channels of the recording are not in it: {missing[:10]}; it has {len(names)} "
            f"channels, {names[:5]} ... Compute it from the same recording, with the same bad "
            "channels."
        )
    order = [row for row in matched if row is not None]
    data = noise_cov["data"]
    full = np.diag(data[order]) if noise_cov["diag"] else data[np.ix_(order, order)]
    if not np.isfinite(full).all():
        raise ValueError("noise covariance: it holds NaN or infinite values. Compute it again.")
    if np.iscomplexobj(full):
        raise ValueError(
            "noise covariance: it is complex. Compute it again, from data before apply_hilbert."
        )
    check_nave(nave)
    for name, kind in KINDS.items():
        rows = sensors.rows_of(name)
        if len(rows):
            stds = np.sqrt(np.diag(full)[rows].clip(0))
            _check_level(float(np.median(stds)), kind)
            _check_channels(stds, [ch_names[row] for row in rows], kind)
    if not noise_cov["diag"]:
        _check_samples(noise_cov, max(Counter(sensors.modalities).values()))
    return sensors.cov_to_head(np.asarray(full, dtype=np.float64)) / nave


def check_nave(nave: float) -> None:
    """Refuse an invalid number of averaged trials; fractions are effective numbers.

    Raises:
        ValueError: Zero, negative or not finite.

    """
    if not (np.isfinite(nave) and nave > 0):
        raise ValueError(
            f"number of averaged trials: got {nave:g}, expected a positive number, or a fraction "
            "(the difference of two single trials has 0.5, which MNE-Python saves as 0). Say it "
            "(nave=, --nave)."
        )


def _check_level(level: float, kind: SensorKind) -> None:
    """Refuse noise with a standard deviation that is not plausible in its unit."""
    low, high = kind.amplitude
    if not low < level < high:
        raise ValueError(
            f"noise covariance: its channels have a standard deviation of {level:.3g} (median); "
            f"{kind.title} in {kind.unit_name} has {low:g}-{high:g}. Covariances are in "
            f"{kind.unit}² ({kind.cov_advice})."
        )


def _check_channels(stds: Array, ch_names: list[str], kind: SensorKind) -> None:
    """Refuse channels without noise, and channels with far more or less noise than the others."""
    typical = np.median(stds)
    constant = [c for c, d in zip(ch_names, stds, strict=True) if d < 1e-6 * typical]
    if len(constant) > 1:  # one may be the reference
        raise ValueError(
            f"noise covariance: the channels {constant} are constant, as if nothing were "
            "connected. Mark them as bad (info['bads']) or exclude them (--exclude)."
        )
    unlike = [
        f"{c} ({d:.2g} {kind.unit})"
        for c, d in zip(ch_names, stds, strict=True)
        if c not in constant and not 1 / ANOTHER_UNIT < d / typical < ANOTHER_UNIT
    ]
    if unlike:
        raise ValueError(
            f"noise covariance: the standard deviation of {', '.join(unlike)} is more than "
            f"{ANOTHER_UNIT:g} times that of the others ({typical:.2g} {kind.unit}, median) or "
            f"less than a thousandth. Is the channel in another unit, or no {kind.title}? Convert "
            f"it to {kind.unit_name}, mark it as bad or exclude it (--exclude)."
        )


def _check_samples(noise_cov: "mne.Covariance", n_channels: int) -> None:
    """Refuse a covariance of too few samples, unless it was regularized."""
    n_free = noise_cov["nfree"]
    if noise_cov.get("method") not in (None, "empirical") or n_free is None or n_free < 1:
        return
    if n_free < FEWEST_SAMPLES * n_channels:
        raise ValueError(
            f"noise covariance: it is estimated from {n_free:g} samples, expected at least "
            f"{FEWEST_SAMPLES * n_channels}, {FEWEST_SAMPLES} for each of the {n_channels} "
            "channels. Take more trials or a longer baseline, or a regularized estimate "
            "(mne.compute_covariance(..., method='shrunk'))."
        )
