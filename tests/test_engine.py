"""The run engine under stress: many runs at once, odd errors, and everything around a run that can fail."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import random
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor as Pool
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_SUBMITTED
from apscheduler.executors.pool import BasePoolExecutor, ThreadPoolExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from bgjobs import BackgroundJobs, CancellationToken
from bgjobs.testing import collect, run_job
from stage import (
    CLASSES,
    LIMIT,
    NIGHTLY,
    Scope,
    Times,
    Waiter,
    async_scope,
    cold,
    counts,
    event_loop_in_a_thread,
    eventually,
    fail,
    job_class,
    left_behind,
    nothing,
    now,
    often,
    row,
    stage,
    until,
    warm,
)

current: ContextVar[Any] = ContextVar("current", default=None)


class TestOneOwner:
    """Hundreds of failing runs at once; none of them sees another thread, task or context than its scope did."""

    def test_in_a_thread_pool(self) -> None:
        """A connection that belongs to its thread, and a context variable, are there from the scope to its closing."""
        wrong, handled, closed = Waiter(), Waiter(), Waiter()

        @contextmanager
        def scope(job_type: type[Any]) -> Generator[Any]:
            instance = job_type()
            current.set(instance)
            instance.thread, instance.connection = threading.get_ident(), sqlite3.connect(":memory:")
            try:
                yield instance
            finally:
                check(instance, "closing")
                instance.connection.close()
                closed()

        def check(instance: Any, where: str) -> None:
            if threading.get_ident() != instance.thread or current.get() is not instance:
                wrong(where)
            instance.connection.execute("select 1")

        class Job:
            def action_to_do(self) -> None:
                check(self, "action")
                raise ValueError("boom")

            def on_exception(self, exception: Exception) -> None:
                check(self, "on_exception")
                handled()

        scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(8)})
        jobs = cold(scheduler, resolver=scope)
        for n in range(30):
            jobs.add_background_job(Job, key=f"job-{n}", trigger=often())
        with jobs:
            handled.wait(300)
        assert wrong.seen == []
        assert len(handled.seen) == len(closed.seen) == sum(row.outcomes["failed"] for row in jobs.status())

    async def test_on_asyncio(self) -> None:
        """An async scope is closed by the task that opened it; its variables reach sync jobs in their threads."""
        wrong, handled, closed = Waiter(), Waiter(), Waiter()

        @asynccontextmanager
        async def scope(job_type: type[Any]) -> AsyncGenerator[Any]:
            instance = job_type()
            current.set(instance)
            instance.task = asyncio.current_task()
            try:
                yield instance
            finally:
                if asyncio.current_task() is not instance.task or current.get() is not instance:
                    wrong("closing")
                closed()

        class Async:
            task: Any

            async def action_to_do(self) -> None:
                await asyncio.sleep(0)
                if asyncio.current_task() is not self.task or current.get() is not self:
                    wrong("async action")
                raise ValueError("boom")

            async def on_exception(self, exception: Exception) -> None:
                if asyncio.current_task() is not self.task or current.get() is not self:
                    wrong("async on_exception")
                handled()

        class Sync:
            def action_to_do(self) -> None:
                self.thread = threading.get_ident()
                if current.get() is not self:
                    wrong("sync action")
                raise ValueError("boom")

            def on_exception(self, exception: Exception) -> None:
                if threading.get_ident() != self.thread or current.get() is not self:
                    wrong("sync on_exception")
                handled()

        jobs = cold(AsyncIOScheduler(timezone="UTC"), resolver=scope)
        for n in range(10):
            jobs.add_background_job(Async, key=f"async-{n}", trigger=often())
            jobs.add_background_job(Sync, key=f"sync-{n}", trigger=often())
        async with jobs:
            await eventually(lambda: len(handled.seen) >= 150)
        assert wrong.seen == []
        assert len(handled.seen) == len(closed.seen) == sum(row.outcomes["failed"] for row in jobs.status())


@contextmanager
def started(kind: str, scheduler: Any) -> Generator[None]:
    """A scheduler that its owner, the test, starts and shuts down."""
    if kind == "asyncio":
        with event_loop_in_a_thread() as loop:
            asyncio.run_coroutine_threadsafe(called(scheduler.start), loop).result(LIMIT)
            yield
            asyncio.run_coroutine_threadsafe(called(scheduler.shutdown), loop).result(LIMIT)
        return
    thread = threading.Thread(target=scheduler.start)
    thread.start()
    if kind == "background":  # its start returns, when its own thread runs
        thread.join(LIMIT)
    until(lambda: scheduler.running)
    yield
    scheduler.shutdown()
    thread.join(LIMIT)


def picture(scheduler: Any) -> dict[str, Any]:
    """Every attribute of the executors, the listeners, and the jobs of a scheduler."""
    return {
        "executors": {
            alias: {n: copy.copy(v) if isinstance(v, dict | set) else v for n, v in vars(executor).items()}
            for alias, executor in scheduler._executors.items()
        },
        "attributes": sorted(vars(scheduler)),
        "listeners": list(scheduler._listeners),
        "jobs": [job.__getstate__() for job in scheduler.get_jobs()],
    }


class TestAGivenScheduler:
    @staticmethod
    def make(kind: str) -> Any:
        """A scheduler with somebody else's job and listener."""
        scheduler = CLASSES[kind](timezone="UTC")
        scheduler.add_executor(ThreadPoolExecutor(2), "threads")
        scheduler.add_listener(nothing, EVENT_JOB_EXECUTED)
        scheduler.add_job(nothing, "cron", hour=3, id="theirs")
        return scheduler

    @staticmethod
    def register(jobs: BackgroundJobs) -> Waiter:
        """Jobs of both colours on each executor, which fail; what their handlers see."""
        seen = Waiter()
        for executor in ("default", "threads"):
            for colour in ("sync", "async"):
                job = job_class(colour, fail, lambda *_: seen())
                jobs.add_background_job(job, key=f"{colour}-{executor}", trigger=often(), executor=executor)
        return seen

    def test_that_was_running_is_as_before_after_the_close(self, kind: str) -> None:
        """Every attribute of its executors, its listeners and its other jobs."""
        scheduler = self.make(kind)
        with started(kind, scheduler):
            before = picture(scheduler)
            jobs = cold(scheduler)
            seen = self.register(jobs)
            jobs.warm_up()
            seen.wait(8)
            jobs.close()
            assert picture(scheduler) == before

    def test_that_warm_up_started_has_nothing_of_ours_after_the_close(self, kind: str) -> None:
        """Its executors have the attributes that any scheduler's have after a shutdown; the rest is as before."""
        plain, scheduler = self.make(kind), self.make(kind)
        with started(kind, plain):
            pass
        jobs = cold(scheduler)
        seen = self.register(jobs)
        with warm(kind, jobs):
            seen.wait(8)
        after, other = picture(scheduler), picture(plain)
        assert {alias: sorted(found) for alias, found in after["executors"].items()} == {
            alias: sorted(found) for alias, found in other["executors"].items()
        }
        for name in ("attributes", "listeners"):
            assert after[name] == other[name]
        assert [job.id for job in scheduler.get_jobs()] == [job.id for job in plain.get_jobs()]

    @pytest.mark.parametrize("kind", ["asyncio", "background"])
    def test_that_two_facades_share_is_given_back_by_the_last(self, kind: str) -> None:
        """After the first is closed the second goes on, and after both are, everything is as before."""
        seen, scheduler = Waiter(), self.make(kind)
        with started(kind, scheduler):
            before = picture(scheduler)
            first = cold(scheduler).add_background_job(fail, key="first", trigger=often()).warm_up()
            second = cold(scheduler)
            second.add_background_job(fail, key="second", trigger=often(), on_exception=lambda _: seen()).warm_up()
            seen.wait()
            first.close()
            seen.wait(len(seen.seen) + 2)
            second.close()
            assert picture(scheduler) == before

    def test_gets_an_executor_while_the_jobs_are_warm(self, kind: str, colour: str) -> None:
        """A job that is registered after that, and names it, runs there and is handled."""
        seen, scheduler = Waiter(), CLASSES[kind](timezone="UTC")
        jobs = cold(scheduler).add_background_job(lambda: seen(), key="first", trigger=now())
        with warm(kind, jobs):
            seen.wait()
            scheduler.add_executor(ThreadPoolExecutor(1), "late")
            job = job_class(colour, fail, lambda _, exc: seen(str(exc)))
            jobs.add_background_job(job, key="k", executor="late", trigger=now())
            assert seen.wait(2)[1] == "boom"
        assert counts(jobs, "k") == {"failed": 1}

    @pytest.mark.parametrize("kind", ["asyncio", "background"])
    def test_may_be_shut_down_by_its_owner_during_a_run(self, kind: str, colour: str) -> None:
        """A run that fails after that, or for that, is handled, and the close is quiet."""
        begun, seen, release = threading.Event(), Waiter(), threading.Event()

        def act() -> None:
            begun.set()
            release.wait(LIMIT)
            raise ValueError("late")

        async def act_async() -> None:
            begun.set()
            with suppress(asyncio.CancelledError):
                await asyncio.to_thread(release.wait, LIMIT)
            raise ValueError("late")

        scheduler = CLASSES[kind](timezone="UTC")
        jobs = cold(scheduler)
        job = act if colour == "sync" else act_async
        jobs.add_background_job(job, key="k", trigger=now(), on_exception=lambda exc: seen(str(exc)))
        with event_loop_in_a_thread() as loop:
            if kind == "asyncio":
                asyncio.run_coroutine_threadsafe(called(scheduler.start), loop).result(LIMIT)
            else:
                scheduler.start()
            jobs.warm_up()
            assert begun.wait(LIMIT)
            until(lambda: scheduler.get_jobs() == [])  # APScheduler's pass over the due jobs is done
            if kind == "asyncio":
                asyncio.run_coroutine_threadsafe(called(scheduler.shutdown), loop).result(LIMIT)
            else:
                scheduler.shutdown(wait=False)
            release.set()
            assert seen.wait() == ["late"]
            jobs.close()
        assert counts(jobs, "k") == {"failed": 1}


