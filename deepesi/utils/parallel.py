"""Independent pieces of work in several processes, on this machine or on a cluster, by joblib."""

import functools
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from deepesi.utils.optional import require

State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")


class LostWorkerError(RuntimeError):
    """A process that worked on a piece was killed, most often for lack of memory."""


def parallel_map(
    function: Callable[[State, Item], Result],
    state: State,
    items: Sequence[Item],
    jobs: int,
    dask: str | None = None,
) -> Iterator[tuple[Item, Result | LostWorkerError]]:
    """Call ``function(state, item)`` for every item; yield each with its result when it is done.

    The order of the results is arbitrary; the results must not depend on the number of jobs. An
    error that the function raises stops everything. If a worker is killed, the remaining items are
    computed one after the other. So the item that kills its worker is identified; its result is a
    `LostWorkerError`.

    Args:
        function: Importable by name; the workers are new processes.
        state: What all items share. Every worker unpacks it once.
        items: The work.
        jobs: Number of processes; 1: this one, in the order of the items.
        dask: Address of a Dask scheduler whose workers are used instead: ``tcp://host:8786``.

    Raises:
        ModuleNotFoundError: Without joblib, or without dask where it is asked for.
        ValueError: Fewer than one job.
        OSError: There is no Dask scheduler at that address.

    """
    if jobs < 1:
        raise ValueError(f"parallel_map: the number of processes must be 1 or more, got {jobs}.")
    if jobs == 1 and dask is None:
        for item in items:
            yield item, function(state, item)
        return
    packed, waiting, lost = pickle.dumps(state), dict(enumerate(items)), _lost_errors(dask)
    try:
        for number, result in _joblib(function, packed, waiting, jobs, dask):
            yield waiting.pop(number), result
    except lost:
        for number, item in waiting.items():
            try:
                for _, result in _joblib(function, packed, {number: item}, 2, dask):
                    yield item, result
            except lost as error:
                yield item, LostWorkerError(str(error).split("\n", maxsplit=1)[0])


def _joblib(
    function: Callable[[State, Item], Result],
    packed: bytes,
    items: dict[int, Item],
    jobs: int,
    dask: str | None,
) -> Iterator[tuple[int, Result]]:
    """Numbers of the items, with their results, in the order of completion."""
    joblib = require("joblib", "bids", "share work out over processes")
    backend = {} if dask is None else {"backend": "dask", "scheduler_host": dask}
    with joblib.parallel_config(**backend):  # without one: that of the caller, loky by default
        parallel = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
    pairs = list(items.items())  # it is read by other threads, while the caller changes `items`
    yield from parallel(joblib.delayed(_call)(function, packed, *pair) for pair in pairs)


def _lost_errors(dask: str | None) -> tuple[type[Exception], ...]:
    """Errors that joblib raises when a worker was killed."""
    require("joblib", "bids", "share work out over processes")
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    if dask is None:
        return (TerminatedWorkerError,)
    distributed = require(
        "distributed", "dask", "share work out over the workers of a Dask cluster"
    )
    return (TerminatedWorkerError, distributed.scheduler.KilledWorker)


def _call(
    function: Callable[[State, Item], Result], packed: bytes, number: int, item: Item
) -> tuple[int, Result]:
    return number, function(_unpacked(packed), item)


@functools.lru_cache(maxsize=1)
def _unpacked(packed: bytes) -> Any:
    """The state, once per process; it comes from the process that started this one."""
    return pickle.loads(packed)  # noqa: S301
