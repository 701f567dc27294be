"""What APScheduler's executors call, with plain arguments that a job store can keep: the way in to every run."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Protocol

from .._runs import log as _log
from .._runs.outcome import Failed, Outcome, Skipped, Succeeded
from .._runs.run import SCHEDULED

#: What APScheduler's ids of our jobs begin with.
PREFIX = "bgjobs:"
#: An APScheduler job id and a fire time: what names a run in an event of the scheduler.
Ticket = tuple[str, datetime]


class Application(Protocol):
    """What runs the jobs of one facade (`_runner.Runner`)."""

    def fire(self, key: str, kind: str, scheduled_at: datetime) -> Outcome | Skipped: ...
    async def fire_async(self, key: str, kind: str, scheduled_at: datetime) -> Outcome | Skipped: ...


#: The facades that are warm in this process, by name. Job stores hold the name, never the facade.
applications: dict[str, Application] = {}


def enlist(application: str, app: Application) -> str:
    """Make an application known under its name, or the nearest that is free in this process."""
    name, n = application, 1
    while applications.setdefault(name, app) is not app:
        n += 1
        name = f"{application}#{n}"
    return name


def fire(application: str, key: str, kind: str) -> object:
    """What an executor with threads calls; job stores hold a reference to it, so its name and arguments stay."""
    app = applications.get(application)
    scheduled_at = _fire_time()
    outcome = _unknown(application, key, scheduled_at) if app is None else app.fire(key, kind, scheduled_at)
    if isinstance(outcome, Failed):
        # Here, and on a line by itself, since APScheduler formats the traceback of every failure, frame by frame.
        raise outcome.error
    return outcome.value if isinstance(outcome, Succeeded) else outcome


async def fire_async(application: str, key: str, kind: str) -> object:
    """What an asyncio executor calls; job stores hold a reference to it, so its name and arguments stay."""
    app = applications.get(application)
    scheduled_at = _fire_time()
    outcome = _unknown(application, key, scheduled_at) if app is None else await app.fire_async(key, kind, scheduled_at)
    if isinstance(outcome, Failed):
        raise outcome.error
    return outcome.value if isinstance(outcome, Succeeded) else outcome


def _fire_time() -> datetime:
    """The fire time that APScheduler computed, from the variable ``run_time`` of its function that calls `fire`.

    APScheduler 3 tells a job its fire time in no other way; a test pins the name. Where the caller has none, it is now.
    In UTC, since two times of one zone compare without their offsets.
    """
    run_time = sys._getframe(2).f_locals.get("run_time")  # noqa: SLF001
    return run_time.astimezone(UTC) if isinstance(run_time, datetime) else datetime.now(UTC)


def _unknown(application: str, key: str, scheduled_at: datetime) -> Skipped:
    reason = f"the application {application!r}, to which this job belongs, is not running in this process"
    _log.skipped(key, reason, scheduled_at)
    return Skipped(reason)


def job_id(key: str, kind: str) -> str:
    """The id that APScheduler knows a job by."""
    return PREFIX + key if kind == SCHEDULED else f"{PREFIX}{key}:{kind}"
