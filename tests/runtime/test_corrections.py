"""What a file says of itself is obeyed: annotations, kinds, numbers of trials, baselines."""

import mne
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.physics.io.channels import sensor_array
from deepesi.physics.io.selection import usable_channels
from deepesi.physics.noise import rank_of, white_noise_cov, whitened_power, whitener
from deepesi.runtime.corrections import baselined, corrected
from deepesi.runtime.inverse import CorrectionWarning, Inverse
from deepesi.runtime.noise_check import quietest_average
from deepesi.runtime.noise_estimate import noise_of
from deepesi.runtime.reading.recording import ReadingOptions, read_recording
from deepesi.runtime.recording_checks import check_kind
from deepesi.runtime.recordings import segments
from deepesi.runtime.stretches import bad_epochs, good_stretches, is_boundary
from deepesi.runtime.writing.estimate import in_window
from tests.conftest import make_covariance, make_evoked

SFREQ = 250.0
NAMES = tuple(mne.channels.make_standard_montage("biosemi32").ch_names)


ROWS = list(range(32))


def make_raw(seconds: float = 40.0, level: float = 2e-6) -> mne.io.RawArray:
    data = np.random.default_rng(3).normal(scale=level, size=(32, int(seconds * SFREQ)))
    return mne.io.RawArray(data, make_evoked().info, verbose="error")


def make_epochs(n: int = 4, tmin: float = -0.2, offset: float = 0.0) -> mne.EpochsArray:
    rng = np.random.default_rng(4)
    data = rng.normal(scale=2e-6, size=(n, 32, 100)) + offset * rng.normal(size=(32, 1))
    return mne.EpochsArray(data, make_evoked().info, tmin=tmin, baseline=None, verbose="error")


@pytest.fixture(scope="module")
def white():
    """The sensors of `make_raw`, and power in units of the noise of `make_covariance`."""
    sensors = sensor_array(make_evoked().info, list(NAMES))
    noise_cov = white_noise_cov(sensors, 2e-6)
    white, rank = whitener(noise_cov), rank_of(noise_cov)
    return sensors, lambda data: whitened_power(white @ sensors.reference(data), rank)


@pytest.fixture(scope="module")
def prepared(eloreta, toy_path):
    """An eLORETA prepared for single trials."""
    info = make_evoked().info
    return Inverse.load(eloreta, head=toy_path).for_recording(info, make_covariance(info))


def annotated(raw, *marks):
    onsets, durations, texts = zip(*marks, strict=True)
    return raw.copy().set_annotations(mne.Annotations(onsets, durations, texts))


# Annotations.


@pytest.mark.parametrize("first_samp", [0, 1000])
@pytest.mark.parametrize("measured", [None, 1e9])
def test_stretches_are_what_mne_would_not_reject(first_samp, measured):
    raw = mne.io.RawArray(
        make_raw().get_data(), make_evoked().info, first_samp=first_samp, verbose="error"
    )
    raw.set_meas_date(measured)
    raw.set_annotations(
        mne.Annotations(
            [3.0, 4.0, 20.0, 30.0],
            [2.0, 0.5, 1.0, 1.0],
            ["BAD_move", "bad", "BADLY", "eyes"],
            orig_time=raw.info["meas_date"],
        )
    )
    kept = np.concatenate([np.arange(s.start, s.stop) for s in good_stretches(raw)])
    rejected = raw.get_data(0, reject_by_annotation="NaN")[0]
    assert np.array_equal(kept, np.flatnonzero(np.isfinite(rejected)))


def test_parts_end_at_boundaries():
    raw = mne.concatenate_raws([make_raw(5.0), make_raw(7.0)], verbose="error")
    assert [(s.start, s.stop) for s in good_stretches(raw)] == [(0, 1250), (1250, 3000)]
    assert len({s.part for s in good_stretches(raw)}) == 2
    for text in ("boundary", "New Segment/"):  # of EEGLAB, BrainVision
        parts = good_stretches(annotated(make_raw(), (0.0, 0, text), (8.0, 0, text)))
        assert [s.start for s in parts] == [0, 2000]


