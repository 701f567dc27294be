"""What can be asked of registered jobs: hooks, extra runs and their reports, pauses, other schedules, how they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import tzinfo
from typing import Any, Protocol, TypeVar

from ._apscheduler.rows import Rows
from ._errors import LifecycleError
from ._job import require_function
from ._runs.registry import Registry
from ._runs.schedule import RegisteredJob
from ._runs.status import CurrentRun, Health, JobStatus, RunReport
from ._schedules import rescheduled, run_kwargs

Hook = TypeVar("Hook", bound=Callable[[CurrentRun], Any])
Observer = TypeVar("Observer", bound=Callable[[RunReport], object])


class LifeCycle(Protocol):
    """Whether the jobs are warm, and on what."""

    rows: Rows | None
    timezone: tzinfo
    remedy: str

    @property
    def is_warm(self) -> bool:
        """Whether they are."""

    def check_job(self, job: RegisteredJob) -> None:
        """Raise what is wrong with a job on the scheduler that is warm."""

    def schedule(self, job: RegisteredJob, *, at_startup: bool = True) -> None:
        """Have the scheduler run a job."""

    def health(self) -> Health:
        """How all is."""


class Control:
    """The part of `BackgroundJobs` that is used while the jobs run."""

    _lifecycle: LifeCycle
    _registry: Registry

    @property
    def is_warm(self) -> bool:
        """Whether the jobs are warmed up and not closed."""
        return self._lifecycle.is_warm

    # -- hooks ---------------------------------------------------------------------------------------------------

    def around_run(self, hook: Hook) -> Hook:
        """Have a context manager held open around every run, for spans, check-ins and locks; a decorator.

        It is entered in the run's own task or thread and context, outside the scope of the resolver, and sees the
        exception of a failed run; ``on_exception`` happens inside. With several hooks, the first is the outermost. One
        that raises is logged; it neither stops a run nor changes its outcome. Async code in one gets a minute. Around a
        coroutine, what is not async runs in the event loop and must not block.

        Args:
            hook: Called with the `CurrentRun`; returns a context manager, sync or async, or ``None``.

        Returns:
            The hook, unchanged.

        Raises:
            InvalidJobError: It does not take one argument, or is not decorated with `contextlib.contextmanager`.
        """
        require_function(hook, "around_run", "the CurrentRun")
        self._registry.around.append(hook)
        return hook

    def on_run_end(self, observer: Observer) -> Observer:
        """Have every run that has ended reported, and every occurrence that did not run; a decorator.

        Observers are called one after the other in a thread of their own, with one report after the other. So none
        delays a run: neither one that raises, which is logged, nor one that blocks. Async ones run in the event loop of
        the jobs, and get a minute. A close waits for them. Without observers, a run pays nothing.

        Args:
            observer: Called with the `RunReport`; sync or async.

        Returns:
            The observer, unchanged.

        Raises:
            InvalidJobError: It does not take one argument.
        """
        require_function(observer, "on_run_end", "the RunReport")
        self._registry.reports.hooks.append(observer)
        return observer

    # -- extra runs ----------------------------------------------------------------------------------------------

    def run_now(self, key: str, *, kwargs: Mapping[str, Any] | None = None) -> str:
        """Run a job once more as soon as its executor can, even a paused one or one that is switched off.

        Args:
            key: The job.
            kwargs: Arguments of this run, which win over those of the job; ``None`` for those of the job.

        Returns:
            The id of the run, for `wait`. It is skipped like any other run while ``max_instances`` runs are in
            progress. Its ``only_if`` is not asked.

        Raises:
            UnknownJobError: No job has this key.
            InvalidJobError: The job has no such argument, or it is of the wrong type.
            LifecycleError: The jobs are not warm.
        """
        job, rows = self._registry.job(key), self._lifecycle.rows
        if rows is None:
            raise LifecycleError(f"run_now() needs a scheduler that is running; {self._lifecycle.remedy}")
        self._lifecycle.check_job(job)
        arguments = run_kwargs(job, kwargs)
        run_id = self._registry.new_extra(job.key, arguments)
        try:
            rows.run_once(job, run_id)
        except BaseException:
            self._registry.extras.forget(run_id)
            raise
        return run_id

    def wait(self, run_id: str, timeout: float | None = None) -> RunReport:
        """Block until a run that `run_now` requested is over, ``on_exception`` included, or is skipped.

        Not for the code of that run, which would wait for itself.

        Args:
            run_id: What `run_now` has returned, in this process; the latest thousand that have ended are remembered.
            timeout: Seconds to wait; ``None`` for no limit.

        Returns:
            The report of the run.

        Raises:
            UnknownRunError: No such run is known.
            TimeoutError: The run is not over by then.
            LifecycleError: An event loop is running here, which this would block; use `wait_async`.
        """
        refuse_running_loop("wait() would block the event loop that is running here; use `await jobs.wait_async(...)`")
        report = self._registry.extras.report(run_id)
        try:
            return report.result(timeout)
        except TimeoutError:
            raise TimeoutError(f"run {run_id} was not over within {timeout:g} s") from None

    async def wait_async(self, run_id: str) -> RunReport:
        """Same as `wait`, without blocking the event loop; `asyncio.timeout` limits it."""
        return await asyncio.shield(asyncio.wrap_future(self._registry.extras.report(run_id)))

    # -- schedules -----------------------------------------------------------------------------------------------

    def reschedule(
        self, key: str, *, cron: str | None = None, trigger: Any = None, timezone: str | tzinfo | None = None
    ) -> None:
        """Give a job another schedule; its counts, its pause and its runs in progress stay.

        This holds until the process ends. Then the schedule is that of the code and the settings again.

        Args:
            key: The job.
            cron: The new cron expression; ``None`` keeps the one there is.
            trigger: Any APScheduler trigger instead.
            timezone: The new time zone; ``None`` keeps the one there is.

        Raises:
            UnknownJobError: No job has this key.
            CronFormatError: The cron expression cannot be parsed.
            NeverFiresError: No date can match it.
            ConfigurationError: Nothing is given, or it is wrong.
        """
        job = self._registry.job(key)
        values = {"cron": cron, "trigger": trigger, "timezone": timezone}
        before = job.options, job.schedule
        options, schedule = rescheduled(job, values, self._lifecycle.timezone)
        if schedule is not None:
            self._lifecycle.check_job(replace(job, options=options, schedule=schedule))
        self._registry.reschedule(job, options, schedule)
        if self._lifecycle.rows is None or schedule is None:
            return
        try:
            self._lifecycle.schedule(job, at_startup=False)
        except BaseException:
            job.options, job.schedule = before
            with suppress(Exception):  # the job store refuses this one, too
                self._lifecycle.schedule(job, at_startup=False)
            raise

    def pause(self, key: str) -> None:
        """Skip the runs of a job until `resume`; a run in progress is left to finish.

        One-shots that have not run yet are removed. With a claim store this pauses the job in all replicas, and may
        take five seconds: in a coroutine, use `asyncio.to_thread`.

        Raises:
            UnknownJobError: No job has this key.
            ClaimStoreError: The claim store does not answer.
        """
        job = self._registry.job(key)
        (self._lifecycle.rows or self._registry).pause(job)

    def resume(self, key: str) -> None:
        """Continue the schedule of a paused job from now on; with a claim store, in all replicas.

        Raises:
            UnknownJobError: No job has this key.
            ClaimStoreError: The claim store does not answer.
        """
        job = self._registry.job(key)
        (self._lifecycle.rows or self._registry).resume(job)

    def remove(self, key: str) -> None:
        """Forget a job, with its one-shots; a run in progress is left to finish, with its ``on_exception``.

        Raises:
            UnknownJobError: No job has this key.
        """
        job = self._registry.job(key)
        if rows := self._lifecycle.rows:
            rows.remove(job)
        else:
            self._registry.remove(job)

    def status(self) -> list[JobStatus]:
        """One row a job, in the order of registration; never waits for the scheduler."""
        return self._registry.status(is_warm=self.is_warm)

    def health(self) -> Health:
        """Whether the jobs are warm, the scheduler is running, and no job is overdue by more than ten seconds.

        Cheap enough for a readiness probe: it never waits for the scheduler.
        """
        return self._lifecycle.health()


def refuse_running_loop(message: str) -> None:
    """Raise `LifecycleError` with this message where an event loop is running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise LifecycleError(message)
