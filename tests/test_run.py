"""The life of one run, the same on every scheduler."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger
from loguru import logger
from loguru._logger import context

from bgjobs import BackgroundJobs, CancellationToken, Cancelled, CurrentRun, LifecycleError, Resolver, current_run
from bgjobs.testing import arun_job
from stage import CLASSES, LIMIT, Waiter, cold, now, often, stage, until, warm

YEARLY = "0 0 0 1 1 *"


@pytest.fixture(name="colour", params=["async", "sync"])
def _colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def method(colour: str, body: Callable[..., Any]) -> Callable[..., Any]:
    """A sync or async method that does the same, with the signature (self, cancellation_token)."""
    if colour == "sync":
        return lambda self, cancellation_token: body(self, cancellation_token)

    async def coroutine(self: Any, cancellation_token: CancellationToken) -> Any:
        return body(self, cancellation_token)

    return coroutine


def handler(colour: str, body: Callable[..., Any]) -> Callable[..., Any]:
    if colour == "sync":
        return lambda self, exception: body(self, exception)

    async def coroutine(self: Any, exception: Exception) -> Any:
        return body(self, exception)

    return coroutine


def job_class(colour: str, act: Callable[..., Any], handle: Callable[..., Any] | None = None) -> type[Any]:
    members = {"action_to_do": method(colour, act)}
    if handle is not None:
        members["on_exception"] = handler(colour, handle)
    return type("SomeJob", (), members)


def boom(*_: object) -> None:
    raise ValueError("boom")


def owner() -> object:
    """The task or thread that this code runs in."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return threading.current_thread()