def test_windows_reach_neither_into_bad_stretches_nor_over_boundaries(white):
    raw = annotated(make_raw(), (3.0, 2.0, "BAD_x"), (20.0, 0.0, "boundary"))
    raw._data[:, 750:1250] = np.nan  # what MNE-Python rejects must not be looked at
    pieces = list(segments(corrected(raw, ROWS, *white), NAMES, 10.0, longest=20))
    assert all(np.isfinite(piece.data).all() for piece in pieces)
    covered = np.concatenate([np.arange(p.first, p.first + p.own.shape[1]) for p in pieces])
    assert np.array_equal(covered, np.r_[0:750, 1250:10000])
    for piece in pieces:
        begin = piece.first - (piece.windows.first - piece.windows.starts[0])
        stop = begin + piece.data.shape[1]
        assert not begin < 1000 < stop
        assert not begin < 5000 < stop


def test_no_noise_in_bad_stretches_and_a_mean_for_every_part():
    raw = annotated(make_raw(), (3.0, 2.0, "BAD_x"), (20.0, 0.0, "boundary"))
    raw._data[:, 750:1250] *= 100
    found = noise_of(raw, (0.0, 19.0), usable_channels(raw.info))
    expected = mne.compute_raw_covariance(raw, 0.0, 19.0, verbose="error")
    np.testing.assert_allclose(np.diag(found["data"]), np.diag(expected["data"]), rtol=0.02)
    assert 16.5 * 250 < found["nfree"] <= 17 * 250  # MNE-Python takes whole pieces of 0.2 s
    many = annotated(make_raw(), *((0.5 * n, 0.1, "BAD") for n in range(2, 30)))
    assert (
        noise_of(many, (0.0, 14.0), usable_channels(many.info))["nfree"] > 5 * 250
    )  # pieces begin anew in every stretch
    raw._data[:, 5000:] += 1e-3  # other offsets behind the boundary are no noise
    assert np.diag(noise_of(raw, (0.0, 39.0), usable_channels(raw.info))["data"]).max() < 5e-12
    with pytest.raises(ValueError, match="holds 0 samples, expected .*without data annotated BAD"):
        noise_of(raw, (3.5, 4.5), usable_channels(raw.info))


def test_a_raw_recording_of_which_all_is_bad(prepared):
    with pytest.raises(ValueError, match="all 40 s are annotated BAD"):
        prepared.correct(annotated(make_raw(), (0.0, 50.0, "BAD")))


def test_epochs_in_bad_stretches_keep_their_numbers(prepared, tmp_path):
    raw = annotated(make_raw(), (7.0, 2.0, "BAD_x"))
    events = np.c_[[500, 2000, 5000], [0] * 3, [1] * 3]
    epochs = mne.Epochs(
        raw,
        events,
        tmin=-0.2,
        tmax=0.2,
        baseline=None,
        reject_by_annotation=False,
        preload=True,
        verbose="error",
    )
    assert bad_epochs(epochs) == [1]
    with pytest.warns(CorrectionWarning, match=r"epochs \[1\] are annotated BAD"):
        found = list(prepared.apply(epochs))
    assert [one.number for one in found] == [0, 2]


def test_bad_stretches_are_said_and_have_no_files(eloreta, toy_path, tmp_path, monkeypatch, capsys):
    """The loudest sample of the recording is annotated: another one is found."""
    monkeypatch.chdir(tmp_path)
    raw = annotated(make_raw(), (25.0, 3.0, "BAD_move"))
    raw._data[:16, 6500] += 200e-6
    raw._data[:16, 8000] += 20e-6
    raw.save("x_raw.fif", fmt="double", verbose="error")
    common = ["apply", str(eloreta), "x_raw.fif", "--head", str(toy_path), "--noise-from", "0", "9"]
    main([*common, "--out", "stc"])
    printed = capsys.readouterr().out
    assert "3.0 of 40.0 s are annotated BAD_move and excluded" in printed
    assert "strongest at 32000 ms" in printed
    assert "strongest at 26000 ms" not in printed
    times = np.concatenate(
        [mne.read_source_estimate(p).times for p in sorted(tmp_path.glob("stc-*-lh.stc"))]
    )
    assert not ((times > 25.0005) & (times < 27.9995)).any()
    zarr = pytest.importorskip("zarr")
    main([*common, "--out", "stc.zarr"])
    mean = zarr.open_group("stc.zarr", mode="r")["mean"][:]
    assert np.array_equal(np.flatnonzero(np.isnan(mean).any(0)), np.arange(6250, 7000))


