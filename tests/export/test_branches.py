"""A file of two graphs: which one computes a window, and what is stored."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from deepesi.export.branches import by_cortex, by_length
from deepesi.export.to_onnx import check_parity, export_onnx
from deepesi.models.transformer import SourceTransformer

WEIGHT = np.float32(3)


def graph(operation, constant, *inputs):
    """``operation(data, w) + constant`` with the same weight ``w`` and names in every graph."""
    shape = [1, "channels", "samples"]
    more = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in inputs]
    proto = helper.make_graph(
        [
            helper.make_node(operation, ["data", "w"], ["between"], name="first"),
            helper.make_node("Add", ["between", "c"], ["sources"], name="second"),
        ],
        "graph",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, shape), *more],
        [helper.make_tensor_value_info("sources", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(np.float32(constant), "c")],
    )
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(proto, n_times, **inputs):
    """The one value of the output for data of 2 everywhere, on four channels."""
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    data = np.full((1, 4, n_times), 2, np.float32)
    (found,) = session.run(["sources"], {"data": data, **inputs})
    assert found.shape == data.shape
    (value,) = np.unique(found)
    return value


@pytest.fixture(scope="module")
def proto():
    return by_length(graph("Add", 0.5), graph("Mul", 0.25))


@pytest.mark.parametrize(
    ("n_times", "expected"),
    [(1, 2 + WEIGHT + 0.5), (3, 2 + WEIGHT + 0.5), (4, 2 * WEIGHT + 0.25), (9, 2 * WEIGHT + 0.25)],
)
def test_windows_of_fewer_samples_than_channels_have_their_own_graph(proto, n_times, expected):
    assert run(proto, n_times) == expected


def test_equal_weights_are_stored_once(proto):
    stored = [numpy_helper.to_array(weights) for weights in proto.graph.initializer]
    assert sorted(float(value) for value in stored if value.dtype == np.float32) == [0.25, 0.5, 3]
    branches = [a.g for a in proto.graph.node[-1].attribute]
    assert not any(branch.initializer for branch in branches)


@pytest.mark.parametrize(("number", "expected"), [(0, 2 * WEIGHT + 0.25), (1, 2 + WEIGHT + 0.5)])
def test_the_cortex_of_the_head_chooses(number, expected):
    proto = by_cortex(graph("Add", 0.5, "is_own"), graph("Mul", 0.25, "is_own"), "is_own")
    assert run(proto, 3, is_own=np.full(1, number, np.float32)) == expected


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(("n_times", "added"), [(3, 1), (4, 2)])
def test_branches_may_have_branches(number, n_times, added):
    parts = [
        by_length(graph("Add", 1 + 10 * own, "is_own"), graph("Add", 2 + 10 * own, "is_own"))
        for own in (1, 0)
    ]
    proto = by_cortex(*parts, "is_own")
    found = run(proto, n_times, is_own=np.full(1, number, np.float32))
    assert found == 2 + WEIGHT + added + 10 * number


@pytest.mark.slow
def test_both_graphs_of_a_transformer_are_the_network(toy, simulate, tmp_path):
    torch.manual_seed(0)
    model = SourceTransformer(2, n_rounds=1, n_blocks=1, n_radii=1, smallest=0.03, largest=0.03)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    export_onnx(model, toy.montage_head("biosemi16"), tmp_path / "model.onnx")
    assert not model.traces_short
    for n_times in (1, 15, 16, 40):
        batch = simulate([], n_times=n_times, batch_size=3).batch(0)
        parity = check_parity(model, tmp_path / "model.onnx", batch, n_timed=1)
        assert parity.max_difference <= 1e-5
