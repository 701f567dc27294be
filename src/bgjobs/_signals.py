"""How a facade is asked to close: by Ctrl-C and SIGTERM, from inside a run, by somebody else's signal handler.

The interpreter's own handler, in C, writes the number of each signal to a socket at once, and a thread that reads it
makes the request. A handler in Python alone would not do: it waits for the main thread to wake up, which is never
where the signal comes just before that goes to sleep, and it may interrupt it where it holds a lock that the request
needs. It writes to the socket, too, since an event loop's ``add_signal_handler`` has the interpreter write elsewhere;
the loop then wakes up the main thread for it.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from . import _exit
from ._exit import SIGNALS
from ._runs.threads import start_thread, waits

#: The handlers that Python begins with.
_PYTHONS = (signal.SIG_DFL, signal.default_int_handler)


class Stopping:
    """How one facade is asked to close, and which thread is at it.

    Attributes:
        requested: Set when somebody has asked for it, and when it is done.
    """

    def __init__(self, close: Callable[[], object], seconds: float) -> None:
        self.requested = threading.Event()
        self._close = close
        self._seconds = seconds
        self._lock = threading.RLock()  # held while warming up and while closing
        self._is_taken = False  # so is this; a signal handler that interrupts that thread gets the lock
        self._server: threading.Thread | None = None

    def request(self) -> None:
        """Have another thread close the jobs, since this one must not wait for that."""
        self.requested.set()
        start_thread(self._close, "bgjobs-close")

    @contextmanager
    def turn(self, seconds: float) -> Generator[bool]:
        """Warm up or close, one thread at a time.

        Gives False, and no turn, where this very thread has it, or another one does for longer than so many seconds.
        """
        is_free = self._lock.acquire(timeout=seconds)
        is_ours = is_free and not self._is_taken
        try:
            if is_ours:
                self._is_taken = True
            yield is_ours
        finally:
            if is_ours:
                self._is_taken = False
            if is_free:
                self._lock.release()

    @contextmanager
    def serving(self) -> Generator[None]:
        """This thread does nothing else until the jobs are closed, which Ctrl-C and SIGTERM request.

        They are to have ended the process `seconds` later.
        """
        self._server = threading.current_thread()
        try:
            with on_stop_signal(self.request, self._seconds):
                yield
        finally:
            self._server = None

    @property
    def is_serving(self) -> bool:
        """Whether a thread serves."""
        return self._server is not None

    @property
    def is_serving_here(self) -> bool:
        """Whether this thread does, so that it must not wait for a close."""
        return self._server is threading.current_thread()


@contextmanager
def on_stop_signal(stop: Callable[[], object], seconds: float) -> Generator[None]:
    """Have `stop` called, in another thread, at the first Ctrl-C or SIGTERM within a ``with`` block.

    Where the block is not left within `seconds` of it, the process ends. A second signal goes to the handler from
    before; if that was Python's own, it kills the process. One within `waits.echo` seconds is no second one, since some
    programs signal a process and its group. Outside the main thread, where Python takes no signal handlers, nothing is
    done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    watcher = start_thread(partial(_watch, reader, stop, seconds), "bgjobs-signals")

    def forked() -> None:
        """In a child, whose signals are none of its parent's."""
        before.close()
        signal.set_wakeup_fd(-1)
        reader.close()
        writer.close()

    try:
        with _handled(writer) as before:
            _exit.in_child.append(forked)
            before.callback(_exit.in_child.remove, forked)
            yield
    finally:
        with suppress(OSError):  # a child has closed its copy
            writer.shutdown(socket.SHUT_RDWR)
        watcher.join()
        reader.close()
        writer.close()


@contextmanager
def _handled(writer: socket.socket) -> Generator[ExitStack]:
    """Have the numbers of signals written to a socket; gives what restores the handlers from before."""
    first: list[float] = []
    earlier = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}

    def handle(number: int, _frame: object) -> None:
        if not first:
            first.append(time.monotonic())
            writer.send(bytes([number]))
        elif time.monotonic() - first[0] > waits.echo:
            before.close()
            handler = earlier[signal.Signals(number)]
            is_pythons = handler in _PYTHONS
            signal.signal(number, signal.SIG_DFL if is_pythons else handler)
            signal.raise_signal(number)
            if is_pythons:  # pragma: no cover - the first process of a container is not killed by that
                os._exit(128 + number)

    with ExitStack() as before:
        before.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False))
        for number, handler in earlier.items():
            before.callback(signal.signal, number, handler)
            signal.signal(number, handle)
        yield before


def _watch(reader: socket.socket, stop: Callable[[], object], seconds: float) -> None:
    """Call `stop` once, at the first number of a signal to stop, and read on, until the end or the last moment."""
    deadline: float | None = None
    try:
        while read := reader.recv(1):
            if read[0] in SIGNALS and deadline is None:
                deadline = time.monotonic() + seconds
                with suppress(RuntimeError):  # no thread can be had
                    stop()
            if deadline is not None:
                reader.settimeout(max(0.001, deadline - time.monotonic()))
    except TimeoutError:
        _exit.end(f"the process did not end within {seconds:g} s of a signal")
    if deadline is not None:
        _exit.exit_by(deadline)
