"""A job that is due, on its way from APScheduler's executor to the owner of its run."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from .._runs import log
from .._runs.schedule import RegisteredJob


class Due:
    """A job that is due, on its way to the owner of its run.

    Attributes:
        executor: The executor that was asked to run it.
        row: The APScheduler job.
        job: Our job.
        run_times: Its fire times, as APScheduler gave them.
        moments: The same in UTC.
        repeated: Those of the moments that were submitted before.
        expected: The first fire time that was expected (UTC); ``None`` where that is not known.
        since: When it was submitted (`time.monotonic`).
        is_released: Whether APScheduler may submit the job again.
    """

    __slots__ = ("executor", "expected", "is_released", "job", "moments", "repeated", "row", "run_times", "since")

    def __init__(self, executor: Any, row: Any, run_times: list[datetime], job: RegisteredJob) -> None:
        self.executor = executor
        self.row = row
        self.run_times = run_times
        self.job = job
        self.moments = [run_time.astimezone(UTC) for run_time in run_times]
        self.repeated, self.expected = job.submit(row.args[2], self.moments, row.next_run_time.astimezone(UTC))
        self.since = time.monotonic()
        self.is_released = False

    def release(self) -> None:
        """Have APScheduler submit the job again: its last action has ended, or does not begin."""
        if not self.is_released:
            self.is_released = True
            self.executor._run_job_success(self.row.id, [])

    def report(self, run_time: datetime, events: list[Any]) -> None:
        """Dispatch the events of a run to the listeners of the scheduler."""
        try:
            if run_time is self.run_times[-1]:
                self.release()
            for event in events:
                self.executor._scheduler._dispatch_event(event)
        except BaseException as error:  # noqa: BLE001 - a logging filter that raises, for one
            log.failure(f"the end of a run of job {self.job.key!r} could not be reported:", error)
