"""
MNE, dSPM, sLORETA and eLORETA on averages, epochs and raw data
===============================================================

The four linear methods of MNE-Python are models of this package, too. They run on recordings of
MNE-Python: an average, single epochs, or raw data in pieces.

**You learn** to estimate a shrunk noise covariance, to apply a method to the three kinds of
recordings, to read peak and residual, and how much averaging helps.

**Data**: simulated, one point source in the left auditory cortex, 80 trials. **Time**: 40 s.
"""

# %%
# A raw recording
# ---------------
# The source answers 80 stimuli at 100 ms, with 20 nA m. Noise of 3 µV hides each single answer.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import mne
import numpy as np

from deepesi import Inverse, load_head
from deepesi.evaluation.solvers import SolverModel
from deepesi.physics.noise import white_noise_cov
from deepesi.physics.sensors import SensorArray
from deepesi.physics.similarity import residual_variance
from deepesi.physics.simulated import simulated_raw
from deepesi.viz.cortex_movie import animate_cortex
from deepesi.viz.maps import draw_maps
from deepesi.viz.movie import GifInPage

mne.set_log_level("ERROR")
template, sfreq, n_trials = load_head("fsaverage-ico3"), 250.0, 80
names, electrodes = template.montage("biosemi64")
sensors = SensorArray.eeg(names, electrodes.positions)
head = template.head(names, electrodes, white_noise_cov(sensors, 3e-6))

source = int(np.nanargmin(np.linalg.norm(template.source_mni - [-45, -24, 10], axis=1)))
onsets = 100 + 150 * np.arange(n_trials)
response = np.exp(-0.5 * ((np.arange(100) / sfreq - 0.1) / 0.015) ** 2)
moments = np.zeros((head.space.n_dipoles, onsets[-1] + 200))
for onset in onsets:
    moments[source, onset : onset + 100] = 20e-9 * response
raw = simulated_raw(head, moments, sfreq, seed=0)
print(raw)

# %%
# Epochs, average, covariance
# ---------------------------
# The covariance comes from the time before the stimulus. Shrinkage (Ledoit-Wolf) makes it
# invertible when there are few samples. It describes *single* trials. Each method divides it by the
# number of averaged trials.

events = np.column_stack([onsets, np.zeros_like(onsets), np.ones_like(onsets)])
epochs = mne.Epochs(raw, events, tmin=-0.2, tmax=0.39, baseline=(None, 0), preload=True)
noise_cov = mne.compute_covariance(epochs, tmax=0, method="ledoit_wolf", rank="info")
evoked = epochs.average()
sample = int(evoked.data.std(axis=0).argmax())
print(f"{evoked.nave} trials, strongest at {1e3 * evoked.times[sample]:.0f} ms")
figure = evoked.plot(show=False)
figure.set_size_inches(8, 2.8)

# %%
# Four methods on the average
# ---------------------------
# ``SolverModel`` takes any name of ``deepesi evaluate baselines=[...]``. The regularization follows
# the SNR of the recording. The residual is the share of power that the estimate does not explain.


def distance_mm(sources):
    """Distance of sources from the true one."""
    away = template.source_pos[sources] - template.source_pos[source]
    return 1e3 * np.linalg.norm(away, axis=-1)


estimates, time_courses, residuals, errors = {}, {}, {}, {}
for name in ("mne", "dspm", "sloreta", "eloreta"):
    prepared = Inverse(SolverModel(name)).for_recording(evoked, noise_cov)
    result = prepared.apply(evoked)
    time_courses[name] = result.stc
    estimates[name] = np.abs(result.stc.data[:, sample])
    explained = head.project(result.stc.data)
    residuals[name] = residual_variance(explained[:, sample], result.data[:, sample])
    strongest = estimates[name].argmax()
    errors[name] = 1e3 * np.linalg.norm(
        template.source_pos[strongest] - template.source_pos[source]
    )
    print(f"{name:8s} peak {errors[name]:3.0f} mm from the source, residual {residuals[name]:.2f}")

figure = plt.figure(figsize=(9, 2.4), layout="constrained")
draw_maps(figure, estimates, template.display, [source], n_views=1)

# %%
# dSPM and sLORETA are statistics, not moments. Here they are scaled by one factor to A m, so that
# all maps have a unit. Scaling does not move the peak, but compare residuals of MNE and eLORETA
# only.
#
# The movies show the same maps over time, every fourth sample of the response.

folder = Path(tempfile.mkdtemp())
movies = {}
for name, stc in time_courses.items():
    shown = stc.copy().crop(0.04, 0.16)
    shown = mne.SourceEstimate(shown.data[:, ::4], shown.vertices, shown.tmin, 4 * shown.tstep)
    movies[name] = animate_cortex(shown, folder / f"{name}.gif", title=name, progress=False)
GifInPage(movies["eloreta"])

# %%
GifInPage(movies["mne"])

# %%
# Single epochs and raw data
# --------------------------
# The prepared model of an average knows its number of trials. Epochs need a model of their own.
# ``apply`` then gives one estimate per epoch, or per piece of 10 s of a raw recording: memory does
# not grow with its length.

by_epoch, by_piece = {}, {}
for name in estimates:
    inverse = Inverse(SolverModel(name))
    prepared = inverse.for_recording(epochs, noise_cov)
    peaks = [np.abs(result.stc.data[:, sample]).argmax() for result in prepared.apply(epochs)]
    by_epoch[name] = distance_mm(peaks)
    by_piece[name] = [result.stc for result in inverse.for_recording(raw, noise_cov).apply(raw)]
    print(
        f"{name:8s} single epochs {np.median(by_epoch[name]):3.0f} mm, average {errors[name]:3.0f} "
        f"mm; raw: {len(by_piece[name])} estimates, "
        f"{sum(len(stc.times) for stc in by_piece[name])} samples"
    )

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.boxplot(list(by_epoch.values()), tick_labels=list(by_epoch))
left.plot([1, 2, 3, 4], list(errors.values()), "C3o", label="average")
left.set(ylabel="error of single epochs (mm)", ylim=(0, 150))
left.legend(loc="upper right", fontsize=8)
for number, pieces in enumerate(by_piece.values()):  # one above the other
    time_course = np.abs(np.concatenate([stc.data[source] for stc in pieces]))[:1000]
    right.plot(np.arange(1000) / sfreq, time_course / time_course.max() + number, linewidth=0.7)
right.set_yticks(np.arange(4) + 0.5, list(by_piece))
for onset in onsets[onsets < 1000]:
    right.axvline(onset / sfreq + 0.1, color="0.5", alpha=0.6)
right.set(xlabel="time (s)", title="raw, at the source; lines: responses")

# %%
# Exercises
# ---------
# 1. Average 5, 20 and 80 trials (``epochs[:5].average()``). How does the error of each method fall?
# 2. Move the source to a deep position, MNI (-10, -50, 5) mm. Which methods find a source that is
#    too superficial?
# 3. Use ``method="empirical"`` with five epochs. What does the error say about the covariance?
# 4. Draw ``result.stc`` with ``stc.plot(...)`` if you have the fsaverage of MNE-Python.
