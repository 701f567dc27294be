"""Bad luck in odd places: nothing is lost, nobody waits for ever, and the log is right."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor as Pool
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_ERROR
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.date import DateTrigger

from bgjobs import BackgroundJobs, CancellationToken, Skipped
from bgjobs._runs.outcome import Succeeded
from bgjobs._runs.run import Run
from bgjobs._runs.threads import in_daemon_thread, waits
from bgjobs.testing import run_job, walk
from stage import CLASSES, LIMIT, NIGHTLY, Waiter, cold, nothing, now, often, stage, until, warm


@asynccontextmanager
async def async_scope(job_type: type[Any]) -> AsyncGenerator[Any]:
    yield job_type()


def counts(jobs: BackgroundJobs, key: str) -> dict[str, int]:
    (row,) = [row for row in jobs.status() if row.key == key]
    return {name: n for name, n in {**row.outcomes, **row.not_run}.items() if n}


class TestClocks:
    def test_both_passages_of_a_repeated_hour_are_made(self) -> None:
        """Two fire times with one wall time and two offsets are two occurrences."""
        jobs = cold().add_background_job(nothing, key="k", cron="0 0 * * * *", timezone="Europe/Rome")
        schedule = jobs._lifecycle.ledger.jobs["k"].schedule
        assert schedule is not None
        schedule.expected = begin = datetime(2026, 10, 24, 23, tzinfo=UTC)
        with jobs:
            for hour in range(4):
                moment = schedule.trigger.get_next_fire_time(None, begin + timedelta(hours=hour))
                run = jobs._lifecycle.ledger.begin("k", "scheduled", moment.astimezone(UTC))
                assert isinstance(run, Run)
                jobs._lifecycle.ledger.drop(run)
        assert counts(jobs, "k") == {}

    def test_a_walk_through_that_night_has_both(self) -> None:
        """Virtual time knows the offsets, too."""
        jobs = cold().add_background_job(nothing, key="k", cron="0 0 * * * *", timezone="Europe/Rome")
        start = datetime(2026, 10, 24, 22, 30, tzinfo=UTC)
        steps = walk(jobs, start, start + timedelta(hours=4))
        assert [(step.at.hour, step.outcome) for step in steps] == [
            (23, "succeeded"), (0, "succeeded"), (1, "succeeded"), (2, "succeeded"),
        ]  # fmt: skip

    def test_ticks_out_of_order_are_counted_once(self) -> None:
        """A run that waited for its executor comes after the skips that it caused, and sets nothing back."""
        jobs = cold().add_background_job(nothing, key="k", cron="* * * * * *")
        ledger, first = jobs._lifecycle.ledger, datetime(2030, 1, 1, tzinfo=UTC)
        schedule = ledger.jobs["k"].schedule
        assert schedule is not None
        schedule.expected = first
        for seconds in (1, 2):
            ledger.overlapped("k", first + timedelta(seconds=seconds))
        run = ledger.begin("k", "scheduled", first)
        assert isinstance(run, Run)
        ledger.drop(run)
        again = ledger.begin("k", "scheduled", first + timedelta(seconds=3))
        assert isinstance(again, Run)
        assert counts(jobs, "k") == {"overlapped": 2, "coalesced": 1}

    def test_without_coalescing_nothing_is_called_coalesced(self) -> None:
        """A job that makes all late runs has none made as one."""
        jobs = cold().add_background_job(nothing, key="k", cron="* * * * * *", coalesce=False)
        ledger, first = jobs._lifecycle.ledger, datetime(2030, 1, 1, tzinfo=UTC)
        schedule = ledger.jobs["k"].schedule
        assert schedule is not None
        schedule.expected = first
        ledger.begin("k", "scheduled", first + timedelta(seconds=5))
        assert counts(jobs, "k") == {}


class BadTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("error", [BadTextError(), StopIteration(), StopAsyncIteration()])
@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("resolver", [None, async_scope])
def test_odd_exceptions_are_failures_like_others(kind: str, error: Exception, colour: str, resolver: Any) -> None:
    """One that has no text, or that Python's own machinery takes for a sign, is handled, and the schedule goes on."""
    seen = Waiter()

    class Sync:
        def action_to_do(self) -> None:
            raise error

        def on_exception(self, exception: Exception) -> None:
            seen(type(exception))
            raise error

    class Async:
        async def action_to_do(self) -> None:
            raise error

        async def on_exception(self, exception: Exception) -> None:
            seen(type(exception))
            raise error

    job = Sync if colour == "sync" else Async
    with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=often()), resolver=resolver) as jobs:
        seen.wait(2)
    assert counts(jobs, "k")["failed"] >= 2
    assert jobs._lifecycle.ledger._live == set()


