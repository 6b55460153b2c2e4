"""
Uncertainty: ensembles, posterior samples, prediction sets
==========================================================

A map has a peak even if the recording contains noise only. There are three ways to express
uncertainty: the disagreement between members of an ensemble, samples of a posterior, and sets of
sources that contain the true one with a stated probability.

**You learn** what the standard deviation of an ensemble means, to look at posterior samples, to
compute prediction sets by conformal prediction, and to compare their coverage and size.

**Data**: simulated, one patch per recording. **Time**: 40 s.
"""

# %%
# An ensemble
# -----------
# The packaged network ``ensemble`` is an ensemble of three. Its ``std`` combines the uncertainty of
# each member with the differences between members. Is it larger for maps with larger errors?

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import spearmanr

from deepesi import SimulatedRecordings, load_head
from deepesi.baselines.minimum_norm import BayesianMinimumNorm
from deepesi.calibration.conformal import (
    PredictionSets,
    estimated_snr_db,
    reach_kernel,
    source_scores,
    target_scores,
)
from deepesi.core.onnx_model import load_onnx
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.evaluation.scores import apply_model, metric_values
from deepesi.physics.graph import source_areas
from deepesi.physics.noise import rank_of, whitener
from deepesi.runtime.packaged import model_path
from deepesi.viz.maps import draw_maps

template = load_head("fsaverage-ico3")
network, posterior = load_onnx(model_path("ensemble")), BayesianMinimumNorm()


def simulated(n_examples):
    """Recordings under one set-up."""
    return SimulatedRecordings(
        template,
        PatchSources(n_sources=(1, 1)),
        SetupRanges(montages=["biosemi64"], displacement=0.005),
        [*network.head_inputs, *posterior.head_inputs],
        batch_size=n_examples,
        pool_size=1,
        split="test",
        seed=2,
    )


recordings = simulated(100)
correlations = {}
for snr_db in (-5, 5, 15):
    batch = recordings.at_snr(snr_db).batch(0)
    mean, std = apply_model(network, batch)[:2]
    error = metric_values(network, batch)
    share = (std.norm(dim=1) / mean.norm(dim=1))[:, 0].numpy()
    correlations[snr_db] = spearmanr(share, error).statistic
    print(
        f"{snr_db:3d} dB: error {error.mean():4.1f} mm, std {np.median(share):.1f} times the mean; "
        f"rank correlation of the two {correlations[snr_db]:.2f}"
    )

# %%
# A standard deviation is the uncertainty of each *moment*. It is as large as the moments
# themselves, because the recording does not show which of two neighbours is active: each may be
# strong or zero. It is only weakly related to the error of the peak. For the uncertainty of
# locations, use prediction sets (below).
#
# Samples of a posterior
# ----------------------
# Every sample explains the recording equally well. The recording determines what all samples have
# in common; it does not determine what differs between them. The Bayesian minimum norm has a
# Gaussian posterior with many active sources.

batch = recordings.at_snr(10).batch(0).example(5)
samples = posterior.draw(batch.data, batch.inputs, n=100, seed=0)[:, 0, :, 0].numpy()
maps = {"target": batch.sources[0, :, 0].abs().numpy()}
maps |= {f"sample {i}": np.abs(samples[i]) for i in range(2)}
maps["mean of 100"] = np.abs(samples.mean(axis=0))
figure = plt.figure(figsize=(9, 2.4), layout="constrained")
draw_maps(figure, maps, template.display, batch.scene.peaks[0].numpy(), n_views=1)

# %%
# Prediction sets
# ---------------
# Conformal prediction takes any map and recordings with known sources. The score of a source is the
# share of the map on sources that are at least as likely. The threshold that holds 90 % of the
# targets of one half of the recordings holds about 90 % of the other half, for any quality of the
# maps: bad maps have large sets.

test = simulated(400).batch(0)
data = test.data.double().numpy()
head = test.head
snr_db = estimated_snr_db(whitener(head.noise_cov) @ data, rank_of(head.noise_cov))
peaks, moments = test.scene.peaks.numpy(), test.scene.moments.numpy()
kernel, areas = reach_kernel(head.source_pos), source_areas(head.source_pos, head.space.edges)
fit, check = np.arange(0, 400, 2), np.arange(1, 400, 2)
levels = np.array([0.5, 0.6, 0.7, 0.8, 0.9])

curves = {}
for name, model in {"default": network, "Bayesian minimum norm": posterior}.items():
    estimate = apply_model(model, test).mean[..., 0].abs().double().numpy()
    scores = source_scores(estimate, kernel)
    targets = target_scores(scores, peaks, moments)
    covered, size = [], []
    for level in levels:
        sets = PredictionSets.fit(targets[fit], snr_db[fit], level, n_bins=2)
        inside = sets.prediction_sets(scores[check], snr_db[check])
        covered.append(inside[np.arange(len(check)), peaks[check, 0]].mean())
        size.append((inside * areas).sum(axis=1).mean())
    curves[name] = np.array(covered), 1e4 * np.array(size)
    print(f"{name:22s} 90 %: covers {covered[-1]:.0%}, {1e4 * size[-1]:.0f} cm² on average")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for name, (covered, size) in curves.items():
    left.plot(levels, covered, "o-", label=name)
    right.plot(size, covered, "o-")
left.axline((0.5, 0.5), slope=1, color="0.7", linewidth=0.8)
left.set(xlabel="nominal", ylabel="covered, other half")
right.set(xlabel="mean area of the set (cm²)", ylabel="covered", xscale="log")
left.legend(fontsize=8)

# %%
# Both reach the nominal coverage; the better map needs a smaller area. The guarantee holds for
# recordings like these. For other heads, fit the sets on other heads (:doc:`uncertainty
# </uncertainty>`).
#
# Exercises
# ---------
# 1. Fit on 10 dB and check on 0 dB. How much smaller is the coverage? Why do bins of the SNR help?
# 2. Simulate two sources (``n_sources=(2, 2)``). How does ``covers="all"`` change the size of the
#    sets?
# 3. Is the width of the ensemble a good score? Rank recordings by it and plot the error.
