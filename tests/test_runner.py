"""Who owns a run, when the scheduler, the event loop or the owner goes away in the middle of it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler

from bgjobs import BackgroundJobs, Cancelled, Skipped
from bgjobs._runs.calls import drive
from bgjobs._runs.threads import LoopThread, in_daemon_thread, wait_in_thread, waits
from stage import LIMIT, NIGHTLY, Waiter, cold, event_loop_in_a_thread, now, until, warm

FIRE_TIME = datetime(2030, 1, 1, tzinfo=UTC)


@contextmanager
def sync_scope(job_type: type[Any]) -> Generator[Any]:
    yield job_type()


@asynccontextmanager
async def async_scope(job_type: type[Any]) -> AsyncGenerator[Any]:
    yield job_type()


def runner_of(jobs: BackgroundJobs) -> Any:
    return jobs._lifecycle.runner


class TestTheOwnersShutdown:
    """Somebody else's asyncio scheduler is shut down by its owner while our jobs are running."""

    @pytest.fixture(name="scheduler")
    async def _scheduler(self) -> AsyncIOScheduler:
        scheduler = AsyncIOScheduler(timezone="UTC")
        scheduler.start()
        return scheduler

    async def test_a_sync_job_that_raises_afterwards_is_still_handled(
        self, scheduler: AsyncIOScheduler, records: Any
    ) -> None:
        """Without an event, the failure is logged with its traceback, and ``on_exception`` called."""
        seen, started, release = Waiter(), threading.Event(), threading.Event()

        class Slow:
            def action_to_do(self) -> None:
                started.set()
                release.wait(LIMIT)
                raise ValueError("late")

            def on_exception(self, exception: Exception) -> None:
                seen(repr(exception))

        jobs = cold(scheduler, resolver=sync_scope).add_background_job(Slow, trigger=now()).warm_up()
        await asyncio.to_thread(started.wait, LIMIT)
        scheduler.shutdown()
        await asyncio.sleep(0.01)
        release.set()
        assert await asyncio.to_thread(seen.wait) == ["ValueError('late')"]
        (failure,) = [r for r in records if r["level"].name == "ERROR"]
        assert failure["exception"].type is ValueError
        await jobs.aclose()

    @pytest.mark.parametrize("resolver", [None, sync_scope, async_scope])
    async def test_a_coroutine_is_cancelled(self, scheduler: AsyncIOScheduler, resolver: Any, records: Any) -> None:
        """APScheduler cancels it; that is no failure, and the scope is closed."""
        seen = Waiter()

        class Slow:
            async def action_to_do(self) -> None:
                seen("started")
                try:
                    await asyncio.Event().wait()
                finally:
                    seen("ended")

        jobs = cold(scheduler, resolver=resolver).add_background_job(Slow, trigger=now()).warm_up()
        await asyncio.to_thread(seen.wait)
        scheduler.shutdown()
        await asyncio.to_thread(seen.wait, 2)
        await jobs.aclose()
        assert records.texts("WARNING") == ["job 'Slow' was cancelled"]
        assert records.texts("ERROR") == []

    async def test_closing_after_it_is_quiet(self, scheduler: AsyncIOScheduler, records: Any) -> None:
        """There is nothing left to take off."""
        jobs = cold(scheduler).add_background_job(lambda: None, key="k", cron=NIGHTLY).warm_up()
        scheduler.shutdown()
        await asyncio.sleep(0.01)
        await jobs.aclose()
        assert records.texts("WARNING") == []


def test_a_scheduler_of_ours_that_somebody_shut_down_is_let_go(records: Any) -> None:
    """Closing after a shutdown from outside does nothing more."""
    scheduler = BackgroundScheduler(timezone="UTC")
    jobs = cold(scheduler).add_background_job(lambda: None, key="k", cron=NIGHTLY).warm_up()
    scheduler.shutdown()
    jobs.close()
    assert not jobs.is_warm


