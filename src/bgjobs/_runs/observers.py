"""Who hears of reports: the log and our own observers at once, those of `on_run_end` in a thread of theirs.

So an observer that raises, blocks or never returns costs no run and no event loop, and each hears of everything in
order. What is found out under the locks of APScheduler has a thread of its own, so that it holds up no record either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from inspect import isawaitable
from queue import Empty, SimpleQueue
from typing import Any

from .._errors import named
from . import log
from .status import Outcome, RunReport
from .threads import waits

Observer = Callable[[RunReport], object]

#: Whose observers run here.
_inside: ContextVar[Reports | None] = ContextVar("bgjobs_reports", default=None)

#: So many reports wait at most for an observer that does not return.
MOST = 10_000


#: The levels of the outcomes and reasons that are no warning.
LEVELS = {
    **dict.fromkeys((Outcome.SUCCEEDED, Outcome.CONDITION, Outcome.OVERTAKEN, Outcome.RECENT), "INFO"),
    **dict.fromkeys((Outcome.FAILED, Outcome.TIMED_OUT), "ERROR"),
}


def to_log(report: RunReport) -> None:
    """Log how a run ended, or why an occurrence did not run: the log is one observer among others."""
    key, outcome, reason = report.key, report.outcome, report.reason
    bound: dict[str, Any] = {"job": key, "scheduled_at": report.scheduled_at.isoformat()}
    bound |= {"outcome": outcome, "reason": reason}
    if report.run_id is not None:
        bound |= {"run_id": report.run_id, "seconds": round(report.seconds, 6)}
    if outcome == Outcome.SUCCEEDED:
        message = f"job {key!r} succeeded in {report.seconds:.3f} s"
    elif report.error is not None:
        message = f"job {key!r} failed: {log.described(report.error)}" + (f" ({reason})" if reason else "")
    elif outcome == Outcome.CANCELLED:
        message = f"job {key!r} was cancelled"
    elif outcome == Outcome.COALESCED:
        message = f"job {key!r}: {reason}"
    else:
        moment = report.scheduled_at.isoformat(timespec="seconds")
        message = f"job {key!r} scheduled at {moment} was skipped: {reason}"
    log.write(LEVELS.get(outcome, "WARNING"), message, **bound)


class _Line:
    """A thread that makes calls one after the other: it starts with the first, and ends after a while without any.

    Attributes:
        lost: Calls for which there was no room since somebody has told of them.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._starting = threading.RLock()  # a signal handler that reports may interrupt a start in its own thread
        self._thread: threading.Thread | None = None

    def put(self, call: Callable[[], object] | None) -> None:
        """Have the thread make a call, which raises nothing; ``None`` ends it."""
        if self._queue.qsize() >= MOST:
            self.lost += 1
            return
        self._queue.put(call)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:  # pragma: no branch - else another thread was faster
                self._thread = thread = threading.Thread(target=self._work, name="bgjobs-observers", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no thread can be had: the next report tries again, or the close
                    pass
                finally:
                    if self._thread is thread and thread.ident is None:
                        self._thread = None

    def _work(self) -> None:
        while (call := self._next(waits.linger)) is not None:
            call()
        self._thread = None
        if not self._queue.empty():  # something came in this moment, and took the thread for alive
            self._start()

    def _next(self, seconds: float) -> Callable[[], object] | None:
        with suppress(Empty):
            return self._queue.get(timeout=seconds)
        return None

    def flush(self, seconds: float) -> bool:
        """Wait so long for all calls so far, and end the thread. Returns False where that did not suffice."""
        thread = self._thread
        if thread is not None:
            self.put(None)
            with suppress(RuntimeError):  # a signal has interrupted its start
                thread.join(seconds)
        while self._thread is None and (call := self._next(0)) is not None:
            call()  # no thread could be had
        return thread is None or not thread.is_alive()


class Reports:
    """Tells the observers of reports, outside all locks; what one of them raises is logged.

    Args:
        wait: Waits for what an async hook returns.

    Attributes:
        observers: Called at once, by whoever reports; ours alone, and quick.
        hooks: Those of `on_run_end`.
    """

    def __init__(self, wait: Callable[[Awaitable[object]], object]) -> None:
        self.observers: list[Observer] = []
        self.hooks: list[Observer] = []
        self._wait = wait
        self.forked()

    def forked(self) -> None:
        """Begin anew in a forked child, which has none of the parent's threads."""
        self._found, self._told = _Line(), _Line()  # under locks; to the hooks
        self._since: float | None = None  # when the hook was called that has not returned

    def ended(self, report: Callable[[], RunReport]) -> None:
        """A run is over; the log has heard of it when its outcome was known."""
        if self.observers or self.hooks:
            self._report(report())

    def skipped(self, report: RunReport, *, quiet: bool = False) -> None:
        """An occurrence did not run; `quiet` where the log has said it already."""
        if not quiet:
            to_log(report)
        self._report(report)

    def skipped_under_locks(self, report: RunReport) -> None:
        """An occurrence did not run, which is found out where nothing may block: a thread tells the log, too."""
        self._found.put(partial(self.skipped, report))

    def _report(self, report: RunReport) -> None:
        for observer in tuple(self.observers):
            observer(report)
        if self.hooks:
            self._told.put(partial(self._tell, report))

    def _tell(self, report: RunReport) -> None:
        lost, self._told.lost = self._told.lost, 0
        if lost:
            log.warning(f"{lost} reports of runs were dropped: an observer of on_run_end took too long")
        inside = _inside.set(self)
        for hook in tuple(self.hooks):
            self._since = time.monotonic()
            try:
                if (returned := hook(report)) is not None and isawaitable(returned):
                    self._wait(returned)
            except BaseException as error:  # noqa: BLE001 - an observer harms nobody
                log.failure(f"the observer {named(hook)} of the runs of job {report.key!r} raised", error)
            finally:
                self._since = None
        _inside.reset(inside)

    @property
    def is_inside(self) -> bool:
        """Whether one of the hooks is called here."""
        return _inside.get() is self

    def problems(self) -> list[str]:
        """A sentence where a hook does not return."""
        since = self._since
        if since is None or time.monotonic() - since < waits.overdue:
            return []
        return [f"an observer of on_run_end has not returned for {time.monotonic() - since:.0f} s"]

    def flush(self, seconds: float) -> None:
        """Wait so long for the hooks to hear of everything so far, and end the threads."""
        end = time.monotonic() + seconds
        self._found.flush(seconds)  # which has more for the other one
        if not self._told.flush(max(0.0, end - time.monotonic())):
            log.warning("an observer of on_run_end has not returned; it has not heard of every run")
