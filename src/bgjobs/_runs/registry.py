"""The registered jobs and their runs: who is admitted, how runs end, and the drain.

An occurrence takes one way through here, in its owner:

    perform   submitted before? closing? paused? overlap?  -> skipped with a reason, or: scope, action, outcome
              the outcome is known                         -> counted, logged
    settle    on_exception, the scope is closed            -> the observers hear of it; a drain that waits is woken

Locks are held for changes of memory only. What can raise or block (a log call, an observer) is called outside them.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol
from weakref import WeakValueDictionary

from .._job import Resolver
from . import alarm, log, status
from .calls import Calls, InThread, drive, in_task
from .extras import WITH_KWARGS
from .jobs import Jobs
from .observers import Reports, to_log
from .occurrences import Occurrences
from .run import Run, enter, here
from .schedule import LATE, SCHEDULED, STARTUP, RegisteredJob, row
from .scopes import Around
from .status import Outcome, Refused, Skipped
from .threads import waits


class Claims(Protocol):
    """Where runs are claimed among replicas."""

    async def claim(self, run: Run, calls: Calls) -> Refused | None:
        """Ask for a run; ``None`` where it may begin."""

    def release(self, run: Run, outcome: str, error: str | None) -> None:
        """A run that asked has ended, or is dropped. Waits for nothing."""

    def pause(self, job: RegisteredJob, *, paused: bool) -> None:
        """Pause or resume a job in all replicas."""


class Registry(Jobs, Occurrences):
    """Knows the jobs of one facade and their runs, from any thread.

    Attributes:
        resolver: Gives a run its scope and instance; ``None`` to call the class.
        around: The hooks of `around_run`.
        abandoned: The runs that the last drain left behind.
        log_runs: Whether successful runs are logged.
        claims: Where runs are claimed; ``None`` where there are no replicas, or the jobs are not warm.
    """

    def __init__(self, get_loop: Callable[[], asyncio.AbstractEventLoop], *, log_runs: bool) -> None:
        in_thread = InThread(get_loop)
        super().__init__(Reports(lambda awaited: drive(in_thread.within(waits.handler, lambda: awaited))))
        self.resolver: Resolver | None = None
        self.abandoned: list[Run] = []
        self.log_runs = log_runs
        self.claims: Claims | None = None
        self._closing = False
        self._idle = threading.Condition()  # notified of ended runs while closing
        self._live: set[Run] = set()  # runs that were admitted, and have not ended
        self.removed = WeakValueDictionary()
        self.around: list[Around] = []
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)  # `next` is one step, which no other thread can interrupt

    def new_run_id(self) -> str:
        """An id that no other run has."""
        return f"{self._prefix}-{next(self._numbers)}"

    def new_extra(self, key: str, kwargs: Mapping[str, Any] | None) -> str:
        """Expect an extra run of a job, with these arguments or (``None``) those of the job. Returns its id."""
        run_id = self.new_run_id() + ("" if kwargs is None else WITH_KWARGS)
        self.extras.ask(run_id, key, kwargs)
        return run_id

    # -- the way of a run ----------------------------------------------------------------------------------------

    def new_run(self, job: RegisteredJob, kind: str, scheduled_at: datetime) -> Run:
        """A run that is not admitted yet; its kind is one of three, or the id of the one extra run."""
        if kind in (SCHEDULED, STARTUP, LATE):
            return Run(job, kind, self.new_run_id(), scheduled_at, None)
        return Run(job, kind, kind, scheduled_at, self.extras.kwargs(kind))

    async def perform(self, run: Run, calls: Calls) -> None:
        """The first half: admission, and the run until its outcome is known. Raises nothing."""
        run.is_begun = True
        run.value = self._admit(run)
        if run.value is not None:
            return
        if calls is in_task:
            run.task = asyncio.current_task()
        self._live.add(run)
        try:
            if run.job.options.only_if is not None and run.kind in (SCHEDULED, STARTUP, LATE):
                run.value = await self._ask(run, run.job.options.only_if, calls)
            if run.value is None and self.claims is not None:
                run.value = await self._claim(run, self.claims, calls)
            run.value = run.value or self._begin(run.job, run)
            if run.is_live:
                await run.perform(calls, self.resolver, self.around)
        finally:  # also where the coroutine is thrown away with its loop
            self._release(run)  # before anything that can block
            if run.is_live:
                self._acted(run)
            if not run.is_to_settle:
                self._ended(run)

    async def settle(self, run: Run, calls: Calls) -> None:
        """The second half, where there is one. Raises nothing."""
        if run.is_live:
            try:
                await run.settle(calls)
            finally:
                self._ended(run)

    async def run_alone(self, run: Run, calls: Calls) -> None:
        """Both halves, where no scheduler hears of the run in between. Raises nothing."""
        enter(run)
        await self.perform(run, calls)
        await self.settle(run, calls)

    def _admit(self, run: Run) -> Skipped | None:
        """Count and report why the run is skipped; ``None`` where nothing is against it yet."""
        job = run.job
        if self.jobs.get(run.key) is not job:
            return self._skip_run(run, Outcome.REFUSED, "the job was removed first")
        if run.is_repeated:
            return self.repeated(run.key, run.scheduled_at)
        if self._closing:
            return self._skip_run(run, Outcome.CLOSING, "the jobs are being closed")
        if self.extras.has_lost(run.kind):
            return self._skip_run(run, Outcome.REFUSED, "the process that has asked for it, with its kwargs, is gone")
        if run.kind in (SCHEDULED, LATE) and job.schedule is not None and job.schedule.paused_at is not None:
            return self._skip_run(run, Outcome.PAUSED, "the job was paused first")
        return None

    async def _ask(self, run: Run, only_if: Callable[..., object], calls: Calls) -> Skipped | None:
        """Ask the condition of the job, or count and report why the run is skipped."""
        reason = "only_if returned False"
        try:
            if await calls.within(waits.handler, only_if, run.current):
                return self._admit(run)  # again: that may have taken a while
        except BaseException as error:  # noqa: BLE001 - whatever a user's function raises
            if run.is_ended_by(error):
                return self._skip_run(run, Outcome.CLOSING, "its task was cancelled before only_if had answered")
            log.failure(f"only_if of job {run.key!r} raised", error, run)
            reason = f"only_if raised {log.described(error)}"
        return self._skip_run(run, Outcome.CONDITION, reason)

    async def _claim(self, run: Run, claims: Claims, calls: Calls) -> Skipped | None:
        """Claim the run among the replicas, or count and report why it is skipped."""
        try:
            refused = await claims.claim(run, calls)
        except asyncio.CancelledError:
            return self._skip_run(run, Outcome.CLOSING, "its task was cancelled before it was claimed")
        if refused is not None:
            return self._skip_run(run, refused.outcome, refused.reason, quiet=refused.is_told)
        return self._admit(run)  # again: that may have taken a while

    def _skip_run(self, run: Run, outcome: Outcome, reason: str, *, quiet: bool = False) -> Skipped:
        return self.skip(run.key, run.scheduled_at, outcome, reason, run.kind, quiet=quiet)

    def _release(self, run: Run) -> None:
        if self.claims is not None and run.lease is not None:
            error = None if run.error is None else log.described(run.error)
            self.claims.release(run, run.outcome or Outcome.CANCELLED, error)

    def _begin(self, job: RegisteredJob, run: Run) -> Skipped | None:
        """Take a place under the overlap guard, until the action has ended; or skip the run."""
        limit = 1 if run.kind == STARTUP else job.options.max_instances
        with job.lock:
            run.is_live = len(job.running) < limit
            if run.is_live:
                job.running.append(run)
                job.tally.started_at = run.started_at = time.time()
                job.tally.refused_since = None
        if not run.is_live:
            return self._overlap(job, run.kind, run.scheduled_at)
        if self._closing:  # pragma: no cover - since the look in `_admit`: the drain may not have seen this run
            run.token.request_cancellation()
        return None

    def _acted(self, run: Run) -> None:
        """The outcome of a run is known, and may still be settled: count it and log it."""
        tally, outcome = run.job.tally, run.outcome or Outcome.CANCELLED
        error = None if run.error is None else log.described(run.error)
        with run.job.lock:
            tally.ended(outcome, run.seconds, error)
        if outcome != Outcome.SUCCEEDED or self.log_runs:
            to_log(run.report())
        if run.overlaps > 1:
            log.warning(f"job {run.key!r} was skipped {run.overlaps} times during this run", run)
        for job, start in run.followers:
            try:
                if self.jobs.get(job.key) is job:
                    start()
            except Exception as raised:  # noqa: BLE001 - what a job store raises
                log.failure(f"the immediate run of job {run.key!r} could not be made:", raised)

    def _ended(self, run: Run) -> None:
        """The run is over, its scope closed, or it did not begin: the one way out, whatever ended it."""
        if run.is_live:
            self.reports.ended(run.report)
            self.extras.ended(run.kind, run.report)
        self._live.discard(run)
        run.release()
        if self._closing:
            with self._idle:
                self._idle.notify_all()

    def missed(self, run: Run) -> None:
        """APScheduler did not run an occurrence because it was later than the job's grace time."""
        if run.is_repeated:
            self.repeated(run.key, run.scheduled_at)
        elif self.jobs.get(run.key) is run.job:  # else it was removed
            late = (datetime.now(UTC) - run.scheduled_at).total_seconds()
            reason = f"it was {late:.1f} s late, and misfire_grace_time is {run.job.options.misfire_grace_time} s"
            self._skip_run(run, Outcome.MISSED, reason)

    # -- looking and closing -------------------------------------------------------------------------------------

    def status(self, *, is_warm: bool) -> list[status.JobStatus]:
        """One row a job, in the order of registration."""
        return [row(job, is_warm=is_warm) for job in list(self.jobs.values())]

    def problems(self) -> list[str]:
        """A sentence for each job that should have run, and does not, and for each handler that does not end."""
        found = []
        for job in list(self.jobs.values()):
            if job.schedule is not None and (late := job.schedule.overdue()) is not None:
                found.append(f"job {job.key!r} is overdue by {late:.0f} s")
            if (since := job.tally.refused_since) is not None and time.monotonic() - since > waits.overdue:
                found.append(f"job {job.key!r} does not start: its executor takes no more work")
        found += self.reports.problems()
        return found + [problem for run in self._live.copy() if (problem := run.late_handler()) is not None]

    def is_inside_a_run(self) -> bool:
        """Whether the calling code is that of a run of these jobs, or of an observer."""
        return here() in self._live or self.reports.is_inside

    def reopen(self) -> None:
        """Admit runs (again), those of a new warm-up."""
        self._closing = False
        self.abandoned = []
        for job in list(self.jobs.values()):
            job.one_shots.pop(STARTUP, None)

    def forked(self) -> None:
        """Forget the parent's runs in a forked child; another thread may have held any lock at that moment."""
        self._idle, self._live, self._prefix = threading.Condition(), set(), secrets.token_hex(4)
        alarm.forked()
        self.claims = None
        self.removed.clear()
        self.reports.forked()
        self.extras.forked()
        for job in self.jobs.values():
            job.lock, job.running = threading.Lock(), []

    def shut(self) -> int:
        """Admit no more runs, and ask those in progress to end. Returns how many these are."""
        self._closing = True
        for run in self._live.copy():
            run.token.request_cancellation()
        return len(self._live)

    def finish(self) -> None:
        """All is closed: have the observers hear of everything, and those who wait for a run that will not be made."""
        self.extras.close({run.run_id for run in self._live.copy()})
        self.reports.flush(waits.close)

    def drain(self, timeout: float) -> None:
        """Give the runs in progress `timeout` seconds to end, ``on_exception`` included; then cancel coroutines.

        Blocks this thread, which must be neither a run's nor an event loop's. Runs that do not end are kept in
        `abandoned`, and named in warnings.
        """
        self.shut()
        with self._idle:
            ended = self._idle.wait_for(lambda: not self._live, timeout)
        for run in [] if ended else list(self._live.copy()):
            run.cancel()
        with self._idle:
            self._idle.wait_for(lambda: all(run.task is None for run in self._live.copy()), waits.cancelled)
        self.abandoned = list(self._live.copy())
        for run in self.abandoned:
            log.warning(f"job {run.key!r} did not end within the shutdown_timeout and was abandoned", run)
        self._count_paused()
