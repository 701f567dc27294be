"""The quickstart: five background jobs on a small API and a database, for a few seconds.

Run it with ``python -m examples.quickstart``; end it early with Ctrl-C. README.md explains it step by step.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from bgjobs import BackgroundJobs, configure_logging

from .api import served
from .jobs import CleanupJob, DataSyncJob, InvoiceJob, NotificationJob
from .store import Store


def background_jobs(database: Path, api: str) -> BackgroundJobs:
    """Register the jobs. Nothing runs yet."""

    @contextmanager
    def resolver(job_type: type[Any]) -> Generator[Any]:
        """The scope of one run: a connection of its own, closed when the run is over, and a fresh instance."""
        with closing(sqlite3.connect(database)) as connection:
            yield job_type(Store(connection), api)

    jobs = BackgroundJobs(resolver=resolver)
    (
        jobs.add_background_job(DataSyncJob, cron="*/2 * * * * *", run_immediately=True)
        .add_background_job(
            NotificationJob, cron="1/4 * * * * *", key="morning-notifications", kwargs={"greeting": "Good morning"}
        )
        .add_background_job(
            NotificationJob, cron="3/4 * * * * *", key="evening-notifications", kwargs={"greeting": "Good evening"}
        )
        .add_background_job(CleanupJob, cron="*/3 * * * * *", kwargs={"retention_days": 90})
        .add_background_job(InvoiceJob, cron="*/4 * * * * *")
    )
    return jobs


async def main(database: Path, seconds: float) -> None:
    """Run the jobs for some seconds."""
    with served() as api:
        async with background_jobs(database, api):  # warms up; at the end, waits for the runs that are going
            print(f"The jobs run for {seconds:g} seconds. Ctrl-C ends them at once.", flush=True)
            await asyncio.sleep(seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.quickstart", description="Run the quickstart.")
    parser.add_argument("--seconds", type=float, default=8, help="for how long (default: 8)")
    parser.add_argument("--database", type=Path, default=Path("quickstart.db"), help="made anew at each start")
    arguments = parser.parse_args()

    configure_logging()
    # APScheduler logs the traceback of each failure. InvoiceJob always fails: keep the output readable.
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)

    arguments.database.unlink(missing_ok=True)
    with closing(sqlite3.connect(arguments.database)) as connection:
        store = Store(connection)
        store.create()
        with suppress(KeyboardInterrupt):
            asyncio.run(main(arguments.database, arguments.seconds))
        print(f"\nIn {arguments.database} there are now:")
        print(f"  {store.count('users')} users, {store.count('users WHERE updates > 0')} of them updated since")
        print(f"  {store.count('emails')} e-mails")
        print(f"  {store.count('failures')} failures, noted by on_exception")
