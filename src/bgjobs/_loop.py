"""The event loop of a facade whose scheduler has none: all its async code runs in one long-lived loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

#: Seconds that `LoopThread.stop` gives the loop to end what is left in it.
STOP_TIMEOUT = 5.0


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
            if self._loop is None:
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
            loop.call_soon_threadsafe(loop.stop)
            thread.join(STOP_TIMEOUT)

    def _run(self, started: threading.Event) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            started.set()
            self._loop.run_forever()


def wait_in_thread(awaitable: Awaitable[T], loop: asyncio.AbstractEventLoop) -> T:
    """Block this thread, which must not be the loop's own, until `loop` has awaited `awaitable`."""

    async def awaited() -> T:
        return await awaitable

    return asyncio.run_coroutine_threadsafe(awaited(), loop).result()


def in_daemon_thread(func: Callable[[], T]) -> asyncio.Future[T]:
    """Call `func` in a thread of its own, so that no busy thread pool can hold it up; to be awaited."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(func())
        except BaseException as exc:  # noqa: BLE001 - handed on
            future.set_exception(exc)

    threading.Thread(target=work, name="bgjobs-wait", daemon=True).start()
    return asyncio.wrap_future(future)
