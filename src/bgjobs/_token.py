"""Cooperative cancellation: how a run learns that it should end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress


class CancellationToken:
    """Tells a running job that it should come to an end; the counterpart of .NET's ``CancellationToken``.

    A job gets one by naming a parameter ``cancellation_token``. Cancellation is requested when the jobs are closed and
    when the run's ``timeout`` is over; it is a request, never an interruption. Safe to use from any thread. To test a
    job, make a token and call `request_cancellation` yourself.
    """

    _lock = threading.Lock()  # one for all tokens, held for a moment: a run need not make its own
    _requested = False
    _wakers: tuple[Callable[[], object], ...] = ()

    @property
    def is_cancellation_requested(self) -> bool:
        """Whether the job should come to an end. Once true, it stays true."""
        return self._requested

    def raise_if_cancellation_requested(self) -> None:
        """End the job here if cancellation was requested.

        Raises:
            asyncio.CancelledError: Cancellation was requested. It is no `Exception`, so that an ``except Exception`` in
                the job does not swallow it; bgjobs reports the run as cancelled (or timed out), not as failed.
        """
        if self._requested:
            raise asyncio.CancelledError("cancellation was requested through the cancellation token")

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until cancellation is requested: a sleep that ends early.

        Not for coroutines, which it would stop together with their event loop; see `wait_async`.

        Args:
            timeout: The longest time to wait, in seconds; ``None`` or infinity waits without limit.

        Returns:
            True when cancellation was requested, False when the time was over first.
        """
        if not self._requested:
            woken = threading.Event()
            with self._waker(woken.set):
                woken.wait(None if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        return self._requested

    async def wait_async(self) -> None:
        """Wait, without blocking the event loop, until cancellation is requested, from whatever thread."""
        if self._requested:
            return
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed in the meantime: nobody waits there any more
                loop.call_soon_threadsafe(woken.set)

        with self._waker(wake):
            await woken.wait()

    def request_cancellation(self) -> None:
        """Ask the job to end, and wake everybody who waits on this token. A second call changes nothing."""
        with self._lock:
            self._requested = True
            wakers, self._wakers = self._wakers, ()
        for wake in wakers:
            wake()

    @contextmanager
    def _waker(self, wake: Callable[[], object]) -> Generator[None]:
        """Have `wake` called at the request, for the time of a ``with`` block; at once where the request came first."""
        with self._lock:
            requested = self._requested
            if not requested:  # pragma: no branch - else the request came since the caller looked
                self._wakers += (wake,)
        if requested:  # pragma: no cover - as above
            wake()
        try:
            yield
        finally:
            with self._lock:
                self._wakers = tuple(waker for waker in self._wakers if waker is not wake)

    @classmethod
    def forked(cls) -> None:
        """Renew the lock in a forked child, since another thread of the parent may have held it."""
        cls._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<CancellationToken {'cancellation requested' if self._requested else 'not requested'}>"
