"""Our jobs as rows of a scheduler's job stores: added, run once, paused, resumed, removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from apscheduler.jobstores.base import JobLookupError

from .._errors import DuplicateJobError
from .._runs import log
from .._runs.registry import SCHEDULED, STARTUP
from .._runs.status import CLOSING, PAUSED, RegisteredJob
from . import missed
from .executor import fire
from .stored import Stored, due_of, has_schedule, parts, unparked


class Rows(Stored):
    """The rows of one facade in all job stores of its scheduler."""

    def add(self, job: RegisteredJob) -> None:
        """Schedule the job, and its immediate run if it has one; or raise what the job store raises, and do neither.

        Raises:
            DuplicateJobError: Another facade has a job with this key on this scheduler.
        """
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
                    self.remove(job.key)
            self._forget(row_id)
            raise

    def _add(self, job: RegisteredJob) -> None:
        """Write the row, or bring the stored one up to date: its next run and its pause stay as they are.

        Without that, each restart would forget a run that came due while nothing was running, and un-pause the job.
        """
        assert job.schedule is not None
        alias, schedule = job.options.jobstore, job.schedule
        in_memory = self._bridge.is_in_memory(alias)
        held = self._held(job, None if in_memory else alias)
        is_same = held is not None and has_schedule(held, schedule.trigger)
        values = self._values(job, SCHEDULED, alias) | {
            "misfire_grace_time": job.options.misfire_grace_time,
            "coalesce": job.options.coalesce,
            "max_instances": job.options.max_instances,
        }
        due = None if held is None else due_of(held)
        if held is not None and due is None:
            schedule.paused_at = schedule.paused_at or datetime.now(UTC)
        if schedule.paused_at is not None:
            values["next_run_time"] = None
        elif is_same and due is not None:
            self._expect(job, due)
        if is_same and held._jobstore_alias == alias:
            self._keep(held, unparked(held) | values)
            return
        if is_same:  # it was in another job store
            values.setdefault("next_run_time", due)
        row = self._scheduler.add_job(
            fire, schedule.trigger, id=self.id_of(job.key), jobstore=alias, replace_existing=True, **values
        )
        schedule.entry = row if in_memory else None

    def _keep(self, row: Any, values: dict[str, Any]) -> None:
        """Bring a row up to date; its next run stays, since the scheduler may be making it at this moment."""
        name, key, _ = parts(row)
        self._names.add(name)
        self._kept.add(key)
        self._update(row, values)

    def ready(self) -> None:
        """All jobs of the warm-up are added: make up for what came due here before it."""
        self._has_agreed = True
        missed.warm[self._name] = self
        self.make_up()

    def make_up(self) -> None:
        """Make the last run of each job that came due here while nothing was warm, once. Raises nothing."""
        notes = {(note.key, note.kind): note for note in missed.take(self._is_to_make_up)}
        for note in notes.values():
            job = self._registry.jobs.get(note.key)
            try:
                if job is not None and note.kind == SCHEDULED:
                    self._make_up(job, note.moment)
                elif job is not None and note.kind != STARTUP:
                    self.run_once(job, note.kind)
            except Exception as error:  # noqa: BLE001 - whatever a store or a trigger raises
                log.failure(f"a run of job {note.key!r} cannot be made up for:", error)

    def _is_to_make_up(self, note: missed.Note) -> bool:
        return note.name in self._names and note.key in (self._kept if note.kind == SCHEDULED else self._registry.jobs)

    def _make_up(self, job: RegisteredJob, moment: datetime) -> None:
        schedule = job.schedule
        due = None if schedule is None or schedule.paused_at is not None else missed.latest(schedule.trigger, moment)
        if schedule is None or due is None or (schedule.ticked_at is not None and schedule.ticked_at >= due):
            return  # a later run stands for it
        log.info(f"job {job.key!r} makes up for its run of {due.isoformat(timespec='seconds')}", job.key)
        self._expect(job, due)
        with suppress(JobLookupError):
            self._scheduler.modify_job(self.id_of(job.key), job.options.jobstore, next_run_time=due)

    def _run_at_startup(self, job: RegisteredJob) -> None:
        if job.schedule is None or job.schedule.paused_at is None:
            self.run_once(job, STARTUP)
        else:
            self._registry.skip(job.key, datetime.now(UTC), PAUSED, "the job is paused")

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

    def pause(self, key: str) -> None:
        """Pause the schedule of a job, and remove its one-shots that have not run yet."""
        self._remove_one_shots(key, PAUSED, "the job was paused first")
        with suppress(JobLookupError):  # finished, or removed by somebody else
            self._scheduler.pause_job(self.id_of(key))

    def resume(self, key: str) -> None:
        """Resume the schedule of a job."""
        with suppress(JobLookupError):
            self._scheduler.resume_job(self.id_of(key))

    def remove(self, key: str) -> None:
        """Remove a job, with its one-shots."""
        self._remove_one_shots(key, PAUSED, "the job was removed first")
        with suppress(JobLookupError):
            self._scheduler.remove_job(self.id_of(key))
        self._forget(self.id_of(key))

    def clear(self) -> None:
        """Remove all our rows, but for those in persistent stores, which stay with their due times."""
        missed.warm.pop(self._name, None)
        self.park()
        in_memory = self._bridge.stores(in_memory=True) if self._bridge.running else [None]  # pending: in no store yet
        for alias in in_memory:
            for row in self._rows(alias):
                self._remove(row, alias, CLOSING, "the jobs are being closed")
        for row_id in list(self._ours):
            self._forget(row_id)

    def _forget(self, row_id: str) -> None:
        self._found.pop(row_id, None)
        self._ours.discard(row_id)
        self._shared.taken.discard(row_id)

    def _remove_one_shots(self, key: str, counted: str, reason: str) -> None:
        for row in self._rows():
            if row.args[1] == key and row.args[2] != SCHEDULED:
                self._remove(row, None, counted, reason)

    def _remove(self, row: Any, jobstore: str | None, counted: str, reason: str) -> None:
        """Remove a row; nothing where it has begun to run in the meantime."""
        with suppress(JobLookupError):
            self._scheduler.remove_job(row.id, jobstore)
            if row.args[2] != SCHEDULED:
                self._registry.skip(row.args[1], row.trigger.run_date.astimezone(UTC), counted, reason)

    def _rows(self, jobstore: str | None = None) -> Iterator[Any]:
        for row in self._scheduler.get_jobs(jobstore):
            if row.func is fire and parts(row)[0] == self._name:
                yield row
