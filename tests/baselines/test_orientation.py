"""Classical methods with free and loose orientation."""

from dataclasses import replace

import mne
import numpy as np
import pytest
import torch

from deepesi.baselines.bayes_single_patch import BayesSinglePatch
from deepesi.baselines.beamformer import LCMV
from deepesi.baselines.minimum_norm import BayesianMinimumNorm, MinimumNorm
from deepesi.baselines.mixed_norm import MixedNorm
from deepesi.baselines.music import RecursiveMUSIC, best_source, source_evidence
from deepesi.baselines.sparse_bayes import SparseBayes
from deepesi.cli import loading
from deepesi.composition import compose, names_in
from deepesi.core.contracts import as_tensors
from deepesi.export.to_onnx import check_parity, export_onnx
from deepesi.physics.head_inputs import HatMatrix, LinearInverse, prepare
from deepesi.physics.linear_inverse import METHODS, weighted_gain
from deepesi.physics.noise import whitener
from deepesi.physics.orientation import orientation_root
from deepesi.physics.sensors import average_reference
from tests.models.free import apply

PATCHES = (0.03, 0.06, 2)
#: Methods by name; the argument is ``loose``.
LOOSE = {
    **{m: lambda loose, m=m: MinimumNorm(m, "constant", 5, loose) for m in METHODS},
    "Bayesian minimum norm": lambda loose: BayesianMinimumNorm(5, loose),
    "LCMV": lambda loose: LCMV(loose=loose),
    "dipole scan": lambda loose: RecursiveMUSIC(1, loose=loose),
    "RAP-MUSIC": lambda loose: RecursiveMUSIC(loose=loose),
    "Gamma-MAP": lambda loose: SparseBayes(loose=loose),
    "Champagne": lambda loose: SparseBayes("convex", loose=loose),
    "Champagne, patches": lambda loose: SparseBayes("convex", patches=PATCHES, loose=loose),
    "MxNE": lambda loose: MixedNorm(loose=loose),
}


@pytest.fixture(scope="module")
def head(free_toy):
    return free_toy.montage_head("biosemi32")


@pytest.fixture(scope="module")
def fixed(head):
    """The same head along the normals only."""
    along = np.einsum("csj,sj->cs", head.leadfield.reshape(32, 84, 3), head.source_normals)
    return replace(head, leadfield=along, space=replace(head.space, n_orient=1))


def recording(head, n_times=1, noise=1e-7, source=30, direction=None):
    """One source, along the normal unless said otherwise, in noise: ``(1, C, T)``, V."""
    rng = np.random.default_rng(0)
    direction = head.source_normals[source] if direction is None else direction
    potential = head.leadfield[:, 3 * source : 3 * source + 3] @ direction
    potential = 5e-6 * potential / np.abs(potential).max()
    data = potential[:, None] * rng.uniform(1, 2, n_times) + noise * rng.normal(size=(32, n_times))
    return torch.as_tensor(head.sensors.reference(data)[None]).float()


def turned(head):
    """The head with other axes for every source, and these axes ``(S, 3, 3)``."""
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(84, 3, 3)))[0]
    leadfield = (head.leadfield.reshape(32, 84, 1, 3) @ axes).reshape(32, 252)
    normals = np.einsum("sj,sjk->sk", head.source_normals, axes)
    return replace(head, leadfield=leadfield, source_normals=normals), axes


@pytest.mark.parametrize("loose", [0.3, 1.0])
@pytest.mark.parametrize("name", [name for name in LOOSE if "patches" not in name])
def test_estimates_do_not_depend_on_the_axes(head, name, loose):
    """Other axes of every source: the components turn with them."""
    data, model = recording(head, n_times=3), LOOSE[name](loose)
    other, axes = turned(head)
    first, second = (apply(model, data, h).mean[0].double().numpy() for h in (head, other))
    back = axes @ second.reshape(84, 3, 3)
    assert np.allclose(back.reshape(252, 3), first, rtol=0, atol=1e-3 * np.abs(first).max())


@pytest.mark.parametrize("name", [name for name in LOOSE if "patches" not in name])
def test_hardly_loose_is_the_method_of_fixed_orientation(head, fixed, name):
    data, model = recording(head, n_times=3), LOOSE[name](1e-9)
    loose = apply(model, data, head)
    found = loose.mean[0].double().numpy().reshape(84, 3, 3)
    expected = apply(LOOSE[name](1), data, fixed)
    mean = expected.mean[0].double().numpy()
    along = head.source_normals[:, :, None] * mean[:, None]
    assert np.allclose(found, along, rtol=0, atol=0.02 * np.abs(mean).max())
    if expected.std is not None:
        std = np.abs(head.source_normals[:, :, None] * expected.std[0].numpy()[:, None])
        of_all = loose.std[0].numpy().reshape(84, 3, 3)
        assert np.allclose(of_all, std, rtol=0, atol=0.02 * std.max())