@pytest.mark.parametrize("seed", range(15))
def test_a_close_at_any_moment_loses_nothing(kind: str, seed: int) -> None:
    """Every run that began has ended, each failure was handled, and `collect` and `status` tell the same."""
    rng = random.Random(seed)
    began, ended, handled = Waiter(), Waiter(), Waiter()

    def act(_: object, cancellation_token: CancellationToken) -> None:
        began()
        try:
            if began.seen and len(began.seen) % 2:
                raise ValueError("boom")
        finally:
            ended()

    class Waits:
        async def action_to_do(self, cancellation_token: CancellationToken) -> None:
            began()
            try:
                await cancellation_token.wait_async()
                raise ValueError("asked")
            finally:
                ended()

        def on_exception(self, exception: Exception) -> None:
            handled()

    jobs = cold(CLASSES[kind](timezone="UTC"))
    for colour in ("sync", "async"):
        job = job_class(colour, act, lambda *_: handled())
        for n in range(3):
            jobs.add_background_job(job, key=f"{colour}-{n}", trigger=often(), run_immediately=rng.random() < 0.5)
    jobs.add_background_job(Waits, trigger=now())
    with collect(jobs) as results, warm(kind, jobs):
        began.wait(rng.randint(1, 25))
    assert len(began.seen) == len(ended.seen) == len(results)
    assert len(handled.seen) == sum(result.outcome == "failed" for result in results)
    for status in jobs.status():
        found = Counter(result.outcome for result in results if result.key == status.key)
        assert found == {outcome: n for outcome, n in status.outcomes.items() if n}
        assert status.running == 0


