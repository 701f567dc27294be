"""Recurring background jobs on six-field cron schedules: a thin adapter over APScheduler 3.11."""

import typing

from . import _settings
from ._apscheduler.trigger import CronExpression, cron_trigger_arguments
from ._errors import (
    BgjobsError,
    ClaimStoreError,
    ConfigurationError,
    CronFormatError,
    DuplicateJobError,
    InvalidJobError,
    LifecycleError,
    NeverFiresError,
    ResolverError,
    UnknownJobError,
    UnknownRunError,
)
from ._job import BackgroundJob, Job, Resolver
from ._jobs import BackgroundJobs
from ._logging import configure_logging
from ._options import BackgroundJobOptions
from ._runs.run import current_run
from ._runs.status import Cancelled, CurrentRun, Health, JobStatus, Outcome, RunReport, Skipped
from ._token import CancellationToken

if typing.TYPE_CHECKING:  # what stands below would let a type checker take every name for known
    from ._settings import BackgroundJobsSettings
else:

    def __getattr__(name: str) -> object:
        """Import the settings when they are first asked for."""
        if name == "BackgroundJobsSettings":
            globals()[name] = _settings.BackgroundJobsSettings
            return _settings.BackgroundJobsSettings
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "BackgroundJob",
    "BackgroundJobOptions",
    "BackgroundJobs",
    "BackgroundJobsSettings",
    "BgjobsError",
    "CancellationToken",
    "Cancelled",
    "ClaimStoreError",
    "ConfigurationError",
    "CronExpression",
    "CronFormatError",
    "CurrentRun",
    "DuplicateJobError",
    "Health",
    "InvalidJobError",
    "Job",
    "JobStatus",
    "LifecycleError",
    "NeverFiresError",
    "Outcome",
    "Resolver",
    "ResolverError",
    "RunReport",
    "Skipped",
    "UnknownJobError",
    "UnknownRunError",
    "configure_logging",
    "cron_trigger_arguments",
    "current_run",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
