"""Rows in persistent job stores: what a warm-up, a close and another application make of them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED, EVENT_JOB_MISSED, EVENT_JOB_SUBMITTED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from loguru import logger
from sqlalchemy.pool import NullPool

from bgjobs import BackgroundJobs, CronExpression, Skipped, current_run
from stage import (
    CLASSES,
    LIMIT,
    NIGHTLY,
    Waiter,
    cold,
    event_loop_in_a_thread,
    nothing,
    row,
    stored,
    until,
    warm,
)

LONG_AGO = datetime(2026, 1, 1, 3, tzinfo=UTC)


def on(path: Path, *folders: Path, kind: str = "background", **settings: Any) -> tuple[Any, BackgroundJobs]:
    """A scheduler with a job store in that folder, and stores ``"1"``, ``"2"`` in others; a cold facade on it."""
    stores = {"default": stored(path), **{str(n): stored(folder) for n, folder in enumerate(folders, 1)}}
    scheduler = CLASSES[kind](timezone="UTC", jobstores=stores)
    return scheduler, cold(scheduler, **settings)


@contextmanager
def looked_at(path: Path) -> Generator[SQLAlchemyJobStore]:
    """The job store of a folder, as another process sees it."""
    store = stored(path)
    store.start(BackgroundScheduler(timezone="UTC"), "default")
    yield store
    store.shutdown()


def ids(path: Path) -> list[str]:
    """The ids in the job store of a folder."""
    with looked_at(path) as store:
        return sorted(job.id for job in store.get_all_jobs())


def next_run(path: Path, key: str) -> datetime | None:
    """The next run of a job in the job store of a folder; ``None`` while it is paused."""
    with looked_at(path) as store:
        moment: datetime | None = store.lookup_job(f"bgjobs:{key}").next_run_time
        return moment


def left(
    path: Path, key: str, *, kind: str = "scheduled", application: str = "bgjobs", due: datetime = LONG_AGO, **more: Any
) -> None:
    """Have an earlier process leave a row in the job store of a folder, which came due after its end."""
    options: dict[str, Any] = {"trigger": CronExpression(NIGHTLY).trigger("UTC"), "coalesce": True, "max_instances": 1}
    job = BackgroundScheduler(timezone="UTC").add_job(
        "bgjobs._apscheduler.executor:fire",
        args=(application, key, kind),
        id=f"{application}:{key}" + (f":{kind}" if kind != "scheduled" else ""),
        name=key,
        misfire_grace_time=None,
        **options | more,
    )
    job._modify(next_run_time=due)
    with looked_at(path) as store:
        store.add_job(job)


def tell(seen: Waiter) -> Callable[[], object]:
    """A job that tells its fire time."""
    return lambda: seen(current_run().scheduled_at)


class TestWarmUp:
    """A warm-up makes the rows in the job stores agree with the jobs that are registered."""

    def test_a_row_of_a_job_that_is_not_registered_is_removed(self, tmp_path: Path, records: Any) -> None:
        """It does not run again, its one-shots neither, and one record says so."""
        left(tmp_path, "old")
        left(tmp_path, "old", kind="1", trigger=DateTrigger(LONG_AGO))
        with on(tmp_path)[1]:
            assert ids(tmp_path) == []
        (told,) = records.texts("WARNING")
        assert "'bgjobs:old' (not registered)" in told
        assert "'bgjobs:old:1' (not registered)" in told

    def test_it_is_removed_before_anything_runs(self, kind: str, tmp_path: Path, records: Any) -> None:
        """A scheduler that bgjobs starts does not look at its rows before they agree."""
        seen = Waiter()
        left(tmp_path, "old")
        left(tmp_path, "due")
        _, jobs = on(tmp_path, kind=kind)
        with warm(kind, jobs.add_background_job(tell(seen), key="due", cron=NIGHTLY)):
            assert seen.wait()[0] >= LONG_AGO
        assert not [text for text in records.texts() if "'old' was skipped" in text]

    @pytest.mark.parametrize("off", [{"enabled": False, "cron": NIGHTLY}, {"cron": "-"}])
    def test_a_row_of_a_job_that_is_switched_off_is_removed(
        self, tmp_path: Path, records: Any, off: dict[str, Any]
    ) -> None:
        """It runs no more; ``run_now`` works all the same."""
        seen = Waiter()
        left(tmp_path, "off")
        _, jobs = on(tmp_path)
        with jobs.add_background_job(lambda: seen(), key="off", **off):
            assert ids(tmp_path) == []
            jobs.run_now("off")
            seen.wait()
            jobs.add_background_job(nothing, key="off, too", **off)
            assert "bgjobs:off, too" not in ids(tmp_path)
        assert "'bgjobs:off' (switched off)" in records.texts("WARNING")[0]

    def test_an_extra_run_of_a_registered_job_is_made(self, tmp_path: Path) -> None:
        """What ``run_now`` promised before a crash is kept, of a job that is switched off, too."""
        seen = Waiter()
        for key in ("on", "off"):
            left(tmp_path, key, kind="1", trigger=DateTrigger(LONG_AGO))
        _, jobs = on(tmp_path)
        jobs.add_background_job(lambda: seen("on"), key="on", cron=NIGHTLY)
        with jobs.add_background_job(lambda: seen("off"), key="off", cron="-"):
            assert sorted(seen.wait(2)) == ["off", "on"]
        assert ids(tmp_path) == ["bgjobs:on"]

    @pytest.mark.parametrize("when", ["before the warm-up", "after a close"])
    def test_a_job_that_is_resumed_while_cold_runs_on(self, tmp_path: Path, when: str) -> None:
        """The pause in its store is over then."""
        seen = Waiter()
        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": stored(tmp_path)})
        jobs = cold(scheduler).add_background_job(tell(seen), key="k", cron="* * * * * *")
        with jobs:
            jobs.pause("k")
        if when == "before the warm-up":
            scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": stored(tmp_path)})
            jobs = cold(scheduler).add_background_job(tell(seen), key="k", cron="* * * * * *")
        jobs.resume("k")
        with jobs:
            seen.wait()
            assert not row(jobs, "k").paused

    def test_a_changed_schedule_makes_no_run_of_the_old_one(self, tmp_path: Path, records: Any) -> None:
        """The row is replaced, and its overdue run is not made."""
        left(tmp_path, "k")
        _, jobs = on(tmp_path)
        with jobs.add_background_job(nothing, key="k", cron="0 0 4 * * *"):
            due = next_run(tmp_path, "k")
            assert due is not None
            assert (due.hour, due > datetime.now(UTC)) == (4, True)
            assert row(jobs, "k").next_run_time == due
        assert not records.texts("WARNING")

    def test_a_pause_outlives_a_change_of_the_schedule(self, tmp_path: Path) -> None:
        """Who paused the job did not mean its cron expression."""
        _, jobs = on(tmp_path)
        with jobs.add_background_job(nothing, key="k", cron=NIGHTLY):
            jobs.pause("k")
        _, jobs = on(tmp_path)
        with jobs.add_background_job(nothing, key="k", cron="0 0 4 * * *"):
            assert row(jobs, "k").paused
            assert next_run(tmp_path, "k") is None
            jobs.resume("k")
            due = next_run(tmp_path, "k")
            assert due is not None
            assert due.hour == 4

    def test_changed_options_leave_the_next_run_alone(self, tmp_path: Path) -> None:
        """The row gets them, and the run that came due is made with them."""
        seen = Waiter()
        left(tmp_path, "k")
        _, jobs = on(tmp_path)
        with jobs.add_background_job(tell(seen), key="k", cron=NIGHTLY, coalesce=False, max_instances=2):
            assert seen.wait()[0] == LONG_AGO
            with looked_at(tmp_path) as store:
                assert store.lookup_job("bgjobs:k").max_instances == 2

    def test_a_job_that_moves_to_another_store_takes_its_next_run_along(self, tmp_path: Path, records: Any) -> None:
        """The row in the old store is removed, and the run that came due is made once."""
        seen, before, after = Waiter(), tmp_path / "before", tmp_path / "after"
        before.mkdir()
        after.mkdir()
        left(before, "k", coalesce=False)
        _, jobs = on(before, after)
        with jobs.add_background_job(tell(seen), key="k", cron=NIGHTLY, jobstore="1"):
            assert LONG_AGO <= seen.wait()[0] < datetime.now(UTC)
            assert (ids(before), ids(after)) == ([], ["bgjobs:k"])
        assert any("'bgjobs:k' (its job store is '1' now)" in text for text in records.texts("WARNING"))

    def test_the_row_in_the_right_store_wins(self, tmp_path: Path) -> None:
        """Where two stores hold a job, what its own store says of it stays."""
        folders = [tmp_path / name for name in "abc"]
        for year, folder in zip((2100, 2200, 2300), folders, strict=True):
            folder.mkdir()
            left(folder, "k", due=datetime(year, 1, 1, tzinfo=UTC))
        _, jobs = on(*folders)
        with jobs.add_background_job(nothing, key="k", cron=NIGHTLY, jobstore="1"):
            assert next_run(folders[1], "k") == datetime(2200, 1, 1, tzinfo=UTC)
            assert [ids(folder) for folder in folders] == [[], ["bgjobs:k"], []]

    @pytest.mark.parametrize("made", [BackgroundScheduler, BlockingScheduler])
    def test_a_damaged_row_is_replaced(self, tmp_path: Path, records: Any, made: Any) -> None:
        """It fails no start; one warning names it."""
        left(tmp_path, "k")
        damage(tmp_path, "k")
        kind = "background" if made is BackgroundScheduler else "blocking"
        _, jobs = on(tmp_path, kind=kind)
        with warm(kind, jobs.add_background_job(nothing, key="k", cron=NIGHTLY)):
            until(lambda: records.texts("WARNING"))  # a look at the store before that would remove it
            until(lambda: ids(tmp_path) == ["bgjobs:k"])
        (told,) = records.texts("WARNING")
        assert "the row 'bgjobs:k' of job store 'default' was damaged" in told

    def test_a_damaged_row_of_a_job_that_is_added_later_is_replaced(self, tmp_path: Path, records: Any) -> None:
        """The registration succeeds; one warning names the job."""
        _, jobs = on(tmp_path)
        with jobs:
            left(tmp_path, "k", due=datetime(2100, 1, 1, tzinfo=UTC))
            damage(tmp_path, "k")
            jobs.add_background_job(nothing, key="k", cron=NIGHTLY)
            assert ids(tmp_path) == ["bgjobs:k"]
        assert "stored row of job 'k' cannot be read, and is replaced" in records.texts("WARNING")[0]

    def test_what_else_a_store_says_is_not_told_again(self, tmp_path: Path, records: Any) -> None:
        """Damaged rows of other people are APScheduler's to tell of, and so are its other troubles."""

        class Chatty(SQLAlchemyJobStore):  # type: ignore[misc]
            def get_all_jobs(self) -> Any:
                self._logger.error("this takes long")
                return super().get_all_jobs()

        left(tmp_path, "k")
        damage(tmp_path, "k")
        chatty = Chatty(url=f"sqlite:///{tmp_path / 'jobs.db'}", engine_options={"poolclass": NullPool})
        with cold(BackgroundScheduler(timezone="UTC", jobstores={"default": chatty}), application="other"):
            assert ids(tmp_path) == []
        assert not records.texts("WARNING")

    def test_a_row_whose_arguments_somebody_changed_is_removed(self, tmp_path: Path, records: Any) -> None:
        """It can belong to no job, whatever its id says."""
        left(tmp_path, "k")
        with looked_at(tmp_path) as store:
            job = store.lookup_job("bgjobs:k")
            job.args = ()
            store.update_job(job)
        with on(tmp_path)[1].add_background_job(nothing, key="k", cron=NIGHTLY):
            assert ids(tmp_path) == ["bgjobs:k"]
        assert "'bgjobs:k' (not registered)" in records.texts("WARNING")[0]

    def test_the_last_run_of_a_job_that_has_ended_is_made(self, tmp_path: Path) -> None:
        """It came due while nothing was running; after it the job is finished."""
        seen, end = Waiter(), LONG_AGO + timedelta(hours=1)
        left(tmp_path, "k", trigger=CronExpression(NIGHTLY).trigger("UTC", end_date=end))
        _, jobs = on(tmp_path)
        with jobs.add_background_job(tell(seen), key="k", cron=NIGHTLY, end_date=end):
            assert seen.wait() == [LONG_AGO]
            until(lambda: row(jobs, "k").finished)

    def test_a_new_schedule_that_has_ended_leaves_no_row(self, tmp_path: Path, records: Any) -> None:
        """The job is finished, and the old schedule's overdue run is not made."""
        left(tmp_path, "k")
        with on(tmp_path)[1].add_background_job(nothing, key="k", cron=NIGHTLY, end_date=LONG_AGO):
            assert ids(tmp_path) == []
        assert "'bgjobs:k' (its new schedule is finished)" in records.texts("WARNING")[0]

    def test_rows_of_a_facade_that_warms_up_later_stay(self, tmp_path: Path) -> None:
        """Two facades of one application on one scheduler leave each other's rows alone, warm or not."""
        seen = Waiter()
        left(tmp_path, "first")
        left(tmp_path, "second")
        scheduler, first = on(tmp_path)
        second = cold(scheduler).add_background_job(tell(seen), key="second", cron=NIGHTLY, coalesce=False)
        first.add_background_job(nothing, key="first", cron=NIGHTLY)
        scheduler.start(paused=True)
        with first:
            assert ids(tmp_path) == ["bgjobs:first", "bgjobs:second"]
            with second:
                scheduler.resume()
                assert seen.wait()[0] >= LONG_AGO
        scheduler.shutdown()

    def test_a_job_that_is_added_after_the_warm_up_keeps_its_next_run(self, tmp_path: Path) -> None:
        """Its row was removed by then, but what it said is remembered."""
        seen = Waiter()
        left(tmp_path, "late")
        with on(tmp_path)[1] as jobs:
            assert ids(tmp_path) == []
            jobs.add_background_job(tell(seen), key="late", cron=NIGHTLY)
            assert LONG_AGO <= seen.wait()[0] < datetime.now(UTC) - timedelta(minutes=1)

    def test_a_run_that_begins_meanwhile_is_counted_once(self, tmp_path: Path) -> None:
        """A scheduler of somebody else goes on while the rows are looked at; then the next run is the one after."""
        seen = Waiter()
        left(tmp_path, "old")
        left(tmp_path, "due")
        scheduler, jobs = on(tmp_path)
        jobs.add_background_job(tell(seen), key="due", cron=NIGHTLY)
        scheduler.start(paused=True)

        def sink(_: Any) -> None:  # the rows have been read, and are being brought up to date
            scheduler.resume()
            seen.wait()

        number = logger.add(sink, filter=lambda record: "'bgjobs:old'" in record["message"])
        with jobs:
            logger.remove(number)
            until(lambda: row(jobs, "due").outcomes["succeeded"])
            due = row(jobs, "due").next_run_time
            assert due is not None
            assert due > datetime.now(UTC)
            assert jobs.health()
            assert len(seen.seen) == 1
        scheduler.shutdown()

    def test_rows_of_other_people_stay(self, tmp_path: Path) -> None:
        """What is no job of bgjobs is none of its business, whatever its id is."""
        scheduler, jobs = on(tmp_path)
        scheduler.add_job(nothing, "cron", hour=3, id="bgjobs:theirs")
        with jobs:
            pass
        with on(tmp_path)[1]:
            assert ids(tmp_path) == ["bgjobs:theirs"]

    def test_a_store_that_no_job_uses_may_be_down(self, tmp_path: Path, records: Any) -> None:
        """The start goes on, with a warning."""

        class Down(SQLAlchemyJobStore):  # type: ignore[misc]
            def get_all_jobs(self) -> Any:
                raise OSError("store is down")

        scheduler, jobs = on(tmp_path)
        scheduler.add_jobstore(Down(url="sqlite://", engine_options={"poolclass": NullPool}), "down")
        with jobs.add_background_job(nothing, key="k", cron=NIGHTLY):
            assert ids(tmp_path) == ["bgjobs:k"]
        assert "job store 'down', which no job here uses, cannot be read" in records.texts("WARNING")[0]

    def test_a_failed_warm_up_leaves_the_row(self, tmp_path: Path) -> None:
        """The next one finds the run that came due."""

        class Full(SQLAlchemyJobStore):  # type: ignore[misc]
            def add_job(self, job: Any) -> None:
                raise OSError("store is full")

        left(tmp_path, "k")
        full = Full(url=f"sqlite:///{tmp_path / 'jobs.db'}", engine_options={"poolclass": NullPool})
        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": full})
        jobs = cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY, run_immediately=True)
        with pytest.raises(OSError, match="store is full"):
            jobs.warm_up()
        assert next_run(tmp_path, "k") == LONG_AGO


