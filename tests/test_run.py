"""The life of one run, the same on every scheduler; its scope is in `test_scopes`."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from bgjobs import BackgroundJobs, CancellationToken, CurrentRun, LifecycleError, current_run
from stage import (
    LIMIT,
    Waiter,
    async_scope,
    cold,
    counts,
    fail,
    handler,
    job_class,
    method,
    now,
    often,
    owner,
    row,
    stage,
    until,
)


class TestTheAction:
    def test_every_run_has_a_fresh_instance(self, kind: str, colour: str) -> None:
        """Two runs of a class are two instances."""
        seen = Waiter()
        job = job_class(colour, lambda self, _: seen(self))
        with stage(kind, lambda jobs: jobs.add_background_job(job, trigger=often())):
            first, second = seen.wait(2)[:2]
        assert first is not second

    def test_the_token_and_the_kwargs_are_passed_by_name(self, kind: str) -> None:
        """The token goes to the parameter of that name, the kwargs to theirs."""
        seen = Waiter()

        class Report:
            def action_to_do(self, *, day: str, cancellation_token: CancellationToken, copies: int = 1) -> None:
                seen((day, copies, cancellation_token.is_cancellation_requested))

        with stage(kind, lambda jobs: jobs.add_background_job(Report, trigger=now(), kwargs={"day": "monday"})):
            assert seen.wait() == [("monday", 1, False)]

    def test_plain_functions_and_partials_run(self, kind: str) -> None:
        """Functions, async functions, bound methods, partials of functions and of classes are jobs."""
        seen = Waiter()

        def plain() -> None:
            seen("plain")

        async def coroutine() -> None:
            seen("coroutine")

        class Service:
            def method(self) -> None:
                seen("method")

        class Constructed:
            def __init__(self, name: str) -> None:
                self.name = name

            async def action_to_do(self) -> None:
                seen(self.name)

        def register(jobs: BackgroundJobs) -> None:
            for job in (plain, coroutine, Service().method):
                jobs.add_background_job(job, trigger=now())
            jobs.add_background_job(functools.partial(seen.__call__, "partial"), key="partial", trigger=now())
            jobs.add_background_job(functools.partial(Constructed, "constructed"), trigger=now())

        with stage(kind, register):
            assert sorted(seen.wait(5)) == ["constructed", "coroutine", "method", "partial", "plain"]

    def test_an_awaitable_from_a_sync_function_is_awaited(self, kind: str) -> None:
        """A sync function that returns a coroutine, as decorated ones do, has it awaited."""
        seen = Waiter()

        async def inner() -> None:
            seen("awaited")

        with stage(kind, lambda jobs: jobs.add_background_job(lambda: inner(), key="outer", trigger=now())):
            assert seen.wait() == ["awaited"]

    def test_async_code_of_a_thread_scheduler_shares_one_loop(self) -> None:
        """Two runs of async jobs on a thread scheduler find the same event loop, so that pooled connections live on."""
        seen = Waiter()

        async def which_loop() -> None:
            seen(asyncio.get_running_loop())

        with stage("background", lambda jobs: jobs.add_background_job(which_loop, trigger=often())):
            first, second = seen.wait(2)[:2]
        assert first is second

    def test_a_task_that_exits_ends_no_other_run(self) -> None:
        """A `SystemExit` of a task that a job has left behind stops the loop of no thread scheduler."""
        seen, exited = Waiter(), threading.Event()

        async def leave() -> None:
            exited.set()
            raise SystemExit(5)

        async def careless() -> None:
            tasks.add(asyncio.create_task(leave()))

        async def patient() -> None:
            await asyncio.to_thread(exited.wait, LIMIT)
            await asyncio.sleep(0.01)
            seen()

        tasks: set[Any] = set()
        jobs = cold().add_background_job(patient, trigger=now()).add_background_job(careless, trigger=now())
        with jobs:
            seen.wait()
            until(lambda: counts(jobs, "patient"))
        assert counts(jobs, "patient") == {"succeeded": 1}
        assert isinstance(tasks.pop().exception(), SystemExit)

    def test_a_sync_job_does_not_block_the_event_loop(self) -> None:
        """On the asyncio scheduler a sync job runs in a thread beside the loop."""
        seen = Waiter()
        with stage("asyncio", lambda jobs: jobs.add_background_job(lambda: seen(owner()), key="sync", trigger=now())):
            assert isinstance(seen.wait()[0], threading.Thread)


class TestCurrentRun:
    def test_it_is_known_in_the_resolver_the_action_and_the_handler(self, kind: str, colour: str) -> None:
        """Factories, action and ``on_exception`` of one run see the same key, run id and fire time."""
        seen = Waiter()
        trigger = now()

        @contextmanager
        def resolver(job_type: type[Any]) -> Generator[Any]:
            seen(current_run())
            yield job_type()

        def act(*_: object) -> None:
            seen(current_run())
            raise ValueError

        job = job_class(colour, act, lambda *_: seen(current_run()))
        with stage(kind, lambda jobs: jobs.add_background_job(job, trigger=trigger, key="k"), resolver=resolver):
            runs = seen.wait(3)
        assert runs == [CurrentRun("k", runs[0].run_id, trigger.run_date)] * 3

    def test_outside_a_run_it_is_an_error(self) -> None:
        """Code that no run has called is told so."""
        with pytest.raises(LifecycleError, match="outside a run"):
            current_run()

    def test_run_ids_are_unique(self, kind: str) -> None:
        """Every run has an id of its own."""
        seen = Waiter()
        with stage(kind, lambda j: j.add_background_job(lambda: seen(current_run().run_id), key="k", trigger=often())):
            assert len({*seen.wait(3)[:3]}) == 3


class TestFailures:
    def test_the_exception_reaches_the_very_instance(self, kind: str, colour: str) -> None:
        """``on_exception`` gets the live exception, on the instance that failed."""
        seen = Waiter()
        error = ValueError("boom")

        def act(self: Any, _: object) -> None:
            seen(self)
            raise error

        job = job_class(colour, act, lambda self, exc: (seen(self), seen(exc)))  # type: ignore[func-returns-value]
        with stage(kind, lambda jobs: jobs.add_background_job(job, trigger=now())):
            instance, handled_by, exception = seen.wait(3)
        assert handled_by is instance
        assert exception is error

    def test_a_function_has_its_handler_by_argument(self, kind: str) -> None:
        """``on_exception=`` of a function is called with the exception."""
        seen = Waiter()
        with stage(kind, lambda jobs: jobs.add_background_job(fail, trigger=now(), on_exception=seen)):
            assert repr(seen.wait()) == "[ValueError('boom')]"

    def test_each_failure_is_logged_and_its_traceback_once(
        self, kind: str, colour: str, records: Any, apscheduler_records: Any
    ) -> None:
        """bgjobs logs one error for a failed run, and only APScheduler's record has the traceback."""
        seen = Waiter()
        job = job_class(colour, fail, lambda *_: seen())
        with stage(kind, lambda jobs: jobs.add_background_job(job, trigger=now(), key="k")):
            seen.wait()
        (ours,) = [r for r in records if r["level"].name == "ERROR"]
        (theirs,) = [r for r in apscheduler_records if r.exc_info]
        assert ours["message"] == "job 'k' failed: ValueError: boom"
        assert ours["exception"] is None
        assert {"job", "run_id", "scheduled_at", "seconds"} <= ours["extra"].keys()
        assert theirs.exc_info[0] is ValueError

    def test_a_handler_that_raises_leaves_the_schedule(self, kind: str, colour: str, records: Any) -> None:
        """A job that fails at every tick, with a handler that fails too, goes on, and all of it is in the log."""
        seen = Waiter()

        def handle(*_: object) -> None:
            seen()
            raise RuntimeError("worse")

        with stage(
            kind, lambda jobs: jobs.add_background_job(job_class(colour, fail, handle), key="k", trigger=often())
        ):
            seen.wait(3)
        errors = records.texts("ERROR")
        assert errors.count("job 'k' failed: ValueError: boom") >= 3
        assert errors.count("on_exception of job 'k' raised RuntimeError: worse") >= 3

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
    def test_system_exit_is_logged_and_not_handed_on(
        self, kind: str, colour: str, error: BaseException, records: Any
    ) -> None:
        """``SystemExit`` and ``KeyboardInterrupt`` in a job neither reach its handler nor stop anything."""
        seen = Waiter()

        def act(*_: object) -> None:
            seen("acted")
            raise error

        job = job_class(colour, act, lambda *_: seen("handled"))
        with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=often())):
            assert set(seen.wait(3)) == {"acted"}
        assert sum(f"job 'k' failed: {type(error).__name__}" in text for text in records.texts("ERROR")) >= 2

    def test_two_runs_that_raise_one_exception_object_are_told_apart(self, kind: str, colour: str) -> None:
        """Each of two overlapping runs is handled on its own instance though both raise the same object."""
        seen = Waiter()
        shared = ValueError("shared")
        both = threading.Barrier(2)

        def act(self: Any, _: object) -> None:
            seen(("acted", self))
            raise shared

        def sync_act(self: Any, _: object) -> None:
            both.wait(LIMIT)
            act(self, _)

        job = job_class(colour, act if colour == "async" else sync_act, lambda self, _: seen(("handled", self)))

        def register(jobs: BackgroundJobs) -> None:
            jobs.add_background_job(job, key="one", trigger=now()).add_background_job(job, key="two", trigger=now())

        with stage(kind, register):
            events = seen.wait(4)
        acted = {instance for what, instance in events if what == "acted"}
        assert len(acted) == 2
        assert acted == {instance for what, instance in events if what == "handled"}

    def test_a_slow_handler_holds_nobody_up(self, kind: str, colour: str) -> None:
        """While one ``on_exception`` takes its time, other jobs tick, and so does the failed job itself."""
        seen, release, started = Waiter(), threading.Event(), threading.Event()

        def handle(*_: object) -> None:
            started.set()
            release.wait(LIMIT)

        failing = job_class("sync", fail)
        failing.on_exception = handler("sync", handle)
        failing.action_to_do = method(colour, fail)

        def register(jobs: BackgroundJobs) -> None:
            jobs.add_background_job(failing, key="failing", trigger=now())
            jobs.add_background_job(lambda: started.is_set() and seen(), key="other", trigger=often())  # type: ignore[func-returns-value]

        with stage(kind, register):
            try:
                seen.wait(3)
            finally:
                release.set()

    def test_on_exception_never_runs_on_the_thread_of_the_scheduler(self) -> None:
        """An instantly failing job is handled in its worker, however fast it was."""
        seen = Waiter()
        job = job_class("sync", fail, lambda *_: seen(threading.current_thread().name))
        with stage("background", lambda j: j.add_background_job(job, trigger=IntervalTrigger(seconds=0.002))):
            assert {name.split("-")[0] for name in seen.wait(200)} == {"ThreadPoolExecutor"}


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
    assert row(jobs, "k").running == 0


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


