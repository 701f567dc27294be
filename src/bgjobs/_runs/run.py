"""One run, from its scope to its outcome.

Five words have a meaning of their own here:

    run      one execution of a job at one fire time
    owner    the task (async code) or worker thread (sync code) that does everything in a run, in one context
    outcome  how the action ended: succeeded, failed, timed out or cancelled
    settle   what follows a failure: ``on_exception``, then the closing of the scope
    drain    what a close does: wait for the runs in progress, then cancel what can be cancelled

The life of a run, whoever owns it:

    perform   enter the scope -> fresh instance -> action     -> succeeded, and the scope is closed
                                                              -> failed, and the scope stays open:
              ... APScheduler hears of the error; its error event comes back to the owner ...
    settle    on_exception(error) on that instance -> close the scope

Both halves are written once, as coroutines: a task awaits them, a thread drives them (see `threads`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from .._errors import LifecycleError
from .._job import TOKEN, ExceptionHandler, Resolver, Target
from .._token import CancellationToken
from . import log
from .alarm import Alarm
from .calls import Calls, Leave
from .raised import is_a, without_our_frames
from .schedule import RegisteredJob
from .scopes import Around, Surroundings, exit_arguments, require_scope
from .status import Cancelled, CurrentRun, Outcome, RunReport
from .threads import waits

_here: ContextVar[Run] = ContextVar("bgjobs_run")


def current_run() -> CurrentRun:
    """The run in progress here: in a job, in its ``on_exception``, and in the factories of its resolver.

    Raises:
        LifecycleError: Called outside a run.
    """
    run = here()
    if run is None or not run.is_live:
        raise LifecycleError("current_run() was called outside a run; only a job and what it calls have one")
    return run.current


def here() -> Run | None:
    """The run whose owner runs the calling code, if any; it may not have been admitted yet, or be over."""
    return _here.get(None)


def enter(run: Run) -> None:
    """Mark the rest of this context, which belongs to the run, as its owner's."""
    _here.set(run)
    log.bind_to_context(run)


