"""Rewrites a graph to operations that ONNX Runtime computes fast."""

from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer
from onnxscript.rewriter import pattern
from onnxscript.rewriter.rules.common import remove_optional_bias_from_conv_rule

from deepesi.core.traced_members import DOMAIN
from deepesi.export.members import stack_members

#: Elementwise operations, with broadcasting.
BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min")
#: Operations that only move values.
MOVING = ("Concat", "Gather", "Reshape", "Split", "Squeeze", "Transpose", "Unsqueeze")
#: Number of values in a tensor.
LARGEST_WEIGHTS = 2**28


#: Rules after constant folding.
TIDY = ir.passes.Sequential(
    common.RemoveUnusedNodesPass(),
    common.RemoveUnusedFunctionsPass(),
    common.RemoveUnusedOpsetsPass(),
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    common.DeduplicateInitializersPass(),
    common.CommonSubexpressionEliminationPass(),
    common.OutputFixPass(),
    common.NameFixPass(),
    common.ClearMetadataAndDocStringPass(),  # holds paths of this machine
)


def optimize(model: ir.Model) -> None:
    """Change a graph in place; results stay equal, up to the order of sums.

    Constants are folded, duplicates are shared, and sums over a single value are removed. On a CPU
    a sum of squares as one operation, a square as a product, and broadcasting between operands of
    equal rank are an order of magnitude faster.
    """
    # The exporter's own optimizer tries dozens of patterns on every node, takes as long as
    # everything else together, and does not make the graph faster.
    common.InlinePass()(model)
    optimizer.fold_constants(model)
    # Convolutions without a bias get one of zeros, of a shape that ONNX Runtime refuses.
    remove_optional_bias_from_conv_rule.apply_to_model(model)
    if any(node.domain == DOMAIN for node in model.graph):
        common.ShapeInferencePass()(model)
        stack_members(model)
        common.RemoveUnusedNodesPass()(model)
        # Weights of any size, because quantization needs constants.
        optimizer.fold_constants(
            model,
            output_size_limit=LARGEST_WEIGHTS,
            should_fold=_of_moving,
        )
    TIDY(model)
    common.ShapeInferencePass()(model)
    # Single values before sums, sums before squares: a later rule would change the pattern
    # that an earlier one looks for.
    for rule in (
        pattern.RewriteRule(_sum, _without_summing, _over_single),
        pattern.RewriteRule(_mean, _without_summing, _over_single),
        pattern.RewriteRule(_sum_of_squares, _by_one_operation),
        pattern.RewriteRule(_square, _by_product),
    ):
        pattern.RewriteRuleSet([rule]).apply_to_model(model)
    _broadcast_at_equal_rank(model.graph)


def _of_moving(node: ir.Node) -> bool | None:
    return True if node.op_type in MOVING else None  # else by its size


def _sum(op: Any, x: Any, axes: Any) -> Any:
    return op.ReduceSum(x, axes, keepdims=0, _allow_other_attributes=True)


def _mean(op: Any, x: Any, axes: Any) -> Any:
    return op.ReduceMean(x, axes, keepdims=0, _allow_other_attributes=True)


def _over_single(context: object, x: ir.Value, axes: ir.Value) -> bool:
    """Whether all these axes have length 1, as that of orientations that are fixed."""
    shape, known = x.shape, axes.const_value
    if shape is None or known is None:
        return False
    return all(shape[axis] == 1 for axis in known.numpy())


def _without_summing(op: Any, x: ir.Value, axes: ir.Value) -> Any:
    return op.Squeeze(x, axes)


def _sum_of_squares(op: Any, x: Any, axes: Any) -> Any:
    return op.ReduceSum(op.Pow(x, 2.0), axes, _outputs=["total"], _allow_other_attributes=True)


def _by_one_operation(op: Any, x: ir.Value, axes: ir.Value, total: ir.Value) -> Any:
    summed = total.producer()
    assert summed is not None
    keepdims = summed.attributes.get_int("keepdims", 1)
    return op.ReduceSumSquare(x, axes, keepdims=keepdims)


def _square(op: Any, x: Any) -> Any:
    return op.Pow(x, 2.0)


def _by_product(op: Any, x: ir.Value) -> Any:
    return op.Mul(x, x)


def _broadcast_at_equal_rank(graph: ir.Graph) -> None:
    """Add leading axes to the operand of lower rank; the runtime folds those of constants."""
    axes: dict[int, ir.Value] = {}
    raised: dict[tuple[ir.Value, int], ir.Value] = {}
    for node in list(graph):
        operands = [(x, x.shape) for x in node.inputs if x is not None and x.shape is not None]
        if node.op_type not in BINARY or len(operands) < len(node.inputs):
            continue
        ranks = [len(shape) for _, shape in operands]
        lower, missing = ranks.index(min(ranks)), max(ranks) - min(ranks)
        if missing == 0 or len(operands) != 2:  # maxima may have three inputs
            continue
        value, shape = operands[lower]
        if missing not in axes:
            axes[missing] = ir.Value(
                name=f"leading_axes_{missing}",
                const_value=ir.tensor(list(range(missing)), dtype=ir.DataType.INT64),
                shape=ir.Shape([missing]),
                type=ir.TensorType(ir.DataType.INT64),
            )
            graph.register_initializer(axes[missing])
        if (value, missing) not in raised:
            unsqueeze = ir.node("Unsqueeze", [value, axes[missing]])
            result = unsqueeze.outputs[0]
            result.name = f"{value.name}_raised_{missing}"
            result.type, result.shape = value.type, ir.Shape([*[1] * missing, *shape])
            graph.insert_before(node, unsqueeze)
            raised[value, missing] = result
        node.replace_input_with(lower, raised[value, missing])
