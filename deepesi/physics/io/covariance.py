"""Noise covariances of MNE-Python, checked, for head models."""

from collections import Counter
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.channel_names import match_channels
from deepesi.physics.head import HeadModel
from deepesi.physics.io.rank import RankChoice, with_rank
from deepesi.physics.noise import rank_of
from deepesi.physics.sensors import KINDS, SensorArray, SensorKind

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

#: Least number of samples per channel for the estimate of a noise covariance.
FEWEST_SAMPLES = 3
#: Ratio to the standard deviation of other channels that shows another unit.
ANOTHER_UNIT = 1e3


def with_noise(
    head: HeadModel,
    info: "mne.Info",
    noise_cov: "mne.Covariance",
    nave: float = 1,
    rank: RankChoice = None,
) -> HeadModel:
    """A head with the noise of a recording, of the requested rank.

    Args:
        head: The head under the channels of the recording.
        info: Measurement info, whose projectors are applied to the noise.
        noise_cov: Noise covariance of single trials.
        nave: Number of trials averaged; the covariance is divided by it.
        rank: Dimensions of the noise, as in `deepesi.physics.io.rank.RankChoice`.

    Raises:
        ValueError: As in `noise_covariance`, `HeadModel` and `with_rank`.

    """
    cov = noise_covariance(noise_cov, head.sensors, nave)
    return with_rank(replace(head, noise_cov=head.sensors.reference_cov(cov)), info, rank)


def noise_covariance(noise_cov: "mne.Covariance", sensors: SensorArray, nave: float) -> Array:
    """Noise covariance ``(C, C)`` of an average of `nave` trials, as heads have it.

    In the order and the `SensorArray.head_units` of the sensors. Covariances of potentials with
    magnetic fields count as zero, as in MNE-Python.

    Raises:
        ValueError: A channel is missing from the covariance, a value is not finite or complex, it
            is not in SI units, it is of too few samples, of channels that are constant or in other
            units than the others, or of channels that are bad in it and good in the recording.

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
    bads = [c for c, row in zip(ch_names, order, strict=True) if names[row] in noise_cov["bads"]]
    if bads:
        raise ValueError(
            f"noise covariance: {bads} are marked bad in it, but good in the recording. Mark them "
            "as bad in the recording, too (info['bads'], --exclude), or compute the covariance "
            "again if they are good."
        )
    check_nave(nave)
    for name, kind in KINDS.items():
        rows = sensors.rows_of(name)
        if len(rows):
            stds = _stds(np.diag(full)[rows])
            _check_level(float(np.median(stds)), kind)
            _check_channels(stds, [ch_names[row] for row in rows], kind)
    cov = sensors.cov_to_head(np.asarray(full, dtype=np.float64))
    if not noise_cov["diag"]:
        _check_samples(noise_cov, cov, sensors)
    return cov / nave


def check_nave(nave: float) -> None:
    """Refuse an invalid number of averaged trials; fractions are effective numbers.

    Raises:
        ValueError: Zero, negative or not finite.

    """
    if not (isinstance(nave, Real) and np.isfinite(nave) and nave > 0):
        stated = f"{nave:g}" if isinstance(nave, Real) else repr(nave)
        raise ValueError(
            f"number of averaged trials: got {stated}, expected a positive number, or a fraction "
            "(the difference of two single trials has 0.5, which MNE-Python saves as 0). Say it "
            "(nave=, --nave)."
        )


def _stds(variances: Array) -> Array:
    """Standard deviations of channels; refuses variances that none can have."""
    largest = variances.max()
    if largest <= 0 or variances.min() < -1e-6 * largest:  # apart from rounding
        what = "negative variances" if variances.min() < 0 else "no variance at all"
        raise ValueError(
            f"noise covariance: its channels have {what}. Compute it again, from a stretch of the "
            "recording with noise (mne.compute_covariance)."
        )
    return np.asarray(np.sqrt(variances.clip(0)))


def _check_level(level: float, kind: SensorKind) -> None:
    """Refuse noise with a standard deviation that is not plausible in its unit."""
    low, high = kind.amplitude
    if not low < level < high:
        raise ValueError(
            f"noise covariance: its channels have a standard deviation of {level:.3g} (median); "
            f"{kind.title} in {kind.unit_name} has {low:g}-{high:g}. Covariances are in "
            f"{kind.unit}²{f' ({kind.cov_advice})' if level >= high else ''}."
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


def _check_samples(noise_cov: "mne.Covariance", cov: Array, sensors: SensorArray) -> None:
    """Refuse a covariance of too few samples, unless it was regularized.

    Where their number is unknown, a covariance of too few looks like one of a cleaned recording:
    both span fewer dimensions than the channels.
    """
    n_free, n_channels = noise_cov["nfree"], max(Counter(sensors.modalities).values())
    if noise_cov.get("method") not in (None, "empirical"):
        return
    if n_free is None or not n_free >= 1:
        if rank_of(cov) < sensors.rank:
            raise ValueError(
                f"noise covariance: it spans {rank_of(cov)} of {sensors.rank} dimensions, and the "
                f"number of its samples is unknown (nfree {n_free}), so they may be too few. Say "
                "it (noise_cov['nfree'] = N), or compute it with mne.compute_covariance."
            )
        return
    if n_free < FEWEST_SAMPLES * n_channels:
        raise ValueError(
            f"noise covariance: it is estimated from {n_free:g} samples, expected at least "
            f"{FEWEST_SAMPLES * n_channels}, {FEWEST_SAMPLES} for each of the {n_channels} "
            "channels. Take more trials or a longer baseline, or a regularized estimate "
            "(mne.compute_covariance(..., method='shrunk'))."
        )
