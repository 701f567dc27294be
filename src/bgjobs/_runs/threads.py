"""Threads and event loops: how a thread waits for async code, how a task calls sync code, and how long anybody waits.

The owner of a run is a task or a thread (see `run`). Both live the same life, written once as coroutines: a task awaits
them; a thread drives them (`drive`), and they never suspend there, because `InThread` blocks instead.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent import futures
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")

#: What closes a scope: ``__exit__``, or ``__aexit__``, or a stand-in.
Leave = Callable[..., object]


class Waits:
    """Every waiting time of the package, in seconds, beside the ``shutdown_timeout`` of the settings.

    Attributes:
        hold: For a scheduler to stop looking at our jobs, before the runs in progress are asked to end.
        report: For an event loop to start dispatching the event of a run that a thread owns.
        cancelled: For coroutines to end that were cancelled when the jobs are closed.
        loop: For an event loop of ours to end what is left in it.
        scheduler: For a scheduler to shut down.
        echo: A second signal within this time counts as the same one.
        sleep: The longest sleep of a scheduler of ours, so that a suspended host or a changed clock is noticed.
    """

    hold = 1.0
    report = 5.0
    cancelled = 5.0
    loop = 5.0
    scheduler = 10.0
    echo = 0.5
    sleep = 30.0


#: The waiting times in use; tests replace single ones.
waits = Waits()


# -- threads of our own ----------------------------------------------------------------------------------------------


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
        threading.Thread(target=work, name="bgjobs-wait", daemon=True).start()
    except RuntimeError:
        work()
    return future


def within(seconds: float, func: Callable[[], object]) -> bool:
    """Call `func` in a thread of its own, and raise what it raises. Returns False if it is not done in that time."""
    future = in_daemon_thread(func)
    if not futures.wait([future], seconds).done:
        return False
    future.result()
    return True


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
                thread = threading.Thread(target=self._run, args=(loop,), name="bgjobs-loop", daemon=True)
                thread.start()
                self._loop, self._thread = loop, thread
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
        thread.join(waits.loop)

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
            loop.run_forever()


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
    return _result(ended)


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


# -- how an owner calls code that may be sync or async ---------------------------------------------------------------


class InTask:
    """How a task calls code, and enters its scope: sync code goes to a thread, so that it never blocks the loop."""

    async def __call__(self, func: Callable[..., object], /, *args: object, **kwargs: object) -> object:
        """Call `func`; a thread cannot be cancelled, so a cancelled task first waits for it.

        A second cancellation (a loop that is being closed) gives up waiting.
        """
        if inspect.iscoroutinefunction(func):
            return await func(*args, **kwargs)

        def attempt() -> tuple[object, BaseException | None]:
            try:
                return func(*args, **kwargs), None
            except BaseException as error:  # noqa: BLE001 - a StopIteration would not come through a future
                return None, error

        thread = asyncio.ensure_future(asyncio.to_thread(attempt))
        try:
            value, error = await asyncio.shield(thread)
        except asyncio.CancelledError:
            await asyncio.wait([thread])
            raise
        if error is not None:
            raise error
        return await value if inspect.isawaitable(value) else value

    async def close(self, leave: Leave, *error: object) -> object:
        """Leave the scope in this task."""
        left = leave(*error)
        return await left if inspect.isawaitable(left) else left

    async def enter(self, scope: Any) -> tuple[Any, Leave]:
        """Enter the scope in this task, as an async one where it is both."""
        if hasattr(scope, "__aenter__"):
            return await scope.__aenter__(), scope.__aexit__
        return scope.__enter__(), scope.__exit__


in_task = InTask()


class InThread:
    """The same for a thread: async code goes to the event loop `get_loop()`, and the thread waits for it."""

    def __init__(self, get_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._get_loop = get_loop

    async def __call__(self, func: Callable[..., object], /, *args: object, **kwargs: object) -> object:
        """Call `func`; block this thread where what it returns must be awaited."""
        value = func(*args, **kwargs)
        if value is None or not inspect.isawaitable(value):
            return value
        return wait_in_thread(_awaited(value), self._get_loop())

    async def close(self, leave: Leave, *error: object) -> object:
        """Leave the scope in this thread."""
        return await self(leave, *error)

    async def enter(self, scope: Any) -> tuple[Any, Leave]:
        """Enter the scope in this thread; an async one is held by one task, and its context variables come here."""
        if hasattr(scope, "__enter__"):
            return scope.__enter__(), scope.__exit__
        held = _Held(scope, self._get_loop())
        instance, context = _result(held.entered)
        for variable, value in context.items():
            variable.set(value)
        return instance, held.leave


Calls = InTask | InThread


async def _awaited(value: Awaitable[T]) -> T:
    return await value


def _result(future: futures.Future[T]) -> T:
    try:
        return future.result()
    except futures.CancelledError:
        raise asyncio.CancelledError from None


class _Held:
    """An async scope around a thread's work: one task enters it, waits, and leaves it."""

    def __init__(self, scope: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.entered: futures.Future[Any] = futures.Future()
        self._release: futures.Future[tuple[object, ...]] = futures.Future()
        self._left: futures.Future[object] = futures.Future()
        start_task(loop, lambda: self._hold(scope), lambda: self.entered.cancel() or self._left.cancel())

    async def _hold(self, scope: Any) -> None:
        try:
            instance = await scope.__aenter__()
        except BaseException as error:  # noqa: BLE001 - handed on
            self.entered.set_exception(error)
            return
        self.entered.set_result((instance, copy_context()))
        try:
            error_info = await asyncio.wrap_future(self._release)
        except asyncio.CancelledError as error:  # the loop is being closed: the scope cannot outlive it
            error_info = (type(error), error, error.__traceback__)
        try:
            self._left.set_result(await scope.__aexit__(*error_info))
        except BaseException as error:  # noqa: BLE001 - handed on
            self._left.set_exception(error)

    def leave(self, *error_info: object) -> object:
        """Have the task leave the scope, and wait for that."""
        with suppress(futures.InvalidStateError):  # cancelled: the task has left, or is leaving
            self._release.set_result(error_info)
        return _result(self._left)


def drive(life: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in this thread, where nothing in it suspends."""
    try:
        life.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    life.close()  # pragma: no cover - a fault of ours
    raise AssertionError("a run that a thread owns must block, not suspend")  # pragma: no cover
