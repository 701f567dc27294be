"""Cooperative cancellation."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from bgjobs import CancellationToken
from stage import LIMIT


def test_a_new_token_asks_for_nothing() -> None:
    """Nothing is requested, and nothing raised, before somebody asks."""
    token = CancellationToken()
    token.raise_if_cancellation_requested()
    assert not token.is_cancellation_requested
    assert not token.wait(0)
    assert repr(token) == "<CancellationToken not requested>"


def test_a_request_stays() -> None:
    """Once requested, cancellation is seen by every later look, and a second request changes nothing."""
    token = CancellationToken()
    token.request_cancellation()
    token.request_cancellation()
    assert token.is_cancellation_requested
    assert token.wait()
    assert repr(token) == "<CancellationToken cancellation requested>"
    with pytest.raises(asyncio.CancelledError, match="through the cancellation token"):
        token.raise_if_cancellation_requested()


def test_no_exception_handler_swallows_it() -> None:
    """What it raises is no `Exception`."""
    assert not issubclass(asyncio.CancelledError, Exception)


def test_a_waiting_thread_is_woken() -> None:
    """`wait` without a limit returns as soon as another thread asks."""
    token, waiting, results = CancellationToken(), threading.Event(), []

    def wait() -> None:
        waiting.set()
        results.append(token.wait())

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(LIMIT)
    token.request_cancellation()
    thread.join(LIMIT)
    assert results == [True]


async def test_a_waiting_coroutine_is_woken_from_another_thread() -> None:
    """`wait_async` returns when a thread asks, while the loop goes on."""
    token = CancellationToken()
    waiting = asyncio.create_task(token.wait_async())
    await asyncio.sleep(0)
    assert not waiting.done()
    await asyncio.to_thread(token.request_cancellation)
    await asyncio.wait_for(waiting, LIMIT)
    await token.wait_async()


def test_whoever_gave_up_waiting_is_forgotten() -> None:
    """After a wait that was cancelled, the token keeps nothing of it: its event loop goes away."""
    token, loops = CancellationToken(), []

    async def give_up() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(token.wait_async(), 0.01)

    asyncio.run(give_up())
    gc.collect()
    assert loops[0]() is None


def test_a_request_between_the_look_and_the_wait_is_not_lost() -> None:
    """Whoever comes to wait at the very moment of the request is woken."""
    for _ in range(200):
        token, both = CancellationToken(), threading.Barrier(2)
        thread = threading.Thread(target=lambda both=both, token=token: (both.wait(), token.request_cancellation()))
        thread.start()
        both.wait()
        assert token.wait(LIMIT)
        thread.join()


def test_a_closed_loop_does_not_keep_others_from_being_woken() -> None:
    """A coroutine whose loop was closed while it waited is passed over."""
    token, results, waiting = CancellationToken(), [], threading.Event()
    loop = asyncio.new_event_loop()
    task = loop.create_task(token.wait_async())
    for _ in range(2):
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    def wait() -> None:
        waiting.set()
        results.append(token.wait(LIMIT))

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(LIMIT)
    token.request_cancellation()
    thread.join(LIMIT)
    assert results == [True]
    assert not task.done()
