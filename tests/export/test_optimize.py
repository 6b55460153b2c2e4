"""Graphs made faster compute what they did."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from deepesi.export.optimize import optimize

RNG = np.random.default_rng(0)


def model(nodes, inputs, constants):
    """A graph of typed inputs and constants whose result is ``y``."""
    infos = [
        helper.make_tensor_value_info(k, onnx.TensorProto.FLOAT, v.shape) for k, v in inputs.items()
    ]
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    values = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", infos, [result], values)
    opset = [helper.make_opsetid("", 18)]
    proto = helper.make_model(graph, opset_imports=opset, ir_version=10)
    return onnx.shape_inference.infer_shapes(proto)


CASES = {
    "sum of squares": (
        [
            helper.make_node("Pow", ["x", "two"], ["s"]),
            helper.make_node("ReduceSum", ["s", "axes"], ["y"], keepdims=0),
        ],
        {"two": np.float32(2), "axes": np.array([1, 2])},
        {"ReduceSumSquare"},
    ),
    "sum of squares, axes kept": (
        [
            helper.make_node("Pow", ["x", "two"], ["s"]),
            helper.make_node("ReduceSum", ["s", "axes"], ["y"]),
        ],
        {"two": np.float32(2), "axes": np.array([1])},
        {"ReduceSumSquare"},
    ),
    "square that is needed twice": (
        [
            helper.make_node("Pow", ["x", "two"], ["s"]),
            helper.make_node("ReduceSum", ["s", "axes"], ["t"]),
            helper.make_node("Add", ["s", "t"], ["y"]),
        ],
        {"two": np.float32(2), "axes": np.array([1])},
        {"Mul", "Add"},
    ),
    "sum over a single value": (
        [
            helper.make_node("Slice", ["x", "zero", "one", "one"], ["s"]),
            helper.make_node("ReduceSum", ["s", "axes"], ["y"], keepdims=0),
        ],
        {"zero": np.array([0]), "one": np.array([1]), "axes": np.array([1])},
        {"Slice", "Squeeze"},
    ),
    "mean over a single value": (
        [
            helper.make_node("Slice", ["x", "zero", "one", "one"], ["s"]),
            helper.make_node("ReduceMean", ["s", "axes"], ["y"], keepdims=0),
        ],
        {"zero": np.array([0]), "one": np.array([1]), "axes": np.array([1])},
        {"Slice", "Squeeze"},
    ),
    "sum over more": (
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        {"axes": np.array([0, 1])},
        {"ReduceSum"},
    ),
    "cube": (
        [helper.make_node("Pow", ["x", "three"], ["y"])],
        {"three": np.float32(3)},
        {"Pow"},
    ),
    "scalar": (
        [helper.make_node("Div", ["c", "x"], ["y"])],
        {"c": np.float32(3)},
        {"Unsqueeze", "Div"},
    ),
    "row": (
        [helper.make_node("Sub", ["x", "c"], ["y"])],
        {"c": RNG.normal(size=4).astype(np.float32)},
        {"Unsqueeze", "Sub"},
    ),
    "equal ranks": (
        [helper.make_node("Add", ["x", "c"], ["y"])],
        {"c": RNG.normal(size=(2, 1, 4)).astype(np.float32)},
        {"Add"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_same_results_by_other_operations(name):
    nodes, constants, expected = CASES[name]
    x = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    before = model(nodes, {"x": x}, constants)
    graph = ir.from_proto(before)
    optimize(graph)
    after = ir.to_proto(graph)
    onnx.checker.check_model(after, full_check=True)
    assert expected <= {node.op_type for node in after.graph.node}
    assert name == "cube" or "Pow" not in {node.op_type for node in after.graph.node}
    results = [
        ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
        for proto in (before, after)
    ]
    # Values and sums of order one: their last digits depend on the order, and so on the processor.
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-5)
