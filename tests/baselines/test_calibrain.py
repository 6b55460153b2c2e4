"""Gamma-MAP and Champagne against CaliBrain, where that is installed (it brings Qt along).

``pip install -c constraints.txt -e '.[train,test,calibrain]'``, then ``pytest`` this file.
"""

import numpy as np
import pytest

from deepesi.baselines.sparse_bayes import SparseBayes
from tests.baselines.test_solvers import magnitudes, problem

estimation = pytest.importorskip(
    "calibrain.source_estimation", reason="CaliBrain is not installed: the extra 'calibrain'"
)


@pytest.mark.parametrize(("update", "mode"), [("mackay", 1), ("convex", 2)])
@pytest.mark.parametrize("seed", range(3))
def test_mean_and_std_are_those_of_calibrain(update, mode, seed):
    """With fixed orientation and several sources CaliBrain divides the variance once more."""
    gain, recording, _ = problem(noise=1.0, seed=seed)
    theirs = estimation.gamma_map(gain, recording, 1.0, max_iter=5000, tol=1e-10, update_mode=mode)
    ours = SparseBayes(update, n_steps=5000, tolerance=1e-10).solve(recording, gain, 1, len(gain))
    size = magnitudes(theirs["posterior_mean"], 1)
    strong = size > 0.05 * size.max()
    assert strong.sum() >= 2
    largest = np.abs(theirs["posterior_mean"]).max()
    np.testing.assert_allclose(ours.mean, theirs["posterior_mean"], atol=0.01 * largest)
    deviation = np.sqrt(np.diag(theirs["posterior_cov"]))
    np.testing.assert_allclose(ours.std[strong, 0], deviation[strong], rtol=0.02)
