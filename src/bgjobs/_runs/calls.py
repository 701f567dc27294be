"""How an owner calls code that may be sync or async.

The owner of a run is a task or a thread (see `run`). Both live the same life, written once as coroutines: a task awaits
them; a thread drives them (`drive`), and they never suspend there, because `InThread` blocks instead.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from concurrent import futures
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

from .._token import CancellationToken
from .threads import result_of, start_task, wait_in_thread

T = TypeVar("T")

#: What closes a scope: ``__exit__``, or ``__aexit__``, or a stand-in.
Leave = Callable[..., object]


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

    async def within(self, seconds: float, func: Callable[..., object], /, *args: object) -> object:
        """Call `func`, and cancel what it awaits after so many seconds."""
        async with asyncio.timeout(seconds):
            return await self(func, *args)

    async def wait(self, future: futures.Future[T], seconds: float) -> T:
        """The result of a future, which is cancelled where it does not come within so many seconds."""
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(future)

    async def sleep(self, token: CancellationToken, seconds: float) -> None:
        """Let time pass, until cancellation is requested at the latest."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await token.wait_async()

    async def close(self, leave: Leave, *error: object) -> object:
        """Leave the scope in this task."""
        left = leave(*error)
        return await left if inspect.isawaitable(left) else left

    async def enter(self, scope: Any, seconds: float | None = None) -> tuple[Any, Leave]:
        """Enter the scope in this task, as an async one where it is both; that and leaving it get so many seconds."""
        if hasattr(scope, "__aenter__"):
            leave = scope.__aexit__ if seconds is None else lambda *error: _awaited(scope.__aexit__(*error), seconds)
            return await _awaited(scope.__aenter__(), seconds), leave
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

    async def within(self, seconds: float, func: Callable[..., object], /, *args: object) -> object:
        """Call `func`, and cancel what is awaited in the event loop after so many seconds."""
        value = func(*args)
        return wait_in_thread(_awaited(value, seconds), self._get_loop()) if inspect.isawaitable(value) else value

    async def wait(self, future: futures.Future[T], seconds: float) -> T:
        """The result of a future, which is cancelled where it does not come within so many seconds."""
        try:
            return future.result(seconds)
        finally:
            future.cancel()

    async def sleep(self, token: CancellationToken, seconds: float) -> None:
        """Let time pass, until cancellation is requested at the latest."""
        token.wait(seconds)

    async def close(self, leave: Leave, *error: object) -> object:
        """Leave the scope in this thread."""
        return await self(leave, *error)

    async def enter(self, scope: Any, seconds: float | None = None) -> tuple[Any, Leave]:
        """Enter the scope in this thread; an async one is held by one task, and its context variables come here."""
        if hasattr(scope, "__enter__"):
            return scope.__enter__(), scope.__exit__
        held = _Held(scope, self._get_loop(), seconds)
        instance, context = result_of(held.entered)
        for variable, value in context.items():
            variable.set(value)
        return instance, held.leave


Calls = InTask | InThread


async def _awaited(value: Awaitable[T], seconds: float | None = None) -> T:
    async with asyncio.timeout(seconds):
        return await value


class _Held:
    """An async scope around a thread's work: one task enters it, waits, and leaves it."""

    def __init__(self, scope: Any, loop: asyncio.AbstractEventLoop, seconds: float | None) -> None:
        self._seconds = seconds
        self.entered: futures.Future[Any] = futures.Future()
        self._release: futures.Future[tuple[object, ...]] = futures.Future()
        self._left: futures.Future[object] = futures.Future()
        start_task(loop, lambda: self._hold(scope), lambda: self.entered.cancel() or self._left.cancel())

    async def _hold(self, scope: Any) -> None:
        try:
            instance = await _awaited(scope.__aenter__(), self._seconds)
        except BaseException as error:  # noqa: BLE001 - handed on
            self.entered.set_exception(error)
            return
        self.entered.set_result((instance, copy_context()))
        try:
            error_info = await asyncio.wrap_future(self._release)
        except asyncio.CancelledError as error:  # the loop is being closed: the scope cannot outlive it
            error_info = (type(error), error, error.__traceback__)
        try:
            self._left.set_result(await _awaited(scope.__aexit__(*error_info), self._seconds))
        except BaseException as error:  # noqa: BLE001 - handed on
            self._left.set_exception(error)

    def leave(self, *error_info: object) -> object:
        """Have the task leave the scope, and wait for that."""
        with suppress(futures.InvalidStateError):  # cancelled: the task has left, or is leaving
            self._release.set_result(error_info)
        return result_of(self._left)


def drive(life: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in this thread, where nothing in it suspends."""
    try:
        life.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    life.close()  # pragma: no cover - a fault of ours
    raise AssertionError("a run that a thread owns must block, not suspend")  # pragma: no cover
