"""Noise of any rank: cleaned and interpolated recordings are localized, causes named."""

from dataclasses import replace

import mne
import numpy as np
import pytest

from deepesi.physics.io.channels import sensor_array
from deepesi.physics.io.covariance import noise_covariance
from deepesi.physics.linear_inverse import METHODS, hat_matrix, linear_inverse
from deepesi.physics.noise import rank_of, spanned_eigh, whitened_power, whitener
from deepesi.physics.sensors import average_reference
from deepesi.runtime.inverse import Inverse
from tests.conftest import make_covariance, make_evoked


def referenced(cov):
    return average_reference(average_reference(cov), 1)


def cleaned(cov, n_removed, seed=0):
    """Covariance as after ICA: some components are removed by an oblique projector."""
    mixing = np.random.default_rng(seed).normal(size=cov.shape)
    keep = np.ones(len(cov))
    keep[:n_removed] = 0
    projector = mixing @ (keep[:, None] * np.linalg.inv(mixing))
    return projector @ cov @ projector.T


def test_none_of_nothing():
    assert rank_of(np.zeros((8, 8))) == 0


@pytest.fixture(scope="module")
def noise_cov(toy):
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(16, 40)) * 1e-6
    return factor @ factor.T / 40


@pytest.mark.parametrize("n_removed", [0, 1, 2, 6])
@pytest.mark.parametrize("rounding", [0.0, 6e-8])
def test_rank_is_that_of_what_is_left(noise_cov, n_removed, rounding):
    """Also when the recording was stored in single precision, with offsets of 1 mV."""
    cov = cleaned(noise_cov, n_removed) + (rounding * 1e-3) ** 2 / 12 * np.eye(16)
    assert rank_of(referenced(cov)) == min(15, 16 - n_removed)


@pytest.mark.parametrize("n_removed", [0, 3])
def test_whitened_noise_has_power_one_in_every_dimension(noise_cov, n_removed):
    cov = referenced(cleaned(noise_cov, n_removed))
    white, rank = whitener(cov), rank_of(cov)
    projector = white @ cov @ white.T
    np.testing.assert_allclose(projector @ projector, projector, atol=1e-6)
    assert np.trace(projector) == pytest.approx(rank)
    values, vectors = spanned_eigh(cov)
    samples = vectors @ (
        np.sqrt(values)[:, None] * np.random.default_rng(2).normal(size=(rank, 20_000))
    )
    assert whitened_power(white @ samples, rank).mean() == pytest.approx(1, rel=0.02)


def test_electrodes_of_a_smooth_field_keep_their_rank(template):
    """128 electrodes that see little but smooth brain noise: no dimension is taken for rounding."""
    head = template.montage_head("biosemi128")
    brain = head.leadfield @ head.leadfield.T
    cov = brain / np.trace(brain) + 0.02 * referenced(np.eye(128)) / 127
    assert rank_of(cov) == 127


@pytest.mark.parametrize("method", METHODS)
def test_linear_inverses_of_reduced_rank_are_those_of_mne(method):
    """Two of the components of the data are gone, from covariance, data and lead field alike."""
    sphere = mne.make_sphere_model("auto", "auto", make_evoked().info, verbose="error")
    evoked = make_evoked(n_times=5)
    evoked.set_eeg_reference(projection=True, verbose="error")
    positions = np.random.default_rng(3).normal(size=(40, 3))
    normals = positions / np.linalg.norm(positions, axis=1, keepdims=True)
    rr = 0.07 * normals + sphere["r0"]
    source = mne.setup_volume_source_space(
        pos={"rr": rr, "nn": normals}, sphere_units="m", verbose="error"
    )
    forward = mne.make_forward_solution(
        evoked.info, None, source, sphere, meg=False, verbose="error"
    )
    fixed = mne.convert_forward_solution(
        forward, surf_ori=False, force_fixed=False, verbose="error"
    )
    cov = cleaned(1e-12 * np.eye(32), 2)
    covariance = mne.Covariance(cov, evoked.ch_names, [], [], nfree=1000, verbose="error")
    operator = mne.minimum_norm.make_inverse_operator(
        evoked.info, fixed, covariance, loose=1.0, depth=None, rank={"eeg": 30}, verbose="error"
    )
    stc = mne.minimum_norm.apply_inverse(
        evoked.copy(), operator, lambda2=1 / 9, method=method, pick_ori="vector", verbose="error"
    )
    leadfield = average_reference(fixed["sol"]["data"])
    noise = referenced(cov)
    assert rank_of(noise) == 30
    kernel = linear_inverse(leadfield, noise / evoked.nave, 1 / 9, method, n_orient=3)
    found = (kernel @ average_reference(evoked.data)).reshape(stc.data.shape)
    np.testing.assert_allclose(found, stc.data, rtol=2e-4, atol=2e-4 * np.abs(stc.data).max())


