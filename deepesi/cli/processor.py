"""Settings of the processor and the memory that make training faster, where nobody set them."""

import ctypes
import os
import platform

#: Threads that wait for one another give their core away: beside other jobs, those that spin make
#: next to no progress. Read once, when torch is loaded.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
#: glibc gives large arrays back to the system and asks for them again in every step, unless these
#: bounds (bytes) are high: numbers of ``mallopt``, and the variables that set the same.
TRIM, MMAP = (-1, "MALLOC_TRIM_THRESHOLD_", 2**31 - 1), (-3, "MALLOC_MMAP_THRESHOLD_", 2**25)


def prepare_processor() -> None:
    """Set what helps and was not set, before torch is loaded.

    Variables of the environment reach the processes that are started later, too.
    """
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL("libc.so.6")
    for number, variable, bound in (TRIM, MMAP):
        if variable not in os.environ:
            libc.mallopt(number, bound)
