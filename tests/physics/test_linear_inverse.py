import mne
import numpy as np
import pytest

from deepesi.physics.head import average_reference
from deepesi.physics.linear_inverse import METHODS, linear_inverse
from deepesi.physics.noise import denoiser, white_noise_cov, whitener


@pytest.fixture(scope="module")
def forward():
    """MNE's own fixed-orientation forward solution of 60 dipoles in a sphere, 32 channels."""
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(60, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    positions = [0, 0, 0.04] + 0.06 * rng.uniform(0.4, 1, size=(60, 1)) * normals
    montage = mne.channels.make_standard_montage("biosemi32")
    info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
    src = mne.setup_volume_source_space(pos={"rr": positions, "nn": normals}, verbose="error")
    sphere = mne.make_sphere_model((0, 0, 0.04), 0.095, info=info, verbose="error")
    free = mne.make_forward_solution(info, None, src, sphere, meg=False, verbose="error")
    return info, mne.convert_forward_solution(free, force_fixed=True, verbose="error")


def coloured_covariance(n):
    factor = np.random.default_rng(1).normal(size=(n, 3 * n))
    return 1e-12 * factor @ factor.T / (3 * n)


@pytest.mark.parametrize("lambda2", [1.0, 0.01])
@pytest.mark.parametrize("method", METHODS)
def test_kernels_equal_mne(forward, method, lambda2):
    info, solution = forward
    cov = coloured_covariance(32)
    noise = mne.Covariance(cov, info.ch_names, [], [], nfree=1)
    data = np.random.default_rng(2).normal(scale=1e-6, size=(32, 5))
    evoked = mne.EvokedArray(data, info, verbose="error")
    evoked.set_eeg_reference(projection=True, verbose="error")
    operator = mne.minimum_norm.make_inverse_operator(
        evoked.info, solution, noise, loose=0, fixed=True, depth=None, verbose="error"
    )
    theirs = mne.minimum_norm.apply_inverse(evoked, operator, lambda2, method, verbose="error").data
    centred = average_reference(average_reference(cov), 1)
    gain = average_reference(solution["sol"]["data"])
    ours = linear_inverse(gain, centred, lambda2, method) @ average_reference(data)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("method", ["sLORETA", "eLORETA"])
def test_no_localization_bias(toy, method):
    head = toy.montage_head("biosemi32")
    kernel = linear_inverse(head.leadfield, head.noise_cov, 1e-3, method)
    assert (np.abs(kernel @ head.leadfield).argmax(axis=0) == np.arange(84)).all()


def test_minimum_norm_is_the_posterior_mean(toy):
    """By the S x S route: (Lᵀ C⁻¹ L + R⁻¹)⁻¹ Lᵀ C⁻¹ with R the identity, scaled as in MNE."""
    head = toy.montage_head("biosemi32")
    gain = whitener(head.noise_cov) @ head.leadfield
    prior = (head.n_channels - 1) / (gain**2).sum() / 0.1
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


def test_whitened_noise_is_white():
    cov = average_reference(average_reference(coloured_covariance(10)), 1)
    matrix = whitener(cov)
    assert np.allclose(matrix @ cov @ matrix.T, average_reference(np.eye(10)), atol=1e-9)


def test_denoiser_is_the_posterior_mean_of_the_potential(toy):
    """Of sources with the prior that min-norm has at the same SNR: ``L`` times its kernel."""
    head = toy.montage_head("biosemi32")
    cov = average_reference(average_reference(coloured_covariance(32)), 1)
    kernel = linear_inverse(head.leadfield, cov, 10 ** (-0.5), "MNE")
    found = denoiser(head.leadfield, cov, 5.0)
    assert np.allclose(found, head.leadfield @ kernel, rtol=1e-6, atol=1e-9)


def test_white_noise_has_the_level_asked_for():
    assert np.trace(white_noise_cov(20, 1e-6)) == pytest.approx(19e-12)
