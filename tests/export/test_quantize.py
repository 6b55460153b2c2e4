"""Weights in fewer bits: smaller files that say nearly the same, and what files must not hold."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from deepesi.cli.main import main
from deepesi.export.quantize import PRECISIONS, quantize
from deepesi.export.to_onnx import export_onnx
from deepesi.models.convdip import ConvDip
from deepesi.physics.head_inputs import prepare
from deepesi.runtime.packaged import PACKAGED, model_path
from deepesi.runtime.session import as_feeds, open_model
from deepesi.training.weights import save_network


@pytest.fixture(scope="module")
def convdips(template, tmp_path_factory):
    """The same network in every precision."""
    folder = tmp_path_factory.mktemp("precisions")
    head = template.montage_head("biosemi32")
    torch.manual_seed(0)
    model = ConvDip(1284, hidden=128)
    torch.nn.init.normal_(model.last.weight, std=0.1)
    paths = {precision: folder / f"{precision}.onnx" for precision in PRECISIONS}
    for precision, path in paths.items():
        export_onnx(model, head, path, precision=precision)
    return paths


def estimates(path, head, level=1.0) -> np.ndarray:
    """Estimates of recordings whose noise and sources are multiplied by `level`."""
    opened = open_model(path, 1)
    rng = np.random.default_rng(1)
    head = replace(head, noise_cov=level**2 * head.noise_cov)
    clean = level * 2e-8 * head.leadfield[:, rng.integers(1284, size=16)].T
    noise = rng.multivariate_normal(np.zeros(head.n_channels), head.noise_cov, 16)
    data = (clean + noise)[:, :, None].astype(np.float32)
    return opened.run(data, as_feeds(dict(prepare(opened.contract.head_inputs, head))))["mean"]


@pytest.mark.parametrize(
    ("precision", "share", "deviation"),
    # Largest size over that in single precision, largest deviation in norm.
    [("float16", 0.55, 2e-3), ("int8", 0.35, 0.02)],
)
def test_smaller_files_say_nearly_the_same(convdips, template, precision, share, deviation):
    full, small = convdips["float32"], convdips[precision]
    assert small.stat().st_size < share * full.stat().st_size
    head = template.montage_head("easycap-M10")  # not the one it was traced with
    for level in (1.0, 0.1):  # an average of a hundred trials
        expected, found = estimates(full, head, level), estimates(small, head, level)
        off = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert 0 < off < deviation


@pytest.mark.parametrize("precision", PRECISIONS)
def test_contract_says_in_how_many_bits(convdips, precision):
    assert open_model(convdips[precision]).contract.precision == precision


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_example_does_not_depend_on_others(convdips, template, precision):
    head = template.montage_head("biosemi32")
    opened = open_model(convdips[precision], 1)
    feeds = as_feeds(dict(prepare(opened.contract.head_inputs, head)))
    data = 1e-6 * np.random.default_rng(2).normal(size=(4, 32, 1)).astype(np.float32)
    data[1] *= 50
    together, alone = opened.run(data, feeds)["mean"], opened.run(data[:1], feeds)["mean"]
    assert np.abs(together[:1] - alone).max() < 1e-5 * np.abs(alone).max()


def test_nor_does_a_sample_of_a_network_that_takes_one_at_a_time(template):
    head = template.montage_head("biosemi32")
    opened = open_model(model_path("convdip"), 1)
    feeds = as_feeds(dict(prepare(opened.contract.head_inputs, head)))
    data = 1e-6 * np.random.default_rng(2).normal(size=(2, 32, 3)).astype(np.float32)
    data[:, :, 1] *= 50
    together, alone = opened.run(data, feeds)["mean"], opened.run(data[1:, :, 2:], feeds)["mean"]
    assert together.shape == (2, 1284, 3)
    assert np.abs(together[1:, :, 2:] - alone).max() < 1e-5 * np.abs(alone).max()


def test_unknown_precision(convdips):
    with pytest.raises(ValueError, match="unknown precision 'int4', expected one of"):
        quantize(onnx.load(convdips["float32"]), "int4")


@pytest.mark.slow
def test_precision_on_the_command_line(toy_path, toy, tmp_path):
    model = ConvDip(84, hidden=64)
    config = {"_target_": "deepesi.models.convdip.ConvDip", "n_dipoles": 84, "hidden": 64}
    identity = {
        "model": config,
        "space": toy.space.name,
        "space_fingerprint": toy.space.fingerprint,
    }
    save_network(model, identity, tmp_path / "model")
    common = ["export", str(tmp_path), "--head", str(toy_path), "--montage", "biosemi16"]
    main([*common, "--out", str(tmp_path / "full.onnx")])
    main([*common, "--out", str(tmp_path / "int8.onnx"), "--precision", "int8"])
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("full", "int8")]
    assert sizes[1] < 0.5 * sizes[0]
    assert open_model(tmp_path / "int8.onnx").contract.precision == "int8"
    with pytest.raises(SystemExit):
        main([*common, "--out", str(tmp_path / "x.onnx"), "--precision", "int4"])


def test_files_do_not_tell_where_they_were_written(convdips):
    """Neither in what the exporter notes of every operation, nor in the packaged model."""
    for path in (*convdips.values(), *map(model_path, PACKAGED)):
        content = path.read_bytes()
        for trace in (b"stack_trace", b'File "', b"/deepesi/"):
            assert trace not in content, (path.name, trace)
