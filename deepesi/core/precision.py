"""Single precision for parts of a model that bfloat16 is too coarse for."""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def in_full_precision(
    forward: Callable[Concatenate[Any, Tensor, P], R],
) -> Callable[Concatenate[Any, Tensor, P], R]:
    """Leave automatic mixed precision within a method whose first argument is a tensor.

    Evidence is a difference of large energies, and a softmax over thousands of patches follows it:
    with three digits another patch wins.
    """

    @functools.wraps(forward)
    def wrapped(self: Any, data: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> R:
        kind = data.device.type
        if not torch.is_autocast_enabled(kind):
            return forward(self, data, *args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return forward(self, data, *args, **kwargs)

    return wrapped
