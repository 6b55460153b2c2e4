"""Members side by side in one graph say what each says alone."""

from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import helper, numpy_helper
from onnx_ir.passes import common

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.core.traced_members import ALL_OF, DOMAIN, ONE_OF, alike
from deepesi.export.members import RULES, stack_members
from deepesi.export.to_onnx import OPSET, check_parity, export_onnx
from deepesi.models.convdip import ConvDip
from deepesi.models.gnn import SensorGNN
from deepesi.models.matched_filter import UnrolledMatchedFilter
from deepesi.models.piunet import PhysicsInformedUNet
from deepesi.models.unrolled_ista import UnrolledISTA
from deepesi.physics.head_inputs import prepare
from deepesi.runtime.session import as_feeds, open_model
from deepesi.uncertainty.ensemble import DeepEnsemble, StackedEnsemble
from deepesi.uncertainty.mc_dropout import MCDropout
from tests.contract.test_contract import network
from tests.counting import Counting

RNG = np.random.default_rng(0)
N_MEMBERS = 3


@dataclass
class Shared:
    """An input of all members."""

    values: np.ndarray


@dataclass
class Own:
    """An input of which every member has its own."""

    values: np.ndarray


def shared(*shape):
    return Shared(np.asarray(RNG.normal(size=shape), np.float32))


def own(*shape):
    return Own(RNG.normal(size=(N_MEMBERS, *shape)).astype(np.float32))


def choices(*shape, of, kind=Own):
    return kind(RNG.integers(of, size=(N_MEMBERS, *shape) if kind is Own else shape))


