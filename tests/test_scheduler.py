"""The border with APScheduler: what is stored, which runs are skipped, and what executors do to a run."""

from __future__ import annotations

import pickle
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.debug import DebugExecutor
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from sqlalchemy.pool import NullPool

from bgjobs import BackgroundJobs, Skipped, current_run
from stage import (
    CLASSES,
    LIMIT,
    NIGHTLY,
    Waiter,
    cold,
    event_loop_in_a_thread,
    fail_async,
    nothing,
    now,
    stage,
    until,
    warm,
)


def stored(url: str) -> SQLAlchemyJobStore:
    """A persistent job store that keeps no connection open."""
    return SQLAlchemyJobStore(url=url, engine_options={"poolclass": NullPool})


def test_the_fire_time_is_exact(kind: str) -> None:
    """A run knows the very moment that its trigger computed, however late it was made."""
    seen = Waiter()
    moment = datetime(2020, 2, 29, 12, 30, 15, tzinfo=UTC)
    trigger = DateTrigger(moment)
    with stage(
        kind, lambda j: j.add_background_job(lambda: seen(current_run().scheduled_at), key="k", trigger=trigger)
    ):
        assert seen.wait() == [moment]


class TestWhatIsStored:
    def test_a_job_store_keeps_names_only(self) -> None:
        """The row of a job holds a reference and three plain texts."""
        scheduler = BackgroundScheduler(timezone="UTC")
        with cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY):
            (job,) = scheduler.get_jobs()
            assert pickle.loads(pickle.dumps(job)).args == ("bgjobs", "k", "scheduled")
            # stored rows of every release refer to it: this name stays
            assert job.func_ref == "bgjobs._apscheduler.executor:fire"

    def test_rows_of_a_persistent_store_stay_and_run_again(self, tmp_path: Path) -> None:
        """A job in SQLite is kept over a close, and taken up by the next warm-up."""
        seen = Waiter()
        url = f"sqlite:///{tmp_path / 'jobs.db'}"

        for times in (1, 2):
            scheduler = BackgroundScheduler(timezone="UTC", jobstores={"db": stored(url)})
            with cold(scheduler).add_background_job(
                lambda: seen(), key="k", cron=NIGHTLY, jobstore="db", run_immediately=True
            ):
                seen.wait(times)
                assert [job.id for job in scheduler.get_jobs()] == ["bgjobs:k"]

    @pytest.mark.parametrize("made", [BackgroundScheduler, BlockingScheduler])
    def test_a_restart_neither_resets_nor_unpauses(self, tmp_path: Path, made: Any) -> None:
        """A run that came due while nothing was running is made at once; a paused job stays paused."""
        seen = Waiter()
        url = f"sqlite:///{tmp_path / 'jobs.db'}"

        def facade() -> tuple[Any, BackgroundJobs]:
            scheduler = made(timezone="UTC", jobstores={"db": stored(url)})
            jobs = cold(scheduler).add_background_job(
                lambda: seen(current_run().scheduled_at), key="due", cron=NIGHTLY, jobstore="db"
            )
            return scheduler, jobs.add_background_job(nothing, key="paused", cron=NIGHTLY, jobstore="db")

        kind = "blocking" if made is BlockingScheduler else "background"
        scheduler, jobs = facade()
        with warm(kind, jobs):
            until(lambda: len(scheduler.get_jobs()) == 2)
            jobs.pause("paused")
        due = datetime(2026, 1, 1, 3, tzinfo=UTC)
        store = stored(url)
        store.start(scheduler, "db")
        row = store.lookup_job("bgjobs:due")
        row._modify(next_run_time=due)
        store.update_job(row)
        store.shutdown()
        scheduler, jobs = facade()
        with warm(kind, jobs):
            assert seen.wait() >= [due]
            until(lambda: jobs.status()[1].paused)
            assert scheduler.get_job("bgjobs:paused").next_run_time is None

    def test_what_comes_due_while_closing_is_not_lost(self, tmp_path: Path) -> None:
        """The row of a job that came due during the drain still says so, for the next process to make the run."""
        url = f"sqlite:///{tmp_path / 'jobs.db'}"
        started = threading.Event()

        def slow(cancellation_token: Any) -> None:
            started.set()
            cancellation_token.wait(LIMIT)
            until(lambda: datetime.now(UTC) > due)

        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"db": stored(url)})
        jobs = cold(scheduler).add_background_job(slow, trigger=now())
        jobs.add_background_job(nothing, key="due", cron=NIGHTLY, jobstore="db")
        with jobs:
            assert started.wait(LIMIT)
            due = datetime.now(UTC) + timedelta(seconds=0.3)
            scheduler.modify_job("bgjobs:due", next_run_time=due)
        store = stored(url)
        store.start(scheduler, "db")
        assert abs(store.lookup_job("bgjobs:due").next_run_time - due) < timedelta(milliseconds=1)
        store.shutdown()

    def test_plain_apscheduler_unpauses_at_a_restart(self, tmp_path: Path) -> None:
        """What bgjobs mends: alone, adding the job again with ``replace_existing`` forgets the pause."""
        url = f"sqlite:///{tmp_path / 'jobs.db'}"
        states = []
        for pause in (True, False):
            scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": stored(url)})
            scheduler.add_job(nothing, "cron", hour=3, id="k", replace_existing=True)
            scheduler.start()
            if pause:
                scheduler.pause_job("k")
            states.append(scheduler.get_job("k").next_run_time)
            scheduler.shutdown()
        assert states[0] is None
        assert states[1] is not None

    def test_a_stored_job_that_its_store_refuses_fails_the_start(self) -> None:
        """On a blocking scheduler, too, where APScheduler alone would swallow the error in an event."""

        class Refusing(SQLAlchemyJobStore):  # type: ignore[misc]
            def get_all_jobs(self) -> Any:
                raise OSError("store is down")

        for made in (BackgroundScheduler, BlockingScheduler):
            scheduler = made(
                timezone="UTC", jobstores={"db": Refusing(url="sqlite://", engine_options={"poolclass": NullPool})}
            )
            jobs = cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY, jobstore="db")
            with pytest.raises(OSError, match="store is down"):
                jobs.warm_up()
            assert not jobs.is_warm
            assert not scheduler.running

    def test_rows_in_a_store_of_somebody_elses_scheduler_stay(self, tmp_path: Path, records: Any) -> None:
        """Closing takes off what is in memory only; a row that ticks later is skipped with a reason."""
        url = f"sqlite:///{tmp_path / 'jobs.db'}"
        values = Waiter()
        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"db": stored(url)})
        scheduler.add_listener(lambda event: values(event.retval), EVENT_JOB_EXECUTED)
        scheduler.start()
        jobs = cold(scheduler).add_background_job(nothing, key="stored", cron=NIGHTLY, jobstore="db")
        jobs.add_background_job(nothing, key="memory", cron=NIGHTLY).warm_up()
        jobs.close()
        assert [job.id for job in scheduler.get_jobs()] == ["bgjobs:stored"]
        scheduler.modify_job("bgjobs:stored", next_run_time=datetime.now(UTC))
        assert isinstance(values.wait()[0], Skipped)
        assert (
            "no job of the application 'bgjobs' is warm under this key in this process" in records.texts("WARNING")[0]
        )
        scheduler.shutdown()

    def test_a_row_without_its_application_is_skipped_on_asyncio_too(self, tmp_path: Path, records: Any) -> None:
        """An event loop finds the same value in the event, and the same warning in the log."""
        values = Waiter()
        with event_loop_in_a_thread() as loop:
            scheduler = AsyncIOScheduler(
                timezone="UTC", event_loop=loop, jobstores={"db": stored(f"sqlite:///{tmp_path / 'jobs.db'}")}
            )
            scheduler.add_listener(lambda event: values(event.retval), EVENT_JOB_EXECUTED)
            scheduler.start()
            with cold(scheduler).add_background_job(fail_async, key="k", cron=NIGHTLY, jobstore="db"):
                pass
            scheduler.modify_job("bgjobs:k", next_run_time=datetime.now(UTC))
            assert isinstance(values.wait()[0], Skipped)
            scheduler.shutdown()
        assert (
            "no job of the application 'bgjobs' is warm under this key in this process" in records.texts("WARNING")[0]
        )

    def test_two_facades_in_one_process_have_two_names(self) -> None:
        """The application's name is made unique among those that are warm, and is free again after the close."""
        for _ in range(2):
            schedulers = [BackgroundScheduler(timezone="UTC"), BackgroundScheduler(timezone="UTC")]
            first, second = (cold(s).add_background_job(nothing, key="k", cron=NIGHTLY) for s in schedulers)
            with first, second:
                assert [s.get_job("bgjobs:k").args[0] for s in schedulers] == ["bgjobs", "bgjobs#2"]


