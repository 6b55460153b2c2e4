"""
Several sources: methods, their number, and the convergence of a sampler
========================================================================

Two or three patches are active at once. A method that searches them one after the other makes
errors: when it searches the first source, it does not account for the others. A sampler changes one
patch at a time and keeps the others fixed, until the whole configuration explains the recording.

**You learn** the errors of methods with several sources, to read the posterior of the number of
sources, and to check with R-hat whether chains agree.

**Data**: simulated, 12 recordings of 20 samples, each on two heads. **Time**: 60 s.
"""

# %%
# The same recordings on two heads
# --------------------------------
# The generator draws other tissues and displaced electrodes, so the nominal lead field of the
# analyst is wrong ("head mismatch"). With the same sources and noise, but the potential of the
# nominal lead field, it is right ("matched head").

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch

from deepesi import SimulatedRecordings, load_head
from deepesi.baselines.bayes_patches import BayesPatches
from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.baselines.music import RecursiveMUSIC
from deepesi.core.onnx_model import load_onnx
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.evaluation.scores import apply_model, metric_values
from deepesi.models.annealed_patches import AnnealedPatches
from deepesi.models.unrolled_champagne import UnrolledChampagne
from deepesi.runtime.packaged import model_path
from deepesi.viz.maps import draw_maps

sampler = BayesPatches(n_sources=(1, 4), n_chains=8, n_annealed=24, n_kept=8)
methods = {
    "eLORETA": MinimumNorm("eLORETA"),
    "RAP-MUSIC": RecursiveMUSIC(n_sources=3),
    "ensemble": load_onnx(model_path("ensemble")),
    "annealed": AnnealedPatches(),
    "Champagne": UnrolledChampagne(),
    "sampler": sampler,
}
template = load_head("fsaverage-ico3")
stream = SimulatedRecordings(
    template,
    PatchSources(n_sources=(2, 3)),
    SetupRanges(montages=["biosemi64"], displacement=0.005),
    [declared for method in methods.values() for declared in method.head_inputs],
    snr_db=(10, 10),
    n_times=20,
    batch_size=12,
    split="test",
    seed=2,
)
parts = stream.parts(0)
wrong = parts.batch
nominal = torch.as_tensor(wrong.head.leadfield, dtype=torch.float32)
matched = replace(wrong, data=nominal @ wrong.sources + parts.noise)
recordings = {"matched head": matched, "head mismatch": wrong}
number = (wrong.scene.peaks >= 0).sum(1).numpy()
print("sources:", number)

# %%
# Six methods
# -----------
# ``ensemble`` is a packaged network. Annealed patches (``model=annealed_patches``) are a short,
# deterministic sampler. Champagne (``model=unrolled_champagne``) is sparse Bayesian learning over
# patches. It stops after 14 updates, and assumes that a part of the signal is an error of the head
# model. RAP-MUSIC selects the source whose potential fits the signal best, removes it from the
# recording, and searches the next one. Annealed patches and Champagne are networks with few
# weights, here without any training. The sampler (``bayes_patches``) takes longest, although it has
# fewer chains and sweeps here than by default.

errors = {
    (head, name): metric_values(method, batch)
    for head, batch in recordings.items()
    for name, method in methods.items()
}
for name in methods:
    means = (f"{head} {errors[head, name].mean():4.1f} mm" for head in recordings)
    print(f"{name:16s}", *means)

figure, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
columns = np.arange(len(methods))
for offset, head in zip((-0.2, 0.2), recordings, strict=True):
    ax.bar(columns + offset, [errors[head, name].mean() for name in methods], 0.36, label=head)
    for column, name in zip(columns + offset, methods, strict=True):
        ax.plot(np.full(len(number), column), errors[head, name], ".", color="0.3", markersize=3)
ax.set_xticks(columns, methods)
ax.set(ylabel="localization error (mm)")
ax.legend()

# %%
# eLORETA has the largest errors on either head. Annealed patches, Champagne and the sampler have
# the smallest. The means of 12 recordings are uncertain by several millimetres, so these three
# cannot be ranked. With head mismatch the errors of all three are more than twice as large, because
# they assume that the lead field is correct.
#
# One recording with three sources. Rings mark their centres.

