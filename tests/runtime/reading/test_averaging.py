"""Averages about events of a raw recording: which trials, which baseline, which noise."""

import mne
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.runtime.reading.averaging import average
from tests.conftest import make_evoked, slow

RATE = 250.0
#: Of the events, s; trials last from 0.2 s before to 0.3 s after.
ONSETS = np.arange(1.0, 20.0)


def make_raw(marks=(), first_samp=0) -> mne.io.RawArray:
    """20 s with an event ``x`` every second and annotations ``(onset, duration, text)``."""
    rng = np.random.default_rng(3)
    data = rng.normal(scale=4e-6, size=(32, int(20 * RATE)))
    data += np.linspace(0, 3e-5, 32)[:, None]  # offsets of electrodes
    info = make_evoked().info
    raw = mne.io.RawArray(data, info, first_samp=first_samp, verbose="error")
    onset = [*ONSETS, *(mark[0] for mark in marks)]
    duration = [*np.zeros(len(ONSETS)), *(mark[1] for mark in marks)]
    texts = [*["x"] * len(ONSETS), *(mark[2] for mark in marks)]
    return raw.set_annotations(mne.Annotations(onset, duration, texts), verbose="error")


def trials_about(raw, onsets) -> np.ndarray:
    """Samples about the events ``(N, C, T)``, V."""
    starts = np.round((np.asarray(onsets) - 0.2) * RATE).astype(int)
    return np.array([raw.get_data()[:, start : start + 126] for start in starts])


@pytest.mark.parametrize("text", ["BAD boundary", "EDGE boundary", "boundary", "New Segment/"])
@pytest.mark.parametrize("shift", [-0.1, 0.0, 0.25])
def test_no_trial_reaches_over_a_boundary(text, shift):
    """Nor into a stretch annotated BAD; both are counted, the others are averaged."""
    raw = make_raw([(5.0 + shift, 0.0, text), (9.25, 0.5, "bad muscle"), (12.5, 0.1, "fine")])
    evoked, trials, line = average(raw, "x", (-0.2, 0.3), "none")
    kept = [onset for onset in ONSETS if onset not in (5.0, 9.0)]
    assert len(trials) == evoked.nave == 17
    assert np.allclose(evoked.data, trials_about(raw, kept).mean(axis=0), atol=1e-12)
    assert line.startswith("17 of 19 events 'x' averaged, -0.2 to 0.3 s; excluded: 1 ")
    assert "1 bad muscle" in line
    assert "BOUNDARY" in line or text in line


def test_seams_of_concatenated_recordings():
    """Trials about an event right before and right after one, which MNE-Python marks itself."""
    raw = mne.concatenate_raws([make_raw(), make_raw([(0.1, 0.0, "x")])], verbose="error")
    evoked, trials, line = average(raw, "x", (-0.2, 0.3))
    assert len(trials) == 2 * len(ONSETS)
    assert line.startswith("38 of 39 events")
    assert evoked.nave == 38


def test_all_trials_over_boundaries():
    raw = make_raw([(onset + 0.1, 0.0, "boundary") for onset in ONSETS])
    with pytest.raises(ValueError, match="no trial of the 19 events 'x' is good: 19 BOUNDARY"):
        average(raw, "x", (-0.2, 0.3))


@pytest.mark.parametrize(
    ("baseline", "low", "high"), [(None, 0, 51), ("none", 0, 0), ((0.1, 0.3), 75, 126)]
)
def test_the_baseline_asked_for(baseline, low, high):
    raw = make_raw()
    evoked, trials, _ = average(raw, "x", (-0.2, 0.3), baseline)
    expected = trials_about(raw, ONSETS)
    if high:
        expected = expected - expected[:, :, low:high].mean(axis=2, keepdims=True)
    assert np.allclose(trials.get_data(), expected, atol=1e-12)
    assert np.allclose(evoked.data, expected.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        slow([], "baseline -200 to 0 ms, subtracted before"),
        slow(["--baseline", "none"], "no baseline subtracted"),
        (["--baseline", "-0.1", "0.05"], "baseline -100 to 50 ms, subtracted"),
    ],
)
def test_the_command_says_what_it_used(eloreta, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    make_raw().save("x_raw.fif", fmt="double", verbose="error")
    common = ["apply", str(eloreta), "x_raw.fif", "--event", "x", "--epoch", "-0.2", "0.3"]
    main([*common, *words, "--out", "o"])
    printed = capsys.readouterr().out
    assert said in printed
    assert "noise: from the trials, -0.2 to 0 s" in printed
    with pytest.raises(SystemExit, match=r"baseline: -0.5 to 0 s is not within the recording"):
        main([*common, "--baseline", "-0.5", "0", "--out", "p"])
    with pytest.raises(SystemExit, match=r"baseline: 0.1 to 0.1 s holds less than two samples"):
        main([*common, "--baseline", "0.1", "0.1", "--out", "p"])
    assert not list(tmp_path.glob("p*"))