@pytest.mark.parametrize("name", LOOSE)
def test_looser_estimates_leave_the_normal_more(head, name):
    """Share of the power that is tangential, of a source that is half tangential."""
    normal = head.source_normals[30]
    tangent = np.cross(normal, [1.0, 0.0, 0.0])
    direction = normal + tangent / np.linalg.norm(tangent)
    data, shares = recording(head, noise=2e-6, direction=direction), []
    for loose in (0.01, 0.2, 1.0):
        mean = apply(LOOSE[name](loose), data, head).mean[0, :, 0].double().numpy().reshape(84, 3)
        along = (mean * head.source_normals).sum(1)
        shares.append(1 - (along**2).sum() / (mean**2).sum())
    assert shares[0] < shares[1] < shares[2]


@pytest.mark.parametrize("name", LOOSE)
def test_loose_needs_three_components_and_normals(head, fixed, name):
    with pytest.raises(ValueError, match=r"loose=0.2 needs three.*head.name=.*-free"):
        apply(LOOSE[name](0.2), recording(head), fixed)
    volume = replace(head, source_normals=np.zeros((84, 3)))
    with pytest.raises(ValueError, match="84 sources of .* lie on no surface. Take loose=1"):
        apply(LOOSE[name](0.2), recording(head), volume)
    assert torch.isfinite(apply(LOOSE[name](1), recording(head), volume).mean).all()


def test_free_single_patch_works_on_a_head_with_three_components(head):
    found = apply(BayesSinglePatch(0.03, 0.06, 2), recording(head), head).mean
    assert torch.linalg.vector_norm(found.reshape(84, 3), dim=1).argmax() == 30


def test_loose_posterior_is_that_of_its_prior(head):
    """Mean, standard deviation and samples against the dense formulas."""
    model, loose = BayesianMinimumNorm(snr_db=10, loose=0.3), 0.3
    inputs = as_tensors(prepare(model.head_inputs, head))
    data = recording(head)
    estimate = model(data, inputs)
    gain = whitener(head.noise_cov) @ head.leadfield
    root = orientation_root(loose, head.space, head.source_normals)
    variance = 31 / (weighted_gain(gain, root) ** 2).sum() * 10
    prior = np.zeros((252, 252))
    for s, block in enumerate(variance * root @ root):
        prior[3 * s : 3 * s + 3, 3 * s : 3 * s + 3] = block
    to_source = prior @ gain.T @ np.linalg.inv(gain @ prior @ gain.T + np.eye(32))
    covariance = prior - to_source @ gain @ prior
    mean = to_source @ whitener(head.noise_cov) @ data[0].double().numpy()
    assert np.allclose(estimate.mean[0], mean, rtol=1e-3, atol=1e-4 * np.abs(mean).max())
    assert np.allclose(estimate.std[0, :, 0], np.sqrt(np.diag(covariance)), rtol=1e-3)
    columns = model.sample(data, inputs, torch.eye(252)[:, None]) - estimate.mean
    columns = columns[:, 0, :, 0].double().numpy()
    assert np.allclose(columns.T @ columns, covariance, rtol=0, atol=1e-4 * variance)


@pytest.mark.slow
def test_loose_methods_can_be_exported(free_toy, simulate, tmp_path):
    model = BayesianMinimumNorm(loose=0.2)
    export_onnx(model, free_toy.montage_head("biosemi16"), tmp_path / "m.onnx")
    batch = simulate(heads=free_toy, montage="biosemi32", batch_size=3, n_times=4).batch(0)
    assert check_parity(model, tmp_path / "m.onnx", batch, n_timed=1).max_difference <= 1e-5


def test_variance_of_a_loose_group_is_that_of_its_posterior(head):
    """One source remains: its covariance is the dense one of a Gaussian with the loose prior."""
    gain = whitener(head.noise_cov) @ head.leadfield
    root = orientation_root(0.3, head.space, head.source_normals)
    data = whitener(head.noise_cov) @ recording(head, 5)[0].double().numpy()
    solver = SparseBayes("convex", loose=0.3)
    blocks = weighted_gain(gain, root).T.reshape(84, 3, 32)
    unit = np.linalg.norm(blocks)
    active, gamma, noise = solver.learn(data, blocks / unit, 31)
    found = apply(solver, recording(head, 5), head)
    rows = (3 * active[:, None] + np.arange(3)).ravel()
    prior = np.zeros((len(rows), len(rows)))
    for i, s in enumerate(active):
        prior[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] = gamma[i] / unit**2 * root[s] @ root[s]
    own = gain[:, rows]
    gains = prior @ own.T @ np.linalg.inv(own @ prior @ own.T + noise * np.eye(32))
    std = np.sqrt(np.diag(prior - gains @ own @ prior))
    assert np.allclose(found.std[0, rows, 0], std, rtol=0.01, atol=1e-3 * std.max())
    assert np.allclose(found.mean[0, rows], gains @ data, rtol=0.01, atol=1e-13)


