"""The way to a claim store: a few threads make all calls, so that a limit holds for whatever a driver hangs in."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from .._errors import ClaimStoreError
from .._runs import log
from .._runs.threads import start_thread, waits

T = TypeVar("T")

_THREADS = 4


class Line:
    """Calls the store, and knows whether it answers.

    Args:
        changed: Called when the store answers no more (True), and when it answers again (False).

    Attributes:
        down: What is wrong with the store; ``None`` where it has answered last.
    """

    def __init__(self, changed: Callable[[bool], object]) -> None:
        self.down: str | None = None
        self._changed = changed
        self._lock = threading.Lock()  # of `down`
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._failed: deque[Callable[[], object]] = deque()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads; what is asked before waits for them.

        Raises:
            RuntimeError: No thread can be started; `close` ends those that could.
        """
        for _ in range(_THREADS):
            self._threads.append(start_thread(self._work, "bgjobs-claims"))

    def submit(self, call: Callable[..., T], *args: Any) -> Future[T]:
        """Have a thread call the store."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                answer = call(*args)
            except BaseException as error:  # noqa: BLE001 - handed on
                self._note(str(error))
                future.set_exception(error)
            else:
                self._note(None)
                future.set_result(answer)

        self._queue.put(work)
        return future

    def insist(self, call: Callable[..., object], *args: Any) -> None:
        """Have a thread call the store; where that fails, `again` repeats it."""

        def ended(future: Future[object]) -> None:
            if future.exception() is not None:
                self._failed.append(partial(self.insist, call, *args))

        self.submit(call, *args).add_done_callback(ended)

    def again(self) -> None:
        """Repeat what has failed, if the store answers by now."""
        for _ in range(len(self._failed) if self.down is None else 0):
            self._failed.popleft()()

    def answer(self, future: Future[T], seconds: float) -> T:
        """Wait so long for an answer.

        Raises:
            ClaimStoreError: It does not come.
        """
        try:
            return future.result(max(0.05, seconds))
        except TimeoutError:
            raise ClaimStoreError(self.silent()) from None
        finally:
            future.cancel()

    def silent(self) -> str:
        """An answer has not come in time. Returns that in words."""
        self._note(problem := too_late())
        return problem

    def _note(self, problem: str | None) -> None:
        """One warning an outage, and a line at its end."""
        with self._lock:
            before, self.down = self.down, problem
        if problem is not None and before is None:
            log.warning(problem)
            self._changed(True)
        elif problem is None and before is not None:
            log.info("the claim store answers again")
            self._changed(False)

    def _work(self) -> None:
        while True:
            work = self._queue.get()
            if work is not None:
                work()
                continue
            self._queue.put(None)  # for the others
            if self._queue.qsize() == 1:  # what was asked last may have asked for more
                return

    def close(self) -> None:
        """Give what was asked for its time; what is asked from then on gets no answer."""
        deadline = time.monotonic() + waits.claim
        self._queue.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def too_late() -> str:
    """What is said of a store that has not answered in time."""
    return f"the claim store does not answer within {waits.claim:g} s"
