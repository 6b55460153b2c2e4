import mne
import numpy as np
import pytest

from deepesi.physics.head import SourceSpace
from deepesi.physics.linear_inverse import METHODS, linear_inverse
from deepesi.physics.noise import denoiser, rank_of, white_noise_cov, whitener
from deepesi.physics.orientation import orientation_root
from deepesi.physics.sensors import SensorArray, average_reference


@pytest.fixture(scope="module")
def free_forward():
    """MNE's own free-orientation forward solution of 60 dipoles in a sphere, 32 channels."""
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(60, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    positions = [0, 0, 0.04] + 0.06 * rng.uniform(0.4, 1, size=(60, 1)) * normals
    montage = mne.channels.make_standard_montage("biosemi32")
    info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
    src = mne.setup_volume_source_space(pos={"rr": positions, "nn": normals}, verbose="error")
    sphere = mne.make_sphere_model((0, 0, 0.04), 0.095, info=info, verbose="error")
    return info, mne.make_forward_solution(info, None, src, sphere, meg=False, verbose="error")


@pytest.fixture(scope="module")
def forward(free_forward):
    """The same along the normals."""
    info, free = free_forward
    return info, mne.convert_forward_solution(free, force_fixed=True, verbose="error")


def coloured_covariance(n):
    factor = np.random.default_rng(1).normal(size=(n, 3 * n))
    return 1e-12 * factor @ factor.T / (3 * n)


def space_of(n_sources, n_orient=3):
    return SourceSpace("x", (np.arange(n_sources),), np.zeros((0, 2), dtype=int), n_orient)


def apply_mne(info, solution, cov, data, lambda2, method, loose=1.0, **orientation):
    """Estimates of MNE and ours from the same data, fixed or free: ``(D, T)``."""
    noise = mne.Covariance(cov, info.ch_names, [], [], nfree=1)
    evoked = mne.EvokedArray(data, info, verbose="error")
    evoked.set_eeg_reference(projection=True, verbose="error")
    free = "pick_ori" in orientation
    operator = mne.minimum_norm.make_inverse_operator(
        evoked.info, solution, noise, loose * free, fixed=not free, depth=None, verbose="error"
    )
    estimate = mne.minimum_norm.apply_inverse(
        evoked, operator, lambda2, method, verbose="error", **orientation
    )
    centred = average_reference(average_reference(cov), 1)
    gain = average_reference(solution["sol"]["data"])
    normals = solution["src"][0]["nn"]
    space = space_of(len(normals), 3 if free else 1)
    root = orientation_root(loose, space, normals)
    ours = linear_inverse(gain, centred, lambda2, method, space.n_orient, root)
    return estimate.data.reshape(-1, data.shape[1]), ours @ average_reference(data)


@pytest.mark.parametrize("lambda2", [1.0, 0.01])
@pytest.mark.parametrize("method", METHODS)
def test_kernels_equal_mne(forward, method, lambda2):
    data = np.random.default_rng(2).normal(scale=1e-6, size=(32, 5))
    theirs, ours = apply_mne(*forward, coloured_covariance(32), data, lambda2, method)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("lambda2", [1.0, 0.01])
@pytest.mark.parametrize("method", METHODS)
def test_free_kernels_equal_mne(free_forward, method, lambda2):
    """All three components, not their norm; eLORETA with a 3 x 3 weight per source."""
    data = np.random.default_rng(2).normal(scale=1e-6, size=(32, 5))
    options = {"method_params": {"force_equal": False}} if method == "eLORETA" else {}
    theirs, ours = apply_mne(
        *free_forward, coloured_covariance(32), data, lambda2, method, pick_ori="vector", **options
    )
    assert ours.shape == (180, 5)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("loose", [0.2, 0.4])
@pytest.mark.parametrize("method", METHODS)
def test_loose_kernels_equal_mne(free_forward, method, loose):
    data = np.random.default_rng(2).normal(scale=1e-6, size=(32, 5))
    options = {"method_params": {"force_equal": False}} if method == "eLORETA" else {}
    problem = (*free_forward, coloured_covariance(32), data, 0.1, method)
    theirs, ours = apply_mne(*problem, loose, pick_ori="vector", **options)
    free, _ = apply_mne(*problem, pick_ori="vector", **options)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
    assert np.abs(theirs - free).max() > 0.05 * np.abs(free).max()


@pytest.mark.parametrize("method", METHODS)
def test_hardly_loose_is_fixed(free_forward, forward, method):
    """Whatever leaves the normal vanishes, and what is along it is the fixed estimate."""
    gain, along = (average_reference(f[1]["sol"]["data"]) for f in (free_forward, forward))
    normals = forward[1]["source_nn"]
    cov, space = 1e-12 * average_reference(np.eye(32)), space_of(60)
    root = orientation_root(1e-10, space, normals)
    loose = linear_inverse(gain, cov, 0.1, method, 3, root).reshape(60, 3, 32)
    fixed = linear_inverse(along, cov, 0.1, method)
    assert np.allclose(
        loose, normals[:, :, None] * fixed[:, None], rtol=0, atol=1e-4 * np.abs(fixed).max()
    )


def test_loose_prior_in_the_frame_of_the_head():
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(20, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    root = orientation_root(0.3, space_of(20), normals)
    covariance = root @ root
    assert np.allclose(covariance @ normals[..., None], normals[..., None])
    assert np.allclose(np.linalg.eigvalsh(covariance), [0.3, 0.3, 1])
    assert np.array_equal(orientation_root(1, space_of(20), 0 * normals), [np.eye(3)] * 20)
    fixed = orientation_root(1, space_of(20, n_orient=1), normals)
    assert np.array_equal(fixed, np.ones((20, 1, 1)))


def test_loose_orientation_that_cannot_be():
    normals = np.eye(3)[[0, 1, 2, 0]]
    for loose in (0, -1, 1.2):
        with pytest.raises(ValueError, match=f"above 0 and at most 1, got {loose}"):
            orientation_root(loose, space_of(4), normals)
    with pytest.raises(ValueError, match="loose=0.2 needs three.*'x' has fixed.*x-free"):
        orientation_root(0.2, space_of(4, n_orient=1), normals)
    normals[2] = 0
    with pytest.raises(ValueError, match="1 sources of 'x' lie on no surface. Take loose=1"):
        orientation_root(0.2, space_of(4), normals)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 3\), expected \(4, 3, 3\)"):
        linear_inverse(np.eye(12), np.eye(12), 0.1, "MNE", 3, np.ones((2, 3, 3)))


@pytest.mark.parametrize("method", ["sLORETA", "eLORETA"])
def test_no_localization_bias(toy, method):
    head = toy.montage_head("biosemi32")
    kernel = linear_inverse(head.leadfield, head.noise_cov, 1e-3, method)
    assert (np.abs(kernel @ head.leadfield).argmax(axis=0) == np.arange(84)).all()


def test_no_localization_bias_with_free_orientation(free_forward):
    """The largest moment is where the dipole is, whatever its direction.

    Of eLORETA alone: sLORETA as MNE has it standardizes the components of a place by one number.
    """
    gain = average_reference(free_forward[1]["sol"]["data"])
    directions = np.random.default_rng(3).normal(size=(60, 3, 1))
    potentials = np.concatenate(list(gain.T.reshape(60, 3, 32).swapaxes(1, 2) @ directions), axis=1)
    kernel = linear_inverse(
        gain, 1e-12 * average_reference(np.eye(32)), 1e-3, "eLORETA", n_orient=3
    )
    found = np.linalg.norm((kernel @ potentials).reshape(60, 3, 60), axis=1).argmax(axis=0)
    assert (found == np.arange(60)).all()


def test_free_eloreta_is_blind_to_the_frame(free_forward):
    """Turning the axes of every source turns the estimate with them: weights are full blocks."""
    gain = average_reference(free_forward[1]["sol"]["data"])
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    turned = (gain.reshape(32, 60, 3) @ turn).reshape(32, 180)
    cov = 1e-12 * average_reference(np.eye(32))
    first = linear_inverse(gain, cov, 0.1, "eLORETA", n_orient=3).reshape(60, 3, 32)
    second = linear_inverse(turned, cov, 0.1, "eLORETA", n_orient=3).reshape(60, 3, 32)
    assert np.allclose(turn.T @ first, second, atol=1e-6 * np.abs(first).max())


def test_orientation_without_signal(free_forward):
    """Three components that project alike count as one; the estimate stays finite."""
    gain = average_reference(free_forward[1]["sol"]["data"])
    alike = np.repeat(gain[:, ::3], 3, axis=1)
    cov = 1e-12 * average_reference(np.eye(32))
    fixed = linear_inverse(gain[:, ::3], cov, 0.1, "eLORETA")
    free = linear_inverse(alike, cov, 0.1, "eLORETA", n_orient=3)
    assert np.allclose(free[::3] + free[1::3] + free[2::3], fixed, atol=1e-6 * np.abs(fixed).max())


def test_minimum_norm_is_the_posterior_mean(toy):
    """By the S x S route: (Lᵀ C⁻¹ L + R⁻¹)⁻¹ Lᵀ C⁻¹ with R the identity, scaled as in MNE."""
    head = toy.montage_head("biosemi32")
    gain = whitener(head.noise_cov) @ head.leadfield
    prior = rank_of(head.noise_cov) / (gain**2).sum() / 0.1
    expected = np.linalg.solve(
        gain.T @ gain + np.eye(84) / prior, gain.T @ whitener(head.noise_cov)
    )
    found = linear_inverse(head.leadfield, head.noise_cov, 0.1, "MNE")
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


def test_bad_arguments(toy):
    head = toy.montage_head("biosemi16")
    with pytest.raises(ValueError, match="unknown method 'LORETA'"):
        linear_inverse(head.leadfield, head.noise_cov, 0.1, "LORETA")
    with pytest.raises(ValueError, match="lambda2 must be positive, got 0"):
        linear_inverse(head.leadfield, head.noise_cov, 0, "MNE")
    with pytest.raises(ValueError, match="n_orient=2 with 84 columns"):
        linear_inverse(head.leadfield, head.noise_cov, 0.1, "MNE", n_orient=2)
    with pytest.raises(ValueError, match="n_orient=3 with 83 columns.*three columns for every"):
        linear_inverse(head.leadfield[:, 1:], head.noise_cov, 0.1, "MNE", n_orient=3)


def test_whitened_noise_is_white():
    cov = average_reference(average_reference(coloured_covariance(10)), 1)
    matrix = whitener(cov)
    assert np.allclose(matrix @ cov @ matrix.T, average_reference(np.eye(10)), atol=1e-9)


@pytest.mark.parametrize("n_removed", [0, 4])
def test_denoiser_is_the_posterior_mean_of_the_potential(toy, n_removed):
    """For sources with the prior that min-norm has at the same SNR: ``L`` times its kernel.

    So it predicts what a cleaning removed from the rest.
    """
    head = toy.montage_head("biosemi32")
    cov = average_reference(average_reference(coloured_covariance(32)), 1)
    removed = np.linalg.qr(np.random.default_rng(1).normal(size=(32, n_removed)))[0]
    kept = np.eye(32) - removed @ removed.T
    cov = average_reference(average_reference(kept @ cov @ kept), 1)
    assert rank_of(cov) == min(31, 32 - n_removed)
    kernel = linear_inverse(head.leadfield, cov, 10 ** (-0.5), "MNE")
    found = denoiser(head.leadfield, cov, 5.0)
    assert np.allclose(found, head.leadfield @ kernel, rtol=1e-6, atol=1e-9)


def test_white_noise_has_the_level_asked_for():
    sensors = SensorArray.eeg([str(i) for i in range(20)], np.arange(60.0).reshape(20, 3))
    assert np.trace(white_noise_cov(sensors, 1e-6)) == pytest.approx(19e-12)
