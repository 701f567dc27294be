"""Changes while jobs run: pause, resume, remove and add, from several threads at once."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor as Threads
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from bgjobs import BackgroundJobs, BgjobsError, DuplicateJobError, UnknownJobError, current_run
from stage import CLASSES, LIMIT, NIGHTLY, Waiter, cold, counts, job_class, nothing, now, often, row, stage, until, warm


class TestPause:
    """What has not begun does not begin."""

    def test_it_holds_back_what_waits_for_a_thread(self, records: Any) -> None:
        """Scheduled and extra runs alike; a run that is asked for after the pause is made."""
        release, seen = threading.Event(), Waiter()
        scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})
        jobs = cold(scheduler).add_background_job(lambda: release.wait(LIMIT), key="blocks", trigger=now())
        with jobs:
            until(lambda: row(jobs, "blocks").running)
            jobs.add_background_job(nothing, key="other", trigger=now())
            jobs.add_background_job(lambda: seen(current_run().run_id), key="k", trigger=now())
            jobs.run_now("k")
            until(lambda: not scheduler.get_jobs())
            jobs.pause("k")
            run_id = jobs.run_now("k")
            release.set()
            assert seen.wait() == [run_id]
            until(lambda: row(jobs, "other").outcomes["succeeded"])
        assert seen.seen == [run_id]
        assert counts(jobs, "k") == {"succeeded": 1, "paused": 2}
        assert sum("paused while it waited" in text for text in records.texts("WARNING")) == 2

    def test_it_holds_back_a_run_that_is_about_to_begin(self, kind: str) -> None:
        """A pause that comes between the tick and the run is in time."""
        begins, paused = Waiter(), Waiter()

        class Pausing(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.getMessage().startswith("Running job"):
                    jobs.pause("k")
                    paused()

        jobs = cold(CLASSES[kind](timezone="UTC")).add_background_job(lambda: begins(), key="k", trigger=often())
        handler, logger = Pausing(), logging.getLogger("apscheduler")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            with warm(kind, jobs):
                paused.wait()
                until(lambda: row(jobs, "k").not_run["paused"])
        finally:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
        assert begins.seen == []

    def test_what_it_has_cost_is_told_at_a_close(self, records: Any) -> None:
        """The process may end before the pause does."""
        with time_machine.travel(datetime(2026, 1, 1, 12, 30, tzinfo=UTC)) as clock:
            with cold().add_background_job(nothing, key="k", cron="0 0 * * * *") as jobs:
                jobs.pause("k")
                clock.shift(timedelta(hours=3))
            assert row(jobs, "k").not_run["paused"] == 3
            assert "job 'k' is paused; 3 of its runs were skipped for that" in records.texts("INFO")
            with jobs:
                clock.shift(timedelta(hours=1))
                jobs.resume("k")
            assert row(jobs, "k").not_run["paused"] == 4


def until_released() -> tuple[Callable[[], None], Waiter, threading.Event]:
    """A job that goes on until it is released; tells when it is going."""
    going, release = Waiter(), threading.Event()

    def job() -> None:
        going()
        release.wait(LIMIT)

    return job, going, release


class TestRemoveAndAdd:
    """Another job under the key of one whose run is in progress."""

    def test_the_overlap_guard_holds(self, kind: str, colour: str) -> None:
        """The runs of the new job are overlapped until the old one's run has ended; then its immediate run is made."""
        (old, going, release), runs = until_released(), Waiter()
        new = job_class(colour, lambda *_: runs(release.is_set()))
        with stage(kind, lambda jobs: jobs.add_background_job(old, key="k", trigger=now())) as jobs:
            going.wait()
            jobs.remove("k")
            jobs.add_background_job(new, key="k", trigger=often(), run_immediately=True)
            until(lambda: row(jobs, "k").not_run["overlapped"] >= 2)
            release.set()
            runs.wait(2)
        assert all(runs.seen)
        assert row(jobs, "k").not_run["overtaken"] == 0

    def test_it_holds_over_several_removals(self) -> None:
        """The job that is running may be any earlier one of the key; only the latest job runs after it."""
        (old, going, release), ended = until_released(), Waiter()

        with cold().add_background_job(old, key="k", trigger=now()) as jobs:
            going.wait()
            for n in range(3):
                jobs.remove("k")
                gc.collect()
                jobs.add_background_job(lambda n=n: ended(n), key="k", cron=NIGHTLY, run_immediately=True)
            jobs.run_now("k")
            until(lambda: row(jobs, "k").not_run["overlapped"])
            release.set()
            ended.wait()
        assert ended.seen == [2]

    def test_an_immediate_run_that_waits_is_no_longer_made_when_its_job_is_removed(self) -> None:
        """It is skipped, as after a removal without a run in progress."""
        (old, going, release), ended = until_released(), Waiter()

        with cold().add_background_job(old, key="k", trigger=now()) as jobs:
            going.wait()
            jobs.remove("k")
            jobs.add_background_job(lambda: ended("new"), key="k", cron=NIGHTLY, run_immediately=True).remove("k")
            release.set()
            jobs.add_background_job(lambda: ended("last"), key="last", trigger=now())
            ended.wait()
        assert ended.seen == ["last"]

    def test_a_job_store_that_refuses_the_immediate_run_is_told(self, records: Any) -> None:
        """The schedule of the new job goes on."""
        (old, going, release), runs = until_released(), Waiter()

        class Refusing(MemoryJobStore):  # type: ignore[misc]
            def add_job(self, job: Any) -> None:
                if job.id.endswith(":startup"):
                    raise OSError("no more rows")
                super().add_job(job)

        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": Refusing()})
        with cold(scheduler).add_background_job(old, key="k", trigger=now()) as jobs:
            going.wait()
            jobs.remove("k")
            jobs.add_background_job(lambda: runs(), key="k", trigger=often(), run_immediately=True)
            release.set()
            runs.wait(2)
        assert "the immediate run of job 'k' could not be made: OSError: no more rows" in records.texts("ERROR")