def damage(path: Path, key: str) -> None:
    """Make the row of a job unreadable."""
    with looked_at(path) as store, store.engine.begin() as connection:
        connection.execute(store.jobs_t.update().where(store.jobs_t.c.id == f"bgjobs:{key}").values(job_state=b"no"))


#: A program with a job each second, which tells of its warnings, and of its health as soon as it is not ok.
PROGRAM = """
import sys, threading, time
from loguru import logger
from bgjobs import BackgroundJobs, BackgroundJobsSettings
name, url = sys.argv[1:]
logger.remove()
logger.add(lambda message: print("WARNING", message.record["message"], flush=True), level="WARNING")
store = {"type": "sqlalchemy", "url": url, "engine_options": {"connect_args": {"timeout": 60}}}
defaults = BackgroundJobsSettings.defaults()
settings = defaults.model_copy(update={"application": name, "jobstores": {"default": store}})
jobs = BackgroundJobs(settings=settings).add_background_job(lambda: None, key="job", cron="* * * * * *")
jobs.add_background_job(lambda: None, key=f"of {name}", cron="* * * * * *")
with jobs:
    print("WARM", flush=True)
    while not (problems := [text for text in jobs.health().problems if "holds jobs of" in text]):
        time.sleep(0.01)
    print("HEALTH", *problems, flush=True)
    sys.stdin.readline()
"""