#: Operation, inputs (numbers are integers that are known), attributes.
CASES = [
    ("Add", [shared(5, 4, 3), own(3)], {}),
    ("Sub", [own(4, 1), shared(5, 4, 3)], {}),
    ("Mul", [own(5, 4, 3), own(3)], {}),
    ("Max", [own(3), shared(4, 3), own(5, 1, 1)], {}),
    ("Clip", [own(4, 3), shared(), Shared(np.array(3, np.float32))], {}),
    ("Where", [Shared(RNG.normal(size=(4, 3)) > 0), own(5, 4, 3), own(3)], {}),
    ("Cast", [own(4, 3)], {"to": onnx.TensorProto.INT64}),
    ("Clip", [own(4, 3), shared(), Own(np.array([1, 2, 3], np.float32))], {}),
    ("CastLike", [own(3), own(5, 4, 3)], {}),
    ("CastLike", [shared(3), own(5, 4, 3)], {}),
    ("Shape", [own(5, 4, 3)], {}),
    ("Shape", [own(5, 4, 3)], {"start": 1}),
    ("Shape", [own(5, 4, 3)], {"start": -3, "end": 2}),
    ("Shape", [own(5, 4, 3)], {"start": -10, "end": 2}),
    ("Squeeze", [own(1, 4, 1), [0]], {}),
    ("Squeeze", [own(1, 4, 1), [-1]], {}),
    ("Squeeze", [own(1, 4, 1)], {}),
    ("Unsqueeze", [own(4, 3), [0, 2]], {}),
    ("Unsqueeze", [own(4, 3), [-1]], {}),
    ("ReduceSum", [own(5, 4, 3), [1, 2]], {}),
    ("ReduceSum", [own(5, 4, 3), [-1]], {"keepdims": 0}),
    ("ReduceSum", [own(5, 4, 3)], {}),
    ("ReduceSum", [own()], {}),
    ("ReduceSum", [own(4, 3)], {"noop_with_empty_axes": 1}),
    ("ReduceMax", [own(5, 4, 3), [0]], {"keepdims": 0}),
    ("Softmax", [own(5, 4, 3)], {}),
    ("Softmax", [own(5, 4, 3)], {"axis": 0}),
    ("TopK", [own(5, 4, 3), [2]], {"axis": 1}),
    ("TopK", [own(5, 4, 3), [2]], {}),
    ("Concat", [shared(5, 4, 3), own(5, 2, 3)], {"axis": 1}),
    ("Concat", [own(5, 4, 3), own(5, 4, 1)], {"axis": -1}),
    ("GatherElements", [shared(5, 4), choices(2, 4, of=5)], {"axis": 0}),
    ("GatherElements", [own(5, 4), choices(5, 2, of=4, kind=Shared)], {"axis": -1}),
    (
        "ScatterElements",
        [shared(5, 4), choices(5, 2, of=4), own(5, 2)],
        {"axis": 1, "reduction": "add"},
    ),
    ("Einsum", [shared(5, 4, 3), own(3, 2)], {"equation": "abc,cd->abd"}),
    ("Einsum", [own(4, 3), own(3, 2)], {"equation": "bc, cd -> db"}),
    ("Einsum", [own(4, 3), shared(4, 2)], {"equation": "Ab,AB->bB"}),
    ("Einsum", [own(4, 3), shared(3, 2)], {"equation": "ab,bc"}),
    ("Expand", [own(3), [5, 4, 3]], {}),
    ("Expand", [own(4, 3), [2, 1, 1, 1]], {}),
    ("Expand", [own(4, 1), [3]], {}),
    ("Gather", [own(5, 4, 3), choices(2, of=4, kind=Shared)], {"axis": 1}),
    ("Gather", [own(5, 4, 3), choices(2, 2, of=3, kind=Shared)], {"axis": -1}),
    ("Gather", [shared(5, 4, 3), choices(2, 2, of=5)], {}),
    ("Gather", [shared(5, 4, 3), choices(2, of=4)], {"axis": 1}),
    ("Gather", [own(5, 4, 3), choices(2, of=5)], {}),
    ("GatherND", [own(5, 4, 3), choices(6, 2, of=4, kind=Shared)], {}),
    ("GatherND", [shared(5, 4, 3), choices(6, 2, of=4)], {}),
    ("GatherND", [own(5, 4, 3), choices(5, 2, 1, of=4)], {"batch_dims": 1}),
    ("GatherND", [shared(5, 4, 3), choices(5, 1, of=4)], {"batch_dims": 1}),
    (
        "ScatterND",
        [own(5, 4, 3), choices(6, 1, of=5, kind=Shared), own(6, 4, 3)],
        {"reduction": "add"},
    ),
    (
        "ScatterND",
        [shared(5, 4, 3), choices(6, 2, of=4, kind=Shared), own(6, 3)],
        {"reduction": "add"},
    ),
    (
        "ScatterND",
        [own(5, 4, 3), choices(6, 1, of=5, kind=Shared), shared(6, 4, 3)],
        {"reduction": "add"},
    ),
    ("ScatterND", [own(5, 4, 3), choices(6, 1, of=5), own(6, 4, 3)], {"reduction": "add"}),
    ("MatMul", [shared(4, 3), own(3, 2)], {}),
    ("MatMul", [shared(2, 5, 4, 3), own(3, 2)], {}),
    ("MatMul", [own(4, 3), own(3, 2)], {}),
    ("MatMul", [own(2, 5, 4, 3), own(3, 2)], {}),
    ("MatMul", [own(5, 4, 3), shared(3, 2)], {}),
    ("MatMul", [own(4, 3), own(5, 3, 2)], {}),
    ("MatMul", [shared(4, 3), own(5, 3, 2)], {}),
    ("MatMul", [own(4, 3), own(3)], {}),
    ("Reshape", [own(5, 4, 3), [10, -1]], {}),
    ("Reshape", [own(5, 4, 3), [0, 12]], {}),
    ("Slice", [own(5, 4, 3), [1], [4], [0]], {}),
    ("Slice", [own(5, 4, 3), [0, 1], [4, 3]], {}),
    ("Slice", [own(5, 4, 3), [0], [3], [-1], [2]], {}),
    ("Transpose", [own(5, 4, 3)], {"perm": [2, 0, 1]}),
    ("Transpose", [own(5, 4, 3)], {}),
    # Without rules.
    ("LayerNormalization", [own(5, 3), own(3)], {}),
    ("Gemm", [own(5, 3), own(2, 3), own(2)], {"transB": 1}),
    ("Conv", [own(2, 3, 6), own(4, 3, 2), own(4)], {}),
    ("Split", [own(4, 3)], {"num_outputs": 2, "axis": 0}),
]


