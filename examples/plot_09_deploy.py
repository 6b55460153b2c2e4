"""
Deploy: export, apply, stream
=============================

A model becomes one ONNX file. It runs with numpy, scipy, MNE-Python and ONNX Runtime, without
PyTorch, on any head and montage that the model supports.

**You learn** to export a model, to read the description inside the file, to apply it to a
recording, to prepare a head once, and to feed a live system sample by sample.

**Data**: simulated, one source in the left motor cortex. **Time**: 20 s.
"""

# %%
# A file
# ------
# Any run, network or linear method can be exported. The file is compared with the model. If they
# differ, no file is written.

import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import mne
import numpy as np

import deepesi
from deepesi.physics.atlas import seitzman_parcels
from deepesi.physics.simulated import simulated_raw
from deepesi.streaming.live import LiveInverse

mne.set_log_level("ERROR")
folder = Path(tempfile.mkdtemp())
path = deepesi.export_onnx("eloreta", "fsaverage-ico3", folder / "eloreta.onnx")
inverse = deepesi.Inverse.load(path)
print(f"{path.stat().st_size / 1e3:.0f} kB, outputs: {[o.kind for o in inverse.contract.outputs]}")
print("needs from the head:", *(declared.key for declared in inverse.contract.head_inputs))
print((folder / "eloreta.md").read_text().splitlines()[0])

# %%
# A recording
# -----------
# Ten seconds, with a source that oscillates at 10 Hz. Noise comes from another recording.

template, sfreq = deepesi.load_head(), 250.0
head = template.montage_head("biosemi32")
source = int(np.nanargmin(np.linalg.norm(template.source_mni - [-40, -25, 55], axis=1)))
times = np.arange(2500) / sfreq
moments = np.zeros((head.space.n_dipoles, len(times)))
moments[source] = 20e-9 * np.sin(2 * np.pi * 10 * times) * (times > 4)
raw = simulated_raw(head, moments, sfreq, seed=0)
noise_cov = mne.compute_raw_covariance(simulated_raw(head, 0 * moments, sfreq, seed=1), rank="info")

prepared = inverse.for_recording(raw, noise_cov)
estimate = np.concatenate([piece.stc.data for piece in prepared.apply(raw)], axis=1)
strongest = int((estimate[:, times > 4] ** 2).sum(axis=1).argmax())
error = 1e3 * np.linalg.norm(template.source_pos[strongest] - template.source_pos[source])
print(prepared.placement)
print(f"strongest source: {error:.0f} mm from the true one")

# %%
# Prepared once, used live
# ------------------------
# All work that depends on the head is done once and saved. A live system loads the result and
# estimates each sample in about a millisecond, if no other program uses the core.

prepared.save(folder / "head.npz")
live = deepesi.Inverse.load(path, n_threads=1).for_prepared(folder / "head.npz")
frame = raw.get_data()[:, :1]
live.estimate(frame)
started = time.perf_counter()
for _ in range(200):
    live.estimate(frame)
print(f"one sample: {1e3 * (time.perf_counter() - started) / 200:.2f} ms")

# %%
# ``deepesi stream`` uses ``LiveInverse``: a causal filter, windows, checks, and the mean of each
# parcel of an atlas. Here it receives chunks of four samples, as from an amplifier.

parcels = seitzman_parcels(template.space)
stream = LiveInverse(live, parcels, sfreq)
pushed = [
    stream.push(raw.get_data()[:, first : first + 4], times[first : first + 4])
    for first in range(0, len(times), 4)
]
stamps = np.concatenate([at for at, _ in pushed])
time_courses = np.concatenate([values for _, values in pushed], axis=1)
print(stream.counts)

figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
after = stamps > 5
top = int(time_courses[:, after].mean(axis=1).argmax())
ax.plot(stamps, 1e9 * time_courses[top], color="C3", linewidth=0.8, label=parcels.names[top])
ax.plot(
    stamps, 1e9 * np.median(time_courses, axis=0), color="0.5", linewidth=0.8, label="median parcel"
)
ax.axvline(4, color="0.7")
ax.set(xlabel="time (s)", ylabel="RMS moment (nA m)")
ax.legend()

# %%
# Exercises
# ---------
# 1. Apply the same file to another montage (``template.montage_head("biosemi64")``).
# 2. Export with ``precision="int8"`` and compare the estimates.
# 3. Drop every 50th sample, or give two chunks the same time stamps. What do the counts report?
