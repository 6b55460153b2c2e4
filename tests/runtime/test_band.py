"""``deepesi apply --band``: power of the sources in a frequency band."""

import mne
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.runtime.band import CYCLES, BandPower, band_limited
from deepesi.runtime.estimates import Localization, source_estimate

SFREQ = 250.0


@pytest.fixture(scope="module")
def eloreta(toy_path, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "e.onnx"
    main(
        ["export", "eloreta", "--head", str(toy_path), "--montage", "biosemi16", "--out", str(path)]
    )
    return path


def epochs_of(data, names, lowpass=None):
    info = mne.create_info(list(names), SFREQ, "eeg")
    epochs = mne.EpochsArray(data, info, tmin=-1.0, verbose="error")
    epochs.set_montage("biosemi32", verbose="error").set_eeg_reference(verbose="error")
    if lowpass is not None:
        with epochs.info._unlock():
            epochs.info["lowpass"] = lowpass
    return epochs


def rhythms(toy):
    """Six epochs of 3 s: source 5 at 10 Hz and source 60 at 30 Hz after 0, and noise."""
    head = toy.montage_head("biosemi32")
    time = np.arange(750) / SFREQ - 1
    sources = np.zeros((84, 750))
    sources[5] = 4e-8 * np.sin(2 * np.pi * 10 * time) * (time > 0)
    sources[60] = 4e-8 * np.sin(2 * np.pi * 30 * time) * (time > 0)
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=5e-7, size=(6, 32, 750))
    return epochs_of(head.project(sources) + noise, head.sensors.names)


def apply(model, toy_path, *more):
    setup = ["--head", str(toy_path), "--noise-from", "-1", "0"]
    main(["apply", str(model), "x-epo.fif", *setup, "--out", "out/p", *more])


@pytest.mark.parametrize(("band", "source"), [((8, 13), 5), ((25, 35), 60)])
def test_the_power_peaks_where_the_rhythm_is(
    band, source, eloreta, toy, toy_path, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    rhythms(toy).save("x-epo.fif", fmt="double", verbose="error")
    apply(eloreta, toy_path, "--band", *map(str, band))
    printed = capsys.readouterr().out
    assert f"strongest from {band[0]} to {band[1]} Hz" in printed
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        f"p-band-{part}.stc" for part in ("lh", "rh", "std-lh", "std-rh")
    ]
    power, std = (mne.read_source_estimate(f"out/p-band{end}").data for end in ("", "-std"))
    assert power.shape == std.shape == (84, 1)
    away = 1e3 * np.linalg.norm(toy.source_pos[power[:, 0].argmax()] - toy.source_pos[source])
    assert away < 30
    assert 0 < std[source] < 3 * power[source]


def test_power_and_spread_of_a_sine(toy):
    """Half the square of the amplitude, and a standard deviation over stretches of two sizes."""
    band, tstep = (10.0, 12.0), 0.002
    length = round(CYCLES / 10 / tstep)
    time = tstep * np.arange(4 * length + 7)
    course = np.sin(2 * np.pi * 10 * time) * np.where(time < 2 * length * tstep, 1.0, 3.0)
    stc = source_estimate(np.outer(np.arange(84.0), course), toy.space, 0.0, tstep)
    power = BandPower(band, tstep)
    power.add(Localization(stc, None, np.zeros((1, 1))))
    moments = power.moments
    assert moments.n == 4
    squares = np.arange(84.0) ** 2
    assert np.allclose(moments.mean, squares * (0.5 + 0.5 + 4.5 + 4.5) / 4, rtol=0.05)
    assert np.allclose(moments.std, squares * np.std([0.5, 0.5, 4.5, 4.5], ddof=1), rtol=0.05)
    one = BandPower(band, tstep)
    one.add(Localization(stc.copy().crop(0, 0.3), None, np.zeros((1, 1))))
    assert one.moments.std is None


@pytest.mark.parametrize(
    ("band", "message"),
    [
        ((8.0, 130.0), r"below 125 Hz, half the sampling rate of the recording \(250 Hz\)"),
        ((13.0, 8.0), r"--band 13 8: the edges must be in order"),
        ((30.0, 60.0), r"was filtered from 0 to 40 Hz and has no power outside"),
        ((0.5, 2.0), r"3.00 s are shorter than the filter, which needs 6.60 s. Give longer"),
    ],
)
def test_bands_that_the_recording_does_not_have(toy, band, message):
    head = toy.montage_head("biosemi32")
    epochs = epochs_of(np.zeros((1, 32, 750)), head.sensors.names, lowpass=40.0)
    with pytest.raises(ValueError, match=message):
        band_limited(epochs, band)


@pytest.mark.parametrize("kind", ["average", "raw"])
def test_averages_and_raw_recordings_are_filtered_as_epochs_are(kind):
    time = np.arange(2000) / SFREQ
    waves = np.sin(2 * np.pi * 10 * time) + np.sin(2 * np.pi * 60 * time)
    info = mne.create_info(["Cz", "Pz"], SFREQ, "eeg")
    data = np.outer([1e-6, -1e-6], waves)
    recording = mne.EvokedArray(data, info) if kind == "average" else mne.io.RawArray(data, info)
    before = recording.get_data().copy()
    found = band_limited(recording, (8.0, 13.0)).get_data()[0, 500:1500]
    assert np.allclose(found, 1e-6 * np.sin(2 * np.pi * 10 * time[500:1500]), atol=2e-8)
    assert (recording.get_data() == before).all()


def test_a_band_is_one_map(eloreta, toy, toy_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"--band writes one map of the power, not --html"):
        apply(eloreta, toy_path, "--band", "8", "13", "--html", "x.html")
    with pytest.raises(SystemExit, match=r"--band writes one map of the power, not --window"):
        apply(eloreta, toy_path, "--band", "8", "13", "--window", "0", "0.2")
    with pytest.raises(SystemExit, match=r"--band writes one map of the power, not --samples"):
        apply(eloreta, toy_path, "--band", "8", "13", "--samples", "20")
