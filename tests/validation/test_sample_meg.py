"""The auditory response of the sample subject by MEG: what three trials can show."""

import mne
import numpy as np
import pytest
from mne.cov import compute_whitener

from benchmarks.sample_meg import DIPOLE, OPPOSITE, SAME, in_windows, read


def test_every_hemisphere_has_its_own_window():
    times = np.array([OPPOSITE[0], OPPOSITE[1], SAME[1]])
    moments = np.array([[3.0, 4.0, 9.0], [9.0, 9.0, 5.0]])
    moments[1, 1] = 0.0
    positions = np.array([[40.0, 0, 0], [-40.0, 0, 0]])
    found = in_windows(moments, times, positions, 1).values
    assert np.allclose(found, [np.sqrt(12.5), np.sqrt(12.5)])  # the second has 0 and 5


@pytest.mark.slow
def test_a_dipole_at_the_known_location_explains_little_of_three_trials(sample_data):
    """As in docs/meg.md: whitened power of MEG at 80 ms, and shares of it."""
    evoked, cov, forward, _ = read(sample_data, "Left Auditory")
    evoked.pick(["meg"], exclude="bads").apply_proj(verbose="error")
    whitener, _, rank = compute_whitener(cov, evoked.info, return_rank=True, verbose="error")
    to_mri = mne.transforms.invert_transform(forward["mri_head_t"])["trans"]
    both = 1e-3 * np.array([DIPOLE, DIPOLE * [-1, 1, 1]])
    up = np.array([[0, 0, 1.0], [0, 0, 1.0]])
    src = mne.setup_volume_source_space(pos={"rr": both, "nn": up}, verbose="error")
    src[0]["rr"], src[0]["coord_frame"] = mne.transforms.apply_trans(to_mri, both), np.array(5)
    bem = sample_data / "subjects/sample/bem/sample-320-320-320-bem-sol.fif"
    solution = mne.make_forward_solution(
        evoked.info, forward["mri_head_t"], src, bem, eeg=False, mindist=0, verbose="error"
    )
    data = np.sqrt(evoked.nave) * whitener @ evoked.data[:, np.abs(evoked.times - 0.08).argmin()]
    power = (data**2).sum()
    shares = []
    for columns in np.split(whitener @ solution["sol"]["data"], 2, axis=1):
        directions = np.linalg.svd(columns, full_matrices=False)[0][:, :2]
        shares.append(((directions.T @ data) ** 2).sum() / power)
    assert power / rank == pytest.approx(1.7, abs=0.05)
    assert shares[0] == pytest.approx(0.05, abs=0.01)
    assert shares[1] < 0.01
