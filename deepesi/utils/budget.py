"""A limit on the time of a calculation in parts, for pictures of reports."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")


def within_budget(
    function: Callable[[Part], Result], parts: Sequence[Part], budget: float
) -> list[Result] | None:
    """Results for all parts; None as soon as they are expected to take longer than a budget, s.

    The expectation is the mean time of the parts so far, times their number. So a slow method
    costs little more than its first part.
    """
    started, results = time.perf_counter(), list[Result]()
    for part in parts:
        results.append(function(part))
        if (time.perf_counter() - started) / len(results) * len(parts) > budget:
            return None
    return results
