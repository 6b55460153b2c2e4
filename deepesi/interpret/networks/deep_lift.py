"""DeepLIFT-like attribution of any function of tensors, with the rescale rule.

The derivative of every non-linear operation is replaced by its mean between baseline and recording.
For a function of one number this is the multiplier of the rescale rule,
``(f(x) - f(b)) / (x - b)``; for a product it is the mean of both sides.

Source: Shrikumar et al. 2017, arXiv:1704.02685. Differences: captum's DeepLift needs activations
that are modules, each used once, with examples along the first axis; here the operations themselves
are intercepted, so that networks with functions, products and softmax can be explained. Where an
operation selects by the data (for example the strongest patches), the two selections may differ,
and the sum of the attribution is not exact, or not even finite.
`deepesi.interpret.networks.gradients.completeness` measures the error; ``deepesi explain`` leaves
the method out where it is large.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Non-linear functions of one tensor, element by element.
ELEMENTWISE = _names(
    "abs clamp clamp_max clamp_min elu erf exp expm1 gelu leaky_relu log log1p log2 log10 pow "
    "reciprocal relu rsqrt selu sigmoid silu softplus sqrt square tanh"
)
#: Functions that are linear in each of their tensors: half-way the derivative is its mean.
MULTILINEAR = _names(
    "bmm conv1d conv2d conv3d einsum linear matmul mm mul multiply rmatmul rmul tensordot"
)
#: Other functions that are not linear; their mean derivative is a sum over a few nodes.
OTHERS = _names(
    "amax amin cosine_similarity group_norm layer_norm log_softmax logsumexp maximum minimum norm "
    "normalize prod rms_norm softmax"
)
#: Divisions, with a rule of their own if the denominator depends on the input.
DIVISIONS = _names("div divide rdiv rtruediv true_divide truediv")
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
#: Nodes and weights of a mean over the line from the baseline to the recording.
NODES = tuple(zip((0.5 + 0.5 * _NODES).tolist(), (0.5 * _WEIGHTS).tolist(), strict=True))
HALF_WAY = ((0.5, 1.0),)
#: Share of the typical size below which two values count as equal.
EQUAL = 1e-4


def deep_lift(function: Callable[[Tensor], Tensor], data: Tensor, baselines: Tensor) -> Tensor:
    """Attribution ``(B, ...)`` of the values of a function ``(B,)`` to its inputs.

    Args:
        function: Function of tensors; it must do the same operations for all inputs.
        data: Inputs ``(B, ...)``.
        baselines: Baseline of every input ``(B, ...)``.

    """
    watch = _Watch()
    with watch:
        function(baselines.detach().requires_grad_())
    watch.is_second = True
    inputs = data.detach().requires_grad_()
    with watch:
        value = function(inputs)
    (multipliers,) = torch.autograd.grad(value.sum(), inputs)
    return multipliers * (data - baselines)


class _Watch(TorchFunctionMode):
    """Keeps the arguments of non-linear operations for the baseline; then applies the rule."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[list[Tensor]] = []
        self.number, self.is_second = 0, False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if name in DIVISIONS and not kwargs:
            numerator, denominator = args[::-1] if name in ("rdiv", "rtruediv") else args
            if _depends_on_input(denominator):
                return self._divided(torch.as_tensor(numerator), denominator)
        if name not in ELEMENTWISE | MULTILINEAR | OTHERS:
            return func(*args, **kwargs)
        leaves, structure = tree_flatten((args, kwargs))
        positions = [i for i, leaf in enumerate(leaves) if _depends_on_input(leaf)]
        if not positions:
            return func(*args, **kwargs)
        tensors = [leaves[i] for i in positions]
        if not self.is_second:
            self.kept.append([tensor.detach() for tensor in tensors])
            return func(*args, **kwargs)

        def call(*changed: Tensor) -> Tensor:
            filled = list(leaves)
            for position, tensor in zip(positions, changed, strict=True):
                filled[position] = tensor
            own, named = tree_unflatten(filled, structure)
            return func(*own, **named)

        before = self.kept[self.number]
        self.number += 1
        nodes = HALF_WAY if name in MULTILINEAR else NODES
        is_elementwise = name in ELEMENTWISE and len(tensors) == 1
        return _applied(_MeanDerivative, call, before, nodes, is_elementwise, *tensors)

    def _divided(self, numerator: Tensor, denominator: Tensor) -> Tensor:
        if not self.is_second:
            self.kept.append([numerator.detach(), denominator.detach()])
            return numerator / denominator
        before = self.kept[self.number]
        self.number += 1
        if not numerator.requires_grad:
            before[0] = numerator  # it is constant
        return _applied(_MeanQuotient, before, numerator, denominator)


