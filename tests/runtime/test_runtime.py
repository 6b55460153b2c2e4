"""Recordings through exported files: what is refused, and that nothing is left half-done."""

import functools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.core.contracts import Estimate
from deepesi.export.to_onnx import check_parity, export_onnx
from deepesi.models.convdip import ConvDip
from deepesi.physics.atlas import seitzman_parcels
from deepesi.physics.head import SourceSpace
from deepesi.physics.io.heads import place_recording
from deepesi.physics.linear_inverse import linear_inverse
from deepesi.physics.sensors import average_reference
from deepesi.physics.template import load_template, save_template
from deepesi.runtime.contract import TrainingRanges, as_tuples
from deepesi.runtime.estimates import magnitudes_of, source_estimate
from deepesi.runtime.inverse import ExtrapolationWarning, Inverse
from deepesi.runtime.writing.estimate import location
from deepesi.training.saved import load_any
from tests.conftest import make_covariance, make_evoked, slow


def test_estimate_is_the_kernel_of_the_recordings_own_set_up(eloreta, evoked, template):
    """Positions, covariance, number of trials and reference all reach the kernel."""
    covariance = make_covariance(evoked.info)
    prepared = Inverse.load(eloreta).for_recording(evoked.info, covariance, nave=evoked.nave)
    found = prepared.apply(evoked).stc.data
    head = template.head(
        evoked.ch_names,
        place_recording(evoked.info, template).points,
        covariance["data"] / evoked.nave,
    )
    data = evoked.data - evoked.data.mean(axis=0)
    power = (data**2).sum() / data.shape[1] / 31 / (2e-6**2 / 4) - 1
    snr_db = np.clip(2.5 * np.round(10 * np.log10(max(power, 1e-3)) / 2.5), -10, 30)
    kernel = linear_inverse(head.leadfield, head.noise_cov, 10 ** (-snr_db / 10), "eLORETA")
    assert np.allclose(found, kernel @ data, rtol=1e-3, atol=1e-4 * np.abs(found).max())


def test_bad_channels_are_left_out(eloreta, evoked):
    evoked.data[3] = 1e-4
    evoked.info["bads"] = [evoked.ch_names[3]]
    inverse = Inverse.load(eloreta)
    prepared = inverse.for_recording(evoked.info, make_covariance(evoked.info), nave=4)
    with_bad = prepared.apply(evoked).stc.data
    dropped = evoked.copy().drop_channels(evoked.ch_names[3])
    again = inverse.for_recording(dropped.info, make_covariance(dropped.info), nave=4).apply(
        dropped
    )
    assert evoked.ch_names[3] not in prepared.ch_names
    assert np.allclose(with_bad, again.stc.data, rtol=1e-4, atol=1e-6 * np.abs(with_bad).max())


def test_reference_of_the_recording_does_not_matter(convdip, evoked):
    inverse = Inverse.load(convdip).for_recording(evoked.info, make_covariance(evoked.info), nave=4)
    first = inverse.apply(evoked).stc.data
    evoked.data -= evoked.data[5]
    assert np.allclose(
        first, inverse.apply(evoked).stc.data, rtol=1e-3, atol=1e-5 * abs(first).max()
    )


def test_prepared_head_comes_back(convdip, evoked, tmp_path):
    inverse = Inverse.load(convdip)
    prepared = inverse.for_recording(evoked.info, make_covariance(evoked.info), nave=4)
    prepared.save(tmp_path / "head.npz")
    again = inverse.for_prepared(tmp_path / "head.npz")
    assert np.array_equal(prepared.apply(evoked).stc.data, again.apply(evoked).stc.data)


def test_a_head_by_its_path_is_known_to_what_was_prepared_on_it(eloreta, evoked, tmp_path):
    """Its cortex, MNI positions and parcels, which are not those of an installed head."""
    own = load_template()
    own = replace(own, name="own", space=replace(own.space, name="own-ico3"))
    save_template(tmp_path / "own.npz", own)
    inverse = Inverse.load(eloreta, head=tmp_path / "own.npz")
    prepared = inverse.for_recording(evoked.info, make_covariance(evoked.info), nave=4)
    prepared.save(tmp_path / "head.npz")
    for known in (prepared, inverse.for_prepared(tmp_path / "head.npz")):
        assert known.template.name == "own"
        assert known.cortex is known.template.display
        assert "MNI (" in location(0, known)
        assert len(seitzman_parcels(known.space, known.template).names) > 200
    assert Inverse.load(eloreta).for_prepared(tmp_path / "head.npz").cortex is None


