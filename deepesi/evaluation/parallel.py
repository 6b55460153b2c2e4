"""Shares work out to processes, each on one thread."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

from deepesi.utils.parallel import LostWorkerError, parallel_map

Task = TypeVar("Task")
Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Everything on one thread: sums come out alike, and latencies can be compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def share_out(
    work: Callable[[Task], Result], tasks: Sequence[Task], processes: int
) -> Iterator[Result]:
    """Results as they come, in any order.

    Args:
        work: Sent to every process once, with all it holds.
        tasks: Sent to a process that is free.
        processes: Number of processes; 1: this one.

    Raises:
        ValueError: No process.
        LostWorkerError: A process was killed.

    """
    for _, result in parallel_map(_on_one_thread, work, tasks, processes):
        if isinstance(result, LostWorkerError):
            raise result
        yield result


def _on_one_thread(work: Callable[[Task], Result], task: Task) -> Result:
    with one_thread():
        return work(task)
