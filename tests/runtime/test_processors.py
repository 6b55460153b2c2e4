"""The same map on every processor: nothing is computed in 8 bits, and each file brings a check.

Processors without VNNI add products of 8-bit numbers in pairs, in 16 bits that saturate
(``VPMADDUBSW``). Here that is computed by hand, so that no machine hides it.
"""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from deepesi.export.quantize import quantize
from deepesi.export.to_onnx import example_of, write_contract
from deepesi.physics.head_inputs import SourcePositions, prepare
from deepesi.physics.template import load_oriented
from deepesi.runtime.packaged import PACKAGED, model_path
from deepesi.runtime.self_test import StoredArray, small_heads
from deepesi.runtime.session import as_feeds, open_model

REFERENCE = Path(__file__).parents[1] / "reference" / "packaged.npz"
#: Kinds of 8-bit numbers.
EIGHT_BITS = {TensorProto.INT8, TensorProto.UINT8}


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_files_give_the_frozen_output(name, template, request):
    """To 1 % of the largest value on any processor; ``--freeze`` writes it anew."""
    known = dict(np.load(REFERENCE)) if REFERENCE.exists() else {}
    opened = open_model(model_path(name), 1)
    head = load_oriented(template.name, opened.contract.n_orient).montage_head("biosemi32")
    if request.config.getoption("--freeze"):
        rng = np.random.default_rng(0)
        clean = 3e-8 * template.montage_head("biosemi32").leadfield[:, rng.integers(1284, size=4)].T
        noise = head.noise_level * rng.normal(size=clean.shape)
        known["data"] = known.get("data", (clean + noise)[:, :, None].astype(np.float32))
    feeds = as_feeds(dict(prepare(opened.contract.head_inputs, head)))
    found = opened.run(known["data"], feeds)
    if request.config.getoption("--freeze"):
        np.savez_compressed(
            REFERENCE, **known | {f"{name}{i}": values for i, values in enumerate(found.values())}
        )
        pytest.skip("reference written anew")
    assert tuple(found) == opened.contract.kinds
    for number, values in enumerate(found.values()):
        expected = known[f"{name}{number}"]
        assert np.abs(values - expected).max() <= 0.01 * np.abs(expected).max()


def pairs_that_saturate(unsigned, signed):
    """Sums over the first axis of `signed`: of each pair of products in 16 bits, then in 32."""
    products = unsigned[:, :, None].astype(np.int64) * signed.astype(np.int64)
    pairs = products[:, 0::2] + products[:, 1::2]
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(1)