class RefusesOnce(BasePoolExecutor):  # type: ignore[misc]
    """An executor that has no thread for the first job that it gets."""

    class Threads(Pool):
        refused = False

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if not self.refused:
                self.refused = True
                raise RuntimeError("can't start new thread")
            return super().submit(fn, *args, **kwargs)

    def __init__(self) -> None:
        super().__init__(self.Threads(2))


def test_an_executor_that_takes_no_work_costs_one_occurrence(kind: str, records: Any) -> None:
    """The occurrence is counted and logged with its reason, and the next fire time runs."""
    seen = Waiter()
    jobs = cold(CLASSES[kind](timezone="UTC", executors={"pool": RefusesOnce()}))
    jobs.add_background_job(lambda: seen(), key="k", trigger=often(), executor="pool")
    with warm(kind, jobs):
        seen.wait(2)
    assert row(jobs, "k").not_run["refused"] == 1
    until(lambda: records.texts("WARNING"))
    assert "was skipped: its executor took no more work (RuntimeError: can't start new" in records.texts("WARNING")[0]


def test_a_refused_occurrence_is_reported_by_the_next_run_where_no_thread_can_be_had(
    monkeypatch: pytest.MonkeyPatch, records: Any
) -> None:
    """Under the locks of APScheduler nothing is logged; a machine out of threads has it logged a little later."""
    seen, start = Waiter(), threading.Thread.start

    def none_left(thread: threading.Thread) -> None:
        if thread.name == "bgjobs-report":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", none_left)
    jobs = cold(BackgroundScheduler(timezone="UTC", executors={"pool": RefusesOnce()}))
    jobs.add_background_job(lambda: seen(), key="k", trigger=often(), executor="pool")
    with jobs:
        seen.wait(2)
    assert any("was skipped: its executor took no more work" in text for text in records.texts("WARNING"))


