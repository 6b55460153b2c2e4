"""``deepesi apply --samples``: files of posterior samples, and what is refused."""

from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest
import torch
from PIL import Image

from deepesi.cli.main import main
from deepesi.core.contracts import PosteriorModel
from deepesi.export.to_onnx import export_onnx
from deepesi.models.posterior.structured import StructuredPosterior
from deepesi.physics.head_inputs import prepare
from deepesi.runtime import prepared_model
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.session import OpenModel, as_feeds, open_model
from tests.conftest import make_covariance, save_evoked
from tests.contract.parity import check_file
from tests.core.flow import ToyFlow


@pytest.fixture(scope="module")
def posterior():
    """A structured posterior of one component, away from its neutral start."""
    torch.manual_seed(0)
    model = StructuredPosterior(1, 8, 0.03, 0.06, 2, n_draws=64).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def files(toy_path, tmp_path_factory):
    """The posterior of a minimum norm, and eLORETA."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("bayesian_minimum_norm", "eloreta"):
        out = str(folder / f"{name}.onnx")
        main(["export", name, "--head", str(toy_path), "--montage", "biosemi16", "--out", out])
    return folder


@pytest.fixture(scope="module")
def structured(posterior, toy, tmp_path_factory):
    """File of the structured posterior, which takes half a minute to export."""
    path = tmp_path_factory.mktemp("structured") / "posterior.onnx"
    export_onnx(posterior, toy.montage_head("biosemi16"), path)
    return path


@pytest.fixture
def evoked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return save_evoked()


def apply(model, toy_path, *more, recording="x-ave.fif"):
    setup = ["--noise-cov", "x-cov.fif", "--head", str(toy_path), "--out", "out"]
    main(["apply", str(model), recording, *setup, *more])


@pytest.mark.slow
def test_the_file_is_the_posterior_in_torch(structured, posterior, simulate):
    check_file(posterior, simulate, structured)


@pytest.mark.slow
def test_samples_map_number_and_figure(structured, toy_path, toy, evoked, capsys):
    apply(structured, toy_path, "--samples", "300")
    printed = capsys.readouterr().out
    assert "300 samples; number of sources 1: 100 %" in printed
    assert "% for a source within 10 mm of " in printed
    assert "90 % set of all sources together: " in printed
    with np.load("out-samples.npz", allow_pickle=False) as file:
        found = dict(file)
    assert found["samples"].shape == (300, 84)
    assert found["samples"].dtype == np.float32
    assert found["time"] == pytest.approx(evoked.times[3])
    assert found["n_sources"].tolist() == [0, 1]
    inverse = Inverse.load(structured, head=toy_path).for_recording(
        evoked, make_covariance(evoked.info)
    )
    again = inverse.sample(evoked.data[:, [3]], 300, seed=0)
    assert np.allclose(found["samples"], again[..., 0], rtol=1e-4, atol=1e-15)
    strongest = np.abs(found["samples"]).argmax(axis=1)
    share = np.bincount(strongest, minlength=84) / 300
    assert np.allclose(found["probability"], share)  # the toy's sources are 25 mm apart
    assert found["probability"][found["joint_set"]].sum() >= 0.9
    stc = mne.read_source_estimate("out-probability")
    assert np.allclose(stc.data[:, 0], found["probability"])
    assert stc.tmin == pytest.approx(evoked.times[3])


@pytest.mark.slow
def test_samples_of_a_model_without_sources(files, toy_path, evoked, capsys):
    apply(files / "bayesian_minimum_norm.onnx", toy_path, "--samples", "50")
    assert (
        "every source is active in them, so active sources cannot be counted"
        in capsys.readouterr().out
    )
    with np.load("out-samples.npz") as found:
        assert found["n_sources"].size == 0
        assert found["probability"].sum() == pytest.approx(1)


@pytest.mark.slow  # draws the cortex
@pytest.mark.parametrize("n", [1, 3])
def test_an_animation_on_a_packaged_cortex(files, evoked, capsys, n):
    """Every sample is a picture of it; there is none of one sample."""
    setup = ["--noise-cov", "x-cov.fif", "--out", "out", "--samples", str(n)]
    main(["apply", str(files / "bayesian_minimum_norm.onnx"), "x-ave.fif", *setup])
    assert ("wrote out-samples.gif" in capsys.readouterr().out) == (n > 1)
    assert Path("out-samples.gif").exists() == (n > 1)
    assert Path("out-samples.png").exists()
    if n > 1:
        with Image.open("out-samples.gif") as movie:
            assert movie.n_frames == n


def refused(match, capsys, *arguments, **options):
    with pytest.raises(SystemExit) as error:
        apply(*arguments, **options)
    message = str(error.value)
    assert match in message, message


def test_what_is_refused(files, toy_path, evoked, capsys, monkeypatch, tmp_path):
    model, draw = files / "bayesian_minimum_norm.onnx", "--samples"
    refused("--samples 0: expected 1 or more", capsys, model, toy_path, draw, "0")
    gives = "the model gives no posterior samples, only mean. Use a posterior model"
    refused(gives, capsys, files / "eloreta.onnx", toy_path, draw, "5")
    monkeypatch.setattr(prepared_model, "allowed_bytes", lambda: 7_500_000)
    asked = (
        "asked for 1000000000 draws: they need 10080000000000 bytes for 84 dipoles and 1 samples"
    )
    refused(asked, capsys, model, toy_path, draw, "1000000000")
    events = np.array([[0, 0, 1], [100, 0, 1]])
    data = np.stack([evoked.data, evoked.data])
    mne.EpochsArray(data, evoked.info, events, verbose="error").save("x-epo.fif", verbose="error")
    epochs = "--samples draws at the strongest sample of an average"
    refused(epochs, capsys, model, toy_path, draw, "5", recording="x-epo.fif")
    refused("--samples: for one recording", capsys, model, toy_path, draw, "5", recording="bids:x")
    assert not list(tmp_path.glob("out*"))


def test_noise_of_another_shape_and_files_without_it(files, toy):
    head = toy.montage_head("biosemi16")
    data = np.zeros((2, 16, 3), np.float32)
    names = ("bayesian_minimum_norm", "eloreta")
    posterior, plain = (open_model(files / f"{name}.onnx") for name in names)
    feeds = as_feeds(prepare(posterior.contract.head_inputs, head))
    size = posterior.noise_size(data, feeds)
    for opened, noise, match in (
        (
            posterior,
            np.zeros((4, 2, 1)),
            rf"noise of shape \(4, 2, 1\), expected \(draws, 2, {size}\)",
        ),
        (posterior, np.zeros((4, 9)), rf"noise of shape \(4, 9\), expected \(draws, 2, {size}\)"),
        (plain, np.zeros((4, 2, 9)), "the file has no input for it: it draws no samples"),
    ):
        feeds = as_feeds(prepare(opened.contract.head_inputs, head))
        with pytest.raises(ValueError, match=match):
            opened.run(data, feeds, noise)


@pytest.mark.parametrize(
    ("n_draws", "expected"),
    [(64, [(150, 1)] * 2), (None, [(64, 1)] * 4 + [(22, 2)])],
)
def test_many_draws_are_computed_a_few_at_a_time(files, toy, monkeypatch, n_draws, expected):
    """By a loop of the graph where the file says so, otherwise by the runtime."""
    opened = open_model(files / "bayesian_minimum_norm.onnx")
    feeds = as_feeds(prepare(opened.contract.head_inputs, toy.montage_head("biosemi16")))
    rng = np.random.default_rng(0)
    data = rng.normal(scale=1e-6, size=(2, 16, 1)).astype(np.float32)
    noise = rng.normal(size=(150, 2, opened.noise_size(data, feeds))).astype(np.float32)
    whole = opened.run(data, feeds, noise)
    one = sum(4 * values.size for values in feeds.values())
    run, at_once = OpenModel._run, []

    def counted(self, data, inputs, noise, kinds):
        at_once.append(noise.shape[:2])
        return run(self, data, inputs, noise, kinds)

    monkeypatch.setattr(OpenModel, "_run", counted)
    monkeypatch.setattr("deepesi.runtime.session.AT_ONCE", 64 * one)
    opened = opened._replace(contract=replace(opened.contract, n_draws=n_draws))
    parts = opened.run(data, feeds, noise)
    assert at_once == expected
    assert parts["samples"].shape == (150, 2, 84, 1)
    for kind, values in whole.items():
        assert np.allclose(values, parts[kind], rtol=1e-5, atol=1e-15)


def test_a_sampler_without_a_density():
    model: PosteriorModel = ToyFlow()
    data = torch.zeros(1, 16, 1)
    with pytest.raises(NotImplementedError, match="ToyFlow draws samples and has no log-density"):
        model.log_density(data, {}, None)
    with pytest.raises(ValueError, match="ToyFlow: the number of draws must be 1 or more, got 0"):
        model.draw(data, {}, 0)
