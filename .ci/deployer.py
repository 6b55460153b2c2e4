"""What a deployer does with the base install alone: no torch, no extra. Fails with an error.

A source of the packaged head gives an evoked response, which the packaged network localizes.
"""

import re
import sys
import tempfile
from pathlib import Path

import mne
import numpy as np

from deepesi.cli.main import main
from deepesi.physics.montage import head_montage, standard_montage
from deepesi.physics.template import load_template
from deepesi.runtime.packaged import PACKAGED

SOURCE, NOISE, N_TRIALS = (-40.0, -25.0, 55.0), 5e-6, 50


def simulate(folder: Path) -> None:
    """Write ``x-ave.fif`` with the source at `SOURCE` (MNI, mm) and ``x-cov.fif``."""
    template = load_template("fsaverage-ico3")
    names, _ = standard_montage("biosemi32")
    white = NOISE**2 * np.eye(len(names))
    head = template.montage_head("biosemi32")
    source = int(np.nanargmin(np.linalg.norm(template.source_mni - SOURCE, axis=1)))
    times = np.arange(-25, 76) / 250
    rng = np.random.default_rng(0)
    data = rng.normal(scale=NOISE / np.sqrt(N_TRIALS), size=(len(names), len(times)))
    data += 50e-9 * head.leadfield[:, [source]] * np.exp(-0.5 * ((times - 0.15) / 0.02) ** 2)
    info = mne.create_info([f"EEG {name.upper()}-REF" for name in names], 250.0, "eeg")
    info.set_montage(head_montage(info.ch_names, "biosemi32"))
    evoked = mne.EvokedArray(data, info, times[0], nave=N_TRIALS, baseline=(None, 0))
    evoked.save(folder / "x-ave.fif")
    mne.Covariance(white, names, [], [], nfree=1000).save(folder / "x-cov.fif")


def localize(folder: Path) -> None:
    """Apply every packaged network to it, and prepare one."""
    for model in PACKAGED:
        out = folder / model
        recording, noise = str(folder / "x-ave.fif"), str(folder / "x-cov.fif")
        main(["apply", model, recording, "--noise-cov", noise, "--out", str(out)])
        peak = mne.read_source_estimate(out).data
        template = load_template("fsaverage-ico3")
        found = template.source_mni[int(np.abs(peak).max(axis=1).argmax())]
        distance = float(np.linalg.norm(found - SOURCE))
        print(f"{model}: {distance:.0f} mm from the source")
        if not distance < 20:
            sys.exit(f"{model}: {distance:.0f} mm from the source, expected less than 20 mm")


if __name__ == "__main__":
    mne.set_log_level("ERROR")
    with tempfile.TemporaryDirectory() as name:
        simulate(Path(name))
        localize(Path(name))
    loaded = sorted(m for m in sys.modules if re.fullmatch("torch|lightning|hydra|onnx", m))
    if loaded:
        sys.exit(f"the base install needs {loaded}")
