"""Models with filters inside refuse short windows and other sampling rates, wherever they run."""

import json
from dataclasses import replace

import hydra
import mne
import numpy as np
import onnx
import pytest
import torch
from omegaconf import OmegaConf

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.cli import calibrate
from deepesi.cli.main import main
from deepesi.core.contracts import as_tensors
from deepesi.core.onnx_model import load_onnx
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.evaluation.benchmark import check_windows
from deepesi.evaluation.scenario import Scenario
from deepesi.export.to_onnx import check_parity, export_onnx
from deepesi.models.layers.features import Morlet
from deepesi.physics.atlas import seitzman_parcels
from deepesi.physics.head_inputs import prepare
from deepesi.runtime.contract import METADATA_KEY, Contract
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.session import as_feeds, open_model
from deepesi.runtime.window_needs import WindowNeeds
from deepesi.streaming.live import LiveInverse
from deepesi.training.run import check_windows as check_training_windows
from deepesi.uncertainty.consensus import Consensus
from deepesi.uncertainty.ensemble import DeepEnsemble
from tests.conftest import make_covariance, make_evoked

SHORT = r"which needs 59 samples \(0.236 s at 250 Hz\) or more. Give longer windows"
RATE = r"a sampling rate of 500 Hz, the filters of the model are made for 250 Hz. Resample"


class OfABand(MinimumNorm):
    """A minimum norm estimate of the data at 20 Hz."""

    def __init__(self):
        super().__init__()
        self.features = Morlet([20.0])
        self.window_needs = self.features.window_needs

    def forward(self, data, inputs):
        return super().forward(self.features.parts(data)[:, :, 0, 0], inputs)


@pytest.fixture(scope="module")
def path(tmp_path_factory, template):
    path = tmp_path_factory.mktemp("band") / "band.onnx"
    export_onnx(OfABand(), template.montage_head("biosemi16"), path)
    return path


@pytest.fixture(scope="module")
def inverse(path):
    return Inverse.load(path, n_threads=1)


@pytest.fixture(scope="module")
def prepared(inverse):
    info = make_evoked().info
    return inverse.for_recording(info, make_covariance(info))


def single(n_times):
    evoked = make_evoked(n_times=n_times)
    evoked.nave, evoked.data = 1, 2 * evoked.data
    return evoked


def test_the_contract_says_what_the_filters_need(path, template):
    opened = open_model(path)
    assert opened.contract.window_needs == WindowNeeds(59, 250.0)
    assert load_onnx(path).window_needs == WindowNeeds(59, 250.0)
    stored = json.loads({p.key: p.value for p in onnx.load(path).metadata_props}[METADATA_KEY])
    assert stored["window_needs"] == {"shortest": 59, "sfreq": 250.0}
    del stored["window_needs"]  # as in files without filters that were written before
    assert Contract.from_json(json.dumps(stored), "x").window_needs == WindowNeeds()
    stored["window_needs"] = {"shortest": 0, "sfreq": None}
    with pytest.raises(ValueError, match="does not have the expected form .window_needs/shortest"):
        Contract.from_json(json.dumps(stored), "x")


def test_short_windows_are_refused_by_the_session(path, template):
    opened, head = open_model(path), template.montage_head("biosemi32")
    feeds = as_feeds(dict(prepare(opened.contract.head_inputs, head)))
    data = np.random.default_rng(0).normal(scale=1e-6, size=(2, 32, 59)).astype(np.float32)
    model = OfABand()
    expected = model(torch.as_tensor(data), as_tensors(prepare(model.head_inputs, head))).mean
    found = opened.run(data, feeds)["mean"]
    assert np.abs(found - expected.numpy()).max() <= 1e-4 * np.abs(found).max()
    with pytest.raises(ValueError, match=f"a window of 58 samples .*{SHORT}"):
        opened.run(data[..., :58], feeds)


def test_recordings_are_refused_before_anything_is_computed(prepared, inverse):
    evoked = single(58)
    with pytest.raises(ValueError, match=f"the average of 58 samples .*{SHORT}"):
        prepared.apply(evoked)
    epochs = mne.EpochsArray(evoked.data[None], evoked.info, verbose="error")
    with pytest.raises(ValueError, match=f"an epoch of 58 samples .*{SHORT}"):
        prepared.apply(epochs)
    fast = mne.create_info(evoked.ch_names, 500.0, "eeg").set_montage("biosemi32")
    other = mne.EvokedArray(single(100).data, fast, nave=1, verbose="error")
    with pytest.raises(ValueError, match=RATE):
        prepared.apply(other)
    with pytest.raises(ValueError, match=RATE):
        inverse.for_recording(fast, make_covariance(fast))
    assert np.isfinite(prepared.apply(single(59)).stc.data).all()


