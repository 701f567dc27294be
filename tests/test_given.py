"""Schedulers that are given to bgjobs: which it refuses, and how they survive while its jobs are warm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.schedulers.gevent import GeventScheduler

from bgjobs import ConfigurationError
from stage import CLASSES, NIGHTLY, Times, Waiter, cold, eventually, nothing, often, warm


class Faulty(MemoryJobStore):  # type: ignore[misc]
    """A job store one method of which raises, once; the scheduler tries again soon after that."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self._method: str | None = method

    def start(self, scheduler: Any, alias: str) -> None:
        scheduler.jobstore_retry_interval = 0.05
        super().start(scheduler, alias)

    def update_job(self, job: Any) -> None:
        self._fail("update_job")
        super().update_job(job)

    def get_next_run_time(self) -> Any:
        self._fail("get_next_run_time")
        return super().get_next_run_time()

    def _fail(self, method: str) -> None:
        if method == self._method:
            self._method = None
            raise OSError("connection lost")


@pytest.mark.parametrize("method", ["update_job", "get_next_run_time"])
def test_it_survives_what_a_job_store_raises(kind: str, method: str, records: Any) -> None:
    """The error is logged, and the jobs of bgjobs and of everybody else go on."""
    ours, others = Waiter(), Waiter()
    scheduler = CLASSES[kind](timezone="UTC", jobstores={"default": Faulty(method)})
    scheduler.add_job(others, often(), max_instances=9)
    jobs = cold(scheduler).add_background_job(lambda: ours(), key="k", trigger=often(), max_instances=9)
    with warm(kind, jobs):
        ours.wait(3)
        others.wait(3)
    assert "tries again in 0.05 s: OSError: connection lost" in records.texts("ERROR")[0]


def test_it_is_as_before_when_the_jobs_are_closed() -> None:
    """Nothing of bgjobs stays on the scheduler; what its owner has put there does."""
    scheduler = BackgroundScheduler(timezone="UTC")
    before = dict(vars(scheduler))
    passes: Callable[[], float | None] = scheduler._process_jobs
    with cold(scheduler).add_background_job(nothing, cron=NIGHTLY):
        assert vars(scheduler).keys() > before.keys()
    assert "_process_jobs" not in vars(scheduler)
    scheduler._process_jobs = passes
    with cold(scheduler).add_background_job(nothing, cron=NIGHTLY):
        assert scheduler._process_jobs is not passes
    assert scheduler._process_jobs is passes


async def test_one_that_had_stopped_before_is_woken_up() -> None:
    """An asyncio scheduler whose timer was lost to an error runs jobs again after a warm-up."""
    stopped, seen = Waiter(), Waiter()

    class Failing(MemoryJobStore):  # type: ignore[misc]
        def get_next_run_time(self) -> Any:
            if seen.seen:
                raise OSError("connection lost")
            return super().get_next_run_time()

    asyncio.get_running_loop().set_exception_handler(lambda *_: stopped())
    scheduler = AsyncIOScheduler(timezone="UTC", jobstores={"default": Failing()})
    scheduler.start()
    moment = datetime.now(UTC)
    scheduler.add_job(seen, Times(*(moment + timedelta(seconds=0.1 * n) for n in range(3))), max_instances=9)
    await eventually(lambda: stopped.seen)
    first = len(seen.seen)
    seen.seen.clear()
    async with cold(scheduler):
        await eventually(lambda: seen.seen)
    assert first < 3
    scheduler.shutdown()


def test_it_looks_at_its_job_stores_again_and_again(kind: str, waits: Any) -> None:
    """However far the next run is, no sleep is longer than thirty seconds (here less): a clock may have been set."""
    looked = Waiter()

    class Watched(MemoryJobStore):  # type: ignore[misc]
        def get_due_jobs(self, moment: datetime) -> Any:
            looked()
            return super().get_due_jobs(moment)

    assert waits.sleep == 30
    waits.sleep = 0.01
    scheduler = CLASSES[kind](timezone="UTC", jobstores={"default": Watched()})
    with warm(kind, cold(scheduler).add_background_job(nothing, cron=NIGHTLY)):
        looked.wait(9)


class OtherScheduler(BaseScheduler):  # type: ignore[misc]
    """A scheduler of another kind, as those for Tornado, Twisted and Qt."""

    def shutdown(self, wait: bool = True) -> None: ...

    def wakeup(self) -> None: ...


@pytest.mark.parametrize("kind", [GeventScheduler, OtherScheduler])
def test_a_scheduler_of_another_kind_is_refused(kind: type[Any]) -> None:
    """The one of gevent is a `BlockingScheduler` by inheritance only; the error names what can stand beside each."""
    with pytest.raises(ConfigurationError, match="can have a BackgroundScheduler beside it"):
        cold(kind())


def test_what_is_no_error_ends_a_blocking_scheduler() -> None:
    """A `SystemExit` from a job store comes through; the jobs are warm until they are closed."""

    class Leaving(MemoryJobStore):  # type: ignore[misc]
        def update_job(self, job: Any) -> None:
            raise SystemExit(3)

    scheduler = CLASSES["blocking"](timezone="UTC", jobstores={"default": Leaving()})
    jobs = cold(scheduler).add_background_job(nothing, trigger=often())
    with pytest.raises(SystemExit):
        jobs.warm_up()
    assert jobs.is_warm
    jobs.close()
    assert not jobs.is_warm


def test_it_goes_on_when_its_owner_starts_it_again() -> None:
    """The facade that had started it stops it; after a new start it runs jobs, while another facade is warm on it."""
    scheduler, seen = CLASSES["background"](timezone="UTC"), Waiter()
    first = cold(scheduler).add_background_job(nothing, key="first", cron=NIGHTLY).warm_up()
    second = cold(scheduler).add_background_job(nothing, key="second", cron=NIGHTLY).warm_up()
    first.close()
    assert second.health().problems == ("the scheduler is not running",)
    scheduler.remove_executor("default")  # whose threads have ended
    scheduler.add_executor(ThreadPoolExecutor(2))
    scheduler.start()
    scheduler.add_job(seen, often(), max_instances=9)
    seen.wait(2)
    second.close()
    seen.wait(len(seen.seen) + 2)
    scheduler.shutdown()


def test_one_whose_event_loop_is_closed_is_refused_whole() -> None:
    """It says that it is running, but nobody can wake it up; the jobs are cold after the error."""
    scheduler = AsyncIOScheduler(timezone="UTC")

    async def start() -> None:
        scheduler.start()

    asyncio.run(start())
    jobs = cold(scheduler).add_background_job(nothing, cron=NIGHTLY)

    async def warm_up() -> None:
        with pytest.raises(RuntimeError, match="closed"):
            jobs.warm_up()

    asyncio.run(warm_up())
    assert not jobs.is_warm
    assert "_process_jobs" not in vars(scheduler)
