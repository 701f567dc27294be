"""Each occurrence runs once, whatever its job store forgets: the store is asked again, the run is not made again."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor as Threads
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import time_machine
from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy.pool import NullPool

from bgjobs import current_run
from stage import (
    CLASSES,
    LIMIT,
    NIGHTLY,
    Times,
    Waiter,
    cold,
    counts,
    nothing,
    often,
    row,
    set_due,
    stored,
    until,
    warm,
)


class Forgetful(SQLAlchemyJobStore):  # type: ignore[misc]
    """A job store in a file, in which the first changes fail; the scheduler tries again soon after that."""

    def __init__(self, folder: Path, times: int, retry: float = 0.05) -> None:
        super().__init__(url=f"sqlite:///{folder / 'jobs.db'}", engine_options={"poolclass": NullPool})
        self._times = times
        self._retry = retry

    def start(self, scheduler: Any, alias: str) -> None:
        scheduler.jobstore_retry_interval = self._retry
        super().start(scheduler, alias)

    def remove_job(self, job_id: str) -> None:
        self._fail()
        super().remove_job(job_id)

    def update_job(self, job: Any) -> None:
        self._fail()
        super().update_job(job)

    def _fail(self) -> None:
        if self._times:
            self._times -= 1
            raise OSError("database is locked")


def test_an_extra_run_whose_row_cannot_be_deleted(kind: str, tmp_path: Path, records: Any) -> None:
    """`run_now` runs once, and the log says why the further attempts of the scheduler are skipped."""
    seen = Waiter()
    scheduler = CLASSES[kind](timezone="UTC", jobstores={"default": Forgetful(tmp_path, 2)})
    jobs = cold(scheduler).add_background_job(lambda: seen(current_run().run_id), key="k", cron=NIGHTLY)
    with warm(kind, jobs):
        until(lambda: jobs.is_warm and scheduler.running)
        run_id = jobs.run_now("k")
        until(lambda: row(jobs, "k").not_run["repeated"] and not scheduler.get_job(f"bgjobs:k:{run_id}"))
    assert seen.seen == [run_id]
    assert any("this occurrence was submitted already" in text for text in records.texts("WARNING"))


def test_an_extra_run_while_its_file_is_locked(tmp_path: Path, records: Any) -> None:
    """Another program has a transaction on the SQLite file; when that is over, the row goes, and nothing runs again."""
    seen, file = Waiter(), tmp_path / "jobs.db"
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)

    class Shared(SQLAlchemyJobStore):  # type: ignore[misc]
        def remove_job(self, job_id: str) -> None:
            if not other.in_transaction and not records.texts("ERROR"):
                other.execute("BEGIN EXCLUSIVE")
            super().remove_job(job_id)

    options = {"poolclass": NullPool, "connect_args": {"timeout": 0.01}}
    store = Shared(url=f"sqlite:///{file}", engine_options=options)
    scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": store}, jobstore_retry_interval=0.05)
    with cold(scheduler).add_background_job(lambda: seen(), key="k", cron=NIGHTLY) as jobs:
        run_id = jobs.run_now("k")
        until(lambda: any("database is locked" in text for text in records.texts("ERROR")))
        other.execute("COMMIT")
        until(lambda: row(jobs, "k").not_run["repeated"] and not scheduler.get_job(f"bgjobs:k:{run_id}"))
    other.close()
    assert len(seen.seen) == 1


def test_an_immediate_run_whose_row_cannot_be_deleted(tmp_path: Path) -> None:
    """`run_immediately` runs once a warm-up."""
    seen = Waiter()
    scheduler = CLASSES["background"](timezone="UTC", jobstores={"default": Forgetful(tmp_path, 2)})
    jobs = cold(scheduler).add_background_job(lambda: seen(), key="k", cron=NIGHTLY, run_immediately=True)
    with jobs:
        until(lambda: row(jobs, "k").not_run["repeated"] and not scheduler.get_job("bgjobs:k:startup"))
    assert len(seen.seen) == 1
    with jobs:
        seen.wait(2)
    assert row(jobs, "k").outcomes["succeeded"] == 2


def test_a_backlog_that_cannot_be_moved_on(tmp_path: Path) -> None:
    """Without coalescing, each of the occurrences that are due together runs once."""
    seen, moment = Waiter(), datetime.now(UTC)
    due = Times(*(moment - timedelta(minutes=n) for n in (3, 2, 1)), moment + timedelta(days=1))
    scheduler = CLASSES["background"](timezone="UTC", jobstores={"default": Forgetful(tmp_path, 1)})
    jobs = cold(scheduler).add_background_job(
        lambda: seen(current_run().scheduled_at), key="k", trigger=due, coalesce=False, max_instances=9
    )
    with jobs:
        until(lambda: sum(row(jobs, "k").not_run.values()) == 3)
    assert seen.seen == list(due.moments[:3])
    assert counts(jobs, "k") == {"succeeded": 3, "repeated": 3}


def test_a_run_that_is_still_going_is_no_overlap_of_itself(tmp_path: Path) -> None:
    """Where the store comes with an occurrence again during its own run, that is called repeated."""
    seen, moment = Waiter(), datetime.now(UTC)
    scheduler = CLASSES["background"](timezone="UTC", jobstores={"default": Forgetful(tmp_path, 1)})
    jobs = cold(scheduler)

    def job() -> None:
        seen()
        until(lambda: row(jobs, "k").not_run["repeated"])

    jobs.add_background_job(job, key="k", trigger=Times(moment, moment + timedelta(days=1)))
    with jobs:
        until(lambda: row(jobs, "k").outcomes["succeeded"])
    assert counts(jobs, "k") == {"succeeded": 1, "repeated": 1}


def test_what_a_refused_run_stands_for_is_counted(tmp_path: Path) -> None:
    """The earlier occurrences are coalesced into it, as into one that runs."""

    class Never(Threads):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("can't start new thread")

    class Tired(BasePoolExecutor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(Never(2))

    moment = datetime.now(UTC).replace(microsecond=0)
    with cold(BackgroundScheduler(jobstores={"default": stored(tmp_path)})) as jobs:
        jobs.add_background_job(nothing, key="k", cron="0 * * * * *")
    set_due(tmp_path, "k", moment.replace(second=0) - timedelta(minutes=9))
    scheduler = BackgroundScheduler(jobstores={"default": stored(tmp_path)}, executors={"default": Tired()})
    with cold(scheduler).add_background_job(nothing, key="k", cron="0 * * * * *") as jobs:
        until(lambda: row(jobs, "k").not_run["refused"])
    assert row(jobs, "k").not_run["coalesced"] >= 9


def test_a_fire_time_that_passes_during_the_warm_up_is_not_called_coalesced(tmp_path: Path) -> None:
    """The job is due for the first time when APScheduler has it due, which may be a moment later than was expected."""
    seen = Waiter()

    class Slow(SQLAlchemyJobStore):  # type: ignore[misc]
        def lookup_job(self, job_id: str) -> Any:
            clock.shift(timedelta(minutes=3))
            return super().lookup_job(job_id)

    with time_machine.travel(datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)) as clock:
        store = Slow(url=f"sqlite:///{tmp_path / 'jobs.db'}", engine_options={"poolclass": NullPool})
        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": store})
        with cold(scheduler).add_background_job(lambda: seen(), key="k", cron="0 * * * * *") as jobs:
            clock.shift(timedelta(minutes=1))
            scheduler.wakeup()
            seen.wait()
            until(lambda: row(jobs, "k").outcomes["succeeded"])
    assert counts(jobs, "k") == {"succeeded": 1}


def test_many_extra_runs_are_not_remembered_for_ever() -> None:
    """The memory of extra runs is bounded; each of them runs."""
    seen = Waiter()
    with cold().add_background_job(lambda: seen(), key="k", cron=NIGHTLY, max_instances=99) as jobs:
        for n in range(1, 1101):
            jobs.run_now("k")
            seen.wait(n)
        until(lambda: row(jobs, "k").outcomes["succeeded"] == 1100)


def test_a_repeated_occurrence_is_not_called_missed(tmp_path: Path) -> None:
    """Though it is later than its grace time by then: it ran."""
    moment = datetime.now(UTC)
    due = Times(moment, moment + timedelta(days=1))
    scheduler = CLASSES["background"](timezone="UTC", jobstores={"default": Forgetful(tmp_path, 1, retry=1.1)})
    jobs = cold(scheduler).add_background_job(nothing, key="k", trigger=due, misfire_grace_time=1)
    with jobs:
        until(lambda: row(jobs, "k").not_run["repeated"])
    assert counts(jobs, "k") == {"succeeded": 1, "repeated": 1}


def test_an_overlap_in_a_pass_that_fails_is_told_later(records: Any) -> None:
    """APScheduler forgets its events then; the next occurrence of the job tells of those before it."""
    release, failing = threading.Event(), threading.Event()

    class Failing(MemoryJobStore):  # type: ignore[misc]
        def start(self, scheduler: Any, alias: str) -> None:
            scheduler.jobstore_retry_interval = 0.02
            super().start(scheduler, alias)

        def get_next_run_time(self) -> Any:
            if failing.is_set():
                raise OSError("connection lost")
            return super().get_next_run_time()

    scheduler = CLASSES["background"](timezone="UTC", jobstores={"default": Failing()})
    jobs = cold(scheduler).add_background_job(lambda: release.wait(LIMIT), key="k", trigger=often(), coalesce=False)
    with jobs:
        until(lambda: row(jobs, "k").running)
        failing.set()
        until(lambda: len(records.texts("ERROR")) >= 9)
        failing.clear()
        until(lambda: any("overlapped while a job store failed" in text for text in records.texts("WARNING")))
        release.set()


def test_an_occurrence_that_is_repeated_and_refused_is_repeated(tmp_path: Path) -> None:
    """It ran, so that no refusal is counted when its executor takes no more work the second time."""

    class Once(Threads):
        submitted = False

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            if self.submitted:
                raise RuntimeError("can't start new thread")
            self.submitted = True
            return super().submit(fn, *args, **kwargs)

    class Tired(BasePoolExecutor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(Once(2))

    moment = datetime.now(UTC)
    scheduler = CLASSES["background"](
        timezone="UTC", jobstores={"default": Forgetful(tmp_path, 1)}, executors={"default": Tired()}
    )
    due = Times(moment, moment + timedelta(days=1))
    with cold(scheduler).add_background_job(nothing, key="k", trigger=due, max_instances=9) as jobs:
        until(lambda: row(jobs, "k").not_run["repeated"])
    assert counts(jobs, "k") == {"succeeded": 1, "repeated": 1}
