"""Traces a sampler once for two sets of draws, so that a graph computes either of them alone."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

#: Marks in a traced graph, in this ONNX domain: what is between them stands for both sets of draws.
#: `deepesi.export.draws` replaces them.
DOMAIN, EITHER, FIRST, SECOND = "deepesi.draws", "EitherOf", "First", "Second"


def trace_for_both(
    sample: Callable[[Tensor], Tensor],
    first: Float[Tensor, "M B Z"],
    second: Float[Tensor, "N B Z"],
) -> tuple[Float[Tensor, "M B D T"], Float[Tensor, "N B D T"]]:
    """Samples of two sets of draws during tracing for ONNX; nothing is computed.

    Args:
        sample: From noise to samples, every draw on its own.
        first: Noise of the first set.
        second: Noise of the second set.

    """
    drawn = sample(_marked(EITHER, [first, second], second.shape))

    def only(name: str, noise: Tensor) -> Tensor:
        return _marked(name, [drawn, noise], torch.Size((noise.shape[0], *drawn.shape[1:])))

    return only(FIRST, first), only(SECOND, second)


def _marked(name: str, values: list[Tensor], shape: torch.Size) -> Tensor:
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{name}", values, dtype=values[0].dtype, shape=shape, version=1
    )
