"""The registered jobs and their runs: who is admitted, what is counted and reported, and the drain.

An occurrence takes one way through here, in its owner:

    perform   closing? ran already? overlap?         -> skipped with a reason, or: scope, action, outcome
              the outcome is known                   -> counted, logged
    settle    on_exception, the scope is closed      -> the observers hear of the run; a drain that waits is woken

Locks are held for changes of memory only. What can raise or block (a log call, an observer) is called outside them.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from .._errors import UnknownJobError, did_you_mean
from .._job import Resolver
from . import log, status
from .run import Run, enter, here
from .schedule import RegisteredJob, row
from .status import RunReport, Skipped
from .threads import Calls, in_task, waits

#: The kinds of run: at its fire time, and the one at warm-up. Any other kind is the id of one extra run.
SCHEDULED, STARTUP = "scheduled", "startup"
Observer = Callable[[RunReport], object]


class Registry:
    """Knows the jobs of one facade and their runs, from any thread.

    Attributes:
        jobs: The registered jobs by key.
        resolver: Gives a run its scope and instance; ``None`` to call the class.
        abandoned: The runs that the last drain left behind.
        observers: Called with the report of each run that has ended, and of each occurrence that did not run.
        log_runs: Whether successful runs are logged.
    """

    def __init__(self, *, log_runs: bool) -> None:
        self.jobs: dict[str, RegisteredJob] = {}
        self.resolver: Resolver | None = None
        self.abandoned: list[Run] = []
        self.observers: list[Observer] = []
        self.log_runs = log_runs
        self._closing = False
        self._idle = threading.Condition()  # notified of ended runs while closing
        self._live: set[Run] = set()  # runs that have not ended
        self._unreported: deque[RunReport] = deque()  # noted where nothing may block
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)  # `next` is one step, which no other thread can interrupt

    def new_run_id(self) -> str:
        """An id that no other run has."""
        return f"{self._prefix}-{next(self._numbers)}"

    def job(self, key: str) -> RegisteredJob:
        """The job with this key.

        Raises:
            UnknownJobError: There is none.
        """
        job = self.jobs.get(key)
        if job is None:
            raise UnknownJobError(f"no job has the key {key!r}{did_you_mean(key, list(self.jobs))}", key)
        return job

    # -- the way of a run ----------------------------------------------------------------------------------------

    def new_run(self, job: RegisteredJob, kind: str, scheduled_at: datetime) -> Run:
        """A run that is not admitted yet; its kind is `SCHEDULED`, `STARTUP`, or the id of the one extra run."""
        return Run(job, kind, self.new_run_id() if kind in (SCHEDULED, STARTUP) else kind, scheduled_at)

    async def perform(self, run: Run, calls: Calls) -> None:
        """The first half: admission, and the run until its outcome is known. Raises nothing."""
        run.is_begun = True
        skipped = self._admit(run)
        if skipped is not None:
            run.value = skipped
            return
        if calls is in_task:
            run.task = asyncio.current_task()
        try:
            await run.perform(calls, self.resolver)
        finally:  # also where the coroutine is thrown away with its loop
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
        """Let the run start, or count and report why it is skipped."""
        job = run.job
        if self.jobs.get(run.key) is not job:
            return self.skip(run.key, run.scheduled_at, status.REFUSED, "the job was removed first")
        if run.kind == SCHEDULED and not self._tick(job, run.scheduled_at):
            return self.skip(run.key, run.scheduled_at, status.REPEATED, "this occurrence ran already")
        if self._closing:
            return self.skip(run.key, run.scheduled_at, status.CLOSING, "the jobs are being closed")
        return self._begin(job, run)

    def _begin(self, job: RegisteredJob, run: Run) -> Skipped | None:
        """The overlap guard: it is free again when the action has ended."""
        limit = 1 if run.kind == STARTUP else job.options.max_instances
        with job.lock:
            run.is_live = len(job.running) < limit
            if run.is_live:
                job.running.append(run)
                job.tally.started_at = time.time()
        if not run.is_live:
            return self._overlap(job, run.kind, run.scheduled_at)
        self._live.add(run)
        if self._closing:  # pragma: no cover - since the look in `_admit`: the drain may not have seen this run
            run.token.request_cancellation()
        return None

    def _acted(self, run: Run) -> None:
        """The outcome of a run is known, and may still be settled: count it and log it."""
        tally, outcome = run.job.tally, run.outcome or status.CANCELLED
        error = None if run.error is None else log.described(run.error)
        with run.job.lock:
            tally.finished_at = time.time()
            tally.outcome = outcome
            tally.counts[outcome] += 1
            tally.error = error or tally.error
        if outcome != status.SUCCEEDED or self.log_runs:
            log.observe(run.report())
        if run.overlaps > 1:
            log.warning(f"job {run.key!r} was skipped {run.overlaps} times during this run", run)

    def _ended(self, run: Run) -> None:
        """The run is over, its scope closed: the one way out, whatever ended it."""
        if self.observers:
            self._tell(run.report(), self.observers)
        self._live.discard(run)
        run.release()
        if self._unreported:
            self.flush()
        if self._closing:
            with self._idle:
                self._idle.notify_all()

    # -- occurrences that do not run -----------------------------------------------------------------------------

    def skip(
        self, key: str, scheduled_at: datetime, outcome: str, reason: str, *, times: int = 1, quiet: bool = False
    ) -> Skipped:
        """Count and report an occurrence that does not run.

        Args:
            key: The key of the job; one that is not registered is only logged.
            scheduled_at: The fire time (UTC).
            outcome: One of `status.REASONS`.
            reason: Why, in words.
            times: How many occurrences it stands for.
            quiet: Whether the log has said it already.
        """
        self._count(key, outcome, times)
        report = RunReport(key, None, scheduled_at, None, 0.0, outcome, reason)
        self._tell(report, self.observers if quiet else [log.observe, *self.observers])
        return Skipped(reason)

    def refuse(self, job: RegisteredJob, kind: str, scheduled_at: datetime, reason: str) -> None:
        """Skip what an executor does not take, under APScheduler's locks: a thread or the next run reports it."""
        if kind == SCHEDULED and job.schedule is not None:
            job.schedule.tick(scheduled_at, job.lock)
        self._count(job.key, status.REFUSED, 1)
        self._unreported.append(RunReport(job.key, None, scheduled_at, None, 0.0, status.REFUSED, reason))
        with suppress(RuntimeError):  # no thread can be had
            threading.Thread(target=self.flush, name="bgjobs-report", daemon=True).start()

    def flush(self) -> None:
        """Report what `refuse` has left."""
        while self._unreported:
            with suppress(IndexError):  # another thread was faster
                self._tell(self._unreported.popleft(), [log.observe, *self.observers])

    def missed(self, run: Run) -> None:
        """APScheduler did not run an occurrence because it was later than the job's grace time."""
        if self.jobs.get(run.key) is run.job:  # else it was removed
            self._tick(run.job, run.scheduled_at)
            late = (datetime.now(UTC) - run.scheduled_at).total_seconds()
            reason = f"it was {late:.1f} s late, and misfire_grace_time is {run.job.options.misfire_grace_time} s"
            self.skip(run.key, run.scheduled_at, status.MISSED, reason)

    def overlapped(self, key: str, scheduled_at: datetime) -> None:
        """APScheduler did not run an occurrence because ``max_instances`` runs were in progress."""
        if (job := self.jobs.get(key)) is not None:
            self._tick(job, scheduled_at)
            self._overlap(job, SCHEDULED, scheduled_at)

    def _tick(self, job: RegisteredJob, scheduled_at: datetime) -> bool:
        """Note a fire time, and count those that were left out before it. Returns False if it was noted before."""
        left_out = 0 if job.schedule is None else job.schedule.tick(scheduled_at, job.lock)
        if left_out and job.options.coalesce:
            reason = f"coalesced {left_out} earlier due runs into this one"
            self.skip(job.key, scheduled_at, status.COALESCED, reason, times=left_out)
        return left_out is not None

    def _overlap(self, job: RegisteredJob, kind: str, scheduled_at: datetime) -> Skipped:
        """Skip an occurrence during a run; of many during one run, the first is logged, and in the end their number."""
        if kind == STARTUP:
            reason = "a run in progress counts as the immediate one"
            return self.skip(job.key, scheduled_at, status.OVERTAKEN, reason)
        with job.lock:
            oldest = job.running[0] if job.running else None
            if oldest is not None:
                oldest.overlaps += 1
        if oldest is None:
            reason = "its previous run still waits for a thread of the executor"
            return self.skip(job.key, scheduled_at, status.OVERLAPPED, reason)
        since = datetime.now(UTC) - timedelta(seconds=time.monotonic() - oldest.started)
        reason = f"still running since {since.isoformat(timespec='seconds')} (run {oldest.run_id})"
        return self.skip(job.key, scheduled_at, status.OVERLAPPED, reason, quiet=oldest.overlaps > 1)

    def _count(self, key: str, outcome: str, times: int) -> None:
        if (job := self.jobs.get(key)) is not None:
            with job.lock:
                job.tally.counts[outcome] += times

    def _tell(self, report: RunReport, observers: Sequence[Observer]) -> None:
        for observer in list(observers):
            try:
                observer(report)
            except BaseException as error:  # noqa: BLE001 - an observer never costs a run
                log.failure(f"an observer of the runs of job {report.key!r} raised", error)

    def pause(self, job: RegisteredJob) -> None:
        """Note that the job is paused."""
        if job.schedule is not None and job.schedule.pause():
            log.info(f"job {job.key!r} is paused", job.key)

    def resume(self, job: RegisteredJob) -> None:
        """Note that the job is resumed, and how many runs the pause has cost."""
        if job.schedule is not None and (lost := job.schedule.resume()) is not None:
            self._count(job.key, status.PAUSED, lost)
            log.info(f"job {job.key!r} is resumed; {lost} of its runs were skipped while it was paused", job.key)

    # -- looking and closing -------------------------------------------------------------------------------------

    def status(self) -> list[status.JobStatus]:
        """One row a job, in the order of registration."""
        return [row(job) for job in list(self.jobs.values())]

    def overdue(self) -> list[str]:
        """A sentence for each job that should have run, and does not."""
        late = {job.key: job.schedule.overdue() for job in list(self.jobs.values()) if job.schedule}
        return [f"job {key!r} is overdue by {seconds:.0f} s" for key, seconds in late.items() if seconds is not None]

    def is_inside_a_run(self) -> bool:
        """Whether a run of these jobs is in progress in the calling code."""
        return here() in self._live

    def reopen(self) -> None:
        """Admit runs (again), those of a new warm-up."""
        self._closing = False
        self.abandoned = []

    def shut(self) -> None:
        """Admit no more runs, and ask those in progress to end."""
        self._closing = True
        for run in self._live.copy():
            run.token.request_cancellation()

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
