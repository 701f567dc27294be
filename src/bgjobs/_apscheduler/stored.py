"""What persistent job stores hold of our jobs, from earlier processes and from other facades.

A row holds what a store can keep: a reference to the function `fire`, and three texts (application, key, kind of run).
Its id is ``<application>:<key>``; a one-shot has ``:startup`` or ``:<run id>`` behind it.

A scheduler that somebody else runs goes on after a close. Our rows in its persistent stores are parked then: paused,
with the due time as ``due``, for the next warm-up here or elsewhere. ``by`` says which warm-up had a row last, so that
a close does not park what a newer process has taken up.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

from apscheduler.jobstores.base import JobLookupError

from .._runs import log
from .._runs.registry import Registry
from .._runs.schedule import SCHEDULED, STARTUP, RegisteredJob
from . import missed
from .scheduler import SchedulerBridge

#: What our rows call (`executor.fire`), as job stores refer to it.
FIRE = "bgjobs._apscheduler.executor:fire"


class _Shared:
    """What the facades on one scheduler know of each other, so that none takes or removes another one's row."""

    def __init__(self) -> None:
        self.taken: set[str] = set()  # the ids of the jobs that are warm
        self.applications: WeakKeyDictionary[Registry, str] = WeakKeyDictionary()  # warm or not


_shared: WeakKeyDictionary[Any, _Shared] = WeakKeyDictionary()


def share(scheduler: Any, registry: Registry, application: str) -> _Shared:
    """Make the jobs of a facade known to the others on its scheduler, warm or not."""
    shared = _shared.setdefault(scheduler, _Shared())
    shared.applications[registry] = application
    return shared