def test_without_an_event_the_handler_is_called_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that is gone, taken off by somebody, costs time but loses no ``on_exception``."""
    monkeypatch.setattr(waits, "report", 0.05)
    seen = Waiter()

    async def fail() -> None:
        raise ValueError("async")

    def sync_fail() -> None:
        raise ValueError("sync")

    class Scoped:
        async def action_to_do(self) -> None:
            raise ValueError("scoped")

        def on_exception(self, exception: Exception) -> None:
            seen(str(exception))

    scheduler = AsyncIOScheduler(timezone="UTC")
    jobs = cold(scheduler, resolver=async_scope)
    with warm("asyncio", jobs):
        scheduler._listeners.clear()
        for job in (fail, sync_fail):
            jobs.add_background_job(job, trigger=now(), on_exception=lambda exc: seen(str(exc)))
        jobs.add_background_job(Scoped, trigger=now())
        assert sorted(seen.wait(3)) == ["async", "scoped", "sync"]


def test_a_run_that_was_queued_when_the_jobs_are_closed_is_skipped(records: Any) -> None:
    """It comes to its turn during the drain, and is told that it is too late."""
    started = threading.Event()
    scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})

    def hog(cancellation_token: Any) -> None:
        started.set()
        cancellation_token.wait(LIMIT)

    jobs = cold(scheduler).add_background_job(hog, trigger=now())
    with jobs:
        assert started.wait(LIMIT)
        jobs.add_background_job(lambda: None, key="queued", trigger=now())
        until(lambda: scheduler.get_job("bgjobs:queued") is None)
    until(lambda: records.texts("WARNING"))
    assert "job 'queued' scheduled at" in records.texts("WARNING")[0]
    assert "was skipped: the jobs are being closed" in records.texts("WARNING")[0]


def test_warming_up_while_closing_is_refused() -> None:
    """The two exclude each other; the error says to wait."""
    started, refused = threading.Event(), Waiter()
    jobs = cold()

    def slow(cancellation_token: Any) -> None:
        started.set()
        cancellation_token.wait(LIMIT)
        try:
            jobs.warm_up()
        except RuntimeError as exc:
            refused(str(exc))

    jobs.add_background_job(slow, trigger=now())
    with jobs:
        assert started.wait(LIMIT)
    assert refused.seen == ["these jobs are just being warmed up or closed; wait for that to end"]


class TestTasksThatNeverBegan:
    """An event loop that goes away can cancel the owner of a run before its first step."""

    class Job:
        async def action_to_do(self) -> None:
            raise AssertionError("it never runs")

    async def test_on_asyncio(self) -> None:
        """The run is told as cancelled, and forgotten."""
        async with cold(resolver=async_scope).add_background_job(self.Job, key="k", cron=NIGHTLY) as jobs:
            loop = asyncio.get_running_loop()

            def cancel() -> None:
                (run,) = jobs._lifecycle.ledger._live
                run.task.cancel()  # type: ignore[union-attr]

            task = loop.create_task(runner_of(jobs).fire_async("k", "scheduled", FIRE_TIME))
            loop.call_soon(loop.call_soon, cancel)
            assert await task == Cancelled()
            assert jobs._lifecycle.ledger._live == set()

    def test_on_threads(self) -> None:
        """The worker that waits for it is let go."""
        queued, results = threading.Event(), []

        class Loop(asyncio.SelectorEventLoop):
            def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:  # type: ignore[override]
                handle = super().call_soon_threadsafe(*args, **kwargs)
                queued.set()
                return handle

        jobs, loop = cold().add_background_job(self.Job, key="k", cron=NIGHTLY), Loop()
        ledger, runner = jobs._lifecycle.ledger, runner_of(jobs)
        runner._get_loop = lambda: loop
        worker = threading.Thread(target=lambda: results.append(runner.fire("k", "scheduled", FIRE_TIME)))
        worker.start()
        assert queued.wait(LIMIT)
        loop.call_soon(lambda: [run.task.cancel() for run in ledger._live if run.task])
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        worker.join(LIMIT)
        loop.close()
        assert results == [Cancelled()]
        assert ledger._live == set()


async def test_a_resolver_that_gives_an_async_scope_too_late_is_let_go() -> None:
    """When the run was cancelled before the scope was there, nothing is entered and nothing is left."""
    release, asked = threading.Event(), threading.Event()

    class Job:
        def action_to_do(self) -> None:
            raise AssertionError("it never runs")

    def resolver(job_type: type[Any]) -> Any:
        asked.set()
        release.wait(LIMIT)
        return async_scope(job_type)

    async with cold(resolver=resolver).add_background_job(Job, key="k", cron=NIGHTLY) as jobs:
        task = asyncio.create_task(runner_of(jobs).fire_async("k", "scheduled", FIRE_TIME))
        await asyncio.to_thread(asked.wait, LIMIT)
        task.cancel()
        assert await task == Cancelled()
        release.set()
        await asyncio.to_thread(until, lambda: not jobs._lifecycle.ledger._live)


async def test_a_cancelled_wait_takes_a_result_that_is_there() -> None:
    """When the owner reports at the moment of the cancellation, what it reports counts."""
    result = Waiter()

    class Job:
        async def action_to_do(self) -> int:
            return 42

    async with cold(resolver=async_scope).add_background_job(Job, key="k", cron=NIGHTLY) as jobs:
        task = asyncio.create_task(runner_of(jobs).fire_async("k", "scheduled", FIRE_TIME))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (run,) = jobs._lifecycle.ledger._live
        assert run.task is not None
        run.task.add_done_callback(lambda _: task.cancel())
        result((await task).value)
    assert result.seen == [42]


def test_a_run_whose_loop_was_closed_is_forgotten() -> None:
    """A coroutine that is thrown away with its loop leaves the key free."""
    started = []

    async def endless() -> None:
        started.append(1)
        await asyncio.Event().wait()

    jobs = cold().add_background_job(endless, key="k", cron=NIGHTLY)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # asyncio complains of the task that is destroyed
    task = loop.create_task(runner_of(jobs).fire_async("k", "scheduled", FIRE_TIME))
    while not started:
        loop.run_until_complete(asyncio.sleep(0))
    assert isinstance(runner_of(jobs).ledger.begin("k", "scheduled", FIRE_TIME), Skipped)
    loop.close()
    del task
    jobs._lifecycle.ledger._live.clear()
    for run in jobs._lifecycle.ledger.jobs["k"].running:
        run.task = None
    gc.collect()
    assert jobs._lifecycle.ledger.jobs["k"].running == []


class TestTheFacadesLoop:
    def test_it_starts_at_its_first_use_and_again_after_a_stop(self) -> None:
        """Stopping what never started does nothing; a stopped one starts anew."""
        loops = LoopThread()
        loops.stop()
        first = loops.get()
        assert loops.get() is first
        loops.stop()
        assert first.is_closed()
        second = loops.get()
        assert second is not first
        loops.stop()

    def test_what_is_left_in_it_is_cancelled(self) -> None:
        """Stopping ends the tasks that are still there."""
        loops = LoopThread()
        future = asyncio.run_coroutine_threadsafe(asyncio.Event().wait(), loops.get())
        loops.stop()
        assert future.cancelled()

    def test_waiting_in_a_thread_hands_results_and_errors_on(self) -> None:
        """Both come through to the thread that waits."""

        async def fail() -> None:
            raise ValueError("no")

        with event_loop_in_a_thread() as loop:
            assert wait_in_thread(asyncio.sleep(0, "yes"), loop) == "yes"
            with pytest.raises(ValueError, match="no"):
                wait_in_thread(fail(), loop)

    async def test_a_thread_of_its_own_hands_results_and_errors_on(self) -> None:
        """Both come through to the coroutine that awaits."""
        assert await in_daemon_thread(lambda: 1) == 1
        with pytest.raises(ZeroDivisionError):
            await in_daemon_thread(lambda: 1 // 0)


def test_what_a_thread_owns_must_not_suspend() -> None:
    """If a change ever makes one half of a run suspend in a thread, it fails loudly."""
    with pytest.raises(AssertionError, match="must block, not suspend"):
        drive(asyncio.sleep(0))


def test_a_run_that_cannot_begin_leaves_its_key_free() -> None:
    """When there is no event loop to be had, the error goes to APScheduler, and the next run may begin."""

    async def job() -> None: ...

    def no_loop() -> asyncio.AbstractEventLoop:
        raise RuntimeError("no loop")

    jobs = cold().add_background_job(job, key="k", cron=NIGHTLY)
    runner_of(jobs)._get_loop = no_loop
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no loop"):
            runner_of(jobs).fire("k", "a run", FIRE_TIME)


def test_a_run_that_slips_in_at_the_moment_of_the_close_is_asked_to_end() -> None:
    """The drain may have looked a moment before; the run is told all the same."""
    jobs = cold().add_background_job(lambda: None, key="k", cron=NIGHTLY)
    ledger = jobs._lifecycle.ledger

    class Live(set[Any]):
        def add(self, run: Any) -> None:
            super().add(run)
            ledger._closing = True

    ledger._live = Live()
    run = ledger.begin("k", "a run", FIRE_TIME)
    assert not isinstance(run, Skipped)
    assert run.token.is_cancellation_requested


async def test_a_coroutine_that_is_cancelled_while_its_owner_reports_is_left_alone() -> None:
    """A task that was told to stop waiting still settles its failed run by itself."""
    seen = Waiter()

    class Job:
        async def action_to_do(self) -> None:
            seen("started")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ValueError("on the way out") from None

        def on_exception(self, exception: Exception) -> None:
            seen(str(exception))

    async with cold(resolver=async_scope).add_background_job(Job, key="k", cron=NIGHTLY) as jobs:
        task = asyncio.create_task(runner_of(jobs).fire_async("k", "scheduled", FIRE_TIME))
        await asyncio.to_thread(seen.wait)
        task.cancel()
        assert await task == Cancelled()
        assert await asyncio.to_thread(seen.wait, 2) == ["started", "on the way out"]