def recording_resolver(log: Callable[[Any], object], flavour: str) -> Resolver:
    """A resolver, sync or async, that tells when its scope opens and closes, and what went through it."""

    @contextmanager
    def scope(job_type: type[Any]) -> Generator[Any]:
        log(("open", owner()))
        try:
            yield job_type()
        except BaseException as exc:
            log(("close", owner(), exc))
            raise
        log(("close", owner(), None))

    @asynccontextmanager
    async def async_scope(job_type: type[Any]) -> AsyncGenerator[Any]:
        with scope(job_type) as instance:
            yield instance

    return scope if flavour == "sync" else async_scope


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

    def test_a_sync_job_does_not_block_the_event_loop(self) -> None:
        """On the asyncio scheduler a sync job runs in a thread beside the loop."""
        seen = Waiter()
        with stage("asyncio", lambda jobs: jobs.add_background_job(lambda: seen(owner()), key="sync", trigger=now())):
            assert isinstance(seen.wait()[0], threading.Thread)

    def test_other_listeners_see_the_value_of_a_function(self, kind: str) -> None:
        """A function's return value stays the ``retval`` of APScheduler's event."""
        seen = Waiter()
        jobs = cold(CLASSES[kind](timezone="UTC"))
        scheduler = jobs._lifecycle.given.scheduler  # type: ignore[union-attr]
        scheduler.add_listener(lambda event: seen((event.job_id, event.retval)), EVENT_JOB_EXECUTED)
        jobs.add_background_job(lambda: 42, key="answer", trigger=now())
        with warm(kind, jobs):
            assert seen.wait() == [("bgjobs:answer", 42)]


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
        with stage(kind, lambda jobs: jobs.add_background_job(boom, trigger=now(), on_exception=seen)):
            assert repr(seen.wait()) == "[ValueError('boom')]"

    def test_apscheduler_sees_the_failure(self, kind: str, colour: str) -> None:
        """The scheduler fires its error event with the exception, for everybody who listens."""
        seen = Waiter()
        jobs = cold(CLASSES[kind](timezone="UTC"))
        scheduler = jobs._lifecycle.given.scheduler  # type: ignore[union-attr]
        scheduler.add_listener(lambda event: seen((event.job_id, repr(event.exception))), EVENT_JOB_ERROR)
        jobs.add_background_job(job_class(colour, boom), key="k", trigger=now())
        with warm(kind, jobs):
            assert seen.wait() == [("bgjobs:k", "ValueError('boom')")]

    def test_each_failure_is_logged_and_its_traceback_once(
        self, kind: str, colour: str, records: Any, apscheduler_records: Any
    ) -> None:
        """bgjobs logs one error for a failed run, and only APScheduler's record has the traceback."""
        seen = Waiter()
        job = job_class(colour, boom, lambda *_: seen())
        with stage(kind, lambda jobs: jobs.add_background_job(job, trigger=now(), key="k")):
            seen.wait()
        (ours,) = [r for r in records if r["level"].name == "ERROR"]
        (theirs,) = [r for r in apscheduler_records if r.exc_info]
        assert ours["message"] == "job 'k' failed: ValueError: boom"
        assert ours["exception"] is None
        assert {"job", "run_id", "scheduled_at", "duration_ms"} <= ours["extra"].keys()
        assert theirs.exc_info[0] is ValueError

    def test_a_handler_that_raises_leaves_the_schedule(self, kind: str, colour: str, records: Any) -> None:
        """A job that fails at every tick, with a handler that fails too, goes on, and all of it is in the log."""
        seen = Waiter()

        def handle(*_: object) -> None:
            seen()
            raise RuntimeError("worse")

        with stage(
            kind, lambda jobs: jobs.add_background_job(job_class(colour, boom, handle), key="k", trigger=often())
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
            seen(("acted", id(self)))
            raise shared

        def sync_act(self: Any, _: object) -> None:
            both.wait(LIMIT)
            act(self, _)

        job = job_class(colour, act if colour == "async" else sync_act, lambda self, _: seen(("handled", id(self))))

        def register(jobs: BackgroundJobs) -> None:
            jobs.add_background_job(job, key="one", trigger=now()).add_background_job(job, key="two", trigger=now())

        with stage(kind, register):
            events = seen.wait(4)
        acted = {i for what, i in events if what == "acted"}
        assert len(acted) == 2
        assert acted == {i for what, i in events if what == "handled"}

    def test_a_slow_handler_holds_nobody_up(self, kind: str, colour: str) -> None:
        """While one ``on_exception`` takes its time, other jobs tick, and so does the failed job itself."""
        seen, release, started = Waiter(), threading.Event(), threading.Event()

        def handle(*_: object) -> None:
            started.set()
            release.wait(LIMIT)

        failing = job_class("sync", boom)
        failing.on_exception = handler("sync", handle)
        failing.action_to_do = method(colour, boom)

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
        job = job_class("sync", boom, lambda *_: seen(threading.current_thread().name))
        with stage("background", lambda j: j.add_background_job(job, trigger=IntervalTrigger(seconds=0.002))):
            assert {name.split("-")[0] for name in seen.wait(200)} == {"ThreadPoolExecutor"}


class TestScopes:
    @pytest.mark.parametrize("flavour", ["sync", "async"])
    @pytest.mark.parametrize("fails", [False, True])
    def test_scope_action_handler_and_closing_have_one_owner(
        self, kind: str, colour: str, flavour: str, fails: bool
    ) -> None:
        """The scope is opened, used, told of the failure and closed in one task or thread, exactly once."""
        seen = Waiter()
        variable: ContextVar[str] = ContextVar("variable", default="unset")

        def act(*_: object) -> None:
            variable.set("by the action")
            seen(("act", owner()))
            if fails:
                raise ValueError("boom")

        job = job_class(colour, act, lambda *_: seen(("handle", owner(), variable.get())))
        resolver = recording_resolver(seen, flavour)
        expected = ["open", "act", "handle", "close"] if fails else ["open", "act", "close"]
        with stage(kind, lambda jobs: jobs.add_background_job(job, trigger=now()), resolver=resolver):
            events = seen.wait(len(expected))
        assert [event[0] for event in events] == expected
        if colour == flavour or flavour == "sync":
            assert len({event[1] for event in events}) == 1
            assert not fails or events[2][2] == "by the action"
        else:  # sync code of an async scope goes to a thread, so as not to block the loop
            assert events[0][1] is events[-1][1]
        assert repr(events[-1][2]) == ("ValueError('boom')" if fails else "None")

    def test_a_constructor_that_raises_is_a_failed_run(self, kind: str, records: Any) -> None:
        """There is no instance to handle it; the log says so, and the schedule goes on."""
        seen = Waiter()

        class Broken:
            def __init__(self) -> None:
                seen()
                raise OSError("no connection")

            def action_to_do(self) -> None: ...
            def on_exception(self, exception: Exception) -> None:
                seen("handled")

        with stage(kind, lambda jobs: jobs.add_background_job(Broken, trigger=often())):
            assert set(seen.wait(2)) == {None}
        assert "job 'Broken' failed: OSError: no connection (no instance" in records.texts("ERROR")[0]

    @pytest.mark.parametrize("flavour", ["sync", "async"])
    def test_a_scope_that_raises_on_entry_is_a_failed_run(
        self, kind: str, colour: str, flavour: str, records: Any
    ) -> None:
        """The action is not run, the log tells why, and the schedule goes on."""
        seen = Waiter()

        @contextmanager
        def scope(job_type: type[Any]) -> Generator[Any]:
            seen("entered")
            raise OSError("pool exhausted")
            yield job_type()

        @asynccontextmanager
        async def async_scope(job_type: type[Any]) -> AsyncGenerator[Any]:
            with scope(job_type) as instance:
                yield instance

        job = job_class(colour, lambda *_: seen("acted"))
        resolver: Resolver = scope if flavour == "sync" else async_scope
        with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=often()), resolver=resolver):
            assert set(seen.wait(2)) == {"entered"}
        assert "job 'k' failed: OSError: pool exhausted" in records.texts("ERROR")[0]

    def test_a_scope_that_raises_on_exit_fails_a_good_run(self, kind: str, colour: str, records: Any) -> None:
        """A commit that fails at the end is a failed run, and the instance hears of it."""
        seen = Waiter()

        @contextmanager
        def scope(job_type: type[Any]) -> Generator[Any]:
            yield job_type()
            raise OSError("commit failed")

        job = job_class(colour, lambda *_: seen("acted"), lambda _, exc: seen(repr(exc)))
        with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=now()), resolver=scope):
            assert seen.wait(2) == ["acted", "OSError('commit failed')"]
        assert records.texts("ERROR") == ["job 'k' failed: OSError: commit failed"]

    def test_a_scope_that_raises_on_exit_after_a_failure_is_logged(self, kind: str, colour: str, records: Any) -> None:
        """Both errors are in the log; the handler hears of the first only."""
        seen = Waiter()

        @contextmanager
        def scope(job_type: type[Any]) -> Generator[Any]:
            try:
                yield job_type()
            finally:
                seen("closing")
                raise OSError("rollback failed")

        job = job_class(colour, boom, lambda _, exc: seen(repr(exc)))
        with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=now()), resolver=scope):
            assert seen.wait(2) == ["ValueError('boom')", "closing"]
        assert records.texts("ERROR") == [
            "job 'k' failed: ValueError: boom",
            "the scope of job 'k' raised when it was closed: OSError: rollback failed",
        ]

    def test_a_resolver_without_a_context_manager_is_told_so(self, kind: str, records: Any) -> None:
        """A resolver that forgot its decorator fails the run with the remedy."""
        seen = Waiter()
        job = job_class("sync", seen)
        resolver: Any = lambda job_type: job_type()  # noqa: E731
        with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=now()), resolver=resolver):
            until(lambda: records.texts("ERROR"))
        assert "which is no context manager; decorate it with contextlib" in records.texts("ERROR")[0]

    def test_functions_have_no_scope(self, kind: str) -> None:
        """The resolver is asked for classes only."""
        seen = Waiter()
        resolver = recording_resolver(seen, "sync")
        with stage(
            kind, lambda jobs: jobs.add_background_job(lambda: seen("f"), key="f", trigger=now()), resolver=resolver
        ):
            assert seen.wait() == ["f"]


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
        assert "takes no cancellation_token and cannot hear it" in records.texts("WARNING")[0]

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

    def test_a_job_that_heeds_its_token_while_closing_is_cancelled(self, kind: str, colour: str, records: Any) -> None:
        """It is no failure; other listeners see `Cancelled`."""
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

        jobs = cold(CLASSES[kind](timezone="UTC"))
        scheduler = jobs._lifecycle.given.scheduler  # type: ignore[union-attr]
        scheduler.add_listener(lambda event: values(event.retval), EVENT_JOB_EXECUTED)
        jobs.add_background_job(Polite if colour == "async" else SyncPolite, key="k", trigger=now())
        with warm(kind, jobs):
            seen.wait()
        assert values.wait() == [Cancelled()]
        assert records.texts("WARNING") == ["job 'k' was cancelled"]
        assert records.texts("ERROR") == []


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
    assert records.texts("INFO") == ["jobs without a time zone of their own run in the scheduler's: UTC"]
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


