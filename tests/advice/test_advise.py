"""``deepesi advise``: verdicts on simulated and real recordings, page, JSON and cache."""

import json
import shutil
import sys
from dataclasses import replace

import mne
import numpy as np
import pytest

from deepesi.advice.methods import Methods
from deepesi.advice.setup import free_template, prepare_study, ranges_of, strongest_sample
from deepesi.advice.simulated_subjects import StrangerRanges
from deepesi.advice.study import better_setups
from deepesi.cli.main import main
from deepesi.data_gen.caps import DIGITIZED
from deepesi.physics.cap_placement import TRANSFORM
from deepesi.physics.template import load_template
from deepesi.runtime.inverse import Inverse
from tests.conftest import make_covariance, make_evoked

#: Sample of the response in `responses`.
SAMPLE = 12


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def responses(eloreta, tmp_path_factory):
    """``good``: a stranger at 12 dB. ``exchanged``: its channels in another order. ``noise``."""
    folder = tmp_path_factory.mktemp("recordings")
    evoked = make_evoked()
    covariance = make_covariance(evoked.info)
    covariance.save(folder / "x-cov.fif", verbose="error")
    evoked.save(folder / "noise-ave.fif", verbose="error")
    model = Inverse.load(eloreta)
    inverse = model.for_recording(evoked, covariance)
    judged = strongest_sample(evoked, inverse, (0, 1))
    source, _ = prepare_study("x", inverse, free_template(model, inverse), judged)
    good = evoked.copy()
    good.data[:, SAMPLE] = source.draw(StrangerRanges(), 12, 10).data[-1]
    good.save(folder / "good-ave.fif", verbose="error")
    exchanged = good.copy()
    exchanged.data = good.data[np.random.default_rng(0).permutation(32)]
    exchanged.save(folder / "exchanged-ave.fif", verbose="error")
    return folder


def advise(model, name, responses, cache, out, *more):
    words = [str(model), str(responses / f"{name}-ave.fif")]
    noise = ["--noise-cov", str(responses / "x-cov.fif")]
    options = ["--strangers", "100", "--cache", str(cache), "--out", str(out / f"{name}.html")]
    main(["advise", *words, *noise, *options, *more])
    return json.loads((out / f"{name}.json").read_text())


def test_a_good_recording_is_trusted_and_the_page_says_why(
    eloreta, responses, cache, tmp_path, capsys
):
    advice = advise(eloreta, "good", responses, cache, tmp_path)
    lines = capsys.readouterr().out
    assert advice["verdict"] == "trust"
    assert advice["reasons"] == []
    assert "No reason not to trust the estimate of e. Expected error:" in lines
    assert advice["time_ms"] == 1e3 * SAMPLE / 250
    assert advice["rank"] == 31
    assert advice["n_channels"] == 32
    assert advice["nave"] == 4
    assert 10 < advice["snr_db"] < 14
    assert "32 names of the 10-05 system" in advice["cap"]["placed_by"]
    assert advice["cap"]["residual_mm"] < 10
    assert abs(advice["cap"]["pitch_degrees"]) < 15
    assert advice["unexplained_channels"] == []
    assert advice["prediction_set"] is None  # the file is not calibrated
    assert (
        set(advice["expected_error"]) == set(advice["locations"]) == {"e", "eLORETA", "dipole scan"}
    )
    for error in advice["expected_error"].values():
        assert 5 < error["median_mm"] < 30
        assert error["median_mm"] < error["p90_mm"] < 90
    left = [misfit["value"] for misfit in advice["misfit"]["sources"]]
    assert sorted(left, reverse=True) == left
    assert advice["misfit"]["p"] == max(misfit["p"] for misfit in advice["misfit"]["sources"])
    assert advice["misfit"]["p"] > 0.01
    apart = advice["distances_mm"]
    assert max(apart.values()) == pytest.approx(advice["agreement"]["value"], abs=0.06)
    assert list(apart) == ["e to eLORETA", "e to dipole scan", "eLORETA to dipole scan"]
    assert {gain["set_up"] for gain in advice["would_help"]} == {
        "digitized electrodes",
        "own MRI",
        "digitized electrodes and own MRI",
        "four times the trials",
    }
    gained = [gain["gain_mm"] for gain in advice["would_help"]]
    assert sorted(gained, reverse=True) == gained
    assert gained[0] > 1
    assert "EEG only" in advice["not_estimated"]["MEG"]
    page = (tmp_path / "good.html").read_text()
    assert "No reason not to trust the estimate of e." in page
    assert "No rule speaks against this estimate." in page
    assert page.count("<img src='data:image/png") == 6  # three views, three plots
    assert "own MRI" in page


