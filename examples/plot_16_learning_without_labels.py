"""
Learning without labels: missing electrodes and another head
============================================================

Nobody knows the true sources of a real recording. But a part of the recording can be predicted from
the rest. And if an estimate has the same residual in many windows, the head model is wrong. Neither
needs a label.

**You learn** to read windows of files, to predict missing electrodes through an inverse, to
pretrain a network on that, to adapt the head to a recording, and to compare with a control.

**Data**: three simulated recordings saved as files, and windows of a warped head. **Time**: 70 s.
"""

# %%
# Windows of files
# ----------------
# Activity of the whole cortex, 10 µV at the scalp, with 1 µV of noise, is saved as raw files, which
# take the place of your own folder. `RealRecordings` gives windows of one file at a time, each with
# its own montage, noise covariance and rank. The noise of a channel is the part that the others do
# not predict.

import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import mne
import numpy as np
import torch

from deepesi import SimulatedRecordings, load_head
from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.core.contracts import as_tensors
from deepesi.core.onnx_model import load_onnx
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.data_gen.tissues import TissueRanges
from deepesi.evaluation.scores import metric_values
from deepesi.models.gnn import SensorGNN
from deepesi.physics.head_inputs import prepare
from deepesi.runtime.packaged import model_path
from deepesi.training.missing_channels import SHARES, compare
from deepesi.training.real import RealRecordings
from deepesi.training.tasks.masked import MaskedChannels
from deepesi.training.test_time import adapt

template = load_head("fsaverage-ico3")
folder = Path(tempfile.mkdtemp())
head = template.montage_head("biosemi32")
for number in range(3):
    rng = np.random.default_rng(number)
    sources = rng.normal(size=(head.leadfield.shape[1], 2000))
    sources = np.apply_along_axis(lambda row: np.convolve(row, np.ones(8), "same"), 1, sources)
    data = head.leadfield @ sources
    data *= 1e-5 / data.std()
    data += rng.normal(scale=1e-6, size=data.shape)
    info = mne.create_info(list(head.sensors.names), 100.0, "eeg", verbose="error")
    info.set_montage("biosemi32")
    raw = mne.io.RawArray(data, info, verbose="error")
    raw.save(folder / f"{number}_raw.fif", verbose="error")

torch.manual_seed(0)
network, eloreta = SensorGNN(), MinimumNorm("eLORETA")
stream = RealRecordings(folder, template, network.head_inputs, batch_size=16, n_times=1)
print(f"{stream.n_batches} batches per epoch, {len(stream.files)} files")

# %%
# Missing electrodes
# ------------------
# An inverse method receives some of the electrodes, and the lead field predicts the others from its
# estimate. Spherical splines do not use a lead field. The share of the power that is not predicted
# is 0 for an exact prediction and 1 for none. The network estimates three patches, so it cannot
# describe the activity of the whole cortex; "+ eLORETA" estimates the sources of its residual.

task = MaskedChannels(eloreta)
optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
held_out = RealRecordings(folder, template, batch_size=64, n_times=1, split="validation")
methods = {"eLORETA": (eloreta, None), "untrained": (network, eloreta)}
rows = compare(held_out, methods, n_batches=1)

losses = []
for step in range(40):
    batch = stream.batch(step)
    terms = task.training_loss(network, batch, None, torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    terms["loss"].backward()
    optimizer.step()
    losses.append(terms["loss"].item())
rows += [
    row | {"method": "pretrained"}
    for row in compare(held_out, {"untrained": (network, eloreta)}, n_batches=1)
    if row["method"] == "untrained"
]

unexplained = {
    name: [
        np.mean([r["unexplained"] for r in rows if (r["method"], r["missing"]) == (name, share)])
        for share in SHARES
    ]
    for name in ("splines", "eLORETA", "untrained", "pretrained")
}
titles = {"untrained": "untrained network + eLORETA", "pretrained": "pretrained network + eLORETA"}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for name, values in unexplained.items():
    left.plot(100 * np.array(SHARES), values, "o-", label=titles.get(name, name))
    print(f"{titles.get(name, name):30s}", *(f"{value:.3f}" for value in values))
left.set(xlabel="missing electrodes (%)", ylabel="power not predicted", ylim=(0, None))
left.legend(fontsize="small")
right.plot(losses, color="0.3")
right.set(xlabel="step of pretraining", ylabel="loss", ylim=(0, None))
plt.show()

# %%
# With half of the electrodes missing, eLORETA and the networks predict better than splines. The
# control is eLORETA: after 40 steps the network is close to it, but not better. Pretraining on your
# own files is ``python train.py experiment=pretrain data.files=FOLDER``.
#
# Another head
# ------------
# Windows of a warped head, of one person, are inverted with the template. `adapt` fits one matrix
# over the electrodes to the part that the packaged network explains of the first half of the
# windows, and keeps it if the second half is explained better. The error with the person's own head
# is the lower bound.

ensemble = load_onnx(model_path("ensemble"))
errors = {}
for own in (True, False):
    windows = SimulatedRecordings(
        load_head("warp29-ico3"),
        PatchSources(n_sources=(1, 1)),
        SetupRanges(montages=["biosemi64"], own_anatomy=own, displacement=0.0),
        ensemble.head_inputs,
        nominal_head=template,
        tissues=TissueRanges((0.006, 0.006), (0.006, 0.006), (0.4, 0.4), (0.4, 0.4)),
        snr_db=(15, 15),
        batch_size=256,
        split="test",
        seed=3,
    ).batch(0)
    errors["own head" if own else "template"] = metric_values(ensemble, windows)
adaptation = adapt(ensemble, windows.head, windows.data)
inputs = as_tensors(prepare(ensemble.head_inputs, adaptation.head))
adapted = replace(windows, head=adaptation.head, inputs=inputs)
errors["adapted"] = metric_values(ensemble, adapted)
print(
    f"unexplained: {adaptation.residual[0]:.3f} -> {adaptation.residual[1]:.3f}, "
    f"{adaptation.seconds:.0f} s"
)
for name, values in errors.items():
    print(f"{name:10s} {values.mean():.1f} mm")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
names = ["template", "adapted", "own head"]
spread = [errors[name].std() / np.sqrt(len(errors[name])) for name in names]
left.bar(names, [errors[name].mean() for name in names], yerr=spread, color=["C0", "C1", "0.6"])
left.set(ylabel="localization error (mm)")
image = right.imshow(
    adaptation.correction - np.eye(len(adaptation.correction)), cmap="RdBu_r", vmin=-0.3, vmax=0.3
)
right.set(title="correction less identity", xlabel="electrode", ylabel="electrode")
figure.colorbar(image, ax=right)
plt.show()

# %%
# The correction explains windows better that it was not fitted to, and the errors get smaller, by a
# part of the gain that the person's own head would give. With too few windows (try 96) it may
# explain other windows worse, and `adapt` then keeps the nominal head. The black lines are standard
# errors over the windows, which are the same for all three.
#
# Exercises
# ---------
# 1. Use ``noise=(0, 5)`` in `RealRecordings`: the noise covariance of the first five seconds, as if
#    there were no activity. What happens to the predictions, and why?
# 2. Adapt with ``n_steps=3``.
# 3. Adapt to windows of the template itself: what should the correction be?