class TestTimeouts:
    def test_a_coroutine_is_cancelled_when_its_time_is_over(self, kind: str, records: Any) -> None:
        """It ends as a failure with `TimeoutError`, which the handler gets."""
        seen = Waiter()

        class Slow:
            async def action_to_do(self) -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    seen("ended")

            async def on_exception(self, exception: Exception) -> None:
                seen(repr(exception))

        with stage(kind, lambda jobs: jobs.add_background_job(Slow, trigger=now(), timeout=0.05)):
            assert seen.wait(2) == ["ended", "TimeoutError('the run took longer than its timeout of 0.05 s')"]
        assert "job 'Slow' failed: TimeoutError" in records.texts("ERROR")[0]

    @pytest.mark.parametrize("way", ["returns", "raises"])
    def test_a_sync_job_is_asked_through_its_token(self, kind: str, way: str, records: Any) -> None:
        """However it ends after that, it is reported as timed out."""
        seen = Waiter()

        class Slow:
            def action_to_do(self, cancellation_token: CancellationToken) -> None:
                assert cancellation_token.wait(LIMIT)
                if way == "raises":
                    cancellation_token.raise_if_cancellation_requested()

            def on_exception(self, exception: Exception) -> None:
                seen(type(exception))

        with stage(kind, lambda jobs: jobs.add_background_job(Slow, trigger=now(), timeout=0.05)):
            assert seen.wait() == [TimeoutError]
        assert records.texts("WARNING") == ["job 'Slow' exceeded its timeout of 0.05 s; it was asked to end"]

    def test_a_sync_job_without_a_token_is_reported_when_it_ends(self, kind: str, records: Any) -> None:
        """Nothing can interrupt it; the log says what it lacks."""
        seen = Waiter()

        def deaf() -> None:
            until(lambda: records.texts("WARNING"))

        with stage(kind, lambda jobs: jobs.add_background_job(deaf, trigger=now(), timeout=0.05, on_exception=seen)):
            assert isinstance(seen.wait()[0], TimeoutError)
        assert "takes no cancellation_token, so it cannot learn of it" in records.texts("WARNING")[0]

    @pytest.mark.parametrize("colour", ["async", "sync"])
    def test_a_run_within_its_time_is_not_touched(self, kind: str, colour: str, records: Any) -> None:
        """A timeout that is not reached changes nothing, and a `TimeoutError` of the job's own stays its own."""
        seen = Waiter()
        job = job_class(colour, lambda *_: seen("fine"))
        own = job_class(colour, lambda *_: (_ for _ in ()).throw(TimeoutError("mine")), lambda _, exc: seen(repr(exc)))

        def register(jobs: BackgroundJobs) -> None:
            jobs.add_background_job(job, key="fine", trigger=now(), timeout=LIMIT)
            jobs.add_background_job(own, key="own", trigger=now(), timeout=LIMIT)

        with stage(kind, register):
            assert sorted(seen.wait(2)) == ["TimeoutError('mine')", "fine"]
        assert records.texts("WARNING") == []