class TestWhatARunLeaves:
    @pytest.mark.parametrize(
        ("flavour", "fails"), [(None, False), (None, True), ("sync", False), ("sync", True), ("async", False)]
    )
    def test_the_instance_is_freed_at_once(self, kind: str, colour: str, flavour: str | None, fails: bool) -> None:
        """It goes when its run is over: nothing holds it in a circle, until the garbage collector comes."""
        instances: list[weakref.ref[Any]] = []

        def act(self: Any, _: object) -> None:
            instances.append(weakref.ref(self))
            if fails:
                raise ValueError

        job = job_class(colour, act, lambda *_: None)
        resolver = recording_resolver(lambda _: None, flavour) if flavour else None
        gc.collect()
        gc.disable()
        try:
            with stage(kind, lambda jobs: jobs.add_background_job(job, trigger=often()), resolver=resolver):
                until(lambda: len(instances) >= 3)
                until(lambda: instances[0]() is None)
        finally:
            gc.enable()

    @pytest.mark.parametrize("fails", [False, True])
    async def test_the_context_is_as_it_was(self, records: Any, fails: bool) -> None:
        """After a run, code that waited for it belongs to no run, nor do its records."""

        async def act() -> None:
            logger.info("inside")
            if fails:
                raise ValueError

        jobs = cold().add_background_job(act, key="k", cron=YEARLY)
        with logger.contextualize(request="r"):
            await arun_job(jobs, "k")
            logger.info("outside")
            with pytest.raises(LifecycleError, match="outside a run"):
                current_run()
        inside, outside = (record["extra"] for record in records if record["level"].name == "INFO")
        assert outside == {"request": "r"}
        assert inside.keys() == {"request", "job", "run_id", "scheduled_at"}

    def test_inside_it_what_loguru_binds_is_a_mapping_as_before(self, kind: str) -> None:
        """For whoever looks at the context of loguru, and for `contextualize` inside the job."""
        seen = Waiter()

        def act() -> None:
            bound = context.get()
            with logger.contextualize(step=2):
                seen((len(bound), bound["job"], sorted(context.get())))

        with stage(kind, lambda jobs: jobs.add_background_job(act, trigger=now())):
            assert seen.wait() == [(3, "act", ["job", "run_id", "scheduled_at", "step"])]

    async def test_a_run_leaves_the_context_of_its_task(self, records: Any) -> None:
        """What APScheduler's own task does after a run that went well belongs to no run."""

        async def act() -> None:
            logger.info("inside")

        jobs = cold().add_background_job(act, key="k", cron=YEARLY)
        jobs._lifecycle.ledger.reopen()
        await jobs._lifecycle.runner.fire_async("k", "a run", datetime.now(UTC))
        logger.info("outside")
        with pytest.raises(LifecycleError, match="outside a run"):
            current_run()
        inside, outside = (record["extra"] for record in records)
        assert (inside["job"], outside) == ("k", {})
