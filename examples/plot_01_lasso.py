"""
LASSO lab: regression of scalp potentials on the lead field
===========================================================

The lead field ``X`` has one row for each electrode and one column for each source. The
recording ``Y`` has one row for each electrode and one column for each time. Source estimation
is the regression ``Y ≈ X W``, with 64 rows and 1,284 unknowns.

**You learn** to choose the strength of ridge and LASSO by their prediction of electrodes that were
left out, what sparsity costs, and how a group penalty joins time points.

**Data**: simulated, two patches of cortex. **Time**: 10 s.
"""

# %%
# A recording and its lead field
# ------------------------------
# Two patches are active in 20 samples, at 4 dB. The generator renders them through a lead field
# with other tissues and displaced electrodes. We only know the nominal one, as with a real subject.

import matplotlib.pyplot as plt
import numpy as np

from deepesi import SimulatedRecordings, load_head
from deepesi.baselines.sparse_regression import SparseRegression
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.physics.graph import distances_mm
from deepesi.physics.noise import rank_of, whitener
from deepesi.viz.maps import draw_maps

template = load_head("fsaverage-ico3")
recordings = SimulatedRecordings(
    template,
    PatchSources(n_sources=(2, 2), radius=(0.01, 0.015), min_distance=0.06),
    SetupRanges(montages=["biosemi64"], displacement=0.003),
    snr_db=(4, 4),
    n_times=20,
    batch_size=1,
    seed=0,
)
batch = recordings.batch(0)
head, centres = batch.head, batch.scene.peaks[0].numpy()
data, target = batch.data[0].double().numpy(), batch.sources[0].double().numpy()

white, rank = whitener(head.noise_cov), rank_of(head.noise_cov)
X, Y = white @ head.leadfield, white @ data
peak = int((Y**2).sum(axis=0).argmax())
y = Y[:, [peak]]
print(f"X: {X.shape}, Y: {Y.shape}; strongest sample: {peak}")

# %%
# Whitening gives noise of unit variance in every direction. So all electrodes count alike, and the
# length of ``y`` says how far the signal is above the noise.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(Y.T, color="0.4", linewidth=0.6)
left.axvline(peak, color="C3")
left.set(xlabel="sample", ylabel="whitened potential", title="recording")
right.plot(np.linalg.svd(X, compute_uv=False), ".-")
right.set(
    xlabel="number", ylabel="singular value", yscale="log", title="lead field", ylim=(1e7, None)
)

# %%
# Electrodes that were left out
# -----------------------------
# A good map predicts electrodes that it has not seen. We fit 51 electrodes and predict the other
# 13, for every strength, five times. ``curve`` returns the mean R² there.

methods = {"ridge": SparseRegression(l1_ratio=0.0), "LASSO": SparseRegression(l1_ratio=1.0)}
curves = {name: method.curve(y, X) for name, method in methods.items()}

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for name, curve in curves.items():
    left.semilogx(curve.alphas / curve.alphas[0], curve.r2, ".-", label=name)
    right.loglog(curve.alphas / curve.alphas[0], np.maximum(curve.n_active, 0.5), ".-", label=name)
left.axhline(0, color="0.7", linewidth=0.8)
left.set(xlabel="strength / largest", ylabel="R² at held-out electrodes", ylim=(-0.5, 1))
right.set(xlabel="strength / largest", ylabel="sources that are not zero")
left.legend()
for name, curve in curves.items():
    best = int(curve.r2.argmax())
    print(f"{name}: R² {curve.r2[best]:.2f} with {curve.n_active[best]} of {X.shape[1]} sources")

# %%
# Both maps predict new electrodes equally well, so the data cannot tell whether few or many sources
# are active. Sparsity is our assumption. With a strong penalty everything is zero, with a
# weak one noise is fitted and R² falls. The last singular value of the lead field is zero
# (not drawn), because the average reference takes one dimension.
#
# One split by hand shows what R² measures.

held_out = np.arange(64) % 5 == 0
fitted = methods["LASSO"].solve(y[~held_out], X[~held_out], 1, rank).mean
predicted, seen = X[held_out] @ fitted, y[held_out]
r2 = 1 - ((seen - predicted) ** 2).sum() / ((seen - seen.mean()) ** 2).sum()
figure, ax = plt.subplots(figsize=(3.4, 3.2), layout="constrained")
ax.plot(seen, predicted, "o")
ax.axline((0, 0), slope=1, color="0.7", linewidth=0.8)
ax.set(xlabel="recorded", ylabel="predicted", title=f"13 held-out electrodes, R² {r2:.2f}")

# %%
# One set of sources for all times
# --------------------------------
# LASSO of each sample alone switches sources on and off. The group penalty (``l21``) sets a source
# to zero at all times or at none. ``SparseRegression`` uses it whenever there are several samples.

alone = np.column_stack(
    [methods["LASSO"].solve(Y[:, [t]], X, 1, rank).mean[:, 0] for t in range(Y.shape[1])]
)
together = methods["LASSO"].solve(Y, X, 1, rank).mean
n_alone, n_together = ((w != 0).any(axis=1).sum() for w in (alone, together))
print(f"sources that are used at any time: alone {n_alone}, together {n_together}")

figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), sharey=True, layout="constrained")
for ax, (title, moments) in zip(
    axes, {"target": target, "LASSO": alone, "group LASSO": together}.items(), strict=True
):
    strongest = np.abs(moments).max(axis=1).argsort()[-5:]
    ax.plot(moments[strongest].T / np.abs(moments).max())
    ax.set(title=f"{title}: five strongest", xlabel="sample")

# %%
# On the cortex
# -------------
# Rings mark the centres of the two patches. LASSO puts a patch into a few points, ridge spreads it.

maps = {
    "target": target[:, peak],
    "ridge": methods["ridge"].solve(y, X, 1, rank).mean[:, 0],
    "LASSO": alone[:, peak],
    "group LASSO": together[:, peak],
}
figure = plt.figure(figsize=(9, 4), layout="constrained")
draw_maps(
    figure, {name: np.abs(values) for name, values in maps.items()}, template.display, centres
)
errors = {
    name: distances_mm(head.source_pos[[np.abs(values).argmax()]], head.source_pos[centres]).min()
    for name, values in maps.items()
}
for name, error in errors.items():
    print(f"{name}: strongest source {error:.0f} mm from the nearer centre")

# %%
# Exercises
# ---------
# 1. Change ``seed``: in how many of ten recordings is LASSO nearer than ridge?
# 2. Set ``snr_db=(0, 0)``. What happens to the best strength, and to R²?
# 3. Try an elastic net, ``SparseRegression(l1_ratio=0.5)``.
# 4. Use ``shapes=["point"]`` in `PatchSources`. Which method gains?
# 5. Fit without whitening (``X = head.leadfield``, ``Y = data``): when does it matter?
