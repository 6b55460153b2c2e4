"""``deepesi apply`` on epochs, raw recordings, volumes and free orientation."""

import io
import re
import sys
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.export.to_onnx import check_parity, export_onnx
from deepesi.models.unrolled_ista import UnrolledISTA
from deepesi.physics.head import SourceSpace
from deepesi.physics.template import Template, load_template, save_template
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.writing.estimate import write_estimate
from tests.conftest import make_covariance, make_evoked, slow


@pytest.fixture(scope="module")
def eloreta(toy_path, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "e.onnx"
    main(
        ["export", "eloreta", "--head", str(toy_path), "--montage", "biosemi16", "--out", str(path)]
    )
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with ``x-cov.fif``, ``x-epo.fif`` (three epochs, two events) and ``x_raw.fif``."""
    monkeypatch.chdir(tmp_path)
    info = make_evoked().info
    rng = np.random.default_rng(3)
    make_covariance(info).save("x-cov.fif", verbose="error")
    events = np.array([[0, 0, 1], [100, 0, 2], [200, 0, 1]])
    data = 5e-6 + rng.normal(scale=4e-6, size=(3, 32, 60))
    mne.EpochsArray(data, info, events, -0.1, {"seen": 1, "heard": 2}, verbose="error").save(
        "x-epo.fif", fmt="double", verbose="error"
    )
    raw = mne.io.RawArray(rng.normal(scale=4e-6, size=(32, 5500)), info, verbose="error")
    raw.save("x_raw.fif", fmt="double", verbose="error")
    return tmp_path


def apply(model, recording, *more, head):
    main(
        [
            "apply",
            str(model),
            recording,
            "--noise-cov",
            "x-cov.fif",
            "--head",
            str(head),
            "--out",
            "out/stc",
            *more,
        ]
    )


def test_every_epoch_gets_its_own_files(eloreta, folder, toy_path, capsys):
    apply(eloreta, "x-epo.fif", "--baseline", "-0.1", "0", head=toy_path)
    printed = capsys.readouterr().out
    assert "epochs, localized one by one, baseline -100 to 0 ms, subtracted now" in printed
    assert "0002: strongest at" in printed
    written = sorted(p.name for p in (folder / "out").iterdir())
    assert written == sorted(f"stc-{n:04d}-{side}.stc" for n in range(3) for side in ("lh", "rh"))
    epochs = mne.read_epochs("x-epo.fif", verbose="error").apply_baseline((None, 0))
    inverse = Inverse.load(eloreta, head=toy_path).for_recording(
        epochs.info, make_covariance(epochs.info)
    )
    for number, expected in enumerate(inverse.apply(epochs)):
        stc = mne.read_source_estimate(f"out/stc-{number:04d}")
        assert np.allclose(stc.data, expected.stc.data, rtol=1e-5, atol=0)
        assert stc.tmin == pytest.approx(-0.1)


def test_an_inverse_of_the_users_own(folder, toy_path, capsys):
    """A file in a folder of the user's own names it, and what it says counts."""
    own = folder / "configs" / "baselines" / "own.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(
        "my MNE:\n  _target_: deepesi.baselines.minimum_norm.MinimumNorm\n"
        "  method: MNE\n  regularization: constant\n  snr_db: 3\n"
    )
    with pytest.raises(SystemExit, match="no packaged network or solver of that name"):
        apply("own", "x-epo.fif", head=toy_path)
    apply("own", "x-epo.fif", "--config-dir", "configs", head=toy_path)
    assert "strongest at" in capsys.readouterr().out
    assert len(list(folder.glob("out/stc-*-lh.stc"))) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a:\n  _target_: {}.MinimumNorm\n  lambda2: 1\n",
            "own.yaml: .*argument 'lambda2'",
        ),
        ("a:\n  _target_: {}.MinimumNorm\n  method: LORETA\n", "unknown method 'LORETA'"),
        ("a: 1\n", "own.yaml: expected one title .* got a: int"),
        ("a:\n  _target_: {0}.MinimumNorm\nb:\n  _target_: {0}.MinimumNorm\n", "a: MinimumNorm, b"),
    ],
)
def test_an_own_inverse_that_is_not_valid(folder, toy_path, text, message):
    own = folder / "configs" / "baselines" / "own.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(text.format("deepesi.baselines.minimum_norm"))
    with pytest.raises(SystemExit, match=f"^deepesi apply: .*{message}"):
        apply("own", "x-epo.fif", "--config-dir", "configs", head=toy_path)
    assert not (folder / "out").exists()


