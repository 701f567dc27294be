"""The event loop of a facade whose scheduler has none: all its async code runs in one long-lived loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Waits:
    """Every waiting time of the package, in seconds, beside the ``shutdown_timeout`` of the settings.

    Attributes:
        report: For an event loop to begin to dispatch the event of a run.
        cancelled: For coroutines to end that were cancelled when the jobs are closed.
        loop: For an event loop of ours to end what is left in it.
        scheduler: For a scheduler to shut down.
        flush: For runs that wait for a thread to be refused when the jobs are closed.
        echo: Within which a second signal counts as the same one.
    """

    report = 5.0
    cancelled = 5.0
    loop = 5.0
    scheduler = 10.0
    flush = 1.0
    echo = 0.5


#: The waiting times in use; tests replace single ones.
waits = Waits()


class LoopThread:
    """An event loop in a daemon thread of its own, started at its first use.

    One loop for all runs, so that a pooled HTTP client or database connection survives from run to run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        with self._lock:
            if self._loop is None or self._loop.is_closed():
                started = threading.Event()
                self._thread = threading.Thread(target=self._run, args=(started,), name="bgjobs-loop", daemon=True)
                self._thread.start()
                started.wait()
            assert self._loop is not None
            return self._loop

    def stop(self) -> None:
        """End the loop and what is left in it; harmless when it never started. `get` starts a new one."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            with suppress(RuntimeError):  # it is closed already
                loop.call_soon_threadsafe(loop.stop)
            thread.join(waits.loop)

    def _run(self, started: threading.Event) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            started.set()
            self._loop.run_forever()


def wait_in_thread(awaitable: Awaitable[T], loop: asyncio.AbstractEventLoop) -> T:
    """Block this thread, which must not be the loop's own, until `loop` has awaited `awaitable`."""

    async def attempted() -> tuple[T | None, BaseException | None]:
        try:
            return await awaitable, None
        except BaseException as error:  # noqa: BLE001 - a SystemExit that left a task would end the loop
            return None, error

    value, error = asyncio.run_coroutine_threadsafe(attempted(), loop).result()
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def in_daemon_thread(func: Callable[[], T]) -> asyncio.Future[T]:
    """Call `func` in a thread of its own, so that no busy thread pool can hold it up; to be awaited."""
    future: Future[T] = Future()

    def work() -> None:
        future.set_running_or_notify_cancel()  # from here on it cannot be cancelled: who awaited it may be gone
        try:
            future.set_result(func())
        except BaseException as exc:  # noqa: BLE001 - handed on
            future.set_exception(exc)

    threading.Thread(target=work, name="bgjobs-wait", daemon=True).start()
    return asyncio.wrap_future(future)


def within(seconds: float, func: Callable[[], object]) -> bool:
    """Call `func` in a thread of its own, and raise what it raises. Returns False if it is not done in that time.

    Where no thread can be started, as at the exit of Python 3.12, it is called here, without a limit.
    """
    errors: list[BaseException] = []

    def work() -> None:
        try:
            func()
        except BaseException as exc:  # noqa: BLE001 - handed on
            errors.append(exc)

    thread = threading.Thread(target=work, name="bgjobs-within", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        func()
        return True
    thread.join(seconds)
    for error in errors:
        raise error
    return not thread.is_alive()
