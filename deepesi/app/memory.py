"""Bounds the memory of a command: damaged files ask for any amount of it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Of the machine's memory.
SHARE = 0.75
#: What the system says of it, and of what a container may have.
MEMINFO, CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")


@contextmanager
def bounded_memory(n_processes: int = 1) -> Iterator[None]:
    """Let this process have a share of the memory, no more; on Linux only.

    Several processes that run side by side have an equal part of that share each.

    What asks for more gets a `MemoryError`, or an error of ONNX Runtime, where the system would
    otherwise end this or another process.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [
        int(SHARE * _memory() / n_processes),
        *(b for b in (soft, hard) if b != resource.RLIM_INFINITY),
    ]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _memory() -> int:
    """Bytes of the machine, or of the container if that has fewer."""
    total = 1024 * int(MEMINFO.read_text().split()[1])
    granted = CONTAINER.read_text().strip() if CONTAINER.is_file() else "max"
    return min(total, int(granted)) if granted.isdigit() else total
