"""What is told of all jobs of a process: that they are cold, switched off, warm or closed."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from importlib.metadata import version

from ._runs import log
from ._runs.registry import Registry

#: What `health` says of jobs that are not warm.
COLD = "the jobs are not warmed up"
FORKED = "this process was forked from one in which the jobs are warm; here they are not"

#: Why `warm_up` schedules nothing, where the settings say so.
DISABLED = "the jobs are switched off in this process by enabled = false in its settings (BGJOBS__ENABLED)"


def started_cold(registry: Registry) -> None:
    """Warn that the owner of a scheduler has started it, and no warm-up has come before."""
    if registry.jobs:
        log.warning(
            f"the scheduler was started, but its {len(registry.jobs)} background jobs run only after jobs.warm_up()"
        )


def warmed(registry: Registry) -> None:
    """Log that the jobs are warm, and what runs next."""
    now, jobs = datetime.now(UTC), list(registry.jobs.values())
    due = [(moment, job.key) for job in jobs if job.schedule and (moment := job.schedule.next_run_time(now))]
    first, key = min(due, default=(None, None))
    following = f"{key!r} at {first.isoformat(timespec='seconds')}" if first else "none"
    log.info(f"bgjobs {version('bgjobs')} is warm on {_here()}; jobs: {len(jobs)}; next run: {following}")


def closed(seconds: float, in_progress: int, abandoned: int) -> None:
    """Log that the jobs are closed, and what became of the runs that were in progress."""
    ended = f"runs that ended meanwhile: {max(0, in_progress - abandoned)}; abandoned: {abandoned}"
    log.info(f"bgjobs is closed on {_here()}, in {seconds:.1f} s; {ended}")


def _here() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
