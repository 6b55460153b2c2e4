"""Stacks the members of an ensemble, so that one graph computes all of them at once.

`deepesi.core.traced_members` traces one member between two marks: `OneOf` selects its part of a
tensor with a leading axis of members, `AllOf` adds that axis to the results. This module adds the
axis to every operation in between. `torch.vmap` does the same, but fixes sizes that must stay free.
"""

from collections.abc import Callable, Sequence
from string import ascii_letters
from typing import Any

import onnx_ir as ir

from deepesi.core.traced_members import ALL_OF, DOMAIN, ONE_OF

Results = Sequence[ir.Value]


def stack_members(model: ir.Model) -> None:
    """Replace the marks in a graph, in place; the shapes of its values must be known.

    Values that all members share are computed once; operations without a rule member by member.
    """
    stacked: dict[ir.Value, ir.Value] = {}
    for node in list(model.graph):
        if node.domain == DOMAIN and node.op_type == ONE_OF:
            stacked[node.outputs[0]] = _only(node.inputs)
            continue
        told_apart = [value in stacked for value in node.inputs]
        if node.domain != DOMAIN and not any(told_apart):
            continue
        step = _Step(node, stacked)
        outside: Results = []
        if node.domain == DOMAIN and node.op_type == ALL_OF:
            outside = [step.of_all(_only(node.inputs))]
        elif node.op_type == "Shape":
            outside = _shape(step)
        elif (
            node.op_type == "CastLike" and not told_apart[0]
        ):  # only the type of the second input matters
            outside = _cast_like(step)
        else:
            inside = RULES.get(node.op_type, _one_by_one)(step)
            stacked |= dict(zip(node.outputs, inside, strict=True))
        model.graph.insert_before(node, step.tape.nodes)
        for old, new in zip(node.outputs, outside, strict=bool(outside)):
            new.shape, new.type = old.shape, old.type
            ir.convenience.replace_all_uses_with(old, new)