shown = matched.example(int(np.flatnonzero(number == 3)[0]))
sample = int(shown.data[0].square().sum(0).argmax())
maps = {"target": shown.sources[0, :, sample].abs().numpy()}
for name in ("eLORETA", "ensemble", "Champagne", "sampler"):
    maps[name] = apply_model(methods[name], shown).mean[0, :, sample].abs().numpy()
figure = plt.figure(figsize=(9, 4.2), layout="constrained")
peaks = shown.scene.peaks[0].numpy()
draw_maps(figure, maps, template.display, peaks)
n_shown = {name: int((values[peaks] > 0.1 * values.max()).sum()) for name, values in maps.items()}
print("sources with at least a tenth of the largest magnitude:", n_shown)

# %%
# How many sources?
# -----------------
# In the prior, one to four sources are equally likely. The posterior gives the probability of each
# number, given the recording.

posteriors = {
    head: sampler.sample_patches(batch.data, batch.inputs) for head, batch in recordings.items()
}
probabilities = {head: found.n_sources().numpy() for head, found in posteriors.items()}
too_many = {}
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
for ax, (head, shares) in zip(axes, probabilities.items(), strict=True):
    for n in (2, 3):
        ax.plot(range(1, 5), shares[number == n, 1:].mean(0), "o-", label=f"{n} simulated")
    ax.set(title=head, xlabel="number of sources", xticks=range(1, 5))
    of_true = shares[np.arange(len(number)), number]
    too_many[head] = 1 - shares.cumsum(1)[np.arange(len(number)), number]
    print(f"{head}: true number {of_true.mean():.0%}, more {too_many[head].mean():.0%}")
axes[0].set(ylabel="mean probability", ylim=(0, 1))
axes[0].legend()

# %%
# The sampler does not find too few sources, but often too many, and more often with head mismatch:
# it explains errors of the nominal lead field by another patch. Read the number as "how many
# patches explain the recording through this lead field".
#
# Do the chains agree?
# --------------------
# All chains of a recording sample the same posterior, so they should reach configurations of equal
# evidence. R-hat compares the spread between chains with that within them. It is 1 if they agree;
# above 1.1 they do not, and some are stuck in a local maximum.

agree = {head: found.r_hat.numpy() < 1.1 for head, found in posteriors.items()}
nearer = {}
for head, yes in agree.items():
    own = errors[head, "sampler"]
    nearer[head] = own[yes].mean(), own[~yes].mean()
    print(f"{head}: chains agree in {yes.sum()} of {len(yes)} recordings,", end=" ")
    print("{:.1f} mm off there, {:.1f} mm elsewhere".format(*nearer[head]))
    print(f"  farthest off where they agree: {own[yes].max():.1f} mm")

longer = BayesPatches(n_sources=(1, 4), n_chains=8, n_annealed=96, n_kept=8)
found = longer.sample_patches(wrong.data, wrong.inputs)
n_agree = int((found.r_hat < 1.1).sum())
print(f"head mismatch, four times the annealing: chains agree in {n_agree} recordings")

# %%
# Where chains agree, the errors are smaller. With longer annealing more chains agree. But agreement
# is no proof: all chains can be stuck in the same local maximum, and R-hat does not detect a wrong
# lead field. On the matched head, they agree on one source too many in some recordings.
#
# What to use? Here sources are patches along the normals of the template. Annealed patches and
# Champagne have errors like the sampler, and Champagne takes a tenth of the time of annealed
# patches. On other people's heads annealed patches have smaller errors with two or three sources
# (:doc:`decision 14 </decisions/0014-unrolled-champagne>`). With one source the trained matched
# filters have smaller errors. How to compare methods yourself: :doc:`evaluation </evaluation>`.
#
# Exercises
# ---------
# 1. Use 0 dB and 20 dB (``stream.at_snr``). When does head mismatch add more error than noise?
# 2. Give the sampler more radii (``n_radii=8``). Does it still find too many sources?
# 3. Make the time courses equal (``correlation=(1, 1)``). What happens to RAP-MUSIC, and why?