def test_epochs_of_one_event(eloreta, folder, toy_path):
    apply(eloreta, "x-epo.fif", "--condition", "seen", head=toy_path)
    assert len(list((folder / "out").iterdir())) == 4


def test_raw_recording_in_stretches_that_follow_each_other(eloreta, folder, toy_path, capsys):
    apply(eloreta, "x_raw.fif", "--window", "12", "20", head=toy_path)
    out = capsys.readouterr().out
    assert "raw recording of 22 s, not high-pass filtered: drifts count as signal" in out
    assert re.search(r"^0000: 0 to [\d.]+ s lies outside --window 12 20, so no peak$", out, re.M)
    assert re.search(r"^0001: strongest at 1\d{4} ms", out, re.M)
    stcs = [mne.read_source_estimate(f"out/stc-{n:04d}") for n in range(3)]
    assert len(list((folder / "out").iterdir())) == 6
    times = np.concatenate([stc.times for stc in stcs])
    assert np.allclose(times, np.arange(5500) / 250, atol=1e-4)


@pytest.mark.parametrize(
    ("recording", "condition", "message"),
    [
        ("x-epo.fif", "felt", r"holds no epochs 'felt'; choose one of \['heard', 'seen'\]"),
        ("x_raw.fif", "seen", "a raw recording, which has no conditions; leave it out"),
        ("x-cov.fif", None, "holds no evoked responses, epochs or raw recording. Known are"),
        ("x.txt", None, "holds no evoked responses, .*save them as .fif"),
        ("x.edf", None, "x.edf|EDF"),
        ("x.set", None, "x.set|MATLAB|mat"),
        ("x.vhdr", None, "x.vhdr|vhdr|header"),
        ("text_raw.fif", None, "text_raw.fif: not a readable recording"),
    ],
)
def test_what_cannot_be_applied(eloreta, folder, toy_path, recording, condition, message):
    for name in ("x.txt", "x.edf", "x.set", "x.vhdr", "text_raw.fif"):
        Path(name).write_bytes(b"no recording" * 10)
    more = [] if condition is None else ["--condition", condition]
    with pytest.raises(SystemExit, match=message):
        apply(eloreta, recording, *more, head=toy_path)
    assert not (folder / "out").exists()


@pytest.fixture
def with_eye_channel(folder) -> mne.io.RawArray:
    """The raw recording and an EOG channel, written as ``x.edf`` and ``x.vhdr`` too."""
    raw = mne.io.read_raw_fif("x_raw.fif", preload=True, verbose="error").crop(0, 3.996)
    eyes = mne.create_info(["EOG"], 250.0, "eeg")
    raw.add_channels(
        [mne.io.RawArray(np.full((1, raw.n_times), 1e-6), eyes, verbose="error")],
        force_update_info=True,
    )
    for name in ("x.edf", "x.vhdr"):
        mne.export.export_raw(name, raw, verbose="error")
    return raw


