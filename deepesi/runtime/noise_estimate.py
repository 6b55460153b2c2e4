"""The noise covariance of single trials, from a stretch of the recording itself."""

import functools
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from deepesi.physics.io.covariance import FEWEST_SAMPLES
from deepesi.physics.sensors import KINDS
from deepesi.runtime.stretches import bad_epochs, good_stretches, within

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recording_type import Recording

#: Length of the pieces of a raw recording, s; shorter stretches are not used.
PIECE = 0.2


def noise_of(
    recording: "Recording", window: Sequence[float], channels: Mapping[str, str]
) -> "mne.Covariance":
    """Noise covariance of single trials, from a stretch of a raw recording or of every epoch.

    The mean of every epoch, and of every stretch of a raw recording between bad stretches and
    boundaries, is removed, because it is not noise. Data annotated BAD are excluded.

    Args:
        recording: Raw or epochs.
        window: Start and end, s.
        channels: Kind of every channel that will be used by its name, as in
            `deepesi.physics.io.selection.usable_channels`.

    Raises:
        ValueError: An evoked response, a stretch that is not within the recording, or too few
            samples.

    """
    import mne

    if isinstance(recording, mne.Evoked):
        raise ValueError(
            "--noise-from needs single trials: give epochs or a raw recording, or the covariance "
            "of the trials that were averaged (--noise-cov)."
        )
    if isinstance(recording, mne.BaseEpochs):
        return _of_epochs(recording, window, channels)
    return _of_raw(recording, window, channels)


def _of_epochs(
    epochs: "mne.BaseEpochs", window: Sequence[float], channels: Mapping[str, str]
) -> "mne.Covariance":
    import mne

    bad = bad_epochs(epochs)
    good = epochs[[number for number in range(len(epochs)) if number not in bad]]
    inside = int(((epochs.times >= window[0] - 1e-6) & (epochs.times <= window[1] + 1e-6)).sum())
    _check(epochs, window, channels, inside * len(good))
    if len(good) < 2:
        raise ValueError(
            f"--noise-from {window[0]:g} {window[1]:g} s holds {len(good)} epoch, expected at "
            "least 2: the noise is estimated from differences of trials. Give --noise-cov instead."
        )
    return mne.compute_covariance(
        good, tmin=window[0], tmax=window[1], keep_sample_mean=False, verbose="error"
    )


def _of_raw(
    raw: "mne.io.BaseRaw", window: Sequence[float], channels: Mapping[str, str]
) -> "mne.Covariance":
    """The mean over stretches that are not bad, weighted by their samples."""
    import mne

    first, last = np.searchsorted(raw.times, [window[0] - 1e-9, window[1] + 1e-9]).tolist()
    stretches = list(within(good_stretches(raw), first, last))
    long = [s for s in stretches if s.stop - s.start > PIECE * raw.info["sfreq"] + 1]
    for counted in (stretches, long):
        _check(raw, window, channels, sum(s.stop - s.start for s in counted))
    names = list(channels) or None  # without any, the head is refused later
    covariances = [
        mne.compute_raw_covariance(
            raw, raw.times[s.start], raw.times[s.stop - 1], PIECE, picks=names, verbose="error"
        )
        for s in long
    ]
    total = functools.reduce(operator.add, covariances)
    _check(raw, window, channels, int(total["nfree"]))  # MNE-Python drops incomplete pieces
    return total


def _check(
    recording: "Recording", window: Sequence[float], channels: Mapping[str, str], n_samples: int
) -> None:
    by_modality = Counter(KINDS[kind].modality for kind in channels.values())
    n_channels = max(by_modality.values(), default=0)
    if n_samples < FEWEST_SAMPLES * n_channels:
        raise ValueError(
            f"--noise-from {window[0]:g} {window[1]:g} s holds {n_samples} samples, expected at "
            f"least {FEWEST_SAMPLES * n_channels}, {FEWEST_SAMPLES} for each of the {n_channels} "
            "channels, without data annotated BAD. The recording lasts from "
            f"{recording.times[0]:g} to {recording.times[-1]:g} s; take a longer stretch without "
            "the activity of interest."
        )
    first, last = recording.times[[0, -1]]
    sample = 1 / recording.info["sfreq"]
    if not first - sample <= window[0] < window[1] <= last + sample:
        raise ValueError(
            f"--noise-from {window[0]:g} {window[1]:g} s is not within the recording, which lasts "
            f"from {first:g} to {last:g} s."
        )


def plausible_noise_of(
    recording: "Recording", window: Sequence[float], channels: Mapping[str, str]
) -> "mne.Covariance":
    """Noise covariance with a plausible amplitude: `noise_of`, and `check_noise_level` of it."""
    covariance = noise_of(recording, window, channels)
    check_noise_level(covariance, channels)
    return covariance


def check_noise_level(noise_cov: "mne.Covariance", kinds: Mapping[str, str]) -> None:
    """Refuse noise of a recording with an amplitude that is not plausible for its channels.

    Args:
        noise_cov: Covariance of a stretch of the recording.
        kinds: Kind of every channel to check by its name, as in `deepesi.physics.sensors.KINDS`.

    Raises:
        ValueError: The amplitude is not plausible, such as microvolts in a file with unit volts.

    """
    stds = np.sqrt(np.diag(noise_cov["data"]))
    for name, kind in KINDS.items():
        own = [std for c, std in zip(noise_cov["names"], stds, strict=True) if kinds.get(c) == name]
        level, (low, high) = float(np.median(own)) if own else np.nan, kind.amplitude
        if own and not low < level < high:
            guess = kind.too_large if level > high else f"{kind.too_small}, or a flat recording"
            cure = " (--unit uV)" if name == "eeg" and level > high else " (--unit)"
            raise ValueError(
                f"recording: between the times of --noise-from its {kind.title} channels have a "
                f"standard deviation of {level:.3g} (median), {kind.title} in {kind.unit_name} has "
                f"{low:g} to {high:g}. They look like {guess}{cure}, in contrast to the unit in "
                "the file."
            )