def test_prepared_head_of_another_model_is_refused(convdip, eloreta, evoked, tmp_path):
    prepared = Inverse.load(eloreta).for_recording(
        evoked.info, make_covariance(evoked.info), nave=4
    )
    prepared.save(tmp_path / "head.npz")
    with pytest.raises(
        ValueError, match="holds .*linear_inverse.*, the model needs .*Write it again"
    ):
        Inverse.load(convdip).for_prepared(tmp_path / "head.npz")


def refused(model, evoked, message, covariance=None, forward=None):
    covariance = covariance or make_covariance(evoked.info)
    with pytest.raises(ValueError, match=message):
        Inverse.load(model).for_recording(evoked.info, covariance, forward, nave=4).apply(evoked)


def test_meg_only(convdip, evoked):
    covariance = make_covariance(evoked.info)
    evoked.set_channel_types(dict.fromkeys(evoked.ch_names, "mag"), verbose="error")
    refused(
        convdip,
        evoked,
        "takes EEG channels, the recording and its head have magnetometer",
        covariance,
    )


def test_all_channels_bad(convdip, evoked):
    covariance = make_covariance(evoked.info)
    evoked.info["bads"] = list(evoked.ch_names)
    refused(convdip, evoked, "all 32 EEG channels are marked bad", covariance)


def test_fewer_than_eight_channels(convdip, evoked):
    evoked.pick(evoked.ch_names[:7])
    refused(convdip, evoked, "7 good EEG channels .* expected at least 8")


def test_projected_channels(convdip, evoked):
    covariance = make_covariance(evoked.info)
    projector = mne.compute_proj_evoked(evoked, n_eeg=1, verbose="error")
    evoked.add_proj(projector, verbose="error")
    inverse = Inverse.load(convdip)
    assert inverse.for_recording(evoked.info, covariance).rank == 31
    evoked.apply_proj(verbose="error")
    prepared = inverse.for_recording(evoked, covariance)
    assert prepared.rank == 30
    assert "projected" in prepared.rank_reason
    prepared.apply(evoked)
    assert inverse.for_recording(evoked, covariance, rank=20).rank == 20


def test_no_positions(convdip, evoked):
    evoked.info["chs"][4]["loc"][:3] = np.nan
    refused(convdip, evoked, r"1 of 32 EEG channels have no position: \['FC1'\].*set_montage")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite(convdip, evoked, value):
    evoked.data[2, 5] = value
    refused(convdip, evoked, rf"NaN or infinite samples in channels \['{evoked.ch_names[2]}'\]")


@pytest.mark.parametrize(("factor", "guess"), [(1e6, "microvolts"), (1e-6, "kilovolts, or a flat")])
def test_other_units(convdip, evoked, factor, guess):
    evoked.data *= factor
    refused(convdip, evoked, rf"the data range from .* to .*look like {guess}")


def test_covariance_of_other_channels(convdip, evoked):
    other = mne.Covariance(np.eye(3), ["X1", "X2", "X3"], [], [], nfree=9)
    refused(convdip, evoked, r"32 of the 32 good EEG channels .* not in it: .*'X1'", other)


def test_covariance_of_too_few_samples(convdip, evoked):
    factor = np.random.default_rng(0).normal(scale=1e-6, size=(32, 50))
    poor = mne.Covariance(factor @ factor.T / 50, evoked.ch_names, [], [], nfree=50)
    refused(convdip, evoked, "estimated from 50 samples, expected at least 96, .*shrunk", poor)


def test_covariance_in_other_units(convdip, evoked):
    micro = mne.Covariance(4.0 * np.eye(32), evoked.ch_names, [], [], nfree=99)
    refused(
        convdip, evoked, r"noise covariance: .* standard deviation of 2 .*multiply by 1e-12", micro
    )


