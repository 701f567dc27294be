"""Recurring background jobs on six-field cron schedules: a thin adapter over APScheduler 3.11."""

from ._cron import CronExpression
from ._errors import (
    BgjobsError,
    ConfigurationError,
    CronFormatError,
    DuplicateJobError,
    InvalidJobError,
    LifecycleError,
    NeverFiresError,
    ResolverError,
    UnknownJobError,
)
from ._job import BackgroundJob, Job, Resolver
from ._jobs import BackgroundJobs
from ._logging import configure_logging
from ._options import BackgroundJobOptions
from ._outcome import Cancelled, Skipped
from ._run import CurrentRun, current_run
from ._settings import BackgroundJobsSettings
from ._status import Health, JobStatus
from ._token import CancellationToken
from ._trigger import cron_trigger_arguments

__all__ = [
    "BackgroundJob",
    "BackgroundJobOptions",
    "BackgroundJobs",
    "BackgroundJobsSettings",
    "BgjobsError",
    "CancellationToken",
    "Cancelled",
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
    "Resolver",
    "ResolverError",
    "Skipped",
    "UnknownJobError",
    "configure_logging",
    "cron_trigger_arguments",
    "current_run",
]
