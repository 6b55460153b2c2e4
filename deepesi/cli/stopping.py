"""A command that is asked to stop, by Ctrl-C or SIGTERM, ends within seconds."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Seconds after which a command that tidies up is ended all the same; and the interpreter, once
#: everything is written.
GRACE, LEAVING = 3.0, 1.0


@contextmanager
def stops_on_signals(command: str) -> Iterator[None]:
    """End with 128 + the number of the signal, the processes of this one with it.

    Training has handlers of its own, which finish the step first.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.terminate()
        end_within(GRACE, 128 + number)
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
            end_within(LEAVING, ended.code)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_within(seconds: float, status: int) -> None:
    """End this process after some seconds, whatever it is doing, unless it has ended by itself."""
    timer = threading.Timer(seconds, os._exit, (status,))
    timer.daemon = True
    timer.start()