def test_a_window_of_which_all_is_bad(eloreta, toy_path, tmp_path, monkeypatch):
    """It is refused before anything is computed or written."""
    monkeypatch.chdir(tmp_path)
    raw = annotated(make_raw(), (25.0, 3.0, "BAD_move"), (27.0, 4.0, "bad_eog"))
    raw.save("x_raw.fif", verbose="error")
    common = ["apply", str(eloreta), "x_raw.fif", "--head", str(toy_path), "--noise-from", "0", "9"]
    with pytest.raises(SystemExit, match="--window 26 30 s holds only data annotated BAD"):
        main([*common, "--window", "26", "30", "--out", "o"])
    assert [path.name for path in tmp_path.iterdir()] == ["x_raw.fif"]


def test_a_bad_mark_without_duration_excludes_nothing(prepared):
    ready = prepared.correct(annotated(make_raw(), (25.0, 0.0, "BAD_point"), (5.0, 1.0, "BAD_x")))
    assert ready.changes == [
        "1.0 of 40.0 s are annotated BAD_x and excluded; "
        "BAD_point: without duration, so nothing is excluded there"
    ]
    assert sum(s.stop - s.start for s in ready.stretches) == 39 * SFREQ


def test_epochs_that_were_all_dropped(prepared):
    with pytest.raises(ValueError, match="it holds no epochs, all were dropped"):
        list(prepared.apply(make_epochs()[:0]))


@pytest.mark.parametrize(
    ("window", "why"),
    [
        (("0.3", "0.1"), "--window 0.3 0.1 s ends before it begins"),
        (("0.081", "0.083"), "lies between two samples of the recording"),
        (("2", "3"), "lies outside the recording"),
    ],
)
def test_windows_without_a_sample(eloreta, toy_path, tmp_path, monkeypatch, window, why):
    monkeypatch.chdir(tmp_path)
    evoked = make_evoked()
    evoked.save("x-ave.fif", verbose="error")
    make_covariance(evoked.info).save("x-cov.fif", verbose="error")
    common = ["apply", str(eloreta), "x-ave.fif", "--noise-cov", "x-cov.fif", "--out", "o"]
    with pytest.raises(SystemExit, match=why):
        main([*common, "--head", str(toy_path), "--window", *window])


def test_a_window_of_one_sample_of_a_saved_average(tmp_path):
    """Times of a saved recording are rounded to single precision."""
    evoked = make_evoked().shift_time(-0.02, relative=False)
    evoked.save(tmp_path / "x-ave.fif", verbose="error")
    for saved in (evoked, mne.read_evokeds(tmp_path / "x-ave.fif", 0, verbose="error")):
        assert in_window(saved.times, (0.06, 0.06)).sum() == 1
        assert in_window(saved.times, (0.06, 0.08)).sum() == 6


# Kinds.


def test_a_standard_error_is_no_average():
    error = make_epochs().standard_error()
    with pytest.raises(ValueError, match="holds a standard error, no average"):
        check_kind(error)


@pytest.mark.parametrize(
    ("kind", "passes"),
    [
        ("single_epoch", True),
        ("partial_average", True),
        ("alternating_subaverage", False),
        ("power_density_spectrum", False),
    ],
)
def test_other_kinds_of_evoked_data(tmp_path, kind, passes):
    evoked = make_evoked()
    evoked.kind, evoked.nave = kind, 1
    path = tmp_path / "x-ave.fif"
    evoked.save(path, verbose="error")
    if passes:
        check_kind(evoked)
        assert read_recording(path, ReadingOptions()).kind == kind
        return
    for read in (check_kind, lambda _: read_recording(path, ReadingOptions())):
        with pytest.raises(ValueError, match=f"(holds|only).*{kind.replace('_', ' ')}"):
            read(evoked)


def test_an_envelope_is_no_signal(prepared):
    """Of a Hilbert transform, or rectified; an offset of all channels is none."""
    raw, epochs = make_raw(8.0), make_epochs()
    raw.filter(8, 12, verbose="error")
    evoked = epochs.average()
    for signal in (raw, epochs, evoked):
        check_kind(signal)
        offset = signal.copy().apply_function(lambda x: x + 1e-3, verbose="error")
        check_kind(offset)
        envelope = signal.copy().apply_hilbert(envelope=True)
        rectified = signal.copy().apply_function(np.abs, verbose="error")
        for positive in (envelope, rectified):
            with pytest.raises(ValueError, match="none of its values is negative.*envelope"):
                check_kind(positive)
    with pytest.raises(ValueError, match="none of its values is negative"):
        prepared.apply(make_epochs().apply_hilbert(envelope=True))