class TestRunsThatAreNotMade:
    def test_a_missed_run_is_told_with_how_late_it_was(self, kind: str, records: Any) -> None:
        """With `misfire_grace_time` set, a run that is later is not made."""
        trigger = DateTrigger(datetime.now(UTC) - timedelta(seconds=60))

        def register(jobs: BackgroundJobs) -> None:
            jobs.add_background_job(nothing, trigger=trigger, misfire_grace_time=5)

        with stage(kind, register):
            until(lambda: records.texts("WARNING"))
        assert "was skipped: it was 60." in records.texts("WARNING")[0]
        assert "misfire_grace_time is 5 s" in records.texts("WARNING")[0]

    def test_a_late_run_is_made_once_by_default(self, kind: str) -> None:
        """Sixty seconds of every-second occurrences that were slept through make one run."""
        seen = Waiter()
        trigger = IntervalTrigger(
            seconds=1, start_date=datetime.now(UTC) - timedelta(seconds=60), timezone="UTC", end_date=datetime.now(UTC)
        )
        jobs = cold(CLASSES[kind](timezone="UTC"))
        jobs.add_background_job(lambda: seen(current_run().scheduled_at), key="k", trigger=Backlog(trigger))
        with warm(kind, jobs):
            (scheduled_at,) = seen.wait()
        assert len(seen.seen) == 1
        assert datetime.now(UTC) - scheduled_at < timedelta(seconds=LIMIT)

    def test_an_overlap_is_one_warning_and_a_count(self, kind: str, records: Any) -> None:
        """It says since when the running one has been going, and at its end how many were skipped."""
        release, started, maxed = threading.Event(), threading.Event(), Waiter()

        def slow() -> None:
            started.set()
            release.wait(LIMIT)

        scheduler = CLASSES[kind](timezone="UTC")
        jobs = cold(scheduler)
        scheduler.add_listener(maxed, EVENT_JOB_MAX_INSTANCES)
        jobs.add_background_job(slow, key="k", trigger=IntervalTrigger(seconds=0.05, timezone="UTC"))
        with warm(kind, jobs):
            maxed.wait(3)
            release.set()
            until(lambda: len(records.texts("WARNING")) > 1)
        first, second = records.texts("WARNING")[:2]
        assert "job 'k' scheduled at" in first
        assert "was skipped: still running since 20" in first
        assert second.startswith("job 'k' was skipped ")
        assert second.endswith(" times during this run")

    def test_max_instances_lets_runs_overlap(self, kind: str) -> None:
        """Two may go at the same time where two are allowed."""
        both = threading.Barrier(2)
        seen = Waiter()

        def meet() -> None:
            both.wait(LIMIT)
            seen()

        trigger = IntervalTrigger(seconds=0.05, timezone="UTC")
        with stage(kind, lambda jobs: jobs.add_background_job(meet, trigger=trigger, max_instances=2)):
            seen.wait(2)

    def test_a_run_that_waits_for_a_worker_is_told_apart(self, records: Any) -> None:
        """When the pool is full, the reason is the executor, not a run that is going."""
        release = threading.Event()
        scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})
        started = threading.Event()

        def hog() -> None:
            started.set()
            release.wait(LIMIT)

        jobs = cold(scheduler).add_background_job(hog, trigger=now())
        with jobs:
            assert started.wait(LIMIT)
            jobs.add_background_job(nothing, trigger=IntervalTrigger(seconds=0.05, timezone="UTC"))
            reason = "was skipped: its previous run has not begun: no thread is free"
            until(lambda: any(reason in text for text in records.texts("WARNING")))
            release.set()


