"""Closing: no new run begins, the running ones end or are named, and what waits is taken back with a reason."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor as Pool
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_SUBMITTED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.blocking import BlockingScheduler

from bgjobs import BackgroundJobs, CancellationToken, LifecycleError
from stage import (
    CLASSES,
    LIMIT,
    NIGHTLY,
    Waiter,
    async_scope,
    cold,
    counts,
    eventually,
    left_behind,
    nothing,
    now,
    often,
    row,
    stage,
    sync_scope,
    until,
    warm,
)


class TestClosing:
    def test_closed_jobs_can_be_warmed_up_again(self, kind: str) -> None:
        """On the same scheduler, in a new event loop or thread, they run as before."""
        seen = Waiter()
        jobs = cold(CLASSES[kind](timezone="UTC")).add_background_job(
            lambda: seen(), key="k", cron=NIGHTLY, run_immediately=True
        )
        for times in (1, 2, 3):
            with warm(kind, jobs):
                seen.wait(times)
            assert not jobs.is_warm

    def test_a_scheduler_of_our_own_is_made_anew(self) -> None:
        """Without a scheduler, background and asyncio may take turns."""
        seen = Waiter()
        jobs = cold().add_background_job(lambda: seen(), key="k", cron=NIGHTLY, run_immediately=True)
        with jobs:
            seen.wait(1)

        async def in_a_loop() -> None:
            async with jobs:
                await asyncio.to_thread(seen.wait, 2)

        asyncio.run(in_a_loop())

    def test_running_jobs_are_awaited(self, kind: str) -> None:
        """`close` comes back when the run is over, its handler and scope included."""
        seen, started = Waiter(), threading.Event()

        class Job:
            async def action_to_do(self, cancellation_token: CancellationToken) -> None:
                started.set()
                await cancellation_token.wait_async()
                raise ValueError("in the middle of it")

            async def on_exception(self, exception: Exception) -> None:
                await asyncio.sleep(0.05)
                seen("handled")

        with stage(kind, lambda jobs: jobs.add_background_job(Job, trigger=now())):
            assert started.wait(LIMIT)
        assert seen.seen == ["handled"]

    def test_a_coroutine_that_does_not_heed_is_cancelled(self, kind: str, records: Any) -> None:
        """After `shutdown_timeout` it is cancelled, and the close waits until it has ended."""
        seen, started = Waiter(), threading.Event()

        async def deaf() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)
                seen("ended")

        with stage(kind, lambda jobs: jobs.add_background_job(deaf, trigger=now()), shutdown_timeout=0.05):
            assert started.wait(LIMIT)
        assert seen.seen == ["ended"]
        assert records.texts("WARNING") == ["job 'deaf' was cancelled"]

    def test_a_thread_that_does_not_heed_is_left_behind(self, kind: str, records: Any, waits: Any) -> None:
        """It is named in a warning; when it fails later on, the failure is still logged and handled."""
        waits.cancelled = 0.05
        seen, started, release = Waiter(), threading.Event(), threading.Event()

        def deaf() -> None:
            started.set()
            release.wait(LIMIT)
            raise ValueError("too late")

        def register(jobs: BackgroundJobs) -> None:
            jobs.add_background_job(deaf, trigger=now(), on_exception=lambda exc: seen(repr(exc)))

        with stage(kind, register, shutdown_timeout=0.05) as jobs:
            assert started.wait(LIMIT)
            jobs.close()
            assert records.texts("WARNING") == ["job 'deaf' did not end within the shutdown_timeout and was abandoned"]
            release.set()
            assert seen.wait() == ["ValueError('too late')"]
        assert records.texts("ERROR") == ["job 'deaf' failed: ValueError: too late"]

    def test_no_run_begins_while_closing(self, kind: str) -> None:
        """Ticks of a job during the drain make no run."""
        seen, started, release = Waiter(), threading.Event(), threading.Event()

        def slow(cancellation_token: CancellationToken) -> None:
            started.set()
            cancellation_token.wait(LIMIT)
            seen("asked")
            release.wait(0.3)

        def register(jobs: BackgroundJobs) -> None:
            jobs.add_background_job(slow, trigger=now())
            jobs.add_background_job(lambda: seen("tick") if "asked" in seen.seen else None, key="k", trigger=often())

        with stage(kind, register):
            assert started.wait(LIMIT)
        assert seen.seen == ["asked"]

    def test_a_job_that_is_registered_meanwhile_waits_for_the_next_warm_up(self) -> None:
        """It is kept, and not scheduled on what is being closed."""
        seen, started = Waiter(), threading.Event()
        scheduler = BackgroundScheduler(timezone="UTC")
        scheduler.start()
        jobs = cold(scheduler)

        def slow(cancellation_token: CancellationToken) -> None:
            started.set()
            cancellation_token.wait(LIMIT)
            jobs.add_background_job(lambda: seen(), key="late", cron=NIGHTLY, run_immediately=True)

        jobs.add_background_job(slow, key="slow", cron=NIGHTLY).warm_up().run_now("slow")
        assert started.wait(LIMIT)
        jobs.close()
        assert scheduler.get_jobs() == []
        assert seen.seen == []
        with jobs:
            seen.wait()
        scheduler.shutdown()

    def test_tasks_that_a_job_left_in_our_event_loop_are_cancelled(self) -> None:
        """The event loop of a thread scheduler ends with the close, and another warm-up has another one."""
        seen, kept = Waiter(), []

        async def linger() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                seen("cancelled")

        async def job() -> None:
            kept.append(asyncio.create_task(linger()))
            await asyncio.sleep(0)
            seen(asyncio.get_running_loop())

        jobs = cold().add_background_job(job, cron=NIGHTLY, run_immediately=True)
        for events in (1, 3):
            with jobs:
                seen.wait(events)
        first, _, second, _ = seen.wait(4)
        assert [event for event in seen.seen if event == "cancelled"] == ["cancelled"] * 2
        assert first is not second
        assert first.is_closed()

    async def test_close_in_an_event_loop_is_refused(self) -> None:
        """It names `aclose`."""
        async with cold() as jobs:
            with pytest.raises(LifecycleError, match=r"use `await jobs.aclose\(\)`"):
                jobs.close()

    async def test_the_sync_context_manager_in_an_event_loop_is_refused(self) -> None:
        """``with`` in a coroutine names ``async with``, before anything is started."""
        jobs = cold()
        with pytest.raises(LifecycleError, match="use `async with jobs:`"), jobs:
            raise AssertionError("never entered")
        assert not jobs.is_warm

    def test_context_managers_refuse_a_blocking_scheduler(self) -> None:
        """``with`` would never reach its body."""
        jobs = cold(BlockingScheduler())
        with pytest.raises(LifecycleError, match="call that, not `with`"), jobs:
            raise AssertionError("never entered")

        async def enter() -> None:
            async with jobs:
                raise AssertionError("never entered")

        with pytest.raises(LifecycleError, match="would block the event loop"):
            asyncio.run(enter())

    async def test_aclose_serves_every_scheduler(self) -> None:
        """A background scheduler in an async application is closed without blocking the loop."""
        seen = Waiter()
        jobs = cold(BackgroundScheduler(timezone="UTC")).add_background_job(lambda: seen(), key="k", trigger=now())
        async with jobs:
            await asyncio.to_thread(seen.wait)
        assert not jobs.is_warm

    def test_closing_twice_and_closing_what_is_cold_does_nothing(self) -> None:
        """Neither is an error."""
        jobs = cold()
        jobs.close()
        jobs.warm_up().close()
        jobs.close()
        asyncio.run(jobs.aclose())
        assert not jobs.is_warm

    @pytest.mark.parametrize("colour", ["sync", "async"])
    def test_from_inside_a_job_it_is_only_requested(self, kind: str, colour: str) -> None:
        """The job goes on to its end, and the jobs are closed after that."""
        seen = Waiter()
        jobs = cold(CLASSES[kind](timezone="UTC"))

        async def aclosing() -> None:
            await jobs.aclose()
            seen("went on")

        def closing() -> None:
            jobs.close()
            seen("went on")

        jobs.add_background_job(closing if colour == "sync" else aclosing, key="k", trigger=now())
        with warm(kind, jobs):
            seen.wait()
            until(lambda: not jobs.is_warm)

    def test_a_scheduler_that_its_loop_left_behind_is_closed_all_the_same(self) -> None:
        """After an ``asyncio.run`` that ended without `aclose`, closing cleans up and another warm-up works."""
        seen = Waiter()
        jobs = cold(AsyncIOScheduler(timezone="UTC"))
        jobs.add_background_job(lambda: seen(), key="k", cron=NIGHTLY, run_immediately=True)

        async def forget_to_close() -> None:
            jobs.warm_up()
            await asyncio.to_thread(seen.wait)

        asyncio.run(forget_to_close())
        jobs.close()
        with warm("asyncio", jobs):
            seen.wait(2)

    async def test_lifespan_takes_the_application_or_nothing(self) -> None:
        """The same method fits frameworks that pass the application and those that do not."""
        jobs = cold()
        async with jobs.lifespan(object()):
            assert jobs.is_warm
        async with jobs.lifespan():
            assert jobs.is_warm
        assert not jobs.is_warm

    def test_a_scheduler_of_ours_that_somebody_shut_down_is_let_go(self, records: Any) -> None:
        """Closing after a shutdown from outside does nothing more."""
        scheduler = BackgroundScheduler(timezone="UTC")
        jobs = cold(scheduler).add_background_job(lambda: None, key="k", cron=NIGHTLY).warm_up()
        scheduler.shutdown()
        jobs.close()
        assert not jobs.is_warm

    def test_closing_where_no_thread_can_be_started(self, monkeypatch: Any) -> None:
        """As at the exit of an interpreter of Python 3.12: all of it is done in the thread that asks for it."""
        jobs = cold(BackgroundScheduler(timezone="UTC")).add_background_job(nothing, key="k", cron=NIGHTLY)
        jobs.warm_up()

        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

        monkeypatch.setattr(threading.Thread, "start", start)
        jobs.close()
        assert not jobs.is_warm


class TestRunningJobs:
    """What becomes of the runs that are in progress."""

    def test_a_run_that_outlived_a_close_is_settled_after_the_next_warm_up(self, waits: Any) -> None:
        """Its failure is nobody's event any more; its handler is called all the same."""
        waits.cancelled = 0.05
        seen, started, release = Waiter(), threading.Event(), threading.Event()

        class Job:
            def action_to_do(self) -> None:
                started.set()
                release.wait(LIMIT)
                raise ValueError("late")

            def on_exception(self, exception: Exception) -> None:
                seen(str(exception))

        jobs = cold(shutdown_timeout=0.05).add_background_job(Job, cron=NIGHTLY).warm_up()
        jobs.run_now("Job")
        assert started.wait(LIMIT)
        jobs.close()
        with jobs:
            release.set()
            assert seen.wait() == ["late"]
        assert (row(jobs, "Job").running, counts(jobs, "Job")) == (0, {"failed": 1})

    async def test_a_drain_during_the_closing_of_a_scope_is_a_cancellation(self, records: Any) -> None:
        """A run whose action was done is not called failed because its scope was slow."""
        closing = asyncio.Event()

        @asynccontextmanager
        async def slow_scope(job_type: type[Any]) -> AsyncGenerator[Any]:
            yield job_type()
            closing.set()
            await asyncio.Event().wait()

        class Job:
            async def action_to_do(self) -> None: ...

        async with cold(resolver=slow_scope, shutdown_timeout=0.05).add_background_job(Job, trigger=now()) as jobs:
            await closing.wait()
        assert counts(jobs, "Job") == {"cancelled": 1}
        assert records.texts("ERROR") == []

    async def test_a_cancelled_aclose_leaves_the_close_to_itself(self) -> None:
        """Whoever gives up waiting for it breaks nothing."""

        async def slow(cancellation_token: CancellationToken) -> None:
            started.set()
            await cancellation_token.wait_async()
            await asyncio.sleep(0.2)

        started = asyncio.Event()
        jobs = cold().add_background_job(slow, trigger=now()).warm_up()
        await started.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(jobs.aclose(), 0.01)
        await jobs.aclose()
        assert not jobs.is_warm

    async def test_sync_code_in_an_async_scope_is_not_left_alone(self, waits: Any, records: Any) -> None:
        """Its scope stays open until its thread has ended, and the drain names it."""
        waits.cancelled = 0.05
        started, release, events = threading.Event(), threading.Event(), Waiter()

        @asynccontextmanager
        async def scope(job_type: type[Any]) -> AsyncGenerator[Any]:
            try:
                yield job_type()
            finally:
                events("scope closed")

        class Job:
            def action_to_do(self) -> None:
                started.set()
                release.wait(LIMIT)
                events("action ended")

        jobs = cold(resolver=scope, shutdown_timeout=0.05).add_background_job(Job, trigger=now()).warm_up()
        await asyncio.to_thread(started.wait, LIMIT)
        await jobs.aclose()
        assert "did not end within the shutdown_timeout and was abandoned" in records.texts("WARNING")[-1]
        release.set()
        assert await asyncio.to_thread(events.wait, 2) == ["action ended", "scope closed"]

    def test_run_comes_back_in_spite_of_a_thread_that_hangs(self, waits: Any) -> None:
        """The end of the event loop does not wait for a job that was left behind."""
        waits.cancelled = 0.05
        started, release = threading.Event(), threading.Event()

        def hang() -> None:
            started.set()
            release.wait(LIMIT)

        jobs = cold(shutdown_timeout=0.05).add_background_job(hang, trigger=now())
        closer = threading.Thread(target=lambda: (started.wait(LIMIT), jobs.close()))  # type: ignore[func-returns-value]
        closer.start()
        jobs.run()
        closer.join()
        assert not release.is_set()
        assert not jobs.is_warm
        release.set()


