"""Restarts with the persistent job stores that people use: SQLite, PostgreSQL, Redis."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED
from apscheduler.jobstores.redis import RedisJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy.pool import NullPool

from bgjobs import BackgroundJobs
from stage import NIGHTLY, Waiter, cold, nothing, row, stored, until

LATER = datetime(2100, 1, 1, 3, tzinfo=UTC)


@pytest.fixture(name="store", params=["sqlite", "postgresql", "redis"])
def _store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    """Opens the job store, which is empty at first."""
    if request.param == "sqlite":
        return lambda: stored(tmp_path)
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")
        return lambda: SQLAlchemyJobStore(url=url, engine_options={"poolclass": NullPool})
    server, name = request.getfixturevalue("redis_server"), f"bgjobs-{secrets.token_hex(4)}"
    return lambda: RedisJobStore(jobs_key=name, run_times_key=f"{name}-times", **server)


def change(store: Any, row_id: str, edit: Callable[[Any], object]) -> Any:
    """Change a row of a job store while nothing runs, as if time had passed. Returns it."""
    store.start(BackgroundScheduler(timezone="UTC"), "default")
    job = store.lookup_job(row_id)
    edit(job)
    store.update_job(job)
    store.shutdown()
    return job


def due_at(moment: datetime) -> Callable[[Any], object]:
    """Have a row be due then, parked or not."""

    def edit(job: Any) -> None:
        if "due" in job.kwargs:
            job.kwargs = {"due": moment}
        else:
            job.next_run_time = moment

    return edit


def process(store: Any, job: Callable[[], object]) -> tuple[Any, BackgroundJobs]:
    """What each process does: a scheduler on the job store, and three jobs."""
    scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": store})
    jobs = cold(scheduler).add_background_job(job, key="due", cron=NIGHTLY)
    jobs.add_background_job(nothing, key="later", cron=NIGHTLY)
    return scheduler, jobs.add_background_job(nothing, key="paused", cron=NIGHTLY)


@pytest.mark.parametrize("starts", ["warm-up", "owner"])
def test_a_restart_keeps_what_was_due(store: Callable[[], Any], starts: str, records: Any) -> None:
    """The next run is kept, the missed run is made once, paused stays paused; whoever starts the scheduler."""
    seen = Waiter()
    scheduler, jobs = process(store(), nothing)
    if starts == "owner":
        scheduler.start()
    with jobs:
        jobs.pause("paused")
    if starts == "owner":
        scheduler.shutdown()
    missed = datetime.now(UTC) - timedelta(days=2)
    change(store(), "bgjobs:due", due_at(missed))
    change(store(), "bgjobs:later", due_at(LATER))

    scheduler, jobs = process(store(), lambda: seen())
    if starts == "owner":
        scheduler.start()
    with jobs:
        seen.wait()
        until(lambda: row(jobs, "due").outcomes["succeeded"])
        assert row(jobs, "later").next_run_time == LATER
        assert scheduler.get_job("bgjobs:later").next_run_time == LATER
        assert row(jobs, "paused").paused
        assert scheduler.get_job("bgjobs:paused").next_run_time is None
        assert jobs.health()
    if starts == "owner":
        scheduler.shutdown()
    assert len(seen.seen) == 1
    assert row(jobs, "due").outcomes["succeeded"] == 1
    assert not [text for text in records.texts("WARNING") if "was skipped" in text]


def test_a_crash_before_the_scheduler_is_started_first(store: Callable[[], Any]) -> None:
    """A row that a killed process left runs before the warm-up, in vain; it is made up for."""
    seen = Waiter()
    scheduler, jobs = process(store(), nothing)
    with jobs:
        pass
    change(store(), "bgjobs:due", due_at(datetime.now(UTC) - timedelta(days=2)))
    heard = Waiter()
    scheduler, jobs = process(store(), lambda: seen())
    scheduler.add_listener(lambda _: heard(), EVENT_JOB_EXECUTED)
    scheduler.start()
    heard.wait()
    with jobs:
        seen.wait()
        heard.wait(2)
        assert scheduler.get_job("bgjobs:due").next_run_time > datetime.now(UTC)
    scheduler.shutdown()
    assert len(seen.seen) == 1


def test_a_run_that_came_due_for_the_second_facade_is_made_up_for(tmp_path: Path) -> None:
    """The second facade of a process can be the first one in the next, where its rows have another's name."""
    moment, seen, heard = datetime.now(UTC) - timedelta(days=2), Waiter(), Waiter()
    scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": stored(tmp_path)})
    with cold(scheduler), cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY):
        pass

    def crashed(job: Any) -> None:
        job.kwargs, job.next_run_time = {}, moment

    change(stored(tmp_path), "bgjobs:k", crashed)
    scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": stored(tmp_path)})
    scheduler.add_listener(lambda _: heard(), EVENT_JOB_EXECUTED)
    scheduler.start()
    heard.wait()
    with cold(scheduler).add_background_job(lambda: seen(), key="k", cron=NIGHTLY):
        seen.wait()
    scheduler.shutdown()


def test_a_damaged_row_is_replaced(store: Callable[[], Any], records: Any) -> None:
    """In every store; it is told once."""
    scheduler, jobs = process(store(), nothing)
    with jobs:
        pass

    def damage(job: Any) -> None:
        job.func_ref = "no:where"

    change(store(), "bgjobs:due", damage)
    scheduler, jobs = process(store(), nothing)
    with jobs:
        assert scheduler.get_job("bgjobs:due").next_run_time > datetime.now(UTC)
    (told,) = records.texts("WARNING")
    assert "the row 'bgjobs:due' of job store 'default' was damaged" in told
