"""The runs that are going: who may begin, what ended how, and the drain."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from . import _log
from ._outcome import Cancelled, Failed, Outcome, Skipped
from ._run import STARTUP, RegisteredJob, Run, running

#: Seconds that cancelled coroutines get to end when the jobs are closed.
CANCEL_TIMEOUT = 5.0


class Ledger:
    """Knows the jobs of one facade and their runs; every change goes through here, from any thread.

    Attributes:
        jobs: The registered jobs by key.
    """

    def __init__(self, *, log_runs: bool) -> None:
        self.jobs: dict[str, RegisteredJob] = {}
        self._log_runs = log_runs
        self._closing = False
        self._changed = threading.Condition()
        self._live: set[Run] = set()  # runs that have not settled
        self._run_ids = (f"{secrets.token_hex(4)}-{n}" for n in itertools.count(1))

    def begin(self, key: str, kind: str, scheduled_at: datetime) -> Run | Skipped:
        """Let one more run of `key` begin, or say (and log) why it does not."""
        level = "WARNING"
        with self._changed:
            job = self.jobs.get(key)
            if job is None:
                reason = "no job is registered under this key in this process"
            elif self._closing:
                reason = "the jobs are being closed"
            elif len(job.running) < (1 if kind == STARTUP else job.options.max_instances):
                run = Run(job, next(self._run_ids), scheduled_at)
                job.running.append(run)
                self._live.add(run)
                return run
            elif kind == STARTUP:
                reason, level = "a run is going already, which makes the immediate one", "INFO"
            else:
                reason, first = self._overlap(job)
                if not first:
                    return Skipped(reason)
        _log.skipped(key, reason, scheduled_at, level=level)
        return Skipped(reason)

    def missed(self, key: str, scheduled_at: datetime) -> None:
        """APScheduler did not make a run because it was later than the job's grace time."""
        late = (datetime.now(UTC) - scheduled_at).total_seconds()
        grace = self.jobs[key].options.misfire_grace_time
        _log.skipped(key, f"it was {late:.1f} s late, and misfire_grace_time is {grace} s", scheduled_at)

    def overlapped(self, key: str, scheduled_at: datetime) -> None:
        """APScheduler did not make a run because ``max_instances`` of them were going."""
        with self._changed:
            reason, first = self._overlap(self.jobs[key])
        if first:
            _log.skipped(key, reason, scheduled_at)

    def _overlap(self, job: RegisteredJob) -> tuple[str, bool]:
        """Why a run is skipped while others are going, and whether it is the first one skipped for that."""
        if not job.running:
            return "the executor has not started its previous run yet", True
        oldest = job.running[0]
        oldest.overlaps += 1
        since = datetime.now(UTC) - timedelta(seconds=time.monotonic() - oldest.started)
        return f"still running since {since.isoformat(timespec='seconds')} (run {oldest.run_id})", oldest.overlaps == 1

    def acted(self, run: Run, outcome: Outcome, *, alone: bool = False) -> None:
        """The action is over: the key is free for its next run, and the outcome is logged."""
        with self._changed, suppress(ValueError):  # dropped before, when its event loop went away
            run.job.running.remove(run)
        if isinstance(outcome, Failed):
            _log.failed(run, outcome.error, with_traceback=alone)
        elif isinstance(outcome, Cancelled):
            _log.cancelled(run)
        elif self._log_runs:
            _log.succeeded(run)
        if run.overlaps > 1:
            _log.overlapped(run, run.overlaps)

    def ended(self, run: Run) -> None:
        """The run is over, its scope closed."""
        with self._changed:
            self._live.discard(run)
            self._changed.notify_all()

    def drop(self, run: Run) -> None:
        """Forget a run that could not begin or whose event loop is gone; nothing where it has acted."""
        with self._changed:
            dropped = run in run.job.running
            if dropped:
                run.job.running.remove(run)
        if dropped:
            self.ended(run)

    def drain(self, timeout: float) -> Collection[Run]:
        """Let no new run begin, ask those that are going to end, and wait for them; then cancel what can be cancelled.

        Blocks this thread, which must be neither a run's nor an event loop's.

        Args:
            timeout: Seconds that the runs get to end, ``on_exception`` included.

        Returns:
            The runs that did not end, each named in a warning.
        """
        with self._changed:
            self._closing = True
        for run in self._snapshot():
            run.token.request_cancellation()
        if not self._wait_until_idle(timeout):
            for run in self._snapshot():
                run.cancel()
            self._wait_until_idle(CANCEL_TIMEOUT)
        left = self._snapshot()
        for run in left:
            _log.abandoned(run)
        return left

    def is_inside_a_run(self) -> bool:
        """Whether the calling code belongs to a run of these jobs that is still going."""
        return running() in self._live

    def reopen(self) -> None:
        """Let runs begin (again)."""
        self._closing = False

    def _wait_until_idle(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._live, timeout)

    def _snapshot(self) -> list[Run]:
        with self._changed:
            return [*self._live]
