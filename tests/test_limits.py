"""What takes longer than it may: handlers that hang, pools that are full, scopes that close slowly, long jitter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor as Pool
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apscheduler.executors.pool import BasePoolExecutor, ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from bgjobs import CronExpression
from stage import (
    LIMIT,
    NIGHTLY,
    Waiter,
    cold,
    counts,
    eventually,
    fail,
    job_class,
    nothing,
    now,
    often,
    row,
    stage,
    stored,
    until,
)


class TestHandlers:
    """`on_exception` has the timeout of its job, or sixty seconds."""

    def test_an_async_one_is_cancelled_at_its_limit(self, kind: str, colour: str, records: Any) -> None:
        """Its run ends then, with a record, and the next one can start."""
        cancelled = Waiter()

        class Hanging(job_class(colour, fail)):  # type: ignore[misc]
            async def on_exception(self, exception: Exception) -> None:
                try:
                    await asyncio.sleep(LIMIT)
                except asyncio.CancelledError:
                    cancelled()
                    raise

        with stage(kind, lambda jobs: jobs.add_background_job(Hanging, key="k", trigger=often(), timeout=0.05)):
            cancelled.wait(2)
        assert "on_exception of job 'k' was cancelled: TimeoutError" in "\n".join(records.texts("ERROR"))

    def test_a_sync_one_is_named_in_a_warning_and_in_health(self, kind: str, colour: str, records: Any) -> None:
        """A thread cannot be cancelled; when it ends after all, the jobs are healthy again."""
        release = threading.Event()
        hanging = job_class("sync", fail, lambda *_: release.wait(LIMIT))
        if colour == "async":
            hanging = type("Hanging", (job_class("async", fail),), {"on_exception": hanging.on_exception})
        with stage(kind, lambda jobs: jobs.add_background_job(hanging, key="k", trigger=now(), timeout=0.01)) as jobs:
            try:
                until(lambda: any("on_exception of job 'k' does not end" in text for text in jobs.health().problems))
                until(lambda: "on_exception of job 'k' has not ended within 0.01 s" in records.texts("WARNING"))
            finally:
                release.set()
            until(jobs.health)

    def test_one_that_raises_a_timeout_of_its_own_is_not_called_cancelled(self, records: Any) -> None:
        """It raised, and the log says so."""

        async def handle(_: Exception) -> None:
            raise TimeoutError("a timeout of mine")

        with cold().add_background_job(fail, key="k", on_exception=handle, trigger=now()):
            until(lambda: records.texts("ERROR")[1:])
        assert "on_exception of job 'k' raised TimeoutError: a timeout of mine" in records.texts("ERROR")

    def test_without_a_timeout_it_has_sixty_seconds(self, waits: Any, records: Any) -> None:
        """Here it has less."""
        assert waits.handler == 60
        waits.handler = 0.01

        async def hang(_: Exception) -> None:
            await asyncio.sleep(LIMIT)

        with cold().add_background_job(fail, key="k", on_exception=hang, trigger=now()):
            until(lambda: any("was cancelled" in text for text in records.texts("ERROR")))


class TestFullPools:
    """A job that gets no thread is a problem, and is not said to overlap itself."""

    def test_waiting_for_a_thread_is_a_problem(self, waits: Any, records: Any) -> None:
        """Health says so until the job has begun, however many of its occurrences are skipped meanwhile."""
        waits.overdue = 0.2
        release, begun = threading.Event(), threading.Event()
        jobs = cold(BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)}))
        jobs.add_background_job(lambda: release.wait(LIMIT), key="blocks", trigger=now())
        jobs.add_background_job(begun.set, key="waits", trigger=often())
        with jobs:
            try:
                until(lambda: any("job 'waits' has waited" in text for text in jobs.health().problems))
                until(lambda: row(jobs, "waits").not_run["overlapped"])
                assert any("no thread is free" in text for text in records.texts("WARNING"))
                assert not begun.is_set()
            finally:
                release.set()
            assert begun.wait(LIMIT)
            until(jobs.health)


def test_a_job_that_is_always_refused_is_a_problem(waits: Any) -> None:
    """Health says so until it starts again, though each of its occurrences has its reason."""
    waits.overdue = 0.2
    refusing = threading.Event()

    class Threads(Pool):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            if refusing.is_set():
                raise RuntimeError("can't start new thread")
            return super().submit(fn, *args, **kwargs)

    class Executor(BasePoolExecutor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(Threads(2))

    jobs = cold(BackgroundScheduler(timezone="UTC", executors={"default": Executor()}))
    with jobs.add_background_job(nothing, key="k", trigger=often()):
        until(lambda: row(jobs, "k").outcomes["succeeded"])
        refusing.set()
        until(lambda: "job 'k' does not start: its executor takes no more work" in jobs.health().problems)
        refusing.clear()
        until(jobs.health)


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_the_overlap_guard_ends_with_the_action(kind: str, colour: str, outcome: str, records: Any) -> None:
    """A scope that takes long to close holds no further run back."""
    begun = Waiter()

    def act(*_: object) -> None:
        begun()
        if outcome == "failed":
            raise ValueError("boom")

    @contextmanager
    def slow(job_type: type[Any]) -> Generator[Any]:
        try:
            yield job_type()
        finally:
            begun.wait(2)  # or raises

    @asynccontextmanager
    async def slow_async(job_type: type[Any]) -> AsyncGenerator[Any]:
        try:
            yield job_type()
        finally:
            await eventually(lambda: len(begun.seen) >= 2)  # or raises

    job, scope = job_class(colour, act), slow if colour == "sync" else slow_async
    with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=often()), resolver=scope) as jobs:
        until(lambda: row(jobs, "k").outcomes[outcome] >= 3)
        assert counts(jobs, "k").keys() <= {outcome, "overlapped"}
    assert not [text for text in records.texts("ERROR") if "the scope" in text]


class TestJitter:
    """A random delay of each fire time, which loses none of them."""

    def test_it_never_reaches_the_next_fire_time(self) -> None:
        """However long it is, each fire time is there, once."""
        trigger = CronExpression("* * * * * *").trigger("UTC", jitter=3600)
        begin = datetime(2026, 1, 1, tzinfo=UTC)
        found = [trigger.get_next_fire_time(None, begin) or begin]
        while len(found) < 100:
            found.append(trigger.get_next_fire_time(found[-1], found[-1]) or begin)
        assert [m.replace(microsecond=0) for m in found] == [begin + timedelta(seconds=n) for n in range(100)]
        assert len({m.microsecond for m in found}) > 90

    def test_nothing_is_called_coalesced_because_of_it(self) -> None:
        """A fire time that is late by its jitter has left none out before it."""
        seen = Waiter()
        with cold().add_background_job(lambda: seen(), key="k", cron="* * * * * *", jitter=5) as jobs:
            seen.wait(3)
        assert counts(jobs, "k").keys() == {"succeeded"}

    def test_status_shows_the_time_that_a_persistent_store_holds(self, tmp_path: Path) -> None:
        """From the warm-up on, and after a run."""
        seen, scheduler = Waiter(), BackgroundScheduler(timezone="UTC", jobstores={"default": stored(tmp_path)})
        jobs = cold(scheduler).add_background_job(nothing, key="daily", cron=NIGHTLY, jitter=3600)
        jobs.add_background_job(lambda: seen(), key="often", cron="*/2 * * * * *", jitter=1)

        def agree(key: str) -> bool:
            return bool(row(jobs, key).next_run_time == scheduler.get_job(f"bgjobs:{key}").next_run_time)

        with jobs:
            until(lambda: agree("daily"))
            until(lambda: agree("often"))
            seen.wait()
            until(lambda: agree("often"))
            jobs.pause("daily")
            assert row(jobs, "daily").next_run_time is None
            jobs.resume("daily")
            assert agree("daily")