@pytest.mark.parametrize("text", ["artifact", "Muscle Artefact", "noisy", "Rejected"])
def test_artifacts_that_are_not_annotated_bad_are_reported(prepared, text):
    """MNE-Python takes only annotations that begin with BAD out, and so do we."""
    raw = annotated(make_raw(8.0), (2, 1, text), (3, 1, "stimulus"))
    (line,) = prepared.correct(raw).changes
    assert line == f"{text}: not excluded, only annotations that begin with BAD are"
    assert prepared.correct(annotated(make_raw(8.0), (3, 1, "stimulus"))).changes == []


def test_complex_data():
    for recording in (
        make_epochs().filter(None, 40.0, verbose="error").apply_hilbert(),
        make_raw().apply_hilbert(),
        make_epochs().apply_hilbert().average(),
    ):
        with pytest.raises(ValueError, match="its data are complex"):
            check_kind(recording)


def test_derivations(prepared):
    raw = make_raw()
    pairs = [(a, b) for a, b in zip(NAMES[:20:2], NAMES[1:21:2], strict=True)]
    bipolar = mne.set_bipolar_reference(raw, *map(list, zip(*pairs, strict=True)), verbose="error")
    with pytest.raises(ValueError, match=r"\['Fp1-AF3'.* are bipolar derivations"):
        prepared.apply(bipolar)
    laplacian = mne.preprocessing.compute_current_source_density(
        raw, sphere=(0, 0, 0, 0.095), verbose="error"
    )
    with pytest.raises(ValueError, match="current source density"):
        prepared.apply(laplacian)