def test_a_refused_occurrence_is_counted_once() -> None:
    """It is refused, and not coalesced into the next run."""
    seen = Waiter()
    jobs = cold(BackgroundScheduler(timezone="UTC", executors={"pool": RefusesOnce()}))
    jobs.add_background_job(lambda: seen(), key="k", trigger=IntervalTrigger(seconds=0.5), executor="pool")
    with jobs:
        seen.wait()
    assert (row(jobs, "k").not_run["refused"], row(jobs, "k").not_run["coalesced"]) == (1, 0)


def test_a_refused_extra_run_is_counted() -> None:
    """A run by hand that no executor takes has its reason, too, and the schedule is as before."""
    jobs = cold(BackgroundScheduler(timezone="UTC", executors={"pool": RefusesOnce()}))
    jobs.add_background_job(nothing, key="k", cron=NIGHTLY, executor="pool")
    with jobs:
        jobs.run_now("k")
        until(lambda: row(jobs, "k").not_run["refused"])
    assert counts(jobs, "k") == {"refused": 1}


def test_an_observer_that_raises_costs_no_run(records: Any) -> None:
    """It is logged, and the others hear of the run."""
    jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)

    def observe(_: object) -> None:
        raise KeyboardInterrupt

    jobs.on_run_end(observe)
    with collect(jobs) as results:
        assert run_job(jobs, "k").outcome == "succeeded"
    assert [result.key for result in results] == ["k"]
    (error,) = records.texts("ERROR")
    assert error.endswith("observe of the runs of job 'k' raised KeyboardInterrupt: ")


class TestListeners:
    @pytest.mark.parametrize("way", ["raises", "hangs"])
    def test_one_with_a_fault_loses_no_handler_and_hears_each_event_once(self, way: str, waits: Any) -> None:
        """In the event loop, where it raises or hangs for longer than anybody waits, a sync job is handled."""
        waits.report = 0.05
        heard, others, seen, release = Waiter(), Waiter(), Waiter(), threading.Event()

        def faulty(event: Any) -> None:
            heard(event.job_id)
            if way == "raises":
                raise RuntimeError("a listener with a fault")
            release.wait(LIMIT)

        scheduler = AsyncIOScheduler(timezone="UTC")
        jobs = cold(scheduler)
        scheduler.add_listener(faulty, EVENT_JOB_ERROR)
        scheduler.add_listener(lambda event: others(event.job_id), EVENT_JOB_ERROR)
        jobs.add_background_job(fail, key="k", trigger=now(), on_exception=lambda exc: seen(str(exc)))
        with warm("asyncio", jobs):
            assert seen.wait() == ["boom"]
            release.set()
            others.wait()
        assert heard.seen == others.seen == ["bgjobs:k"]
        assert seen.seen == ["boom"]


async def test_a_task_that_is_cancelled_before_its_first_step_is_counted(records: Any) -> None:
    """The occurrence is skipped with a reason, and the job runs again."""
    seen, cancelled = asyncio.Event(), Waiter()
    before = asyncio.all_tasks()

    async def job() -> None:
        seen.set()

    def cancel(_: object) -> None:
        for task in set() if cancelled.seen else asyncio.all_tasks() - before:
            task.cancel()
            cancelled()

    scheduler = AsyncIOScheduler(timezone="UTC")
    scheduler.add_listener(cancel, EVENT_JOB_SUBMITTED)
    async with cold(scheduler).add_background_job(job, key="k", trigger=often()) as jobs:
        async with asyncio.timeout(LIMIT):
            await seen.wait()
    assert len(cancelled.seen) == 1
    assert sum(row(jobs, "k").not_run.values()) >= 1
    assert any("its task was cancelled before it started" in text for text in records.texts("WARNING"))


