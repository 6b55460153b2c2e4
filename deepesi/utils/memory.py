"""Bounds the memory of a command, and gives advice if it is not enough."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Share of the memory of the machine that a command may take.
SHARE = 0.75
#: Files with the memory of the machine, the bound of a container and the use of this process.
MEMINFO, CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
STATUS = Path("/proc/self/status")


@contextmanager
def bounded_memory(n_processes: int = 1) -> Iterator[None]:
    """Let this process use at most a share of the memory; on Linux only.

    Several processes that run at the same time divide that share equally. A request for more raises
    a `MemoryError`, which names the memory used, the bound and what to do. Without the bound, the
    system would end this or another process.

    Raises:
        MemoryError: More was requested.

    """
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [
        int(SHARE * memory_bytes() / n_processes),
        *(b for b in (soft, hard) if b != resource.RLIM_INFINITY),
    ]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    except MemoryError as error:
        raise MemoryError(_what_to_do(error, _used(), min(bounds), memory_bytes())) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _what_to_do(error: MemoryError, used: int, bound: int, total: int) -> str:
    """Error message: memory requested, used and allowed, and advice."""
    asked = str(error) or "an unknown amount"
    return (
        f"more memory is needed than there is. Used: {_gb(used)} at the most. Allowed: "
        f"{_gb(bound)} of the {_gb(total)} of this machine or container. Not granted: {asked}. "
        "Take a head with fewer sources or a model of fewer members, split the recording, or use a "
        "machine with more memory. If the recording and the head are small, a file is damaged: "
        "write it again."
    )


def _used() -> int:
    """Largest memory of this process, bytes; `resource.getrusage` would include its parent."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return 1024 * int(lines["VmHWM"].split()[0])


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB"


def allowed_bytes() -> float:
    """Bytes that a command may use; infinite where the system does not say (all but Linux)."""
    return SHARE * memory_bytes() if sys.platform == "linux" else math.inf


def memory_bytes() -> int:
    """Bytes of the machine, or of the container if that has fewer."""
    total = 1024 * int(MEMINFO.read_text().split()[1])
    granted = CONTAINER.read_text().strip() if CONTAINER.is_file() else "max"
    return min(total, int(granted)) if granted.isdigit() else total
