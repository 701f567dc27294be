"""`around_run` and `on_run_end`: what surrounds a run, and what hears of each one that ended or was not made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from bgjobs import BackgroundJobs, CancellationToken, CurrentRun, InvalidJobError, Outcome, RunReport, current_run
from bgjobs.testing import arun_job, run_job
from stage import (
    LIMIT,
    NIGHTLY,
    Waiter,
    async_scope,
    cold,
    counts,
    fail,
    job_class,
    nothing,
    now,
    often,
    row,
    stage,
    until,
)

VARIABLE: ContextVar[str] = ContextVar("test_hooks", default="unset")


def seven() -> int:
    return 7


async def seven_async() -> int:
    return 7


def hook(colour: str, log: list[str], name: str = "hook") -> Any:
    """A hook of `around_run` that notes what it sees."""

    @contextmanager
    def around(run: CurrentRun) -> Generator[None]:
        VARIABLE.set(name)
        log.append(f"enter {name} {run.key}")
        try:
            yield
        except BaseException as error:
            log.append(f"leave {name} {error!r}")
            raise
        else:
            log.append(f"leave {name}")

    @asynccontextmanager
    async def around_async(run: CurrentRun) -> AsyncGenerator[None]:
        with around(run):
            await asyncio.sleep(0)
            yield

    return around if colour == "sync" else around_async


class Decorated:
    """What a class makes of a function that it decorates: it is bound like a method, and has no name."""

    def __init__(self, func: Callable[[Any], object]) -> None:
        self.func = func

    def __get__(self, _: object, __: object = None) -> Decorated:
        return self

    def __call__(self, argument: Any) -> Any:
        return self.func(argument)


class TestAround:
    def test_the_order(self, kind: str, colour: str) -> None:
        """Hooks are entered outside of the scope and left after on_exception, on every scheduler."""
        log: list[str] = []
        seen = Waiter()

        def act(*_: object) -> None:
            log.append(f"act {VARIABLE.get()}")
            raise ValueError("boom")

        def on_exception(*_: object) -> None:
            log.append(f"handle {current_run().key}")

        @contextmanager
        def scope(job_type: Any) -> Generator[Any]:
            log.append("scope")
            yield job_type()
            log.append("unreachable")

        def register(jobs: BackgroundJobs) -> None:
            jobs.around_run(hook("sync", log, "outer"))
            jobs.around_run(hook(colour, log, "inner"))
            jobs.on_run_end(seen)
            jobs.add_background_job(job_class(colour, act, on_exception), key="k", trigger=now())

        with stage(kind, register, resolver=scope):
            seen.wait()
        boom = "ValueError('boom')"
        assert log == [
            *("enter outer k", "enter inner k", "scope", "act inner", "handle k"),
            *(f"leave inner {boom}", f"leave outer {boom}"),
        ]

    @pytest.mark.parametrize("around", ["sync", "async"])
    def test_after_a_success(self, colour: str, around: str) -> None:
        """Hooks are left without an error, after the scope."""
        log: list[str] = []
        jobs = cold(resolver=async_scope)
        jobs.around_run(hook(around, log))
        jobs.add_background_job(job_class(colour, lambda *_: log.append("act")), key="k", cron=NIGHTLY)
        assert run_job(jobs, "k").outcome == "succeeded"
        assert log == ["enter hook k", "act", "leave hook"]

    def test_none_is_no_context_manager_to_enter(self) -> None:
        """A hook may have nothing to hold open."""
        seen: list[CurrentRun] = []
        jobs = cold().add_background_job(nothing, cron=NIGHTLY)
        jobs.around_run(seen.append)
        assert run_job(jobs, "nothing").outcome == "succeeded"
        assert [run.key for run in seen] == ["nothing"]

    def test_it_sees_a_scope_that_cannot_be_closed(self) -> None:
        """An error of the scope is that of the run: on_exception hears of it inside the hook."""
        log: list[str] = []

        @contextmanager
        def scope(job_type: Any) -> Generator[Any]:
            yield job_type()
            raise OSError("cannot commit")

        jobs = cold(resolver=scope)
        jobs.around_run(hook("sync", log))
        job = job_class("sync", lambda *_: None, lambda *_: log.append("handle"))
        jobs.add_background_job(job, key="k", cron=NIGHTLY)
        assert run_job(jobs, "k").outcome == "failed"
        assert log == ["enter hook k", "handle", "leave hook OSError('cannot commit')"]

    @pytest.mark.parametrize("where", ["call", "enter", "exit", "type"])
    def test_one_that_raises_harms_nobody(self, where: str, colour: str, records: Any) -> None:
        """Whatever a hook raises is logged; the run and the other hooks are as without it."""
        log: list[str] = []

        @contextmanager
        def raises(_: CurrentRun) -> Generator[None]:
            if where == "enter":
                raise RuntimeError("not now")
            yield
            raise RuntimeError("not now")

        def faulty(run: CurrentRun) -> Any:
            if where == "call":
                raise SystemExit("not now")
            return "text" if where == "type" else raises(run)

        jobs = cold()
        jobs.around_run(hook("sync", log, "outer"))
        jobs.around_run(faulty)
        jobs.around_run(hook("async", log, "inner"))
        jobs.add_background_job(job_class(colour, lambda *_: log.append("act")), key="k", cron=NIGHTLY)
        assert run_job(jobs, "k").outcome == "succeeded"
        assert log == ["enter outer k", "enter inner k", "act", "leave inner", "leave outer"]
        (error,) = records.texts("ERROR")
        assert error.startswith("around_run ")
        assert "faulty of job 'k' raised" in error
        assert ("it returned 'text'" if where == "type" else "not now") in error

    @pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, BaseException])
    @pytest.mark.parametrize("where", ["call", "enter", "enter async"])
    def test_one_that_raises_no_exception_harms_nobody(
        self, where: str, error: type[BaseException], colour: str, records: Any
    ) -> None:
        """A cancellation that nobody has asked for, and all else that is no `Exception`, is logged and costs no run."""

        class Faulty:
            def __enter__(self) -> None:
                raise error

            def __exit__(self, *_: object) -> None: ...

        @asynccontextmanager
        async def faulty_async(_: CurrentRun) -> AsyncGenerator[None]:
            raise error
            yield

        def faulty(run: CurrentRun) -> Any:
            if where == "call":
                raise error
            return Faulty() if where == "enter" else faulty_async(run)

        jobs = cold()
        jobs.around_run(faulty)
        jobs.add_background_job(seven if colour == "sync" else seven_async, key="k", cron=NIGHTLY)
        assert run_job(jobs, "k").value == 7
        (logged,) = records.texts("ERROR")
        assert f"faulty of job 'k' raised {error.__name__}" in logged

    def test_one_without_a_name_of_its_own(self) -> None:
        """A hook may be what a class makes of a function that it decorates."""
        jobs = cold()
        jobs.around_run(Decorated(lambda _: None))
        jobs.add_background_job(seven, key="k", cron=NIGHTLY)
        assert run_job(jobs, "k").value == 7

    def test_one_that_raises_the_error_of_the_run_says_nothing_new(self, records: Any) -> None:
        """It may hand the error on as it likes, and the log has it once."""

        class Around:
            def __enter__(self) -> None: ...

            def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
                assert error is not None
                raise error

        jobs = cold().add_background_job(lambda: 1 / 0, key="k", cron=NIGHTLY)
        jobs.around_run(lambda run: Around())
        assert run_job(jobs, "k").outcome == "failed"
        assert records.texts("ERROR") == ["job 'k' failed: ZeroDivisionError: division by zero"]

    def test_one_cannot_change_the_outcome(self) -> None:
        """A context manager that suppresses errors does not make a failed run succeed."""

        @contextmanager
        def suppressing(_: CurrentRun) -> Generator[None]:
            with pytest.raises(ZeroDivisionError):
                yield

        jobs = cold().add_background_job(lambda: 1 / 0, key="k", cron=NIGHTLY)
        jobs.around_run(suppressing)
        assert run_job(jobs, "k").outcome == "failed"

    @pytest.mark.parametrize("where", ["enter", "exit"])
    def test_an_async_one_that_hangs_is_given_up(self, where: str, colour: str, waits: Any, records: Any) -> None:
        """After a minute its code is cancelled, and the run goes on."""
        waits.handler = 0.01

        @asynccontextmanager
        async def hangs(_: CurrentRun) -> AsyncGenerator[None]:
            if where == "enter":
                await asyncio.sleep(LIMIT)
            yield
            await asyncio.sleep(LIMIT)

        jobs = cold().add_background_job(job_class(colour, lambda *_: None), key="k", cron=NIGHTLY)
        jobs.around_run(hangs)
        assert run_job(jobs, "k").outcome == "succeeded"
        (error,) = records.texts("ERROR")
        assert "TimeoutError" in error

    def test_a_cancelled_run(self) -> None:
        """A hook sees the cancellation of a run; one that is cancelled while it is entered makes no run."""
        log: list[str] = []
        jobs = cold(shutdown_timeout=0.01)
        jobs.around_run(hook("async", log))

        async def forever() -> None:
            await asyncio.sleep(LIMIT)

        jobs.add_background_job(forever, key="k", cron=NIGHTLY, run_immediately=True)
        with jobs:
            until(lambda: row(jobs, "k").running)
        assert log == ["enter hook k", "leave hook CancelledError()"]

        @asynccontextmanager
        async def slow(_: CurrentRun) -> AsyncGenerator[None]:
            log.append("slow")
            await asyncio.sleep(LIMIT)
            yield

        jobs.around_run(slow)
        with jobs:
            until(lambda: "slow" in log)
        assert row(jobs, "k").outcomes["cancelled"] == 2

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            pytest.param("text", "around_run must be a function that takes the CurrentRun, not 'text'", id="text"),
            pytest.param(lambda: None, "around_run must take exactly one argument, the CurrentRun", id="argument"),
            pytest.param(lambda run: (yield), "around_run contains a yield", id="generator"),
        ],
    )
    def test_what_is_no_hook_is_refused(self, wrong: Any, message: str) -> None:
        """At once, with what would be right."""
        with pytest.raises(InvalidJobError, match=message):
            cold().around_run(wrong)


class TestOnRunEnd:
    def test_runs_and_occurrences_that_do_not_run(self, kind: str, colour: str) -> None:
        """Functions and classes, on every scheduler: how each run ended, and why an occurrence did not run."""
        reports = Waiter()
        release = threading.Event()

        def act(*_: object) -> None:
            assert release.wait(LIMIT)
            raise ValueError("boom")

        def register(jobs: BackgroundJobs) -> None:
            jobs.on_run_end(reports)
            jobs.add_background_job(job_class("sync", act), key="k", trigger=often())
            jobs.add_background_job(seven if colour == "sync" else seven_async, key="f", trigger=now())

        with stage(kind, register) as jobs:
            until(lambda: row(jobs, "k").not_run["overlapped"])
            release.set()
            until(lambda: {r.outcome for r in reports.seen} >= {"overlapped", "failed", "succeeded"})
        failed = next(report for report in reports.seen if report.outcome == Outcome.FAILED)
        assert (failed.key, repr(failed.error), failed.reason) == ("k", "ValueError('boom')", None)
        assert failed.seconds > 0
        assert timedelta(0) <= failed.started_at - failed.scheduled_at < timedelta(seconds=LIMIT)
        skipped = next(report for report in reports.seen if report.outcome == Outcome.OVERLAPPED)
        assert (skipped.run_id, skipped.started_at, skipped.seconds, skipped.error) == (None, None, 0.0, None)
        assert skipped.reason.startswith("still running since ")
        succeeded = next(report for report in reports.seen if report.key == "f")
        assert (succeeded.outcome, succeeded.value) == ("succeeded", 7)
        assert (
            len([report for report in reports.seen if report.outcome == "overlapped"])
            == row(jobs, "k").not_run["overlapped"]
        )

    @pytest.mark.parametrize("way", ["resume", "reschedule", "close"])
    def test_what_a_pause_has_cost(self, way: str) -> None:
        """One report stands for all occurrences of a schedule that was paused; it has the first one's time."""
        seen: list[RunReport] = []
        trigger = often()
        jobs = cold().add_background_job(nothing, key="k", trigger=trigger)
        jobs.on_run_end(seen.append)
        jobs.pause("k")
        with jobs:
            until(lambda: datetime.now(UTC) > trigger.start_date + timedelta(seconds=0.2))
            if way != "close":
                getattr(jobs, way)("k", **({} if way == "resume" else {"cron": NIGHTLY}))
        (report,) = [report for report in seen if report.outcome == "paused"]
        assert report.reason == f"the job was paused for {counts(jobs, 'k')['paused']} runs"
        assert trigger.start_date <= report.scheduled_at

    def test_an_async_observer(self, kind: str) -> None:
        """Its code runs in the event loop of the jobs, and is awaited."""
        seen = Waiter()

        async def observe(report: RunReport) -> None:
            await asyncio.sleep(0)
            seen(report.outcome)

        def register(jobs: BackgroundJobs) -> None:
            jobs.on_run_end(observe)
            jobs.add_background_job(nothing, trigger=now())

        with stage(kind, register):
            assert seen.wait() == ["succeeded"]

    def test_one_that_raises_or_hangs_harms_nobody(self, waits: Any, records: Any) -> None:
        """The others hear of the run, which is over long before; health names the one that hangs."""
        waits.overdue, waits.close = 0.0, 0.05
        seen, release, hangs = Waiter(), threading.Event(), threading.Event()
        jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)

        @jobs.on_run_end
        def raises(_: RunReport) -> None:
            raise ValueError("a fault of mine")

        jobs.on_run_end(seen)

        @jobs.on_run_end
        def hanging(_: RunReport) -> None:
            hangs.set()
            assert release.wait(LIMIT)

        with jobs:
            assert jobs.wait(jobs.run_now("k"), LIMIT).outcome == "succeeded"
            assert hangs.wait(LIMIT)
            assert jobs.wait(jobs.run_now("k"), LIMIT).outcome == "succeeded"
            assert any("an observer of on_run_end has not returned for" in text for text in jobs.health().problems)
        assert len(seen.seen) == 1  # the close does not wait for ever, and says so
        assert "an observer of on_run_end has not returned; it has not heard of every run" in records.texts("WARNING")
        with jobs:
            jobs.wait(jobs.run_now("k"), LIMIT)
        release.set()
        assert len(seen.wait(3)) == 3
        assert "raises of the runs of job 'k' raised ValueError: a fault of mine" in records.texts("ERROR")[0]

    def test_one_that_hangs_holds_up_no_record(self, records: Any) -> None:
        """The log says at once what an executor has refused, which APScheduler tells while it holds its locks."""
        full = ThreadPoolExecutor(1)
        jobs = cold(BackgroundScheduler(executors={"default": ThreadPoolExecutor(1), "full": full}))
        jobs.add_background_job(nothing, key="k", cron=NIGHTLY)
        jobs.add_background_job(nothing, key="refused", cron=NIGHTLY, executor="full")
        hangs, release = threading.Event(), threading.Event()

        @jobs.on_run_end
        def hanging(_: RunReport) -> None:
            hangs.set()
            assert release.wait(2 * LIMIT)

        with jobs:
            jobs.run_now("k")
            assert hangs.wait(LIMIT)
            full._pool.shutdown()
            jobs.run_now("refused")
            until(lambda: any("took no more work" in text for text in records.texts("WARNING")))
            release.set()

    def test_one_without_a_name_of_its_own_may_raise(self, records: Any) -> None:
        """The log says of what type it is, and the others hear of the run."""
        seen: list[RunReport] = []
        jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)
        jobs.on_run_end(Decorated(fail))
        jobs.on_run_end(seen.append)
        run_job(jobs, "k")
        assert [report.key for report in seen] == ["k"]
        assert (
            "the observer an object of type Decorated of the runs of job 'k' raised ValueError: boom" in records.texts()
        )

    def test_an_async_one_that_hangs_is_cancelled(self, waits: Any, records: Any) -> None:
        """After a minute, with a line in the log."""
        waits.handler = 0.01

        async def hangs(_: RunReport) -> None:
            await asyncio.sleep(LIMIT)

        jobs = cold().add_background_job(nothing, cron=NIGHTLY)
        jobs.on_run_end(hangs)
        run_job(jobs, "nothing")
        until(lambda: records.texts("ERROR"))
        assert "TimeoutError" in records.texts("ERROR")[0]

    def test_what_piles_up_is_dropped_and_told(self, records: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Reports for an observer that takes too long do not fill the memory."""
        monkeypatch.setattr("bgjobs._runs.observers.MOST", 2)
        hangs, release, seen = threading.Event(), threading.Event(), Waiter()
        jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)

        @jobs.on_run_end
        def hanging(report: RunReport) -> None:
            hangs.set()
            assert release.wait(LIMIT)
            seen(report)

        with jobs:
            for _ in range(6):
                jobs.wait(jobs.run_now("k"), LIMIT)
                assert hangs.wait(LIMIT)
            release.set()
            assert len(seen.wait(3)) == 3
        assert records.texts("WARNING") == ["3 reports of runs were dropped: an observer of on_run_end took too long"]

    def test_a_close_waits_for_observers(self) -> None:
        """What has happened until the close has been observed when that returns."""
        seen: list[str] = []
        jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY, run_immediately=True)
        jobs.on_run_end(lambda report: seen.append(report.outcome))
        with jobs:
            until(lambda: row(jobs, "k").outcomes["succeeded"])
        assert seen == ["succeeded"]
        assert "bgjobs-observers" not in [thread.name for thread in threading.enumerate()]

    def test_one_may_close_the_jobs(self) -> None:
        """A close that an observer asks for does not wait for the observer."""
        asked = threading.Event()
        jobs = cold(BackgroundScheduler()).add_background_job(nothing, key="k", cron=NIGHTLY, run_immediately=True)

        @jobs.on_run_end
        def stop(_: RunReport) -> None:
            jobs.close()
            asked.set()

        runner = threading.Thread(target=jobs.run)
        runner.start()
        assert asked.wait(LIMIT)
        runner.join(LIMIT)
        assert not runner.is_alive()
        assert not jobs.is_warm

    async def test_the_test_kit_waits_for_observers(self) -> None:
        """A run of the test kit, in a coroutine, too, has been observed when it returns."""
        seen: list[str] = []
        jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)

        @jobs.on_run_end
        async def observe(report: RunReport) -> None:
            seen.append(report.outcome)

        await arun_job(jobs, "k")
        assert seen == ["succeeded"]
        await asyncio.to_thread(run_job, jobs, "k")
        assert seen == ["succeeded"] * 2

    def test_without_threads_reports_wait_for_the_close(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no thread can be started, nothing is lost."""
        seen: list[str] = []
        jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)
        jobs.on_run_end(lambda report: seen.append(report.outcome))

        def refuse(thread: threading.Thread, start: Any = threading.Thread.start) -> None:
            if thread.name == "bgjobs-observers":
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)
        with jobs:
            jobs.wait(jobs.run_now("k"), LIMIT)
            assert seen == []
        assert seen == ["succeeded"]

    def test_the_thread_ends_and_starts_again(self, waits: Any) -> None:
        """With nothing to report for some seconds, no thread stays; the next report starts another."""
        waits.linger = 0.01
        seen = Waiter()
        jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)
        jobs.on_run_end(seen)
        with jobs:
            for times in (1, 2):
                jobs.run_now("k")
                seen.wait(times)
                until(lambda: "bgjobs-observers" not in [thread.name for thread in threading.enumerate()])

    def test_a_cancelled_run(self) -> None:
        """It has its report, with the outcome and no error."""
        reports = Waiter()
        jobs = cold(shutdown_timeout=0.01)
        jobs.on_run_end(reports)

        async def forever(cancellation_token: CancellationToken) -> None:
            await asyncio.sleep(LIMIT)

        jobs.add_background_job(forever, key="k", cron=NIGHTLY, run_immediately=True)
        with jobs:
            until(lambda: row(jobs, "k").running)
        assert [(report.outcome, report.error) for report in reports.seen] == [("cancelled", None)]

    def test_a_decorated_function_is_unchanged(self) -> None:
        """The decorators return what they are given."""
        jobs = cold()
        assert jobs.on_run_end(nothing_with) is nothing_with
        assert jobs.around_run(nothing_with) is nothing_with

    def test_what_is_no_observer_is_refused(self) -> None:
        """At once, with what would be right."""
        with pytest.raises(InvalidJobError, match="on_run_end must take exactly one argument, the RunReport"):
            cold().on_run_end(lambda: None)  # type: ignore[type-var]


def nothing_with(_: object) -> None:
    """Neither a scope nor an effect."""


def test_times_of_a_report_are_aware() -> None:
    """They are in UTC."""
    reports = Waiter()
    jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)
    jobs.on_run_end(reports)
    run_job(jobs, "k")
    (report,) = reports.wait()
    assert report.scheduled_at.tzinfo is UTC
    assert datetime.now(UTC) - report.started_at < timedelta(minutes=1)