class TestCancellation:
    def test_a_stray_cancelled_error_is_a_failure(self, kind: str, records: Any) -> None:
        """A `CancelledError` that nobody asked for is logged as a failure; it is no Exception, so not handed on."""
        seen = Waiter()

        class Stray:
            async def action_to_do(self) -> None:
                seen()
                raise asyncio.CancelledError

            def on_exception(self, exception: Exception) -> None:
                seen("handled")

        with stage(kind, lambda jobs: jobs.add_background_job(Stray, trigger=often())):
            assert set(seen.wait(2)) == {None}
        assert "job 'Stray' failed: CancelledError" in records.texts("ERROR")[0]

    def test_a_timed_sync_job_that_raises_cancelled_error_early_has_failed(self, kind: str, records: Any) -> None:
        """Within its time, a `CancelledError` of a sync job is stray, too."""
        seen = Waiter()

        def stray() -> None:
            seen()
            raise asyncio.CancelledError

        with stage(kind, lambda jobs: jobs.add_background_job(stray, trigger=often(), timeout=LIMIT)):
            seen.wait(2)
        assert "job 'stray' failed: CancelledError" in records.texts("ERROR")[0]


def test_the_own_loguru_calls_of_a_job_carry_its_key_and_run_id(kind: str, colour: str, records: Any) -> None:
    """What a job and its handler log themselves has ``job`` and ``run_id`` bound."""
    from loguru import logger

    seen = Waiter()

    def act(*_: object) -> None:
        logger.info("from the job")
        raise ValueError

    def handle(*_: object) -> None:
        logger.info("from the handler")
        seen(current_run().run_id)

    with stage(kind, lambda jobs: jobs.add_background_job(job_class(colour, act, handle), key="k", trigger=now())):
        (run_id,) = seen.wait()
    extras = {r["message"]: r["extra"] for r in records if r["message"].startswith("from")}
    assert extras["from the job"] == extras["from the handler"]
    assert extras["from the job"].keys() == {"job", "run_id", "scheduled_at"}
    assert (extras["from the job"]["job"], extras["from the job"]["run_id"]) == ("k", run_id)


def test_successes_are_logged_only_when_asked(kind: str, records: Any) -> None:
    """``log_runs`` adds one record a successful run, with its duration."""
    seen = Waiter()
    with stage(kind, lambda jobs: jobs.add_background_job(lambda: seen(), key="quiet", trigger=now())):
        seen.wait()
    assert not [text for text in records.texts() if "quiet" in text and " is warm on " not in text]
    with stage(kind, lambda jobs: jobs.add_background_job(lambda: seen(), key="loud", trigger=now()), log_runs=True):
        seen.wait(2)
    assert any(text.startswith("job 'loud' succeeded in 0.") for text in records.texts("INFO"))


def test_plain_apscheduler_never_awaits_a_coroutine_on_threads() -> None:
    """What bgjobs mends: alone, a thread scheduler reports success for an ``async def`` whose body never ran."""
    seen = Waiter()
    ran = []

    async def job() -> None:
        ran.append(1)

    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_listener(lambda event: (event.retval.close(), seen()), EVENT_JOB_EXECUTED)  # type: ignore[func-returns-value]
    scheduler.add_job(job, now())
    scheduler.start()
    seen.wait()
    scheduler.shutdown()
    assert ran == []
