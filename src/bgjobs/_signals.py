"""Ctrl-C and SIGTERM as a request to close."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_stop_signal(stop: Callable[[], object]) -> Generator[None]:
    """Have `stop` called, in the main thread, at the first Ctrl-C or SIGTERM within a ``with`` block.

    The handlers from before are back from then on, so that a second Ctrl-C interrupts as usual. Outside the main
    thread, where Python takes no signal handlers, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def handle(_number: int, _frame: object) -> None:
        restore()
        stop()

    for number in SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