class TestTwoApplications:
    """Two applications on one table take each other's runs; nothing can mend that, so it is told."""

    def test_two_processes_on_one_table_are_told(self, tmp_path: Path) -> None:
        """The one that comes second sees the other's rows, the first one its runs; no row is lost or overwritten."""

        def start(name: str) -> Any:
            command = [sys.executable, "-c", PROGRAM, name, f"sqlite:///{tmp_path / 'jobs.db'}"]
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def hear(process: Any, beginning: str) -> list[str]:
            lines: list[str] = []
            while not (lines and lines[-1].startswith(beginning)):
                lines.append(process.stdout.readline())
                assert lines[-1], f"it ended after {lines}"
            return lines

        def stop(process: Any) -> list[str]:
            lines: list[str] = process.communicate("stop", timeout=LIMIT)[0].splitlines(keepends=True)
            assert process.returncode == 0
            return lines

        shop = start("shop")
        assert hear(shop, "WARM") == ["WARM\n"]
        billing = start("billing")
        of_billing = hear(billing, "HEALTH a job store of the application 'billing' holds jobs of 'shop', too")
        of_billing += stop(billing)  # whose rows stay, and the other one takes its runs
        of_shop = hear(shop, "HEALTH a job store of the application 'shop' holds jobs of 'billing', too")
        of_shop += stop(shop)
        assert of_billing[0].startswith("WARNING a job store of the application 'billing' holds jobs of 'shop', too")
        assert "give each a table of its own (`tablename` of SQLAlchemyJobStore" in of_billing[0]
        assert ids(tmp_path) == ["billing:job", "billing:of billing", "shop:job", "shop:of shop"]
        skipped = [line for line in of_shop + of_billing if "was skipped: no job of the application" in line]
        assert len(skipped) == len(set(skipped)) <= 4  # at most one for each job in the other process

    def test_rows_of_another_application_stay_as_they_are(self, tmp_path: Path, records: Any) -> None:
        """One warning at warm-up names both, and the probe says the same."""
        later = datetime(2100, 1, 1, tzinfo=UTC)
        left(tmp_path, "k", application="bgjobs:billing", due=later)
        with on(tmp_path)[1].add_background_job(nothing, key="k", cron=NIGHTLY) as jobs:
            assert ids(tmp_path) == ["bgjobs:billing:k", "bgjobs:k"]
            assert next_run(tmp_path, "billing:k") == later
            problem = "a job store of the application 'bgjobs' holds jobs of 'bgjobs:billing', too"
            assert jobs.health().problems[0].startswith(problem)
            assert not jobs.health()
        (told,) = records.texts("WARNING")
        assert told.startswith(problem)

    def test_a_row_that_comes_later_is_found_when_it_is_due(self, tmp_path: Path, records: Any) -> None:
        """The first of its runs is told of, not each of them; the health stays as it is."""
        values = Waiter()
        scheduler, jobs = on(tmp_path)
        scheduler.add_listener(lambda event: values(event.retval), EVENT_JOB_EXECUTED)
        with jobs:
            assert jobs.health()
            for number in range(3):
                left(tmp_path, "k", application="billing", kind=str(number), trigger=DateTrigger(LONG_AGO))
                scheduler.wakeup()
                values.wait(number + 1)
            assert "holds jobs of 'billing', too" in jobs.health().problems[0]
        assert {type(value) for value in values.seen} == {Skipped}
        (told,) = records.texts("WARNING")
        assert told.startswith("job 'k' was skipped: no job of the application 'billing' is warm")

    def test_two_applications_on_one_scheduler_are_no_problem(self, tmp_path: Path) -> None:
        """Where both are warm, each makes its own runs."""
        seen = Waiter()
        left(tmp_path, "a", application="shop")
        left(tmp_path, "b", application="billing")
        scheduler, shop = on(tmp_path, application="shop")
        billing = cold(scheduler, application="billing").add_background_job(lambda: seen("b"), key="b", cron=NIGHTLY)
        scheduler.start(paused=True)
        with shop.add_background_job(lambda: seen("a"), key="a", cron=NIGHTLY), billing:
            scheduler.resume()
            assert sorted(seen.wait(2)) == ["a", "b"]
            assert shop.health()
            assert billing.health()
        scheduler.shutdown()

    def test_a_row_that_fits_no_application_stays(self, tmp_path: Path) -> None:
        """Its id and its arguments disagree, so nobody knows whose it is."""
        left(tmp_path, "k", application="billing", due=datetime(2100, 1, 1, tzinfo=UTC))
        with looked_at(tmp_path) as store:
            job = store.lookup_job("billing:k")
            job.args = ("billing", "other", "scheduled")
            store.update_job(job)
        with on(tmp_path)[1] as jobs:
            assert ids(tmp_path) == ["billing:k"]
            assert jobs.health()