def test_hat_matrix_explains_what_the_kernel_does(toy, noise_cov):
    head = toy.montage_head("biosemi16")
    cov = referenced(cleaned(noise_cov, 3))
    head = replace(head, noise_cov=cov)
    kernel = linear_inverse(head.leadfield, cov, 0.1, "MNE")
    white = whitener(cov)
    values, vectors = spanned_eigh(cov)
    samples = vectors @ (np.sqrt(values)[:, None] * np.random.default_rng(4).normal(size=(13, 9)))
    np.testing.assert_allclose(
        hat_matrix(head.leadfield, cov, 0.1, "MNE") @ white @ samples,
        white @ head.leadfield @ kernel @ samples,
        rtol=1e-6,
        atol=1e-9,
    )


@pytest.mark.parametrize("model", ["convdip", "ensemble"])
def test_a_cleaned_recording_is_localized(template, model):
    """Two ICA components removed: the peak stays where it was."""
    evoked = make_evoked(n_times=40)
    source = int(np.linalg.norm(template.source_mni - [25, -85, 5], axis=1).argmin())
    names = evoked.ch_names
    positions = np.array([c["loc"][:3] for c in evoked.info["chs"]])
    head = template.head(names, template.electrodes(positions, names), 1e-12 * np.eye(32))
    apart = np.linalg.norm(template.source_pos - template.source_pos[source], axis=1)
    topography = head.leadfield @ np.exp(-((apart / 0.008) ** 2))
    evoked.data += 8e-6 * (topography / topography.std())[:, None]
    artifacts = np.linalg.qr(np.c_[topography, np.random.default_rng(5).normal(size=(32, 2))])[0][
        :, 1:
    ]  # orthogonal to the source, as ICA would tell them apart
    projector = np.eye(32) - artifacts @ artifacts.T
    covariance = make_covariance(evoked.info)
    found = {}
    for cleaning in (np.eye(32), projector):
        clean = evoked.copy()
        clean.data = (cleaning @ clean.data).astype(np.float32).astype(float)
        noise = mne.Covariance(
            cleaning @ covariance["data"] @ cleaning.T, names, [], [], nfree=1000, verbose="error"
        )
        inverse = Inverse.load(model, n_threads=1).for_recording(clean, noise)
        rank = 31 if cleaning is not projector else 30
        assert inverse.rank == rank
        stc = inverse.apply(clean).stc
        found[rank] = int(np.abs(stc.data).mean(axis=1).argmax())
    assert all(apart[peak] < 0.02 for peak in found.values())


def test_an_interpolated_channel(eloreta, toy_path):
    evoked = make_evoked(n_times=400)
    raw = mne.io.RawArray(evoked.data, evoked.info, verbose="error")
    raw.info["bads"] = ["Cz", "Pz"]
    raw.interpolate_bads(verbose="error")
    covariance = mne.compute_raw_covariance(raw, verbose="error")
    inverse = Inverse.load(eloreta, head=toy_path).for_recording(raw, covariance)
    assert inverse.rank == 29
    next(iter(inverse.apply(raw)))


def recording(n_times=600, seed=3):
    """Noise of `make_covariance`, stored in single precision as files do."""
    evoked = make_evoked(n_times=n_times)
    cov = make_covariance(evoked.info)["data"]
    rng = np.random.default_rng(seed)
    data = np.linalg.cholesky(cov + 1e-18 * np.eye(32)) @ rng.normal(size=(32, n_times))
    return mne.io.RawArray(data.astype(np.float32), evoked.info, verbose="error")


