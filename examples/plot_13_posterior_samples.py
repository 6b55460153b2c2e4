"""
Posterior samples: draw them, read them, test them
==================================================

One map does not show that other configurations explain a recording equally well. A posterior sample
is one whole configuration: skull conductivity, number of sources, and location, size and strength
of each. Many samples together give the probability of a source near a location. Tests on
simulations show whether these probabilities are right.

**You learn** to train a structured posterior, to read its samples, and to check it with ranks and
with expected coverage.

**Data**: simulated. **Time**: 30 s.
"""

# %%
# A short training
# ----------------
# Every probability of `StructuredPosterior` starts from physics: matched filters of the residual of
# the earlier sources. Its 5,000 weights learn the error of head models, the probability of another
# source, and the error of moments. Its loss is the negative log-density of the true configuration,
# in nats. ``python train.py experiment=posterior`` trains longer, on more montages.

import matplotlib.pyplot as plt
import numpy as np
import torch

from deepesi import SimulatedRecordings, load_head
from deepesi.calibration.coverage_tests import expected_coverage, tarp_p, tarp_ranks
from deepesi.calibration.sample_sources import NEAR, sources_of
from deepesi.calibration.sbc import ranks, uniformity
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.models.posterior.structured import StructuredPosterior
from deepesi.viz.samples import draw_posterior

torch.manual_seed(0)
model = StructuredPosterior(n_components=2, n_radii=2)
template = load_head("fsaverage-ico3")
settings = {"declarations": model.head_inputs, "batch_size": 16, "pool_size": 2}
sources, setups = PatchSources(n_sources=(1, 2)), SetupRanges(montages=["biosemi64"])
stream = SimulatedRecordings(template, sources, setups, **settings)


def no_objective(estimate, batch):
    raise AssertionError("the likelihood needs no other objective")


optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=160)
losses = []
for step in range(160):
    terms = model.training_loss(stream.batch(step), no_objective, torch.Generator())
    optimizer.zero_grad()
    terms["loss"].backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    losses.append(terms["loss"].item())
model.eval()
print(
    f"loss of the first ten steps {np.mean(losses[:10]):.1f}, last ten {np.mean(losses[-10:]):.1f}"
)

# %%
# One recording with two sources at 5 dB
# --------------------------------------
# 200 samples. The map shows how many of them have a source within 10 mm; rings are the true
# sources. The bars are the probabilities of the number of sources. Below are four samples, all
# equally probable.

test = SimulatedRecordings(
    template, PatchSources(n_sources=(2, 2)), setups, **settings, snr_db=(5, 5), split="test"
)
batch = test.batch(0).example(0)
positions, edges = batch.head.source_pos, batch.head.space.edges
with torch.no_grad():
    samples = model.draw(batch.data, batch.inputs, 200)[:, 0, :, 0].numpy()
magnitudes = np.abs(samples).astype(float)
summary = sources_of(magnitudes, positions, edges)
figure = plt.figure(figsize=(12, 7), layout="constrained")
draw_posterior(
    figure,
    magnitudes,
    summary.probability,
    summary.count_probabilities,
    NEAR,
    positions,
    template.display,
    batch.scene.peaks[0].numpy(),
)
print("probability of 0, 1, 2 sources:", summary.count_probabilities.round(2))
print(f"90 % set of all sources: {summary.joint_set.sum()} of {len(positions)} locations")

# %%
# Are the samples those of the posterior?
# ---------------------------------------
# On simulated recordings the target is one more sample of the posterior. So its *rank* among
# samples is uniform (simulation-based calibration), and a region of probability 0.6 about any point
# holds it in 60 % of recordings (expected coverage, TARP). Both tests give p values; a small one
# means that the posterior is wrong. We test the skull, and the position of the strongest source.

N_DRAWS = 60
checked, targets = [], []
for number in range(10):
    batch = SimulatedRecordings(template, sources, setups, **settings, split="test").batch(number)
    with torch.no_grad():
        size = model.noise_size(batch.data, batch.inputs)
        noise = torch.randn(N_DRAWS, 16, size, generator=torch.Generator().manual_seed(number))
        drawn = model.sample_configurations(batch.data, batch.inputs, noise)
    for configuration, into in ((drawn, checked), (model.target(batch), targets)):
        sites = configuration.sites(len(positions))[..., 0].numpy()
        skull = 0.05 * configuration.log_skull.numpy()[..., None]  # to the size of a head, m
        into.append(np.concatenate([skull, positions[sites]], axis=2))
checked, targets = np.concatenate(checked, axis=1), np.concatenate(targets, axis=1)[0]

rng = np.random.default_rng(0)
names = ("skull conductivity", "x", "y", "z")
p_values = {}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for column, name in enumerate(names):
    rank = ranks(checked[..., column], targets[:, column], rng)
    p_values[name] = uniformity(rank, N_DRAWS)
    left.plot(np.sort(rank) / N_DRAWS, np.linspace(0, 1, len(rank)), label=name)
left.plot([0, 1], [0, 1], color="0.6", linestyle="--", zorder=0)
left.set(xlabel="rank of the target", ylabel="share of recordings", title="ranks")
left.legend(fontsize=8)
shares = tarp_ranks(checked, targets, rng.permutation(targets))
p_values["TARP"] = tarp_p(shares, N_DRAWS, rng)
levels = np.linspace(0, 1, 21)
coverage = expected_coverage(shares, levels)
right.plot(levels, coverage, color="C3")
right.plot([0, 1], [0, 1], color="0.6", linestyle="--", zorder=0)
right.set(xlabel="nominal level", ylabel="covered", title="expected coverage")
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
print({name: round(p, 3) for name, p in p_values.items()})

# %%
# A p value is the probability that a correct posterior gives ranks at least as uneven as these. A
# value below 0.05 is evidence against the posterior. A larger one does not prove that it is
# correct: with more recordings the tests detect smaller errors. TARP tests all parameters together.
#
# Exercises
# ---------
# 1. Take 20 dB. How small is the joint set, and how certain is the number of sources?
# 2. Draw from the untrained model. Which test first gives a small p value?
# 3. Give the simulation one skull: ``tissues=TissueRanges(skull_conductivity=(0.01, 0.01))``. What
#    do the ranks of the skull show?

plt.show()
