"""A simulated recording of MNE-Python from dipole moments and a head."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.physics.montage import eeg_info
from deepesi.physics.noise import spanned_eigh

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]


def simulated_raw(
    head: HeadModel, moments: Array, sfreq: float, seed: int = 0
) -> "mne.io.RawArray":
    """Simulate a recording: moments through the lead field, plus Gaussian noise of the head.

    Noise is independent from sample to sample. `deepesi.SimulatedRecordings` draws richer
    recordings for training.

    >>> import numpy as np
    >>> from deepesi.physics.template import load_template
    >>> head = load_template().montage_head("biosemi32")  # white noise, 1 µV
    >>> moments = np.zeros((head.space.n_dipoles, 500))
    >>> moments[300, 250] = 50e-9
    >>> simulated_raw(head, moments, 250.0).get_data().shape
    (32, 500)

    Args:
        head: Head under a recording set-up, with its noise covariance.
        moments: Dipole moments ``(D, T)``, A m.
        sfreq: Sampling rate, Hz.
        seed: Random seed of the noise.

    Returns:
        EEG in V, average reference, with electrode positions in the head frame.

    Raises:
        ValueError: The moments have another number of rows than the head has dipoles, or are not
            finite.

    """
    import mne

    if moments.ndim != 2 or len(moments) != head.space.n_dipoles:
        raise ValueError(
            f"simulated_raw: got moments of shape {moments.shape}, expected "
            f"({head.space.n_dipoles} dipoles of {head.space.name}, times)."
        )
    if not np.isfinite(moments).all():
        raise ValueError("simulated_raw: moments are not finite; give A m, 0 where nothing is.")
    values, vectors = spanned_eigh(head.noise_cov)
    drawn = np.random.default_rng(seed).standard_normal((len(values), moments.shape[1]))
    data = head.project(moments) + vectors @ (np.sqrt(values)[:, None] * drawn)
    info = eeg_info(head.sensors.names, head.sensors.positions)
    with info._unlock():
        info["sfreq"] = float(sfreq)
        info["lowpass"] = sfreq / 2
    return mne.io.RawArray(data, info, verbose="error")
