"""``deepesi explain`` on the run of a GNN that gets windows: evidence, attention, spans of time."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.cli.explain import open_network
from deepesi.cli.main import main
from deepesi.evaluation.solvers import SolverModel
from deepesi.export.to_onnx import export_onnx
from deepesi.interpret.run import ExplainOptions, explain
from deepesi.models.gnn import SensorGNN
from deepesi.physics.template import load_template
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.reading.recording import ReadingOptions
from deepesi.runtime.setup import SetupOptions
from deepesi.training.weights import save_network
from tests.conftest import make_covariance, make_evoked

SIZES = {"smallest": 0.03, "largest": 0.06, "n_components": 1, "n_rounds": 2, "n_radii": 2}
#: Samples of the recording and of the window that the network gets.
N_TIMES, WINDOW = 12, 6


def gnn():
    torch.manual_seed(0)
    return SensorGNN(**SIZES).eval()


@pytest.fixture(scope="module")
def folder(toy, tmp_path_factory):
    """An average with a source in two samples, and its noise covariance."""
    folder = tmp_path_factory.mktemp("recording")
    evoked = make_evoked("biosemi16", n_times=N_TIMES)
    signal = toy.montage_head("biosemi16").leadfield[:, 7]
    evoked.data[:, 4:6] += 8e-6 * signal[:, None] / abs(signal).max()
    evoked.save(folder / "x-ave.fif", verbose="error")
    make_covariance(evoked.info).save(folder / "x-cov.fif", verbose="error")
    return folder


def open_gnn(path, setup):
    """The network in place of a solver: nothing is exported, which takes long."""
    model = SolverModel("mne")
    model.model, model.longest = gnn(), WINDOW
    model.contract = replace(model.contract, head_inputs=model.model.head_inputs)
    return Inverse(model, setup.head)


@pytest.fixture(scope="module")
def installed(toy, toy_path, tmp_path_factory):
    """The toy head under the name of its sources, so that maps are drawn on its cortex."""
    heads = tmp_path_factory.mktemp("cache") / "heads"
    heads.mkdir()
    shutil.copy(toy_path, heads / f"{toy.space.name}.npz")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DEEPESI_CACHE", str(heads.parent))
        yield toy.space.name
    load_template.cache_clear()  # or other tests would find it


@pytest.fixture
def explained(folder, installed, tmp_path):
    """Explains a model, and gives the explanation and its page."""

    def make(model="gnn", open_inverse=open_gnn, **options):
        steps = explain(
            folder / model,
            folder / "x-ave.fif",
            tmp_path / "page.html",
            ReadingOptions(),
            SetupOptions(noise_cov=folder / "x-cov.fif", head=installed),
            ExplainOptions(at=5 / 250, **options),
            open_inverse,
            open_network,
        )
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value, (tmp_path / "page.html").read_text()

    return make


def test_evidence_and_attention_of_a_gnn_are_on_its_page(explained):
    found, page = explained(methods=["saliency"])
    assert [title for title, _ in found.inside.steps] == [f"round {n}, component 1" for n in (1, 2)]
    for title, values in found.inside.steps:
        assert values.sum() == pytest.approx(1, abs=1e-5)
        assert f"<figcaption>{title}</figcaption>" in page
    (sent_title, sent), (read_title, read) = found.inside.attention
    assert read.sum() == pytest.approx(1, abs=1e-5)
    assert sent.shape == read.shape == (16,)
    for title in (sent_title, read_title):
        assert f"<figcaption>{title}</figcaption>" in page
    for heading in ("Evidence, step by step", "Attention"):
        assert f"{heading}</h2>" in page


@pytest.mark.slow
def test_spans_split_occlusion_over_time(explained):
    """Two windows hold the sample. A sensor adds the same in all samples of a span."""
    whole, page = explained(methods=["occlusion"])
    n_samples = whole.data.shape[1]
    assert WINDOW < n_samples <= N_TIMES
    assert whole.attributions["occlusion"].values is None
    assert "Occlusion, by sample" not in page
    found, page = explained(methods=["occlusion"], spans=3)
    by_sensor, values, unit, _ = found.attributions["occlusion"]
    np.testing.assert_allclose(by_sensor, whole.attributions["occlusion"].by_sensor)
    parts = np.array_split(values, 3, axis=1)
    assert [(part == part[:, :1]).all() for part in parts] == [True] * 3
    assert unit == "%"
    spans = np.stack([part[:, 0] for part in parts])
    assert (np.ptp(spans, axis=0) > 1e-3).any()
    most = int(np.abs(spans).max(axis=1).argmax())
    assert found.sample in np.array_split(np.arange(n_samples), 3)[most]
    assert "<figcaption>Occlusion, by sample</figcaption>" in page
    assert re.search(rf"input of the model: {n_samples} samples, ", page)


def test_more_spans_than_samples_are_as_many(explained):
    values = explained(methods=["occlusion"], spans=100)[0].attributions["occlusion"].values
    assert (np.ptp(values, axis=1) > 0).any()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_run_of_a_gnn_is_explained_by_the_command(toy, folder, installed, tmp_path):
    """Slow: its export takes most of the time."""
    identity = {
        "model": {"_target_": "deepesi.models.gnn.SensorGNN", **SIZES},
        "space": toy.space.name,
        "space_fingerprint": toy.space.fingerprint,
        "trained": {
            "n_channels": [16, 16],
            "n_times": [WINDOW, WINDOW],
            "sfreq": 250.0,
            "snr_db": [-20.0, 40.0],
            "band_hz": None,
        },
    }
    save_network(gnn(), identity, tmp_path / "run" / "model")
    (tmp_path / "run" / "export").mkdir()
    path = tmp_path / "run" / "export" / "model.onnx"
    export_onnx(gnn(), toy.montage_head("biosemi16"), path, identity)
    words = ["explain", str(tmp_path / "run"), str(folder / "x-ave.fif"), "--at", "0.02"]
    words += ["--noise-cov", str(folder / "x-cov.fif"), "--head", installed, "--spans", "2"]
    main([*words, "--out", str(tmp_path / "page.html")])
    page = (tmp_path / "page.html").read_text()
    for heading in ("Evidence, step by step", "Attention"):
        assert f"{heading}</h2>" in page
    for method in ("Saliency", "Integrated gradients", "DeepLIFT-like", "Occlusion"):
        assert f"<figcaption>{method}" in page
    assert "<figcaption>Occlusion, by sample</figcaption>" in page
    assert "no gradients" not in page
