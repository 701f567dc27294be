"""What is told of all jobs of a process: that they are cold, switched off, warm or closed."""

from __future__ import annotations

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