def _depends_on_input(leaf: Any) -> bool:
    """Whether an argument depends on the input."""
    return isinstance(leaf, Tensor) and leaf.requires_grad and leaf.is_floating_point()


def _applied(rule: Any, *arguments: Any) -> Tensor:
    value: Tensor = rule.apply(*arguments)
    return value


class _MeanDerivative(torch.autograd.Function):
    """An operation whose derivative is the mean between two arguments."""

    @staticmethod
    def forward(
        ctx: Any, call: Any, before: list[Tensor], nodes: Any, is_elementwise: bool, *after: Tensor
    ) -> Tensor:
        ctx.call, ctx.before, ctx.nodes, ctx.is_elementwise = call, before, nodes, is_elementwise
        ctx.after = [tensor.detach() for tensor in after]
        value: Tensor = call(*ctx.after)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        means = [torch.zeros_like(tensor) for tensor in ctx.after]
        for node, weight in ctx.nodes:
            at = [
                (b + node * (a - b)).requires_grad_()
                for a, b in zip(ctx.after, ctx.before, strict=True)
            ]
            with torch.enable_grad():
                value = ctx.call(*at)
            slopes = torch.autograd.grad(value, at, gradient)
            for mean, slope in zip(means, slopes, strict=True):
                mean += weight * slope
        if ctx.is_elementwise:
            means[0] = _rescaled(ctx, gradient, means[0])
        return (None, None, None, None, *means)


def _rescaled(ctx: Any, gradient: Tensor, mean: Tensor) -> Tensor:
    """The rule for functions of one number: exact at kinks, where the mean of nodes is not."""
    (after,), (before,) = ctx.after, ctx.before
    difference = after - before
    is_equal = difference.abs() <= EQUAL * (after.abs() + before.abs())
    rise = ctx.call(after) - ctx.call(before)
    return torch.where(is_equal, mean, gradient * rise / torch.where(is_equal, 1.0, difference))


class _MeanQuotient(torch.autograd.Function):
    """A quotient whose derivatives are their means on the line between two pairs.

    The integral of ``1 / y`` is a logarithm, which stays moderate where one of two denominators is
    nearly zero, as in converged steps of conjugate gradients.
    """

    @staticmethod
    def forward(ctx: Any, before: list[Tensor], numerator: Tensor, denominator: Tensor) -> Tensor:
        ctx.before, ctx.after = before, (numerator.detach(), denominator.detach())
        return numerator / denominator

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x, y), (x_before, y_before) = ctx.after, ctx.before
        difference = y - y_before
        is_equal = difference.abs() <= EQUAL * (y.abs() + y_before.abs())
        is_averaged = is_equal | (y * y_before <= 0)
        of_x = torch.where(
            is_averaged,
            0.5 * (1 / y + 1 / y_before),
            torch.where(is_averaged, 1.0, y / y_before).log()
            / torch.where(is_averaged, 1.0, difference),
        )
        rest = x / y - x_before / y_before - of_x * (x - x_before)
        of_y = torch.where(
            is_equal,
            -0.5 * (x + x_before) / (y * y_before),
            rest / torch.where(is_equal, 1.0, difference),
        )
        return (
            None,
            (gradient * of_x).sum_to_size(x.shape),
            (gradient * of_y).sum_to_size(y.shape),
        )