def test_evidence_is_that_of_a_gaussian(head):
    """Against the density of the recording, at the best variance of a fine grid."""
    rng = np.random.default_rng(0)
    blocks, data = rng.normal(size=(5, 12, 3)), 3 * rng.normal(size=(12, 1))
    evidence, variance, moment = source_evidence(blocks, data, 2.0)
    for s, block in enumerate(blocks):

        def log_density(v, block=block):
            cov = v * block @ block.T + 2 * np.eye(12)
            fit = (data * np.linalg.solve(cov, data)).sum()
            return -0.5 * (np.linalg.slogdet(cov)[1] + fit)

        best = max(log_density(v) for v in np.logspace(-5, 4, 1000))
        assert evidence[s] == pytest.approx(best - log_density(0), abs=0.03)
        assert log_density(variance[s]) == pytest.approx(best, abs=0.03)
        posterior = np.linalg.solve(block.T @ block + 2 / variance[s] * np.eye(3), block.T @ data)
        cosine = moment[s] @ posterior[:, 0]
        assert cosine == pytest.approx(np.linalg.norm(moment[s]) * np.linalg.norm(posterior))


def test_scan_by_evidence_is_the_scan_of_fixed_orientation(head):
    """The evidence of one component grows with the energy that it explains."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        blocks, data = rng.normal(size=(50, 12, 1)), 3 * rng.normal(size=(12, 1))
        subspace = data / np.linalg.norm(data)
        evidence, *_ = source_evidence(blocks, data, 1.0)
        assert evidence.argmax() == best_source(blocks, subspace, np.zeros((12, 0)))[0]


def test_loose_music_finds_two_sources(head):
    """Independent in time, one of them half tangential."""
    rng = np.random.default_rng(2)
    time_courses, data = rng.normal(size=(2, 60)), np.zeros((32, 60))
    for time_course, s, extra in zip(time_courses, (10, 60), (0.0, 0.5), strict=True):
        potential = head.leadfield[:, 3 * s : 3 * s + 3] @ (head.source_normals[s] + extra)
        data += 5e-6 * potential[:, None] / np.abs(potential).max() * time_course
    data += 1e-7 * rng.normal(size=data.shape)
    data = torch.as_tensor(head.sensors.reference(data)[None]).float()
    found = apply(RecursiveMUSIC(loose=0.3), data, head).mean[0].reshape(84, -1)
    assert found.any(1).nonzero()[:, 0].tolist() == [10, 60]
    with pytest.raises(ValueError, match="RecursiveMUSIC: noise must be positive, got 0"):
        RecursiveMUSIC(noise=0)


def test_hat_matrix_is_what_the_loose_estimate_explains(head):
    data, declared = recording(head, n_times=4)[0].double().numpy(), ("eLORETA", 5.0, 10.0, 2, 0.2)
    kernels, hats = LinearInverse(*declared).compute(head), HatMatrix(*declared).compute(head)
    white = whitener(head.noise_cov)
    assert np.allclose(hats @ white @ data, white @ head.leadfield @ kernels @ data)
    model = MinimumNorm("eLORETA", "gcv", loose=0.2)
    assert (model.kernels.loose, model.hats.loose) == (0.2, 0.2)


def test_free_beamformer_equals_mne():
    """All three components, but for the one factor that gives ours its unit."""
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(30, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    positions = [0, 0, 0.04] + 0.06 * rng.uniform(0.4, 1, size=(30, 1)) * normals
    montage = mne.channels.make_standard_montage("biosemi32")
    info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
    evoked = mne.EvokedArray(rng.normal(scale=1e-6, size=(32, 200)), info, verbose="error")
    evoked.set_eeg_reference(projection=True, verbose="error").apply_proj(verbose="error")
    src = mne.setup_volume_source_space(pos={"rr": positions, "nn": normals}, verbose="error")
    sphere = mne.make_sphere_model((0, 0, 0.04), 0.095, info=info, verbose="error")
    forward = mne.make_forward_solution(info, None, src, sphere, meg=False, verbose="error")
    gain = average_reference(forward["sol"]["data"])
    covariance = evoked.data @ evoked.data.T / 200 + 1e-12 * average_reference(np.eye(32))
    filters = mne.beamformer.make_lcmv(
        evoked.info,
        forward,
        mne.Covariance(covariance, info.ch_names, [], [], nfree=200),
        reg=0,
        pick_ori="vector",
        weight_norm="unit-noise-gain-invariant",
        verbose="error",
    )
    theirs = mne.beamformer.apply_lcmv(evoked, filters, verbose="error").data.reshape(90, 200)
    ours = LCMV().solve(1e6 * evoked.data, 1e6 * gain, 3, 31).mean
    ours *= np.linalg.norm(theirs) / np.linalg.norm(ours)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_every_loose_baseline_says_so():
    """Names in tables, and the loose row beside the plain one."""
    names = [name for name in names_in("baselines") if name.endswith("_loose")]
    plain = {name.removesuffix("_loose") for name in names}
    assert {"eloreta", "sloreta", "dspm", "mne", "lcmv", "dipole_scan", "music"} <= plain
    assert {"champagne", "champagne_patches", "gamma_map", "bayesian_minimum_norm"} <= plain
    loaded = loading.load_baselines(compose("evaluate", [f"baselines=[{','.join(names)}]"]))
    assert len(loaded) == len(names)
    for title, model in loaded.items():
        assert title.endswith("loose 0.2)")
        assert {getattr(d, "loose", 0.2) for d in model.head_inputs} == {0.2}
