"""How APScheduler's executors run our jobs: each run has one owner, and the owner has APScheduler report it.

    due       an executor is asked to submit the job        -> an owner is started: a task (async code), or a
                                                               worker thread (sync code)
    fire      APScheduler's own run_job calls `fire`         -> admission, scope, action (`_runs`); APScheduler
                                                               logs what is raised, and makes its event
    report    the owner has the executor dispatch the event  -> every listener hears of it, ours among them:
    route     `errored`, our scheduler error listener        -> hands the exception to the run that is reporting here
    settle    the owner calls on_exception, closes the scope

Sync code of an asyncio scheduler reports through the event loop, where listeners expect to be called; async code of a
thread pool through a thread. While its jobs are warm, bgjobs stands in for `_do_submit_job` of each executor:

    executor        job      owner
    asyncio         async    a task in the executor's loop
    asyncio         sync     a thread of that loop's default executor
    thread pool     async    a task in the facade's loop
    thread pool     sync     a thread of the pool
    any other       sync     a thread of its own; async as on a thread pool
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from functools import partial
from typing import Any

from apscheduler.events import EVENT_JOB_MISSED
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.executors.base import run_coroutine_job, run_job
from apscheduler.executors.pool import BasePoolExecutor

from .._runs import log
from .._runs.calls import Calls, InThread, drive, in_task
from .._runs.registry import Registry
from .._runs.run import Run, enter, here
from .._runs.schedule import SCHEDULED, RegisteredJob
from .._runs.status import Outcome
from .._runs.threads import start_thread, waits
from . import missed
from .due import Due
from .standin import StandIn

#: The facades that are warm in this process, by name. Job stores hold the name, never the facade.
_applications: dict[str, Owners] = {}

#: Who owns the runs in this context.
_owners: ContextVar[Owners | None] = ContextVar("bgjobs_owners", default=None)


def fire(application: str, key: str, kind: str, by: str = "", due: datetime | None = None) -> object:
    """What APScheduler calls; job stores hold a reference to it, so its name and arguments stay.

    Returns a coroutine where a task owns the run. `by` and `due` are notes in the row (see `stored`).
    """
    owners, run = _owners.get(), here()
    if owners is None or run is None or run.is_begun or (run.key, run.kind) != (key, kind):
        return missed.note(application, key, kind)
    if run.target.is_coroutine:
        return owners.make(run)
    drive(owners.registry.perform(run, owners.in_thread))
    if run.error is not None:
        raise run.error
    return run.value


fire.__signature__ = inspect.signature(fire)  # type: ignore[attr-defined] # APScheduler asks for it at each `add_job`


def errored(event: Any) -> None:
    """The scheduler error listener: hand the exception of the event to the run that is reporting here."""
    if (run := here()) is not None and run.is_live:
        run.error = event.exception


class Owners:
    """Starts the owners of the runs of one facade, under its `name` in this process."""

    def __init__(self, registry: Registry, get_loop: Callable[[], asyncio.AbstractEventLoop], application: str) -> None:
        self.registry = registry
        self.in_thread = InThread(get_loop)
        self._get_loop = get_loop
        self._waiting: dict[Due, bool] = {}  # for a thread or a task; who takes it out, an owner or the close, has it
        self._context = copy_context()  # of the warm-up: a run must not inherit the context of another one
        self._context.run(_owners.set, self)
        self._hooks: list[_Hook] = []
        self.name, n = application, 1
        while _applications.setdefault(self.name, self) is not self:  # the nearest name that is free in this process
            n += 1
            self.name = f"{application}#{n}"

    # -- from the executor to the owner --------------------------------------------------------------------------

    def submit(self, due: Due) -> None:
        """Start the owner of a job that is due. Called under APScheduler's locks: nothing here logs or waits."""
        self._waiting[due] = True
        if due.row.args[2] == SCHEDULED and due.job.schedule is not None:
            due.job.schedule.entry = due.row  # which the scheduler moves on after this
        try:
            self._start(due)
        except BaseException as error:
            if self._waiting.pop(due, False):  # pragma: no branch - else a worker that came first has it
                reason = f"its executor took no more work ({log.described(error)})"
                self._decline(due, Outcome.REFUSED, reason, later=True)
            raise

    def _start(self, due: Due) -> None:
        executor = due.executor
        loop = executor._eventloop if isinstance(executor, AsyncIOExecutor) else None
        if due.job.target.is_coroutine:
            if loop is not None:
                executor._pending_futures.add(self._start_task(loop, due))
            else:
                loop = self._get_loop()
                loop.call_soon_threadsafe(self._start_task, loop, due, context=self._context.copy())
        elif loop is not None:
            loop.run_in_executor(None, self._own_in_thread, due)
        elif isinstance(executor, BasePoolExecutor):
            executor._pool.submit(self._own_in_thread, due)
        else:  # an executor that would run it here, under the scheduler's locks
            start_thread(partial(self._own_in_thread, due), f"bgjobs-{due.job.key}")

    def _start_task(self, loop: asyncio.AbstractEventLoop, due: Due) -> asyncio.Task[None]:
        task = loop.create_task(self._own_in_task(due), context=self._context.copy())
        task.add_done_callback(partial(self._task_over, due))
        return task

    def _task_over(self, due: Due, task: asyncio.Task[None]) -> None:
        if isinstance(due.executor, AsyncIOExecutor):
            due.executor._pending_futures.discard(task)
        if due in self._waiting:
            self._take_back(due, Outcome.CLOSING, "its task was cancelled before it started")

    def _take_back(self, due: Due, counted: Outcome, reason: str) -> None:
        if self._waiting.pop(due, False):  # pragma: no branch - else its owner has it
            due.report(due.run_times[-1], [])
            self._decline(due, counted, reason)

    def _decline(self, due: Due, counted: Outcome, reason: str, *, later: bool = False) -> None:
        self.registry.left_out(due.job, due.expected, due.moments[0], later=later)
        for moment in due.moments:
            if moment in due.repeated:
                self.registry.repeated(due.job.key, moment, later=later)
            else:
                self.registry.skip(due.job.key, moment, counted, reason, due.row.args[2], later=later)

    def hold_back(self, job: RegisteredJob) -> None:
        """Skip the runs of a paused job that wait for a thread or a task."""
        for due in list(self._waiting):
            if due.job is job:
                self._take_back(due, Outcome.PAUSED, "the job was paused while it waited for its executor")

    def take_all_back(self) -> None:
        """Skip everything that waits for a thread or a task, when the jobs are closed."""
        for due in list(self._waiting):
            self._take_back(due, Outcome.CLOSING, "no thread of its executor came free before the close")

    def problems(self) -> list[str]:
        """A sentence for each job that has waited for a thread or a task for long."""
        waited = {due.job.key: time.monotonic() - due.since for due in reversed(list(self._waiting))}
        return [f"job {key!r} has waited {n:.0f} s for its executor" for key, n in waited.items() if n > waits.overdue]

    # -- the owners ----------------------------------------------------------------------------------------------

    def _own_in_thread(self, due: Due) -> None:
        if not self._waiting.pop(due, False):
            return
        self.registry.left_out(due.job, due.expected, due.moments[0])
        for run_time in due.run_times:
            self._context.copy().run(self._run_in_thread, due, run_time)

    def _run_in_thread(self, due: Due, run_time: datetime) -> None:
        executor, row, run = due.executor, due.row, self._new_run(due, run_time)
        try:
            events = run_job(row, row._jobstore_alias, [run_time], executor._logger.name)
        except BaseException as error:  # noqa: BLE001 - a logging filter that raises, for one
            events = self._unlogged(run, error)
        if isinstance(executor, AsyncIOExecutor):
            _in_loop(executor._eventloop, partial(due.report, run_time, events))
        else:
            due.report(run_time, events)
        drive(self._settle(run, events, self.in_thread))

    async def _own_in_task(self, due: Due) -> None:
        if not self._waiting.pop(due, False):
            return
        self.registry.left_out(due.job, due.expected, due.moments[0])
        executor, row = due.executor, due.row
        for run_time in due.run_times:
            run = self._new_run(due, run_time)
            try:
                events = await run_coroutine_job(row, row._jobstore_alias, [run_time], executor._logger.name)
            except GeneratorExit:  # the loop is gone, and this coroutine is being thrown away
                due.report(due.run_times[-1], [])
                raise
            except BaseException as error:  # noqa: BLE001 - as above
                events = self._unlogged(run, error)
            if isinstance(executor, AsyncIOExecutor):
                executor._pending_futures.discard(run.task)  # a shutdown cancels actions only
                due.report(run_time, events)
            else:
                await _aside(partial(due.report, run_time, events))
            await self._settle(run, events, in_task)

    async def _settle(self, run: Run, events: list[Any], calls: Calls) -> None:
        if events and events[0].code == EVENT_JOB_MISSED:
            self.registry.missed(run)
        await self.registry.settle(run, calls)

    async def make(self, run: Run) -> object:
        """The first half of a run that a task owns, as APScheduler wants it: returns a value, or raises."""
        await self.registry.perform(run, in_task)
        if run.error is not None:
            raise run.error
        return run.value

    def _new_run(self, due: Due, run_time: datetime) -> Run:
        run = self.registry.new_run(due.job, due.row.args[2], run_time.astimezone(UTC))
        run.is_repeated = run.scheduled_at in due.repeated
        if run_time is due.run_times[-1]:
            run.freed = due.release
        enter(run)
        return run

    def _unlogged(self, run: Run, error: BaseException) -> list[Any]:
        log.failure(f"APScheduler could not log a run of job {run.key!r}:", error)
        if not run.is_begun:
            self.registry.skip(
                run.key, run.scheduled_at, Outcome.REFUSED, "APScheduler could not log its start", run.kind
            )
        return []

    # -- hooks ---------------------------------------------------------------------------------------------------

    def adopt(self, executor: Any) -> None:
        """Have an executor pass our jobs to their owners; the jobs of other people go their own way."""
        self._hooks.append(_Hook.put(executor, "_do_submit_job", self))

    def release(self) -> None:
        """Give every executor back as it was, and the name, too."""
        _applications.pop(self.name, None)
        while self._hooks:
            self._hooks.pop().release(self)


class _Hook(StandIn):
    """Stands in for the `_do_submit_job` of one executor."""

    def __call__(self, row: Any, run_times: list[datetime]) -> None:
        owners = _applications.get(row.args[0]) if row.func is fire else None
        job = owners.registry.jobs.get(row.args[1]) if owners else None
        if owners is None or job is None:
            self.before(row, run_times)
        else:
            owners.submit(Due(self.owner, row, run_times, job))


def _in_loop(loop: asyncio.AbstractEventLoop, report: Callable[[], object]) -> None:
    """Report in an event loop, and wait for that; here, where the loop is closed or does not get to it in time."""
    reported: Future[None] = Future()

    def call() -> None:
        if reported.set_running_or_notify_cancel():
            report()
            reported.set_result(None)

    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(call, context=copy_context())
        wait([reported], waits.report)
    if reported.cancel():
        report()


async def _aside(report: Callable[[], object]) -> None:
    """Report in a thread, and wait for that, unless this task is cancelled meanwhile."""
    try:
        with suppress(asyncio.CancelledError):
            await asyncio.shield(asyncio.to_thread(report))
    except RuntimeError:  # no thread can be had
        report()
