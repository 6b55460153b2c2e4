"""Loops of a graph, from operations that `deepesi.core.traced_loops` traced once between marks.

Draws of a posterior become a loop over parts of the draws: common values are computed once, memory
does not grow with the number of draws, and the arrays of a part stay in fast memory. Steps of an
integration become a loop over steps, so that a graph does not grow with the number of steps.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import onnx
from onnx import helper

from deepesi.core.traced_loops import DOMAIN, DRAWS, END, ROW, SAMPLES, STATE

#: Draws times recordings of one part.
AT_ONCE = 64

Nodes = list[onnx.NodeProto]


def draw_in_parts(proto: onnx.ModelProto, at_once: int = AT_ONCE) -> None:
    """Replace the marks of a graph by loops over parts of the draws, in place.

    A graph without marks stays as it is.

    Args:
        proto: Graph of a posterior model.
        at_once: Draws times recordings of one part, 1 or more.

    """
    marks = _marks(proto.graph)
    if DRAWS not in marks:
        return
    start, end = marks[DRAWS], marks[SAMPLES]
    drawn = end.input[0]
    body = _between(proto.graph, (start.output[0], start.input[1]), drawn)
    # Inside the loop, the sampler reads noise and sizes of one part.
    inputs = dict.fromkeys((start.output[0], start.input[1]), (start.output[0], 3))
    part = _body(inputs, (drawn, 4), body, end.output[0])
    nodes, constants = _in_parts(start.input[0], part, end.output[0], at_once)
    proto.graph.initializer.extend(constants)
    _replace(proto, (DRAWS, SAMPLES), nodes, drawn)


def repeat_steps(proto: onnx.ModelProto) -> None:
    """Replace the marks of a step by a loop over the steps, in place.

    A graph without marks stays as it is. A graph has one group of steps.
    """
    marks = _marks(proto.graph)
    if STATE not in marks:
        return
    state, row, end = marks[STATE], marks[ROW], marks[END]
    last, result = end.input[0], end.output[0]
    body = _between(proto.graph, (*state.output, *row.output), last)
    inputs = {name: (name, 3) for name in state.output} | {name: (name, 1) for name in row.output}
    graph = _body(inputs, (last, 3), body, result)
    scan = helper.make_node("Scan", state.input, [result], body=graph, num_scan_inputs=1)
    _replace(proto, (STATE, ROW, END), [scan], last)


def _replace(proto: onnx.ModelProto, marks: Sequence[str], new: Nodes, after: str) -> None:
    """Remove marks and the nodes that only they use, and insert nodes after a value."""
    graph = proto.graph
    nodes = [n for n in graph.node if n.domain != DOMAIN or n.op_type not in marks]
    index = next(i for i, node in enumerate(nodes) if after in node.output) + 1
    nodes[index:index] = new
    nodes = _live(nodes, [output.name for output in graph.output])
    del graph.node[:]
    graph.node.extend(nodes)
    made = {name for node in nodes for name in node.output}
    shapes = [info for info in graph.value_info if info.name in made]
    del graph.value_info[:]
    graph.value_info.extend(shapes)
    used = {node.domain for node in nodes}
    imports = [entry for entry in proto.opset_import if entry.domain in {"", *used}]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)


def _marks(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {node.op_type: node for node in graph.node if node.domain == DOMAIN}


def _between(graph: onnx.GraphProto, first: Iterable[str], last: str) -> Nodes:
    """Nodes that depend on some values and that another value depends on, in order."""
    reached, after = set(first), Nodes()
    for node in graph.node:
        if node.domain != DOMAIN and reached & set(_needed(node)):
            reached |= set(node.output)
            after.append(node)
    return _live(after, [last])


def _live(nodes: Nodes, last: Iterable[str]) -> Nodes:
    """Nodes that some values depend on, in order."""
    needed, found = set(last), Nodes()
    for node in reversed(nodes):
        if needed & set(node.output):
            needed |= set(_needed(node))
            found.append(node)
    return found[::-1]


def _needed(node: onnx.NodeProto) -> Iterator[str]:
    """Values that a node needs, also within its branches and loops."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _needed(inner)


def _in_parts(
    noise: str, part: onnx.GraphProto, result: str, at_once: int
) -> tuple[Nodes, list[onnx.TensorProto]]:
    """Operations from noise to samples, and their constants: pad, compute part by part, cut."""
    constants: list[onnx.TensorProto] = []
    nodes: Nodes = []

    def constant(value: int) -> str:
        name = f"{result}_constant_{len(constants)}"
        constants.append(helper.make_tensor(name, onnx.TensorProto.INT64, [1], [value]))
        return name

    def op(kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{result}_part_{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def divided(number: str, by: str) -> str:
        """Rounded up."""
        return op("Div", op("Sub", op("Add", number, by), one), by)

    one, none = constant(1), constant(0)
    n_draws, n_recordings = (op("Shape", noise, start=i, end=i + 1) for i in (0, 1))
    most = op("Max", op("Div", constant(at_once), n_recordings), one)
    n_parts = divided(n_draws, most)
    size = divided(n_draws, n_parts)
    filled = op("Mul", n_parts, size)
    pads = op("Concat", none, none, none, op("Sub", filled, n_draws), none, none, axis=0)
    shape = op("Concat", n_parts, size, op("Shape", noise, start=1), axis=0)
    parts = op("Reshape", op("Pad", noise, pads), shape)
    scanned = op("Scan", parts, body=part, num_scan_inputs=1)
    shape = op("Concat", filled, op("Shape", scanned, start=2), axis=0)
    op("Slice", op("Reshape", scanned, shape), none, n_draws, none, output=result)
    return nodes, constants


def _body(
    inputs: Mapping[str, tuple[str, int]], output: tuple[str, int], body: Nodes, prefix: str
) -> onnx.GraphProto:
    """Graph that is repeated, with names that no other graph has.

    Args:
        inputs: Names and number of axes of the inputs, by the value that they stand for.
        output: The result and its number of axes.
        body: Nodes, in order.
        prefix: Beginning of all names.

    """

    def described(name: str, n_axes: int) -> onnx.ValueInfoProto:
        kind = onnx.TensorProto.FLOAT
        return helper.make_tensor_value_info(f"{prefix}/{name}", kind, [None] * n_axes)

    names = {name: f"{prefix}/{name}" for node in body for name in node.output if name}
    names |= {value: f"{prefix}/{name}" for value, (name, _) in inputs.items()}
    own = Nodes()
    for node in body:
        again = onnx.NodeProto()
        again.CopyFrom(node)
        again.name = f"{prefix}/{node.name}"
        _rename(again, names)
        own.append(again)
    known = dict.fromkeys(inputs.values())
    return helper.make_graph(
        own, f"{prefix}/body", [described(*one) for one in known], [described(*output)]
    )


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    """Rename inputs and outputs of a node, also within its branches and loops."""
    for values in (node.input, node.output):
        values[:] = [names.get(name, name) for name in values]
    for attribute in node.attribute:
        for inner in attribute.g.node:
            _rename(inner, names)
        for output in attribute.g.output:
            output.name = names.get(output.name, output.name)