@contextmanager
def already_started(path: Path, kind: str = "background", **more: Any) -> Generator[tuple[Any, Waiter]]:
    """A scheduler that its owner started before the warm-up; and what became of each run, as its listeners hear it."""
    values = Waiter()
    scheduler = CLASSES[kind](timezone="UTC", jobstores={"default": stored(path)}, **more)
    scheduler.add_listener(lambda event: values(event), EVENT_JOB_EXECUTED | EVENT_JOB_MISSED)
    with ExitStack() as stack:
        if kind == "asyncio":
            loop = stack.enter_context(event_loop_in_a_thread())
            loop.call_soon_threadsafe(scheduler.start)
            until(lambda: scheduler.running)
            stack.callback(loop.call_soon_threadsafe, scheduler.shutdown)
        else:
            scheduler.start()
            stack.callback(scheduler.shutdown)
        yield scheduler, values


def last(trigger: Any) -> datetime:
    """The latest fire time until now of a trigger that fired at `LONG_AGO`."""
    found, following = LONG_AGO, LONG_AGO
    while following <= datetime.now(UTC):
        found, following = following, trigger.get_next_fire_time(following, following)
    return found.astimezone(UTC)


class TestBeforeTheWarmUp:
    """A scheduler that was started first runs rows while their jobs are cold; the last run is made up for."""

    @pytest.mark.parametrize("kind", ["asyncio", "background"])
    def test_a_run_that_came_due_before_is_made(self, tmp_path: Path, kind: str, records: Any) -> None:
        """Once, with its own fire time, and one warning says that it was late."""
        seen = Waiter()
        left(tmp_path, "k")
        with already_started(tmp_path, kind) as (scheduler, values):
            assert isinstance(values.wait()[0].retval, Skipped)
            with cold(scheduler).add_background_job(tell(seen), key="k", cron=NIGHTLY) as jobs:
                assert seen.wait() == [last(CronExpression(NIGHTLY).trigger("UTC"))]
                values.wait(2)
                due = row(jobs, "k").next_run_time
                assert due is not None
                assert due > datetime.now(UTC)
                assert jobs.health()
            assert len(seen.seen) == 1
        (told,) = records.texts("WARNING")
        assert told.startswith("job 'k' was skipped: no job of the application 'bgjobs' is warm")
        assert [text for text in records.texts("INFO") if text.startswith("job 'k' makes up for its run of")]

    def test_it_is_made_once_however_fast_the_warm_up_is(self, tmp_path: Path) -> None:
        """The thread of the run may come before, during or after the warm-up."""
        for attempt in range(10):
            seen, folder = Waiter(), tmp_path / str(attempt)
            folder.mkdir()
            left(folder, "k")
            with (
                already_started(folder) as (scheduler, _),
                cold(scheduler).add_background_job(tell(seen), key="k", cron=NIGHTLY),
            ):
                seen.wait()
            assert len(seen.seen) == 1

    def test_a_run_whose_thread_comes_late_is_made(self, tmp_path: Path) -> None:
        """It was given to the executor before the warm-up, and finds the jobs warm."""
        seen, busy, release = Waiter(), threading.Event(), threading.Event()

        def hog() -> None:
            busy.set()
            release.wait(LIMIT)

        with already_started(tmp_path, executors={"default": ThreadPoolExecutor(1)}) as (scheduler, values):
            scheduler.add_jobstore("memory", "memory")
            scheduler.add_job(hog, jobstore="memory")
            assert busy.wait(LIMIT)
            scheduler.add_listener(lambda event: values(event.job_id), EVENT_JOB_SUBMITTED)
            left(tmp_path, "k")
            scheduler.wakeup()
            until(lambda: "bgjobs:k" in values.seen)
            with cold(scheduler).add_background_job(lambda: seen(), key="k", cron=NIGHTLY):
                release.set()
                seen.wait()

    def test_an_extra_run_is_made(self, tmp_path: Path) -> None:
        """Its row is gone by then."""
        seen = Waiter()
        left(tmp_path, "k", kind="1", trigger=DateTrigger(LONG_AGO))
        left(tmp_path, "gone", kind="2", trigger=DateTrigger(LONG_AGO))
        left(tmp_path, "k", kind="startup", trigger=DateTrigger(LONG_AGO))
        with already_started(tmp_path) as (scheduler, values):
            values.wait(3)
            until(lambda: not ids(tmp_path))
            with cold(scheduler).add_background_job(lambda: seen(current_run().run_id), key="k", cron=NIGHTLY):
                assert seen.wait() == ["1"]

    @pytest.mark.parametrize(
        "trigger",
        [
            IntervalTrigger(hours=7, start_date=LONG_AGO, timezone="UTC"),
            CronTrigger(month=1, day=1, hour=3, minute="*", second="*/7", timezone="UTC"),
            CronExpression("* 0-4 3 1 1 *").trigger("UTC"),
            CronExpression("0 0 3 * * *").trigger("UTC", jitter=5),
        ],
        ids=str,
    )
    def test_it_is_the_last_fire_time(self, tmp_path: Path, trigger: Any) -> None:
        """Of every kind of trigger that can be asked, without jitter."""
        seen = Waiter()
        without = copy(trigger)
        without.jitter = None
        expected = last(without)
        left(tmp_path, "k", trigger=trigger)
        with already_started(tmp_path) as (scheduler, values):
            values.wait()
            with cold(scheduler).add_background_job(tell(seen), key="k", trigger=copy(trigger)):
                assert seen.wait() == [expected]

    def test_of_another_kind_of_trigger_it_is_when_it_came_due(self, tmp_path: Path) -> None:
        """Such a trigger may take for ever to answer for another time than the scheduler's."""
        seen, trigger = Waiter(), CalendarIntervalTrigger(months=1, hour=3, start_date=LONG_AGO.date(), timezone="UTC")
        left(tmp_path, "k", trigger=trigger)
        before = datetime.now(UTC)
        with already_started(tmp_path) as (scheduler, values):
            values.wait()
            with cold(scheduler).add_background_job(tell(seen), key="k", trigger=copy(trigger)):
                assert before < seen.wait()[0] < datetime.now(UTC)

    def test_a_run_that_is_too_late_is_not_made(self, tmp_path: Path) -> None:
        """The grace time of the job holds for it, too."""
        left(tmp_path, "k")
        with already_started(tmp_path) as (scheduler, values):
            values.wait()
            with cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY, misfire_grace_time=1) as jobs:
                assert values.wait(2)[1].code == EVENT_JOB_MISSED
                until(lambda: row(jobs, "k").not_run["missed"])

    @pytest.mark.parametrize("cron", ["0 0 4 * * *", "-"])
    def test_a_job_that_has_changed_since_makes_no_run(self, tmp_path: Path, cron: str) -> None:
        """Neither with another schedule nor when it is switched off; nor does one that is paused."""
        left(tmp_path, "k")
        left(tmp_path, "paused")
        with already_started(tmp_path) as (scheduler, values):
            values.wait(2)
            jobs = cold(scheduler).add_background_job(nothing, key="k", cron=cron)
            jobs.add_background_job(nothing, key="paused", cron=NIGHTLY)
            jobs.pause("paused")
            with jobs:
                assert not [
                    job for job in scheduler.get_jobs() if job.next_run_time and job.next_run_time < datetime.now(UTC)
                ]

    def test_what_a_change_has_made_void_stays_so(self, tmp_path: Path) -> None:
        """A run that came due under another schedule is not made at a later warm-up either."""
        left(tmp_path, "k")
        with already_started(tmp_path) as (scheduler, values):
            values.wait()
            for _ in range(2):
                with cold(scheduler).add_background_job(nothing, key="k", cron="0 0 4 * * *") as jobs:
                    due = row(jobs, "k").next_run_time
                    assert due is not None
                    assert due > datetime.now(UTC)
                    assert scheduler.get_job("bgjobs:k").next_run_time == due
            assert len(values.seen) == 1

    def test_a_store_that_is_down_costs_no_warm_up(self, tmp_path: Path, records: Any) -> None:
        """What cannot be made up for is told."""

        class ReadOnly(SQLAlchemyJobStore):  # type: ignore[misc]
            is_so = False

            def update_job(self, job: Any) -> None:
                if self.is_so and job.next_run_time < datetime.now(UTC):
                    raise OSError("store is down")
                super().update_job(job)

        left(tmp_path, "k")
        with already_started(tmp_path) as (scheduler, values):
            values.wait()
            until(lambda: next_run(tmp_path, "k") != LONG_AGO)
            scheduler.remove_jobstore("default")
            store = ReadOnly(url=f"sqlite:///{tmp_path / 'jobs.db'}", engine_options={"poolclass": NullPool})
            store.is_so = True
            scheduler.add_jobstore(store)
            with cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY) as jobs:
                assert jobs.is_warm
        assert "a run of job 'k' cannot be made up for: OSError: store is down" in records.texts("ERROR")[0]


