"""
A network as a beamformer: a spatial filter per source
======================================================

A beamformer gives every source a filter: weights of the sensors that pass this source and suppress
the others. LCMV computes them from the covariance of the recording. ``model=transformer`` computes
them with a network, from the same recording and lead field. The network of this page has its
initial weights: it is not trained.

**You learn** to localize a burst in a single second of noise, to read the filters of a network, the
effect of correlated sources on a beamformer, and the gain of longer windows.

**Data**: simulated, bursts of 4 to 40 Hz in windows of up to 1 s. **Time**: 60 s.
"""

# %%
# A burst in one second
# ---------------------
# One source per recording, 64 electrodes, -5 dB: the noise has three times the power of the signal.
# The true head has another skull and other electrode positions than the one that all methods get.
# With its initial weights the network compares the recording with the potential of every patch and
# prefers the best. ``python train.py experiment=transformer`` trains it.

import matplotlib.pyplot as plt
import numpy as np
import torch

from deepesi import SimulatedRecordings, load_head
from deepesi.baselines.beamformer import LCMV
from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.data_gen.waveforms import Burst, Mixture
from deepesi.evaluation.scores import apply_model, metric_values
from deepesi.models.transformer import SourceTransformer
from deepesi.viz.maps import draw_maps
from deepesi.viz.scalp import draw_scalp

torch.manual_seed(0)
template = load_head("fsaverage-ico3")
network = SourceTransformer().eval()
methods = {"LCMV": LCMV(), "eLORETA": MinimumNorm("eLORETA"), "transformer, untrained": network}


def simulated(n_sources, n_times, snr_db, correlation=0.0, n_examples=16):
    """Recordings under one set-up."""
    sources = PatchSources(
        n_sources=(n_sources, n_sources),
        correlation=(correlation, correlation),
        time_course=Mixture([Burst()]),
    )
    return SimulatedRecordings(
        template,
        sources,
        SetupRanges(montages=["biosemi64"], displacement=0.005),
        [d for method in methods.values() for d in method.head_inputs],
        snr_db=(snr_db, snr_db),
        batch_size=n_examples,
        n_times=n_times,
        pool_size=1,
        split="test",
        seed=4,
    ).batch(0)


def errors_of(batch):
    """Localization error of every recording by method, mm."""
    return {name: metric_values(method, batch) for name, method in methods.items()}


one = simulated(1, 250, -5.0)
errors = errors_of(one)
for name, values in errors.items():
    print(f"{name:12s} {values.mean():5.1f} mm")

# %%
# The filter of a source
# ----------------------
# ``return_attention=True`` also gives the filters: one weight per sensor and source, and the
# estimate is their product with the whitened data. Left: the scalp potential of the true source.
# Right: the filter of the strongest source of the network.

with torch.no_grad():
    estimate, attention = network(one.data, one.inputs, return_attention=True)
example = 0
true = int(one.scene.peaks[example, 0])
power = estimate.mean[example].square().sum(1)
strongest = int(power.argmax())
whitener = one.inputs[network.whitener.key]
pictures = {
    "lead field of the true source": one.head.leadfield[:, true],
    "filter of the strongest source": (attention.filters[example, strongest] @ whitener).numpy(),
}
figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
for ax, (title, values) in zip(axes, pictures.items(), strict=True):
    draw_scalp(ax, values, one.head.sensors.positions, one.head.sensors.names)
    ax.set_title(title)
leadfield = (whitener @ torch.as_tensor(one.head.leadfield[:, true]).float()).numpy()
row = attention.filters[example, strongest].numpy()
similarity = abs(row @ leadfield) / np.linalg.norm(row) / np.linalg.norm(leadfield)
print(f"cosine of filter and lead field: {similarity:.2f}")

# %%
# The largest weights are over the source. The filter is not the lead field: several neighbouring
# patches could explain the recording, the network first removes other components, and it gives
# sensors a smaller weight where errors of the head model are large.
#
# The same recording on the cortex. The ring marks the source.

maps = {"target": one.sources[example].square().mean(1).sqrt().numpy()}
for name, method in methods.items():
    moments = apply_model(method, one).mean[example]
    maps[name] = moments.square().mean(1).sqrt().numpy()
figure = plt.figure(figsize=(8, 4.2), layout="constrained")
draw_maps(figure, maps, template.display, [true])

# %%
# Two correlated sources
# ----------------------
# The inverse covariance of LCMV suppresses all other active sources, also a correlated one. The
# network projects out one component before it estimates the next. Its errors are smaller than those
# of both methods, but still large: two bursts that are nearly the same are hard to distinguish from
# one.

two = errors_of(simulated(2, 250, 0.0, correlation=0.9))
for name, values in two.items():
    print(f"{name:12s} {values.mean():5.1f} mm with two sources, 0 dB")

# %%
# Longer windows
# --------------
# Averaging ``T`` samples of a constant source raises its SNR by ``10 log10 T`` dB. Bursts are not
# constant and fill only a part of the window, so they gain less.

lengths = (1, 5, 20, 100, 250)
by_length = [errors_of(simulated(1, n_times, 0.0)) for n_times in lengths]
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name in methods:
    ax.plot(lengths, [errors[name].mean() for errors in by_length], "o-", label=name)
ax.set(xscale="log", xlabel="samples in a window", ylabel="localization error (mm)", ylim=(0, None))
ax.legend()
for n_times, row in zip(lengths, by_length, strict=True):
    print(f"{n_times:4d} samples:", *(f"{name} {row[name].mean():.1f} mm" for name in methods))

# %%
# Exercises
# ---------
# 1. Give the network wavelets: ``SourceTransformer(features=Morlet())``, with `Morlet` of
#    ``deepesi.models.layers.features``. Which share of the covariance is broadband then?
# 2. Use ``time_course=None``, whose sources are active for much of the window, in `simulated`. Do
#    longer windows help more?
# 3. Draw ``attention.sensors`` of one source before and after ``network.reliability`` is
#    applied to a recording at 20 dB.
