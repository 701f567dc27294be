"""What persistent job stores hold of our jobs, from earlier processes and from other facades.

    agree     at warm-up, before anything runs: rows that no job wants are removed; a job goes on from the row it has
    park      at a close, where somebody else's scheduler goes on: our rows pause, and keep their due times as ``due``
    make up   what came due while nothing was warm here runs once, late (`rows`, `missed`)

A row holds what a store can keep: a reference to the function `fire`, and three texts (name, key, kind of run). Its id
is ``<application>:<key>``; a one-shot has ``:startup`` or ``:<run id>`` behind it. The name is the application's, with
a number where several facades in a process have the same. ``by`` says which warm-up had a row last, so that a close
does not park what a newer process has taken up.
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
        self.taken: dict[str, Registry] = {}  # the ids of the jobs that are warm
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
        self._bridge = bridge
        self._scheduler = bridge.scheduler
        self.application = application
        self._name = name
        self._registry = registry
        self._shared = share(self._scheduler, registry, application)
        self._id = registry.new_run_id()  # of this warm-up
        self._others: set[str] = set()  # other applications, with rows in our stores, or runs that came due here
        self._removed: dict[str, Any] = {}  # the rows that were removed; a job that is added later goes on from its own
        self._names = {name}  # under which rows of ours may have come due while nothing was warm

    def id_of(self, key: str, kind: str = SCHEDULED) -> str:
        """The id that APScheduler knows a job by."""
        return f"{self.application}:{key}" + ("" if kind == SCHEDULED else f":{kind}")

    def key_of(self, row_id: str) -> str:
        """The key in the id of a scheduled row; any other text for the rows of other people."""
        prefix = self.id_of("")
        return row_id.removeprefix(prefix) if row_id.startswith(prefix) else ""

    def agree(self) -> None:
        """Make the rows in persistent stores agree with the jobs that are registered; comes before they are added.

        Rows of jobs that are not registered, are switched off, or have another job store now, are removed.
        """
        removed = []
        for alias in self._bridge.stores(in_memory=False):
            for row in filter(self._is_ours, self._read(alias)):
                _, key, kind = parts(row)
                if reason := self._unwanted(key, kind, row, alias):
                    removed.append(f"{row.id!r} ({reason})")
                    self._remove(row, alias)
                    self._removed |= {row.id: row} if kind == SCHEDULED else {}
                    continue
                self._names.add(row.args[0])
                if kind != SCHEDULED:
                    values = self._values(self._registry.jobs[key], kind, alias)
                    self._update(row, values | {"next_run_time": due_of(row)})
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
        known |= {*self._shared.applications.values()}  # those of facades on this scheduler, warm or not
        return [
            f"a job store of the application {self.application!r} holds jobs of {other!r}, too, and each takes the "
            "other's runs: give each a table of its own (`tablename` of SQLAlchemyJobStore, `jobs_key` and "
            "`run_times_key` of RedisJobStore)"
            for other in sorted({name.partition("#")[0] for name in self._others} - known)
        ]

    def _read(self, alias: str) -> list[Any]:
        """All rows of a job store. The store removes the damaged ones, and tells its log alone: ours are told of."""
        damaged: dict[str, Any] = {}

        def note(record: Any) -> bool:
            if record.args and str(record.msg).startswith("Unable to restore job"):
                name, error = record.args[0], record.exc_info and record.exc_info[1]
                damaged[name.decode(errors="replace") if isinstance(name, bytes) else name] = error  # bytes: Redis
            return True

        store_log = logging.getLogger(f"apscheduler.jobstores.{alias}")
        store_log.addFilter(note)
        try:
            return list(self._scheduler.get_jobs(alias))
        except Exception as error:
            if any(job.options.jobstore == alias for job in list(self._registry.jobs.values())):
                raise
            log.warning(f"job store {alias!r}, which no job here uses, cannot be read: {log.described(error)}")
            return []
        finally:
            store_log.removeFilter(note)
            for row_id in filter(self.key_of, damaged):
                log.warning(
                    f"the row {row_id!r} of job store {alias!r} was damaged, and is replaced or removed: "
                    f"{log.described(damaged[row_id])}"
                )

    def _is_ours(self, row: Any) -> bool:
        """Whether a row is this application's, and no other facade's on this scheduler, warm or not yet."""
        if row.func_ref != FIRE:
            return False
        jobs, shared, (application, key, _) = self._registry.jobs, self._shared, parts(row)
        if not application:  # its arguments are damaged, or its id
            return self.key_of(row.id) in jobs
        if application != self.application:
            self._others.add(application)
            return False
        if key in jobs:
            return shared.taken.get(self.id_of(key), self._registry) is self._registry
        return not any(key in registry.jobs for registry, name in shared.applications.items() if name == application)

    def _unwanted(self, key: str, kind: str, row: Any, alias: str) -> str:
        """Why a row is to be removed; nothing where it is not."""
        job = self._registry.jobs.get(key)
        if job is None:
            return "not registered"
        if job.schedule is None:
            return "switched off" if kind in (SCHEDULED, STARTUP) else ""
        if kind == SCHEDULED and job.options.jobstore != alias:
            return f"its job store is {job.options.jobstore!r} now"
        if kind != SCHEDULED or has_schedule(row, job.schedule.trigger):
            return ""
        return "its new schedule is finished" if job.schedule.after(None, datetime.now(UTC)) is None else ""

    def _remove(self, row: Any, alias: str) -> None:
        with suppress(JobLookupError):
            self._scheduler.remove_job(row.id, alias)
        row._jobstore_alias = None

    def _update(self, row: Any, values: dict[str, Any]) -> Any:
        """Change what is different in a row. Returns it as it is then."""
        changes = {name: value for name, value in values.items() if getattr(row, name) != value}
        if changes:
            with suppress(JobLookupError):  # gone, because its last run has begun
                row = self._scheduler.modify_job(row.id, row._jobstore_alias, **changes)
        return row

    def _values(self, job: RegisteredJob, kind: str, alias: str) -> dict[str, Any]:
        is_never_parked = self._bridge.started_here or self._bridge.is_in_memory(alias)
        return {
            "args": (self._name, job.key, kind),
            "kwargs": {} if is_never_parked else {"by": self._id},
            "name": job.key,
            "executor": job.options.executor,
        }

    def _held(self, job: RegisteredJob) -> Any:
        """The row of a job as it is now, or was when it was removed. To be called under the scheduler's lock."""
        removed = self._removed.pop(self.id_of(job.key), None)
        row = self._scheduler.get_job(self.id_of(job.key), job.options.jobstore)
        return row if row is not None and row.func_ref == FIRE else removed

    def park(self) -> None:
        """Have our rows wait for the next warm-up, with their due times, where the scheduler goes on without us."""
        if not self._bridge.running or self._bridge.started_here:
            return
        for alias in self._bridge.stores(in_memory=False):
            try:
                with self._scheduler._jobstores_lock:  # no run begins between the look and the change
                    for row in self._scheduler.get_jobs(alias):
                        if row.kwargs.get("by") == self._id and row.next_run_time:
                            self._update(row, {"next_run_time": None, "kwargs": {"due": row.next_run_time}})
            except Exception as error:  # noqa: BLE001 - whatever a store raises; the others are parked
                log.failure(f"job store {alias!r} cannot keep what comes due for the next warm-up:", error)


def parts(row: Any) -> tuple[str, str, str]:
    """The application, the key and the kind of run in a row of bgjobs; empty where its id and arguments disagree."""
    if len(row.args) == 3:
        _, key, kind = row.args
        end = f":{key}" if kind == SCHEDULED else f":{key}:{kind}"
        if key and row.id.endswith(end):
            return row.id.removesuffix(end), key, kind
    return "", "", ""


def due_of(row: Any) -> datetime | None:
    """When a row is due, parked or not; ``None`` where it is paused."""
    return row.next_run_time or row.kwargs.get("due")  # type: ignore[no-any-return]


def has_schedule(row: Any, trigger: Any) -> bool:
    """Whether a row has this schedule."""
    return type(row.trigger) is type(trigger) and row.trigger.__getstate__() == trigger.__getstate__()
