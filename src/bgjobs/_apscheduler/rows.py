"""Our jobs as rows of a scheduler's job stores: added, run once, paused, resumed, removed, made up for.

Make up: what came due in this process before its jobs were warm (`missed`) runs once, late, if its schedule is the
stored one still. What the rows hold from process to process is the other half of this class (`stored`).
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from apscheduler.jobstores.base import JobLookupError

from .._errors import DuplicateJobError
from .._runs import log
from .._runs.registry import Registry
from .._runs.schedule import LATE, SCHEDULED, STARTUP, RegisteredJob, Schedule
from .._runs.status import Outcome
from . import missed
from .executor import Owners, fire
from .scheduler import SchedulerBridge
from .stored import Stored, due_of, has_schedule, parts


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
        self._is_cleared = False  # by the close: no row is added any more
        self._kept: set[Schedule] = set()  # those of the stored rows, which the jobs go on with

    def add(self, job: RegisteredJob, *, at_startup: bool = True) -> bool:
        """Schedule the job, and `at_startup` its immediate run, if any; or raise what its store raises, and do neither.

        Returns:
            False where there is nothing to schedule: no fire time is left, and no last run to make.

        Raises:
            DuplicateJobError: Another facade has a job with this key on this scheduler.
        """
        held, damage = None, None
        with self._scheduler._jobstores_lock:  # APScheduler takes it, too: no other change comes between
            if self._is_cleared or self._registry.jobs.get(job.key) is not job:  # it was removed meanwhile
                return True
            try:
                held = self._held(job)
            except Exception as error:  # noqa: BLE001 - a damaged row; where the store is down, adding one raises
                damage = error
            is_added = self._add_whole(job, held, at_startup=at_startup)
        if damage is not None and is_added:
            message = f"the stored row of job {job.key!r} cannot be read, and is replaced: {log.described(damage)}"
            log.warning(message, key=job.key)
        return is_added

    def _add_whole(self, job: RegisteredJob, held: Any, *, at_startup: bool) -> bool:
        assert job.schedule is not None
        row_id = self.id_of(job.key)
        is_same = held is not None and has_schedule(held, job.schedule.trigger)
        if job.schedule.expected is None and not is_same:
            if held is not None:  # with another schedule
                self._remove(held, job.options.jobstore)
            return False
        if self._shared.taken.setdefault(row_id, self._registry) is not self._registry:
            raise DuplicateJobError(
                f"another BackgroundJobs on this scheduler has a job {job.key!r}; set key to tell the two apart",
                job.key,
            )
        try:
            self._add(job, held, is_same=is_same)
            if job.options.run_immediately and at_startup:
                self._run_at_startup(job)
        except BaseException:
            with suppress(Exception):  # a store that refuses may refuse this, too; its first error is the one to raise
                if not is_same:
                    self._scheduler.remove_job(row_id, job.options.jobstore)
            self._shared.taken.pop(row_id, None)
            raise
        return True

    def _add(self, job: RegisteredJob, held: Any, *, is_same: bool) -> None:
        """Write the row, or bring the stored one up to date: its next run and its pause stay as they are.

        Without that, each restart would forget a run that came due while nothing was running, and un-pause the job.
        """
        assert job.schedule is not None
        alias, schedule, due = job.options.jobstore, job.schedule, None if held is None else due_of(held)
        values = self._values(job, SCHEDULED, alias) | {
            "misfire_grace_time": job.options.misfire_grace_time,
            "coalesce": job.options.coalesce,
            "max_instances": job.options.max_instances,
        }
        if held is not None and due is None and schedule.resumed:  # while cold
            due = schedule.expected
        elif held is not None and due is None:
            schedule.paused_at = schedule.paused_at or datetime.now(UTC)
        if is_same:
            schedule.expected = None if due is None else due.astimezone(UTC)
            self._kept.add(schedule)
            values["next_run_time"] = due
        if schedule.paused_at is not None:
            values["next_run_time"] = None
        if is_same and held._jobstore_alias is not None:
            schedule.entry = self._update(held, values)
        else:  # a new one, or what was removed from another job store
            schedule.entry = self._scheduler.add_job(
                fire, schedule.trigger, id=self.id_of(job.key), jobstore=alias, replace_existing=True, **values
            )
        schedule.resumed = False

    def ready(self) -> None:
        """All jobs of the warm-up are added: make up for what came due in this process before it."""
        missed.warm[self._name] = self
        self.make_up()

    def make_up(self) -> None:
        """Make the last run of each job that came due here while nothing was warm, once. Raises nothing."""
        for note, moment in missed.take(lambda note: note.name in self._names and note.key in self._registry.jobs):
            job = self._registry.jobs.get(note.key)
            try:
                if job is not None and note.kind == SCHEDULED:
                    self._make_up(job, moment)
                elif job is not None and note.kind not in (STARTUP, LATE):
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
        if schedule is None or schedule not in self._kept or schedule.paused_at is not None:
            return
        due = missed.latest(schedule.following, moment)
        if due is None or schedule.was_ticked(due) or (schedule.expected and schedule.expected <= due):
            return  # a later run stands for it, or one that is overdue
        log.info(f"job {job.key!r} makes up for its run of {due.isoformat(timespec='seconds')}", job.key)
        with self._scheduler._jobstores_lock, suppress(JobLookupError):
            schedule.entry = self._scheduler.modify_job(self.id_of(job.key), job.options.jobstore, next_run_time=due)
            schedule.expected = due

    def catch_up(self, row: dict[str, Any]) -> datetime | None:
        """Make the last run of a job that all replicas have missed, once: each tries to claim it.

        Args:
            row: What the claim store knows of the job with that key.

        Returns:
            Its fire time; ``None`` where there is none.
        """
        job = self._registry.jobs.get(row["key"])
        if job is None or job.schedule is None:
            return None
        job.schedule.is_held = bool(row["paused"])
        due = self._missed(job, job.schedule, row)
        if due is not None:
            job.one_shots.pop(LATE, None)
            self.run_once(job, LATE, due)
        return due

    def _missed(self, job: RegisteredJob, schedule: Schedule, row: dict[str, Any]) -> datetime | None:
        is_other = schedule.text != row["schedule"] or job.options.run_immediately  # whose run at warm-up does it
        if is_other or schedule.is_paused or not row["last_fire"]:
            return None
        now = datetime.fromtimestamp(row["now"] / 1000, UTC)
        due = missed.latest(schedule.following, now)
        if schedule.trigger.jitter and due is not None:
            if schedule.trigger.delayed(due, now) > now:  # that one is still to come
                due = missed.latest(schedule.following, due - timedelta(milliseconds=1))
            due = due and schedule.trigger.delayed(due, now)
        grace = job.options.misfire_grace_time
        if due is not None and job.options.on_claim_error == "run" and schedule.was_ticked(due):
            return None  # it has run, without a claim
        is_new = due is not None and round(due.timestamp() * 1000) > row["last_fire"]
        is_late = due is not None and grace is not None and (now - due).total_seconds() > grace
        return due if is_new and not is_late else None

    def _run_at_startup(self, job: RegisteredJob) -> None:
        if job.schedule is not None and job.schedule.paused_at is not None:
            self._registry.skip(job.key, datetime.now(UTC), Outcome.PAUSED, "the job is paused", later=True)
        elif not self._registry.after_removed(job, partial(self.run_once, job, STARTUP)):
            self.run_once(job, STARTUP)

    def run_once(self, job: RegisteredJob, kind: str, due: datetime | None = None) -> None:
        """Add a one-shot of the job: at warm-up (`STARTUP`), `LATE`, or one extra run, whose id is `kind`."""
        due = due or datetime.now(UTC)
        with self._scheduler._jobstores_lock:
            if not self._is_cleared:
                self._scheduler.add_job(
                    fire,
                    "date",
                    run_date=due,
                    id=self.id_of(job.key, kind),
                    jobstore=job.options.jobstore,
                    misfire_grace_time=None,  # it runs however slow the start is
                    replace_existing=True,
                    **self._values(job, kind, job.options.jobstore),
                )
                return
        self._registry.skip(job.key, due, Outcome.CLOSING, "the jobs are being closed", kind)

    def pause(self, job: RegisteredJob) -> None:
        """Pause the schedule of a job, and take back its runs that have not begun.

        In the claim store, where there is one: the schedule goes on here, and each of its runs is refused there.
        """
        if self._registry.claims is not None:
            self._registry.claims.pause(job, paused=True)
            return
        self._skip(self._remove_rows(job.key, scheduled=False), Outcome.PAUSED, "the job was paused first")
        with suppress(JobLookupError):  # finished, or removed by somebody else
            self._scheduler.pause_job(self.id_of(job.key))
        self._registry.pause(job)
        self._owners.hold_back(job)

    def resume(self, job: RegisteredJob) -> None:
        """Resume the schedule of a job."""
        if self._registry.claims is not None:
            self._registry.claims.pause(job, paused=False)
            if job.schedule is None or job.schedule.paused_at is None:
                return  # else it was paused while cold
        row = None
        with suppress(JobLookupError):
            row = self._scheduler.resume_job(self.id_of(job.key))
        self._registry.resume(job)
        if job.schedule is not None:
            job.schedule.entry, job.schedule.resumed = row, False

    def problems(self) -> list[str]:
        """A sentence for each job that does not get to run."""
        return self._owners.problems() + self.conflicts()

    def remove(self, job: RegisteredJob) -> None:
        """Remove a job, with its one-shots."""
        with self._scheduler._jobstores_lock:
            one_shots = self._remove_rows(job.key)
            self._removed.pop(self.id_of(job.key), None)
            self._shared.taken.pop(self.id_of(job.key), None)
            self._registry.remove(job)
        self._skip(one_shots, Outcome.REFUSED, "the job was removed first")

    def clear(self) -> None:
        """Remove all our rows, but for those in persistent stores, which stay with their due times."""
        missed.warm.pop(self._name, None)
        with self._scheduler._jobstores_lock:  # what is added before this is removed below
            self._is_cleared = True
        self.park()
        in_memory = self._bridge.stores(in_memory=True) if self._bridge.running else [None]  # pending: in no store yet
        for alias in in_memory:
            self._skip(self._remove_rows(alias=alias), Outcome.CLOSING, "the jobs are being closed")
        self.release()

    def release(self) -> None:
        """Leave the keys to other facades."""
        missed.warm.pop(self._name, None)
        for row_id, registry in list(self._shared.taken.items()):
            if registry is self._registry:
                del self._shared.taken[row_id]

    def _remove_rows(self, key: str | None = None, alias: str | None = None, *, scheduled: bool = True) -> list[Any]:
        """Remove our rows, of one job or of one job store. Returns the one-shots that will not run for that."""
        one_shots = []
        for row in self._scheduler.get_jobs(alias):
            _, its_key, kind = parts(row)
            is_meant = its_key and row.func is fire and row.args[0] == self._name and key in (None, its_key)
            if is_meant and (scheduled or kind != SCHEDULED):
                with suppress(JobLookupError):  # it has begun to run in the meantime
                    self._scheduler.remove_job(row.id, alias)
                    one_shots += [row] if kind != SCHEDULED else []
        return one_shots

    def _skip(self, one_shots: list[Any], counted: Outcome, reason: str) -> None:
        for row in one_shots:
            self._registry.skip(row.args[1], row.trigger.run_date.astimezone(UTC), counted, reason, row.args[2])
