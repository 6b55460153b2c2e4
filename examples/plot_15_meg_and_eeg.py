"""
MEG and EEG: alone and together
===============================

EEG measures sources of every orientation, but through a skull of unknown conductivity. MEG does not
depend on the skull, but hardly measures radial sources. Together they give more information than
either alone.

**You learn** how to simulate EEG and MEG of the same sources, how one method takes any mixture of
sensors, and where each kind is better: by orientation, by depth, and with a wrong skull.

**Data**: simulated, 150 recordings of 64 electrodes and a Neuromag helmet. **Time**: 30 s.
"""

# %%
# Recordings of both kinds
# ------------------------
# ``coils=CoilRanges()`` adds MEG to the recording set-ups (``data=joint`` for training). Every
# example has its own tissues, electrode positions and head position in the helmet; the analyst
# knows the nominal ones. The noise is set so that a source of mean strength has the same SNR in
# both.

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

from deepesi import SimulatedRecordings, load_head
from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.core.contracts import as_tensors
from deepesi.data_gen.coils import CoilRanges
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.physics.head_inputs import prepare
from deepesi.viz.scalp import draw_scalp

template = load_head("fsaverage-ico3")
stream = SimulatedRecordings(
    template,
    PatchSources(n_sources=(1, 1), radius=(0.01, 0.015)),
    SetupRanges(montages=["biosemi64"], coils=CoilRanges(["neuromag306"], snr_db=(0, 0))),
    snr_db=(10, 10),
    batch_size=150,
    split="test",
    seed=3,
    pool_size=1,
)
batch = stream.batch(0)
sensors = batch.head.sensors
print(sensors.summary)

# %%
# The same sample, measured by electrodes and by magnetometers. The arrays of a head have numbers of
# similar size for all kinds of channels: 1 means 1 µV, 50 fT or 10 fT/cm.

figure, axes = plt.subplots(1, 2, figsize=(6, 3), layout="constrained")
for ax, kind, title in zip(axes, ("eeg", "mag"), ("EEG", "magnetometers"), strict=True):
    rows = sensors.rows_of(kind)
    own = sensors[rows]
    draw_scalp(ax, batch.data[0, rows, 0].numpy(), own.positions, own.names)
    ax.set_title(title)

# %%
# One method, three sets of sensors
# ---------------------------------
# sLORETA of the package takes any mixture: it whitens all channels and stacks them. So do the
# networks, with the same weights.


def errors(kinds):
    """Localization error of every example in mm, from the channels of some kinds."""
    rows = [row for row, kind in enumerate(sensors.kinds) if kind in kinds]
    head = batch.head.pick([sensors.names[row] for row in rows])
    method = MinimumNorm("sLORETA")
    data = batch.data[:, rows]
    eeg = [row for row, kind in enumerate(head.sensors.kinds) if kind == "eeg"]
    data[:, eeg] -= data[:, eeg].mean(1, keepdim=True)
    estimate = method(data, as_tensors(prepare(method.head_inputs, head))).mean[..., 0]
    peaks = estimate.abs().argmax(1).numpy()
    offset = template.source_pos[peaks] - template.source_pos[true]
    return 1e3 * np.linalg.norm(offset, axis=1)


true = batch.scene.peaks[:, 0].numpy()
mixtures = {"EEG": {"eeg"}, "MEG": {"mag", "grad"}, "both": {"eeg", "mag", "grad"}}
by_sensors = {name: errors(kinds) for name, kinds in mixtures.items()}
for name, values in by_sensors.items():
    print(f"{name}: median {np.median(values):.0f} mm, mean {values.mean():.0f} mm")

# %%
# On these recordings MEG has smaller errors than EEG, and both together have the smallest.

# %%
# By orientation and depth
# ------------------------
# The angle is that between the normal of the cortex and the line from the middle of the head: 0
# degrees is radial, 90 degrees tangential.

middle = template.family.scalp_pos.mean(axis=0)
outward = template.source_pos[true] - middle
outward /= np.linalg.norm(outward, axis=1, keepdims=True)
cosine = np.abs((outward * template.source_normals[true]).sum(1))
axes_of = {
    "angle to the radius (degrees)": (np.rad2deg(np.arccos(cosine)), [0, 45, 60, 75, 90]),
    "depth below the scalp (mm)": (1e3 * template.depth[true], [0, 25, 35, 50, 90]),
}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained", sharey=True)
for ax, (label, (values, edges)) in zip(axes, axes_of.items(), strict=True):
    bins = np.clip(np.digitize(values, edges) - 1, 0, len(edges) - 2)
    names = [f"{a}-{b}" for a, b in pairwise(edges)]
    for name, error in by_sensors.items():
        means = [error[bins == number].mean() for number in range(len(names))]
        ax.plot(names, means, marker="o", label=name)
    ax.set(xlabel=label)
axes[0].set_ylabel("mean error (mm)")
axes[0].set_ylim(bottom=0)
axes[0].legend(frameon=False)

# %%
# MEG is better for tangential sources than for the others, and EEG for radial sources than for
# tangential ones. Each point is the mean of a few dozen examples.

# %%
# A wrong skull
# -------------
# The skull of the examples has 0.003 to 0.03 S/m, the analyst assumes 0.01 S/m. The error of EEG
# depends on how wrong that is. In the head model of MEG, currents flow inside the inner skull only,
# so the skull has no effect.

ratio = batch.scene.tissues[:, 0].numpy() / 0.01
edges = [0.3, 0.6, 1.2, 3.0]
bins = np.clip(np.digitize(ratio, edges) - 1, 0, len(edges) - 2)
figure, ax = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
names = [f"{a}-{b}" for a, b in pairwise(edges)]
for name, error in by_sensors.items():
    ax.plot(names, [error[bins == number].mean() for number in range(3)], marker="o", label=name)
ax.set(xlabel="true over assumed conductivity of the skull", ylabel="mean error (mm)")
ax.set_ylim(bottom=0)
ax.legend(frameon=False)

# %%
# EEG is worst where the skull conducts less than assumed. MEG also changes from bin to bin, only
# because the bins hold different sources.
#
# Exercises
# ---------
#
# 1. Take ``arrays=["opm64"]``, magnetometers on the scalp. At the same SNR, is MEG better?
# 2. Let MEG have 6 dB more than EEG (``snr_db=(6, 6)``). Does EEG still help?
# 3. Take Maxwell-filtered recordings (``sss=1.0``) and print ``rank_of(batch.head.noise_cov)`` of
#    `deepesi.physics.noise`. How many dimensions are left?
