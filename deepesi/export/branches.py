"""One file from two graphs of a model, of which the window or the head chooses one."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deepesi.runtime.contract import DATA


def by_length(short: onnx.ModelProto, long: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that chooses between both for every window; equal weights are stored once.

    Args:
        short: Graph for windows of fewer samples than channels.
        long: Graph for all others, with the same inputs and outputs.

    """
    names = {"short": short, "long": long}
    axes = {"short/axis": np.array(1), "long/axis": np.array(2)}
    condition = [
        helper.make_node("Shape", [DATA], ["window_shape"]),
        helper.make_node("Gather", ["window_shape", "short/axis"], ["window_channels"]),
        helper.make_node("Gather", ["window_shape", "long/axis"], ["window_samples"]),
        helper.make_node("Less", ["window_samples", "window_channels"], ["window_is_short"]),
    ]
    return _chosen(names, axes, condition)


def by_cortex(own: onnx.ModelProto, template: onnx.ModelProto, key: str) -> onnx.ModelProto:
    """A graph that chooses between both by the cortex of the head.

    Args:
        own: Graph for the cortex of the recorded person.
        template: Graph for that of a template, with the same inputs and outputs.
        key: Name of the input of `deepesi.physics.head_inputs.OwnNormals`.

    """
    names = {"own": own, "template": template}
    constants = {"own/first": np.array(0), "own/no": np.array(0, np.float32)}
    condition = [
        helper.make_node("Gather", [key, "own/first"], ["cortex_number"]),
        helper.make_node("Greater", ["cortex_number", "own/no"], ["cortex_is_own"]),
    ]
    return _chosen(names, constants, condition)


def _chosen(
    graphs: dict[str, onnx.ModelProto],
    constants: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]],
    condition: Sequence[onnx.NodeProto],
) -> onnx.ModelProto:
    """The first graph where the last node of a condition is true, else the second."""
    (first, *_), protos = graphs, list(graphs.values())
    both, stored = onnx.ModelProto(), dict[bytes, str]()
    both.CopyFrom(protos[1])
    for field in ("node", "initializer", "value_info"):
        both.graph.ClearField(field)
    branches = [_branch(p.graph, name, both.graph, stored) for name, p in graphs.items()]
    for name, value in constants.items():
        both.graph.initializer.append(numpy_helper.from_array(value, name))
    choice = helper.make_node(
        "If",
        [condition[-1].output[0]],
        [output.name for output in both.graph.output],
        then_branch=branches[0],
        else_branch=branches[1],
    )
    both.graph.node.extend([*condition, choice])
    domains = {entry.domain for entry in both.opset_import}
    both.opset_import.extend(e for e in graphs[first].opset_import if e.domain not in domains)
    return both


def _branch(
    graph: onnx.GraphProto, prefix: str, outer: onnx.GraphProto, stored: dict[bytes, str]
) -> onnx.GraphProto:
    """A graph as a branch: its names get a prefix, and its weights go into the outer graph.

    Args:
        graph: The graph.
        prefix: Prefix.
        outer: Graph that holds inputs and weights of all branches.
        stored: Names of the weights in the outer graph, by content; weights of this graph are
            added.

    """
    names = {value.name: value.name for value in graph.input}
    for weights in graph.initializer:
        own, kept = weights.name, onnx.TensorProto()
        kept.CopyFrom(weights)
        kept.name = ""
        content = kept.SerializeToString()
        if content not in stored:
            stored[content] = kept.name = f"{prefix}/{own}"
            outer.initializer.append(kept)
        names[own] = stored[content]
    nodes = [_renamed(node, prefix, names) for node in graph.node]
    outputs = []
    for output in graph.output:
        renamed = onnx.ValueInfoProto()
        renamed.CopyFrom(output)
        renamed.name = names[output.name]
        outputs.append(renamed)
    return helper.make_graph(nodes, prefix, [], outputs)


def _renamed(node: onnx.NodeProto, prefix: str, names: dict[str, str]) -> onnx.NodeProto:
    """A node with a prefix in its names and in those of its loops and branches.

    Args:
        node: The node.
        prefix: Prefix.
        names: New names of the values before the node; those of its outputs are added.

    """
    renamed = onnx.NodeProto()
    renamed.CopyFrom(node)
    renamed.name = f"{prefix}/{node.name}" if node.name else ""
    for attribute in renamed.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            _rename_inside(attribute.g, prefix, dict(names))
    names |= {name: f"{prefix}/{name}" for name in node.output if name}
    renamed.input[:] = [names[name] if name else "" for name in node.input]
    renamed.output[:] = [names[name] if name else "" for name in node.output]
    return renamed


def _rename_inside(graph: onnx.GraphProto, prefix: str, names: dict[str, str]) -> None:
    """Rename the values of the body of a loop or branch, which also sees those before it."""
    own = [*graph.input, *graph.initializer]
    names |= {value.name: f"{prefix}/{value.name}" for value in own}
    for value in own:
        value.name = names[value.name]
    nodes = [_renamed(node, prefix, names) for node in graph.node]
    graph.ClearField("value_info")
    del graph.node[:]
    graph.node.extend(nodes)
    for output in graph.output:
        output.name = names[output.name]