def test_few_dimensions_of_an_unknown_number_of_samples(convdip, evoked):
    """25 samples span fewer dimensions than a recording from which nothing was removed."""
    few = np.random.default_rng(0).normal(scale=2e-6, size=(32, 25))
    poor = mne.Covariance(few @ few.T / 25, evoked.ch_names, [], [], nfree=0)
    refused(convdip, evoked, r"spans 25 of 31 dimensions.*unknown \(nfree 0\)", poor)
    poor["nfree"] = 1000  # a cleaned recording
    assert Inverse.load(convdip).for_recording(evoked, poor).rank == 25


def test_channels_that_are_bad_in_the_covariance_only(convdip, evoked):
    noise_cov = make_covariance(evoked.info)
    noise_cov["bads"] = [evoked.ch_names[3]]
    refused(convdip, evoked, rf"\['{evoked.ch_names[3]}'\] are marked bad in it", noise_cov)
    evoked.info["bads"] = noise_cov["bads"]
    prepared = Inverse.load(convdip).for_recording(evoked, noise_cov)
    assert len(prepared.ch_names) == 31


@pytest.mark.parametrize(
    ("factor", "message"), [(0.0, "no variance at all"), (-1.0, "negative variances")]
)
def test_variances_that_no_noise_has(convdip, evoked, factor, message):
    noise_cov = make_covariance(evoked.info)
    noise_cov["data"] = factor * noise_cov["data"]
    refused(convdip, evoked, f"noise covariance: its channels have {message}", noise_cov)


def test_covariance_that_is_not_finite(convdip, evoked):
    broken = mne.Covariance(np.full((32, 32), np.nan), evoked.ch_names, [], [], nfree=20)
    refused(convdip, evoked, "holds NaN or infinite values", broken)


def sphere_forward(ch_names, evoked):
    """A forward solution on a small surface source space with channels renamed."""
    info = evoked.copy().rename_channels(dict(zip(evoked.ch_names, ch_names, strict=True))).info
    rr = 0.05 * np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]]) + [0, 0, 0.04]
    sides = []
    for number in (101, 102):
        surface = mne.surface.complete_surface_info(
            {
                "rr": rr,
                "tris": np.array([[0, 1, 2], [1, 3, 2], [0, 2, 3], [0, 3, 1]]),
                "np": 4,
                "ntri": 4,
                "nn": rr / np.linalg.norm(rr, axis=1, keepdims=True),
            },
            copy=False,
            verbose="error",
        )
        surface |= {
            "id": number,
            "type": "surf",
            "coord_frame": np.array(4, np.int32),
            "nuse": 4,
            "inuse": np.ones(4, int),
            "vertno": np.arange(4),
            "use_tris": surface["tris"],
            "nuse_tri": 4,
            "nearest": None,
            "dist": None,
            "pinfo": None,
            "patch_inds": None,
            "nearest_dist": None,
            "dist_limit": None,
            "subject_his_id": "toy",
        }
        sides.append(surface)
    sides[1]["rr"] = rr * [1, 1, 0.9]
    src = mne.SourceSpaces(sides, info={})
    sphere = mne.make_sphere_model((0, 0, 0.04), 0.095, info=info, verbose="error")
    return mne.make_forward_solution(info, None, src, sphere, meg=False, verbose="error")


def test_own_forward_solution(eloreta, evoked):
    forward = sphere_forward(evoked.ch_names, evoked)
    prepared = Inverse.load(eloreta).for_recording(
        evoked.info, make_covariance(evoked.info), forward, nave=4
    )
    result = prepared.apply(evoked)
    assert result.stc.data.shape == (8, 30)
    assert prepared.space.name == "toy-surface"


def test_forward_without_a_common_channel(eloreta, evoked):
    forward = sphere_forward([f"Q{i}" for i in range(32)], evoked)
    refused(eloreta, evoked, "no channel in common.*rename_channels", forward=forward)


def test_forward_with_too_few_common_channels(eloreta, evoked):
    names = [*evoked.ch_names[:5], *(f"Q{i}" for i in range(27))]
    refused(eloreta, evoked, "only 5 good EEG channels", forward=sphere_forward(names, evoked))