def test_a_system_exit_of_a_handler_stops_no_loop(kind: str, records: Any) -> None:
    """An ``async def on_exception`` of a sync job that raises `SystemExit` is logged; everything goes on."""
    seen = Waiter()

    class Job:
        def action_to_do(self) -> None:
            raise ValueError

        async def on_exception(self, exception: Exception) -> None:
            seen()
            raise SystemExit(3)

    with stage(kind, lambda jobs: jobs.add_background_job(Job, trigger=often())):
        seen.wait(3)
    assert any("raised SystemExit" in text for text in records.texts("ERROR"))


@pytest.mark.parametrize("kind", ["asyncio", "background"])
def test_a_generator_exit_of_a_job_is_a_failure(kind: str) -> None:
    """A sync job that raises it in a worker thread does not vanish, and is told to its scheduler."""
    told = Waiter()

    def leave() -> None:
        raise GeneratorExit

    scheduler = CLASSES[kind](timezone="UTC")
    scheduler.add_listener(lambda event: told(repr(event.exception)), EVENT_JOB_ERROR)
    jobs = cold(scheduler).add_background_job(leave, key="k", trigger=now())
    with warm(kind, jobs):
        until(lambda: counts(jobs, "k"))
        assert told.wait() == ["GeneratorExit()"]
    assert counts(jobs, "k") == {"failed": 1}


class TestClosing:
    def test_runs_that_wait_for_a_thread_are_accounted_for(self, kind: str) -> None:
        """Of more runs than there are threads, each is made, or refused with a reason, before the close is over."""
        jobs = cold(CLASSES[kind](timezone="UTC", executors={"default": ThreadPoolExecutor(1)}))
        jobs.add_background_job(nothing, key="k", cron=NIGHTLY, max_instances=1000)
        with warm(kind, jobs):
            until(lambda: jobs._lifecycle._is_started)
            for _ in range(100):
                jobs.run_now("k")
        assert sum(counts(jobs, "k").values()) == 100

    def test_runs_that_no_thread_comes_free_for_are_told(self, monkeypatch: Any, records: Any) -> None:
        """The only thread hangs: what waits for it is counted, with the reason, and the close is not held up."""
        monkeypatch.setattr(waits, "flush", 0.05)
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

    def test_a_run_that_outlived_a_close_is_settled_after_the_next_warm_up(self, monkeypatch: Any) -> None:
        """Its failure is nobody's event any more; its handler is called all the same."""
        monkeypatch.setattr(waits, "cancelled", 0.05)
        seen, started, release = Waiter(), threading.Event(), threading.Event()

        class Job:
            def action_to_do(self) -> None:
                started.set()
                release.wait(LIMIT)
                raise ValueError("late")

            def on_exception(self, exception: Exception) -> None:
                seen(str(exception))

        jobs = cold(shutdown_timeout=0.05).add_background_job(Job, trigger=now()).warm_up()
        assert started.wait(LIMIT)
        jobs.close()
        jobs._lifecycle.ledger.jobs["Job"].schedule.trigger = DateTrigger(datetime(2040, 1, 1, tzinfo=UTC))  # type: ignore[union-attr]
        with jobs:
            release.set()
            assert seen.wait() == ["late"]
        assert jobs._lifecycle.ledger._live == set()

    async def test_a_run_that_waited_for_a_thread_does_not_begin_after_the_close(self, records: Any) -> None:
        """Its action would find everything closed; it is skipped with the reason."""
        started, release = threading.Event(), threading.Event()
        asyncio.get_running_loop().set_default_executor(Pool(1))

        def hog() -> None:
            started.set()
            release.wait(LIMIT)

        jobs = cold(AsyncIOScheduler(timezone="UTC"), shutdown_timeout=5.0).add_background_job(hog, trigger=now())
        jobs.warm_up()
        await in_daemon_thread(lambda: started.wait(LIMIT))
        jobs.add_background_job(lambda: records.append({"message": "ran"}), key="queued", trigger=now())
        await in_daemon_thread(lambda: until(lambda: len(jobs._lifecycle.ledger._live) == 2))
        closing = asyncio.create_task(jobs.aclose())
        await in_daemon_thread(lambda: until(lambda: jobs._lifecycle.ledger._closing))
        release.set()
        await closing
        assert counts(jobs, "queued") == {"closing": 1}
        assert "ran" not in records.texts()

    def test_a_job_store_that_hangs_does_not_hold_it_up(self, records: Any, monkeypatch: Any) -> None:
        """Running jobs are asked to end, and the close comes back, while the scheduler is stuck in its store."""
        monkeypatch.setattr(waits, "scheduler", 0.1)
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

    def test_a_listener_of_the_error_may_close(self) -> None:
        """Somebody's own listener runs in the worker of the failed run; from there closing is only requested."""
        seen, scheduler = Waiter(), BackgroundScheduler(timezone="UTC")
        jobs = cold(scheduler)

        def closing(_: Any) -> None:
            jobs.close()
            seen("closed")

        scheduler.add_listener(closing, EVENT_JOB_ERROR)

        def fail() -> None:
            raise ValueError

        jobs.add_background_job(fail, trigger=now(), on_exception=lambda _: seen("handled"))
        with jobs:
            assert seen.wait(2) == ["closed", "handled"]

    async def test_sync_code_in_an_async_scope_is_not_left_alone(self, monkeypatch: Any, records: Any) -> None:
        """Its scope stays open until its thread has ended, and the drain names it."""
        monkeypatch.setattr(waits, "cancelled", 0.05)
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
        assert "did not end in time and is left behind" in records.texts("WARNING")[-1]
        release.set()
        assert await asyncio.to_thread(events.wait, 2) == ["action ended", "scope closed"]