def at_once(*calls: Callable[[], object]) -> list[BaseException]:
    """Make all calls at the same moment, each in its thread; what they raise."""
    barrier = threading.Barrier(len(calls))

    def call(func: Callable[[], object]) -> None:
        barrier.wait(LIMIT)
        func()

    with Threads(len(calls)) as threads:
        futures = [threads.submit(call, func) for func in calls]
        return [error for future in futures if (error := future.exception(LIMIT)) is not None]


class TestRaces:
    """Any call from any thread."""

    @pytest.mark.parametrize("is_warm", [True, False])
    def test_of_several_adds_of_one_key_one_wins(self, *, is_warm: bool) -> None:
        """The others are told that the key is taken, and the job of the winner stays and runs."""
        for _ in range(30):
            seen, jobs = Waiter(), cold()
            add = jobs.add_background_job
            if is_warm:
                jobs.warm_up()
            errors = at_once(*4 * [lambda add=add, seen=seen: add(lambda: seen(), key="k", trigger=often())])
            assert [type(error) for error in errors] == 3 * [DuplicateJobError]
            if not is_warm:
                jobs.warm_up()
            seen.wait()
            jobs.close()

    def test_of_several_removes_of_one_key_one_wins(self) -> None:
        """The others are told that there is no such job, if they are told anything."""
        with cold() as jobs:
            for _ in range(50):
                jobs.add_background_job(nothing, key="k", cron=NIGHTLY)
                errors = at_once(*4 * [lambda: jobs.remove("k")])
                assert {type(error) for error in errors} <= {UnknownJobError}
                assert jobs.status() == []

    def test_a_remove_within_a_remove(self) -> None:
        """A job store may lead to the same call once more."""

        class Nested(MemoryJobStore):  # type: ignore[misc]
            def remove_job(self, job_id: str) -> None:
                super().remove_job(job_id)
                jobs.remove("k")

        jobs = cold(BackgroundScheduler(timezone="UTC", jobstores={"default": Nested()}))
        with jobs.add_background_job(nothing, key="k", cron=NIGHTLY):
            jobs.remove("k")
            assert jobs.status() == []

    def test_looking_while_others_warm_up_and_close(self, kind: str) -> None:
        """`status()`, `health()` and the repr answer at any moment."""
        ended, jobs = threading.Event(), cold().add_background_job(nothing, key="k", trigger=often())

        def look() -> None:
            while not ended.is_set():
                assert len(jobs.status()) == 1
                assert jobs.health().problems is not None
                assert "1 jobs" in repr(jobs)

        def change() -> None:
            try:
                for _ in range(10):
                    with warm("asyncio" if kind == "asyncio" else "background", jobs):
                        pass
            finally:
                ended.set()

        assert at_once(look, look, change) == []

    def test_changes_while_others_warm_up(self) -> None:
        """Jobs that come and go during a warm-up make it fail in no way, and what is left then runs."""
        for _ in range(10):
            jobs, seen = cold(), Waiter()
            for n in range(200):
                jobs.add_background_job(nothing, key=f"job {n}", cron=NIGHTLY, run_immediately=n % 2 == 0)

            def come_and_go(jobs: BackgroundJobs = jobs, seen: Waiter = seen) -> None:
                for n in range(0, 200, 5):
                    jobs.remove(f"job {n}")
                    if n % 2:
                        jobs.add_background_job(lambda: seen(), key=f"job {n}", trigger=often())

            assert at_once(jobs.warm_up, come_and_go) == []
            keys = {status.key for status in jobs.status()}
            assert keys == {f"job {n}" for n in range(200) if n % 5 or n % 2}
            seen.wait(20)
            assert all(status.next_run_time for status in jobs.status())
            jobs.close()

    def test_a_job_that_goes_during_the_warm_up_leaves_no_row(self) -> None:
        """It may go between two others that are scheduled."""

        class Removing(MemoryJobStore):  # type: ignore[misc]
            def add_job(self, job: Any) -> None:
                super().add_job(job)
                if job.name == "first":
                    jobs.remove("second")

        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": Removing()})
        scheduler.start()
        jobs = cold(scheduler)
        for key in ("first", "second", "third"):
            jobs.add_background_job(nothing, key=key, cron=NIGHTLY)
        with jobs:
            assert [job.name for job in scheduler.get_jobs()] == ["first", "third"]
        scheduler.shutdown()

    def test_a_suggestion_while_jobs_come_and_go(self) -> None:
        """An unknown key is an `UnknownJobError`, whatever others do to the jobs meanwhile."""
        jobs, ended = cold(), threading.Event()

        def come_and_go() -> None:
            while not ended.is_set():
                for n in range(50):
                    jobs.add_background_job(nothing, key=f"job {n}", cron=NIGHTLY)
                for n in range(50):
                    jobs.remove(f"job {n}")

        def ask() -> None:
            try:
                for _ in range(100):
                    with pytest.raises(UnknownJobError):
                        jobs.remove("jbo 7")
            finally:
                ended.set()

        assert at_once(come_and_go, ask) == []
        assert issubclass(UnknownJobError, BgjobsError)
