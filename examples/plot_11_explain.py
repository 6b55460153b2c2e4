"""
Explain an estimate, and check the explanation
==============================================

A network gives a map. Which electrodes determine it, does it explain the recording, and which
change of the recording would change it? A figure answers each question. But a figure can look
convincing although it depends on the recording only and not on the model. So explanations are
tested before they are used.

**You learn** to attribute a localization to electrodes in four ways, to check an estimate against
the recording, to find the least change that moves its peak, and which methods fail a randomization
check.

**Data**: simulated, one patch per recording. **Time**: 60 s.
"""

# %%
# A network and a recording
# -------------------------
# ConvDip with few steps, so that the page is short. ``deepesi explain RUN RECORDING`` does all of
# this for a real recording and writes one page.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import deepesi
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.evaluation.intervals import bootstrap_interval
from deepesi.interpret.any_model.counterfactual import ChangedRecording, counterfactual
from deepesi.interpret.any_model.frames import frame_at
from deepesi.interpret.any_model.occlusion import filled, occlusion
from deepesi.interpret.any_model.targets import Share, explained, neighbourhood
from deepesi.interpret.networks import gradients
from deepesi.interpret.networks.grading import (
    LARGEST_CORRELATION,
    rank_correlation,
    with_random_weights,
)
from deepesi.physics.channel_check import channel_precision
from deepesi.physics.forward_check import forward_check
from deepesi.physics.lobes import elsewhere, lobe_text
from deepesi.physics.noise import whitener
from deepesi.viz.scalp import draw_scalp

template = deepesi.load_head()
run = deepesi.train(
    "convdip",
    max_steps=200,
    out=Path(tempfile.mkdtemp()) / "run",
    overrides=["data.batch_size=128", "trainer.n_validation_batches=1", "export=false"],
)
network = run.model()
batch = deepesi.SimulatedRecordings(
    template,
    PatchSources(n_sources=(1, 1)),
    SetupRanges(montages=["biosemi32"], displacement=0.005),
    network.head_inputs,
    snr_db=(10, 10),
    batch_size=40,
    split="test",
    seed=1,
).batch(0)
head, positions = batch.head, batch.head.source_pos
noise_std, precision = np.sqrt(head.noise_cov.diagonal()), channel_precision(head)
recordings = batch.data.double().numpy()  # (B, C, 1), V


def in_numpy(run):
    """A model on arrays, without gradients."""

    def on_arrays(data):
        with torch.no_grad():
            return run(torch.tensor(data, dtype=torch.float32)).double().numpy()

    return on_arrays


model = gradients.run_of_model(network, batch.inputs)
data, frame = recordings[0], frame_at(recordings[0], 0, None)
moments = frame.moments(in_numpy(model), data[None])[0]
peak = int(np.abs(moments).argmax())
off = 1e3 * np.linalg.norm(positions[peak] - positions[batch.scene.peaks[0, 0]])
print(f"strongest source: {lobe_text(template.source_mni[peak])}, {off:.0f} mm off")

# %%
# Which electrodes determine it?
# ------------------------------
# We explain one number: the share of the power that lies within 20 mm of the strongest source.
# *Saliency* is its derivative, per standard deviation of the noise. *Integrated gradients* and
# *DeepLIFT* give the contribution of each electrode, relative to recordings of noise. *Occlusion*
# replaces an electrode by its prediction from the others.


def attributions(run, data, target):
    """Maps ``(C,)`` of four methods, and of the recording alone."""
    frame = frame_at(data, 0, None)
    tensors, arrays = explained(frame, run, target), explained(frame, in_numpy(run), target)
    noise = gradients.noise_recordings(head.noise_cov, 1, n=4)
    maps = {
        "saliency": gradients.saliency(tensors, data, noise_std),
        "integrated gradients": gradients.integrated_gradients(tensors, data, noise),
        "DeepLIFT": gradients.deep_lift_attribution(tensors, data, noise),
        "occlusion": occlusion(arrays, data, filled(data, precision), head.sensors),
        "recording": np.abs(data / noise_std[:, None]),
    }
    return {name: values[:, 0] for name, values in maps.items()}


near = Share(neighbourhood(positions, peak), head.space.n_orient)
maps = attributions(model, data, near)
figure, axes = plt.subplots(1, 5, figsize=(11, 2.6), layout="constrained")
for ax, (name, values) in zip(axes, maps.items(), strict=True):
    draw_scalp(ax, values, head.sensors.positions, head.sensors.names)
    ax.set_title("size of the recording" if name == "recording" else name)
    strong = np.argsort(-np.abs(values))[:3]
    print(f"{name:21s}", *(head.sensors.names[row] for row in strong))