class TestTimeouts:
    def test_a_coroutine_that_swallows_its_cancellation_has_timed_out(self, kind: str) -> None:
        """It took longer than its timeout, whatever it returned after that."""

        async def stubborn() -> str:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return "done"

        with stage(kind, lambda jobs: jobs.add_background_job(stubborn, key="k", trigger=now(), timeout=0.02)) as jobs:
            until(lambda: counts(jobs, "k"))
        assert counts(jobs, "k") == {"timed_out": 1}

    def test_a_coroutine_that_blocks_past_its_timeout_has_timed_out(self, kind: str) -> None:
        """Nobody could cancel it; the clock counts all the same."""

        async def blocking() -> None:
            threading.Event().wait(0.05)

        with stage(kind, lambda jobs: jobs.add_background_job(blocking, key="k", trigger=now(), timeout=0.02)) as jobs:
            until(lambda: counts(jobs, "k"))
        assert counts(jobs, "k") == {"timed_out": 1}


def test_what_waits_for_a_thread_at_the_close_never_runs(waits: Any) -> None:
    """It is skipped with the reason, and its turn, when it comes, finds nothing to do."""
    waits.cancelled = 0.05
    begun, release, ran = threading.Event(), threading.Event(), Waiter()

    def hang() -> None:
        begun.set()
        release.wait(LIMIT)

    scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})
    submitted = Waiter()
    jobs = cold(scheduler, shutdown_timeout=0.05).add_background_job(hang, trigger=now()).warm_up()
    assert begun.wait(LIMIT)
    scheduler.add_listener(lambda event: submitted(event.job_id), EVENT_JOB_SUBMITTED)
    jobs.add_background_job(lambda: ran(), key="k", trigger=now())
    until(lambda: "bgjobs:k" in submitted.seen)
    jobs.close()
    assert counts(jobs, "k") == {"closing": 1}
    release.set()
    until(lambda: row(jobs, "hang").running == 0)
    assert ran.seen == []


def test_a_run_that_waits_for_a_thread_is_not_called_coalesced() -> None:
    """It runs when its turn comes; only the occurrences after it overlap."""
    begun, release, seen = threading.Event(), threading.Event(), Waiter()

    def hog() -> None:
        begun.set()
        release.wait(LIMIT)

    scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})
    with cold(scheduler).add_background_job(hog, trigger=now()) as jobs:
        assert begun.wait(LIMIT)
        jobs.add_background_job(lambda: seen(), key="k", trigger=often())
        until(lambda: row(jobs, "k").not_run["overlapped"] >= 2)
        coalesced = row(jobs, "k").not_run["coalesced"]
        release.set()
        seen.wait()
    assert coalesced == 0


class TestALogThatRaises:
    """A filter on APScheduler's own loggers raises; no run, handler or later occurrence is lost by that."""

    @pytest.fixture(name="broken")
    def _broken(self) -> Generator[Callable[[str, str], None]]:
        undo: list[Callable[[], object]] = []

        def broken(name: str, text: str) -> None:
            def refuse(record: logging.LogRecord) -> bool:
                if text in record.getMessage():
                    raise OSError("disk full")
                return True

            log = logging.getLogger(name)
            undo.extend([lambda: log.removeFilter(refuse), lambda level=log.level: log.setLevel(level)])  # type: ignore[misc]
            log.setLevel(logging.INFO)
            log.addFilter(refuse)

        yield broken
        for step in undo:
            step()

    def test_at_the_start_of_a_run(self, kind: str, colour: str, broken: Any) -> None:
        """APScheduler does not come to call the job: it is skipped, counted, and free to run again."""
        broken("apscheduler.executors.default", "Running job")
        job = job_class(colour, lambda *_: None)
        with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=often())) as jobs:
            until(lambda: row(jobs, "k").not_run["refused"] >= 2)
        assert row(jobs, "k").outcomes["succeeded"] == 0

    def test_at_the_end_of_a_run(self, kind: str, colour: str, broken: Any, records: Any) -> None:
        """A listener raises, and so does the record of that: the handler is called, and the job runs again."""
        broken("apscheduler.scheduler", "Error notifying listener")
        seen, scheduler = Waiter(), CLASSES[kind](timezone="UTC")

        def faulty(_: object) -> None:
            raise RuntimeError("a listener with a fault")

        scheduler.add_listener(faulty, EVENT_JOB_ERROR)
        jobs = cold(scheduler)
        jobs.add_background_job(job_class(colour, fail, lambda *_: seen()), key="k", trigger=often())
        with warm(kind, jobs):
            seen.wait(2)
        assert any("the end of a run of job 'k' could not be reported: OSError" in t for t in records.texts("ERROR"))


