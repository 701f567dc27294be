"""One run, from its scope to its outcome.

The life of a run, whoever owns it (see `_runner`):

    perform   open the scope -> fresh instance -> action      -> Succeeded, and the scope is closed
                                                              -> Failed, and the scope stays open:
              ... the error goes to APScheduler, whose error event comes back to the owner of the run ...
    settle    on_exception(error), on the very instance -> close the scope

Both halves are written once, as coroutines, and have one owner: one task or one thread, in one context. A task awaits
them; a thread drives them (`_calls.drive`), where nothing in them suspends, because `InThread` blocks instead.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .._errors import LifecycleError, ResolverError
from .._job import TOKEN, Resolver, Target
from .._options import BackgroundJobOptions
from .._token import CancellationToken
from . import log as _log
from .calls import Calls, in_task
from .outcome import Cancelled, Failed, NeedsTask, Outcome, Succeeded
from .status import CANCELLED, FAILED, SUCCEEDED, TIMED_OUT, Schedule, Tally


@dataclass(frozen=True, slots=True)
class CurrentRun:
    """The run that the calling code belongs to.

    Attributes:
        key: The key of the job.
        run_id: Unique per run.
        scheduled_at: The fire time that APScheduler computed (in UTC); for an immediate run, when it was added.
    """

    key: str
    run_id: str
    scheduled_at: datetime


#: The kinds of run: at its fire time, and the one at warm-up.
SCHEDULED = "scheduled"
STARTUP = "startup"

_running: ContextVar[Run] = ContextVar("bgjobs_running")


def current_run() -> CurrentRun:
    """The run that is going on here: in a job, in its ``on_exception``, and in the factories of its resolver.

    Raises:
        LifecycleError: Called outside a run.
    """
    run = running()
    if run is None:
        raise LifecycleError("current_run() was called outside a run; only a job and what it calls have one")
    return CurrentRun(run.key, run.run_id, run.scheduled_at)


def running() -> Run | None:
    """The run that the calling code belongs to, if any."""
    return _running.get(None)


@dataclass(slots=True, eq=False)
class RegisteredJob:
    """A job under its key: what it calls, when and how, its runs that are going now, and what became of the others.

    Attributes:
        key: The unique name of the job.
        target: What a run calls.
        options: The options, with those of the settings merged in.
        schedule: When it is due; ``None`` for a job that is switched off.
        running: The runs whose action is going, oldest first.
        tally: What is counted of its runs.
        lock: Held for every change of the three before; one a job, since one for all would be waited for.
    """

    key: str
    target: Target
    options: BackgroundJobOptions
    schedule: Schedule | None = None
    running: list[Run] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    lock: threading.RLock = field(default_factory=threading.RLock)


class Run:
    """One run of one job, and what its owner, the log and the drain must know of it."""

    task: asyncio.Task[Any] | None = None  #: the task that owns the run, where a task does
    overlaps = 0  #: further runs of the key that were skipped during this one
    resolved = False  #: whether there is an instance (or none is needed)
    timed_out = False
    outcome: Outcome | None = None
    _is_cancelled = False
    _instance: Any = None
    _exit: Callable[..., Any] | None = None

    def __init__(self, job: RegisteredJob, kind: str, run_id: str, scheduled_at: datetime, generation: int) -> None:
        self.job = job
        self.key = job.key
        self.kind = kind  # as in `Ledger.begin`
        self.run_id = run_id
        self.scheduled_at = scheduled_at
        self.generation = generation  # of the ledger
        self.started = time.monotonic()
        self.token = CancellationToken()

    async def perform(self, call: Calls, resolver: Resolver | None, scope: Any = None) -> Outcome:
        """The first half: scope, instance, action; after a success the closing of the scope, too.

        Args:
            call: How the owner calls sync and async code.
            resolver: Makes the scope; ``None`` where the class is simply called.
            scope: The scope, where the resolver was asked already.
        """
        before, bound_before = _running.set(self), _log.bind_to_context(self)
        try:
            if resolver is None or self.job.target.job_type is None:
                self._instance = self.job.target.construct()
            else:
                scope = resolver(self.job.target.job_type) if scope is None else scope
                if needs_task(scope, call):
                    return NeedsTask(scope)
                await self._enter(scope, in_a_task=call is in_task)
            self.resolved = True
            value = await self._acting(call)
        except BaseException as error:
            if isinstance(error, GeneratorExit) and call is in_task:
                raise  # the event loop goes away; in a thread it is the job's own
            if self._is_cancellation(error):
                await self._close(error)
                return Cancelled()
            return Failed(_without_our_frames(error))
        outcome = Succeeded(value) if self._exit is None else self._closed(value, await self._close(None))
        if isinstance(outcome, Succeeded):  # else there may be more to do in this context
            _running.reset(before)
            _log.unbind(bound_before)
        return outcome

    async def settle(self, call: Calls, error: BaseException) -> None:
        """The second half of a failed run: ``on_exception``, then the closing of the scope. Raises nothing."""
        try:
            handler = self.job.target.handler(self._instance)
            if handler is not None and isinstance(error, Exception):
                await call(handler, error)
        except BaseException as raised:  # noqa: BLE001 - the schedule goes on, whatever a handler does
            _log.handler_failed(self, raised)
        await self._close(error)

    @property
    def is_to_settle(self) -> bool:
        """Whether a failure leaves anything to do: an ``on_exception`` to call, a scope to close."""
        return self._exit is not None or self.job.target.handler(self._instance) is not None

    def named(self, outcome: Outcome) -> str:
        """The name of the outcome in the counts."""
        if isinstance(outcome, Succeeded):
            return SUCCEEDED
        if isinstance(outcome, Failed):
            return TIMED_OUT if self.timed_out else FAILED
        return CANCELLED

    def cancel(self) -> None:
        """Ask the run to end through its token, and cancel the task that owns it, once. From any thread."""
        self.token.request_cancellation()
        task = self.task
        if task is not None and not self._is_cancelled:
            self._is_cancelled = True
            with suppress(RuntimeError):  # its loop is closed: the task is gone
                task.get_loop().call_soon_threadsafe(task.cancel)

    def release(self) -> None:
        """Let go of what it was made with; tasks and tracebacks that are kept somewhere lead to the run itself."""
        self.task = self._instance = None

    async def _enter(self, scope: Any, *, in_a_task: bool) -> None:
        if in_a_task and hasattr(scope, "__aenter__"):
            self._instance = await scope.__aenter__()
            self._exit = scope.__aexit__
        else:
            self._instance = scope.__enter__()
            self._exit = scope.__exit__

    async def _close(self, error: BaseException | None) -> BaseException | None:
        """Close the scope, once. Returns what that raised, logged where `error` was reported before it."""
        leave, self._exit = self._exit, None
        if leave is None:
            return None
        try:
            left = leave(type(error) if error else None, error, error.__traceback__ if error else None)
            if inspect.isawaitable(left):
                await left
        except BaseException as raised:  # noqa: BLE001 - handed on, or logged
            if error is not None and raised is not error:
                _log.scope_failed(self, raised)
            return raised
        return None

    def _acting(self, call: Calls) -> Awaitable[object]:
        """The action, called or about to be, for the caller to await."""
        target, options = self.job.target, self.job.options
        action: Callable[..., Any] = target.action(self._instance)
        kwargs = {**options.kwargs, TOKEN: self.token} if target.takes_token else options.kwargs
        if options.timeout is None:
            return action(**kwargs) if target.is_coroutine else call(action, **kwargs)
        if target.is_coroutine:
            return self._cancelled_after(options.timeout, action(**kwargs))
        return self._asked_after(options.timeout, call(action, **kwargs))

    async def _cancelled_after(self, seconds: float, action: Awaitable[object]) -> object:
        try:
            async with asyncio.timeout(seconds) as deadline:
                return await action
        except TimeoutError as exc:
            if not deadline.expired():
                raise
            self.token.request_cancellation()
            raise self._timed_out(seconds) from exc

    async def _asked_after(self, seconds: float, action: Awaitable[object]) -> object:
        """Sync code cannot be interrupted: it is asked to end, and reported as timed out when it has."""
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self.token.request_cancellation()
            _log.overstayed(self, seconds)

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            value = await action
        except asyncio.CancelledError as exc:
            if not expired.is_set():
                raise
            raise self._timed_out(seconds) from exc
        finally:
            timer.cancel()
        if expired.is_set():
            raise self._timed_out(seconds)
        return value

    def _timed_out(self, seconds: float) -> TimeoutError:
        self.timed_out = True
        return TimeoutError(f"the run took longer than its timeout of {seconds:g} s")

    def _closed(self, value: object, raised: BaseException | None) -> Outcome:
        """The outcome of a run whose action returned `value`, and whose scope `raised` when it was closed, or not."""
        if raised is None:
            return Succeeded(value)
        return Cancelled() if self._is_cancellation(raised) else Failed(raised)

    def _is_cancellation(self, error: BaseException) -> bool:
        """A drain or a cancelled task is no failure; a stray `CancelledError` from inside the job is one."""
        return isinstance(error, asyncio.CancelledError) and (
            self.token.is_cancellation_requested or (self.task is not None and self.task.cancelling() > 0)
        )


def _without_our_frames(error: BaseException) -> BaseException:
    """The error with a traceback that begins in the job's own code: shorter to read, and much cheaper to format."""
    traceback = error.__traceback__
    while traceback is not None and str(traceback.tb_frame.f_globals.get("__package__")).startswith("bgjobs"):
        with suppress(RuntimeError):  # still going
            traceback.tb_frame.clear()  # else the frames that are kept would lead to it, and so to the instance
        traceback = traceback.tb_next
    return error if traceback is None else error.with_traceback(traceback)


def needs_task(scope: Any, call: Calls) -> bool:
    """Whether `scope` can be entered by a task only, while a thread is about to.

    Raises:
        ResolverError: It is no context manager at all.
    """
    if not (hasattr(scope, "__enter__") or hasattr(scope, "__aenter__")):
        raise ResolverError(
            f"the resolver returned {scope!r}, which is no context manager; decorate it with contextlib.contextmanager "
            "or contextlib.asynccontextmanager"
        )
    return call is not in_task and not hasattr(scope, "__enter__")
