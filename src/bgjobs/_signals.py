"""Ctrl-C and SIGTERM as a request to close.

The interpreter's own handler, in C, writes the number of each signal to a pipe at once, and a thread that reads the
pipe makes the request. A handler in Python alone would not do: it waits for the main thread to wake up, which is never
where the signal comes just before that goes to sleep, and it may interrupt it where it holds a lock that the request
needs. It writes to the pipe, too, since an event loop's ``add_signal_handler`` has the interpreter write elsewhere; the
loop then wakes up the main thread for it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager

from ._runs.threads import waits

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_ENDED = 0  # no signal has this number


@contextmanager
def on_stop_signal(stop: Callable[[], object]) -> Generator[None]:
    """Have `stop` called, in another thread, at the first Ctrl-C or SIGTERM within a ``with`` block.

    A second one goes to the handler from before, so that it interrupts as usual; not one within `waits.echo` seconds,
    since some programs signal a process and its group. Outside the main thread, where Python takes no signal handlers,
    nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first: list[float] = []

    def handle(number: int, _frame: object) -> None:
        if not first:
            first.append(time.monotonic())
            os.write(writing, bytes([number]))
        elif time.monotonic() - first[0] > waits.echo:
            before.close()
            signal.raise_signal(number)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=_watch, args=(reading, stop), name="bgjobs-signals", daemon=True)
    watcher.start()
    try:
        with ExitStack() as before:
            before.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writing, warn_on_full_buffer=False))
            for number in SIGNALS:
                before.callback(signal.signal, number, signal.getsignal(number) or signal.SIG_DFL)
                signal.signal(number, handle)
            yield
    finally:
        os.write(writing, bytes([_ENDED]))
        watcher.join()
        os.close(reading)
        os.close(writing)


def _watch(reading: int, stop: Callable[[], object]) -> None:
    """Call `stop` once, at the first number of a signal to stop, and read on, since a full pipe takes no more."""
    is_asked = False
    for number in iter(lambda: os.read(reading, 1)[0], _ENDED):
        if number in SIGNALS and not is_asked:
            is_asked = True
            stop()
