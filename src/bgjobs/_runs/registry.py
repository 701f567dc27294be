"""The runs that are going: who may begin, what ended how, what is counted of it, and the drain."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from .._errors import UnknownJobError, did_you_mean
from . import log as _log
from . import status as _status
from .outcome import Cancelled, Failed, Outcome, Skipped
from .run import SCHEDULED, STARTUP, RegisteredJob, Run, running
from .threads import waits


class Ledger:
    """Knows the jobs of one facade and their runs; every change goes through here, from any thread.

    Attributes:
        jobs: The registered jobs by key.
        abandoned: The runs that the last drain left behind.
        settling: The worker threads that are between the failure of a run and its end, outside the run's context.
        observers: Called with each run and its outcome, when it is over and its scope closed.
    """

    def __init__(self, *, log_runs: bool) -> None:
        self.jobs: dict[str, RegisteredJob] = {}
        self.abandoned: list[Run] = []
        self.settling: set[int] = set()
        self.observers: list[Callable[[Run, Outcome], object]] = []
        self.log_runs = log_runs
        self._closing = False
        self.generation = 0  # of warm-ups: a run that outlived a close hears nothing of the next scheduler
        self._idle = threading.Condition()  # told of ended runs while closing
        self._live: set[Run] = set()  # runs that have not settled
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)  # the next of them is one step, in which no other thread comes between

    def new_run_id(self) -> str:
        """An id that no other run has."""
        return f"{self._prefix}-{next(self._numbers)}"

    def job(self, key: str) -> RegisteredJob:
        """The job with this key.

        Raises:
            UnknownJobError: There is none.
        """
        if key not in self.jobs:
            raise UnknownJobError(f"no job has the key {key!r}{did_you_mean(key, self.jobs)}", key)
        return self.jobs[key]

    # -- a run's way ---------------------------------------------------------------------------------------------

    def begin(self, key: str, kind: str, scheduled_at: datetime) -> Run | Skipped:
        """Let one more run of `key` begin, or say (and log, and count) why it does not.

        Args:
            key: The key of the job.
            kind: `SCHEDULED`, `STARTUP`, or the id of the one extra run.
            scheduled_at: The fire time.
        """
        job = self.jobs.get(key)
        if job is None:
            reason = "no job is registered under this key in this process"
            _log.skipped(key, reason, scheduled_at)
            return Skipped(reason)
        coalesced = 0
        with job.lock:
            if kind == SCHEDULED and job.schedule is not None:
                if scheduled_at == job.schedule.ticked_at:
                    return self._refuse(job, _status.REPEATED, "this occurrence was made already", scheduled_at)
                coalesced = self._tick(job, scheduled_at)
            if self._closing:
                return self._refuse(job, _status.CLOSING, "the jobs are being closed", scheduled_at)
            if len(job.running) >= (1 if kind == STARTUP else job.options.max_instances):
                return self._overlap(job, kind, scheduled_at)
            run_id = self.new_run_id() if kind in (SCHEDULED, STARTUP) else kind
            run = Run(job, kind, run_id, scheduled_at, self.generation)
            job.running.append(run)
            job.tally.started_at = time.time()
        self._live.add(run)
        if self._closing:  # since the look above: the drain may not have seen this run
            run.token.request_cancellation()
        if coalesced:
            _log.coalesced(run, coalesced)
        return run

    def acted(self, run: Run, outcome: Outcome, *, alone: bool = False) -> BaseException | None:
        """The action is over: the key is free for its next run; the outcome is counted and logged.

        Args:
            run: The run.
            outcome: How it ended.
            alone: Whether APScheduler does not hear of it, so that the traceback of a failure is for us to log.

        Returns:
            The error that the run is still to settle, after which `ended` is to be called; ``None`` where it is over.
        """
        job, name = run.job, run.named(outcome)
        with job.lock:
            if run in job.running:  # else it was dropped before, when its event loop went away
                job.running.remove(run)
            job.tally.finished_at = time.time()
            job.tally.outcome = name
            job.tally.counts[name] += 1
        to_settle = outcome.error if isinstance(outcome, Failed) and run.is_to_settle else None
        if name != _status.SUCCEEDED or self.log_runs or run.overlaps:
            with suppress(Exception):  # nothing that a sink or an error's text does may lose the run
                self._log_outcome(run, outcome, alone=alone)
        run.outcome = outcome
        if to_settle is None:
            self.ended(run)
        return to_settle

    def _log_outcome(self, run: Run, outcome: Outcome, *, alone: bool) -> None:
        if isinstance(outcome, Failed):
            run.job.tally.error = _log.described(outcome.error)
            _log.failed(run, outcome.error, with_traceback=alone)
        elif isinstance(outcome, Cancelled):
            _log.cancelled(run)
        elif self.log_runs:
            _log.succeeded(run)
        if run.overlaps > 1:
            _log.overlapped(run, run.overlaps)

    def ended(self, run: Run) -> None:
        """The run is over, its scope closed."""
        if self.observers and run.outcome is not None:
            for observer in list(self.observers):
                observer(run, run.outcome)
        self._live.discard(run)
        run.release()
        if self._closing:
            with self._idle:
                self._idle.notify_all()

    def drop(self, run: Run) -> None:
        """Forget a run that could not begin or whose event loop is gone; nothing where it has acted."""
        with run.job.lock:
            dropped = run in run.job.running
            if dropped:
                run.job.running.remove(run)
        if dropped:
            self.ended(run)

    def withdraw(self, run: Run) -> Skipped | None:
        """Skip a run that was asked to end before its action began: it waited too long for a thread or a task."""
        if not run.token.is_cancellation_requested:
            return None
        self.drop(run)
        with run.job.lock:
            return self._refuse(run.job, _status.CLOSING, "the jobs are being closed", run.scheduled_at)

    # -- runs that are not made ----------------------------------------------------------------------------------

    def missed(self, key: str, scheduled_at: datetime) -> None:
        """APScheduler did not make a run because it was later than the job's grace time."""
        late = (datetime.now(UTC) - scheduled_at).total_seconds()
        job = self.jobs.get(key)
        if job is not None:
            with job.lock:
                self._tick(job, scheduled_at)
                grace = job.options.misfire_grace_time
                reason = f"it was {late:.1f} s late, and misfire_grace_time is {grace} s"
                self._refuse(job, _status.MISSED, reason, scheduled_at)

    def overlapped(self, key: str, scheduled_at: datetime) -> None:
        """APScheduler did not make a run because ``max_instances`` of them were going."""
        job = self.jobs.get(key)
        if job is not None:
            with job.lock:
                self._tick(job, scheduled_at)
                self._overlap(job, SCHEDULED, scheduled_at)

    def dropped(self, key: str, scheduled_at: datetime, counted: str, reason: str) -> None:
        """A one-shot was taken off before it ran: by a pause, a removal, or the close."""
        job = self.jobs.get(key)
        if job is not None:
            with job.lock:
                self._refuse(job, counted, reason, scheduled_at)

    def _tick(self, job: RegisteredJob, scheduled_at: datetime) -> int:
        """Take note of a fire time, and count those that were left out before it."""
        left_out = job.schedule.tick(scheduled_at) if job.schedule else 0
        if not left_out or not job.options.coalesce:
            return 0
        job.tally.counts[_status.COALESCED] += left_out
        return left_out

    def _overlap(self, job: RegisteredJob, kind: str, scheduled_at: datetime) -> Skipped:
        """Skip a run while others are going; of many during one run, the first is logged, and at last the number."""
        if kind == STARTUP:
            reason = "a run is going already, which makes the immediate one"
            return self._refuse(job, _status.OVERTAKEN, reason, scheduled_at, level="INFO")
        if not job.running:
            return self._refuse(
                job, _status.OVERLAPPED, "the executor is not done with its previous run yet", scheduled_at
            )
        oldest = job.running[0]
        oldest.overlaps += 1
        since = datetime.now(UTC) - timedelta(seconds=time.monotonic() - oldest.started)
        reason = f"still running since {since.isoformat(timespec='seconds')} (run {oldest.run_id})"
        return self._refuse(
            job, _status.OVERLAPPED, reason, scheduled_at, level="WARNING" if oldest.overlaps == 1 else None
        )

    def _refuse(
        self, job: RegisteredJob, counted: str, reason: str, scheduled_at: datetime, level: str | None = "WARNING"
    ) -> Skipped:
        job.tally.counts[counted] += 1
        if level is not None:
            _log.skipped(job.key, reason, scheduled_at, level=level)
        return Skipped(reason)

    # -- pausing -------------------------------------------------------------------------------------------------

    def pause(self, job: RegisteredJob) -> None:
        """Take note that the job is paused."""
        with job.lock:
            if job.schedule is not None and job.schedule.paused_at is None:
                job.schedule.paused_at = datetime.now(UTC)
                _log.info(job.key, f"job {job.key!r} is paused")

    def resume(self, job: RegisteredJob) -> None:
        """Take note that the job is resumed, and of how many runs the pause has cost."""
        with job.lock:
            schedule = job.schedule
            if schedule is None or schedule.paused_at is None:
                return
            lost = schedule.count(schedule.expected, datetime.now(UTC))
            job.tally.counts[_status.PAUSED] += lost
            schedule.paused_at = None
            schedule.begin()
        _log.info(job.key, f"job {job.key!r} is resumed; {lost} of its runs were not made while it was paused")

    # -- looking and closing -------------------------------------------------------------------------------------

    def status(self) -> list[_status.JobStatus]:
        """One row a job, in the order of registration."""
        return [
            _status.row(j.key, j.options.cron, len(j.running), j.schedule, j.tally) for j in list(self.jobs.values())
        ]

    def overdue(self) -> list[str]:
        """A sentence for each job that should have run, and is not doing so."""
        now = datetime.now(UTC)
        late = [(job.key, job.schedule.overdue(now)) for job in list(self.jobs.values()) if job.schedule]
        return [f"job {key!r} is overdue by {seconds:.0f} s" for key, seconds in late if seconds is not None]

    def is_inside_a_run(self) -> bool:
        """Whether the calling code belongs to a run of these jobs that is still going."""
        return running() in self._live or threading.get_ident() in self.settling

    def reopen(self) -> None:
        """Let runs begin (again), those of a new warm-up."""
        self._closing = False
        self.abandoned = []
        self.generation += 1

    def shut(self) -> None:
        """Let no new run begin, and ask those that are going to end."""
        self._closing = True
        for run in self.going():
            run.token.request_cancellation()

    def drain(self, timeout: float) -> None:
        """Let no new run begin, ask those that are going to end, and wait for them; then cancel what can be cancelled.

        Blocks this thread, which must be neither a run's nor an event loop's. The runs that did not end are named in
        warnings, and kept in `abandoned`.

        Args:
            timeout: Seconds that the runs get to end, ``on_exception`` included.
        """
        self.shut()
        if not self._wait_until(lambda: not self._live, timeout):
            for run in self.going():
                run.cancel()
            self._wait_until(lambda: all(run.task is None for run in self.going()), waits.cancelled)
        self.abandoned = self.going()
        for run in self.abandoned:
            _log.abandoned(run)

    def _wait_until(self, over: Callable[[], bool], timeout: float) -> bool:
        with self._idle:
            return self._idle.wait_for(over, timeout)

    def going(self) -> list[Run]:
        """The runs that are not over."""
        return list(self._live.copy())
