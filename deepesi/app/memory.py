"""Bounds the memory of a command: damaged files ask for any amount of it."""

import os


def bound_memory(share: float = 0.75) -> None:
    """Let this process have a share of the machine's memory, no more.

    What asks for more gets a `MemoryError`, or an error of ONNX Runtime, where the system would
    otherwise end this or another process. Windows knows no such bound; there nothing is done.

    Args:
        share: Of the physical memory.

    """
    try:
        import resource
    except ModuleNotFoundError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    bounds = [int(share * physical), *(b for b in (soft, hard) if b != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
