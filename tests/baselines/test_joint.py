"""Solvers on EEG, MEG and both equal those of MNE-Python, where the method is the same."""

import mne
import numpy as np
import pytest

from deepesi.baselines.beamformer import LCMV
from deepesi.baselines.mixed_norm import MixedNorm
from deepesi.baselines.music import RecursiveMUSIC
from deepesi.baselines.sparse_bayes import SparseBayes
from deepesi.physics.io.heads import head_from_forward
from deepesi.physics.noise import rank_of, whitener
from tests.runtime.test_meg import MIXTURES, mixture


def problem(name, n_orient):
    """Average with its reference, covariance, forward solution; whitened data and gain, rank."""
    evoked, cov, solution = mixture(name)
    evoked.nave = 1
    head = head_from_forward(evoked.info, cov, solution, 1, n_orient=n_orient)
    white = whitener(head.noise_cov)
    data = head.sensors.to_head(evoked.get_data(picks=list(head.sensors.names)))
    if "eeg" in head.sensors.kinds:
        evoked.set_eeg_reference(projection=True, verbose="error").apply_proj(verbose="error")
    evoked.pick(list(head.sensors.names))
    if n_orient == 1:
        solution = mne.convert_forward_solution(
            solution, force_fixed=True, use_cps=False, verbose="error"
        )
    return evoked, cov, solution, white @ data, white @ head.leadfield, rank_of(head.noise_cov)


def assert_equal(ours, theirs):
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("name", "n_orient"), [*((name, 1) for name in MIXTURES), ("eeg", 3), ("both", 3)]
)
def test_beamformer(name, n_orient):
    """All components, but for the one factor that gives ours its unit.

    In the sphere of these recordings MEG alone has no third component.
    """
    evoked, cov, solution, data, gain, rank = problem(name, n_orient)
    eeg = np.array(evoked.get_channel_types()) == "eeg"
    noise = cov.copy().pick_channels(evoked.ch_names, ordered=True)["data"]
    noise = noise * (eeg[:, None] == eeg)  # potentials and fields are independent
    whole = evoked.data @ evoked.data.T / len(evoked.times) + noise
    invariant = {1: "unit-noise-gain", 3: "unit-noise-gain-invariant"}
    filters = mne.beamformer.make_lcmv(
        evoked.info,
        solution,
        mne.Covariance(whole, evoked.ch_names, [], evoked.info["projs"], nfree=2000),
        reg=0,
        noise_cov=cov,
        pick_ori=None if n_orient == 1 else "vector",
        weight_norm=invariant[n_orient],
        rank="info",
        verbose="error",
    )
    theirs = mne.beamformer.apply_lcmv(evoked, filters, verbose="error").data
    ours = LCMV().solve(data, gain, n_orient, rank).mean
    theirs = theirs.reshape(ours.shape)
    assert_equal(ours * np.linalg.norm(theirs) / np.linalg.norm(ours), theirs)


@pytest.mark.parametrize("name", MIXTURES)
def test_mixed_norm(name):
    evoked, cov, solution, data, gain, rank = problem(name, 1)
    theirs = mne.inverse_sparse.mixed_norm(
        evoked,
        solution,
        cov,
        alpha=40.0,
        loose=0,
        depth={"exp": 1.0, "limit": None, "limit_depth_chs": "whiten"},
        weights=None,
        rank="info",
        verbose="error",
    )
    ours = MixedNorm(alpha=40.0).solve(data, gain, 1, rank).mean
    rows = np.concatenate([theirs.vertices[0], 20 + theirs.vertices[1]])
    assert np.flatnonzero(ours.any(axis=1)).tolist() == rows.tolist()
    assert_equal(ours[rows], theirs.data)


@pytest.mark.parametrize("name", MIXTURES)
def test_gamma_map(name):
    evoked, cov, solution, data, gain, rank = problem(name, 1)
    theirs = mne.inverse_sparse.gamma_map(
        evoked,
        solution,
        cov,
        alpha=1.0,
        loose=0,
        depth=None,
        maxit=20_000,
        tol=1e-12,
        rank="info",
        verbose="error",
    )
    ours = SparseBayes("mackay", n_steps=20_000, tolerance=1e-12).solve(data, gain, 1, rank).mean
    rows = np.concatenate([theirs.vertices[0], 20 + theirs.vertices[1]])
    assert_equal(ours[rows], theirs.data)


@pytest.mark.parametrize("name", MIXTURES)
def test_dipole_scan_has_the_goodness_of_fit_of_mne(name):
    """The dipole of the scan explains as much as the same one in MNE-Python."""
    evoked, cov, solution, data, gain, rank = problem(name, 1)
    found = RecursiveMUSIC(n_sources=1).solve(data[:, 9:10], gain, 1, rank).mean[:, 0]
    (source,) = np.flatnonzero(found)
    assert source == 7
    share = 1 - ((data[:, 9] - gain @ found) ** 2).sum() / (data[:, 9] ** 2).sum()
    fitted, _ = mne.fit_dipole(
        evoked.copy().crop(evoked.times[9], evoked.times[9]),
        cov,
        mne.make_sphere_model((0, 0, 0.04), 0.09, info=evoked.info, verbose="error"),
        pos=solution["source_rr"][source],
        ori=solution["source_nn"][source],
        accuracy="accurate",  # coils as in forward solutions
        rank="info",
        verbose="error",
    )
    amplitude, goodness = fitted.data[:, 0]
    assert goodness == pytest.approx(100 * share, rel=1e-5)
    assert amplitude == pytest.approx(found[source], rel=1e-5)
