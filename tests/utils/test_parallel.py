"""Work shared out over processes and clusters."""

import os
import signal
import sys

import pytest

from deepesi.utils.parallel import LostWorkerError, parallel_map

joblib = pytest.importorskip("joblib")


def scaled(factor: float, item: float) -> float:
    if item < 0:
        raise ValueError(f"got {item}")
    return factor * item


def killed_at(number: int, item: int) -> int:
    if item == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_item_comes_with_its_result(jobs):
    items = [3.0, 1.0, 2.0, 1.0]
    assert sorted(parallel_map(scaled, 2.0, items, jobs)) == sorted((i, 2 * i) for i in items)


@pytest.mark.parametrize("jobs", [1, 2])
def test_errors_end_it(jobs):
    with pytest.raises(ValueError, match="got -1"):
        list(parallel_map(scaled, 2.0, [1.0, -1.0], jobs))


def test_no_process():
    with pytest.raises(ValueError, match="must be 1 or more, got 0"):
        list(parallel_map(scaled, 2.0, [1.0], 0))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_worker_that_is_killed_ends_no_other_item():
    results = dict(parallel_map(killed_at, 2, [0, 1, 2, 3], 2))
    assert isinstance(results.pop(2), LostWorkerError)
    assert results == {0: 0, 1: 1, 3: 3}


@pytest.mark.slow
def test_a_cluster():
    """The workers of a Dask scheduler at its address."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        results = dict(parallel_map(scaled, 2.0, [1.0, 2.0], 2, address))
        with joblib.parallel_config(backend="dask", scheduler_host=address):  # of the caller
            assert dict(parallel_map(scaled, 2.0, [1.0, 2.0], 2)) == results
    assert results == {1.0: 2.0, 2.0: 4.0}
    with pytest.raises(OSError, match="127.0.0.1:9"):
        list(parallel_map(scaled, 2.0, [1.0], 2, "tcp://127.0.0.1:9"))


def test_without_joblib(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert list(parallel_map(scaled, 2.0, [1.0], 1)) == [(1.0, 2.0)]
    with pytest.raises(ModuleNotFoundError, match=r"'joblib' to share work .*deepesi\[bids\]"):
        list(parallel_map(scaled, 2.0, [1.0], 2))