class _Step:
    """An operation of one member that is extended to all members.

    Args:
        node: The operation.
        stacked: Stacked values of all members, for values that differ between members.

    """

    def __init__(self, node: ir.Node, stacked: dict[ir.Value, ir.Value]) -> None:
        self.node, self.stacked, self.tape = node, stacked, ir.tape.Tape()
        n_members = next(value.shape[0] for value in stacked.values() if value.shape)
        assert isinstance(n_members, int)  # the number of values is known
        self.n_members = n_members

    def op(self, kind: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """A new operation."""
        return self.tape.op(kind, inputs, attributes)

    def again(self, *inputs: ir.Value | None, **changed: Any) -> Results:
        """The operation itself, with other inputs."""
        attributes = dict(self.node.attributes) | changed
        n_outputs = len(self.node.outputs)
        return self.tape.op_multi_out(
            self.node.op_type, inputs, attributes, domain=self.node.domain, num_outputs=n_outputs
        )

    def ints(self, *values: int) -> ir.Value:
        """A vector of integers."""
        return self.op("Constant", value_ints=list(values))

    def value(self, number: int) -> ir.Value:
        """An input of one member."""
        value = self.node.inputs[number]
        assert value is not None
        return value

    def constant(self, number: int) -> list[int] | None:
        """A constant input of integers; None if there is no such input, or it is not constant."""
        if number >= len(self.node.inputs) or self.node.inputs[number] is None:
            return None
        tensor = ir.convenience.get_const_tensor(self.value(number))
        return None if tensor is None else [int(i) for i in tensor.numpy().ravel()]

    def axis(self, name: str, default: int, rank: int) -> int:
        """An attribute that is an axis, counted from the first axis of one member."""
        attribute = self.node.attributes.get(name)
        return (default if attribute is None else attribute.as_int()) % rank

    def is_stacked(self, number: int) -> bool:
        """Whether an input differs between members."""
        return self.node.inputs[number] in self.stacked

    def of_all(self, value: ir.Value) -> ir.Value:
        """A value with an axis of members; shared values are copied."""
        if value in self.stacked:
            return self.stacked[value]
        return self.op("Expand", value, self.ints(self.n_members, *[1] * _rank(value)))

    def aligned(self, value: ir.Value, rank: int) -> ir.Value:
        """A value with its axis of members, if any, before `rank` other axes."""
        if value not in self.stacked:
            return value
        missing = range(1, 1 + rank - _rank(value))
        of_all = self.stacked[value]
        return self.op("Unsqueeze", of_all, self.ints(*missing)) if missing else of_all

    def shape(self, value: ir.Value, start: int, end: int | None = None) -> ir.Value:
        """Some of the sizes of a new value."""
        return self.op("Shape", value, start=start, end=end)

    def joined(self, *sizes: ir.Value) -> ir.Value:
        """Sizes one after the other."""
        return self.op("Concat", *sizes, axis=0)


def _only(inputs: Sequence[ir.Value | None]) -> ir.Value:
    (value,) = inputs
    assert value is not None
    return value


def _rank(value: ir.Value) -> int:
    if value.shape is None:
        raise ValueError(f"stack_members: the shape of {value.name} is not known.")
    return len(value.shape)


def _behind(axes: Sequence[int]) -> list[int]:
    """Axes of one member, shifted by the leading axis of members."""
    return [axis + 1 if axis >= 0 else axis for axis in axes]


def _one_by_one(step: _Step) -> Results:
    """An operation without a rule: once for each member."""
    each = []
    for member in range(step.n_members):
        number = step.op("Constant", value_int=member)
        inputs = [
            step.op("Gather", step.stacked[value], number, axis=0)
            if value in step.stacked
            else value
            for value in step.node.inputs
        ]
        each.append(step.again(*inputs))
    first = step.ints(0)
    return [
        step.op("Concat", *(step.op("Unsqueeze", value, first) for value in of_all), axis=0)
        for of_all in zip(*each, strict=True)
    ]


def _clip(step: _Step) -> Results:
    """Bounds must be single numbers."""
    stacked_bounds = any(step.is_stacked(i) for i in range(1, len(step.node.inputs)))
    return _one_by_one(step) if stacked_bounds else _by_element(step)


def _by_element(step: _Step) -> Results:
    rank = max(_rank(value) for value in step.node.inputs if value is not None)
    return step.again(
        *(value if value is None else step.aligned(value, rank) for value in step.node.inputs)
    )


def _shape(step: _Step) -> Results:
    """The shape of one member, which all of them share."""
    value = step.value(0)
    ends = {"start": 0} | {name: a.as_int() for name, a in step.node.attributes.items()}
    ends = {k: max(0, end + _rank(value) if end < 0 else end) + 1 for k, end in ends.items()}
    return step.again(step.stacked[value], **ends)


def _reshape(step: _Step) -> Results:
    sizes = step.joined(step.ints(step.n_members), step.value(1))
    return step.again(step.stacked[step.value(0)], sizes)


def _expand(step: _Step) -> Results:
    value, sizes = step.value(0), step.value(1)
    n_sizes = None if sizes.shape is None else sizes.shape[0]
    if not isinstance(n_sizes, int):
        return _one_by_one(step)
    rank = max(n_sizes, _rank(value))
    ones = step.ints(*[1] * (1 + rank - n_sizes))
    return step.again(step.aligned(value, rank), step.joined(ones, sizes))


def _cast_like(step: _Step) -> Results:
    return step.again(*(step.stacked.get(step.value(i), step.value(i)) for i in range(2)))


def _transpose(step: _Step) -> Results:
    value = step.value(0)
    perm = step.node.attributes.get("perm")
    axes = list(range(_rank(value)))[::-1] if perm is None else list(perm.as_ints())
    return step.again(step.stacked[value], perm=[0, *_behind(axes)])


def _with_axes(step: _Step) -> Results:
    """Unsqueeze, Squeeze and sums: the second input names axes; without it, one by one."""
    axes = step.constant(1)
    if not axes:
        return _one_by_one(step)
    return step.again(step.stacked[step.value(0)], step.ints(*_behind(axes)))


def _slice(step: _Step) -> Results:
    starts, ends, *rest = step.node.inputs[1:]
    axes = step.constant(3)
    if axes is None:
        if rest or starts is None or starts.shape is None or not isinstance(starts.shape[0], int):
            return _one_by_one(step)
        axes = list(range(starts.shape[0]))
    behind = step.ints(*_behind(axes))
    return step.again(step.stacked[step.value(0)], starts, ends, behind, *rest[1:])


def _over_axis(step: _Step) -> Results:
    """Softmax and TopK: an attribute names the axis."""
    value = step.value(0)
    axis = step.axis("axis", -1, _rank(value))
    return step.again(step.stacked[value], *step.node.inputs[1:], axis=axis + 1)


def _alongside(step: _Step) -> Results:
    """Concat, GatherElements, ScatterElements: shapes of inputs are equal except along one axis."""
    axis = step.axis("axis", 0, _rank(step.value(0)))
    values = [step.value(i) for i in range(len(step.node.inputs))]
    return step.again(*map(step.of_all, values), axis=axis + 1)


def _gather(step: _Step) -> Results:
    data, indices = step.value(0), step.value(1)
    axis = step.axis("axis", 0, _rank(data))
    if not step.is_stacked(1):
        return step.again(step.stacked[data], indices, axis=axis + 1)
    if not step.is_stacked(0) and axis == 0:
        return step.again(data, step.stacked[indices])
    return _one_by_one(step)


def _gather_nd(step: _Step) -> Results:
    data, indices = step.value(0), step.value(1)
    batch = step.node.attributes.get("batch_dims")
    n_batch = 0 if batch is None else batch.as_int()
    if not step.is_stacked(0) and n_batch == 0:
        return step.again(data, step.stacked[indices])
    return step.again(step.of_all(data), step.of_all(indices), batch_dims=n_batch + 1)


def _scatter_nd(step: _Step) -> Results:
    """Gather with members after the indexed axes, so that copies are contiguous."""
    data, indices, updates = (step.value(i) for i in range(3))
    if step.is_stacked(1) or indices.shape is None or not isinstance(indices.shape[-1], int):
        return _one_by_one(step)
    n_indexed = indices.shape[-1]

    def moved(value: ir.Value, n_before: int) -> ir.Value:
        axes = [*range(1, n_before + 1), 0, *range(n_before + 1, _rank(value) + 1)]
        return step.op("Transpose", step.of_all(value), perm=axes)

    (result,) = step.again(moved(data, n_indexed), indices, moved(updates, _rank(indices) - 1))
    back = [n_indexed, *range(n_indexed), *range(n_indexed + 1, _rank(data) + 1)]
    return [step.op("Transpose", result, perm=back)]


def _einsum(step: _Step) -> Results:
    equation = step.node.attributes["equation"].as_string().replace(" ", "")
    if "->" not in equation:
        return _one_by_one(step)
    operands, result = equation.split("->")
    of_members = next(letter for letter in ascii_letters if letter not in equation)
    values = [step.value(i) for i in range(len(step.node.inputs))]
    terms = [
        of_members * (value in step.stacked) + term
        for value, term in zip(values, operands.split(","), strict=True)
    ]
    return step.again(
        *(step.stacked.get(value, value) for value in values),
        equation=f"{','.join(terms)}->{of_members}{result}",
    )


def _matmul(step: _Step) -> Results:
    left, right = step.value(0), step.value(1)
    if min(_rank(left), _rank(right)) < 2:
        return _one_by_one(step)
    if _rank(right) > 2 or not step.is_stacked(1):
        rank = max(_rank(left), _rank(right))
        return step.again(step.aligned(left, rank), step.aligned(right, rank))
    return [_times_matrix(step, step.stacked[right])]


def _times_matrix(step: _Step, matrix: ir.Value) -> ir.Value:
    """The first input, of any rank, times a matrix of each member ``(M, K, N)``."""
    left, n_members = step.value(0), step.n_members
    if step.is_stacked(0):  # few large products instead of many small ones
        left = step.stacked[left]
        flat = step.joined(step.ints(n_members, -1), step.shape(left, -1))
        product = step.op("MatMul", step.op("Reshape", left, flat), matrix)
        sizes = step.joined(step.shape(left, 0, -1), step.ints(-1))
        return step.op("Reshape", product, sizes)
    # A shared operand is read once: the columns of all members are joined.
    columns = step.op("Transpose", matrix, perm=[1, 0, 2])
    columns = step.op("Reshape", columns, step.ints(0, -1))
    product = step.op("MatMul", left, columns)
    sizes = step.joined(step.shape(product, 0, -1), step.ints(n_members, -1))
    product = step.op("Reshape", product, sizes)
    last = _rank(left) - 1
    return step.op("Transpose", product, perm=[last, *range(last), last + 1])


#: Element by element, operands are broadcast.
_OPERATIONS = (
    "Abs",
    "Add",
    "Cast",
    "Div",
    "Equal",
    "Erf",
    "Exp",
    "Gelu",
    "Greater",
    "Identity",
    "LeakyRelu",
    "Less",
    "Log",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Pow",
    "Reciprocal",
    "Relu",
    "Sigmoid",
    "Softplus",
    "Sqrt",
    "Sub",
    "Tanh",
    "Where",
)
_SUMS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare")
RULES: dict[str, Callable[[_Step], Results]] = {
    **dict.fromkeys(_OPERATIONS, _by_element),
    **dict.fromkeys((*_SUMS, "Squeeze", "Unsqueeze"), _with_axes),
    **dict.fromkeys(("Softmax", "TopK"), _over_axis),
    **dict.fromkeys(("Concat", "GatherElements", "ScatterElements"), _alongside),
    "CastLike": _cast_like,
    "Clip": _clip,
    "Einsum": _einsum,
    "Expand": _expand,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "MatMul": _matmul,
    "Reshape": _reshape,
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "Transpose": _transpose,
}
