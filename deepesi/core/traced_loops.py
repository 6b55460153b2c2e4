"""Traces what a graph repeats once: a step of an integration, and draws of a posterior.

Marks in the traced graph say what is repeated; `deepesi.export.loops` makes loops of them.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

#: ONNX domain of the marks.
DOMAIN = "deepesi.loops"
#: Around draws: what is between them is computed for a few draws at a time.
DRAWS, SAMPLES = "Draws", "Samples"
#: Around a step: what is between them stands for all steps.
STATE, ROW, END = "State", "Row", "End"


def trace_draws(
    sample: Callable[[Tensor], Tensor],
    fixed: Float[Tensor, "M B Z"],
    noise: Float[Tensor, "N B Z"],
) -> Float[Tensor, "MN B D T"]:
    """Samples of two sets of draws during tracing for ONNX; nothing is computed.

    Args:
        sample: From noise to samples, every draw on its own.
        fixed: Noise of the first set.
        noise: Noise of the second set, an input of the graph. The sizes that the sampler reads are
            traced from it.

    """
    both = torch.cat([fixed, noise])
    drawn = sample(_marked(DRAWS, [both, noise], noise.shape))
    return _marked(SAMPLES, [drawn], torch.Size((both.shape[0], *drawn.shape[1:])))


def trace_one_step(
    step: Callable[[Tensor, Tensor], Tensor], state: Tensor, rows: Float[Tensor, "K P"]
) -> Tensor:
    """The state after a step with each row, during tracing for ONNX; nothing is computed.

    Args:
        step: From a state and a row to the next state, of the same shape.
        state: State before the first step.
        rows: Parameters of the steps.

    """
    now = _marked(STATE, [state, rows], state.shape)
    after = step(now, _marked(ROW, [rows], rows.shape[1:]))
    return _marked(END, [after], state.shape)


def _marked(name: str, values: list[Tensor], shape: torch.Size) -> Tensor:
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{name}", values, dtype=values[0].dtype, shape=shape, version=1
    )
