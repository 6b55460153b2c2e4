"""Windows over each other: every sample is covered, and what needs no window does not notice."""

import numpy as np
import pytest

from deepesi.runtime.windows import overlap_add, windows_of


@pytest.mark.parametrize("n_times", [1, 2, 19, 20, 21, 39, 40, 57, 400])
@pytest.mark.parametrize("longest", [None, 1, 2, 3, 20])
def test_what_takes_samples_one_by_one_does_not_notice(n_times, longest):
    rng = np.random.default_rng(0)
    data, kernel = rng.normal(size=(4, n_times)), rng.normal(size=(7, 4))
    seen = []

    def run(windows):
        seen.append(windows.shape)
        return [kernel @ windows, np.abs(kernel @ windows)]

    whole = kernel @ data
    for first, last in ((0, n_times), (n_times // 3, n_times // 3 + 1 + n_times // 2)):
        windows = windows_of(n_times, longest, first, last)
        found, magnitude = overlap_add(run, data[:, windows.starts[0] : windows.stop], windows)
        np.testing.assert_allclose(found, whole[:, first:last], atol=1e-12)
        np.testing.assert_allclose(magnitude, np.abs(whole)[:, first:last], atol=1e-12)
    assert all(shape[2] <= (longest or n_times) for shape in seen)
    assert all(shape[0] <= 64 for shape in seen)


def test_samples_are_seen_in_windows_that_do_not_depend_on_what_is_asked_for():
    everything = windows_of(100, 20, 0, 100)
    assert everything.starts == [0, 10, 20, 30, 40, 50, 60, 70, 80]
    assert windows_of(100, 20, 35, 45).starts == [20, 30, 40]
    assert windows_of(105, 20, 95, 105).starts == [80, 85]
