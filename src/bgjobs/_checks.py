"""What is checked before anything starts: each job against its scheduler and, where runs are claimed, its replicas.

The claims are imported where the settings name a store: without one they cost nothing.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ._apscheduler.scheduler import SchedulerBridge
from ._errors import BgjobsError, ConfigurationError, raise_all
from ._runs import log
from ._runs.registry import Registry
from ._runs.schedule import RegisteredJob, Schedule

if TYPE_CHECKING:
    from ._claims import ClaimStore
    from ._claims.keeper import Keeper


#: In which module and function of its web server a worker lives, which it has on its stack; and who knows their number
#: there, under which name. (uvicorn has no supervisor for one.)
_WORKER_OF = {
    "gunicorn.arbiter": ("spawn_worker", "self", "num_workers"),
    "uvicorn.supervisors.multiprocess": ("target", "self", ""),
    "hypercorn.asyncio.run": ("asyncio_worker", "config", "workers"),
}


class Settings(Protocol):
    """What is asked of the settings."""

    @property
    def application(self) -> str:
        """Keeps the claims of applications apart."""

    @property
    def claims(self) -> Any:
        """The URL of the claim store, and the lease."""

    @property
    def status_file(self) -> Path | None:
        """The status file."""

    def unmatched(self, keys: Collection[str]) -> list[ConfigurationError]:
        """An error for each job in the settings that is not among these keys."""


class Checks:
    """The checks of one facade."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings

    def _store(self) -> ClaimStore | None:
        """The claim store of the settings, which connects at its first use; ``None`` where they name none.

        Raises:
            ConfigurationError: There is no such store, or a library that it needs is missing.
        """
        if self._settings.claims.url is None:
            return None
        from ._claims import open_store

        return open_store(self._settings.claims.url)

    def keeper(self, heard: Callable[[dict[str, Any]], datetime | None], *, serves_jobs_only: bool) -> Keeper | None:
        """What claims the runs; ``None`` where the settings name no store.

        Without a store, this logs a warning if the process is evidently one of several workers of a web server, since
        each of them would run every job.

        Args:
            heard: See `Keeper`.
            serves_jobs_only: Whether the process has nothing else to do, so that it is no such worker.
        """
        store = self._store()
        if store is None:
            if not serves_jobs_only and (sign := _several_workers()):
                log.warning(
                    f"{sign}, and there is no claim store: each worker runs every job. Set claims.url, so that each "
                    "occurrence runs once (see docs/replicas.md), or BGJOBS__ENABLED=false in all processes but one, "
                    "such as one that `bgjobs run` starts for the jobs alone"
                )
            return None
        from ._claims.keeper import Keeper

        return Keeper(store, self._settings.application, self._settings.claims.lease, heard)

    def all(self, bridge: SchedulerBridge) -> None:
        """Raise what is wrong with the jobs and their settings, all of it."""
        mistakes: list[BgjobsError] = []
        try:
            if (store := self._store()) is not None:
                store.close()
        except ConfigurationError as exc:
            mistakes.append(exc)
        for job in list(self._registry.jobs.values()):
            try:
                if job.schedule is not None:
                    self.job(job, bridge)
            except BgjobsError as exc:
                mistakes.append(exc)
        file = self._settings.status_file
        if file is not None and not file.parent.is_dir():
            message = f"status_file: there is no directory {str(file.parent)!r}"
            mistakes.append(ConfigurationError(message, "status_file"))
        raise_all([*mistakes, *self._settings.unmatched(self._registry.jobs)], "the jobs")

    def job(self, job: RegisteredJob, bridge: SchedulerBridge) -> None:
        """Raise what is wrong with one job."""
        bridge.check(job)
        self.instance(job)
        if self._settings.claims.url is None or job.schedule is None:
            return
        if job.options.max_instances > 1:
            what, instead = (
                "max_instances",
                "with a claim store a job has one run at a time, so max_instances must be 1",
            )
        elif not bridge.is_in_memory(job.options.jobstore):
            what, instead = "jobstore", "with a claim store, which remembers what ran, the job store must be in memory"
        elif problem := _not_shared(job.schedule):
            what, instead = "trigger", problem
        else:
            return
        raise ConfigurationError(f"job {job.key!r}: {instead}", what)

    def instance(self, job: RegisteredJob) -> None:
        """Raise `InvalidJobError` unless there is a way to an instance of the job's class."""
        if self._registry.resolver is None:
            job.target.check_constructor(job.key)


def _not_shared(schedule: Schedule) -> str:
    """Why replicas would not compute the same fire times; nothing where they do."""
    if schedule.following is None:
        return "with a claim store, give cron, a CronTrigger without jitter, or an IntervalTrigger with a start_date"
    trigger = schedule.trigger
    if hasattr(trigger, "interval") and trigger.start_date.microsecond:
        return (
            "without a start_date an IntervalTrigger counts from the start of each process; with a claim store, give "
            "one of whole seconds, such as start_date='2026-01-01'"
        )
    return ""


def _several_workers() -> str:
    """What shows that this process is one of several workers; nothing where nothing does."""
    number = os.environ.get("WEB_CONCURRENCY", "")
    if number.isdecimal() and number.lstrip("0") not in ("", "1"):
        return f"WEB_CONCURRENCY is {number}"
    for frame, _ in traceback.walk_stack(None):
        name = frame.f_globals.get("__name__", "")
        function, owner, number = _WORKER_OF.get(name, ("", "", ""))
        if frame.f_code.co_name == function and getattr(frame.f_locals[owner], number, 2) > 1:
            return f"this is one of several workers of {name.partition('.')[0]}"
    return ""
