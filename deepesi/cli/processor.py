"""Sets processor and memory options for faster training, unless the user set them."""

import ctypes
import os
import platform

#: Waiting threads release their core, because spinning threads are very slow while other jobs run.
#: Read once, when torch is loaded.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
#: With low bounds (bytes), glibc releases and requests large arrays in every step. Keys: numbers of
#: ``mallopt``, and the variables with the same effect.
TRIM, MMAP = (-1, "MALLOC_TRIM_THRESHOLD_", 2**31 - 1), (-3, "MALLOC_MMAP_THRESHOLD_", 2**25)


def prepare_processor() -> None:
    """Set the options that are not set, before torch is loaded.

    Variables of the environment also apply to processes that are started later.
    """
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL("libc.so.6")
    for number, variable, bound in (TRIM, MMAP):
        if variable not in os.environ:
            libc.mallopt(number, bound)
