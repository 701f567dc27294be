"""How the owner of a run, a task or a thread, calls code that may be sync or async."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from .threads import wait_in_thread

T = TypeVar("T")


class Calls(Protocol):
    """How the owner of a run calls the job's code, which may be sync or async."""

    async def __call__(self, func: Callable[..., object], /, *args: object, **kwargs: object) -> object:
        """Call `func` and await what it returns, if need be."""
        ...


async def in_task(func: Callable[..., object], /, *args: object, **kwargs: object) -> object:
    """`Calls` of a task: sync code goes to a thread, so that it never blocks the event loop.

    A thread cannot be cancelled: when the task is, it waits for the thread to end first; at a second time it does not,
    since an event loop that is being closed would wait for ever.
    """
    if inspect.iscoroutinefunction(func):
        return await func(*args, **kwargs)
    thread = asyncio.ensure_future(asyncio.to_thread(_attempt, func, args, kwargs))
    try:
        value, error = await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        raise
    if error is not None:
        raise error
    return await value if inspect.isawaitable(value) else value


def _attempt(
    func: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[object, BaseException | None]:
    """Call `func`, and return its value or its error; some errors, raised, would not come through a future."""
    try:
        return func(*args, **kwargs), None
    except BaseException as error:  # noqa: BLE001 - raised again by who asked
        return None, error


class InThread:
    """`Calls` of a thread: async code goes to the event loop `get_loop()`, and the thread waits for it."""

    def __init__(self, get_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._get_loop = get_loop

    async def __call__(self, func: Callable[..., object], /, *args: object, **kwargs: object) -> object:
        """Call `func`; block this thread where it must be awaited."""
        value = func(*args, **kwargs)
        if value is None or not inspect.isawaitable(value):
            return value
        return wait_in_thread(value, self._get_loop())


def drive(half: Coroutine[Any, Any, T]) -> T:
    """Run one half of a run's life in this thread, where nothing in it suspends."""
    try:
        half.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    half.close()
    raise AssertionError("a run that a thread owns must block, not suspend")
