"""Ends a command within seconds after Ctrl-C or SIGTERM."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Time limits, s: for the clean-up of a command, and for the exit of the interpreter after all
#: files are written.
GRACE, LEAVING = 3.0, 1.0


@contextmanager
def stops_on_signals(command: str) -> Iterator[None]:
    """Exit with 128 + the number of the signal, and end child processes.

    Training has its own handlers, which first finish the step.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.terminate()
        kill_after(GRACE, 128 + number)
        print(f"\ndeepesi {command}: stopped by {signal.Signals(number).name}", file=sys.stderr)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.code, int) and ended.code > 128:
            kill_after(LEAVING, ended.code)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def kill_after(seconds: float, status: int) -> None:
    """Kill this process after some seconds, unless it has ended."""
    timer = threading.Timer(seconds, os._exit, (status,))
    timer.daemon = True
    timer.start()
