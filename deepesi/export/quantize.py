"""Smaller files: weights of a graph in 16 or 8 bits, arithmetic in single precision."""

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

#: Storage of weights: single precision, half precision, or 8 bits with one scale per output of a
#: product.
Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
#: Weights with fewer values stay as they are.
FEWEST = 256
#: Largest signed value in 8 bits; the smallest is its negative.
LARGEST = 127

Array = NDArray[np.float32]


def quantize(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """The graph with its weights in fewer bits; inputs and outputs stay in single precision.

    Only the file is smaller. ONNX Runtime converts weights to single precision once, when it opens
    the file. So all processors compute the same: products of 8-bit numbers saturate on some of
    them, and EEG in volts is below the range of half precision.

    Args:
        model: Graph in single precision.
        precision: Precision of the weights.

    Raises:
        ValueError: An unknown precision.

    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"quantize: unknown precision {precision!r}, expected one of {list(PRECISIONS)}."
        )
    if precision == "float32":
        return model
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    summed = _summed_axes(model.graph)
    nodes = list(smaller.graph.node)
    del smaller.graph.node[:]
    for weights in list(smaller.graph.initializer):
        values = numpy_helper.to_array(weights)
        if values.dtype != np.float32 or values.size < FEWEST or not np.isfinite(values).all():
            continue
        if precision == "float16" and np.abs(values).max() <= np.finfo(np.float16).max:
            smaller.graph.node.append(_halved(weights, values))
        elif precision == "int8" and weights.name in summed:
            smaller.graph.node.extend(
                _in_8_bits(smaller.graph, weights, values, summed[weights.name])
            )
    smaller.graph.node.extend(nodes)
    return smaller


def _halved(weights: TensorProto, values: Array) -> onnx.NodeProto:
    """Store weights in half precision, in place; returns the conversion to single precision."""
    name, half = weights.name, f"{weights.name}_half"
    weights.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
    return helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT)


def _in_8_bits(
    graph: onnx.GraphProto, weights: TensorProto, values: Array, summed: tuple[int, ...]
) -> Iterator[onnx.NodeProto]:
    """Store weights in 8 bits, in place; returns the conversion to single precision."""
    name = weights.name
    scale = np.abs(values).max(axis=summed, keepdims=True) / np.float32(LARGEST)
    scale[scale == 0] = 1
    whole = np.rint(values / scale).astype(np.int8)
    weights.CopyFrom(numpy_helper.from_array(whole, f"{name}_8"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    yield helper.make_node("Cast", [f"{name}_8"], [f"{name}_whole"], to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [f"{name}_whole", f"{name}_scale"], [name])


def _summed_axes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Axes of the weights of products that are summed over, by the name of the weights."""
    weights = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    found: dict[str, tuple[int, ...]] = {}
    for node in graph.node:
        for operand, name in enumerate(node.input[:2]):
            if name not in weights:
                continue
            if node.op_type == "Conv":
                found[name] = tuple(range(1, weights[name]))
            elif node.op_type == "Gemm":
                turned = {a.name: a.i for a in node.attribute}.get("trans" + "AB"[operand], 0)
                found[name] = (int((operand == 0) != bool(turned)),)
            elif node.op_type == "MatMul":
                found[name] = (max(weights[name] - 1 - operand, 0),)
    return found
