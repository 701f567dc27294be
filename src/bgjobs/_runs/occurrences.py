"""Occurrences that do not run: counted, and reported with a reason.

Locks are held for changes of memory only. What can raise or block (a log call, an observer) is called outside them.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from .._errors import ByName
from . import log
from .extras import Extras
from .observers import Reports
from .schedule import SCHEDULED, STARTUP, RegisteredJob, Schedule
from .status import Outcome, RunReport, Skipped


class Occurrences:
    """Knows which occurrences of the jobs do not run, and why.

    Attributes:
        jobs: The registered jobs by key.
        reports: Tells the log and the observers.
        extras: The extra runs that were asked for.
    """

    def __init__(self, reports: Reports) -> None:
        self.jobs: ByName[RegisteredJob] = ByName()
        self.reports = reports
        self.extras = Extras()

    def skip(
        self,
        key: str,
        scheduled_at: datetime,
        outcome: Outcome,
        reason: str,
        kind: str = SCHEDULED,
        *,
        times: int = 1,
        quiet: bool = False,
        later: bool = False,
    ) -> Skipped:
        """Count and report an occurrence that does not run.

        Args:
            key: The key of the job; one that is not registered is only logged.
            scheduled_at: The fire time (UTC).
            outcome: Why, as a code.
            reason: Why, in words.
            kind: What kind of run it would have been.
            times: How many occurrences it stands for.
            quiet: Whether the log has said it already.
            later: Whether APScheduler holds locks here, so that a thread or the next run reports it.
        """
        self._count(key, outcome, times)
        report = RunReport(key, None, scheduled_at, None, 0.0, outcome, reason)
        self.extras.ended(kind, report)
        if later:
            self.reports.skipped_under_locks(report)
        else:
            self.reports.skipped(report, quiet=quiet)
        return Skipped(reason)

    def left_out(
        self, job: RegisteredJob, expected: datetime | None, scheduled_at: datetime, *, later: bool = False
    ) -> None:
        """Skip the occurrences between the one that was expected and the one that APScheduler came with."""
        times = job.schedule.left_out(expected, scheduled_at) if job.schedule is not None else 0
        if times and job.options.coalesce:
            reason = f"coalesced {times} earlier due runs into this one"
            self.skip(job.key, scheduled_at, Outcome.COALESCED, reason, times=times, later=later)
        elif times:  # APScheduler tells of overlaps after its pass, and not at all where a job store raises in that
            reason = f"{times} earlier occurrences overlapped while a job store failed"
            self.skip(job.key, scheduled_at, Outcome.OVERLAPPED, reason, times=times, later=later)

    def overlapped(self, key: str, scheduled_at: datetime) -> None:
        """APScheduler did not run an occurrence because ``max_instances`` runs were in progress."""
        job, kind = self.jobs.get(key), SCHEDULED
        if job is None:  # a one-shot, whose kind is at the end of its id
            key, _, kind = key.rpartition(":")
            job = self.jobs.get(key)
        if job is None or job.schedule is None:
            return
        if kind != SCHEDULED or job.schedule.was_ticked(scheduled_at):
            self.repeated(key, scheduled_at)
            return
        self.left_out(job, job.schedule.tick(scheduled_at), scheduled_at)
        self._overlap(job, SCHEDULED, scheduled_at)

    def repeated(self, key: str, scheduled_at: datetime, *, later: bool = False) -> Skipped:
        """A job store did not take note that an occurrence was submitted, so that it is due once more."""
        return self.skip(key, scheduled_at, Outcome.REPEATED, "this occurrence was submitted already", later=later)

    def _overlap(self, job: RegisteredJob, kind: str, scheduled_at: datetime) -> Skipped:
        """Skip an occurrence during a run; of many during one run, the first is logged, and in the end their number."""
        if kind == STARTUP:
            reason = "a run in progress counts as the immediate one"
            return self.skip(job.key, scheduled_at, Outcome.OVERTAKEN, reason)
        with job.lock:
            oldest = job.running[0] if job.running else None
            if oldest is not None:
                oldest.overlaps += 1
        if oldest is None:
            reason = "its previous run has not begun: no thread is free, or only_if or the claim store has not answered"
            return self.skip(job.key, scheduled_at, Outcome.OVERLAPPED, reason, kind)
        since = datetime.now(UTC) - timedelta(seconds=time.monotonic() - oldest.started)
        reason = f"still running since {since.isoformat(timespec='seconds')} (run {oldest.run_id})"
        return self.skip(job.key, scheduled_at, Outcome.OVERLAPPED, reason, kind, quiet=oldest.overlaps > 1)

    def _count(self, key: str, outcome: Outcome, times: int) -> None:
        if (job := self.jobs.get(key)) is not None:
            with job.lock:
                job.tally.counts[outcome] += times
                if outcome == Outcome.REFUSED:
                    job.tally.refused_since = job.tally.refused_since or time.monotonic()

    def pause(self, job: RegisteredJob) -> None:
        """Note that the job is paused."""
        if job.schedule is not None and job.schedule.pause():
            log.info(f"job {job.key!r} is paused", job.key)

    def reschedule(self, job: RegisteredJob, options: Any, schedule: Schedule | None) -> None:
        """Note that the job has another schedule; its pause stays."""
        if schedule is not None and job.schedule is not None:
            self._lost(job, job.schedule)
            schedule.take_over(job.schedule)
        job.options, job.schedule = options, schedule

    def _lost(self, job: RegisteredJob, schedule: Schedule) -> int:
        """How many runs a pause has cost since the last call, if it is paused: one report stands for all of them."""
        first, lost = schedule.expected, schedule.lost() if schedule.paused_at is not None else 0
        if lost:
            assert first is not None
            self.skip(job.key, first, Outcome.PAUSED, f"the job was paused for {lost} runs", times=lost, quiet=True)
        return lost

    def resume(self, job: RegisteredJob) -> None:
        """Note that the job is resumed, and how many runs the pause has cost."""
        if job.schedule is not None:
            job.schedule.resumed = True
        if job.schedule is not None and job.schedule.paused_at is not None:
            lost = self._lost(job, job.schedule)
            job.schedule.resume()
            log.info(f"job {job.key!r} is resumed; {lost} of its runs were skipped while it was paused", job.key)

    def _count_paused(self) -> None:
        """Tell what pauses have cost so far, since the process may end before they do."""
        for job in list(self.jobs.values()):
            if job.schedule is not None and (lost := self._lost(job, job.schedule)):
                log.info(f"job {job.key!r} is paused; {lost} of its runs were skipped for that", job.key)
