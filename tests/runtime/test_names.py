"""Saved models by name: short, and no two alike."""

from pathlib import Path

import pytest

from deepesi.core.onnx_model import OnnxModel
from deepesi.evaluation.naming import n_weights, names_of
from deepesi.export.to_onnx import export_onnx
from deepesi.models.convdip import ConvDip
from deepesi.runtime.names import file_title, network_title, short_count, short_names
from deepesi.runtime.packaged import model_path
from deepesi.runtime.protobuf import n_values
from deepesi.uncertainty.ensemble import DeepEnsemble
from deepesi.uncertainty.mc_dropout import MCDropout


def named(*paths, title="Net 2 k"):
    return short_names([title] * len(paths), [Path(path) for path in paths], "evaluate")


@pytest.mark.parametrize(
    "path",
    [
        "T",
        "T/checkpoints/best.ckpt",
        "T/checkpoints/last.ckpt",
        "T/model",
        "T/export/model.onnx",
        "T/fitted/0",
    ],
)
def test_run_is_named_by_its_folder(path):
    assert named(f"/a/very/long/way/outputs/net/{path}") == ["Net 2 k (run T)"]


def test_more_of_a_path_is_taken_where_names_would_be_alike():
    assert named("a/net/T", "a/gnn/T", "a/net/U") == [
        "Net 2 k (run net/T)",
        "Net 2 k (run gnn/T)",
        "Net 2 k (run U)",
    ]
    two = named("a/T/checkpoints/best.ckpt", "a/T/checkpoints/last.ckpt", "a/T")
    assert len(set(two)) == 3
    assert two[1] == "Net 2 k (run T/checkpoints/last.ckpt)"
    assert short_names(["A", "B"], [Path("x/T"), Path("y/T")], "e") == ["A (run T)", "B (run T)"]


def test_files_sweeps_and_packaged_models():
    assert named("b.onnx") == ["Net 2 k (b.onnx)"]
    assert named("outputs/net/T/0", "outputs/net/T/1") == [
        "Net 2 k (run T/0)",
        "Net 2 k (run T/1)",
    ]
    assert named("default", "convdip") == [
        "Net 2 k (packaged default)",
        "Net 2 k (packaged convdip)",
    ]


def test_model_given_twice():
    with pytest.raises(ValueError, match="evaluate: the model .*b.onnx is given twice. Name"):
        named("b.onnx", "./b.onnx")


def test_number_of_weights_in_two_digits():
    counts = (0, 532, 1741, 9960, 20451, 999_600, 2_303_900, 12_000_000)
    assert [*map(short_count, counts)] == [
        "",
        "532",
        "1.7 k",
        "10 k",
        "20 k",
        "1.0 M",
        "2.3 M",
        "12 M",
    ]


def test_titles_of_networks():
    net = {"_target_": "deepesi.models.convdip.ConvDip"}
    joined = {"_target_": "deepesi.uncertainty.ensemble.DeepEnsemble", "members": [net] * 3}
    tempered = {"_target_": "deepesi.uncertainty.tempered.Tempered", "model": joined}
    thinned = {"_target_": "deepesi.uncertainty.mc_dropout.MCDropout", "model": net}
    assert network_title(tempered) == "3 x ConvDip"
    assert network_title(thinned) == "MCDropout of ConvDip"
    both = {"_target_": "deepesi.models.by_cortex.ByCortex", "template": net, "own": joined}
    assert network_title(both) == "ConvDip / 3 x ConvDip"
    classical = {"_target_": "deepesi.baselines.minimum_norm.MinimumNorm", "method": "eLORETA"}
    assert file_title(classical, 12) == "eLORETA"


@pytest.mark.slow
def test_models_are_named_alike_from_a_run_and_from_its_file(tmp_path, toy, eloreta):
    network = ConvDip(84, height=6, width=6, hidden=16, dropout=0.1).eval()
    export_onnx(network, toy.montage_head("biosemi16"), tmp_path / "n.onnx")
    files = [OnnxModel(tmp_path / "n.onnx"), OnnxModel(eloreta)]
    size = short_count(n_weights(network))
    models = [network, *files, DeepEnsemble([network, network]), MCDropout(network, 2)]
    paths = [Path(p) for p in ("T", "n.onnx", "e.onnx", "U", "V")]
    assert names_of(models, paths, "evaluate")[:3] == [
        f"ConvDip {size} (run T)",
        f"ConvDip {size} (n.onnx)",
        "eLORETA (e.onnx)",
    ]
    assert names_of(models, paths, "evaluate")[3].startswith("2 x ConvDip")
    assert names_of(models, paths, "evaluate")[4].startswith("MCDropout of ConvDip")


def test_numbers_that_a_file_keeps_are_its_weights_and_few_more():
    for name, weights in (("ensemble", 3 * 20_451), ("default", 42_749), ("convdip", 2_303_900)):
        kept = n_values(model_path(name).read_bytes())
        assert weights <= kept <= 1.005 * weights
