"""Ctrl-C and SIGTERM as a request to close."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: Seconds within which a second signal is taken for the same one.
ECHO = 0.5

_SIGNALLED, _ENDED = b"s", b"e"


@contextmanager
def on_stop_signal(stop: Callable[[], object]) -> Generator[None]:
    """Have `stop` called, in a thread of its own, at the first Ctrl-C or SIGTERM within a ``with`` block.

    A second one goes to the handler from before, so that it interrupts as usual; not one within `ECHO` seconds, since
    some programs signal a process and its group. Outside the main thread, where Python takes no signal handlers,
    nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A handler interrupts the main thread anywhere, also where that holds a lock which `stop` needs: it only writes.
    reading, writing = os.pipe()

    def watch() -> None:
        if os.read(reading, 1) == _SIGNALLED:
            stop()

    watcher = threading.Thread(target=watch, name="bgjobs-signals", daemon=True)
    watcher.start()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    first: list[float] = []

    def handle(number: int, _frame: object) -> None:
        if not first:
            first.append(time.monotonic())
            os.write(writing, _SIGNALLED)
        elif time.monotonic() - first[0] > ECHO:
            restore()
            signal.raise_signal(number)

    for number in SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
        os.write(writing, _ENDED)
        watcher.join()
        os.close(reading)
        os.close(writing)