class Run:
    """One run of one job, and what its owner, the observers and the drain must know of it."""

    task: asyncio.Task[Any] | None = None  #: the task that owns the run, where a task does
    is_begun = False  #: whether its owner has asked for its admission
    is_live = False  #: from its admission to its end
    overlaps = 0  #: occurrences of the key that were skipped during this run
    outcome: Outcome | None = None
    value: object = None  #: what APScheduler's listeners see of a run that did not fail
    error: BaseException | None = None  #: of a run that failed or timed out
    reason: str | None = None  #: more about the outcome
    started_at = 0.0  #: seconds since the epoch
    seconds = 0.0  #: until the outcome was known
    freed: Callable[[], object] | None = None  #: called when the action has ended, so that it may be submitted again
    followers: tuple[tuple[RegisteredJob, Callable[[], object]], ...] = ()  #: called after that, while registered
    lease: str | None = None  #: the token of its claim
    fence: int | None = None
    is_repeated = False  #: whether an executor was asked for this run before
    _handler_until: float | None = None  #: when ``on_exception`` is to have ended, while it is called
    _late = False
    _is_resolved = False  #: whether there is an instance (or none is needed)
    _is_cancelled = False
    _instance: Any = None
    _leave: Leave | None = None  #: closes the scope
    _around: Surroundings | None = None
    _handler: ExceptionHandler | None = None

    def __init__(
        self, job: RegisteredJob, kind: str, run_id: str, scheduled_at: datetime, kwargs: Mapping[str, Any] | None
    ) -> None:
        self.job = job
        self._kwargs = kwargs or job.options.kwargs
        self.key = job.key
        self.target: Target = job.target
        self.kind = kind  # `SCHEDULED`, `STARTUP`, or the id of the one extra run
        self.run_id = run_id
        self.scheduled_at = scheduled_at
        self.started = time.monotonic()
        self.token = CancellationToken()

    async def perform(self, calls: Calls, resolver: Resolver | None, around: Sequence[Around] = ()) -> None:
        """The first half: scope, instance, action; unless it failed, the closing of the scope, too. Raises nothing."""
        target, error = self.target, None
        try:
            if around:
                self._around = Surroundings(self, calls)
                await self._around.enter(around)
            if resolver is None or target.job_type is None:
                self._instance = target.construct()
            else:
                await self._enter(resolver(target.job_type), calls)
            self._is_resolved = True
            self.value = await self._act(calls)
            self.outcome = Outcome.SUCCEEDED
        except BaseException as raised:  # noqa: BLE001 - it is the outcome
            error = raised
            self._fail(raised)
        finally:
            self._free()
        if self.error is None and self._leave is not None:
            await self._close(calls, error)
        if self.error is None and self._around is not None:  # no coroutine for nothing, at each run
            await self._unwind(error)
        self.seconds = time.monotonic() - self.started
        error = None  # its traceback leads here

    def _free(self) -> None:
        """The overlap guard, and that of APScheduler, end with the action."""
        with self.job.lock:
            self.job.running.remove(self)
        if self.freed is not None:
            self.freed()

    @property
    def is_to_settle(self) -> bool:
        """Whether a failure leaves anything to do: an ``on_exception`` to call, a scope to close."""
        return self.error is not None and bool(self._handler or self._leave or self._around)

    async def settle(self, calls: Calls) -> None:
        """The second half of a failed run: ``on_exception``, then all is closed. Raises nothing."""
        if self._handler is not None and is_a(self.error, Exception):
            await self._handle(calls, self._handler, self.job.options.timeout or waits.handler)
        if self._leave is not None:
            await self._close(calls, self.error)
        await self._unwind(self.error)

    async def _handle(self, calls: Calls, handler: ExceptionHandler, limit: float) -> None:
        """Call ``on_exception``: async code is cancelled at its limit, a thread is named in a warning and in health."""
        self._handler_until = until = time.monotonic() + limit
        name = f"on_exception of job {self.key!r}"
        alarm = Alarm(limit, lambda: log.warning(f"{name} has not ended within {limit:g} s", self))
        try:
            await calls.within(limit, handler, self.error)
        except BaseException as raised:  # noqa: BLE001 - the schedule goes on, whatever a handler does
            late = is_a(raised, TimeoutError) and time.monotonic() >= until
            log.failure(f"{name} was cancelled:" if late else f"{name} raised", raised, self)
        finally:
            alarm.cancel()
            self._handler_until = None

    @property
    def current(self) -> CurrentRun:
        """What the code of the run may know of it."""
        return CurrentRun(self.key, self.run_id, self.scheduled_at, self.fence)

    def late_handler(self) -> str | None:
        """A sentence about an ``on_exception`` that is past its limit."""
        until = self._handler_until
        if until is None or time.monotonic() < until:
            return None
        return f"on_exception of job {self.key!r} does not end (run {self.run_id})"

    def cancel(self) -> None:
        """Ask the run to end through its token, and cancel the task that owns it, once. From any thread."""
        self.token.request_cancellation()
        task = self.task
        if task is not None and not self._is_cancelled:
            self._is_cancelled = True
            try:
                task.get_loop().call_soon_threadsafe(task.cancel)
            except RuntimeError:  # its loop is closed: nobody else ends the task's coroutine
                task.get_coro().close()

    def release(self) -> None:
        """Let go of what it used; tasks and tracebacks that are kept somewhere lead to the run itself."""
        self.is_live = False
        self.task = self.freed = self._instance = self._handler = None

    def report(self) -> RunReport:
        """What observers hear of the run."""
        started = datetime.fromtimestamp(self.started_at, UTC)
        outcome, value = self.outcome or Outcome.CANCELLED, self.value if self.outcome is Outcome.SUCCEEDED else None
        about = (self.key, self.run_id, self.scheduled_at, started)
        return RunReport(*about, self.seconds, outcome, self.reason, self.error, value)

    # -- the scope -----------------------------------------------------------------------------------------------

    async def _enter(self, scope: Any, calls: Calls) -> None:
        require_scope(scope, "the resolver")
        self._instance, self._leave = await calls.enter(scope)

    async def _close(self, calls: Calls, error: BaseException | None) -> None:
        """Close the scope, once. After a success its error becomes the outcome; else the first error stands."""
        leave, self._leave = self._leave, None
        if leave is None or self._loop_is_gone:
            return
        try:
            await calls.close(leave, *exit_arguments(error))
        except BaseException as raised:  # noqa: BLE001 - it is the outcome, or logged
            if error is None:
                self._fail(raised)
            elif raised is not error:
                log.failure(f"the scope of job {self.key!r} raised when it was closed:", raised, self)

    async def _unwind(self, error: BaseException | None) -> None:
        """Leave what `around_run` holds open."""
        if self._around is not None and not self._loop_is_gone:
            await self._around.leave(error)

    # -- the action ----------------------------------------------------------------------------------------------

    def _act(self, calls: Calls) -> Awaitable[object]:
        """The action, called or about to be, for the caller to await."""
        target, options = self.target, self.job.options
        action: Callable[..., Any] = target.action(self._instance)
        kwargs = {**self._kwargs, TOKEN: self.token} if target.takes_token else self._kwargs
        if options.timeout is not None:
            return self._limited(options.timeout, calls, action, kwargs)
        return action(**kwargs) if target.is_coroutine else calls(action, **kwargs)

    async def _limited(
        self, seconds: float, calls: Calls, action: Callable[..., Any], kwargs: Mapping[str, Any]
    ) -> object:
        """The action with a timeout: a coroutine is cancelled, sync code can only be asked to end.

        Whatever it does about that: a run that took longer has timed out.
        """
        late = TimeoutError(f"the run took longer than its timeout of {seconds:g} s")
        end = time.monotonic() + seconds - 0.001  # a millisecond for clocks that round
        try:
            if self.target.is_coroutine:
                async with asyncio.timeout(seconds):
                    value = await action(**kwargs)
            else:
                alarm = Alarm(seconds, lambda: self._ask_to_end(seconds))
                try:
                    value = await calls(action, **kwargs)
                finally:
                    alarm.cancel()
        except BaseException as error:
            self._late = time.monotonic() >= end
            if not self._late or not is_a(error, (asyncio.CancelledError, TimeoutError)):
                raise
            self.token.request_cancellation()
            raise late from error
        self._late = time.monotonic() >= end
        if self._late:
            raise late
        return value

    def _ask_to_end(self, seconds: float) -> None:
        self.token.request_cancellation()
        how = "" if self.target.takes_token else ", but takes no cancellation_token, so it cannot learn of it"
        log.warning(f"job {self.key!r} exceeded its timeout of {seconds:g} s; it was asked to end{how}", self)

    # -- how it ended --------------------------------------------------------------------------------------------

    def is_ended_by(self, error: BaseException) -> bool:
        """Whether an error is the cancellation that somebody has asked for, or the end of the event loop."""
        asked = self.token.is_cancellation_requested or (self.task is not None and self.task.cancelling() > 0)
        return (asked and is_a(error, asyncio.CancelledError)) or (is_a(error, GeneratorExit) and self._loop_is_gone)

    def _fail(self, error: BaseException) -> None:
        """Note what ended the run: a cancellation that somebody has asked for is no failure."""
        if self.is_ended_by(error):
            self.outcome, self.value = Outcome.CANCELLED, Cancelled()
            return
        self.outcome = Outcome.TIMED_OUT if self._late else Outcome.FAILED
        self.error = without_our_frames(error)
        try:
            self._handler = self.target.handler(self._instance)
        except BaseException as raised:  # noqa: BLE001 - a class whose __getattr__ raises
            log.failure(f"on_exception of job {self.key!r} cannot be looked up:", raised, self)
        if not self._is_resolved:
            self.reason = "no instance could be made, so there is no on_exception to call"

    @property
    def _loop_is_gone(self) -> bool:
        """Whether the event loop of the task was closed: its coroutine is being thrown away, and can await nothing."""
        return self.task is not None and asyncio._get_running_loop() is None  # noqa: SLF001
