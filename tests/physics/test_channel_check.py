"""Channels that no source explains: closed forms, clean recordings of other heads, bad channels."""

from pathlib import Path

import mne
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.cli.validate import RECORDINGS
from deepesi.physics.channel_check import _without, channel_precision, unexplained_channels
from deepesi.physics.family import Tissues
from deepesi.physics.io.heads import head_on_template
from deepesi.physics.montage import eeg_info
from deepesi.physics.scalp import displace
from deepesi.physics.sensors import average_reference
from deepesi.physics.template import load_template
from deepesi.runtime.inverse import Inverse, UnexplainedChannelWarning
from deepesi.validation.case import Case
from deepesi.validation.eeglab import eeglab_cases
from deepesi.validation.expectation import Expectation
from deepesi.validation.sample import sample_cases
from tests.conftest import slow

HEADS = [f"warp{n}-ico3" for n in (8, 9, 18, 19, 28, 29)]


def coloured(rng, *shape):
    """Unit-variance noise ``(..., T)`` with the smoothness of EEG at 250 Hz."""
    noise = rng.normal(size=shape)
    for t in range(1, shape[-1]):
        noise[..., t] = 0.9 * noise[..., t - 1] + np.sqrt(1 - 0.81) * noise[..., t]
    return noise


def recording(template, montage, snr_db, rng, n_times=150):
    """An evoked response of another head: its lead field, other tissues, electrodes 10 mm off.

    Returns the head an analyst would have, signal and noise ``(C, T)``, V.
    """
    true = load_template(str(rng.choice(HEADS)))
    names, electrodes = true.montage(montage)
    scalp = true.family.scalp_pos, true.family.scalp_faces
    moved = displace(electrodes.positions, *scalp, 0.01, 1, rng)[0, 0]
    tissues = Tissues(skull_conductivity=float(np.exp(rng.uniform(*np.log([0.003, 0.03])))))
    leadfield = average_reference(true.family.leadfield(tissues, moved))
    times = np.arange(n_times) / 250
    signal = np.zeros((len(names), n_times))
    for centre in rng.choice(np.flatnonzero(true.is_cortex), rng.integers(1, 4)):
        distance = np.linalg.norm(true.source_pos - true.source_pos[centre], axis=1)
        patch = np.exp(-0.5 * (distance / rng.uniform(0.01, 0.03)) ** 2)
        pulse = np.exp(-0.5 * ((times - rng.uniform(0.2, 0.5)) / rng.uniform(0.01, 0.05)) ** 2)
        signal += np.outer(leadfield @ patch, pulse * np.cos(40 * (times - rng.uniform(0.2, 0.5))))
    unit = leadfield / np.linalg.norm(leadfield, axis=0)
    brain = unit @ unit.T * len(names) / np.trace(unit @ unit.T)
    noise_cov = 1e-12 * (0.6 * brain + 0.4 * np.diag(np.exp(rng.normal(0, 0.25, len(names))) ** 2))
    noise = np.linalg.cholesky(noise_cov) @ coloured(rng, len(names), n_times)
    head = template.head(*template.montage(montage), noise_cov)
    power = n_times * np.trace(head.noise_cov)
    signal *= np.sqrt(10 ** (snr_db / 10) * power / np.square(signal).sum())
    return head, signal, noise


def test_residuals_are_those_of_regression_on_the_other_channels(template):
    """In any reference: the precision of average-referenced channels depends on none."""
    rng = np.random.default_rng(0)
    head = template.montage_head("biosemi16")
    precision = channel_precision(head)
    covariance = np.linalg.pinv(precision, hermitian=True)
    data = rng.normal(size=(16, 5))
    # Referenced to channel 15, channels 0 to 14 have a covariance of full rank.
    to_last = np.eye(16)[:15] - np.eye(16)[15]
    own, here = to_last @ covariance @ to_last.T, to_last @ data
    rest = np.arange(1, 15)
    weights = np.linalg.solve(own[np.ix_(rest, rest)], own[rest, 0])
    residual = here[0] - weights @ here[rest]
    assert np.allclose((precision @ data)[0] / precision[0, 0], residual)
    variance = own[0, 0] - weights @ own[rest, 0]
    assert 1 / precision[0, 0] == pytest.approx(variance)


def test_a_channel_left_out_leaves_the_precision_of_the_others(template):
    head = template.montage_head("biosemi16")
    precision = channel_precision(head)
    rest = np.delete(np.arange(16), 3)
    covariance = np.linalg.pinv(precision, hermitian=True)[np.ix_(rest, rest)]
    referenced = average_reference(average_reference(covariance), axis=1)
    expected = np.linalg.pinv(referenced, rcond=1e-10, hermitian=True)
    assert np.allclose(_without(precision, 3), expected, rtol=0, atol=1e-8 * expected.max())


@pytest.mark.parametrize("snr_db", [slow(-5), 5, slow(20)])
@pytest.mark.parametrize("montage", ["10-20-19", "biosemi32", "biosemi64"])
def test_clean_recordings_of_other_heads_are_not_accused(template, montage, snr_db):
    rng = np.random.default_rng(11)
    for _ in range(20):
        head, signal, noise = recording(template, montage, snr_db, rng)
        precision = channel_precision(head)
        assert unexplained_channels(precision, signal + noise, head.sensors) == []


