"""Ctrl-C and SIGTERM as a request to close."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from ._runs.threads import waits

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_ENDED = 0  # no signal has this number


@contextmanager
def on_stop_signal(stop: Callable[[], object]) -> Generator[None]:
    """Have `stop` called, in a thread of its own, at the first Ctrl-C or SIGTERM within a ``with`` block.

    A second one goes to the handler from before, so that it interrupts as usual; not one within `waits.echo` seconds,
    since some programs signal a process and its group. Outside the main thread, where Python takes no signal handlers,
    nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _watched_pipe(stop) as writing, _handlers(writing):
        yield


@contextmanager
def _watched_pipe(stop: Callable[[], object]) -> Generator[int]:
    """A pipe whose reader calls `stop` at the number of a signal; gives the end to write to.

    The interpreter writes the number of each signal at once. A handler in Python comes only when the main thread wakes
    up, which may be never, and may interrupt it where it holds a lock that `stop` needs.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        while (number := os.read(reading, 1)[0]) != _ENDED:
            if number in SIGNALS:
                stop()
                return

    watcher = threading.Thread(target=watch, name="bgjobs-signals", daemon=True)
    watcher.start()
    try:
        yield writing
    finally:
        os.write(writing, bytes([_ENDED]))
        watcher.join()
        os.close(reading)
        os.close(writing)


@contextmanager
def _handlers(writing: int) -> Generator[None]:
    """Handlers that have the numbers of signals written to the pipe, and let a second signal through."""
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    first: list[float] = []

    def handle(number: int, _frame: object) -> None:
        if not first:
            first.append(time.monotonic())
        elif time.monotonic() - first[0] > waits.echo:
            restore()
            signal.raise_signal(number)

    fd_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
        signal.set_wakeup_fd(fd_before)
