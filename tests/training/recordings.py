"""Generated recordings: sources of the toy head, measured by a cap, in files of any format."""

from pathlib import Path

import mne
import numpy as np

from deepesi.physics.template import Template


def simulated_raw(
    toy: Template, seed: int, seconds: float = 20.0, sfreq: float = 100.0, montage="biosemi32"
) -> mne.io.RawArray:
    """Slow activity of all sources, 10 µV at the scalp, and 1 µV of noise in every channel."""
    rng = np.random.default_rng(seed)
    head = toy.montage_head(montage)
    n_times = round(seconds * sfreq)
    walk = rng.normal(size=(head.leadfield.shape[1], n_times))
    smooth = np.apply_along_axis(lambda row: np.convolve(row, np.ones(8), "same"), 1, walk)
    data = head.leadfield @ smooth
    data *= 1e-5 / data.std()
    data += rng.normal(scale=1e-6, size=data.shape)
    info = mne.create_info(list(head.sensors.names), sfreq, "eeg", verbose="error")
    info.set_montage(mne.channels.make_standard_montage(montage))
    return mne.io.RawArray(data, info, verbose="error")


def save_raws(folder: Path, toy: Template, n_files: int = 3, **settings) -> list[Path]:
    """Raw FIF files with different seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in range(n_files):
        paths.append(folder / f"rec{seed}_raw.fif")
        simulated_raw(toy, seed, **settings).save(paths[-1], overwrite=True, verbose="error")
    return paths
