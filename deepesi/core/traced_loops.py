"""Traces what a graph repeats once: a step of an integration, and draws of a posterior.

Marks in the traced graph say what is repeated; `deepesi.export.loops` makes loops of them.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

#: ONNX domain of the marks.
DOMAIN = "deepesi.loops"
#: Around draws: what is between them stands for both sets of draws.
EITHER, FIRST, SECOND = "EitherOf", "First", "Second"
#: Around a step: what is between them stands for all steps.
STATE, ROW, END = "State", "Row", "End"


def trace_for_both(
    sample: Callable[[Tensor], Tensor],
    first: Float[Tensor, "M B Z"],
    second: Float[Tensor, "N B Z"],
) -> tuple[Float[Tensor, "M B D T"], Float[Tensor, "N B D T"]]:
    """Samples of two sets of draws during tracing for ONNX; nothing is computed.

    A graph can then compute either of them alone, a few draws at a time.

    Args:
        sample: From noise to samples, every draw on its own.
        first: Noise of the first set.
        second: Noise of the second set, an input of the graph.

    """
    drawn = sample(_marked(EITHER, [first, second], second.shape))

    def only(name: str, noise: Tensor) -> Tensor:
        return _marked(name, [drawn, noise], torch.Size((noise.shape[0], *drawn.shape[1:])))

    return only(FIRST, first), only(SECOND, second)


def trace_one_step(
    step: Callable[[Tensor, Tensor], Tensor], state: Tensor, rows: Float[Tensor, "K P"]
) -> Tensor:
    """The state after a step with each row, during tracing for ONNX; nothing is computed.

    Args:
        step: From a state and a row to the next state, of the same shape.
        state: State before the first step.
        rows: Parameters of the steps.

    """
    after = step(_marked(STATE, [state, rows], state.shape), _marked(ROW, [rows], rows.shape[1:]))
    return _marked(END, [after], state.shape)


def _marked(name: str, values: list[Tensor], shape: torch.Size) -> Tensor:
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{name}", values, dtype=values[0].dtype, shape=shape, version=1
    )
