"""Shares work out to processes, each on one thread."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits

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

    """
    if processes < 1:
        raise ValueError(f"evaluate: processes must be 1 or more, got {processes}.")
    if processes == 1:
        with one_thread():
            yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(processes, context, _start, (work,)) as pool:
        try:
            for future in as_completed([pool.submit(_do, task) for task in tasks]):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_work: Callable[[Any], Any]


def _start(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    torch.set_num_threads(1)
    threadpool_limits(1)


def _do(task: Any) -> Any:
    return _work(task)
