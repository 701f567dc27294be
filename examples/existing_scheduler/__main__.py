"""An application with its own `BackgroundScheduler` and its own job, to which bgjobs adds one.

Run it with ``python -m examples.existing_scheduler``; end it early with Ctrl-C.
"""

from __future__ import annotations

import argparse
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from apscheduler.schedulers.background import BackgroundScheduler

from bgjobs import BackgroundJobs


def note(database: Path, who: str) -> None:
    """Write down that somebody ran."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS runs (who TEXT)")
        connection.execute("INSERT INTO runs VALUES (?)", (who,))
    print(f"{who} ran", flush=True)


class ReportJob:
    """The new job."""

    def action_to_do(self, database: str) -> None:
        note(Path(database), "the job of bgjobs")


def main(database: Path, seconds: float) -> None:
    """Run the application with background jobs for some seconds, and then a little longer without."""
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_job(note, "interval", seconds=1, args=[database, "the job of the application"])
    scheduler.start()

    jobs = BackgroundJobs(scheduler)
    jobs.add_background_job(ReportJob, cron="* * * * * *", run_immediately=True, kwargs={"database": str(database)})
    with suppress(KeyboardInterrupt), jobs:
        time.sleep(seconds)

    print("The background jobs are closed. The scheduler goes on with its own:", flush=True)
    scheduler.print_jobs()
    scheduler.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.existing_scheduler", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4, help="for how long (default: 4)")
    parser.add_argument("--database", type=Path, default=Path("existing_scheduler.db"), help="where runs are noted")
    arguments = parser.parse_args()
    main(arguments.database, arguments.seconds)