def test_what_somebody_set_on_an_executor_is_there_again_after_the_close() -> None:
    """Another library may stand at the same place; it gets its own jobs meanwhile, and its place back."""
    theirs, seen, executor = Waiter(), Waiter(), ThreadPoolExecutor(2)
    scheduler = BackgroundScheduler(timezone="UTC", executors={"default": executor})
    before = executor._do_submit_job

    def other(job: Any, run_times: Any) -> None:
        theirs(job.id)
        before(job, run_times)

    executor._do_submit_job = other
    with cold(scheduler).add_background_job(lambda: seen(), key="k", trigger=now()):
        scheduler.add_job(nothing, now(), id="theirs")
        seen.wait()
        theirs.wait()
    assert theirs.seen == ["theirs"]
    assert vars(executor)["_do_submit_job"] is other


def test_an_event_loop_that_is_blocked_holds_no_handler_up(waits: Any) -> None:
    """The thread of the run reports itself then, and nobody hears of it twice when the loop goes on."""
    waits.report = 0.05
    heard, seen, blocked, release, ended = Waiter(), Waiter(), threading.Event(), threading.Event(), Waiter()

    async def block() -> None:
        blocked.set()
        release.wait(LIMIT)

    def fail_meanwhile() -> None:
        assert blocked.wait(LIMIT)
        raise ValueError("boom")

    scheduler = AsyncIOScheduler(timezone="UTC")
    scheduler.add_listener(lambda event: heard(event.job_id), EVENT_JOB_ERROR)
    scheduler.add_listener(lambda event: ended(event.job_id), EVENT_JOB_EXECUTED)
    jobs = cold(scheduler)
    jobs.add_background_job(fail_meanwhile, key="k", trigger=now(), on_exception=lambda exc: seen(str(exc)))
    jobs.add_background_job(block, key="block", trigger=now())
    with warm("asyncio", jobs):
        assert seen.wait() == ["boom"]
        before_the_release = list(heard.seen)
        release.set()
        ended.wait()
    assert before_the_release == ["bgjobs:k"]
    assert heard.seen == ["bgjobs:k"]


def test_an_event_is_dispatched_where_no_thread_can_be_had(records: Any) -> None:
    """A job ended the threads of its event loop; its failure is reported in the loop, and handled."""
    heard, seen = Waiter(), Waiter()

    async def spoil() -> None:
        await asyncio.get_running_loop().shutdown_default_executor()
        raise ValueError("boom")

    async def handle(exception: Exception) -> None:
        seen(str(exception))

    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_listener(lambda event: heard(event.job_id), EVENT_JOB_ERROR)
    with cold(scheduler).add_background_job(spoil, key="k", trigger=now(), on_exception=handle):
        assert seen.wait() == ["boom"]
    assert heard.seen == ["bgjobs:k"]


