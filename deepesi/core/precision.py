"""Single precision for parts of a model that bfloat16 is too coarse for."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Method = TypeVar("Method", bound=Callable[..., Any])


def in_full_precision(method: Method) -> Method:
    """Leave automatic mixed precision within a method whose first argument is a tensor.

    Evidence is a difference of large energies, and a softmax over thousands of patches follows it:
    with three digits another patch wins.
    """

    @functools.wraps(method)
    def wrapped(self: Any, data: Tensor, *args: Any, **kwargs: Any) -> Any:
        kind = data.device.type
        if not torch.is_autocast_enabled(kind):
            return method(self, data, *args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return method(self, data, *args, **kwargs)

    return cast("Method", wrapped)
