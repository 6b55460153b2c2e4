"""The noise covariance of single trials, from a stretch of the recording itself."""

import functools
import operator
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from deepesi.physics.io.channels import usable_channels
from deepesi.physics.io.covariance import FEWEST_SAMPLES
from deepesi.physics.sensors import KINDS
from deepesi.runtime.stretches import bad_epochs, good_stretches, within

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recordings import Recording

#: Length of the pieces of a raw recording, s; shorter stretches are not used.
PIECE = 0.2


def noise_of(
    recording: "Recording", window: Sequence[float], kinds: Collection[str] = ("eeg",)
) -> "mne.Covariance":
    """Noise covariance of single trials, from a stretch of a raw recording or of every epoch.

    The mean of every epoch, and of every stretch of a raw recording between bad stretches and
    boundaries, is removed, because it is not noise. Data annotated BAD are excluded.

    Args:
        recording: Raw or epochs.
        window: Start and end, s.
        kinds: Kinds of channels that will be used, as in `deepesi.physics.sensors.KINDS`.

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
        return _of_epochs(recording, window, kinds)
    return _of_raw(recording, window, kinds)


def _of_epochs(
    epochs: "mne.BaseEpochs", window: Sequence[float], kinds: Collection[str]
) -> "mne.Covariance":
    import mne

    bad = bad_epochs(epochs)
    good = epochs[[number for number in range(len(epochs)) if number not in bad]]
    inside = int(((epochs.times >= window[0] - 1e-6) & (epochs.times <= window[1] + 1e-6)).sum())
    _check(epochs, window, kinds, inside * len(good))
    if len(good) < 2:
        raise ValueError(
            f"--noise-from {window[0]:g} {window[1]:g} s holds {len(good)} epoch, expected at "
            "least 2: the noise is estimated from differences of trials. Give --noise-cov instead."
        )
    return mne.compute_covariance(
        good, tmin=window[0], tmax=window[1], keep_sample_mean=False, verbose="error"
    )


def _of_raw(
    raw: "mne.io.BaseRaw", window: Sequence[float], kinds: Collection[str]
) -> "mne.Covariance":
    """The mean over stretches that are not bad, weighted by their samples."""
    import mne

    first, last = np.searchsorted(raw.times, [window[0] - 1e-9, window[1] + 1e-9]).tolist()
    stretches = list(within(good_stretches(raw), first, last))
    long = [s for s in stretches if s.stop - s.start > PIECE * raw.info["sfreq"] + 1]
    for counted in (stretches, long):
        _check(raw, window, kinds, sum(s.stop - s.start for s in counted))
    picks = list(usable_channels(raw.info))
    covariances = [
        mne.compute_raw_covariance(
            raw, raw.times[s.start], raw.times[s.stop - 1], PIECE, picks=picks, verbose="error"
        )
        for s in long
    ]
    total = functools.reduce(operator.add, covariances)
    _check(raw, window, kinds, int(total["nfree"]))  # MNE-Python drops incomplete pieces
    return total


def _check(
    recording: "Recording", window: Sequence[float], kinds: Collection[str], n_samples: int
) -> None:
    found = usable_channels(recording.info).values()
    by_modality = Counter(KINDS[kind].modality for kind in found if kind in kinds)
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
