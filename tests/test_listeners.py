"""What the listeners of APScheduler see of our runs, and what they may do to them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.date import DateTrigger

from bgjobs import CancellationToken, Cancelled
from stage import (
    CLASSES,
    LIMIT,
    Waiter,
    async_scope,
    cold,
    counts,
    fail,
    fail_async,
    job_class,
    nothing,
    now,
    often,
    sync_scope,
    until,
    warm,
)


class TestWhatTheySee:
    def test_the_value_of_a_function(self, kind: str) -> None:
        """A function's return value stays the ``retval`` of APScheduler's event."""
        seen = Waiter()
        scheduler = CLASSES[kind](timezone="UTC")
        jobs = cold(scheduler)
        scheduler.add_listener(lambda event: seen((event.job_id, event.retval)), EVENT_JOB_EXECUTED)
        jobs.add_background_job(lambda: 42, key="answer", trigger=now())
        with warm(kind, jobs):
            assert seen.wait() == [("bgjobs:answer", 42)]

    def test_a_failure_with_its_exception(self, kind: str, colour: str) -> None:
        """The scheduler fires its error event with the exception, for everybody who listens."""
        seen = Waiter()
        scheduler = CLASSES[kind](timezone="UTC")
        jobs = cold(scheduler)
        scheduler.add_listener(lambda event: seen((event.job_id, repr(event.exception))), EVENT_JOB_ERROR)
        jobs.add_background_job(job_class(colour, fail), key="k", trigger=now())
        with warm(kind, jobs):
            assert seen.wait() == [("bgjobs:k", "ValueError('boom')")]

    def test_a_cancelled_run_has_a_value_that_says_so(self, kind: str, colour: str, records: Any) -> None:
        """A job that heeds its token during a close is no failure for them either."""
        seen, values = Waiter(), Waiter()

        class Polite:
            async def action_to_do(self, cancellation_token: CancellationToken) -> None:
                seen()
                await cancellation_token.wait_async()
                cancellation_token.raise_if_cancellation_requested()

        class SyncPolite:
            def action_to_do(self, cancellation_token: CancellationToken) -> None:
                seen()
                cancellation_token.wait()
                cancellation_token.raise_if_cancellation_requested()

        scheduler = CLASSES[kind](timezone="UTC")
        scheduler.add_listener(lambda event: values(event.retval), EVENT_JOB_EXECUTED)
        jobs = cold(scheduler)
        jobs.add_background_job(Polite if colour == "async" else SyncPolite, key="k", trigger=now())
        with warm(kind, jobs):
            seen.wait()
        assert values.wait() == [Cancelled()]
        assert records.texts("WARNING") == ["job 'k' was cancelled"]
        assert records.texts("ERROR") == []

    @pytest.mark.parametrize("kind", ["asyncio", "background"])
    def test_a_generator_exit_of_a_job_is_a_failure(self, kind: str) -> None:
        """A sync job that raises it in a worker thread does not vanish."""
        seen = Waiter()

        def leave() -> None:
            raise GeneratorExit

        scheduler = CLASSES[kind](timezone="UTC")
        scheduler.add_listener(lambda event: seen(repr(event.exception)), EVENT_JOB_ERROR)
        jobs = cold(scheduler).add_background_job(leave, key="k", trigger=now())
        with warm(kind, jobs):
            until(lambda: counts(jobs, "k"))
            assert seen.wait() == ["GeneratorExit()"]
        assert counts(jobs, "k") == {"failed": 1}

    def test_the_events_of_other_jobs_are_not_ours(self, records: Any) -> None:
        """Somebody else's missed, skipped and failed runs are no business of bgjobs."""
        events = Waiter()
        scheduler = BackgroundScheduler(timezone="UTC")
        with cold(scheduler):
            scheduler.add_listener(events, EVENT_JOB_ERROR | EVENT_JOB_MISSED)
            scheduler.add_job(lambda: 1 / 0, now(), id="fails")
            scheduler.add_job(nothing, DateTrigger(datetime(2020, 1, 1, tzinfo=UTC)), id="late")
            events.wait(2)
        assert records.texts("WARNING") == []
        assert records.texts("ERROR") == []


class TestWhatTheyDo:
    @pytest.mark.parametrize("resolver", [None, sync_scope, async_scope])
    def test_one_that_raises_loses_no_handler(self, kind: str, colour: str, resolver: Any) -> None:
        """APScheduler logs what a listener raises; ``on_exception`` is called all the same."""
        seen = Waiter()

        def broken(_: object) -> None:
            raise RuntimeError("a listener with a fault")

        scheduler = CLASSES[kind](timezone="UTC")
        scheduler.add_listener(broken, EVENT_JOB_ERROR)
        jobs = cold(scheduler, resolver=resolver)
        scheduler.add_listener(broken, EVENT_JOB_ERROR)
        jobs.add_background_job(job_class(colour, fail, lambda _, exc: seen(str(exc))), key="k", trigger=often())
        with warm(kind, jobs):
            assert set(seen.wait(2)) == {"boom"}

    def test_without_any_the_handler_is_called(self, waits: Any) -> None:
        """A listener of ours that is gone, taken off by somebody, loses no ``on_exception``."""
        waits.report = 0.05
        seen = Waiter()
        scheduler = CLASSES["asyncio"](timezone="UTC")
        jobs = cold(scheduler, resolver=async_scope)
        with warm("asyncio", jobs):
            scheduler._listeners.clear()
            for job in (fail, fail_async):
                jobs.add_background_job(job, trigger=now(), on_exception=lambda exc: seen(str(exc)))
            jobs.add_background_job(job_class("async", fail, lambda *_: seen("scoped")), key="scoped", trigger=now())
            assert sorted(seen.wait(3)) == ["boom", "boom", "scoped"]

    def test_one_may_close(self) -> None:
        """It runs in the worker of the failed run; from there closing is only requested."""
        seen, scheduler = Waiter(), BackgroundScheduler(timezone="UTC")
        jobs = cold(scheduler)

        def closing(_: Any) -> None:
            jobs.close()
            seen("closed")

        scheduler.add_listener(closing, EVENT_JOB_ERROR)
        jobs.add_background_job(fail, trigger=now(), on_exception=lambda _: seen("handled"))
        with jobs:
            assert seen.wait(2) == ["closed", "handled"]
            until(lambda: not jobs.is_warm)

    @pytest.mark.parametrize("event", [EVENT_JOB_MISSED, EVENT_JOB_MAX_INSTANCES])
    def test_one_may_remove_the_job(self, event: int, records: Any, apscheduler_records: Any) -> None:
        """What APScheduler then tells of the removed job is passed over."""
        seen, release = Waiter(), threading.Event()
        scheduler = CLASSES["asyncio"](timezone="UTC")
        jobs = cold(scheduler)

        def remove(_: object) -> None:
            if jobs.status():
                jobs.remove("k")
                seen()

        scheduler.add_listener(remove, event)  # called before ours, which comes with the warm-up
        if event == EVENT_JOB_MISSED:
            late = DateTrigger(datetime(2020, 1, 1, tzinfo=UTC))
            jobs.add_background_job(nothing, key="k", trigger=late, misfire_grace_time=1)
        else:
            jobs.add_background_job(lambda: release.wait(LIMIT), key="k", trigger=often())
        with warm("asyncio", jobs):
            seen.wait()
            release.set()
        assert [r for r in apscheduler_records if r.exc_info] == []
        assert records.texts("WARNING") == []
        assert records.texts("ERROR") == []
