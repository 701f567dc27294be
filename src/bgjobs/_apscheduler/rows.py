"""Our jobs as rows of a scheduler's job stores: added, run once, paused, resumed, removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from apscheduler.jobstores.base import JobLookupError

from .._errors import DuplicateJobError
from .._runs import log
from .._runs.registry import Registry
from .._runs.schedule import SCHEDULED, STARTUP, RegisteredJob
from .._runs.status import CLOSING, PAUSED, REFUSED
from . import missed
from .executor import Owners, fire
from .scheduler import SchedulerBridge
from .stored import Stored, due_of, has_schedule, parts, unparked


class Rows(Stored):
    """The rows of one facade in all job stores of its scheduler.

    Args:
        bridge: The scheduler.
        application: The name of the application, as the ids begin with it.
        owners: Start the runs, under a name of their own in this process.
        registry: Hears of each one-shot that is removed before it ran.
    """

    def __init__(self, bridge: SchedulerBridge, application: str, owners: Owners, registry: Registry) -> None:
        super().__init__(bridge, application, owners.name, registry)
        self._owners = owners

    def add(self, job: RegisteredJob) -> None:
        """Schedule the job, and its immediate run if it has one; or raise what the job store raises, and do neither.

        Raises:
            DuplicateJobError: Another facade has a job with this key on this scheduler.
        """
        self._look(job)
        with self._scheduler._jobstores_lock:  # APScheduler takes it, too: no other change comes between
            if self._registry.jobs.get(job.key) is job:  # else it was removed meanwhile
                self._add_whole(job)

    def _add_whole(self, job: RegisteredJob) -> None:
        row_id = self.id_of(job.key)
        if row_id in self._shared.taken:
            raise DuplicateJobError(
                f"another BackgroundJobs on this scheduler has a job {job.key!r}; set key to tell the two apart",
                job.key,
            )
        self._shared.taken.add(row_id)
        self._ours.add(row_id)
        was_stored = self.keeps(job)
        try:
            self._add(job)
            if job.options.run_immediately:
                self._run_at_startup(job)
        except BaseException:
            with suppress(Exception):  # a store that refuses may refuse this, too; its first error is the one to raise
                if not was_stored:
                    self._remove_whole(job.key)
            self._forget(row_id)
            raise

    def _add(self, job: RegisteredJob) -> None:
        """Write the row, or bring the stored one up to date: its next run and its pause stay as they are.

        Without that, each restart would forget a run that came due while nothing was running, and un-pause the job.
        """
        assert job.schedule is not None
        alias, schedule, held = job.options.jobstore, job.schedule, self._held(job)
        is_same, due = False, None
        values = self._values(job, SCHEDULED, alias) | {
            "misfire_grace_time": job.options.misfire_grace_time,
            "coalesce": job.options.coalesce,
            "max_instances": job.options.max_instances,
        }
        if held is not None:
            is_same, due = has_schedule(held, schedule.trigger), due_of(held)
            if due is None:
                schedule.paused_at = schedule.paused_at or datetime.now(UTC)
            if is_same:
                schedule.expected = None if due is None else due.astimezone(UTC)
                self._kept.add(job.key)
        if schedule.paused_at is not None:
            values["next_run_time"] = None
        if is_same and held._jobstore_alias == alias:
            schedule.entry = self._update(held, unparked(held) | values)
            return
        if is_same:  # it was in another job store
            values.setdefault("next_run_time", due)
        schedule.entry = self._scheduler.add_job(
            fire, schedule.trigger, id=self.id_of(job.key), jobstore=alias, replace_existing=True, **values
        )

    def ready(self) -> None:
        """All jobs of the warm-up are added: make up for what came due here before it."""
        self._has_agreed = True
        missed.warm[self._name] = self
        self.make_up()

    def make_up(self) -> None:
        """Make the last run of each job that came due here while nothing was warm, once. Raises nothing."""
        for note, moment in missed.take(lambda note: note.name in self._names and note.key in self._registry.jobs):
            job = self._registry.jobs.get(note.key)
            try:
                if job is not None and note.kind == SCHEDULED and note.key in self._kept:
                    self._make_up(job, moment)
                elif job is not None and note.kind not in (SCHEDULED, STARTUP):
                    self.run_once(job, note.kind)
            except Exception as error:  # noqa: BLE001 - whatever a store or a trigger raises
                log.failure(f"a run of job {note.key!r} cannot be made up for:", error)

    def hear(self, name: str) -> None:
        """Hear of a run that came due while nothing was warm under that name; ours, where its thread came late."""
        if name == self._name:
            self.make_up()
        else:
            self._others.add(name)

    def _make_up(self, job: RegisteredJob, moment: datetime) -> None:
        schedule = job.schedule
        due = None if schedule is None or schedule.paused_at is not None else missed.latest(schedule.trigger, moment)
        if schedule is None or due is None or schedule.was_ticked(due):
            return  # a later run stands for it
        if schedule.expected is not None and schedule.expected <= due:
            return  # so does one that is overdue
        log.info(f"job {job.key!r} makes up for its run of {due.isoformat(timespec='seconds')}", job.key)
        with self._scheduler._jobstores_lock, suppress(JobLookupError):
            schedule.entry = self._scheduler.modify_job(self.id_of(job.key), job.options.jobstore, next_run_time=due)
            schedule.expected = due

    def _run_at_startup(self, job: RegisteredJob) -> None:
        if job.schedule is None or job.schedule.paused_at is None:
            if not self._registry.after_removed(job, partial(self.run_once, job, STARTUP)):
                self.run_once(job, STARTUP)
        else:
            self._registry.skip(job.key, datetime.now(UTC), PAUSED, "the job is paused", later=True)

    def run_once(self, job: RegisteredJob, kind: str) -> None:
        """Add a one-shot of the job: at warm-up (`STARTUP`), or one extra run, whose id is `kind`."""
        self._scheduler.add_job(
            fire,
            "date",
            run_date=datetime.now(UTC),
            id=self.id_of(job.key, kind),
            jobstore=job.options.jobstore,
            misfire_grace_time=None,  # it runs however slow the start is
            replace_existing=True,
            **self._values(job, kind, job.options.jobstore),
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
        return self._owners.problems() + self.conflicts()

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
        """Remove all our rows, but for those in persistent stores, which stay with their due times."""
        missed.warm.pop(self._name, None)
        self.park()
        in_memory = self._bridge.stores(in_memory=True) if self._bridge.running else [None]  # pending: in no store yet
        for alias in in_memory:
            removed = [row for row in self._rows(alias) if self._is_removed(row, alias)]
            self._skip([row for row in removed if row.args[2] != SCHEDULED], CLOSING, "the jobs are being closed")
        self.release()

    def release(self) -> None:
        """Leave the keys to other facades."""
        missed.warm.pop(self._name, None)
        for row_id in list(self._ours):
            self._forget(row_id)

    def _forget(self, row_id: str) -> None:
        self._found.pop(row_id, None)
        self._ours.discard(row_id)
        self._shared.taken.discard(row_id)

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
            if row.func is fire and parts(row)[0] == self._name:
                yield row
