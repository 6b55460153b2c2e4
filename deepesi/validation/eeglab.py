"""Sample recording of EEGLAB: 80 visual targets in the left hemifield, 32 channels, 128 Hz."""

from pathlib import Path
from typing import TYPE_CHECKING

from deepesi.physics.montage import head_montage
from deepesi.validation.case import Case, require_files
from deepesi.validation.expectation import Expectation

if TYPE_CHECKING:
    import mne

FILES = {"recording": "eeglab_data.set", "samples of the recording": "eeglab_data.fdt"}
EYES = ("EOG1", "EOG2")
#: High-pass (Hz) against drifts; epoch limits (s) relative to the target; largest peak-to-peak
#: amplitude of an accepted epoch (V).
HIGH_PASS, EPOCH, REJECT = 1.0, (-0.5, 0.5), 150e-6
WINDOW = (0.11, 0.15)
WHY = (
    "targets in the left hemifield; P1 and N1 arise in extrastriate cortex of the opposite "
    "hemisphere (Di Russo et al. 2002, doi:10.1002/hbm.10010)"
)


def read_targets(data: Path) -> "mne.Epochs":
    """Read the epochs around the targets (event ``square``), with baseline correction.

    Electrodes get the positions of the 10-05 system on fsaverage, in the MNE head frame. The
    positions in ``eeglab_chan32.locs`` are directions from the centre of a sphere, without
    fiducials. Used as head coordinates they would be 15 mm wrong. A test checks that they are the
    same electrodes in another frame.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The recording has no targets.

    """
    import mne

    files = require_files(data, FILES, "EEGLAB's folder sample_data")
    raw = mne.io.read_raw_eeglab(files["recording"], preload=True, verbose="error")
    raw.drop_channels(EYES)
    raw.set_montage(head_montage(raw.ch_names), verbose="error")
    raw.filter(HIGH_PASS, None, verbose="error")
    events, numbers = mne.events_from_annotations(raw, verbose="error")
    if "square" not in numbers:
        raise ValueError(
            f"{files['recording']}: it has no events 'square' (targets), only {sorted(numbers)}. "
            "Use eeglab_data.set of EEGLAB's sample_data."
        )
    return mne.Epochs(
        raw,
        events,
        {"square": numbers["square"]},
        *EPOCH,
        baseline=(None, 0),
        preload=True,
        reject={"eeg": REJECT},
        verbose="error",
    )


def eeglab_cases(data: Path, picks: tuple[str, ...] | None = None) -> list[Case]:
    """Read the response to the targets; the noise covariance is that of the baseline.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The recording has no targets.

    """
    import mne

    epochs = read_targets(data)
    covariance = mne.compute_covariance(epochs, tmax=0.0, method="empirical", verbose="error")
    expectation = Expectation("right", "middle occipital gyrus", "occipital", WHY)
    evoked = epochs.average()
    return [Case("eeglab", "Left targets", evoked, covariance, WINDOW, expectation, picks=picks)]