class TestALoopThatIsClosed:
    """The event loop of an asyncio scheduler is closed by force, while jobs are running."""

    def test_a_sync_job_is_handled_and_counted(self, waits: Any) -> None:
        """Its thread goes on to the end, with ``on_exception``."""
        waits.report = 0.05
        seen, started, release = Waiter(), threading.Event(), threading.Event()

        def slow() -> None:
            started.set()
            release.wait(LIMIT)
            raise ValueError("late")

        jobs = cold(AsyncIOScheduler(timezone="UTC"))
        jobs.add_background_job(slow, key="k", trigger=now(), on_exception=lambda exc: seen(str(exc)))
        left_behind(jobs, started.is_set)
        release.set()
        assert seen.wait() == ["late"]
        jobs.close()
        assert (row(jobs, "k").running, counts(jobs, "k")) == (0, {"failed": 1})


class TestWaitingRuns:
    """What becomes of the runs that wait for a thread."""

    def test_runs_that_wait_for_a_thread_are_accounted_for(self, kind: str) -> None:
        """Of more runs than there are threads, each is made, or refused with a reason, before the close is over."""
        started = Waiter()
        jobs = cold(CLASSES[kind](timezone="UTC", executors={"default": ThreadPoolExecutor(1)}))
        jobs.add_background_job(nothing, key="k", cron=NIGHTLY, max_instances=1000)
        jobs.add_background_job(lambda: started(), key="first", trigger=now())
        with warm(kind, jobs):
            started.wait()
            for _ in range(100):
                jobs.run_now("k")
        assert sum(counts(jobs, "k").values()) == 100

    def test_runs_that_no_thread_comes_free_for_are_told(self, waits: Any, records: Any) -> None:
        """The only thread hangs: what waits for it is counted, with the reason, and the close is not held up."""
        waits.flush = 0.05
        started, release = threading.Event(), threading.Event()

        def hang() -> None:
            started.set()
            release.wait(LIMIT)

        scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})
        jobs = cold(scheduler, shutdown_timeout=0.05).add_background_job(hang, key="hang", trigger=now())
        jobs.add_background_job(nothing, key="k", cron=NIGHTLY)
        jobs.add_background_job(nothing, key="k:k", cron=NIGHTLY)
        scheduler.add_job(nothing, now(), id="k")  # somebody else's
        jobs.warm_up()
        assert started.wait(LIMIT)
        for key in ("k", "k", "k:k"):
            jobs.run_now(key)
        until(lambda: scheduler.get_jobs() and len(scheduler.get_jobs()) == 2)  # the one-shots are with the executor
        jobs.close()
        assert counts(jobs, "k") == {"closing": 2}
        assert counts(jobs, "k:k") == {"closing": 1}
        assert sum("no thread of its executor came free" in text for text in records.texts("WARNING")) == 3
        release.set()

    async def test_one_that_its_thread_comes_free_for_does_not_begin(self, records: Any) -> None:
        """Its action would find everything closed; it is skipped with the reason."""
        started, submitted, ran = threading.Event(), asyncio.Event(), Waiter()
        asyncio.get_running_loop().set_default_executor(Pool(1))

        def hog(cancellation_token: CancellationToken) -> None:
            started.set()
            cancellation_token.wait(LIMIT)

        scheduler = AsyncIOScheduler(timezone="UTC")
        jobs = cold(scheduler, shutdown_timeout=5.0).add_background_job(hog, trigger=now()).warm_up()
        await eventually(started.is_set)
        scheduler.add_listener(lambda _: submitted.set(), EVENT_JOB_SUBMITTED)
        jobs.add_background_job(lambda: ran(), key="queued", trigger=now())
        await submitted.wait()
        await asyncio.sleep(0)
        await jobs.aclose()
        assert counts(jobs, "queued") == {"closing": 1}
        assert ran.seen == []

    def test_a_run_that_was_queued_when_the_jobs_are_closed_is_skipped(self, records: Any) -> None:
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
        reason = records.texts("WARNING")[0].partition("was skipped: ")[2]
        assert reason in ("the jobs are being closed", "no thread of its executor came free before the close")