# %%
# Integrated gradients and DeepLIFT agree here, saliency is different. Saliency is the effect of a
# small change. The others give the effect of this recording. For all methods but saliency, the
# first electrode is the one at which the recording is strongest.
#
# Does it explain the recording?
# ------------------------------
# The forward check projects the estimate through the nominal lead field. The residual is shown in
# standard deviations of the noise. It needs the estimate and the lead field only.

check = forward_check(head.leadfield, whitener(head.noise_cov), moments, data[:, 0])
print(f"explained: {check.share:.0%} of the whitened power, {check.scaled_share:.0%} if rescaled")
shown = {"recorded": check.recorded, "explained": check.explained, "residual": check.residual}
limit = max(np.abs(values).max() for values in shown.values())
figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.6), layout="constrained")
for ax, (name, values) in zip(axes, shown.items(), strict=True):
    image = draw_scalp(ax, values, head.sensors.positions, head.sensors.names, limit)
    ax.set_title(name)
figure.colorbar(image, ax=axes, label="noise SD", shrink=0.7)

# %%
# The estimate is too strong (the network is far from trained), but its shape explains most of the
# recording: the share is much larger after the best scaling.
#
# Which change would move it?
# ---------------------------
# The counterfactual is a small change of few electrodes that moves the strongest source into
# another lobe. It is computed with numerical derivatives and checked with the model.

changed = ChangedRecording(frame, in_numpy(model), head.sensors, noise_std, head.space.n_orient)
moved = counterfactual(changed, elsewhere(peak, positions, template.source_mni))
names = ", ".join(f"{head.sensors.names[row]} {moved.change[row]:+.1f}" for row in moved.sensors)
print(f"to {lobe_text(template.source_mni[moved.after])} by {moved.size:.1f} noise SD: {names}")

# %%
# Which explanations are valid?
# -----------------------------
# An explanation of this model should change if the weights of the model are shuffled, and if
# another location is explained. We compare the maps by rank correlation, without sign, on 40
# recordings. A method fails if the 95 % interval of a mean reaches 0.5. The recording is a control:
# it does not depend on the model, so it must fail.

rng = np.random.default_rng(0)
shuffled = gradients.run_of_model(with_random_weights(network), batch.inputs)
alike = {"random weights": [], "another target": []}
for data in recordings:
    peak = int(np.abs(frame_at(data, 0, None).moments(in_numpy(model), data[None])[0]).argmax())
    far = np.flatnonzero(np.linalg.norm(positions - positions[peak], axis=1) > 0.06)
    near, away = (
        Share(neighbourhood(positions, source), head.space.n_orient)
        for source in (peak, int(rng.choice(far)))
    )
    own = attributions(model, data, near)
    for check_name, other in (
        ("random weights", attributions(shuffled, data, near)),
        ("another target", attributions(model, data, away)),
    ):
        alike[check_name].append(
            [rank_correlation(np.abs(own[name]), np.abs(other[name])) for name in own]
        )
fails = {}
figure, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
for offset, (check_name, rows) in zip((-0.15, 0.15), alike.items(), strict=True):
    for column, (name, values) in enumerate(zip(own, np.array(rows).T, strict=True)):
        low, high = bootstrap_interval(values)
        above = values.mean() if np.isnan(high) else high  # the control does not vary
        fails[name, check_name] = bool(above >= LARGEST_CORRELATION)
        ends = [[values.mean() - low], [high - values.mean()]]
        colour = "C3" if fails[name, check_name] else "C0"
        ax.errorbar(column + offset, values.mean(), ends, fmt="os"[offset > 0], color=colour)
        print(f"{name:21s} {check_name}: {values.mean():.2f} [{low:.2f}, {high:.2f}]")
ax.axhline(LARGEST_CORRELATION, color="0.7")
ax.set_xticks(range(len(own)), own)
ax.set(ylabel="rank correlation", title="circles: random weights; squares: another target")

# %%
# Red means failed. Saliency passes both checks clearly. Occlusion fails both, as the control does.
# Integrated gradients and DeepLIFT lie at the limit: half of their pattern would be the same for
# any model or location, because they multiply a sensitivity by the difference of the recording from
# the noise, which is always the same. In the larger study in :doc:`explanations </explanations>`,
# which also trains networks on shuffled targets, all three fail for every model.
#
# Exercises
# ---------
# 1. Explain the moment of the strongest source (`Moment` in `deepesi.interpret.any_model.targets`).
#    What changes?
# 2. Add 10 noise SD to one electrode. Do the forward check and the attributions name it?
# 3. Explain eLORETA (`MinimumNorm`): it has no weights, so only the target can be exchanged.
