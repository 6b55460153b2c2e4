"""A noise covariance that was divided by the number of trials before: its baseline shows it."""

import warnings

import mne
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.runtime.inverse import Inverse, NoiseWarning
from deepesi.runtime.noise_check import LOUDEST_BASELINE, check_baseline
from tests.conftest import make_covariance, make_evoked

SFREQ, TRIALS = 250.0, 60


def average(tmin=-0.2, level=2e-6, nave=TRIALS, baseline=(None, 0)):
    """An average of noise, with a response from 0.1 to 0.2 s."""
    info = make_evoked().info
    times = tmin + np.arange(150) / SFREQ
    data = np.random.default_rng(5).normal(scale=level / nave**0.5, size=(32, len(times)))
    data += 5e-6 * np.outer(np.cos(np.arange(32)), (times > 0.1) & (times < 0.2))
    evoked = mne.EvokedArray(data, info, tmin, nave=nave)
    return evoked if baseline is None else evoked.apply_baseline(baseline, verbose="error")


def divided(info, by=TRIALS):
    covariance = make_covariance(info)
    covariance["data"] = covariance["data"] / by
    return covariance


@pytest.fixture(scope="module")
def inverse(eloreta, toy_path):
    return Inverse.load(eloreta, head=toy_path)


@pytest.mark.parametrize("baseline", [None, (None, 0), (-0.2, -0.1), (None, None)])
def test_a_covariance_divided_before_is_refused(inverse, baseline):
    evoked = average(baseline=baseline)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoiseWarning)
        right = inverse.apply(evoked, make_covariance(evoked.info))
        with pytest.raises(
            ValueError,
            match=r"baseline has [4-7]\d\.?\d* times the power of noise.*divided by the number of "
            r"trials already \(60\).*single trials.*--nave 1.*--baseline none",
        ):
            inverse.apply(evoked, divided(evoked.info))
        evoked.nave = 1  # the cure that the message names
        cured = inverse.apply(evoked, divided(evoked.info))
    np.testing.assert_allclose(cured.data, right.data, rtol=1e-4)


def test_without_a_baseline_nothing_is_known(inverse):
    """No time before 0, too little of it, or what the user says is no rest."""
    for evoked, baseline in (
        (average(tmin=0.0, baseline=None), None),
        (average(tmin=-0.04), None),
        (average(), "none"),
    ):
        covariance = divided(evoked.info)
        prepared = inverse.for_recording(evoked, covariance)
        assert prepared.correct(evoked, baseline).noise_warning is None


def test_a_slow_potential_before_0_is_no_noise(inverse):
    """A readiness potential of 30 times the noise in the last half second."""
    info = make_evoked().info
    times = -1.6 + np.arange(500) / SFREQ
    data = np.random.default_rng(0).normal(scale=2e-6 / 8, size=(32, 500))
    data += 4e-6 * np.outer(np.cos(np.arange(32)), np.exp(times / 0.2).clip(max=1))
    for baseline in (None, (-1.6, -1.2)):
        evoked = mne.EvokedArray(data, info, -1.6, nave=64).apply_baseline(baseline)
        ready = inverse.for_recording(evoked, make_covariance(info)).correct(evoked)
        assert ready.noise_warning is None
        with pytest.raises(ValueError, match="divided by the number of trials already"):
            inverse.for_recording(evoked, divided(info, 64)).correct(evoked)


@pytest.mark.parametrize("noise", [0.5, 1.0, 1.4])
@pytest.mark.parametrize("nave", [1, 4, 60, 720])
def test_noise_of_real_recordings_passes(inverse, noise, nave):
    """Its amplitude is half of that of the covariance, or its power is twice as large."""
    evoked = average(nave=nave, level=noise * 2e-6)
    ready = inverse.for_recording(evoked, make_covariance(evoked.info)).correct(evoked)
    assert ready.noise_warning is None


def test_other_noise_is_a_warning(inverse):
    """8 times the power: neither noise, nor 60 trials."""
    evoked = average(level=8**0.5 * 2e-6)
    with pytest.warns(NoiseWarning, match=r"baseline has [6-9]\.?\d* times.*another recording"):
        inverse.apply(evoked, make_covariance(evoked.info))
    epochs = mne.EpochsArray(average(nave=1).data[None], evoked.info, tmin=-0.2, verbose="error")
    with pytest.warns(NoiseWarning, match="baseline has"):
        next(inverse.apply(epochs, divided(epochs.info)))


def test_the_bounds():
    def check(power, nave):
        return check_baseline([np.full((8, 20), power**0.5)], rank=8, nave=nave) or ""

    assert check(0.99 * LOUDEST_BASELINE, nave=4) == ""
    with pytest.raises(ValueError, match="divided"):
        check(1.01 * LOUDEST_BASELINE, nave=4)
    for power in (10, 1000):
        assert "of another recording" in check(power, nave=100)
    assert check_baseline([], rank=8, nave=100) is None


def test_one_bad_channel_is_no_divided_covariance(inverse):
    evoked = average()
    evoked.data[4] *= 40
    with pytest.warns(NoiseWarning, match=r"baseline has \d+\.?\d* times.*channels are bad"):
        inverse.apply(evoked, make_covariance(evoked.info))


def test_the_commands_say_so(eloreta, toy_path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    evoked = average()
    evoked.save("x-ave.fif", verbose="error")
    divided(evoked.info).save("x-cov.fif", verbose="error")
    files = ["x-ave.fif", "--noise-cov", "x-cov.fif", "--head", str(toy_path)]
    with pytest.raises(SystemExit, match=r"divided by the number of trials already .*--nave 1"):
        main(["apply", str(eloreta), *files, "--out", "o"])
    assert not list(tmp_path.glob("o*"))
    main(["apply", str(eloreta), *files, "--nave", "1", "--out", "o"])
    main(["apply", str(eloreta), *files, "--baseline", "none", "--out", "o"])
    main(["prepare", str(eloreta), *files, "--nave", "60", "--out", "head.npz"])
    with pytest.raises(SystemExit, match="divided by the number of trials already"):
        main(["apply", str(eloreta), files[0], "--prepared", "head.npz", "--out", "p"])
    divided(evoked.info, 8).save("x-cov.fif", overwrite=True, verbose="error")
    capsys.readouterr()
    main(["apply", str(eloreta), *files, "--out", "o"])
    assert "warning: the baseline has" in capsys.readouterr().out