class TestAfterTheClose:
    """A scheduler of somebody else goes on after the close, and consumes nothing that is for the next warm-up."""

    @pytest.mark.parametrize("kind", ["asyncio", "background"])
    def test_what_comes_due_after_the_close_is_made_at_the_next_warm_up(
        self, tmp_path: Path, kind: str, records: Any
    ) -> None:
        """In this process or in another one; a job that was paused stays paused."""
        with already_started(tmp_path, kind) as (scheduler, values):
            jobs = cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY)
            jobs.add_background_job(nothing, key="paused", cron=NIGHTLY).warm_up()
            jobs.pause("paused")
            due = row(jobs, "k").next_run_time
            jobs.close()
            assert next_run(tmp_path, "k") is None
            scheduler.wakeup()
            assert not values.seen
            jobs.warm_up()
            assert next_run(tmp_path, "k") == row(jobs, "k").next_run_time == due
            assert next_run(tmp_path, "paused") is None
            jobs.close()
        seen = Waiter()
        with looked_at(tmp_path) as store:  # time passes
            job = store.lookup_job("bgjobs:k")
            assert job.kwargs == {"due": due}
            job.kwargs = {"due": LONG_AGO}
            store.update_job(job)
        _, jobs = on(tmp_path, kind=kind)
        jobs.add_background_job(nothing, key="paused", cron=NIGHTLY)
        with warm(kind, jobs.add_background_job(tell(seen), key="k", cron=NIGHTLY)):
            assert seen.wait() == [last(CronExpression(NIGHTLY).trigger("UTC"))]
            assert row(jobs, "paused").paused
        assert not [text for text in records.texts("WARNING") if "coalesced" not in text]

    def test_an_extra_run_waits_too(self, tmp_path: Path) -> None:
        """It is made once, at the next warm-up, under the id that ``run_now`` gave."""
        seen = Waiter()
        with already_started(tmp_path) as (scheduler, values):
            jobs = cold(scheduler).add_background_job(lambda: seen(current_run().run_id), key="k", cron=NIGHTLY)
            jobs.warm_up()
            scheduler.pause()
            run_id = jobs.run_now("k")
            jobs.close()
            scheduler.resume()
            scheduler.wakeup()
            assert ids(tmp_path) == ["bgjobs:k", f"bgjobs:k:{run_id}"]
            assert not values.seen
            with jobs:
                assert seen.wait() == [run_id]
            assert len(seen.seen) == 1

    def test_a_changed_schedule_does_not_make_what_waited(self, tmp_path: Path) -> None:
        """Nor is the job paused by having waited."""
        with already_started(tmp_path) as (scheduler, _):
            with cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY):
                pass
            with cold(scheduler).add_background_job(nothing, key="k", cron="0 0 4 * * *") as jobs:
                due = next_run(tmp_path, "k")
                assert due is not None
                assert due.hour == 4
                assert not row(jobs, "k").paused

    def test_a_job_that_waits_can_move_to_another_store(self, tmp_path: Path) -> None:
        """Its due time goes along."""
        other = tmp_path / "other"
        other.mkdir()
        with already_started(tmp_path) as (scheduler, _):
            scheduler.add_jobstore(stored(other), "other")
            with cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY) as jobs:
                due = row(jobs, "k").next_run_time
            with cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY, jobstore="other"):
                assert next_run(other, "k") == due
                assert ids(tmp_path) == []

    def test_what_a_newer_process_has_taken_up_goes_on(self, tmp_path: Path) -> None:
        """In a rolling deployment the old process closes after the new one is warm."""
        with already_started(tmp_path) as (old, _), already_started(tmp_path) as (new, _):
            first, second = (cold(s).add_background_job(nothing, key="k", cron=NIGHTLY) for s in (old, new))
            first.warm_up()
            with second:
                first.close()
                assert next_run(tmp_path, "k") == row(second, "k").next_run_time
            assert next_run(tmp_path, "k") is None

    def test_a_store_that_is_down_costs_no_close(self, tmp_path: Path, records: Any) -> None:
        """The rows in the other stores wait all the same."""

        class Failing(SQLAlchemyJobStore):  # type: ignore[misc]
            is_down = False

            def get_all_jobs(self) -> Any:
                if self.is_down:
                    raise OSError("store is down")
                return super().get_all_jobs()

        other = tmp_path / "other"
        other.mkdir()
        store = Failing(url=f"sqlite:///{other / 'jobs.db'}", engine_options={"poolclass": NullPool})
        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"failing": store, "default": stored(tmp_path)})
        scheduler.start()
        with cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY):
            store.is_down = True
        scheduler.shutdown()
        assert next_run(tmp_path, "k") is None
        assert "job store 'failing' cannot keep what comes due" in records.texts("ERROR")[0]
