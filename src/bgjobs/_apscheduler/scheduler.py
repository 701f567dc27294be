"""The border with APScheduler: schedulers, executors, job stores and events.

Together with `_trigger` the only module that imports APScheduler. What it uses that is not public API is pinned by a
test: the executors and job stores by alias, an executor's lock, pool and counts, an `AsyncIOScheduler`'s event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from typing import Any

from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    EVENT_SCHEDULER_SHUTDOWN,
    EVENT_SCHEDULER_STARTED,
)
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.executors.pool import BasePoolExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.base import BaseTrigger

from .._errors import ConfigurationError, LifecycleError, did_you_mean, masked
from .._runs import log as _log
from .._runs.run import RegisteredJob
from .._runs.threads import waits
from .tick import PREFIX, Ticket

#: What APScheduler raises when a job is in none of its stores.
NoSuchEntry = JobLookupError

ASYNCIO, BACKGROUND, BLOCKING = "asyncio", "background", "blocking"
KINDS: dict[str, type[Any]] = {ASYNCIO: AsyncIOScheduler, BACKGROUND: BackgroundScheduler, BLOCKING: BlockingScheduler}


def is_trigger(value: object) -> bool:
    """Whether `value` can stand as ``trigger``."""
    return isinstance(value, BaseTrigger)


class _Steady:
    """Keeps a scheduler of ours going: an exception from a job store ends neither its thread nor its timer.

    Overrides the pass over the due jobs, whose return value is the seconds until the next one.
    """

    def _process_jobs(self) -> float | None:
        try:
            return super()._process_jobs()  # type: ignore[misc, no-any-return]
        except Exception as exc:  # noqa: BLE001 - whatever a store or a trigger raises
            again: float = self.jobstore_retry_interval  # type: ignore[attr-defined]
            _log.pass_failed(exc, again)
            return again


#: The kinds as bgjobs makes them.
STEADY = {kind: type(f"Steady{cls.__name__}", (_Steady, cls), {}) for kind, cls in KINDS.items()}


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
        if not self.kind:
            raise ConfigurationError(
                f"{scheduler!r} cannot run jobs; give an AsyncIOScheduler, a BackgroundScheduler or a "
                "BlockingScheduler of APScheduler 3",
                "scheduler",
            )
        self.started_here = False
        self._listener: Callable[[Any], None] | None = None
        self._warner: Callable[[Any], None] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def make(cls, kind: str, timezone: tzinfo, configuration: Mapping[str, Any] | None = None) -> SchedulerBridge:
        """A new scheduler of that kind, or a `ConfigurationError`; `configuration` is what ``configure`` takes, too."""
        try:
            return cls(STEADY[kind](timezone=timezone, **(configuration or {})))
        except Exception as exc:  # noqa: BLE001 - whatever an executor or a job store of somebody else's raises
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
            LifecycleError: There is neither.
        """
        self.loop = None
        if self.kind != ASYNCIO:
            return
        loop = self.scheduler._eventloop  # noqa: SLF001 - not public
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
        executors = {"default": None, **self.scheduler._executors}  # noqa: SLF001 - no public list
        stores = {"default", *self.scheduler._jobstores}  # noqa: SLF001
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

    def warn_when_started(self, warn: Callable[[], None]) -> None:
        """Have `warn` called when the owner of the scheduler starts it."""
        self._warner = lambda _: warn()
        self.scheduler.add_listener(self._warner, EVENT_SCHEDULER_STARTED)

    # -- executors and job stores --------------------------------------------------------------------------------

    def is_asyncio(self, executor: str) -> bool:
        """Whether the executor awaits coroutines."""
        known = self.scheduler._executors.get(executor)  # noqa: SLF001
        return self.kind == ASYNCIO if known is None else isinstance(known, AsyncIOExecutor)

    def is_in_memory(self, jobstore: str) -> bool:
        """Whether the job store keeps nothing beyond this process, and the very objects that it is given."""
        known = self.scheduler._jobstores.get(jobstore)  # noqa: SLF001
        return known is None or isinstance(known, MemoryJobStore)

    def stores_in_memory(self) -> list[str]:
        """The aliases of those."""
        return [alias for alias in self.scheduler._jobstores if self.is_in_memory(alias)]  # noqa: SLF001

    def await_submission(self, executor: str) -> bool:
        """Return when the executor has attached its callback to the run that calls this from its worker thread.

        A run can be over before that; its events would then be dispatched in the scheduler's thread, under its locks.
        The executor holds its lock from the submission until the callback stands.

        Returns:
            Whether the events of the run are dispatched in its own worker thread, outside all locks.
        """
        pool = self.scheduler._executors[executor]  # noqa: SLF001
        with pool._lock:  # noqa: SLF001
            return isinstance(pool, BasePoolExecutor)

    def submitted(self) -> Counter[str]:
        """How many runs the thread pools were given that are not over, by APScheduler's id of the job."""
        pools = [e for e in list(self.scheduler._executors.values()) if isinstance(e, BasePoolExecutor)]  # noqa: SLF001
        return sum((Counter(dict(pool._instances)) for pool in pools), Counter())  # noqa: SLF001

    # -- events --------------------------------------------------------------------------------------------------

    def listen(
        self,
        *,
        errored: Callable[[Ticket], None],
        missed: Callable[[str, datetime], None],
        overlapped: Callable[[str, datetime], None],
    ) -> None:
        """Pass on which runs of our jobs raised, and which were not made: too late, or too many at the same time."""

        def dispatch(event: Any) -> None:
            if event.code == EVENT_JOB_ERROR:
                errored((event.job_id, event.scheduled_run_time.astimezone(UTC)))
            elif not event.job_id.startswith(PREFIX):
                return  # somebody else's job
            elif event.code == EVENT_JOB_MISSED:
                missed(event.job_id[len(PREFIX) :], event.scheduled_run_time.astimezone(UTC))
            else:
                for scheduled_at in event.scheduled_run_times:
                    overlapped(event.job_id[len(PREFIX) :], scheduled_at.astimezone(UTC))

        self._listener = dispatch
        self.scheduler.add_listener(dispatch, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)

    def unlisten(self) -> None:
        """The reverse of `listen` and `warn_when_started`."""
        self.scheduler.remove_listener(self._listener)
        self.scheduler.remove_listener(self._warner)

    # -- start and stop ------------------------------------------------------------------------------------------

    def start(self, started: Callable[[], object]) -> None:
        """Start the scheduler, unless its owner did, and call `started`. A blocking one blocks after that."""
        if self.running:
            started()
            return
        self._renew_pools()
        if self.kind != BLOCKING:
            self.scheduler.start()
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
        self.scheduler.start()
        self._process_again()
        for error in errors:
            raise error

    def _renew_pools(self) -> None:
        """Replace thread pools that an earlier shutdown closed; APScheduler would submit to them all the same."""
        for alias, executor in list(self.scheduler._executors.items()):  # noqa: SLF001
            if isinstance(executor, ThreadPoolExecutor) and executor._pool._shutdown:  # noqa: SLF001
                self.scheduler.remove_executor(alias, shutdown=False)
                self.scheduler.add_executor(ThreadPoolExecutor(executor._pool._max_workers), alias)  # noqa: SLF001

    def pause(self) -> None:
        """Let no new run begin on the scheduler that was started here; return when no pass is going on."""
        if self.running:
            self.scheduler.pause()
            self.scheduler.get_jobs(jobstore="bgjobs: none")  # takes the lock that a pass holds, and reads no store

    def stop(self) -> None:
        """Shut the scheduler down, without waiting, if it was started here.

        Not to be called in the scheduler's event loop.
        """
        stop_it, self.started_here = self.started_here and self.running, False
        if not stop_it:
            return
        if self.loop is None:
            # A shutdown wakes the scheduler's thread for one more pass, whose runs no executor takes any more: what
            # came due meanwhile would be lost to a persistent store, and a one-shot in memory would end the thread.
            self.scheduler._process_jobs = lambda: None  # noqa: SLF001
            try:
                self.scheduler.shutdown(wait=False)
            finally:
                if self.kind == BACKGROUND:  # its thread has ended; a blocking one is still on its way out
                    self._process_again()
        elif self.loop.is_running():  # it is the loop that shuts down, some time after the call
            down = threading.Event()
            self.scheduler.add_listener(shut := lambda _: down.set(), EVENT_SCHEDULER_SHUTDOWN)
            self.scheduler.shutdown(wait=False)
            down.wait(waits.loop)
            self.scheduler.remove_listener(shut)
        else:  # the loop ended first: nobody is left to do it there
            with suppress(RuntimeError):  # nor to be told that something was cancelled
                BaseScheduler.shutdown(self.scheduler, wait=False)

    def _process_again(self) -> None:
        vars(self.scheduler).pop("_process_jobs", None)