def test_a_blocking_scheduler_whose_loop_dies_is_closed(records: Any) -> None:
    """Its running job is asked to end and awaited before the error comes through."""
    asked, going = Waiter(), threading.Event()

    class Breaking(MemoryJobStore):  # type: ignore[misc]
        def update_job(self, job: Any) -> None:
            going.wait(LIMIT)
            raise OSError("db gone")

    def job(cancellation_token: CancellationToken) -> None:
        going.set()
        asked(cancellation_token.wait(LIMIT))

    jobs = cold(BlockingScheduler(timezone="UTC", jobstores={"default": Breaking()}))
    jobs.add_background_job(job, key="first", trigger=now()).add_background_job(nothing, trigger=often())
    with pytest.raises(OSError, match="db gone"):
        jobs.warm_up()
    assert asked.seen == [True]
    assert not jobs.is_warm


def test_a_job_may_add_jobs_while_the_others_are_being_warmed_up() -> None:
    """On a running scheduler the first immediate run comes before the last job is scheduled."""
    scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(2)})
    scheduler.start()
    jobs, added = cold(scheduler), Waiter()

    def add() -> None:
        for n in range(20):
            jobs.add_background_job(nothing, key=f"added-{n}", cron=NIGHTLY)
        added()

    jobs.add_background_job(add, cron=NIGHTLY, run_immediately=True)
    for n in range(200):
        jobs.add_background_job(nothing, key=f"job-{n}", cron=NIGHTLY)
    with jobs:
        added.wait()
        assert len(scheduler.get_jobs()) == 221
    scheduler.shutdown()


def test_a_paused_job_makes_no_immediate_run(records: Any) -> None:
    """Paused means paused at warm-up, too; the run that is not made is told and counted."""
    jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY, run_immediately=True)
    jobs.pause("k")
    with jobs:
        assert counts(jobs, "k") == {"paused": 1}
    assert "was skipped: the job is paused" in records.texts("WARNING")[0]


def test_a_job_that_was_paused_through_apscheduler_is_paused() -> None:
    """It is not called finished."""
    scheduler = BackgroundScheduler(timezone="UTC")
    with cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY) as jobs:
        scheduler.pause_job("bgjobs:k")
        (row,) = jobs.status()
    assert (row.paused, row.finished) == (True, False)


def test_nothing_of_ours_stays_on_somebody_elses_scheduler() -> None:
    """Not even the listener that warned of a start without warm-up."""
    scheduler = BackgroundScheduler(timezone="UTC")
    with cold(scheduler):
        pass
    assert scheduler._listeners == []


