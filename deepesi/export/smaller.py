"""Smaller files: the weights of a graph in 16 or 8 bits."""

import logging
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

#: How weights are kept: in single precision; in half precision, computed with in single; in 8 bits
#: with the scale of activations found anew for every input, or fixed on examples.
Precision = Literal["float32", "float16", "int8", "int8-static"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
#: Operations whose weights are brought to 8 bits.
QUANTIZED = ["MatMul", "Gemm", "Conv"]
#: Weights of fewer numbers stay as they are: bringing them back would take longer.
FEWEST = 256

Feeds = Mapping[str, NDArray[Any]]


def make_smaller(
    model: onnx.ModelProto, precision: Precision, examples: Iterable[Feeds]
) -> onnx.ModelProto:
    """The graph with its weights in fewer bits; inputs and outputs stay in single precision.

    Args:
        model: In single precision.
        precision: See `Precision`.
        examples: Typical inputs, for ``"int8-static"``.

    Raises:
        ValueError: An unknown precision.

    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"make_smaller: unknown precision {precision!r}, expected one of {list(PRECISIONS)}."
        )
    if precision == "float16":
        return _halved(model)
    if precision == "float32":
        return model
    model = onnx.ModelProto.FromString(model.SerializeToString())
    del model.graph.value_info[:]  # the quantizer transposes weights and trusts their old shapes
    root = logging.getLogger()  # where the quantizer advises to preprocess graphs
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            if precision == "int8":
                quantize_dynamic(model, path, QUANTIZED, per_channel=True)
            else:
                quantize_static(
                    model, path, _Examples(examples), op_types_to_quantize=QUANTIZED,
                    per_channel=True, activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8, nodes_to_exclude=_without_weights(model),
                )  # fmt: skip
            return onnx.load(path)
    finally:
        root.setLevel(level)


def _without_weights(model: onnx.ModelProto) -> list[str]:
    """Products of recordings and head inputs: their sizes are those of a set-up, not of a net."""
    weights = {w.name for w in model.graph.initializer}
    return [n.name for n in model.graph.node if n.op_type in QUANTIZED and not weights & {*n.input}]


class _Examples(CalibrationDataReader):
    """One example after the other, as the quantizer wants them."""

    def __init__(self, examples: Iterable[Feeds]) -> None:
        self.left = iter(examples)

    def get_next(self) -> dict[str, NDArray[Any]] | None:  # type: ignore[override]
        example = next(self.left, None)
        return None if example is None else dict(example)


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights in half precision, each brought back to single before it is used.

    Computing in half precision is out of the question: EEG in volts lies below its range.
    """
    halved, back = onnx.ModelProto(), []
    halved.CopyFrom(model)
    for weights in halved.graph.initializer:
        values = numpy_helper.to_array(weights)
        largest = np.abs(values).max(initial=0) if values.dtype == np.float32 else np.inf
        if values.size >= FEWEST and largest <= np.finfo(np.float16).max:
            name, half = weights.name, f"{weights.name}_half"
            weights.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
            back.append(onnx.helper.make_node("Cast", [half], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(halved.graph.node)
    del halved.graph.node[:]
    halved.graph.node.extend([*back, *nodes])
    return halved
