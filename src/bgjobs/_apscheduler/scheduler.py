"""One APScheduler scheduler as bgjobs uses it: made or given, checked, started, listened to, stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from typing import Any
from weakref import WeakSet

from apscheduler.events import (
    EVENT_EXECUTOR_ADDED,
    EVENT_JOB_ERROR,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_SCHEDULER_SHUTDOWN,
    EVENT_SCHEDULER_STARTED,
)
from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.base import BaseTrigger

from .._errors import ConfigurationError, LifecycleError, did_you_mean, masked, named
from .._runs import log
from .._runs.schedule import RegisteredJob
from .._runs.threads import waits
from .standin import StandIn

ASYNCIO, BACKGROUND, BLOCKING = "asyncio", "background", "blocking"
KINDS: dict[str, type[Any]] = {ASYNCIO: AsyncIOScheduler, BACKGROUND: BackgroundScheduler, BLOCKING: BlockingScheduler}

#: The module of a scheduler that is a `BlockingScheduler` by inheritance only.
GEVENT = "apscheduler.schedulers.gevent"

#: In a forked child: the schedulers that run in its parent.
_of_parent: WeakSet[Any] = WeakSet()


def is_trigger(value: object) -> bool:
    """Whether `value` can stand as ``trigger``."""
    return isinstance(value, BaseTrigger)


class _Steady(StandIn):
    """Makes a scheduler survive: an exception from a job store ends neither its thread nor its timer.

    Stands in for what processes the due jobs, and returns the seconds until the next time.
    """

    is_halted = False

    def __call__(self) -> float | None:
        if self.is_halted:
            return None
        try:
            seconds: float | None = self.before()
        except Exception as error:  # noqa: BLE001 - whatever a store or a trigger raises
            seconds = self.owner.jobstore_retry_interval
            log.failure(f"the scheduler could not process its due jobs, and tries again in {seconds:g} s:", error)
        return None if seconds is None else min(seconds, waits.sleep)


class SchedulerBridge:
    """One APScheduler scheduler, as bgjobs uses it.

    Attributes:
        scheduler: The scheduler itself.
        kind: ``"asyncio"``, ``"background"`` or ``"blocking"``.
        started_here: Whether bgjobs started it, and so is to stop it.
        loop: The event loop of an asyncio scheduler, from `prepare` on; ``None`` for the others.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.kind = next((kind for kind, cls in KINDS.items() if isinstance(scheduler, cls)), "")
        if not self.kind or GEVENT in {cls.__module__ for cls in type(scheduler).__mro__}:
            others = "; a program on another one can have a BackgroundScheduler beside it"
            right = f"an AsyncIOScheduler, a BackgroundScheduler or a BlockingScheduler of APScheduler 3{others}"
            if isinstance(getattr(scheduler, "scheduler", None), BaseScheduler):  # as with Flask-APScheduler
                right = "its .scheduler"
            raise ConfigurationError(f"{named(scheduler)} cannot run jobs; give {right}", "scheduler")
        self.started_here = False
        self._listener: Callable[[Any], None] | None = None
        self._warner: Callable[[Any], None] | None = None
        self._steady: _Steady  # from `listen` on
        self.loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def make(cls, kind: str, timezone: tzinfo, configuration: Mapping[str, Any] | None = None) -> SchedulerBridge:
        """A new scheduler of that kind, or a `ConfigurationError`; `configuration` is what ``configure`` takes, too."""
        try:
            return cls(KINDS[kind](timezone=timezone, **(configuration or {})))
        except Exception as exc:  # noqa: BLE001 - whatever an executor or a job store raises
            problem = f"{type(exc).__name__}: {masked(str(exc), configuration or {})}"
        raise ConfigurationError(f"jobstores or executors: APScheduler cannot make them: {problem}", "jobstores")

    @property
    def running(self) -> bool:
        """Whether the scheduler is started (paused or not)."""
        return bool(self.scheduler.running)

    @property
    def timezone(self) -> tzinfo:
        """The scheduler's own time zone."""
        return self.scheduler.timezone  # type: ignore[no-any-return]

    def prepare(self) -> None:
        """Find the event loop of an asyncio scheduler: its own, or the one that is running here.

        Raises:
            LifecycleError: There is neither, or the scheduler was started before a fork.
        """
        if self.scheduler in _of_parent:
            raise LifecycleError(
                "the scheduler was started in the process that this one was forked from, and its thread or event loop "
                "is there: give BackgroundJobs a new scheduler in this process"
            )
        self.loop = None
        if self.kind != ASYNCIO:
            return
        loop = self.scheduler._eventloop
        try:
            self.loop = asyncio.get_running_loop() if loop is None or loop.is_closed() else loop
        except RuntimeError:
            raise LifecycleError(
                "an asyncio scheduler starts in a running event loop, and none is running here: call warm_up() in a "
                "coroutine, use `async with jobs:`, or call jobs.run()"
            ) from None

    # -- before the start ----------------------------------------------------------------------------------------

    def check(self, job: RegisteredJob) -> None:
        """Raise `ConfigurationError` unless the job's executor and job store exist and can serve it."""
        options = job.options
        executors = {"default": None, **self.scheduler._executors}
        stores = {"default", *self.scheduler._jobstores}
        for name, alias, known in (("executor", options.executor, executors), ("jobstore", options.jobstore, stores)):
            if alias not in known:
                raise ConfigurationError(
                    f"job {job.key!r}: the scheduler has no {name} {alias!r}, only "
                    f"{', '.join(repr(k) for k in sorted(known))}{did_you_mean(alias, known)}",
                    name,
                )
        if isinstance(executors[options.executor], ProcessPoolExecutor):
            raise ConfigurationError(
                f"job {job.key!r}: the executor {options.executor!r} is a process pool, which the instance, the token "
                "and the exception of a run cannot cross; use a thread pool or asyncio (a process pool may be used "
                "inside the job)",
                "executor",
            )

    def forked(self) -> None:
        """Note in a forked child that a scheduler that is running runs in the parent."""
        if self.running:
            _of_parent.add(self.scheduler)

    def warn_when_started(self, warn: Callable[[], None]) -> None:
        """Call `warn` when the owner of the scheduler starts it."""
        self._warner = lambda _: warn()
        self.scheduler.add_listener(self._warner, EVENT_SCHEDULER_STARTED)

    # -- executors and job stores --------------------------------------------------------------------------------

    def is_in_memory(self, jobstore: str) -> bool:
        """Whether the job store keeps nothing beyond this process, and the very objects that it is given."""
        known = self.scheduler._jobstores.get(jobstore)
        return known is None or isinstance(known, MemoryJobStore)

    def stores(self, *, in_memory: bool) -> list[str]:
        """The aliases of those, or of the persistent ones."""
        return [alias for alias in self.scheduler._jobstores if self.is_in_memory(alias) == in_memory]

    # -- events --------------------------------------------------------------------------------------------------

    def listen(
        self,
        *,
        adopt: Callable[[Any], None],
        errored: Callable[[Any], None],
        overlapped: Callable[[str, datetime], None],
    ) -> None:
        """Pass on which runs raised, which occurrences did not run because of earlier ones, and every executor.

        From here on the scheduler survives what its job stores raise, and looks at them every thirty seconds.

        Args:
            adopt: Called with each executor, those that are added later included.
            errored: Called with each event of a job that raised.
            overlapped: Called with the id of a job and a fire time (UTC).
        """

        def dispatch(event: Any) -> None:
            if event.code == EVENT_JOB_ERROR:
                errored(event)
            elif event.code == EVENT_JOB_MAX_INSTANCES:
                for scheduled_at in event.scheduled_run_times:
                    overlapped(event.job_id, scheduled_at.astimezone(UTC))
            else:
                adopt(self.scheduler._executors[event.alias])

        self._steady = _Steady.put(self.scheduler, "_process_jobs", self)
        self._steady.is_halted = False
        self._listener = dispatch
        self.scheduler.add_listener(dispatch, EVENT_JOB_ERROR | EVENT_JOB_MAX_INSTANCES | EVENT_EXECUTOR_ADDED)
        for executor in list(self.scheduler._executors.values()):
            adopt(executor)

    def unlisten(self) -> None:
        """The reverse of `listen` and `warn_when_started`."""
        self.scheduler.remove_listener(self._listener)
        self.scheduler.remove_listener(self._warner)
        if not (self.kind == BLOCKING and self._steady.is_halted):
            self._steady.release(self)  # else its loop is still on its way out, and `start` releases it

    # -- start and stop ------------------------------------------------------------------------------------------

    def start(self, started: Callable[[], object]) -> None:
        """Start the scheduler, unless its owner did, and call `started`. A blocking one blocks after that.

        It runs nothing before `resume`, which `started` is to call.
        """
        if self.running:
            self.scheduler.wakeup()  # it may sleep for long, or for ever, after an exception
            started()
            return
        self._renew_pools()
        if self.kind != BLOCKING:
            self.scheduler.start(paused=True)
            self.started_here = True
            started()
            return
        errors: list[BaseException] = []

        def in_event(_: object) -> None:
            self.scheduler.remove_listener(in_event)
            self.started_here = True
            try:
                started()
            except BaseException as exc:  # noqa: BLE001 - an event swallows it; it is raised when the start returns
                errors.append(exc)
                self.scheduler.shutdown(wait=False)

        self.scheduler.add_listener(in_event, EVENT_SCHEDULER_STARTED)
        self.scheduler.start(paused=True)
        self._steady.is_halted = False
        self._steady.release(self)
        for error in errors:
            raise error

    def resume(self) -> None:
        """Let a scheduler that was started here run its jobs."""
        if self.started_here:
            self.scheduler.resume()

    def _renew_pools(self) -> None:
        """Replace thread pools that an earlier shutdown closed; APScheduler would submit to them all the same."""
        for alias, executor in list(self.scheduler._executors.items()):
            if isinstance(executor, ThreadPoolExecutor) and executor._pool._shutdown:
                self.scheduler.remove_executor(alias, shutdown=False)
                self.scheduler.add_executor(ThreadPoolExecutor(executor._pool._max_workers), alias)

    def pause(self) -> None:
        """Start no more runs on a scheduler that was started here; return when it is not processing jobs."""
        if self.running:
            self.scheduler.pause()
            with self.scheduler._jobstores_lock:  # which a pass holds
                pass

    def stop(self) -> None:
        """Shut the scheduler down, without waiting, if it was started here.

        Not to be called in the scheduler's event loop.
        """
        stop_it, self.started_here = self.started_here and self.running, False
        if not stop_it:
            return
        if self.loop is None:
            # `shutdown()` wakes the scheduler's thread once more. Its executors are closed by then, so a job that is
            # due now would be moved on in its store without having run, or would end the thread. Skip that.
            self._steady.is_halted = True
            self.scheduler.shutdown(wait=False)
            self._steady.is_halted = self.kind == BLOCKING  # whose loop is still on its way out
        elif self.loop.is_running():  # the loop shuts it down, some time after the call
            down = threading.Event()
            self.scheduler.add_listener(shut := lambda _: down.set(), EVENT_SCHEDULER_SHUTDOWN)
            self.scheduler.shutdown(wait=False)
            down.wait(waits.close)
            self.scheduler.remove_listener(shut)
        else:  # the loop ended first: nobody is left to do it there
            with suppress(RuntimeError):  # nothing can be cancelled there any more
                BaseScheduler.shutdown(self.scheduler, wait=False)