def graph(kind, inputs, attributes, marked):
    """The operation on what one member has, or marked as that of one of all members."""
    outputs = ["y", "y2"] if kind in ("TopK", "Split") else ["y"]
    nodes, constants, infos, known = [], [], [], []
    for number, value in enumerate(inputs):
        name = f"i{number}"
        if isinstance(value, list):
            constants.append(numpy_helper.from_array(np.array(value), name))
            continue
        shape = value.values.shape[isinstance(value, Own) :]
        dtype = helper.np_dtype_to_tensor_dtype(value.values.dtype)
        info = helper.make_tensor_value_info(name, dtype, shape)
        if isinstance(value, Own) and marked:
            constants.append(numpy_helper.from_array(value.values, f"{name}_all"))
            nodes.append(helper.make_node(ONE_OF, [f"{name}_all"], [name], domain=DOMAIN))
            known.append(info)
        else:
            infos.append(info)
    names = [f"i{number}" for number in range(len(inputs))]
    nodes.append(helper.make_node(kind, names, outputs, **attributes))
    if marked:
        for name in outputs:  # what goes on with all of them
            nodes.append(helper.make_node(ALL_OF, [name], [f"{name}_all"], domain=DOMAIN))
            nodes.append(helper.make_node("Identity", [f"{name}_all"], [f"{name}_out"]))
        outputs = [f"{name}_out" for name in outputs]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    proto = helper.make_graph(nodes, "g", infos, results, constants, value_info=known)
    opset = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(proto, opset_imports=opset, ir_version=10)


def run(model, inputs, member=None):
    feeds = {}
    for number, value in enumerate(inputs):
        if isinstance(value, Shared):
            feeds[f"i{number}"] = value.values
        elif isinstance(value, Own) and member is not None:
            feeds[f"i{number}"] = np.asarray(value.values[member])
    return ort.InferenceSession(model.SerializeToString()).run(None, feeds)


@pytest.mark.parametrize(("kind", "inputs", "attributes"), CASES)
def test_operations_of_all_members_at_once(kind, inputs, attributes):
    alone = graph(kind, inputs, attributes, marked=False)
    expected = [run(alone, inputs, member) for member in range(N_MEMBERS)]
    model = ir.from_proto(graph(kind, inputs, attributes, marked=True))
    common.ShapeInferencePass()(model)
    stack_members(model)
    common.RemoveUnusedNodesPass()(model)
    together = run(ir.to_proto(model), inputs)
    for number, found in enumerate(together):
        assert np.allclose(found, np.stack([e[number] for e in expected]), atol=1e-5)


def test_every_rule_is_tested():
    tested = {kind for kind, _, _ in CASES}
    by_element = RULES["Add"]
    assert {kind for kind, rule in RULES.items() if rule is not by_element} <= tested | {
        "ReduceMean",
        "ReduceMin",
        "ReduceSumSquare",
    }


def matched_filter(n_conjugate=4):
    return UnrolledMatchedFilter(
        n_components=1,
        n_sweeps=1,
        hidden=8,
        n_radii=2,
        n_strongest=16,
        n_conjugate=n_conjugate,
        smallest=0.03,
        largest=0.06,
        heteroscedastic=True,
    )


SMALL = {"smallest": 0.03, "largest": 0.06}
NETWORKS = {
    "ConvDip": lambda: network(heteroscedastic=True),
    "UnrolledMatchedFilter": matched_filter,
    "SensorGNN": lambda: SensorGNN(n_components=2, heteroscedastic=True, **SMALL),
    "PhysicsInformedUNet": lambda: PhysicsInformedUNet(
        base_channels=4, gathered=4, hidden=8, **SMALL
    ),
    "UnrolledISTA": lambda: UnrolledISTA(n_steps=2),
}
#: Exporting the others takes half a minute to two.
QUICK = "ConvDip"