@pytest.mark.slow
def test_a_second_call_reads_the_cache_and_says_the_same(
    eloreta, responses, cache, tmp_path, capsys, monkeypatch
):
    first = advise(eloreta, "good", responses, cache, tmp_path)
    capsys.readouterr()

    def drawn(*_):
        raise AssertionError("strangers are drawn anew")

    monkeypatch.setattr("deepesi.advice.simulated_subjects.StrangerSource.draw", drawn)
    assert advise(eloreta, "good", responses, cache, tmp_path) == first
    assert "their results are from the cache" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="drawn anew"):  # another set-up
        advise(eloreta, "good", responses, cache, tmp_path, "--exclude", "Fp1")
    with pytest.raises(AssertionError, match="drawn anew"):  # another number
        advise(eloreta, "good", responses, cache, tmp_path, "--strangers", "101")


def test_exchanged_channels_are_not_trusted(eloreta, responses, cache, tmp_path, capsys):
    advice = advise(eloreta, "exchanged", responses, cache, tmp_path)
    assert advice["verdict"] == "do not trust"
    assert advice["misfit"]["p"] < 0.01
    assert any("One to three sources do not explain" in reason for reason in advice["reasons"])
    assert "Do not trust the estimate of e." in capsys.readouterr().out
    assert "Do not trust the estimate of e." in (tmp_path / "exchanged.html").read_text()


@pytest.mark.slow
def test_noise_is_not_trusted(eloreta, responses, cache, tmp_path):
    advice = advise(eloreta, "noise", responses, cache, tmp_path)
    assert advice["verdict"] == "do not trust"
    assert advice["p_noise"] > 0.01
    assert any("The peak may be noise" in reason for reason in advice["reasons"])


@pytest.mark.slow
def test_a_calibrated_model_has_prediction_sets(responses, cache, tmp_path):
    advice = advise("convdip", "good", responses, cache, tmp_path)
    sets = advice["prediction_set"]
    assert sets["level"] == 0.9
    assert 1 < sets["area_cm2"] < 200
    assert 1 < sets["strangers_median_cm2"] < 200
    assert 0 < sets["coverage"] < 0.9  # calibrated on heads that are less strange
    text = "The 90 % prediction sets are too small under this set-up"
    assert any(caution.startswith(text) for caution in advice["cautions"])
    assert "90 % prediction set" in (tmp_path / "good.html").read_text()


def test_a_damaged_cache_is_named(eloreta, responses, cache, tmp_path):
    advise(eloreta, "good", responses, cache, tmp_path)
    for kept in cache.glob("*.npz"):
        (tmp_path / kept.name).write_bytes(kept.read_bytes()[:300])
    with pytest.raises(SystemExit, match=r"not a readable study of strangers.*Delete it"):
        advise(eloreta, "good", responses, tmp_path, tmp_path)


@pytest.mark.slow
def test_the_exported_file_of_a_run_and_prepared_inputs(
    eloreta, responses, cache, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    (run / "export").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"run is a folder without export/model.onnx"):
        advise(run, "good", responses, cache, tmp_path)
    shutil.copy(eloreta, run / "export" / "model.onnx")
    good = advise(eloreta, "good", responses, cache, tmp_path)
    advice = advise(run, "good", responses, cache, tmp_path)
    assert advice["model"] == "run"
    assert advice["agreement"] == good["agreement"]
    main(
        f"prepare {eloreta} {responses / 'good-ave.fif'} --nave 4 --noise-cov "
        f"{responses / 'x-cov.fif'} --out {tmp_path / 'head.npz'}".split()
    )
    words = [
        str(eloreta),
        str(responses / "good-ave.fif"),
        "--prepared",
        str(tmp_path / "head.npz"),
    ]
    options = ["--strangers", "100", "--cache", str(cache), "--out", str(tmp_path / "p.html")]
    main(["advise", *words, *options])
    prepared = json.loads((tmp_path / "p.json").read_text())
    assert prepared["cap"] is None
    assert prepared["verdict"] == "trust"
    assert prepared["snr_db"] == good["snr_db"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--strangers", "99"], r"--strangers 99: expected 100 or more"),
        (["--forward", "x-fwd.fif"], r"--forward: it has the lead field of one anatomy"),
        (["--event", "a", "b"], r"--event a b: give one event"),
        (["--window", "2", "3"], r"--window 2 3 s lies outside the recording"),
        (["--out", "x.json"], r"--out x.json: expected a name that ends in .html"),
        (["--head", "vol7"], r"no head 'vol7'"),
    ],
)
def test_bad_options_are_refused(eloreta, responses, cache, tmp_path, more, message):
    with pytest.raises(SystemExit, match=message):
        advise(eloreta, "good", responses, cache, tmp_path, *more)
    assert not list(tmp_path.iterdir())


def test_epochs_are_refused(eloreta, responses, tmp_path):
    evoked = mne.read_evokeds(responses / "noise-ave.fif", 0, verbose="error")
    path = tmp_path / "x-epo.fif"
    mne.EpochsArray(evoked.data[None], evoked.info, verbose="error").save(path, verbose="error")
    with pytest.raises(SystemExit, match="the recording is EpochsFIF, expected an average"):
        main(
            f"advise {eloreta} {path} --noise-cov {responses / 'x-cov.fif'} "
            f"--out {tmp_path / 'x.html'}".split()
        )