def test_no_event_loop_to_be_had_costs_one_occurrence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Async code of a thread scheduler is refused then, with the reason, and runs when there is one again."""
    seen = Waiter()

    async def job() -> None:
        seen()

    def none_left() -> asyncio.AbstractEventLoop:
        raise OSError("too many open files")

    monkeypatch.setattr(asyncio.events, "new_event_loop", none_left)
    with stage("background", lambda jobs: jobs.add_background_job(job, key="k", trigger=often())) as jobs:
        until(lambda: row(jobs, "k").not_run["refused"])
        monkeypatch.undo()
        seen.wait()


def test_a_job_that_is_removed_while_it_waits_for_a_thread_does_not_run(records: Any) -> None:
    """Its turn comes after the removal; the log says why nothing happens."""
    begun, release, submitted, ran = threading.Event(), threading.Event(), Waiter(), Waiter()

    def hog() -> None:
        begun.set()
        release.wait(LIMIT)

    scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})
    scheduler.add_listener(lambda event: submitted(event.job_id), EVENT_JOB_SUBMITTED)
    with cold(scheduler).add_background_job(hog, trigger=now()) as jobs:
        assert begun.wait(LIMIT)
        jobs.add_background_job(lambda: ran(), key="k", trigger=now())
        until(lambda: "bgjobs:k" in submitted.seen)
        jobs.remove("k")
        release.set()
        until(lambda: any("the job was removed first" in text for text in records.texts("WARNING")))
    assert ran.seen == []


def test_of_several_late_runs_those_after_the_close_are_skipped(kind: str, colour: str) -> None:
    """Two occurrences in one hand: the first is in progress when the jobs are closed, the second never begins."""
    begun = Waiter()

    def act(_: object, cancellation_token: CancellationToken) -> None:
        begun()
        assert cancellation_token.wait(LIMIT)

    class Async:
        async def action_to_do(self, cancellation_token: CancellationToken) -> None:
            begun()
            await cancellation_token.wait_async()

    job = Async if colour == "async" else job_class("sync", act)
    late = Times(datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC))
    with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=late, coalesce=False)) as jobs:
        begun.wait()
    assert counts(jobs, "k") == {"succeeded": 1, "closing": 1}
    assert len(begun.seen) == 1


class TestOddScopesAndHandlers:
    def test_a_scope_that_raises_the_error_itself_is_not_logged_for_it(
        self, kind: str, colour: str, records: Any
    ) -> None:
        """It lets the error through, in its way; one record of one failure is enough."""

        class Reraising(Scope):
            def __exit__(self, _: object, error: object, __: object) -> None:
                self.note(error)
                assert isinstance(error, ValueError)
                raise error

        closed = Waiter()
        job = job_class(colour, fail)
        resolver: Any = lambda job_type: Reraising(job_type(), closed)  # noqa: E731
        with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=now()), resolver=resolver):
            closed.wait()
        assert records.texts("ERROR") == ["job 'k' failed: ValueError: boom"]

    def test_a_handler_that_cannot_be_looked_up_is_logged(self, kind: str, records: Any) -> None:
        """The class raises when it is asked for its ``on_exception``; the run has failed all the same."""

        class Job:
            def action_to_do(self) -> None:
                raise ValueError("boom")

            def on_exception(self, exception: Exception) -> None: ...

            def __getattribute__(self, name: str) -> Any:
                if name == "on_exception":
                    raise RuntimeError("not to be had")
                return super().__getattribute__(name)

        with stage(kind, lambda jobs: jobs.add_background_job(Job, key="k", trigger=now())) as jobs:
            until(lambda: counts(jobs, "k"))
        assert counts(jobs, "k") == {"failed": 1}
        assert "on_exception of job 'k' cannot be looked up: RuntimeError: not to be had" in records.texts("ERROR")

    def test_a_sync_handler_of_async_code_that_raises_is_logged(self, kind: str, records: Any) -> None:
        """It runs in a thread; what it raises, even what no future can carry, comes to the log."""

        class Job:
            async def action_to_do(self) -> None:
                raise ValueError("boom")

            def on_exception(self, exception: Exception) -> None:
                raise StopIteration

        with stage(kind, lambda jobs: jobs.add_background_job(Job, key="k", trigger=now())):
            until(
                lambda: any(
                    "on_exception of job 'k' raised RuntimeError: coroutine raised Stop" in t
                    for t in records.texts("ERROR")
                )
            )

    def test_an_awaitable_from_a_sync_handler_of_async_code_is_awaited(self, kind: str) -> None:
        """A handler that returns a coroutine, as decorated ones do, has it awaited in the task of the run."""
        seen = Waiter()

        async def inner() -> None:
            seen(asyncio.current_task())

        async def act() -> None:
            seen(asyncio.current_task())
            raise ValueError("boom")

        with stage(
            kind, lambda jobs: jobs.add_background_job(act, key="k", trigger=now(), on_exception=lambda _: inner())
        ):
            acted, handled = seen.wait(2)
        assert acted is handled

    def test_a_sync_handler_of_async_code_is_waited_for_when_the_drain_cancels(self, kind: str) -> None:
        """No one can cancel a thread: the scope stays open until it has ended."""
        events, begun, release = Waiter(), threading.Event(), threading.Event()

        class Job:
            async def action_to_do(self) -> None:
                raise ValueError("boom")

            def on_exception(self, exception: Exception) -> None:
                begun.set()
                release.wait(LIMIT)
                events("handled")

        def resolver(job_type: type[Any]) -> Any:
            return Scope(job_type(), lambda _: events("closed"))

        jobs = cold(
            CLASSES[kind](timezone="UTC"),
            resolver=resolver,
            shutdown_timeout=0.05,
        )
        jobs.add_background_job(Job, key="k", trigger=now())
        with warm(kind, jobs):
            assert begun.wait(LIMIT)
            threading.Timer(0.2, release.set).start()  # after the cancellation, which nothing shows
            jobs.close()
            assert events.wait(2) == ["handled", "closed"]

    def test_a_scope_that_its_loop_leaves_first_is_closed_in_time(self) -> None:
        """``asyncio.run`` ends while a sync job is in an async scope: its task closes the scope; the thread goes on."""
        closed, ended, begun, release = Waiter(), Waiter(), threading.Event(), threading.Event()

        @asynccontextmanager
        async def scope(job_type: type[Any]) -> AsyncGenerator[Any]:
            try:
                yield job_type()
            except asyncio.CancelledError as error:
                closed(error)
                release.set()
                raise

        class Job:
            def action_to_do(self) -> None:
                begun.set()
                release.wait(LIMIT)
                ended()

        jobs = cold(AsyncIOScheduler(timezone="UTC"), resolver=scope).add_background_job(Job, key="k", trigger=now())

        async def forget_to_close() -> None:
            jobs.warm_up()
            await eventually(begun.is_set)

        asyncio.run(forget_to_close())
        assert (len(closed.wait()), len(ended.wait())) == (1, 1)
        jobs.close()
        assert (row(jobs, "k").running, counts(jobs, "k")) == (0, {"succeeded": 1})

    def test_an_awaitable_whose_task_never_begins_fails_its_run(self, records: Any) -> None:
        """Somebody cancels the task in which a sync job's coroutine is awaited; ``on_exception`` hears nothing."""
        cancel_next, handled = threading.Event(), Waiter()

        class Inner:
            def __await__(self) -> Generator[Any, None, None]:
                raise AssertionError("it never runs")

        def outer() -> Any:
            cancel_next.set()
            return Inner()

        def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            task = asyncio.Task(coroutine, loop=loop, **options)
            if cancel_next.is_set():
                cancel_next.clear()
                task.cancel()
            return task

        jobs = cold(AsyncIOScheduler(timezone="UTC"))
        jobs.add_background_job(outer, key="k", cron=NIGHTLY, on_exception=handled)
        with event_loop_in_a_thread() as loop:
            loop.call_soon_threadsafe(loop.set_task_factory, factory)
            asyncio.run_coroutine_threadsafe(called(jobs.warm_up), loop).result(LIMIT)
            jobs.run_now("k")
            until(lambda: counts(jobs, "k"))
            asyncio.run_coroutine_threadsafe(jobs.aclose(), loop).result(LIMIT)
        assert counts(jobs, "k") == {"failed": 1}
        assert handled.seen == []

    def test_an_async_scope_whose_task_never_begins_fails_its_run(self) -> None:
        """Somebody cancels the task that would hold the scope of a sync job; nothing waits for it for ever."""
        cancel_next = threading.Event()

        def resolver(job_type: type[Any]) -> Any:
            cancel_next.set()
            return async_scope(job_type)

        def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            task = asyncio.Task(coroutine, loop=loop, **options)
            if cancel_next.is_set():
                cancel_next.clear()
                task.cancel()
            return task

        jobs = cold(AsyncIOScheduler(timezone="UTC"), resolver=resolver)
        jobs.add_background_job(job_class("sync", fail), key="k", cron=NIGHTLY)
        with event_loop_in_a_thread() as loop:
            loop.call_soon_threadsafe(loop.set_task_factory, factory)
            asyncio.run_coroutine_threadsafe(called(jobs.warm_up), loop).result(LIMIT)
            jobs.run_now("k")
            until(lambda: counts(jobs, "k"))
            asyncio.run_coroutine_threadsafe(jobs.aclose(), loop).result(LIMIT)
        assert counts(jobs, "k") == {"failed": 1}
        assert "CancelledError" in str(row(jobs, "k").last_error)

    def test_a_run_whose_loop_was_closed_by_force_is_forgotten(self, records: Any) -> None:
        """Its coroutine is thrown away in the middle of an async scope, where nothing can be awaited any more."""
        begun, closed = threading.Event(), Waiter()

        class AsyncOnly:
            def __init__(self, job_type: type[Any]) -> None:
                self.instance = job_type()

            async def __aenter__(self) -> object:
                return self.instance

            async def __aexit__(self, *_: object) -> None:
                closed()
                await asyncio.sleep(0)

        class Job:
            async def action_to_do(self) -> None:
                begun.set()
                await asyncio.Event().wait()

        resolver: Any = AsyncOnly
        jobs = cold(AsyncIOScheduler(timezone="UTC"), resolver=resolver, shutdown_timeout=0.05)
        jobs.add_background_job(Job, key="k", trigger=now())
        left_behind(jobs, begun.is_set)
        gc.collect()
        jobs.close()
        assert (row(jobs, "k").running, counts(jobs, "k")) == (0, {"cancelled": 1})
        assert (closed.seen, records.texts("ERROR")) == ([], [])


async def called(method: Callable[[], object]) -> None:
    """Call something in an event loop."""
    method()