@pytest.mark.parametrize(
    "name", [n if n == QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_ensembles_of_one_architecture(name, toy, simulate, tmp_path):
    """Any montage, batch and duration; and most operations are done for all members at once."""
    torch.manual_seed(0)
    members = [NETWORKS[name]() for _ in range(N_MEMBERS)]
    for parameter in (p for member in members for p in member.parameters()):
        parameter.data += 0.1 * torch.randn_like(parameter)
    ensemble, path, one = DeepEnsemble(members), tmp_path / "e.onnx", tmp_path / "one.onnx"
    export_onnx(ensemble, toy.montage_head("biosemi16"), path)
    for montage, size, n_times in (("biosemi32", 3, 11), ("fsaverage_1020", 1, 1)):
        batch = simulate([], montage=montage, batch_size=size, n_times=n_times).batch(0)
        assert check_parity(ensemble, path, batch, n_timed=1).max_difference <= 1e-5
    export_onnx(members[0], toy.montage_head("biosemi16"), one)
    exponential, once = (
        sum(node.op_type in ("Log", "Exp", "Gelu", "Erf", "Softmax") for node in ir.load(p).graph)
        for p in (path, one)
    )
    assert exponential == once > 0


def test_weights_of_all_members_are_brought_to_8_bits(toy, tmp_path):
    """They must be constants for that, however large."""
    members = DeepEnsemble([ConvDip(84, hidden=256) for _ in range(2)])
    n_bytes = sum(4 * weights.numel() for weights in members.parameters())
    export_onnx(members, toy.montage_head("biosemi16"), tmp_path / "m.onnx", precision="int8")
    assert (tmp_path / "m.onnx").stat().st_size < 0.3 * n_bytes


@pytest.mark.slow
@pytest.mark.parametrize("n_members", [1, 3])
def test_free_orientation(n_members, toy, simulate, tmp_path):
    """Three components per source, with lead fields of their own."""
    modes = np.repeat(toy.family.source_modes, 3, axis=0)
    modes = modes + modes.std() * np.random.default_rng(0).normal(size=modes.shape)
    free = replace(
        toy, family=replace(toy.family, source_modes=modes), space=replace(toy.space, n_orient=3)
    )
    torch.manual_seed(0)
    members = [UnrolledMatchedFilter(1, 1, n_radii=2, **SMALL) for _ in range(n_members)]
    model = DeepEnsemble(members) if n_members > 1 else members[0]
    export_onnx(model, free.montage_head("biosemi16"), tmp_path / "m.onnx")
    batch = simulate([], heads=free, montage="biosemi32", batch_size=3, n_times=5).batch(0)
    assert check_parity(model, tmp_path / "m.onnx", batch, n_timed=1).max_difference <= 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_members_are_alike_but_for_their_weights(name):
    assert alike([NETWORKS[name](), NETWORKS[name]()])


def test_a_setting_that_is_no_weight_tells_members_apart():
    assert not alike([matched_filter(4), matched_filter(5)])
    assert not alike([network(), network(heteroscedastic=True)])
    assert not alike([network(), matched_filter()])
    assert not alike([network(), network().double()])
    rectified, saturated = (network() for _ in range(2))
    rectified.activation, saturated.activation = torch.relu, torch.tanh
    assert not alike([rectified, saturated])


def stacked():
    return StackedEnsemble(network, n_members=2)


def dropped():
    return MCDropout(network(dropout=0.2), n_samples=2)


@pytest.mark.slow
@pytest.mark.parametrize("member", [stacked, dropped])
def test_ensembles_of_ensembles(member, toy, simulate, tmp_path):
    """The outermost members are computed side by side, what is in them one after the other."""
    model = DeepEnsemble([member(), member()])
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    export_onnx(model, toy.montage_head("biosemi16"), tmp_path / "m.onnx")
    batch = simulate([], montage="biosemi32", batch_size=3, n_times=2).batch(0)
    assert check_parity(model, tmp_path / "m.onnx", batch, n_timed=1).max_difference <= 1e-5


def test_members_that_count_sources(toy, simulate, tmp_path):
    model, path = DeepEnsemble([Counting(0), Counting(1)]), tmp_path / "m.onnx"
    contract = export_onnx(model, toy.montage_head("biosemi16"), path)
    assert contract.kinds == ("mean", "std", "source_counts")
    batch = simulate(model.head_inputs, montage="biosemi32", batch_size=3, n_times=2).batch(0)
    expected = model(batch.data, batch.inputs).source_counts.detach().numpy()
    feeds = as_feeds(prepare(model.head_inputs, batch.head))
    found = open_model(path).run(batch.data.numpy(), feeds)["source_counts"]
    assert np.abs(found - expected).max() <= 1e-5


def test_members_without_weights(toy, simulate, tmp_path):
    model, path = DeepEnsemble([MinimumNorm("MNE"), MinimumNorm("MNE")]), tmp_path / "m.onnx"
    export_onnx(model, toy.montage_head("biosemi16"), path)
    batch = simulate(model.head_inputs, montage="biosemi32", batch_size=3, n_times=2).batch(0)
    expected = model(batch.data, batch.inputs).mean.numpy()
    feeds = as_feeds(prepare(model.head_inputs, batch.head))
    found = open_model(path).run(batch.data.numpy(), feeds)["mean"]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