def test_a_short_stretch_of_a_raw_recording_is_named(prepared):
    evoked = make_evoked(n_times=500)
    raw = mne.io.RawArray(evoked.data, evoked.info, verbose="error")
    raw.set_annotations(mne.Annotations([0.2], [0.8], ["BAD blink"]))
    message = r"the good stretch from 0.00 to 0.20 s \(annotate it BAD .* of 50 samples"
    with pytest.raises(ValueError, match=message):
        list(prepared.apply(raw))
    raw.set_annotations(mne.Annotations([0.0], [1.0], ["BAD blink"]))
    (result,) = prepared.apply(raw)
    assert result.stc.data.shape[1] == 250


def test_streams_are_refused_at_the_start(prepared):
    parcels = seitzman_parcels(prepared.space)
    with pytest.raises(ValueError, match=f"LiveInverse: a window of 50 samples .*{SHORT}"):
        LiveInverse(prepared, parcels, 250.0, window=50)
    with pytest.raises(ValueError, match=f"LiveInverse: the stream has {RATE}"):
        LiveInverse(prepared, parcels, 500.0, window=60)
    assert LiveInverse(prepared, parcels, 250.0, window=60).window == 60


def test_the_commands_refuse_another_rate(path, tmp_path):
    fast = mne.create_info(make_evoked().ch_names, 500.0, "eeg").set_montage("biosemi32")
    evoked = mne.EvokedArray(make_evoked(n_times=100).data, fast, nave=1, verbose="error")
    evoked.save(tmp_path / "x-ave.fif", verbose="error")
    make_covariance(fast).save(tmp_path / "x-cov.fif", verbose="error")
    recording, cov = str(tmp_path / "x-ave.fif"), ["--noise-cov", str(tmp_path / "x-cov.fif")]
    with pytest.raises(SystemExit, match=RATE):
        main(["prepare", str(path), recording, *cov, "--out", str(tmp_path / "head.npz")])
    with pytest.raises(SystemExit, match=RATE):
        main(["apply", str(path), recording, *cov, "--out", str(tmp_path / "p")])
    assert not list(tmp_path.glob("p*"))
    assert not (tmp_path / "head.npz").exists()


def test_parity_is_measured_with_windows_that_are_long_enough(path, simulate):
    batch = simulate([], montage="biosemi32", batch_size=2, n_times=64).batch(0)
    assert check_parity(OfABand(), path, batch, n_timed=1).max_difference <= 1e-5


def test_ensembles_need_what_their_members_need():
    members = [OfABand(), MinimumNorm()]
    assert DeepEnsemble(members).window_needs == WindowNeeds(59, 250.0)
    assert Consensus(members).window_needs == WindowNeeds(59, 250.0)
    with pytest.raises(ValueError, match="filters for several sampling rates: 250, 500 Hz"):
        WindowNeeds.joined([WindowNeeds(9, 250.0), WindowNeeds(9, 500.0)])


def test_test_sets_are_checked_before_a_comparison():
    sources, setups = PatchSources(), SetupRanges()
    scenario = Scenario("snr", [0.0], 2, sources, setups, n_times=58)
    with pytest.raises(
        ValueError, match=rf"scenario 'snr' cannot test 'A': a window of 58.*{SHORT}"
    ):
        check_windows({"B": MinimumNorm(), "A": OfABand()}, scenario)
    with pytest.raises(ValueError, match=r"scenario 'snr' cannot test 'A'.* 500 Hz"):
        check_windows({"A": OfABand()}, replace(scenario, n_times=99, sfreq=500.0))
    check_windows({"A": OfABand()}, replace(scenario, n_times=59))


def test_calibration_is_refused_before_it_begins(path, tmp_path):
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        config = hydra.compose("calibrate", [f"models=[{path}]", "baselines=[]", "scenario=snr"])
    with pytest.raises(ValueError, match=rf"scenario 'snr' cannot test .* a window of 1 .*{SHORT}"):
        calibrate.run(config, tmp_path)


def test_training_is_refused_before_it_begins():
    needs = WindowNeeds(59, 250.0)
    data = {"n_times": [1, 100], "sfreq": 250.0}
    levels = {"a": {"n_times": 20}, "b": {"n_times": 100}}
    config = OmegaConf.create({"data": data, "compare": True, "scenario": {"levels": levels}})
    with pytest.raises(ValueError, match=f"train: a window of data= of 1 samples .*{SHORT}"):
        check_training_windows(needs, config)
    config.data.n_times = 100
    with pytest.raises(ValueError, match="train: a window of scenario= of 20 samples"):
        check_training_windows(needs, config)
    config.compare = False
    check_training_windows(needs, config)
    config.unlabelled = {"n_times": 20, "sfreq": None}
    with pytest.raises(ValueError, match="train: a window of unlabelled= of 20 samples"):
        check_training_windows(needs, config)
    config.unlabelled = None
    config.data.sfreq = 500.0
    with pytest.raises(ValueError, match=f"train: data= has {RATE}"):
        check_training_windows(needs, config)