@pytest.mark.parametrize("cleaning", ["components", "interpolated", "projected"])
def test_a_covariance_from_before_the_cleaning_is_said(eloreta, toy_path, cleaning):
    raw = recording()
    before = make_covariance(raw.info)
    if cleaning == "components":
        mixing = np.random.default_rng(0).normal(size=(32, 32))
        keep = np.r_[np.zeros(4), np.ones(28)]
        raw._data[:] = mixing @ (keep[:, None] * np.linalg.solve(mixing, raw._data))
        raw._data[:] = raw._data.astype(np.float32)
    elif cleaning == "interpolated":
        raw.info["bads"] = ["Cz", "Pz"]
        raw.interpolate_bads(verbose="error")
    else:
        basis = np.linalg.qr(np.random.default_rng(1).normal(size=(32, 3)))[0]
        raw._data -= basis @ (basis.T @ raw._data)
    n_left = {"components": 28, "interpolated": 29, "projected": 29}[cleaning]
    inverse = Inverse.load(eloreta, head=toy_path)
    said = inverse.for_recording(raw, before).unexplained(raw.get_data())
    assert f"spans {n_left} of the 31 dimensions of its noise covariance" in said[0]
    after = mne.compute_raw_covariance(raw, verbose="error")
    fitting = inverse.for_recording(raw, after)
    assert fitting.rank == n_left
    assert not any("dimensions" in line for line in fitting.unexplained(raw.get_data()))


@pytest.mark.parametrize("band", [(None, 8.0), (None, 40.0), (30.0, None), (8.0, 12.0)])
def test_filters_are_not_taken_for_a_cleaning(eloreta, toy_path, band):
    raw = recording(n_times=3000)
    before = make_covariance(raw.info)
    raw.filter(*band, verbose="error")
    inverse = Inverse.load(eloreta, head=toy_path).for_recording(raw, before)
    for data in (raw.get_data(), raw.get_data()[:, :70], raw.get_data()[:, :20]):
        assert not any("dimensions" in line for line in inverse.unexplained(data))


# Causes, distinguished.


SENSORS = sensor_array(make_evoked().info, make_evoked().ch_names)


def covariance_with(scale):
    """White noise whose channels have this factor each."""
    covariance = make_covariance(make_evoked().info)
    covariance["data"] = covariance["data"] * np.outer(scale, scale)
    return covariance


def test_a_channel_in_other_units():
    scale, names = np.ones(32), list(make_evoked().ch_names)
    for factor, value in ((1e6, "2 V"), (1e-6, "2e-12 V")):
        scale[3] = factor
        with pytest.raises(ValueError, match=rf"of {names[3]} \({value}\) is .* another unit"):
            noise_covariance(covariance_with(scale), SENSORS, 1)


def test_channels_that_are_constant():
    scale, names = np.ones(32), list(make_evoked().ch_names)
    scale[3] = 0
    noise_covariance(covariance_with(scale), SENSORS, 1)  # the reference
    scale[5] = 0
    with pytest.raises(ValueError, match=rf"\['{names[3]}', '{names[5]}'\] are constant"):
        noise_covariance(covariance_with(scale), SENSORS, 1)


def test_few_samples_are_enough_for_a_regularized_estimate():
    info = make_evoked().info
    rng = np.random.default_rng(6)
    epochs = mne.EpochsArray(rng.normal(scale=2e-6, size=(5, 32, 10)), info, verbose="error")
    with pytest.raises(ValueError, match=r"estimated from 4\d samples, expected at least 96"):
        noise_covariance(mne.compute_covariance(epochs, verbose="error"), SENSORS, 1)
    shrunk = mne.compute_covariance(epochs, method="shrunk", verbose="error")
    assert noise_covariance(shrunk, SENSORS, 1).shape == (32, 32)


def test_regularized_estimates_are_known_from_their_file(tmp_path):
    info = make_evoked().info
    rng = np.random.default_rng(6)
    epochs = mne.EpochsArray(rng.normal(scale=2e-6, size=(5, 32, 10)), info, verbose="error")
    shrunk = mne.compute_covariance(epochs, method="shrunk", verbose="error")
    shrunk.save(tmp_path / "x-cov.fif", verbose="error")
    read = mne.read_cov(tmp_path / "x-cov.fif", verbose="error")
    assert noise_covariance(read, SENSORS, 1).shape == (32, 32)


def test_too_little_is_left(eloreta, toy_path):
    evoked = make_evoked()
    poor = cleaned(4e-12 * np.eye(32), 28)
    covariance = mne.Covariance(poor, evoked.ch_names, [], [], nfree=1000, verbose="error")
    with pytest.raises(ValueError, match="spans 4 dimensions of 32 channels, expected at least 7"):
        Inverse.load(eloreta, head=toy_path).for_recording(evoked, covariance)