def test_conditions_by_name_before_number(eloreta, toy_path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    evokeds = [make_evoked(seed=seed) for seed in range(3)]
    for evoked, name in zip(evokeds, "213", strict=True):
        evoked.comment = name
    error = make_epochs().standard_error()
    error.comment = "1"
    mne.write_evokeds("x-ave.fif", [*evokeds, error], verbose="error")
    make_covariance(evokeds[0].info).save("x-cov.fif", verbose="error")
    common = ["apply", str(eloreta), "x-ave.fif", "--noise-cov", "x-cov.fif", "--out", "o"]
    common += ["--head", str(toy_path)]
    inverse = Inverse.load(eloreta, head=toy_path)
    for condition, number in (("1", 1), ("2", 0), ("0", 0)):
        main([*common, "--condition", condition])
        right = evokeds[number]
        expected = inverse.for_recording(right, make_covariance(right.info)).apply(right).stc.data
        assert np.allclose(mne.read_source_estimate("o").data, expected, rtol=1e-3, atol=1e-12)
    for more in ([], ["--condition", "4"]):
        with pytest.raises(SystemExit, match="0: '2', 1: '1', 2: '3'") as caught:
            main([*common, *more])
        assert "3: '1'" not in str(caught.value)  # the standard error
    mne.write_evokeds("x-ave.fif", [error, *evokeds[:1]], overwrite=True, verbose="error")
    with pytest.raises(SystemExit, match="number 0 is a standard error, no average.*1: '2'"):
        main([*common, "--condition", "0"])
    mne.write_evokeds("x-ave.fif", error, overwrite=True, verbose="error")
    with pytest.raises(SystemExit, match="holds no average, only standard error"):
        main(common)


# Numbers of trials.


def test_trials_of_a_grand_average_must_be_said(eloreta, toy_path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    subjects = [make_evoked(seed=seed) for seed in range(12)]
    grand = mne.grand_average(subjects)
    with pytest.raises(ValueError, match="average of 12 averages.*--nave"):
        check_kind(grand)
    grand.save("x-ave.fif", verbose="error")
    make_covariance(grand.info).save("x-cov.fif", verbose="error")
    common = ["apply", str(eloreta), "x-ave.fif", "--noise-cov", "x-cov.fif", "--out", "o"]
    common += ["--head", str(toy_path)]
    with pytest.raises(SystemExit, match="average of 12 averages"):
        main(common)
    main([*common, "--nave", "48"])  # twelve averages of four
    assert "48 trials" in capsys.readouterr().out
    for wrong, stated in (("12", "'12'"), (None, "None"), (np.nan, "nan")):
        grand.nave = wrong
        with pytest.raises(ValueError, match=f"trials: got {stated}, expected a positive"):
            check_kind(grand)
    with pytest.raises(SystemExit, match=r"has 0\.0\d+ times the power .* taken to be 1 "):
        main([*common, "--nave", "1"])


def test_averages_quieter_than_their_noise(eloreta, toy_path):
    evoked = make_evoked(n_times=100)  # 1 µV, as the covariance says of four trials
    inverse = Inverse.load(eloreta, head=toy_path)
    for nave, passes in ((4, True), (1, False)):
        evoked.nave = nave
        prepared = inverse.for_recording(evoked, make_covariance(evoked.info))
        if passes:
            prepared.apply(evoked)
        else:
            with pytest.raises(ValueError, match=r"has 0\.2\d* times the power"):
                prepared.apply(evoked)


@pytest.mark.parametrize(("rank", "seconds"), [(18, 0.0), (31, 0.02), (63, 0.5)])
def test_averages_of_noise_alone_pass(rank, seconds):
    """The bound is passed by chance with the probability it says, at ten samples per second."""
    n_independent = max(1, round(10 * seconds))
    rng = np.random.default_rng(0)
    power = rng.chisquare(rank * n_independent, 20_000) / (rank * n_independent)
    assert (power < quietest_average(rank, seconds)).mean() < 5e-4
    assert 0.1 < quietest_average(rank, seconds) <= 0.5


def test_fractions_of_trials(eloreta, toy_path):
    """The difference of two single trials has twice the noise of one."""
    evoked = make_evoked()
    evoked.data *= np.sqrt(8)
    evoked.nave = 0.5
    inverse = Inverse.load(eloreta, head=toy_path)
    prepared = inverse.for_recording(evoked, make_covariance(evoked.info))
    assert prepared.nave == 0.5
    white = (prepared.whitener @ prepared.sensors.reference(evoked.data)) ** 2
    assert white.sum(0).mean() == pytest.approx(31, rel=0.1)
    prepared.apply(evoked)
    evoked.nave = 0
    with pytest.raises(ValueError, match="got 0, expected a positive number, or a fraction"):
        inverse.for_recording(evoked, make_covariance(evoked.info))


def test_trials_are_of_averages_only(eloreta, toy_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_raw().save("x_raw.fif", verbose="error")
    with pytest.raises(SystemExit, match="--nave: .* holds single trials"):
        main(
            [
                "apply",
                str(eloreta),
                "x_raw.fif",
                "--nave",
                "4",
                "--noise-from",
                "0",
                "9",
                "--head",
                str(toy_path),
                "--out",
                "o",
            ]
        )


# Baselines and offsets.


def test_no_baseline_unless_asked_for(white):
    """A slow potential that was baselined by hand stays as it is."""
    epochs = make_epochs(tmin=-0.3)
    epochs._data += 10e-6 * np.linspace(0, 1, 100) * np.random.default_rng(1).normal(size=(32, 1))
    evoked = epochs.average()
    kept = corrected(evoked, ROWS, *white)
    assert np.array_equal(kept.recording.data, evoked.data)
    assert (kept.baseline, kept.changes) == ("no baseline subtracted", [])
    asked = corrected(evoked, ROWS, *white, (-0.3, -0.2))
    assert np.allclose(
        asked.recording.data, evoked.copy().apply_baseline((-0.3, -0.2), verbose="error").data
    )
    assert asked.baseline == "baseline -300 to -200 ms, subtracted now"
    assert evoked.baseline is None  # the user's own is not changed
    again = corrected(asked.recording, ROWS, *white)
    assert again.baseline == "baseline -300 to -200 ms, subtracted before"
    with pytest.raises(ValueError, match="baseline: 0 to 0 s holds less than two samples"):
        corrected(evoked, ROWS, *white, (0.0, 0.0))
    with pytest.raises(ValueError, match="baseline: -1 to 0 s is not within the recording"):
        corrected(evoked, ROWS, *white, (-1.0, 0.0))


@pytest.mark.parametrize("averaged", [True, False])
def test_offsets_of_electrodes_are_taken_for_no_signal(white, averaged):
    plain, offset = make_epochs(), make_epochs(offset=200e-6)
    recordings = [e.average() if averaged else e for e in (plain, offset)]
    ready = corrected(recordings[1], ROWS, *white)
    expected = recordings[0].copy().apply_baseline((None, 0), verbose="error")
    found = ready.recording.data if averaged else ready.recording.get_data()
    assert np.allclose(found, expected.data if averaged else expected.get_data(), atol=1e-12)
    assert "the mean before 0 ms was subtracted" in ready.changes[0]
    assert not corrected(recordings[1], ROWS, *white, "none").changes


@pytest.mark.parametrize("amplitude", [0.0, 4e-6, 20e-6])
def test_offsets_of_a_raw_recording(prepared, amplitude):
    """The estimate does not depend on offsets, at any SNR; every part has its own offsets."""
    raw = annotated(make_raw(), (20.0, 0.0, "boundary"))
    raw._data[:, 2500:2510] += amplitude * np.random.default_rng(6).normal(size=(32, 1))
    expected = [one.stc.data for one in prepared.apply(raw)]
    offset = raw.copy()
    rng = np.random.default_rng(5)
    offset._data[:, :5000] += 1e-3 * rng.normal(size=(32, 1))
    offset._data[:, 5000:] += 1e-3 * rng.normal(size=(32, 1))
    with pytest.warns(CorrectionWarning, match=r"offsets of channels, .*up to \d"):
        found = [one.stc.data for one in prepared.apply(offset)]
    for a, b in zip(found, expected, strict=True):
        assert np.abs(a - b).max() < 0.1 * np.abs(b).max()
    if amplitude:  # the strongest source is the same
        assert np.abs(found[0]).max(1).argmax() == np.abs(expected[0]).max(1).argmax()
    with pytest.raises(ValueError, match="a raw recording has none"):
        prepared.correct(raw, (0.0, 1.0))


def test_a_constant_channel_is_no_offset(white, prepared):
    """Without its mean it would look like a reference."""
    raw = make_raw()
    raw._data[3] = 37e-6
    with pytest.raises(ValueError, match=r"the channels \['F3'\] are constant"):
        corrected(raw, ROWS, *white)
    raw._data[3] = 0  # the reference
    corrected(raw, ROWS, *white)
    evoked = make_epochs(offset=200e-6).average()
    evoked.data[3] = 37e-6
    with pytest.raises(ValueError, match=r"the channels \['F3'\] are constant"):
        corrected(evoked, ROWS, *white)


def test_parts_too_short_for_an_offset(white):
    raw = annotated(make_raw(), (20.0, 0.0, "boundary"), (20.004, 0.0, "boundary"))
    raw._data += 1e-3 * np.random.default_rng(6).normal(size=(32, 1))
    ready = corrected(raw, ROWS, *white)
    assert [(s.start, s.stop) for s in ready.stretches] == [(0, 5000), (5001, 10000)]
    assert any("1 part(s) between boundaries, shorter than 0.5 s" in line for line in ready.changes)


def test_a_raw_recording_keeps_its_offsets_if_asked(white):
    raw = make_raw()
    raw._data += 1e-3 * np.random.default_rng(6).normal(size=(32, 1))
    assert corrected(raw, ROWS, *white).offsets[0].any()
    assert not corrected(raw, ROWS, *white, "none").offsets[0].any()


def test_one_channel_in_another_unit(prepared):
    evoked = make_evoked(n_times=100)
    evoked.nave = 1
    evoked.data[3] *= 1e6
    with pytest.raises(ValueError, match=r"the channels \['F3'\] have a standard deviation above"):
        prepared.apply(evoked)


def test_what_no_brain_does(prepared):
    evoked = make_evoked(n_times=100)
    evoked.nave = 1
    evoked.data[:, 0] += 4e-3 * np.random.default_rng(0).normal(size=32)
    with pytest.raises(ValueError, match=r"times the power of its noise, more than 1e\+06"):
        prepared.apply(evoked)


def test_a_baseline_holds_the_same_samples_in_memory_and_from_a_file(tmp_path):
    """A file rounds times otherwise, and the sample at the edge must not depend on it."""
    rng = np.random.default_rng(0)
    info = mne.create_info(["Cz", "Pz", "Oz"], 250.0, "eeg")
    for first in (-0.1, -0.3, -0.7):
        evoked = mne.EvokedArray(1e-6 * rng.normal(size=(3, 250)), info, first, nave=3)
        evoked.save(tmp_path / "x-ave.fif", overwrite=True, verbose="error")
        again = mne.read_evokeds(tmp_path / "x-ave.fif", 0, verbose="error")
        for asked in ((-0.1, 0.0), (-0.1, 0.1), (0.04, 0.2)):
            here, there = (baselined(e, asked)[0].data for e in (evoked, again))
            assert np.allclose(here, there, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("window", [(-1.0, 5.0), (4.0, 99.0)])
def test_noise_from_beyond_the_recording_is_refused(window):
    raw = mne.io.RawArray(np.zeros((2, 2500)), mne.create_info(2, SFREQ, "eeg"), verbose="error")
    with pytest.raises(ValueError, match=r"is not within the recording, which lasts from 0 to 9"):
        noise_of(raw, window, usable_channels(raw.info))


@pytest.mark.parametrize("words", [["some"], ["0"], ["0", "1", "2"], ["a", "b"]])
def test_baseline_on_the_command_line(eloreta, tmp_path, words):
    make_evoked().save(tmp_path / "x-ave.fif", verbose="error")
    with pytest.raises(SystemExit, match="--baseline takes 'none', or from and to in s"):
        main(
            ["apply", str(eloreta), str(tmp_path / "x-ave.fif"), "--out", "o", "--baseline", *words]
        )


# One function for the command and for Python.


def test_the_command_and_the_runtime_say_the_same(eloreta, toy_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evoked = make_epochs(n=40, offset=200e-6).average()
    evoked.info["bads"] = ["Fp1", "O2"]
    evoked.save("x-ave.fif", verbose="error")
    covariance = make_covariance(evoked.info)
    covariance.save("x-cov.fif", verbose="error")
    main(
        [
            "apply",
            str(eloreta),
            "x-ave.fif",
            "--noise-cov",
            "x-cov.fif",
            "--out",
            "o",
            "--head",
            str(toy_path),
        ]
    )
    inverse = Inverse.load(eloreta, head=toy_path).for_recording(evoked, covariance)
    with pytest.warns(CorrectionWarning):
        found = inverse.apply(evoked).stc
    assert np.allclose(mne.read_source_estimate("o").data, found.data, rtol=1e-3, atol=1e-12)


def test_the_documented_way_on_a_visual_response(sample_data):
    """The sample's left visual response has offsets; it lies in the right occipital lobe."""
    path = sample_data / "derived/sample_audvis_short_eegonly-ave.fif"
    evoked = mne.read_evokeds(path, "Left visual", proj=False, verbose="error")
    noise_cov = mne.read_cov(sample_data / "sample_audvis_short-cov.fif", verbose="error")
    inverse = Inverse.load("convdip").for_recording(evoked, noise_cov)
    with pytest.warns(CorrectionWarning, match="offsets of channels"):
        stc = inverse.apply(evoked).stc.crop(0.08, 0.2)
    assert np.abs(stc.rh_data).max() > np.abs(stc.lh_data).max()


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("offset", [2e-4, 1e-3])
def test_offsets_without_time_before_0_are_refused(prepared, averaged, offset):
    """Nothing tells them from a response but their size; what is asked for is done."""
    rng = np.random.default_rng(5)
    names, info = prepared.ch_names, make_evoked().info
    assert set(names) <= set(info.ch_names)
    data = rng.normal(scale=2e-6, size=(3, len(info.ch_names), 50))
    data += rng.normal(scale=offset, size=(1, len(info.ch_names), 1))
    epochs = mne.EpochsArray(data, info, tmin=0.0, verbose="error")
    recording = epochs.average() if averaged else epochs
    if averaged:
        recording.nave = 1
    with pytest.raises(ValueError, match=r"no time before 0 to subtract. Give --baseline FROM TO"):
        prepared.correct(recording)
    assert "no baseline subtracted" in prepared.correct(recording, "none").baseline
    assert "subtracted now" in prepared.correct(recording, (0.0, 0.1)).baseline


def test_responses_without_time_before_0_pass(prepared):
    """The response has 20 dB at all times."""
    info = make_evoked().info
    pattern = np.random.default_rng(6).normal(scale=2e-5, size=(len(info.ch_names), 1))
    evoked = mne.EvokedArray(np.tile(pattern, 50), info, tmin=0.08, nave=1)
    evoked.data += np.random.default_rng(7).normal(scale=2e-6, size=evoked.data.shape)
    assert prepared.correct(evoked).changes == []


@pytest.mark.parametrize("text", ["New Segment/", "New Segment/LostSamples : 5", " Boundary"])
def test_seams_of_other_makers(text):
    assert is_boundary(text)
    assert not is_boundary("segment/new")