def test_a_skipped_value_is_what_a_withdrawn_run_leaves() -> None:
    """The kit tells a run that came too late as skipped."""
    jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)
    jobs._lifecycle.ledger.reopen()
    jobs._lifecycle.ledger.shut()
    assert isinstance(jobs._lifecycle.runner.fire("k", "a run", datetime.now(UTC)), Skipped)
    assert run_job(jobs, "k").outcome == "succeeded"


def test_run_comes_back_in_spite_of_a_thread_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the event loop does not wait for a job that was left behind."""
    monkeypatch.setattr(waits, "cancelled", 0.05)
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


class TestWhatIsGone:
    def test_events_of_removed_jobs_are_passed_over(self, records: Any) -> None:
        """A job may be removed while APScheduler is about to tell of it."""
        ledger = cold()._lifecycle.ledger
        for tell in (ledger.missed, ledger.overlapped):
            tell("gone", datetime.now(UTC))
        ledger.dropped("gone", datetime.now(UTC), "paused", "the job was removed first")
        assert records == []

    def test_a_run_that_was_dropped_is_counted_when_its_thread_ends(self) -> None:
        """Its event loop is gone, and nobody waits for it any more; what became of it is known all the same."""
        jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)
        ledger = jobs._lifecycle.ledger
        run = ledger.begin("k", "a run", datetime.now(UTC))
        assert isinstance(run, Run)
        ledger.drop(run)
        assert ledger.acted(run, Succeeded(None)) is None
        assert counts(jobs, "k") == {"succeeded": 1}

    def test_a_run_is_dropped_once(self) -> None:
        """Forgetting it again changes nothing."""
        jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)
        run = jobs._lifecycle.ledger.begin("k", "a run", datetime.now(UTC))
        assert isinstance(run, Run)
        jobs._lifecycle.ledger.drop(run)
        jobs._lifecycle.ledger.drop(run)
        assert jobs._lifecycle.ledger._live == set()

    def test_a_job_that_is_registered_while_closing_waits_for_the_next_warm_up(self) -> None:
        """It is kept, and not scheduled on what is being closed."""
        with cold() as jobs:
            entries, jobs._lifecycle._entries = jobs._lifecycle._entries, None
            jobs.add_background_job(nothing, key="late", cron=NIGHTLY)
            jobs._lifecycle._entries = entries
            assert jobs._lifecycle._bridge.scheduler.get_jobs() == []  # type: ignore[union-attr]

    def test_closing_where_no_thread_can_be_started(self, monkeypatch: Any) -> None:
        """As at the exit of an interpreter of Python 3.12: all of it is done in the thread that asks for it."""
        jobs = cold(BackgroundScheduler(timezone="UTC")).add_background_job(nothing, key="k", cron=NIGHTLY)
        jobs.warm_up()

        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

        monkeypatch.setattr(threading.Thread, "start", start)
        jobs.close()
        assert not jobs.is_warm

    @pytest.mark.parametrize("owner", ["_own_in_worker", "_own_in_task"])
    @pytest.mark.parametrize("given_up", [False, True])
    def test_a_withdrawn_run_is_told_to_whoever_still_waits(self, owner: str, given_up: bool) -> None:
        """Its owner skips it, whether or not APScheduler's task is still there to hear of it."""
        jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)
        run = jobs._lifecycle.ledger.begin("k", "a run", datetime.now(UTC))
        assert isinstance(run, Run)
        run.token.request_cancellation()
        reported: Future[Any] = Future()
        if given_up:
            reported.cancel()
        runner = jobs._lifecycle.runner
        if owner == "_own_in_worker":
            runner._own_in_worker(run, reported)
        else:
            asyncio.run(runner._own_in_task(run, reported, None))
        assert reported.cancelled() or reported.result() == Skipped("the jobs are being closed")
        assert counts(jobs, "k") == {"closing": 1}

    def test_the_kit_waits_for_its_own_run(self) -> None:
        """The result of another run that ends meanwhile is not taken for it; a walk without fire times is empty."""
        jobs = cold().add_background_job(nothing, key="inner", cron=NIGHTLY)
        jobs.add_background_job(lambda: run_job(jobs, "inner").outcome, key="outer", cron=NIGHTLY)
        assert run_job(jobs, "outer").value == "succeeded"
        start = datetime(2026, 1, 1, tzinfo=UTC)
        assert walk(jobs, start, start + timedelta(hours=1)) == []
