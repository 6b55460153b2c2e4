"""The public names: a network trained, applied, evaluated and exported from Python."""

import subprocess
import sys
from pathlib import Path

import mne
import numpy as np
import pytest
import torch
import yaml

import deepesi
from deepesi.models.convdip import ConvDip
from deepesi.training.weights import load_network
from tests.api.conftest import CONVDIP, SMALL
from tests.conftest import make_covariance, make_evoked

PUBLIC = {
    "Inverse",
    "Run",
    "SimulatedRecordings",
    "apply",
    "evaluate",
    "export_onnx",
    "load_head",
    "train",
}


@pytest.fixture(scope="module")
def evoked():
    return make_evoked("biosemi16", 5)


@pytest.fixture(scope="module")
def noise_cov(evoked):
    return make_covariance(evoked.info)


def test_public_names():
    assert set(dir(deepesi)) == {*PUBLIC, "__version__"} == set(deepesi.__all__)
    assert all(getattr(deepesi, name).__doc__ for name in PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'tarin'. It has Inverse"):
        deepesi.tarin  # noqa: B018
    assert Path(deepesi.__file__).with_name("py.typed").is_file()


def test_import_is_light_and_names_need_no_torch_but_those_that_train():
    script = (
        "import sys; sys.modules['torch'] = None; import deepesi; "
        "assert len([m for m in sys.modules if m.startswith('deepesi')]) == 1; "
        "assert not {'numpy', 'mne', 'hydra'} & set(sys.modules); "
        "deepesi.load_head; deepesi.Inverse; deepesi.apply\n"
        "try: deepesi.train\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert "needs the package 'torch' to use deepesi.train" in done.stdout
    assert "pip install 'deepesi[train]'" in done.stdout


def test_four_lines(run, toy, evoked, noise_cov):
    stc = run.inverse().apply(evoked, noise_cov)
    assert isinstance(stc, mne.SourceEstimate)
    assert stc.shape == (84, 5)
    prepared = deepesi.Inverse.load(run.folder / "export/model.onnx", head=toy)
    expected = prepared.for_recording(evoked, noise_cov).apply(evoked).stc
    np.testing.assert_array_equal(stc.data, expected.data)


def test_run_directory_is_that_of_the_command(run, toy):
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert (config["seed"], config["trainer"]["max_steps"]) == (3, 2)
    assert config["logger"]["save_dir"] == str(run.folder)
    assert config["head"] == {"name": "toy", "fingerprint": toy.fingerprint}
    for name in ("metrics.csv", "model/weights.safetensors", "export/card.md", "export/head.npz"):
        assert (run.folder / name).is_file(), name
    assert "deepesi.train in Python" in (run.folder / "export/card.md").read_text()
    network = load_network(run.folder, toy.space)[0]
    for mine, theirs in zip(run.model().parameters(), network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_run_is_not_overwritten(run, toy):
    with pytest.raises(ValueError, match=r"holds a run already. .*ckpt=auto"):
        deepesi.train("convdip", toy, max_steps=2, out=run.folder, overrides=[*SMALL, *CONVDIP])


def test_epochs_and_raw_give_one_estimate_each(run, evoked, noise_cov):
    data = 2 * np.stack([evoked.data] * 3)  # single trials are louder than the average of four
    epochs = mne.EpochsArray(data, evoked.info, verbose="error")
    stcs = list(deepesi.apply(run.inverse(), epochs, noise_cov))
    assert [stc.shape for stc in stcs] == [(84, 5)] * 3
    raw = mne.io.RawArray(np.hstack(data), evoked.info, verbose="error")
    assert [stc.shape for stc in run.inverse().apply(raw, noise_cov)] == [(84, 15)]


def test_apply_by_path_and_by_name(run, evoked, noise_cov):
    """The packaged file knows its head; an exported one by its path is told nothing."""
    assert deepesi.apply("convdip", evoked, noise_cov).shape == (1284, 5)
    with pytest.raises(FileNotFoundError, match="no head 'fsaverage-ico1"):
        deepesi.apply(run.folder / "export/model.onnx", evoked, noise_cov)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recording": np.zeros((16, 5))}, "got ndarray, expected mne.Evoked"),
        ({"noise_cov": "x-cov.fif"}, "noise_cov is a str, expected an mne.Covariance. Read"),
        ({"forward": "x-fwd.fif"}, "forward is a str, expected an mne.Forward. Read"),
    ],
)
def test_what_is_no_object_of_mne_is_refused(run, evoked, noise_cov, given, message):
    arguments = {"recording": evoked, "noise_cov": noise_cov} | given
    with pytest.raises(TypeError, match=message):
        run.inverse().apply(**arguments)


def test_evaluate(run, toy, tmp_path):
    small = [
        "scenario.n_examples=4",
        "scenario.snr_db=[10]",
        "scenario.setups.montages=[biosemi16]",
    ]
    small += ["scenario.sources.radius=[0.03,0.06]"]
    rows = run.evaluate(overrides=small)
    assert {row.method for row in rows} == {"ConvDip", "eLORETA"}
    named = deepesi.evaluate(
        {"mine": run.model(), "file": run.folder / "export/model.onnx"},
        toy,
        baselines=(),
        out=tmp_path,
        overrides=small,
    )
    errors = {r.method: r.value for r in named if r.metric == "localization_error"}
    ours = {r.method: r.value for r in rows if r.metric == "localization_error"}
    assert errors["mine"] == ours["ConvDip"]
    assert errors["file"] == pytest.approx(errors["mine"], rel=1e-4)
    assert (tmp_path / "report.html").is_file()
    assert "deepesi.evaluate in Python" in (tmp_path / "benchmark.md").read_text()


class Mine(ConvDip):
    """Somebody's own class, whose arguments nobody can read off it."""

    def __init__(self, n_dipoles: int, width_of_mine: int) -> None:
        super().__init__(n_dipoles, height=6, width=6, hidden=width_of_mine)


@pytest.fixture(scope="module")
def own(toy, tmp_path_factory):
    """Their network before training, and the run."""
    torch.manual_seed(0)
    network = Mine(84, 8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    out = tmp_path_factory.mktemp("own") / "run"
    run = deepesi.train(network, toy, max_steps=2, out=out, overrides=[*SMALL, "export=false"])
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), "the network that was given is left as it is"
    return network, run


def test_a_network_of_ones_own(own, toy, tmp_path, evoked, noise_cov):
    network, run = own
    trained = run.model()
    assert isinstance(trained, Mine)
    assert not torch.equal(trained.last.weight, network.last.weight)
    with pytest.raises(FileNotFoundError, match=r"export=false. Write a file with deepesi.export"):
        run.inverse()
    with pytest.raises(ValueError, match=r"a tests.api.test_api.Mine that was made in Python"):
        load_network(run.folder, toy.space)
    path = deepesi.export_onnx(trained, toy, tmp_path / "mine.onnx", montage="biosemi16")
    stc = deepesi.apply(deepesi.Inverse.load(path, head=toy), evoked, noise_cov)
    assert np.isfinite(stc.data).all()
    assert "Not measured yet" in path.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"model": 3},
            TypeError,
            "model is a int, expected the name of a network .annealed_patches, convdip",
        ),
        ({"model": "convdpi"}, ValueError, "Could not find 'model/convdpi' .*Nearest: convdip"),
        ({"head": 3}, TypeError, "load_head: got int, expected the name of a packaged"),
        ({"head": "nobody"}, FileNotFoundError, "no head 'nobody'. At hand"),
        ({"overrides": "seed=1"}, TypeError, "got the text 'seed=1', expected a list"),
        ({"overrides": ["seed=1"]}, ValueError, "seed is set by an argument"),
        ({"overrides": ["data.montage=a"]}, ValueError, "data.montage: there is no such key"),
        ({"overrides": ["trainer.max_steps=x"]}, ValueError, "expected a whole number"),
        ({"experiment": "matchd_filter"}, ValueError, "Nearest: matched_filter"),
    ],
)
def test_wrong_arguments_of_train(toy, tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        deepesi.train(**{"model": "convdip", "head": toy, "out": tmp_path} | arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("models", "options", "error", "message"),
    [
        ([], {"baselines": ()}, ValueError, "nothing to evaluate"),
        ([3], {}, TypeError, "got a int, expected a network, a path or a name"),
        ([], {"scenario": "snrr"}, ValueError, "no scenario 'snrr'. Nearest: snr"),
        ([], {"baselines": ["elorta"]}, ValueError, "'baselines/elorta'.*Nearest: eloreta"),
        ([], {"overrides": ["head.name=x"]}, ValueError, "head is set by an argument"),
        (["no.onnx"], {}, FileNotFoundError, "no.onnx"),
    ],
)
def test_wrong_arguments_of_evaluate(toy, models, options, error, message):
    with pytest.raises(error, match=message):
        deepesi.evaluate(models, toy, **options)


def test_two_networks_of_one_class_need_names(toy):
    with pytest.raises(ValueError, match="two models are called 'Mine'"):
        deepesi.evaluate([Mine(84, 8), Mine(84, 8)], toy)


def test_load_head_takes_names_files_and_forward_solutions(toy, toy_path, sample_data):
    assert deepesi.load_head().name == "fsaverage-ico3"
    assert deepesi.load_head(toy_path).fingerprint == toy.fingerprint
    path = sample_data / "derived" / "sample-oct5-eeg-fwd.fif"
    from_file = deepesi.load_head(path)
    from_object = deepesi.load_head(mne.read_forward_solution(path, verbose="error"))
    assert from_file.fingerprint == from_object.fingerprint
    assert from_object.cap == from_file.cap
    with pytest.raises(ValueError, match="has 1 dipole component.* n_orient=3 was asked for"):
        deepesi.load_head(toy_path, n_orient=3)
