"""One file from two graphs of a model: for windows of fewer samples than channels, and others."""

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
    both, stored = onnx.ModelProto(), dict[bytes, str]()
    both.CopyFrom(long)
    for field in ("node", "initializer", "value_info"):
        both.graph.ClearField(field)
    branches = [
        _branch(graph.graph, prefix, both.graph, stored)
        for graph, prefix in ((short, "short"), (long, "long"))
    ]
    for name, value in (("short/axis", 1), ("long/axis", 2)):
        both.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    both.graph.node.extend(
        [
            helper.make_node("Shape", [DATA], ["window_shape"]),
            helper.make_node("Gather", ["window_shape", "short/axis"], ["window_channels"]),
            helper.make_node("Gather", ["window_shape", "long/axis"], ["window_samples"]),
            helper.make_node("Less", ["window_samples", "window_channels"], ["window_is_short"]),
            helper.make_node(
                "If",
                ["window_is_short"],
                [output.name for output in both.graph.output],
                then_branch=branches[0],
                else_branch=branches[1],
            ),
        ]
    )
    domains = {entry.domain for entry in both.opset_import}
    both.opset_import.extend(e for e in short.opset_import if e.domain not in domains)
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
    nodes = []
    for node in graph.node:
        renamed = onnx.NodeProto()
        renamed.CopyFrom(node)
        renamed.name = f"{prefix}/{node.name}"
        names |= {name: f"{prefix}/{name}" for name in node.output if name}
        renamed.input[:] = [names[name] if name else "" for name in node.input]
        renamed.output[:] = [names[name] if name else "" for name in node.output]
        nodes.append(renamed)
    outputs = []
    for output in graph.output:
        renamed_output = onnx.ValueInfoProto()
        renamed_output.CopyFrom(output)
        renamed_output.name = names[output.name]
        outputs.append(renamed_output)
    return helper.make_graph(nodes, prefix, [], outputs)
