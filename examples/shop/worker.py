"""The worker: all jobs but the one that keeps a web process' cache warm.

Run it with ``bgjobs run --config examples/shop/settings.toml``.
"""

from __future__ import annotations

import httpx
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from bgjobs import BackgroundJobs, BackgroundJobsSettings, RunReport

from .config import ShopSettings
from .jobs import (
    CleanupOldLogsJob,
    DailyReportJob,
    DatabaseBackupJob,
    DataSyncJob,
    EmailNotificationJob,
    OrderStatusUpdateJob,
    WeatherDataPollingJob,
    WeeklyDigestJob,
)
from .mail import deliver
from .resolver import resolver_of

CITIES = ["New York", "London", "Tokyo", "Sydney"]


def background_jobs(settings: ShopSettings, of_jobs: BackgroundJobsSettings) -> BackgroundJobs:
    """Register the jobs. Nothing is opened, and nothing runs, before they are warm."""
    # A connection for each run: some runs an hour need no pool, and nothing is left open when the worker ends.
    engine = create_async_engine(settings.database_url, poolclass=NullPool)
    partner = httpx.AsyncClient(base_url=settings.partner_url, timeout=10)
    resolver = resolver_of(settings, async_sessionmaker(engine, expire_on_commit=False), partner)
    jobs = (
        BackgroundJobs(settings=of_jobs, resolver=resolver)
        .add_background_job(EmailNotificationJob, cron="*/10 * * * * *", run_immediately=True)
        .add_background_job(DataSyncJob, cron="0 0 */6 * * *", run_immediately=True, timeout=300)
        .add_background_job(OrderStatusUpdateJob, cron="0 */10 * * * *")
        .add_background_job(DailyReportJob, cron="0 0 8 * * *")
        .add_background_job(CleanupOldLogsJob, cron="0 0 3 * * *")
        .add_background_job(WeatherDataPollingJob, cron="0 */15 * * * *", kwargs={"cities": CITIES}, timeout=60)
        .add_background_job(DatabaseBackupJob, cron="0 0 2 * * *")
        .add_background_job(WeeklyDigestJob, cron="0 0 9 * * MON")
    )
    alert_admin(jobs, settings)
    return jobs


def alert_admin(jobs: BackgroundJobs, settings: ShopSettings) -> None:
    """Mail the administrator when a job begins to fail: once, and again only after it has succeeded."""
    failing: set[str] = set()

    @jobs.on_run_end
    def alert(report: RunReport) -> None:
        if report.outcome == "succeeded":
            failing.discard(report.key)
        elif report.outcome in ("failed", "timed_out") and report.key not in failing:
            deliver(settings, settings.admin, f"Job {report.key} {report.outcome}", f"{report.error or report.reason}")
            failing.add(report.key)


def jobs() -> BackgroundJobs:
    """The jobs as the environment configures them, for the command line."""
    settings = ShopSettings()
    return background_jobs(settings, BackgroundJobsSettings(timezone=settings.timezone.key))
