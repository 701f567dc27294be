"""The border with APScheduler: what it uses that is not public API, and what APScheduler alone does to its users."""

from __future__ import annotations

import inspect
import pickle
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apscheduler.events
import pytest
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.base import run_coroutine_job, run_job
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
from bgjobs._apscheduler.tick import applications, fire, fire_async
from stage import CLASSES, LIMIT, NIGHTLY, Waiter, cold, nothing, now, stage, until, warm


def stored(url: str) -> SQLAlchemyJobStore:
    """A persistent job store that keeps no connection open."""
    return SQLAlchemyJobStore(url=url, engine_options={"poolclass": NullPool})


class TestWhatIsNotPublic:
    """If a release of APScheduler breaks one of these, the place to mend is named in `_scheduler` or `_tick`."""

    @pytest.mark.parametrize("function", [run_job, run_coroutine_job])
    def test_the_fire_time_is_called_run_time(self, function: Any) -> None:
        """Both functions that call a job have its fire time in a variable of that name."""
        assert "run_time" in function.__code__.co_varnames

    def test_the_fire_time_is_exact(self, kind: str) -> None:
        """A run knows the very moment that its trigger computed, however late it was made."""
        seen = Waiter()
        moment = datetime(2020, 2, 29, 12, 30, 15, tzinfo=UTC)
        trigger = DateTrigger(moment)
        with stage(
            kind, lambda j: j.add_background_job(lambda: seen(current_run().scheduled_at), key="k", trigger=trigger)
        ):
            assert seen.wait() == [moment]

    def test_executors_and_job_stores_are_kept_by_alias(self) -> None:
        """A scheduler has no public list of them."""
        scheduler = BackgroundScheduler(executors={"pool": ThreadPoolExecutor(1)})
        assert isinstance(scheduler._executors["pool"], ThreadPoolExecutor)
        assert scheduler._jobstores == {}

    def test_an_executor_holds_its_lock_from_submission_to_callback(self) -> None:
        """The whole of ``_do_submit_job`` happens under the lock that `await_submission` takes."""
        source = inspect.getsource(ThreadPoolExecutor.submit_job)
        assert source.index("with self._lock") < source.index("self._do_submit_job")
        assert "add_done_callback" in inspect.getsource(ThreadPoolExecutor._do_submit_job)

    def test_a_pool_knows_that_it_was_shut_down(self) -> None:
        """That is how a scheduler that is started again gets fresh pools, as large as before."""
        executor = ThreadPoolExecutor(3)
        assert (executor._pool._shutdown, executor._pool._max_workers) == (False, 3)
        executor.shutdown()
        assert executor._pool._shutdown

    async def test_an_asyncio_scheduler_knows_its_loop(self) -> None:
        """It is the loop that the scheduler was started in."""
        import asyncio

        scheduler = AsyncIOScheduler()
        scheduler.start()
        assert scheduler._eventloop is asyncio.get_running_loop()
        scheduler.shutdown()

    def test_a_look_at_the_jobs_waits_for_the_pass(self) -> None:
        """``get_jobs`` takes the lock that a pass over the due jobs holds, and reads no other store."""
        assert "with self._jobstores_lock" in inspect.getsource(BackgroundScheduler.get_jobs)
        scheduler = BackgroundScheduler()
        scheduler.start()
        assert scheduler.get_jobs(jobstore="bgjobs: none") == []
        scheduler.shutdown()

    def test_no_event_is_unknown(self) -> None:
        """A new kind of event in APScheduler fails here, so that somebody decides whether bgjobs should listen."""
        known = {
            "EVENT_SCHEDULER_STARTED", "EVENT_SCHEDULER_START", "EVENT_SCHEDULER_SHUTDOWN", "EVENT_SCHEDULER_PAUSED",
            "EVENT_SCHEDULER_RESUMED", "EVENT_EXECUTOR_ADDED", "EVENT_EXECUTOR_REMOVED", "EVENT_JOBSTORE_ADDED",
            "EVENT_JOBSTORE_REMOVED", "EVENT_ALL_JOBS_REMOVED", "EVENT_JOB_ADDED", "EVENT_JOB_REMOVED",
            "EVENT_JOB_MODIFIED", "EVENT_JOB_EXECUTED", "EVENT_JOB_ERROR", "EVENT_JOB_MISSED", "EVENT_JOB_SUBMITTED",
            "EVENT_JOB_MAX_INSTANCES", "EVENT_ALL",
        }  # fmt: skip
        assert {name for name in vars(apscheduler.events) if name.startswith("EVENT_")} == known