def test_forward_that_lacks_good_channels(eloreta, evoked):
    names = [*evoked.ch_names[:31], "Q"]
    forward = sphere_forward(names, evoked)
    refused(
        eloreta, evoked, rf"not in it: \['{evoked.ch_names[31]}'\].*mark these", forward=forward
    )


def test_network_on_another_source_space(convdip, evoked):
    forward = sphere_forward(evoked.ch_names, evoked)
    refused(convdip, evoked, "belongs to the source space fsaverage-ico3.*has toy", forward=forward)


def test_head_of_another_source_space(convdip, toy):
    with pytest.raises(ValueError, match="belongs to the source space fsaverage-ico3"):
        Inverse.load(convdip).prepare_for(toy.montage_head("biosemi32"), 1, "test")


def test_packaged_head_instead_of_the_one_trained_on(evoked, template, tmp_path):
    path = tmp_path / "model.onnx"
    model, head = ConvDip(1284, hidden=16), template.montage_head("biosemi32")
    export_onnx(model, head, path, anatomy="0123456789abcdef" * 4)
    refused(path, evoked, r"trained on the head 0123456789abcdef, fsaverage-ico3 is .*--head")
    export_onnx(model, head, path, anatomy=template.fingerprint)
    prepared = Inverse.load(path).for_recording(evoked.info, make_covariance(evoked.info), nave=4)
    assert prepared.apply(evoked).stc.data.shape == (1284, 30)


def test_evaluating_a_file_of_another_source_space(convdip, toy):
    with pytest.raises(ValueError, match="belongs to the source space fsaverage-ico3.*head.name"):
        load_any(convdip, toy)


def test_average_of_another_number_of_trials(convdip, evoked):
    prepared = Inverse.load(convdip).for_recording(evoked.info, make_covariance(evoked.info))
    with pytest.raises(ValueError, match="prepared for averages of 1 trials, .* one of 4"):
        prepared.apply(evoked)
    with pytest.raises(ValueError, match="number of averaged trials: got 0, expected a positive"):
        Inverse.load(convdip).for_recording(evoked.info, make_covariance(evoked.info), nave=0)


def test_channels_in_another_order_since_it_was_prepared(convdip, evoked):
    inverse = Inverse.load(convdip)
    prepared = inverse.for_recording(evoked.info, make_covariance(evoked.info), nave=4)
    first = prepared.apply(evoked).stc.data
    again = prepared.apply(evoked.reorder_channels(evoked.ch_names[::-1])).stc.data
    assert np.array_equal(first, again)