def test_products_of_the_packaged_8_bit_weights_would_saturate(template):
    """By several percent; so it is not enough that a file looks right on the machine at hand."""
    model = onnx.load(model_path("convdip"))
    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    products = [n for n in model.graph.node if n.op_type == "Gemm"]
    read = [n.input[0] for n in products]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in read)
    opened, head = open_model(model_path("convdip"), 1), template.montage_head("biosemi32")
    feeds = as_feeds(dict(prepare(opened.contract.head_inputs, head)))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    data = np.load(REFERENCE)["data"]
    activations = session.run(read, {"data": data, **feeds})
    worst = 0.0
    for node, values in zip(products, activations, strict=True):
        # As ONNX's DynamicQuantizeLinear does it.
        low, high = min(values.min(), 0), max(values.max(), 0)
        scale = (high - low) / 255
        zero = np.rint(-low / scale)
        unsigned = np.clip(np.rint(values / scale) + zero, 0, 255).astype(np.uint8)
        signed = weights[f"{node.input[1]}_8"].T
        shift = zero * signed.sum(0, dtype=np.int64)
        exact = unsigned.astype(np.int64) @ signed.astype(np.int64) - shift
        off = pairs_that_saturate(unsigned, signed) - shift - exact
        worst = max(worst, np.abs(off).max() / np.abs(exact).max())
        # With 7 bits they could not: 2 * 255 * 64 < 2**15.
        assert np.array_equal(
            pairs_that_saturate(unsigned, signed // 2), unsigned.astype(np.int64) @ (signed // 2)
        )
    assert worst > 0.02


def of_8_bits(model):
    """Operations with inputs or outputs of 8 bits."""
    named = {w.name: w.data_type for w in model.graph.initializer}
    named |= {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    taking = {n.op_type for n in model.graph.node if EIGHT_BITS & {named.get(i) for i in n.input}}
    giving = {n.op_type for n in model.graph.node if EIGHT_BITS & {named.get(o) for o in n.output}}
    return taking, giving


@pytest.mark.parametrize("name", PACKAGED)
def test_nothing_is_computed_in_8_bits(name, tmp_path):
    """Neither in the file nor in what ONNX Runtime makes of it."""
    model = onnx.shape_inference.infer_shapes(onnx.load(model_path(name)))
    taking, giving = of_8_bits(model)
    assert taking == ({"Cast"} if name == "convdip" else set())
    assert giving == set()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.enable_mem_reuse = False
    options.optimized_model_filepath = str(tmp_path / "fast.onnx")
    ort.InferenceSession(model_path(name), options, providers=["CPUExecutionProvider"])
    fast = onnx.load(tmp_path / "fast.onnx")
    kinds = {w.data_type for w in fast.graph.initializer}
    assert not EIGHT_BITS & kinds
    assert not [n.op_type for n in fast.graph.node if "Quant" in n.op_type or "Int" in n.op_type]


def graph_of(operation, *weights, shape=(3, 20)):
    """One operation on ``x``."""
    node = helper.make_node(operation, ["x", "w"], ["y"], **dict(weights[1:]))
    tensors = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", []))
    ]
    w = numpy_helper.from_array(weights[0], "w")
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:], [w])
    graph.output[0].type.tensor_type.ClearField("shape")
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("operation", "attributes", "shape", "one_scale_for"),
    [
        ("MatMul", (), (20, 30), (1,)),
        ("MatMul", (), (2, 20, 30), (0, 2)),
        ("Gemm", (("transB", 0),), (20, 30), (1,)),
        ("Gemm", (("transB", 1),), (30, 20), (0,)),
        ("Conv", (), (16, 20, 1, 1), (0,)),
    ],
)
def test_each_output_of_a_product_has_its_scale(operation, attributes, shape, one_scale_for):
    """Outputs of very different sizes are each kept to half a step of their own."""
    rng = np.random.default_rng(0)
    size = [n if axis in one_scale_for else 1 for axis, n in enumerate(shape)]
    weights = rng.normal(size=shape) * 10.0 ** rng.uniform(-6, 6, size)
    weights = weights.astype(np.float32)
    x = (1, 20, 2, 2) if operation == "Conv" else (3, 20)
    model = graph_of(operation, weights, *attributes, shape=x)
    smaller = quantize(model, "int8")
    data = rng.normal(size=x).astype(np.float32)
    full, small = (
        ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
        for m in (model, smaller)
    )
    expected, found = (s.run(None, {"x": data})[0] for s in (full, small))
    axes = {"Conv": (0, 2, 3), "Gemm": (0,), "MatMul": (-2,)}[operation]
    off, size = (np.square(v).sum(axes) for v in (found - expected, expected))
    assert 0 < np.sqrt(off / size).max() < 0.05


@pytest.mark.parametrize("name", PACKAGED)
def test_the_example_takes_milliseconds(name):
    opened = open_model(model_path(name), 1)
    start = time.process_time()
    assert opened.contract.self_test.max_difference(opened.session) < 1e-3
    assert time.process_time() - start < 0.3


def with_other_weights(factor, path):
    """The packaged ConvDip, its output `factor` times what it was, its example as it was."""
    model = onnx.load(model_path("convdip"))
    for tensor in model.graph.initializer:
        if tensor.name in ("model.last.weight_scale", "model.last.bias"):
            values = np.float32(factor) * numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    write_contract(model, open_model(model_path("convdip")).contract)
    onnx.save(model, path)
    return path