class TestJobStores:
    """What a job store does to a close."""

    def test_a_job_store_that_hangs_does_not_hold_it_up(self, records: Any, waits: Any) -> None:
        """Running jobs are asked to end, and the close comes back, while the scheduler is stuck in its store."""
        waits.close = 0.2
        stuck, release, asked = threading.Event(), threading.Event(), Waiter()

        class Hanging(MemoryJobStore):  # type: ignore[misc]
            def get_due_jobs(self, moment: datetime) -> Any:
                if going.is_set():
                    stuck.set()
                    release.wait(LIMIT)
                return super().get_due_jobs(moment)

        going = threading.Event()

        def job(cancellation_token: CancellationToken) -> None:
            going.set()
            asked(cancellation_token.wait(LIMIT))

        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": Hanging()})
        jobs = cold(scheduler, shutdown_timeout=0.2).add_background_job(job, trigger=now())
        jobs.add_background_job(nothing, trigger=often()).warm_up()
        assert stuck.wait(LIMIT)
        jobs.close()
        assert not jobs.is_warm
        assert asked.wait() == [True]
        assert any("the scheduler does not answer" in text for text in records.texts("WARNING"))
        release.set()
        until(lambda: not scheduler.running)

    async def test_a_close_keeps_its_promise_whatever_hangs(self, waits: Any) -> None:
        """It comes back five seconds after the `shutdown_timeout`, with a store that hangs and a stubborn job."""
        started, release = asyncio.Event(), threading.Event()

        class Hanging(MemoryJobStore):  # type: ignore[misc]
            def remove_job(self, job_id: str) -> None:
                release.wait(LIMIT)
                super().remove_job(job_id)

        async def swallow() -> None:
            started.set()
            while not release.is_set():
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(LIMIT)

        scheduler = AsyncIOScheduler(timezone="UTC", jobstores={"hanging": Hanging()})
        scheduler.start()
        jobs = cold(scheduler, shutdown_timeout=0.5).add_background_job(swallow, trigger=now())
        jobs.add_background_job(nothing, cron=NIGHTLY, jobstore="hanging").warm_up()
        await started.wait()
        begun = time.monotonic()
        await jobs.aclose()
        assert time.monotonic() - begun < 5.5
        assert not jobs.is_warm
        release.set()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        scheduler.shutdown()

    def test_a_warm_up_waits_for_a_close_that_hangs(self, waits: Any) -> None:
        """It is refused while a job store holds the last close up, which would undo it; and works after that."""
        waits.close = 0.1
        hangs, stuck, release, seen = threading.Event(), threading.Event(), threading.Event(), Waiter()

        class Hanging(MemoryJobStore):  # type: ignore[misc]
            def get_due_jobs(self, moment: Any) -> Any:
                if hangs.is_set():
                    stuck.set()
                    release.wait(LIMIT)
                return super().get_due_jobs(moment)

        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": Hanging()})
        jobs = cold(scheduler, shutdown_timeout=0.1).add_background_job(lambda: seen(), key="k", trigger=often())
        jobs.warm_up()
        hangs.set()
        assert stuck.wait(LIMIT)
        jobs.close()
        with pytest.raises(LifecycleError, match="the last close has not ended: a job store"):
            jobs.warm_up()
        hangs.clear()
        release.set()
        waits.close = LIMIT
        with jobs:
            seen.wait(len(seen.seen) + 2)

    def test_a_close_during_a_warm_up_that_hangs_comes_back(self, waits: Any, records: Any) -> None:
        """It is made up for when the warm-up has ended."""
        waits.close = 0.1
        stuck, release = threading.Event(), threading.Event()

        class Hanging(MemoryJobStore):  # type: ignore[misc]
            def add_job(self, job: Any) -> None:
                stuck.set()
                release.wait(LIMIT)
                super().add_job(job)

        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": Hanging()})
        scheduler.start()
        jobs = cold(scheduler, shutdown_timeout=0.1).add_background_job(nothing, key="k", cron=NIGHTLY)
        warming = threading.Thread(target=jobs.warm_up)
        warming.start()
        assert stuck.wait(LIMIT)
        jobs.close()
        assert "the jobs are closed when it has ended" in records.texts("WARNING")[-1]
        release.set()
        warming.join(LIMIT)
        until(lambda: not jobs.is_warm)
        scheduler.shutdown()

    def test_a_job_store_that_raises_at_the_end_ruins_nothing(self) -> None:
        """The error comes through, the jobs are closed, and another warm-up works."""
        seen, fails = Waiter(), [True]

        class Failing(MemoryJobStore):  # type: ignore[misc]
            def shutdown(self) -> None:
                super().shutdown()
                if fails.pop():
                    raise OSError("cannot flush")

        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": Failing()})
        jobs = cold(scheduler).add_background_job(lambda: seen(), key="k", trigger=often()).warm_up()
        with pytest.raises(OSError, match="cannot flush"):
            jobs.close()
        assert not jobs.is_warm
        fails.append(False)
        scheduler._event.set()
        with jobs:
            seen.wait(len(seen.seen) + 2)