def test_without_torch_the_extra_is_named(eloreta, responses, cache, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match=r"'torch' to simulate other people's heads.*\[train\]"):
        advise(eloreta, "good", responses, cache, tmp_path)


def test_the_estimate_is_that_of_apply():
    """The estimate is that of windows around the sample, as long as those of training."""
    evoked = make_evoked("biosemi16", n_times=45, seed=5)
    inverse = Inverse.load("default", 1).for_recording(evoked, make_covariance(evoked.info))
    data = inverse.sensors.reference(evoked.data)
    head = load_template("fsaverage-ico3-free")
    head = head.head(*head.montage("biosemi16"))
    methods = Methods("default", inverse, head, 0.0)
    assert methods.names == ("default", "eLORETA", "dipole scan")
    assert replace(methods, model="eLORETA").names[0] == "eLORETA (the model)"
    whole = inverse.apply(evoked, baseline="none").stc.data
    for sample in (0, 17, 44):
        means = methods.apply_at(data, sample).means[0]
        np.testing.assert_allclose(means, whole[..., sample].ravel(), rtol=1e-4, atol=1e-13)


def test_a_stranger_alone_is_estimated_as_apply_does(eloreta, responses):
    evoked = mne.read_evokeds(responses / "good-ave.fif", 0, verbose="error")
    covariance = mne.read_cov(responses / "x-cov.fif", verbose="error")
    model = Inverse.load(eloreta)
    inverse = model.for_recording(evoked, covariance)
    judged = strongest_sample(evoked, inverse, (0, 1))
    _, methods = prepare_study("e", inverse, free_template(model, inverse), judged)
    sample = judged.data[:, [judged.sample]]
    estimates = methods.apply(sample.T)
    expected = inverse.estimate(sample)[0]
    np.testing.assert_allclose(estimates.means.T, expected, rtol=1e-5, atol=1e-15)
    assert estimates.strongest[0, 0] == methods.strongest(sample.T)[0] == abs(expected).argmax()
    kernel = estimates.strongest[0, 1]
    assert 0 <= kernel < 1284


@pytest.fixture(scope="module")
def prepared(eloreta, responses):
    evoked = mne.read_evokeds(responses / "good-ave.fif", 0, verbose="error")
    covariance = mne.read_cov(responses / "x-cov.fif", verbose="error")
    return Inverse.load(eloreta).for_recording(evoked, covariance)


def test_knowledge_of_the_analyst_follows_the_placement(prepared, template):
    assert ranges_of(prepared, template) == StrangerRanges()
    exact = replace(prepared, placement=replace(prepared.placement, method=TRANSFORM))
    assert ranges_of(exact, template) == StrangerRanges(DIGITIZED)
    own = replace(template, mri_head=np.eye(4))
    assert ranges_of(prepared, own) == StrangerRanges(DIGITIZED, None)
    assert list(better_setups(StrangerRanges(DIGITIZED, None), 3)) == ["four times the trials"]
    better = better_setups(StrangerRanges(DIGITIZED), 3)
    assert list(better) == ["own MRI", "four times the trials"]
    assert better["four times the trials"][1] == pytest.approx(9.02, abs=0.01)


def test_heads_without_other_anatomies_are_refused(eloreta, prepared, toy, template):
    model = Inverse.load(eloreta, head=replace(template, source_normals=np.zeros((1284, 3))))
    with pytest.raises(ValueError, match="sources on no surface, so there are no anatomies"):
        free_template(model, prepared)
    model = Inverse.load(eloreta, head=toy)
    with pytest.raises(ValueError, match="--prepared: it is of the source space fsaverage-ico3"):
        free_template(model, prepared)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("condition", "verdict"),
    [("Left visual", "trust"), ("Right visual", "trust"), ("Left Auditory", "do not trust")],
)
def test_real_responses(sample_data, tmp_path, condition, verdict):
    """The auditory response of three trials has no single source, the visual ones have."""
    averages = sample_data / "derived" / "sample_audvis_short_eegonly-ave.fif"
    noise = sample_data / "sample_audvis_short-cov.fif"
    options = ["--condition", condition, "--noise-cov", str(noise), "--baseline", "-0.199", "0"]
    out = tmp_path / "x.html"
    main(
        [
            "advise",
            "default",
            str(averages),
            *options,
            "--cache",
            str(tmp_path),
            "--strangers",
            "100",
            "--out",
            str(out),
        ]
    )
    advice = json.loads(out.with_suffix(".json").read_text())
    assert advice["verdict"] == verdict
    assert advice["rank"] == 58
    assert advice["bads"] == ["EEG 053"]
    assert 0 < advice["prediction_set"]["coverage"] < 1
    assert advice["prediction_set"]["area_cm2"] > 1
    if verdict == "do not trust":
        assert advice["misfit"]["p"] < 0.01
