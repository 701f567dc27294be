"""Our jobs as rows of a scheduler's job stores: added, run once, paused, resumed, removed.

A row holds what a store can keep: a reference to the function `fire`, and three texts (application, key, kind of run).
Its id is ``<application>:<key>``; a one-shot has ``:startup`` or ``:<run id>`` behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from apscheduler.jobstores.base import JobLookupError

from .._errors import DuplicateJobError
from .._runs.registry import Registry
from .._runs.schedule import SCHEDULED, STARTUP, RegisteredJob, Schedule
from .._runs.status import CLOSING, PAUSED, REFUSED
from .executor import Owners, fire
from .scheduler import SchedulerBridge

#: The keys of all facades on each scheduler, so that no facade takes another one's row.
_taken: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


class Rows:
    """The rows of one facade in its scheduler's job stores.

    Args:
        bridge: The scheduler.
        application: The name of the application, as the ids begin with it.
        owners: Start the runs, under a name of their own in this process.
        registry: Hears of each one-shot that is removed before it ran.
    """

    def __init__(self, bridge: SchedulerBridge, application: str, owners: Owners, registry: Registry) -> None:
        self._bridge = bridge
        self._scheduler = bridge.scheduler
        self._prefix = f"{application}:"
        self._name = owners.name
        self._owners = owners
        self._registry = registry
        self._taken = _taken.setdefault(self._scheduler, set())
        self._ours: set[str] = set()

    def id_of(self, key: str, kind: str = SCHEDULED) -> str:
        """The id that APScheduler knows a job by."""
        return self._prefix + key if kind == SCHEDULED else f"{self._prefix}{key}:{kind}"

    def key_of(self, row_id: str) -> str:
        """The key in the id of a scheduled row; any other text for the rows of other people."""
        return row_id.removeprefix(self._prefix) if row_id.startswith(self._prefix) else ""

    def add(self, job: RegisteredJob) -> None:
        """Schedule the job, and its immediate run if it has one; or raise what the job store raises, and do neither.

        Raises:
            DuplicateJobError: Another facade has a job with this key on this scheduler.
        """
        with self._scheduler._jobstores_lock:  # APScheduler takes it, too: no other change comes between
            if self._registry.jobs.get(job.key) is job:  # else it was removed meanwhile
                self._add_whole(job)

    def _add_whole(self, job: RegisteredJob) -> None:
        row_id = self.id_of(job.key)
        if row_id in self._taken:
            raise DuplicateJobError(
                f"another BackgroundJobs on this scheduler has a job {job.key!r}; set key to tell the two apart",
                job.key,
            )
        self._taken.add(row_id)
        self._ours.add(row_id)
        try:
            self._add(job)
            if job.options.run_immediately:
                self._run_at_startup(job)
        except BaseException:
            with suppress(Exception):  # a store that refuses may refuse this, too; its first error is the one to raise
                self._remove_whole(job.key)
            self._forget(row_id)
            raise

    def _add(self, job: RegisteredJob) -> None:
        assert job.schedule is not None
        options, in_memory = job.options, self._bridge.is_in_memory(job.options.jobstore)
        held = {} if in_memory else self._held(job, job.schedule)
        if job.schedule.paused_at is not None:
            held = {"next_run_time": None}
        row = self._scheduler.add_job(
            fire,
            job.schedule.trigger,
            args=(self._name, job.key, SCHEDULED),
            id=self.id_of(job.key),
            name=job.key,
            executor=options.executor,
            jobstore=options.jobstore,
            misfire_grace_time=options.misfire_grace_time,
            coalesce=options.coalesce,
            max_instances=options.max_instances,
            replace_existing=True,
            **held,
        )
        job.schedule.entry = row

    def _held(self, job: RegisteredJob, schedule: Schedule) -> dict[str, datetime | None]:
        """What a persistent store holds of the job from an earlier process, if its schedule is still the same.

        Without it, each restart would forget a run that came due while nothing was running, and un-pause the job.
        """
        row = self._scheduler.get_job(self.id_of(job.key), job.options.jobstore)
        same = row is not None and type(row.trigger) is type(schedule.trigger)
        if not same or row.trigger.__getstate__() != schedule.trigger.__getstate__():
            return {}
        schedule.expected = row.next_run_time
        if row.next_run_time is None:
            schedule.paused_at = datetime.now(UTC)
        return {"next_run_time": row.next_run_time}

    def _run_at_startup(self, job: RegisteredJob) -> None:
        if job.schedule is None or job.schedule.paused_at is None:
            if not self._registry.after_removed(job, partial(self.run_once, job, STARTUP)):
                self.run_once(job, STARTUP)
        else:
            self._registry.skip_under_locks(job, STARTUP, datetime.now(UTC), PAUSED, "the job is paused")

    def run_once(self, job: RegisteredJob, kind: str) -> None:
        """Add a one-shot of the job: at warm-up (`STARTUP`), or one extra run, whose id is `kind`."""
        self._scheduler.add_job(
            fire,
            "date",
            run_date=datetime.now(UTC),
            args=(self._name, job.key, kind),
            id=self.id_of(job.key, kind),
            name=job.key,
            executor=job.options.executor,
            jobstore=job.options.jobstore,
            misfire_grace_time=None,  # it runs however slow the start is
            replace_existing=True,
        )

    def pause(self, job: RegisteredJob) -> None:
        """Pause the schedule of a job, and take back its runs that have not begun."""
        self._skip(self._remove_one_shots(job.key), PAUSED, "the job was paused first")
        with suppress(JobLookupError):  # finished, or removed by somebody else
            self._scheduler.pause_job(self.id_of(job.key))
        self._registry.pause(job)
        self._owners.hold_back(job)

    def resume(self, job: RegisteredJob) -> None:
        """Resume the schedule of a job."""
        row = None
        with suppress(JobLookupError):
            row = self._scheduler.resume_job(self.id_of(job.key))
        self._registry.resume(job)
        if job.schedule is not None:
            job.schedule.entry = row

    def problems(self) -> list[str]:
        """A sentence for each job that does not get to run."""
        return self._owners.problems()

    def remove(self, job: RegisteredJob) -> None:
        """Remove a job, with its one-shots."""
        with self._scheduler._jobstores_lock:
            one_shots = self._remove_whole(job.key)
            self._registry.remove(job)
        self._skip(one_shots, REFUSED, "the job was removed first")

    def _remove_whole(self, key: str) -> list[Any]:
        one_shots = self._remove_one_shots(key)
        with suppress(JobLookupError):
            self._scheduler.remove_job(self.id_of(key))
        self._forget(self.id_of(key))
        return one_shots

    def clear(self) -> None:
        """Remove all our rows, but for those in persistent stores."""
        in_memory = self._bridge.stores_in_memory() if self._bridge.running else [None]  # pending: in no store yet
        for alias in in_memory:
            removed = [row for row in self._rows(alias) if self._is_removed(row, alias)]
            self._skip([row for row in removed if row.args[2] != SCHEDULED], CLOSING, "the jobs are being closed")
        self.release()

    def release(self) -> None:
        """Leave the keys to other facades."""
        for row_id in list(self._ours):
            self._forget(row_id)

    def _forget(self, row_id: str) -> None:
        self._ours.discard(row_id)
        self._taken.discard(row_id)

    def _remove_one_shots(self, key: str) -> list[Any]:
        ours = [row for row in self._rows() if row.args[1] == key and row.args[2] != SCHEDULED]
        return [row for row in ours if self._is_removed(row)]

    def _is_removed(self, row: Any, jobstore: str | None = None) -> bool:
        """Remove a row. Returns False where it has begun to run in the meantime."""
        try:
            self._scheduler.remove_job(row.id, jobstore)
        except JobLookupError:
            return False
        return True

    def _skip(self, one_shots: list[Any], counted: str, reason: str) -> None:
        for row in one_shots:
            self._registry.skip(row.args[1], row.trigger.run_date.astimezone(UTC), counted, reason)

    def _rows(self, jobstore: str | None = None) -> Iterator[Any]:
        for row in self._scheduler.get_jobs(jobstore):
            if row.func is fire and row.args[0] == self._name:
                yield row
