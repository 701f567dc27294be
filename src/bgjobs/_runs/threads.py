"""Threads and event loops: how a thread waits for async code, and how long anybody waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent import futures
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Waits:
    """Every waiting time of the package, in seconds, beside the ``shutdown_timeout`` of the settings.

    Attributes:
        hold: For a scheduler to stop looking at our jobs, before the runs in progress are asked to end.
        report: For an event loop to start dispatching the event of a run that a thread owns.
        cancelled: For coroutines to end that were cancelled when the jobs are closed.
        close: For everything that a close does after the ``shutdown_timeout``, the former included.
        exit: For `run` to come back after the ``shutdown_timeout``; then the process ends.
        last: For the process to end, then: five seconds after the ``shutdown_timeout``.
        echo: A second signal within this time counts as the same one.
        handler: For an ``on_exception`` to end, where its job has no timeout.
        overdue: For a job to start that is due, before `Health` calls that a problem.
        claim: For a claim store to answer, and for the last releases when the jobs are closed.
        linger: For the next report, before the thread of the observers ends.
        status: Between two writings of a status file, where the health does not change.
        look: Between two looks at the health for it.
        stale: The age from which a status file is that of a process that hangs or is gone.
        sleep: The longest sleep of a scheduler of ours, so that a suspended host or a changed clock is noticed.
    """

    hold = 1.0
    report = 5.0
    cancelled = 3.0
    close = 4.0
    exit = 4.5
    last = 0.5
    echo = 0.5
    handler = 60.0
    overdue = 10.0
    claim = 5.0
    status = 10.0
    look = 1.0
    stale = 30.0
    linger = 5.0
    sleep = 30.0


#: The waiting times in use; tests replace single ones.
waits = Waits()


# -- threads of our own ----------------------------------------------------------------------------------------------


def start_thread(target: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemon thread.

    Raises:
        RuntimeError: No thread can be started.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def in_daemon_thread(func: Callable[[], T]) -> futures.Future[T]:
    """Call `func` in a thread of its own, which no busy thread pool can delay.

    Where no thread can be started, as at the exit of Python 3.12, the call happens here.
    """
    future: futures.Future[T] = futures.Future()

    def work() -> None:
        future.set_running_or_notify_cancel()  # from here on it cannot be cancelled: its waiter may be gone
        try:
            future.set_result(func())
        except BaseException as error:  # noqa: BLE001 - handed on
            future.set_exception(error)

    try:
        start_thread(work, "bgjobs-wait")
    except RuntimeError:
        work()
    return future


def within(deadline: float, func: Callable[[], T]) -> futures.Future[T]:
    """Call `func` in a thread of its own, wait for it until then, but a moment at least, and raise what it raises."""
    future = in_daemon_thread(func)
    if futures.wait([future], max(0.05, deadline - time.monotonic())).done:
        future.result()
    return future


class LoopThread:
    """An event loop in a daemon thread, started at its first use.

    One loop for all runs, so that a pooled HTTP client or database connection survives from run to run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: futures.Future[asyncio.AbstractEventLoop] | None = None
        self._thread: threading.Thread | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        """The running loop.

        Raises:
            OSError: No event loop can be made (no file descriptor is left).
            RuntimeError: No thread can be started.
        """
        with self._lock:
            loop = self._loop
            if loop is None or (loop.done() and (loop.exception() or loop.result().is_closed())):
                loop = futures.Future()
                self._thread = start_thread(partial(self._run, loop), "bgjobs-loop")
                self._loop = loop
        return loop.result()

    def stop(self) -> None:
        """End the loop and what is left in it; harmless when it never started. `get` starts a new one."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        with suppress(RuntimeError, OSError):  # it is closed already, or was never made
            running = loop.result()
            running.call_soon_threadsafe(running.stop)
        thread.join(waits.close)

    @staticmethod
    def _run(made: futures.Future[asyncio.AbstractEventLoop]) -> None:
        try:
            runner = asyncio.Runner()
            loop = runner.get_loop()
        except BaseException as error:  # noqa: BLE001 - handed on to who asked for the loop
            made.set_exception(error)
            return
        with runner:
            made.set_result(loop)
            while True:
                try:
                    loop.run_forever()
                except BaseException:  # noqa: BLE001 - a SystemExit of a task that a job has started; asyncio tells of it
                    continue
                break


def wait_in_thread(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Block this thread, which must not be the loop's own, until `loop` has run a coroutine in a task.

    Raises:
        asyncio.CancelledError: The task was cancelled, or the loop was closed.
    """
    ended: futures.Future[T] = futures.Future()

    async def attempt() -> None:
        try:
            ended.set_result(await coroutine)
        except BaseException as error:  # noqa: BLE001 - a SystemExit that leaves a task would end the loop
            ended.set_exception(error)

    start_task(loop, attempt, lambda: ended.cancel() and coroutine.close())
    return result_of(ended)


def start_task(
    loop: asyncio.AbstractEventLoop, attempt: Callable[[], Coroutine[Any, Any, None]], over: Callable[[], object]
) -> None:
    """Start a task in another thread's loop, in a copy of this context; call `over` when it has ended.

    That is the only notice of a task that was cancelled before its first step.

    Raises:
        RuntimeError: The loop is closed.
    """

    def start() -> None:
        loop.create_task(attempt()).add_done_callback(lambda _: over())

    loop.call_soon_threadsafe(start, context=copy_context())


def result_of(future: futures.Future[T]) -> T:
    try:
        return future.result()
    except futures.CancelledError:
        raise asyncio.CancelledError from None