@pytest.mark.parametrize("montage", ["biosemi32", "biosemi64"])
def test_bad_channels_are_named_and_no_others(template, montage):
    """Independent noise of ten times the level, a gain of 20, two plugs exchanged; at 5 dB."""
    rng = np.random.default_rng(12)
    for _ in range(5):
        head, signal, noise = recording(template, montage, 5, rng)
        precision = channel_precision(head)
        data = signal + noise
        row = int(rng.integers(len(data)))
        contact = data.copy()
        contact[row] = 10 * head.noise_level * coloured(rng, data.shape[1])
        assert unexplained_channels(precision, contact, head.sensors) == [row]
        strongest = int(np.square(signal).sum(axis=1).argmax())
        gain = data.copy()
        gain[strongest] *= 20
        assert unexplained_channels(precision, gain, head.sensors) == [strongest]
        opposite = int((signal @ signal[strongest]).argmin())
        plugs = data.copy()
        plugs[[strongest, opposite]] = plugs[[opposite, strongest]]
        found = unexplained_channels(precision, plugs, head.sensors)
        assert set(found) & {strongest, opposite}
        assert set(found) <= {strongest, opposite}


def test_a_scale_changes_nothing_and_few_samples_tell_nothing(template):
    head, signal, noise = recording(template, "biosemi32", 5, np.random.default_rng(13))
    precision = channel_precision(head)
    data = signal + noise
    data[7] = 2e-5 * coloured(np.random.default_rng(14), data.shape[1])
    assert unexplained_channels(precision, 1e-3 * data + 1e-4, head.sensors) == [7]
    assert unexplained_channels(precision, data[:, :9], head.sensors) == []


def named(case, template):
    evoked = case.evoked
    head = head_on_template(evoked.info, case.noise_cov, template, evoked.nave)
    precision = channel_precision(head)
    data = evoked.get_data(picks=list(head.sensors.names))
    return [head.sensors.names[row] for row in unexplained_channels(precision, data, head.sensors)]


def test_the_bad_channel_of_the_sample_recording_is_named(template, sample_data):
    """EEG 053, left in, is named in both visual responses, and nothing else anywhere."""
    for case in sample_cases(sample_data):
        assert named(case, template) == []
        case.evoked.info["bads"] = []
        assert named(case, template) == (["EEG 053"] if "visual" in case.condition else [])


def test_the_sample_recording_of_eeglab_has_none(template, eeglab_data):
    (case,) = eeglab_cases(eeglab_data)
    assert named(case, template) == []


@pytest.fixture
def with_bad_contact(template, tmp_path, monkeypatch):
    """An evoked response and its noise covariance as files; the contact of P3 is bad."""
    head, signal, noise = recording(template, "biosemi32", 5, np.random.default_rng(15))
    data = signal + noise
    row = head.sensors.names.index("P3")
    data[row] = 1e-5 * coloured(np.random.default_rng(16), data.shape[1])
    info = eeg_info(head.sensors.names, head.sensors.positions)
    with info._unlock():
        info["sfreq"] = 250.0
    evoked = mne.EvokedArray(data, info, tmin=0.0, nave=1, comment="bad contact")
    covariance = mne.Covariance(head.noise_cov, head.sensors.names, [], [], nfree=1000)
    monkeypatch.chdir(tmp_path)
    evoked.save("x-ave.fif", verbose="error")
    covariance.save("x-cov.fif", verbose="error")
    return evoked, covariance


def test_apply_names_the_channel(eloreta, with_bad_contact, capsys):
    evoked, covariance = with_bad_contact
    inverse = Inverse.load(eloreta).for_recording(evoked.info, covariance)
    message = r"no source explains what P3 reads.*mark it as bad \(info\['bads'\], --exclude\)"
    with pytest.warns(UnexplainedChannelWarning, match=message):
        inverse.apply(evoked)
    arguments = ["apply", str(eloreta), "x-ave.fif", "--noise-cov", "x-cov.fif", "--out", "out"]
    main(arguments)
    said = capsys.readouterr().out
    assert said.index("no source explains what P3 reads") < said.index("strongest at")
    main([*arguments, "--exclude", "P3"])
    assert "no source explains" not in capsys.readouterr().out


def test_prepared_heads_name_it_too(eloreta, with_bad_contact, capsys):
    main(["prepare", str(eloreta), "x-ave.fif", "--noise-cov", "x-cov.fif", "--out", "head.npz"])
    main(["apply", str(eloreta), "x-ave.fif", "--prepared", "head.npz", "--out", "out"])
    assert "no source explains what P3 reads" in capsys.readouterr().out


def test_epochs_say_in_which_piece(eloreta, with_bad_contact, capsys):
    evoked, _ = with_bad_contact
    clean = evoked.data.copy()
    row = evoked.ch_names.index("P3")
    clean[row] = clean[[evoked.ch_names.index(n) for n in ("CP1", "CP5", "Pz", "P7")]].mean(axis=0)
    epochs = mne.EpochsArray([clean, evoked.data], evoked.info, verbose="error")
    epochs.save("x-epo.fif", verbose="error")
    main(["apply", str(eloreta), "x-epo.fif", "--noise-cov", "x-cov.fif", "--out", "out"])
    said = [line for line in capsys.readouterr().out.splitlines() if "no source" in line]
    assert [line[:5] for line in said] == ["0001:"]


def test_validate_names_it_once_for_each_recording(with_bad_contact, tmp_path, monkeypatch, capsys):
    """Before what was found, and in the report."""
    evoked, covariance = with_bad_contact
    evoked.shift_time(-0.1)
    expectation = Expectation("left", "calcarine cortex", "occipital", "a test")
    case = Case("sample", "a test", evoked, covariance, (0.0, 0.1), expectation)
    monkeypatch.setitem(RECORDINGS, "sample", lambda data, picks: [case])
    main(["validate", "sample", "--data", ".", "--methods", "mne,eloreta", "--out", "v"])
    said = capsys.readouterr().out
    assert said.count("a test: no source explains what P3 reads") == 1
    assert said.index("no source explains") < said.index("mm to target")
    assert "no source explains what P3 reads" in Path("v/report.html").read_text()
