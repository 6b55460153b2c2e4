"""64 channels after ICA, interpolation and SSP: eLORETA is that of MNE-Python at the same rank."""

from functools import cache

import mne
import numpy as np
import pytest

from deepesi.physics.head import HeadModel, SourceSpace
from deepesi.physics.io.channels import sensor_array
from deepesi.physics.io.covariance import noise_covariance
from deepesi.physics.io.rank import applied_projector, rank_reason, with_rank
from deepesi.physics.linear_inverse import linear_inverse
from deepesi.physics.noise import rank_of, whitener
from deepesi.physics.sensors import average_reference

LAMBDA2 = 1 / 9


@cache
def forward():
    """Forty dipoles along the normals of a sphere, measured by 64 channels."""
    montage = mne.channels.make_standard_montage("biosemi64")
    info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
    sphere = mne.make_sphere_model((0, 0, 0.04), 0.095, info=info, verbose="error")
    normals = np.random.default_rng(3).normal(size=(40, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    src = mne.setup_volume_source_space(
        pos={"rr": 0.07 * normals + [0, 0, 0.04], "nn": normals}, verbose="error"
    )
    free = mne.make_forward_solution(info, None, src, sphere, meg=False, verbose="error")
    return info, mne.convert_forward_solution(free, force_fixed=True, verbose="error")


@cache
def recorded():
    """Brain-like noise, independent sources of strong artifacts, and sensor noise."""
    info, solution = forward()
    rng = np.random.default_rng(4)
    gain = solution["sol"]["data"]
    brain = 2e-8 * gain @ rng.laplace(size=(40, 3000)) / np.abs(gain).max() * 50
    artifacts = 5e-6 * rng.normal(size=(64, 20)) @ rng.laplace(size=(20, 3000))
    data = brain + artifacts + 5e-7 * rng.normal(size=(64, 3000))
    return mne.io.RawArray(data, info, verbose="error")


def referenced():
    """The recording in its average reference."""
    return recorded().copy().apply_function(average_reference, channel_wise=False, verbose="error")


@cache
def ica():
    """ICA components may be poor: removing them lowers the rank all the same."""
    found = mne.preprocessing.ICA(30, method="infomax", max_iter=3, random_state=0, verbose="error")
    return found.fit(referenced(), verbose="error")


def without_components(n):
    return ica().apply(referenced(), exclude=list(range(n)), verbose="error")


def interpolated(n):
    raw = recorded().copy()
    raw.info["bads"] = raw.ch_names[5 : 5 + n]
    return raw.interpolate_bads(verbose="error")


def projected(n):
    raw = recorded().copy()
    raw.add_proj(mne.compute_proj_raw(raw, n_eeg=n, verbose="error"), verbose="error")
    return raw.apply_proj(verbose="error")


def without_and_interpolated(n):
    """Three components removed, then ``n`` channels interpolated: the lower rank of the two."""
    raw = without_components(3)
    raw.info["bads"] = raw.ch_names[5 : 5 + n]
    return raw.interpolate_bads(verbose="error")


CLEANED = [
    *[(without_components, n) for n in (1, 5, 20)],
    *[(interpolated, n) for n in (1, 6)],
    *[(projected, n) for n in (1, 3)],
    (without_and_interpolated, 6),
]


def of_recording(raw, rank=None, covariance=None):
    """The head of the forward solution under a recording, and its covariance."""
    covariance = covariance or mne.compute_raw_covariance(raw, verbose="error")
    sensors, solution = sensor_array(raw.info, raw.ch_names), forward()[1]
    head = HeadModel.referenced(
        leadfield=solution["sol"]["data"],
        noise_cov=noise_covariance(covariance, sensors, 1),
        sensors=sensors,
        source_pos=solution["source_rr"],
        source_normals=solution["source_nn"],
        space=SourceSpace("sphere", (np.arange(40),), np.empty((0, 2), dtype=np.int64)),
    )
    return with_rank(head, raw.info, rank), covariance


def eloreta_of_mne(raw, covariance, rank):
    evoked = mne.EvokedArray(raw.get_data(stop=6), raw.info, verbose="error")
    evoked.set_eeg_reference(projection=True, verbose="error")
    operator = mne.minimum_norm.make_inverse_operator(
        evoked.info,
        forward()[1],
        covariance,
        loose=0.0,
        fixed=True,
        depth=None,
        rank={"eeg": rank},
        verbose="error",
    )
    stc = mne.minimum_norm.apply_inverse(evoked, operator, LAMBDA2, "eLORETA", verbose="error")
    return stc.data


def eloreta(head, raw):
    kernel = linear_inverse(head.leadfield, head.noise_cov, LAMBDA2, "eLORETA")
    return kernel @ head.sensors.reference(raw.get_data(stop=6))


def assert_equal(ours, theirs):
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize(("clean", "n"), CLEANED)
def test_eloreta_is_that_of_mne_at_the_same_rank(clean, n):
    raw = clean(n)
    head, covariance = of_recording(raw)
    assert rank_of(head.noise_cov) == 63 - n
    assert_equal(eloreta(head, raw), eloreta_of_mne(raw, covariance, 63 - n))
    assert rank_reason(head).startswith("what its noise covariance spans")


def test_projectors_hold_for_a_covariance_from_before_them():
    """The projectors of the data are applied to noise and lead field, as in MNE-Python.

    The lead field of the head stays; whitening projects it.
    """
    raw = projected(2)
    before = mne.compute_raw_covariance(recorded(), verbose="error")
    head, _ = of_recording(raw, covariance=before)
    assert rank_of(head.noise_cov) == 61
    projector = applied_projector(raw.info, head.sensors)
    assert np.allclose(projector @ projector, projector)
    white = whitener(head.noise_cov)
    assert np.allclose(white @ projector @ head.leadfield, white @ head.leadfield)
    assert_equal(eloreta(head, raw), eloreta_of_mne(raw, before, 61))


def test_projectors_that_are_not_applied_change_nothing():
    raw = recorded().copy()
    raw.add_proj(mne.compute_proj_raw(raw, n_eeg=2, verbose="error"), verbose="error")
    raw.set_eeg_reference(projection=True, verbose="error")
    assert applied_projector(raw.info, sensor_array(raw.info, raw.ch_names)) is None
    raw.del_proj([0, 1]).apply_proj(verbose="error")
    assert applied_projector(raw.info, sensor_array(raw.info, raw.ch_names)) is None
    assert rank_reason(of_recording(raw)[0]) == "average reference"


@pytest.mark.parametrize("rank", [63, 40, 8])
def test_a_number_is_the_rank_of_mne(rank):
    raw = recorded()
    head, covariance = of_recording(raw, rank)
    assert rank_of(head.noise_cov) == rank
    assert rank_reason(head, rank) == "as asked for"
    assert_equal(eloreta(head, raw), eloreta_of_mne(raw, covariance, rank))
    by_modality, _ = of_recording(raw, {"eeg": rank})
    assert_equal(by_modality.noise_cov, head.noise_cov)


def test_info_counts_projectors_as_mne_does():
    raw = projected(3)
    head, covariance = of_recording(raw, "info")
    raw.set_eeg_reference(projection=True, verbose="error")
    expected = mne.compute_rank(covariance, "info", info=raw.info, verbose="error")
    assert {"eeg": rank_of(head.noise_cov)} == expected == {"eeg": 60}
    assert rank_reason(head, "info") == "channels less reference and applied projectors"


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        (64, r"64 dimensions asked for .*spans 61 and at least 7 are needed"),
        (6, r"6 dimensions asked for .*--rank 6"),
        ("info", r"63 dimensions asked for .*'info'.*spans 61"),
        ("full", r"rank: got 'full', expected None .*'info' .*a number"),
        (3.5, "rank: got 3.5"),
        (True, "rank: got True"),
        ({"eeg": 62}, r"rank: got {'eeg': 62}, but .* spans {'eeg': 61}"),
        ({"eeg": 6}, r"6 dimensions asked for"),
        ({"meg": 60}, r"rank: got {'meg': 60}, expected .* of the recording: eeg"),
        ({"eeg": 30.5}, r"rank: got {'eeg': 30.5}, expected a number"),
        ({}, r"rank: got {}, expected a number"),
    ],
)
def test_ranks_that_cannot_be_are_refused(rank, message):
    with pytest.raises(ValueError, match=message):
        of_recording(interpolated(2), rank)


def test_three_dimensions_of_sixty_are_broken():
    few = recorded().copy().pick(recorded().ch_names[:60])
    mixing = np.random.default_rng(6).normal(size=(60, 3))
    few._data[:] = 1e-6 * mixing @ np.random.default_rng(7).normal(size=(3, few.n_times))
    sensors = sensor_array(few.info, few.ch_names)
    covariance = mne.compute_raw_covariance(few, verbose="error")
    head = HeadModel.referenced(
        leadfield=forward()[1]["sol"]["data"][:60],
        noise_cov=noise_covariance(covariance, sensors, 1),
        sensors=sensors,
        source_pos=np.zeros((40, 3)),
        source_normals=np.zeros((40, 3)),
        space=SourceSpace("sphere", (np.arange(40),), np.empty((0, 2), dtype=np.int64)),
    )
    with pytest.raises(ValueError, match="spans 3 dimensions of 60 channels, expected at least 7"):
        with_rank(head, few.info)