class TestTheOwnersShutdown:
    """Somebody else's asyncio scheduler is shut down by its owner while our jobs are running."""

    @pytest.fixture(name="scheduler")
    async def _scheduler(self) -> AsyncIOScheduler:
        scheduler = AsyncIOScheduler(timezone="UTC")
        scheduler.start()
        return scheduler

    async def test_a_sync_job_that_raises_afterwards_is_still_handled(
        self, scheduler: AsyncIOScheduler, records: Any, apscheduler_records: list[logging.LogRecord]
    ) -> None:
        """The failure is logged, by APScheduler with its traceback, and ``on_exception`` called."""
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
        assert records.texts("ERROR") == ["job 'Slow' failed: ValueError: late"]
        assert [r.exc_info[0] for r in apscheduler_records if r.exc_info] == [ValueError]
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


class TestLoopsThatAreGone:
    """An event loop that was closed without its tasks being cancelled."""

    def test_a_run_in_it_is_cancelled_and_its_key_is_free(self) -> None:
        """The run is counted as cancelled at the close, and the job runs again after the next warm-up."""
        seen, started = Waiter(), threading.Event()

        async def work() -> None:
            seen()
            if not started.is_set():
                started.set()
                await asyncio.Event().wait()

        jobs = cold(AsyncIOScheduler(timezone="UTC"), shutdown_timeout=0.05)
        jobs.add_background_job(work, key="k", cron=NIGHTLY, run_immediately=True)
        tasks = left_behind(jobs, started.is_set)
        jobs.close()
        assert (row(jobs, "k").running, row(jobs, "k").outcomes["cancelled"]) == (0, 1)

        async def again() -> None:
            async with jobs:
                await eventually(lambda: len(seen.seen) == 2)

        asyncio.run(again())
        assert row(jobs, "k").outcomes["succeeded"] == 1
        assert tasks
