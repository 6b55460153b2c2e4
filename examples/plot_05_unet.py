"""
Train a physics-informed U-Net with domain randomization
========================================================

Every training example comes from another head: skull, scalp, electrodes and noise are drawn again
for each. The network only receives the nominal head. So it learns to localize sources although the
assumed head is wrong.

**You learn** to look at the simulated heads, to train a network briefly, and to compare error and
point spread with eLORETA and with the network before training.

**Data**: simulated. **Time**: 70 s.
"""

# %%
# Simulated heads
# ---------------
# The potentials of one source in eight simulated heads differ. The network only knows one nominal
# head.

import tempfile

import matplotlib.pyplot as plt
import numpy as np

import deepesi
from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.cli.loading import load_untrained
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.evaluation.gallery import points_at
from deepesi.evaluation.scores import apply_model, metric_values
from deepesi.viz.maps import draw_maps
from deepesi.viz.scalp import draw_scalp

head = deepesi.load_head("fsaverage-ico3")
setups = SetupRanges(montages=["biosemi32"], displacement=0.005, coregistration_shift=0.0035)
drawn = deepesi.SimulatedRecordings(head, setups=setups, batch_size=8, seed=0).batch(0)
source = int(np.nanargmin(np.linalg.norm(head.source_mni - [-40, -25, 55], axis=1)))
potentials = drawn.true_leadfield.matrices()[:, :, source].numpy()
skulls = drawn.scene.tissues[:, 0].numpy()

figure, axes = plt.subplots(2, 4, figsize=(9, 4.4), layout="constrained")
for ax, potential, skull in zip(axes.flat, potentials, skulls, strict=True):
    draw_scalp(ax, potential, drawn.head.sensors.positions, drawn.head.sensors.names)
    ax.set_title(
        f"skull {1e3 * skull:.1f} mS/m\n{np.ptp(potential) * 1e-3:.1f} µV per nA m", fontsize=9
    )

# %%
# Training
# --------
# `PhysicsInformedUNet` reads eLORETA and matched filters on a voxel grid. Its last step is a linear
# inverse, so the estimate always fits the recording. Here it is trained with 80 batches of 16
# examples; ``python train.py experiment=piunet`` trains it fully.

run = deepesi.train(
    "piunet",
    head,
    experiment="piunet",
    max_steps=80,
    out=tempfile.mkdtemp(),
    overrides=[
        "data.batch_size=16",
        "data.n_times=1",
        "data.setups.montages=[biosemi32]",
        "trainer.n_validation_batches=1",
        "trainer.validation_batch_size=16",
        "export=false",
    ],
)

# %%
# Error and spread on new recordings
# ----------------------------------
# The recordings are of the split ``test``: other sources, other heads, other noise. The
# *localization error* is the distance between the peaks of estimate and target. *nEMD* is the mean
# distance that the estimate must be moved to become the target, divided by that from a uniform map:
# 0 is perfect, 1 is as good as no estimate.

models = {
    "eLORETA": MinimumNorm("eLORETA"),
    "U-Net, untrained": load_untrained("piunet", head),
    "U-Net, 80 steps": run.model(),
}
test = deepesi.SimulatedRecordings(
    head,
    PatchSources(n_sources=(1, 1)),
    setups,
    [declared for model in models.values() for declared in model.head_inputs],
    snr_db=(10, 10),
    batch_size=60,
    split="test",
    seed=1,
).batch(0)
scores = {
    (name, metric): metric_values(model, test, metric)
    for name, model in models.items()
    for metric in ("localization_error", "nemd")
}
for name in models:
    error, nemd = scores[name, "localization_error"].mean(), scores[name, "nemd"].mean()
    print(f"{name:18s} {error:5.1f} mm, nEMD {nemd:.3f}")

one = test.example(0)
maps = {"target": one.sources[0, :, 0].abs().numpy()}
maps |= {name: apply_model(m, one).mean[0, :, 0].abs().numpy() for name, m in models.items()}
figure = plt.figure(figsize=(9, 2.4), layout="constrained")
draw_maps(figure, maps, head.display, one.scene.peaks[0, :1].numpy(), n_views=1)

# %%
# Most of the accuracy does not come from training: it comes from the physics in the network, and
# from the assumption that sources are patches. Training makes the maps more concentrated.
#
# Point spread
# ------------
# Single points all over the cortex, without noise, through the nominal lead field. Here eLORETA has
# no localization error, but its maps are wide. The maps of the network are narrow, but their peak
# may be at a wrong position. The *dispersion* is the typical distance of the power from the point:
# small for a narrow map.

points = points_at(np.flatnonzero(head.is_cortex)[::20], one)
depth = 1e3 * head.depth[points.scene.peaks[:, 0].numpy()]
spread = {name: metric_values(m, points, "spatial_dispersion") for name, m in models.items()}
moved = {name: metric_values(m, points) for name, m in models.items()}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for name in models:
    left.plot(depth, moved[name], ".", label=name)
    right.plot(depth, spread[name], ".")
    print(
        f"{name:18s} error {moved[name].mean():4.1f} mm, dispersion {spread[name].mean():4.1f} mm"
    )
left.set(xlabel="depth (mm)", ylabel="error of a point (mm)")
right.set(xlabel="depth (mm)", ylabel="spatial dispersion (mm)")
left.legend(fontsize=8)

# %%
# Exercises
# ---------
# 1. Train 300 steps. Which of the two metrics improves?
# 2. Switch randomization off: ``data.setups.displacement=0`` and the tissues to one value. Compare
#    on the same test recordings.
# 3. Train on ``biosemi32`` and test on ``biosemi64``.