class Stored:
    """The rows of one facade in the persistent job stores of its scheduler.

    Args:
        bridge: The scheduler.
        application: The name of the application, as the ids begin with it.
        name: Its name in this process, as `fire` gets it.
        registry: The jobs.

    Attributes:
        application: The name of the application.
    """

    def __init__(self, bridge: SchedulerBridge, application: str, name: str, registry: Registry) -> None:
        self._has_agreed = False  # all jobs of the warm-up are added
        self._bridge = bridge
        self._scheduler = bridge.scheduler
        self.application = application
        self._prefix = f"{application}:"
        self._name = name
        self._registry = registry
        self._id = registry.new_run_id()  # of this warm-up
        self._shared = share(self._scheduler, registry, application)
        self._others: set[str] = set()  # other applications, with rows in our stores, or runs that came due here
        self._ours: set[str] = set()
        self._found: dict[str, Any] = {}  # the stored rows of warm-up, until their jobs are added
        self._names = {name}  # under which rows of ours may have come due while nothing was warm
        self._kept: set[str] = set()  # the keys of those that went on with the same schedule

    def id_of(self, key: str, kind: str = SCHEDULED) -> str:
        """The id that APScheduler knows a job by."""
        return self._prefix + key if kind == SCHEDULED else f"{self._prefix}{key}:{kind}"

    def key_of(self, row_id: str) -> str:
        """The key in the id of a scheduled row; any other text for the rows of other people."""
        return row_id.removeprefix(self._prefix) if row_id.startswith(self._prefix) else ""

    def agree(self) -> None:
        """Make the rows in persistent stores agree with the jobs that are registered; comes before they are added.

        Rows of jobs that are not registered, are switched off, or have another job store now, are removed.
        """
        removed = []
        for alias in self._bridge.stores(in_memory=False):
            for row in self._read(alias):
                if row.func_ref != FIRE or not self._is_ours(row):
                    continue
                _, key, kind = parts(row)
                if reason := self._unwanted(row, alias):
                    removed.append(f"{row.id!r} ({reason})")
                    self._drop(row, alias)
                elif kind != SCHEDULED:
                    self._names.add(row.args[0])
                    self._update(row, self._values(self._registry.jobs[key], kind, alias) | unparked(row))
                if kind == SCHEDULED and (not reason or row.id not in self._found):
                    self._found[row.id] = row
        if removed:
            log.warning(
                f"rows of {self.application!r} were removed from the job stores: {', '.join(removed)}; if another "
                "program keeps jobs there, give it an `application` and a table of its own"
            )
        for problem in self.conflicts():
            log.warning(problem)

    def conflicts(self) -> list[str]:
        """A sentence for each application that is not warm here, and whose jobs this scheduler takes all the same."""
        known = {*missed.warm, *(rows.application for rows in list(missed.warm.values()))}
        return [
            f"a job store of the application {self.application!r} holds jobs of {other!r}, too, and each takes the "
            "other's runs: give each a table of its own (`tablename` of SQLAlchemyJobStore, `jobs_key` and "
            "`run_times_key` of RedisJobStore)"
            for other in sorted(self._others - known)
        ]

    def _read(self, alias: str) -> list[Any]:
        try:
            return read(self._scheduler, alias, self._prefix)
        except Exception as error:
            if any(job.options.jobstore == alias for job in list(self._registry.jobs.values())):
                raise
            log.warning(f"job store {alias!r}, which no job here uses, cannot be read: {log.described(error)}")
            return []

    def _is_ours(self, row: Any) -> bool:
        """Whether a row is this application's, and no other facade's on this scheduler, warm or not yet."""
        key, application = parts(row)[1], application_of(row)
        if application and application != self.application:
            self._others.add(application)
        if application != self.application:  # or its arguments are damaged
            return not application and self.key_of(row.id) in self._registry.jobs
        if row.id in self._shared.taken - self._ours:
            return False
        facades = [registry for registry, name in self._shared.applications.items() if name == application]
        return key in self._registry.jobs or not any(key in registry.jobs for registry in facades)

    def _unwanted(self, row: Any, alias: str) -> str:
        """Why a row is to be removed; nothing where it is not."""
        _, key, kind = parts(row)
        job = self._registry.jobs.get(key)
        if job is None or row.id != self.id_of(job.key, kind):
            return "not registered"
        if job.schedule is None:
            return "switched off" if kind in (SCHEDULED, STARTUP) else ""
        if kind == SCHEDULED and job.options.jobstore != alias:
            return f"its job store is {job.options.jobstore!r} now"
        now, trigger = datetime.now(UTC), job.schedule.trigger
        if kind == SCHEDULED and not has_schedule(row, trigger) and job.schedule.after(None, now) is None:
            return "its new schedule is finished"
        return ""

    def _drop(self, row: Any, alias: str) -> None:
        with suppress(JobLookupError):
            self._scheduler.remove_job(row.id, alias)
        row._jobstore_alias = None

    def _update(self, row: Any, values: dict[str, Any]) -> Any:
        """Change what is different in a row. Returns it as it is then."""
        changes = {name: value for name, value in values.items() if getattr(row, name) != value}
        with suppress(JobLookupError):  # gone, because its last run has begun
            return self._scheduler.modify_job(row.id, row._jobstore_alias, **changes) if changes else row
        return None

    def keeps(self, job: RegisteredJob) -> bool:
        """Whether a stored row has the job's schedule, and so maybe its last run still to make."""
        row = self._found.get(self.id_of(job.key))
        return row is not None and job.schedule is not None and has_schedule(row, job.schedule.trigger)

    def _values(self, job: RegisteredJob, kind: str, alias: str) -> dict[str, Any]:
        is_to_park = self._bridge.running and not self._bridge.started_here and not self._bridge.is_in_memory(alias)
        return {
            "args": (self._name, job.key, kind),
            "kwargs": {"by": self._id} if is_to_park else {},
            "name": job.key,
            "executor": job.options.executor,
        }

    def _look(self, job: RegisteredJob) -> None:
        """Look for the stored row of a job that is added after the warm-up, which looked at all of them."""
        row_id, alias = self.id_of(job.key), job.options.jobstore
        if self._has_agreed and row_id not in self._found and not self._bridge.is_in_memory(alias):
            try:
                row = self._scheduler.get_job(row_id, alias)
            except Exception as error:  # noqa: BLE001 - a damaged row; where the store is down, adding one raises
                log.warning(
                    f"the stored row of job {job.key!r} cannot be read, and is replaced: {log.described(error)}",
                    key=job.key,
                )
            else:
                self._found |= {} if row is None else {row_id: row}

    def _held(self, job: RegisteredJob) -> Any:
        """The row that was found, as it is now: the scheduler may have run it since. To be called under its lock."""
        row = self._found.pop(self.id_of(job.key), None)
        if row is None or row._jobstore_alias is None or (self._bridge.started_here and not self._has_agreed):
            return row
        return self._scheduler.get_job(row.id, row._jobstore_alias)

    def park(self) -> None:
        """Have our rows wait for the next warm-up, with their due times, where the scheduler goes on without us."""
        if not self._bridge.running or self._bridge.started_here:
            return
        for alias in self._bridge.stores(in_memory=False):
            try:
                with self._scheduler._jobstores_lock:  # no run begins between the look and the change
                    for row in self._scheduler.get_jobs(alias):
                        if row.func_ref == FIRE and row.kwargs.get("by") == self._id and row.next_run_time:
                            self._update(row, {"next_run_time": None, "kwargs": {"due": row.next_run_time}})
            except Exception as error:  # noqa: BLE001 - whatever a store raises; the others are parked
                log.failure(f"job store {alias!r} cannot keep what comes due for the next warm-up:", error)