def test_damaged_prepared_head(convdip, tmp_path):
    (tmp_path / "head.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match="not a readable head.npz"):
        Inverse.load(convdip).for_prepared(tmp_path / "head.npz")


def test_baseline_follows_a_head_of_free_orientation(eloreta, evoked, template):
    """The same file, three components per place; only the surface file format is refused."""
    head = template.montage_head("biosemi32")
    modes = np.random.default_rng(5).normal(size=(3, 32, 32)) / np.sqrt(32)
    blocks = np.stack([mode @ head.leadfield for mode in modes], axis=2)
    free = replace(
        head,
        leadfield=average_reference(blocks.reshape(32, -1)),
        space=replace(head.space, n_orient=3),
    )
    prepared = Inverse.load(eloreta).prepare_for(free, evoked.nave, "test")
    (found,) = prepared.estimate(evoked.data)
    assert found.shape == (3 * 1284, evoked.data.shape[1])
    lambda2 = 10.0 ** -np.arange(-1, 3.25, 0.25)
    kernels = [linear_inverse(free.leadfield, free.noise_cov, x, "eLORETA", 3) for x in lambda2]
    deviations = [np.abs(k @ average_reference(evoked.data) - found).max() for k in kernels]
    assert min(deviations) < 1e-4 * np.abs(found).max()
    stc = prepared.apply(evoked).stc
    assert isinstance(stc, mne.VectorSourceEstimate)
    assert np.array_equal(stc.data.reshape(found.shape), found)
    assert np.allclose(stc.magnitude().data, magnitudes_of(stc), atol=0)


def test_recording_that_changed_since_it_was_prepared(convdip, evoked):
    prepared = Inverse.load(convdip).for_recording(
        evoked.info, make_covariance(evoked.info), nave=4
    )
    evoked.info["bads"] = [evoked.ch_names[0]]
    with pytest.raises(ValueError, match=rf"lacks \['{evoked.ch_names[0]}'\]"):
        prepared.apply(evoked)


def make_epochs(evoked: mne.Evoked, n: int = 3) -> mne.EpochsArray:
    """Epochs that differ, on the channels of an evoked response."""
    data = np.random.default_rng(7).normal(scale=4e-6, size=(n, *evoked.data.shape))
    return mne.EpochsArray(data, evoked.info, tmin=-0.02, verbose="error")


def test_epochs_are_localized_each(eloreta, evoked):
    """Each as it would be alone, with the regularization that suits it."""
    prepared = Inverse.load(eloreta).for_recording(evoked.info, make_covariance(evoked.info))
    epochs = make_epochs(evoked)
    found = list(prepared.apply(epochs))
    assert len(found) == 3
    for data, one in zip(epochs.get_data(), found, strict=True):
        alone = mne.EvokedArray(data, evoked.info, tmin=-0.02, nave=1)
        assert np.array_equal(one.stc.data, prepared.apply(alone).stc.data)
        assert np.allclose(one.stc.times, epochs.times)


def test_raw_is_localized_in_stretches_of_a_file_that_is_not_loaded(eloreta, evoked, tmp_path):
    data = np.random.default_rng(8).normal(scale=4e-6, size=(32, 1010))
    mne.io.RawArray(data, evoked.info, verbose="error").save(
        tmp_path / "x_raw.fif", fmt="double", verbose="error"
    )
    raw = mne.io.read_raw_fif(tmp_path / "x_raw.fif", preload=False, verbose="error")
    prepared = Inverse.load(eloreta).for_recording(raw.info, make_covariance(raw.info))
    found = list(prepared.apply(raw, chunk=1.0))
    assert not raw.preload
    assert [one.stc.data.shape[1] for one in found] == [202] * 5
    assert np.allclose(np.concatenate([one.stc.times for one in found]), raw.times)
    (expected,) = prepared.estimate(data[:, 202:404])
    assert np.allclose(found[1].stc.data, expected, rtol=1e-5, atol=0)
    assert np.allclose(np.hstack([one.data for one in found]), average_reference(data), atol=0)


def test_raw_in_stretches_of_no_length(convdip, evoked):
    raw = mne.io.RawArray(evoked.data, evoked.info, verbose="error")
    prepared = Inverse.load(convdip).for_recording(raw.info, make_covariance(raw.info))
    with pytest.raises(ValueError, match="stretches of 0.001 s hold no sample at 250 Hz"):
        list(prepared.apply(raw, chunk=0.001))


def test_epochs_where_averages_were_expected(convdip, evoked):
    prepared = Inverse.load(convdip).for_recording(
        evoked.info, make_covariance(evoked.info), nave=4
    )
    with pytest.raises(ValueError, match="averages of 4 trials, the recording is one of 1,"):
        prepared.apply(make_epochs(evoked))


def test_what_is_no_recording(convdip, evoked):
    prepared = Inverse.load(convdip).for_recording(evoked.info, make_covariance(evoked.info))
    with pytest.raises(TypeError, match="got ndarray, expected mne.Evoked.*estimate"):
        prepared.apply(evoked.data)


@pytest.mark.parametrize(
    ("parts", "n_orient", "kind"),
    [
        (2, 1, mne.SourceEstimate),
        (2, 3, mne.VectorSourceEstimate),
        (1, 1, mne.VolSourceEstimate),
        (1, 3, mne.VolVectorSourceEstimate),
    ],
)
def test_source_estimate_of_every_space(parts, n_orient, kind):
    """Row ``n_orient * s + o`` of the array is component ``o`` of place ``s``."""
    vertices = tuple(np.arange(4) + part for part in range(parts))
    space = SourceSpace("toy-x", vertices, np.empty((0, 2), int), n_orient)
    values = np.random.default_rng(0).normal(size=(space.n_dipoles, 5))
    stc = source_estimate(values, space, -0.1, 0.01)
    assert type(stc) is kind
    assert stc.subject == "toy"
    place, component = 3, n_orient - 1
    row = stc.data[place] if n_orient == 1 else stc.data[place, component]
    assert np.array_equal(row, values[n_orient * place + component])
    assert stc.times[0] == pytest.approx(-0.1)


def test_source_estimate_of_a_mixed_space():
    space = SourceSpace("toy-x", (np.arange(2),) * 3, np.empty((0, 2), int))
    with pytest.raises(ValueError, match="toy-x has 3 parts, expected two hemispheres or one"):
        source_estimate(np.zeros((6, 1)), space, 0.0, 0.01)


def test_live_frames_of_another_shape(convdip, evoked):
    prepared = Inverse.load(convdip).for_recording(
        evoked.info, make_covariance(evoked.info), nave=4
    )
    with pytest.raises(ValueError, match=r"data of shape \(31, 1\), expected \(32 channels"):
        prepared.estimate(evoked.data[:31, :1])


TRAINED = {
    "n_channels": [12, 64],
    "n_times": [1, 20],
    "sfreq": 250.0,
    "snr_db": [-5.0, 20.0],
    "band_hz": [0.0, 25.0],
}
WIDE = (0.1, 125.0)


@pytest.mark.parametrize(
    ("recording", "expected"),
    [
        ((32, 250.0, WIDE, 3.0), []),
        ((12, 250.0, WIDE, None), []),
        ((32, 250.0, (12.0, 25.0), 3.0), []),
        ((128, 250.0, WIDE, 3.0), ["128 channels; trained on 12 to 64"]),
        ((32, 1000.0, WIDE, 3.0), ["1000 Hz; trained on 250 Hz"]),
        (
            (32, 250.0, (0.1, 20.0), 3.0),
            [
                "a passband of 0.1 to 20 Hz; 90 % of the power of the training data lies "
                "between 0 and 25 Hz"
            ],
        ),
        ((32, 250.0, WIDE, 31.2), ["31.2 dB SNR at the strongest sample; trained on -5 to 20"]),
        ((8, 2000.0, (13.0, 125.0), 40.0), 4),
    ],
)
def test_what_lies_beyond_training(recording, expected):
    found = TrainingRanges(**as_tuples(TRAINED)).out_of_distribution(*recording)
    assert len(found) == expected if isinstance(expected, int) else found == expected


def test_the_rate_of_single_samples_does_not_matter():
    frames = TrainingRanges(**as_tuples(TRAINED | {"n_times": [1, 1], "band_hz": None}))
    assert frames.out_of_distribution(32, 2000.0, (1.0, 10.0), 3.0) == []


def test_it_warns_of_what_lies_beyond_training(toy, tmp_path):
    """The SNR is the power over that of the noise: 10 µV on 1 µV (2 µV in 4 trials) is 20 dB."""
    path = tmp_path / "model.onnx"
    export_onnx(
        MinimumNorm(),
        toy.montage_head("biosemi16"),
        path,
        {"trained": TRAINED | {"snr_db": [-5.0, 15.0], "n_channels": [8, 30]}},
    )
    evoked = make_evoked()
    with evoked.info._unlock():
        evoked.info["lowpass"] = 15.0
    evoked.data[:] = np.random.default_rng(0).normal(scale=10e-6, size=evoked.data.shape)
    inverse = Inverse.load(path, head=toy_file(toy, tmp_path)).for_recording(
        evoked.info, make_covariance(evoked.info), nave=4
    )
    with pytest.warns(ExtrapolationWarning) as caught:
        inverse.apply(evoked)
    snr, channels, band = sorted(str(w.message) for w in caught)
    assert "a passband of 0 to 15 Hz" in band
    assert "32 channels; trained on 8 to 30" in channels
    assert 20 < float(snr.split(" dB")[0].split()[-1]) < 23


def test_windows_are_no_longer_than_in_training(toy, tmp_path):
    """30 samples become two windows of 20, each as if it were alone: regularized by its own SNR."""
    evoked, inverses = make_evoked(), {}
    evoked.data[:, :15] *= 20
    for name, trained in (("whole", None), ("windows", TRAINED)):
        path = tmp_path / f"{name}.onnx"
        export_onnx(MinimumNorm(), toy.montage_head("biosemi16"), path, {"trained": trained})
        inverses[name] = Inverse.load(path, head=toy_file(toy, tmp_path)).for_recording(
            evoked.info, make_covariance(evoked.info)
        )
    found = inverses["windows"].estimate(evoked.data)[0]
    first, second = (inverses["whole"].estimate(evoked.data[:, i : i + 20])[0] for i in (0, 10))
    # Single precision: sums of one window and of several at once may be of another order.
    close = functools.partial(
        np.testing.assert_allclose, rtol=1e-5, atol=1e-5 * np.abs(found).max()
    )
    close(found[:, :10], first[:, :10])
    close(found[:, 20:], second[:, 10:])
    falling = np.sin(np.pi * (np.arange(10, 20) + 0.5) / 20) ** 2
    close(found[:, 10:20], falling * first[:, 10:] + (1 - falling) * second[:, :10])
    assert not np.allclose(inverses["whole"].estimate(evoked.data)[0], found, atol=0)

    # Stretches of a raw recording leave no trace, wherever they end.
    raw = mne.io.RawArray(np.tile(evoked.data, 10)[:, :287], evoked.info, verbose="error")
    data = raw.get_data()
    whole = inverses["windows"].estimate(data - data.mean(axis=1, keepdims=True))[0]
    for chunk in (0.02, 0.3, 0.5, 10.0):
        parts = [piece.stc.data for piece in inverses["windows"].apply(raw, chunk=chunk)]
        close(np.concatenate(parts, axis=1), whole)


def toy_file(toy, folder):
    save_template(folder / "toy.npz", toy)
    return folder / "toy.npz"


@pytest.mark.parametrize("error", [KeyboardInterrupt, slow(OSError("disk full"))])
def test_interrupted_export_leaves_no_half_file(toy, tmp_path, monkeypatch, error):
    """Interrupted after half of the file is written: nothing is left, or the file of before."""
    path = tmp_path / "model.onnx"

    def write_half(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise error

    monkeypatch.setattr(Path, "write_bytes", write_half)
    for before in ([], ["model.onnx"]):
        if before:
            path.write_text("old")
        with pytest.raises(type(error) if isinstance(error, Exception) else error):
            export_onnx(MinimumNorm(), toy.montage_head("biosemi16"), path)
        assert [p.name for p in tmp_path.iterdir()] == before
    assert path.read_text() == "old"


def test_file_that_deviates_from_its_model_is_refused(toy, simulate, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(MinimumNorm("eLORETA"), toy.montage_head("biosemi16"), path)
    other = MinimumNorm("eLORETA")
    other.forward = lambda data, inputs: Estimate(
        1.01 * MinimumNorm.forward(other, data, inputs).mean
    )
    with pytest.raises(ValueError, match=r"differs from MinimumNorm in torch by 9\.\de-03"):
        check_parity(other, path, simulate([]).batch(0), n_timed=1)


WITHOUT_TORCH = """
import sys
for name in ("torch", "lightning", "hydra", "onnx", "jaxtyping", "sklearn", "pandas"):
    sys.modules[name] = None
from deepesi.cli.main import main
for arguments in {commands!r}:
    main(arguments)
"""


def test_apply_and_prepare_without_torch(convdip, evoked, tmp_path):
    evoked.save(tmp_path / "x-ave.fif", verbose="error")
    make_covariance(evoked.info).save(tmp_path / "x-cov.fif", verbose="error")
    common = [str(convdip), "x-ave.fif", "--noise-cov", "x-cov.fif"]
    commands = [
        ["prepare", *common, "--nave", "4", "--out", "head.npz"],
        ["apply", *common, "--out", "stc"],
        ["apply", str(convdip), "x-ave.fif", "--prepared", "head.npz", "--out", "live"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.format(commands=commands)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "MNI (" in done.stdout
    written = {p.name for p in tmp_path.iterdir()}
    assert {"stc-lh.stc", "stc-rh.stc", "stc.png", "live-lh.stc", "live.png", "head.npz"} <= written
    one, two = (mne.read_source_estimate(tmp_path / n) for n in ("stc", "live"))
    assert one.subject is None or one.subject == "fsaverage"
    assert np.array_equal(one.data, two.data)
    assert not [n for n in written if n.startswith(".") or "partial" in n]