class TestWhatIsStored:
    def test_a_job_store_keeps_names_only(self) -> None:
        """The row of a job holds a reference and three plain texts."""
        scheduler = BackgroundScheduler(timezone="UTC")
        with cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY):
            (job,) = scheduler.get_jobs()
            assert pickle.loads(pickle.dumps(job)).args == ("bgjobs", "k", "scheduled")
            assert job.func_ref == "bgjobs._apscheduler.tick:fire"

    def test_rows_of_a_persistent_store_stay_and_run_again(self, tmp_path: Path) -> None:
        """A job in SQLite is kept over a close, and taken up by the next warm-up."""
        seen = Waiter()
        url = f"sqlite:///{tmp_path / 'jobs.db'}"

        def facade() -> BackgroundJobs:
            scheduler = BackgroundScheduler(timezone="UTC", jobstores={"db": stored(url)})
            return cold(scheduler).add_background_job(
                lambda: seen(), key="k", cron=NIGHTLY, jobstore="db", run_immediately=True
            )

        for times in (1, 2):
            with facade() as jobs:
                seen.wait(times)
                assert [job.id for job in jobs._lifecycle._bridge.scheduler.get_jobs()] == ["bgjobs:k"]  # type: ignore[union-attr]

    @pytest.mark.parametrize("made", [BackgroundScheduler, BlockingScheduler])
    def test_a_restart_neither_resets_nor_unpauses(self, tmp_path: Path, made: Any) -> None:
        """A run that came due while nothing was running is made at once; a paused job stays paused."""
        seen = Waiter()
        url = f"sqlite:///{tmp_path / 'jobs.db'}"

        def facade(cron: str = NIGHTLY) -> tuple[Any, BackgroundJobs]:
            scheduler = made(timezone="UTC", jobstores={"db": stored(url)})
            jobs = cold(scheduler).add_background_job(
                lambda: seen(current_run().scheduled_at), key="due", cron=NIGHTLY, jobstore="db"
            )
            return scheduler, jobs.add_background_job(nothing, key="paused", cron=cron, jobstore="db")

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
        scheduler, jobs = facade("0 0 4 * * *")
        with warm(kind, jobs):
            until(lambda: jobs.status()[1].next_run_time)

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
            def lookup_job(self, job_id: str) -> Any:
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
        assert "the application 'bgjobs', to which this job belongs, is not running" in records.texts("WARNING")[0]
        scheduler.shutdown()

    async def test_a_row_without_its_application_is_skipped_on_asyncio_too(self, records: Any) -> None:
        """Both ways in say the same."""
        assert isinstance(await fire_async("shop", "k", "scheduled"), Skipped)
        assert isinstance(fire("shop", "k", "scheduled"), Skipped)
        assert len(records.texts("WARNING")) == 2

    def test_a_row_whose_job_is_gone_is_skipped(self, records: Any) -> None:
        """A key that is no longer registered is named in the log."""
        with cold():
            value = fire("bgjobs", "old", "scheduled")
        assert value == Skipped("no job is registered under this key in this process")
        assert "job 'old' scheduled at" in records.texts("WARNING")[0]

    def test_two_facades_in_one_process_have_two_names(self) -> None:
        """The application's name is made unique among those that are warm."""
        with cold(), cold():
            assert {*applications} == {"bgjobs", "bgjobs#2"}
        assert applications == {}


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

        jobs = cold(CLASSES[kind](timezone="UTC"))
        scheduler = jobs._lifecycle.given.scheduler  # type: ignore[union-attr]
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
        assert second.endswith(" times while this run was going")

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
            until(lambda: records.texts("WARNING"))
            release.set()
        assert "was skipped: the executor is not done with its previous run yet" in records.texts("WARNING")[0]

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

    def test_a_thread_that_runs_jobs_under_its_locks_hands_the_failure_on(self, records: Any) -> None:
        """The debug executor runs a job on the scheduler's own thread; its handler runs elsewhere."""
        seen = Waiter()
        scheduler = BackgroundScheduler(timezone="UTC", executors={"default": DebugExecutor()})

        def fail() -> None:
            raise ValueError(threading.current_thread().name)

        jobs = cold(scheduler).add_background_job(
            fail, trigger=now(), on_exception=lambda exc: seen((str(exc), threading.current_thread().name))
        )
        with jobs:
            assert seen.wait() == [("APScheduler", "bgjobs-fail")]


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