class _Unrestored(logging.Handler):
    """Notes the rows that a job store removes because it cannot restore them; the store tells its own log alone."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Note the id, which Redis has as bytes, and the error."""
        if str(record.msg).startswith("Unable to restore job") and isinstance(record.args, tuple):
            row_id, error = record.args[0], record.exc_info[1] if record.exc_info else None
            name = row_id.decode(errors="replace") if isinstance(row_id, bytes) else str(row_id)
            self.rows[name] = log.described(error) if error else "unknown"


def read(scheduler: Any, alias: str, prefix: str) -> list[Any]:
    """All rows of a job store. It removes damaged ones; those whose id begins with `prefix` are told of."""
    store_log = logging.getLogger(f"apscheduler.jobstores.{alias}")
    store_log.addHandler(unrestored := _Unrestored())
    try:
        rows = list(scheduler.get_jobs(alias))
    finally:
        store_log.removeHandler(unrestored)
    for row_id, error in unrestored.rows.items():
        if row_id.startswith(prefix):
            log.warning(f"the row {row_id!r} of job store {alias!r} was damaged, and is replaced or removed: {error}")
    return rows


def parts(row: Any) -> tuple[str, str, str]:
    """The name of the application, the key and the kind of run in a row of ours; empty where somebody changed them."""
    name, key, kind = row.args if len(row.args) == 3 else ("", "", "")
    return name, key, kind


def application_of(row: Any) -> str:
    """The application in the id of a row of ours, or of another application; empty where id and arguments disagree."""
    _, key, kind = parts(row)
    end = f":{key}" if kind == SCHEDULED else f":{key}:{kind}"
    return row.id.removesuffix(end) if key and row.id.endswith(end) else ""


def due_of(row: Any) -> datetime | None:
    """When a row is due, parked or not; ``None`` where it is paused."""
    return row.next_run_time or row.kwargs.get("due")  # type: ignore[no-any-return]


def unparked(row: Any) -> dict[str, Any]:
    """The change that lets a parked row run."""
    return {"next_run_time": due_of(row)} if due_of(row) != row.next_run_time else {}


def has_schedule(row: Any, trigger: Any) -> bool:
    """Whether a row has this schedule."""
    return type(row.trigger) is type(trigger) and row.trigger.__getstate__() == trigger.__getstate__()