@pytest.mark.parametrize("recording", ["x.edf", "x.vhdr"])
def test_formats_of_other_makers(eloreta, with_eye_channel, toy_path, recording):
    """They say what FIF says, up to the 16 bits they store, once told where the electrodes are."""
    pytest.importorskip("edfio")
    pytest.importorskip("pybv")
    apply(eloreta, recording, "--montage", "biosemi32", "--exclude", "EOG", head=toy_path)
    found = mne.read_source_estimate("out/stc-0000").data
    with_eye_channel.drop_channels("EOG")
    inverse = Inverse.load(eloreta, head=toy_path).for_recording(
        with_eye_channel.info, make_covariance(with_eye_channel.info)
    )
    (expected,) = inverse.apply(with_eye_channel)
    assert np.abs(found - expected.stc.data).max() < 2e-3 * np.abs(expected.stc.data).max()
    main(
        [
            "prepare",
            str(eloreta),
            recording,
            "--noise-cov",
            "x-cov.fif",
            "--head",
            str(toy_path),
            "--montage",
            "biosemi32",
            "--exclude",
            "EOG",
            "--out",
            "p.npz",
        ]
    )
    assert np.allclose(np.load("p.npz")["whitener"], inverse.whitener)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], r"33 of 33 EEG channels have no position.*--montage"),
        (["--montage", "biosemi32"], r"\['EOG'\] are no electrodes of the montage 'biosemi32'"),
        (["--montage", "biosemi33"], "MNE has no montage 'biosemi33'"),
        (["--exclude", "ECG"], r"has no channels \['ECG'\] to exclude; it has \['Fp1', "),
    ],
)
def test_channels_that_do_not_fit(eloreta, with_eye_channel, folder, toy_path, more, message):
    pytest.importorskip("edfio")
    with pytest.raises(SystemExit, match=message):
        apply(eloreta, "x.edf", *more, head=toy_path)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("recording", "window"), [("x-epo.fif", (-0.1, 0.1)), ("x_raw.fif", (2, 9))]
)
def test_noise_of_the_recording_itself(eloreta, folder, toy_path, recording, window):
    """The estimate is that under the covariance MNE-Python finds there."""
    main(
        [
            "apply",
            str(eloreta),
            recording,
            "--head",
            str(toy_path),
            "--out",
            "out/stc",
            "--noise-from",
            *map(str, window),
        ]
    )
    if recording == "x_raw.fif":
        data = mne.io.read_raw_fif(recording, verbose="error")
        covariance = mne.compute_raw_covariance(data, *window, verbose="error")
    else:
        data = mne.read_epochs(recording, verbose="error")
        covariance = mne.compute_covariance(
            data, tmin=window[0], tmax=window[1], keep_sample_mean=False, verbose="error"
        )
    inverse = Inverse.load(eloreta, head=toy_path).for_recording(data.info, covariance)
    expected = next(iter(inverse.apply(data))).stc.data
    found = mne.read_source_estimate("out/stc-0000").data
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("recording", "more", "message"),
    [
        ("x_raw.fif", ["--noise-from", "30", "40"], "holds 0 samples, expected at least 96"),
        ("x_raw.fif", ["--noise-from", "0", "0.1"], "holds 26 samples, .* lasts from 0 to 21.99"),
        ("x_raw.fif", ["--noise-from", "0", "9", "--noise-cov", "x-cov.fif"], "both set the"),
        ("x-ave.fif", ["--noise-from", "-1", "0"], "needs single trials"),
        ("x_raw.fif", [], "the noise covariance is missing.*--noise-from FROM TO"),
    ],
)
def test_noise_that_is_not_there(eloreta, folder, toy_path, recording, more, message):
    make_evoked().save("x-ave.fif", verbose="error")
    with pytest.raises(SystemExit, match=message):
        main(["apply", str(eloreta), recording, "--head", str(toy_path), "--out", "out/s", *more])
    assert not (folder / "out").exists()


def test_epochs_with_other_noise_than_prepared_for(eloreta, folder, toy_path):
    common = [str(eloreta), "x-epo.fif"]
    noise = ["--noise-cov", "x-cov.fif", "--head", str(toy_path)]
    main(["prepare", *common, *noise, "--nave", "4", "--out", "four.npz"])
    with pytest.raises(SystemExit, match="prepared for averages of 4 trials, .* one of 1"):
        main(["apply", *common, "--prepared", "four.npz", "--out", "stc"])
    main(["prepare", *common, *noise, "--out", "one.npz"])
    main(["apply", *common, "--prepared", "one.npz", "--out", "stc"])
    assert len(list(folder.glob("stc-*.stc"))) == 6


def along_normals(toy: Template, parts: int, path: Path) -> Path:
    """The toy head with free orientation, its sources seen along their normals alone."""
    modes = toy.family.source_modes[:, None] * toy.source_normals[..., None]
    vertices = toy.space.vertices if parts == 2 else (np.arange(84),)
    free = replace(
        toy,
        name="free",
        family=replace(toy.family, source_modes=modes.reshape(252, -1)),
        space=SourceSpace("toy-free", vertices, toy.space.edges, 3),
        display=None,
    )
    save_template(path, free)
    return path


@pytest.mark.parametrize(
    ("parts", "kind"), [(2, mne.VectorSourceEstimate), slow(1, mne.VolVectorSourceEstimate)]
)
def test_free_orientation_finds_the_only_direction_there_is(
    eloreta, folder, toy, parts, kind, tmp_path
):
    """Estimates of sources that are seen along one direction point along it, in head axes."""
    head = along_normals(toy, parts, tmp_path / "free.npz")
    evoked = make_evoked()
    evoked.save("x-ave.fif", verbose="error")
    apply(eloreta, "x-ave.fif", head=head)
    scalar = ["stc-lh.stc", "stc-rh.stc"] if parts == 2 else ["stc-vl.stc"]
    expected = sorted([*scalar, "stc-stc.h5", "stc.png"])
    assert sorted(p.name for p in (folder / "out").iterdir()) == expected
    stc = mne.read_source_estimate("out/stc-stc.h5")
    assert type(stc) is kind
    magnitudes = mne.read_source_estimate("out/" + scalar[0]).data
    np.testing.assert_allclose(magnitudes, np.linalg.norm(stc.data, axis=1), rtol=1e-5, atol=1e-15)
    normals = load_template(head).source_normals
    across = stc.data - np.einsum("so,si,sit->sot", normals, normals, stc.data)
    assert np.abs(across).max() < 1e-3 * np.abs(stc.data).max()


