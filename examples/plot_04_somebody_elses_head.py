"""
Another person's head: errors without an MRI
============================================

Most EEG has no MRI. The estimate is then made on a template, but the sources lie on another cortex,
at other positions and with other orientations. The scenario ``stranger`` draws such cortices, and
caps that are shifted and rotated.

**You learn** how far another cortex is from the template, how many millimetres of error this adds
to each method, and how to test a method of yours on it.

**Data**: simulated; the ranges were set to the differences of four real heads. **Time**: 40 s.
"""

# %%
# Another cortex
# --------------
# Each source of the template has a counterpart on the drawn cortex. We compare positions and
# normals.

import matplotlib.pyplot as plt
import numpy as np

import deepesi
from deepesi.data_gen.anatomy import AnatomyRanges
from deepesi.data_gen.setups import SetupRanges

head = deepesi.load_head("fsaverage-ico3", n_orient=3)
recordings = deepesi.SimulatedRecordings(
    head,
    setups=SetupRanges(montages=["biosemi64"], anatomy=AnatomyRanges()),
    batch_size=2,
    seed=3,
)
drawn = [recordings.parts(step).anatomy.differences(head) for step in range(4)]
distance, angle = (np.stack(parts)[:, head.is_cortex] for parts in zip(*drawn, strict=True))
print(f"distance: median {1e3 * np.median(distance):.1f} mm")
print(f"angle of the normals: median {np.degrees(np.median(angle)):.0f} degrees")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.hist(1e3 * distance.T, bins=30, histtype="step")
left.set(xlabel="distance from the template (mm)", ylabel="sources")
right.hist(np.degrees(angle).T, bins=30, histtype="step")
right.set(xlabel="angle to the normal of the template (degrees)")

# %%
# The errors in millimetres
# -------------------------
# ``deepesi.evaluate`` runs the scenario at 10 dB. Its four levels are the template itself, with
# digitized electrodes; a typical other cortex with digitized electrodes; the same with a cap placed
# by names; and a cortex that differs strongly. eLORETA with ``_fixed`` assumes sources along the
# normals of the template. ``default`` was trained on other people's heads, ``ensemble`` on the
# template.

methods = ["eloreta", "eloreta_fixed", "dipole_scan"]
rows = deepesi.evaluate(
    {"ensemble": "ensemble", "default": "default"},
    head,
    "stranger",
    methods,
    overrides=["scenario.n_examples=20", "scenario.snr_db=[10]"],
)
errors = [row for row in rows if row.metric == "localization_error"]
levels = list(dict.fromkeys(row.level for row in errors))
value_of = {(row.method, row.level): row.value for row in errors}
table = {
    method: [value_of[method, level] for level in levels]
    for method in dict.fromkeys(row.method for row in errors)
}
for method, values in table.items():
    print(f"{method:22s}", *(f"{value:5.1f}" for value in values), "mm")
missing = {
    method: values[levels.index("typical, cap by names")] - values[0]
    for method, values in table.items()
}
for method, more in missing.items():
    print(f"{method:22s} MRI missing: {more:+.1f} mm")

figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
for method, values in table.items():
    ax.plot(levels, values, "o-", label=method)
ax.set(ylabel="mean localization error (mm)", ylim=(0, None))
ax.legend(fontsize=8)

# %%
# With 20 recordings per level a mean is uncertain by about 3 mm. The full table, with intervals, is
# in :doc:`results </results>`: on a typical other cortex the nearest methods are 15 to 18 mm off at
# 10 dB.
#
# What helps: an MRI (``--forward``); digitized electrodes; if you have neither, free orientation
# and a statement of the uncertainty (:doc:`prediction sets </uncertainty>`).
#
# Exercises
# ---------
# 1. Add ``"eloreta_loose"``. Is its error between those of fixed and free orientation, and on which
#    levels?
# 2. Set the SNR to 0 dB and to 20 dB: when does the head matter more than the noise?
# 3. Test your own network: ``deepesi.evaluate({"mine": model}, ...)``.