def test_a_machine_that_computes_otherwise_is_refused(tmp_path):
    open_model(with_other_weights(1.005, tmp_path / "m.onnx"))
    for factor, said in ((1.02, r"2 %"), (0.85, r"15 %"), (np.nan, "nan %")):
        with pytest.raises(
            ValueError,
            match=rf"m.onnx: this machine computes it wrongly. .* differs by {said} .*more than 1 "
            r"%. Install another version of onnxruntime \(this is .*CPUExecutionProvider",
        ):
            open_model(with_other_weights(factor, tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "no base64!"}, "an array is not in base64"),
        ({"data": "AAAA"}, "cannot be computed"),
        ({"shape": (1, 4, 4)}, "cannot be computed"),
        ({"dtype": "int64", "shape": (1, 8, 1)}, "cannot be computed"),
    ],
)
def test_an_example_that_cannot_be_computed(change, message, tmp_path):
    model, contract = onnx.load(model_path("convdip")), open_model(model_path("convdip")).contract
    stored = {**contract.self_test.inputs}
    stored["data"] = replace(stored["data"], **change)
    other = replace(contract, self_test=replace(contract.self_test, inputs=stored))
    write_contract(model, other)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=rf"m.onnx: the example in its contract .*{message}"):
        open_model(tmp_path / "m.onnx")


def test_an_example_without_outputs(tmp_path):
    model, contract = onnx.load(model_path("convdip")), open_model(model_path("convdip")).contract
    content = json.loads(contract.to_json())
    assert content["self_test"].keys() == {"inputs", "outputs"}
    outputs = {"other": contract.self_test.outputs["dipole_mean"]}
    write_contract(model, replace(contract, self_test=replace(contract.self_test, outputs=outputs)))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"cannot be computed \(outputs of shapes"):
        open_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<i8"])
def test_arrays_are_kept_as_they_are(kind):
    values = np.arange(6).reshape(2, 3).astype(kind)
    assert np.array_equal(StoredArray.of(values).values(), values)
    assert StoredArray.of(values) == StoredArray.of(values.astype(kind[1:]))


def test_small_heads(template):
    head = template.montage_head("biosemi64")
    small, *larger = small_heads(head, bound_to_space=False)
    assert (small.n_channels, small.space.n_sources) == (8, 32)
    assert [h.space.n_sources for h in larger] == [128, 512, 1284]
    assert [len(part) for part in small.space.vertices] == [32, 0]
    assert small.space.edges.max() == 31
    far = np.linalg.norm(head.source_pos - head.source_pos[0], axis=1)
    assert np.linalg.norm(small.source_pos - small.source_pos[0], axis=1).max() < np.sort(far)[32]
    assert [h.space.n_sources for h in small_heads(head, bound_to_space=True)] == [1284]


def test_a_network_may_ask_for_more_sources_than_the_smallest_head_has(template):
    """300 of the coordinates of all sources: the smallest has 96, the next 384."""
    positions = SourcePositions()
    nodes = [
        helper.make_node("Flatten", [positions.key], ["flat"], axis=0),
        helper.make_node("TopK", ["flat", "k"], ["dipole_mean", "at"], axis=1),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("data", ["b", "c", "t"]), (positions.key, ["s", 3]))
    ]
    output = helper.make_tensor_value_info("dipole_mean", TensorProto.FLOAT, None)
    for k, n_sources in ((300, 128), (5000, None)):
        constant = numpy_helper.from_array(np.array([k]), "k")
        graph = helper.make_graph(nodes, "g", inputs, [output], [constant])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        head = template.montage_head("biosemi32")
        if n_sources is None:
            with pytest.raises(ValueError, match="cannot compute the graph .*TopK"):
                example_of(model, [positions], False, head)
        else:
            found = example_of(model, [positions], False, head)
            assert found.inputs[positions.key].shape == (n_sources, 3)