@pytest.mark.slow
def test_a_network_with_a_prior_on_the_normal_writes_moments(folder, free_toy, simulate, tmp_path):
    head, model = tmp_path / "free.npz", tmp_path / "ista.onnx"
    save_template(head, free_toy)
    network = UnrolledISTA(n_steps=1, smallest=0.03, largest=0.06, loose=0.05)
    export_onnx(network, free_toy.montage_head("biosemi16"), model)
    batch = simulate(heads=free_toy, montage="biosemi32", batch_size=3, n_times=11).batch(0)
    assert check_parity(network, model, batch, n_timed=1).max_difference <= 1e-5
    make_evoked().save("x-ave.fif", verbose="error")
    apply(model, "x-ave.fif", head=head)
    stc = mne.read_source_estimate("out/stc-stc.h5")
    assert type(stc) is mne.VectorSourceEstimate
    along = np.einsum("so,sot->st", free_toy.source_normals, stc.data)
    share = (along**2).sum() / (stc.data**2).sum()
    assert 0.6 < share < 0.99


def test_volume_of_fixed_orientation(tmp_path):
    stc = mne.VolSourceEstimate(np.eye(4), [np.arange(4)], 0.0, 0.01)
    assert write_estimate(stc, tmp_path / "v") == [tmp_path / "v-vl.stc"]
    assert np.allclose(mne.read_source_estimate(tmp_path / "v-vl.stc").data, np.eye(4))


def test_interrupted_writing_leaves_what_was_there(tmp_path):
    """An estimate whose second half cannot be written replaces neither half."""
    first = mne.SourceEstimate(np.ones((4, 2)), [np.arange(2), np.arange(2)], 0.0, 0.01)
    write_estimate(first, tmp_path / "s")
    broken = first.copy()
    broken.vertices[1] = np.array(["no", "number"])
    with pytest.raises((TypeError, ValueError)):
        write_estimate(broken, tmp_path / "s")
    assert np.array_equal(mne.read_source_estimate(tmp_path / "s").data, first.data)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s-lh.stc", "s-rh.stc"]


def test_a_sampling_rate_that_is_none_of_eeg(eloreta, folder, toy_path):
    info = make_evoked().info
    with info._unlock():
        info["sfreq"] = 4.0
    mne.io.RawArray(np.zeros((32, 50)), info, verbose="error").save("slow_raw.fif", verbose="error")
    with pytest.raises(SystemExit, match=r"slow_raw.fif has a sampling rate of 4 Hz; EEG"):
        apply(eloreta, "slow_raw.fif", head=toy_path)


def test_dead_channels_and_a_recording_quieter_than_its_noise(eloreta, folder, toy_path, capsys):
    """Two that are constant, one that is not zero; one that is zero may be the reference."""
    evoked = make_evoked()
    for rows, value, message in (
        ([3, 7], 0.0, r"channels \['F3', 'C3'\] are constant"),
        ([3], 2e-6, r"channels \['F3'\] are constant"),
    ):
        dead = evoked.copy()
        dead.data[rows] = value
        dead.save("dead-ave.fif", overwrite=True, verbose="error")
        with pytest.raises(SystemExit, match=message):
            apply(eloreta, "dead-ave.fif", head=toy_path)
    evoked.data -= evoked.data[[3]]
    evoked.save("referenced-ave.fif", verbose="error")
    apply(eloreta, "referenced-ave.fif", head=toy_path)
    assert "F3 is constant, taken for the reference" in capsys.readouterr().out
    evoked.data *= 1e-2
    evoked.save("quiet-ave.fif", verbose="error")
    with pytest.raises(SystemExit, match="times the power of noise alone, by its"):
        apply(eloreta, "quiet-ave.fif", head=toy_path)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("recording", "total"), [("x-epo.fif", 3), ("x_raw.fif", 3)])
def test_progress_is_for_terminals(
    eloreta, folder, toy_path, monkeypatch, capsys, recording, total
):
    """A bar with the time left on stderr; on stdout the same lines with and without."""
    apply(eloreta, recording, head=toy_path)
    silent = capsys.readouterr()
    assert silent.err == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    apply(eloreta, recording, head=toy_path)
    assert capsys.readouterr().out == silent.out
    assert f"0/{total} [00:00<" in terminal.getvalue()
    assert f"{total}/{total} [00:0" in terminal.getvalue()
    assert "strongest" not in terminal.getvalue()
