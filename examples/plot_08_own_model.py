"""
Write your own model
====================

A model declares which arrays it needs from the head, and maps recordings to estimates. Training,
evaluation, export and application to recordings need nothing else from it.

**You learn** to write an `InverseModel`, to train it, to compare it, and to export it.

**Data**: simulated by the training itself. **Time**: 30 s.
"""

# %%
# The model
# ---------
# Ours mixes eLORETA maps of three regularizations, which a head input provides. A small network
# reads the power of the recording, in units of noise, and gives their weights. Then every source is
# multiplied by (its size / the largest size) to a learned power: weak sources get weaker. The model
# has 44 weights, works with any head, and scales as the contract requires: twice the recording and
# four times the noise covariance give twice the estimate.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import deepesi
from deepesi.core.contracts import Estimate, InverseModel
from deepesi.metrics.table import METRICS
from deepesi.physics.head_inputs import LinearInverse, Whitener


class Sharpened(InverseModel):
    """Mixture of eLORETA maps, sharpened by a learned exponent."""

    bound_to_space = False

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.kernels = LinearInverse(method="eLORETA", snr_db_low=0.0, snr_db_step=10.0, n_steps=3)
        self.whitener = Whitener()
        self.head_inputs = (self.kernels, self.whitener)
        self.mix = nn.Sequential(nn.Linear(1, hidden), nn.GELU(), nn.Linear(hidden, 3))
        self.exponent = nn.Parameter(torch.zeros(1))

    def shares(self, power):
        """Weights of the three maps, of the whitened power of a sample."""
        return torch.softmax(self.mix(power.log()[..., None]), dim=-1)

    def forward(self, data, inputs):
        power = (inputs[self.whitener.key] @ data).square().mean(1)  # (B, T); 1: noise
        maps = inputs[self.kernels.key] @ data[:, None]  # (B, 3, D, T), A m
        mean = (maps * self.shares(power).movedim(-1, 1)[:, :, None]).sum(1)
        share = mean.abs() / mean.abs().amax(1, keepdim=True).clamp_min(1e-30)
        return Estimate(mean * share ** torch.exp(self.exponent))


# %%
# Training
# --------
# ``deepesi.train`` takes the object. ``overrides`` are the settings of ``deepesi train``. The run
# directory holds weights, curves, and an exported file.

folder = Path(tempfile.mkdtemp())
torch.manual_seed(0)
run = deepesi.train(
    Sharpened(),
    max_steps=100,
    out=folder / "run",
    overrides=[
        "data.batch_size=64",
        "trainer.learning_rate=0.03",
        "trainer.n_validation_batches=2",
        "export=false",
    ],
)
model = run.model()
print(sorted(path.name for path in run.folder.iterdir()))
print(f"sharpened by the power {model.exponent.exp().item():.1f}")

snr_db = np.linspace(-5, 20, 26)
with torch.no_grad():
    mixture = model.shares(torch.as_tensor(1 + 10 ** (snr_db / 10), dtype=torch.float32)).numpy()
figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.plot(snr_db, mixture, label=["for 0 dB", "for 10 dB", "for 20 dB"])
ax.set(xlabel="SNR of the recording (dB)", ylabel="weight", title="learned mixture of eLORETA maps")
ax.legend()

# %%
# Comparison
# ----------
# All methods get the same recordings.

rows = run.evaluate(
    "snr", ["eloreta"], overrides=["scenario.n_examples=40", "scenario.snr_db=[0,10,20]"]
)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
table = {}
for ax, metric in zip(axes, ("localization_error", "nemd"), strict=True):
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if (row.method, row.metric) == (method, metric)]
        table[method, metric] = [row.value for row in own]
        ax.plot([row.snr_db for row in own], table[method, metric], "o-", label=method)
        print(f"{metric:18s} {method:12s}", *(f"{row.value:6.2f}" for row in own))
    ax.set(xlabel="SNR (dB)", ylabel=METRICS[metric].label, ylim=(0, None))
axes[0].legend()

# %%
# After 6,400 examples the model has smaller errors than eLORETA at 10 and 20 dB, and its nEMD is
# half as large. The second follows from the training: the loss compares maps with small patches. A
# method that uses such an assumption about the size of sources must state it.

# %%
# Export
# ------
# The file holds the declared head inputs, so it runs on any montage where torch is not installed.

path = deepesi.export_onnx(model, run.head, folder / "sharpened.onnx", montage="biosemi32")
inverse = deepesi.Inverse.load(path)
print(
    path.name,
    f"{path.stat().st_size / 1e3:.0f} kB;",
    *(d.key for d in inverse.contract.head_inputs),
)

# %%
# To share it, put the class into a package of its own (:doc:`plugins </plugins>`); then ``deepesi
# train model=NAME`` can use it.
#
# Exercises
# ---------
# 1. Replace eLORETA by sLORETA or MNE. Which weights does the network learn?
# 2. Add a standard deviation: return ``Estimate(mean, std)`` and train with ``loss=uncertainty``.
# 3. Declare ``MeshNeighbours`` and mix the maps of neighbours.
