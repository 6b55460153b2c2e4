"""
Animate coefficients of a classifier
====================================

A classifier of epochs has one weight for each electrode and time. Weights are not sources: an
electrode may get a weight only to cancel noise. Two electrodes share noise. Subtracting one from
the other removes it, so both get weights, even if the source has an effect on one of them only.
Multiplied by the covariance of the data they become a pattern, which looks like the potential of
the source (Haufe et al. 2014, doi:10.1016/j.neuroimage.2013.10.067).

**You learn** to decode two conditions at every time, to turn weights into patterns, to write both
as movies, and to localize a pattern and show that as a movie, too.

**Data**: simulated, 60 trials of each condition. **Time**: 30 s.
"""

# %%
# Two conditions
# --------------
# Condition 1 has a source in the left motor cortex at 150 ms, condition 0 has none.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import mne
import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from deepesi import load_head
from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.core.invert import invert
from deepesi.physics.noise import brain_noise_cov
from deepesi.physics.simulated import simulated_raw
from deepesi.viz.cortex_movie import animate_cortex
from deepesi.viz.movie import GifInPage
from deepesi.viz.scalp_movie import animate_scalp

template, sfreq, n_trials, n_times = load_head("fsaverage-ico3"), 100.0, 60, 30
names, electrodes = template.montage("biosemi32")
nominal = template.head(names, electrodes)
cov = brain_noise_cov(nominal.leadfield, nominal.sensors, 3e-6, np.ones(template.space.n_dipoles))
head = template.head(names, electrodes, cov)
source = int(np.nanargmin(np.linalg.norm(template.source_mni - [-40, -25, 55], axis=1)))
times = np.arange(n_times) / sfreq
response = 30e-9 * np.exp(-0.5 * ((times - 0.15) / 0.03) ** 2)
moments = np.zeros((template.space.n_dipoles, 2 * n_trials * n_times))
moments[source] = np.tile(np.r_[response, np.zeros(n_times)], n_trials)
data = simulated_raw(head, moments, sfreq).get_data()
trials = data.reshape(len(names), 2 * n_trials, n_times).transpose(1, 0, 2)  # (N, C, T)
condition = np.tile([1, 0], n_trials)

# %%
# Weights and patterns
# --------------------

weights, patterns, accuracy = [], [], []
for t in range(n_times):
    x = 1e6 * trials[:, :, t]
    classifier = LogisticRegression(C=0.1, max_iter=500)
    accuracy.append(cross_val_score(classifier, x, condition, cv=5).mean())
    weights.append(classifier.fit(x, condition).coef_[0])
    patterns.append(np.cov(x.T) @ weights[-1])
weights, patterns = np.array(weights), np.array(patterns)
topography = head.leadfield[:, source]
best = int(np.argmax(accuracy))
similarity = {
    name: abs(np.corrcoef(values[best], topography)[0, 1])
    for name, values in {"weights": weights, "patterns": patterns}.items()
}
print(f"best at {1e3 * times[best]:.0f} ms, accuracy {accuracy[best]:.2f}")
print("correlation with the potential of the source:", similarity)

figure, ax = plt.subplots(figsize=(5, 2.8), layout="constrained")
ax.plot(1e3 * times, accuracy)
ax.axhline(0.5, color="0.7")
ax.set(xlabel="time (ms)", ylabel="accuracy (5 folds)", ylim=(0.3, 1))

# %%
# The classifier finds the source from 140 to 180 ms. Its weights are not similar to the potential
# of the source; the pattern is.
#
# Movies of the scalp
# -------------------
# ``animate_scalp`` takes any values ``(times, electrodes)``. All frames have one colour scale. An
# ``.mp4`` is smaller; a ``.gif`` plays everywhere.

folder = Path(tempfile.mkdtemp())
files = {}
for name, values, unit in (("weights", weights, "1/µV"), ("patterns", patterns, "µV")):
    files[name] = animate_scalp(
        values,
        head.sensors.positions,
        times,
        folder / f"{name}.gif",
        label=unit,
        title=name,
        progress=False,
    )
figure, axes = plt.subplots(2, 4, figsize=(9, 4), layout="constrained")
for row, path in zip(axes, files.values(), strict=True):
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")
    movie = Image.open(path)
    for ax, frame in zip(row, (6, 12, 15, 24), strict=True):
        movie.seek(frame)
        ax.imshow(movie.convert("RGB"))
        ax.axis("off")

# %%
# The movie itself, in this page and in notebooks:

GifInPage(files["patterns"])

# %%
# A movie of the cortex
# ---------------------
# A pattern is a potential (here in µV), so an inverse method can localize it. Weights cannot be
# localized. ``animate_cortex`` takes a source estimate of MNE-Python.

mean = invert(MinimumNorm("eLORETA"), head, 1e-6 * patterns.T).mean[0].numpy()
stc = mne.SourceEstimate(mean, list(template.space.vertices), times[0], 1 / sfreq)
strongest = int(np.abs(mean[:, best]).argmax())
error = 1e3 * np.linalg.norm(template.source_pos[strongest] - template.source_pos[source])
print(f"strongest source at the best time: {error:.0f} mm from the simulated one")
cortex = animate_cortex(stc, folder / "cortex.gif", title="pattern", progress=False)
figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
movie = Image.open(cortex)
for ax, frame in zip(axes, (6, best, 24), strict=True):
    movie.seek(frame)
    ax.imshow(movie.convert("RGB"))
    ax.axis("off")

# %%
GifInPage(cortex)

# %%
# Exercises
# ---------
# 1. Make the noise white (leave ``cov`` out). Why are weights and patterns similar now?
# 2. Weaken the penalty (``C=10``). What happens to the weights, and to the patterns?
# 3. Localize the weights as if they were a potential. How far off are they?