class Backlog(IntervalTrigger):  # type: ignore[misc]
    """An interval whose first occurrence lies in the past, as after a pause or a suspended machine."""

    def __init__(self, inner: IntervalTrigger) -> None:
        self.__setstate__(inner.__getstate__())

    def get_next_fire_time(self, previous_fire_time: Any, now: Any) -> Any:
        after = self.start_date if previous_fire_time is None else previous_fire_time + self.interval
        return after if after <= self.end_date else None


class TestExecutors:
    def test_the_executor_of_a_job_decides_how_it_is_called(self) -> None:
        """On an asyncio scheduler, a job of a thread pool runs there, its async code in the scheduler's loop."""
        seen = Waiter()
        scheduler = AsyncIOScheduler(timezone="UTC", executors={"threads": ThreadPoolExecutor(1)})
        jobs = cold(scheduler)

        async def coroutine() -> None:
            seen(("coroutine", threading.current_thread().name))

        jobs.add_background_job(coroutine, executor="threads", trigger=now())
        jobs.add_background_job(
            lambda: seen(("sync", threading.current_thread().name)), key="sync", executor="threads", trigger=now()
        )
        with warm("asyncio", jobs):
            where = dict(seen.wait(2))
        assert where["coroutine"] == "test-loop"
        assert where["sync"].startswith("ThreadPoolExecutor")

    def test_an_executor_that_runs_jobs_under_its_locks_does_not_run_ours(self) -> None:
        """The debug executor calls jobs on the scheduler's own thread; ours, and their handlers, have another one."""
        seen = Waiter()
        scheduler = BackgroundScheduler(timezone="UTC", executors={"default": DebugExecutor()})

        def fail() -> None:
            raise ValueError(threading.current_thread().name)

        jobs = cold(scheduler).add_background_job(
            fail, trigger=now(), on_exception=lambda exc: seen((str(exc), threading.current_thread().name))
        )
        with jobs:
            assert seen.wait() == [("bgjobs-fail", "bgjobs-fail")]


def test_plain_apscheduler_drops_a_run_that_is_late_by_more_than_a_second() -> None:
    """What bgjobs mends: alone, the default grace of one second loses a one-shot, and deletes it."""
    missed = Waiter()
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_listener(missed, EVENT_JOB_MISSED)
    scheduler.add_job(nothing, DateTrigger(datetime.now(UTC) - timedelta(seconds=2)))
    scheduler.start()
    missed.wait()
    assert scheduler.get_jobs() == []
    scheduler.shutdown()
