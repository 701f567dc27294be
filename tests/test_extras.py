"""Extra runs: with arguments of their own, and awaited until they are over."""

from __future__ import annotations

import asyncio
import threading
from collections import UserDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

from bgjobs import BackgroundJobs, InvalidJobError, LifecycleError, UnknownJobError, UnknownRunError
from stage import LIMIT, NIGHTLY, Waiter, cold, counts, job_class, nothing, often, row, stage, stored, until, warm


def test_arguments_of_one_run() -> None:
    """They win over those of the job, in this run alone."""
    seen = Waiter()

    def report(day: str, kind: str = "short") -> None:
        seen((day, kind))

    jobs = cold().add_background_job(report, cron=NIGHTLY, kwargs={"day": "today", "kind": "long"})
    with jobs:
        for kwargs in ({"day": "2026-01-01"}, None, {}):
            jobs.wait(jobs.run_now("report", kwargs=kwargs), LIMIT)
    assert seen.seen == [("2026-01-01", "long"), ("today", "long"), ("today", "long")]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        pytest.param({"dya": "x"}, "no parameter 'dya' that kwargs could fill; did you mean 'day'", id="name"),
        pytest.param({"day": 7}, "kwargs: day must be .*str.*, not int", id="type"),
    ],
)
def test_wrong_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    """Where the run is asked for, and nothing is scheduled."""

    def report(day: str = "") -> None: ...

    jobs = cold().add_background_job(report, cron=NIGHTLY)
    with jobs, pytest.raises(InvalidJobError, match=message):
        jobs.run_now("report", kwargs=kwargs)
    assert counts(jobs, "report") == {}


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_the_report_of_a_run(kind: str, colour: str, outcome: str) -> None:
    """`wait` returns when the run is over, on_exception included, with how it ended."""
    handled: list[str] = []

    def act(*_: object) -> None:
        if outcome == "failed":
            raise ValueError("boom")

    def register(jobs: BackgroundJobs) -> None:
        job = job_class(colour, act, lambda _, error: handled.append(str(error)))
        jobs.add_background_job(job, key="k", cron=NIGHTLY)

    with stage(kind, register) as jobs:
        run_id = jobs.run_now("k")
        report = jobs.wait(run_id, LIMIT)
        assert jobs.wait(run_id) is report
    assert (report.key, report.run_id, report.outcome) == ("k", run_id, outcome)
    assert handled == (["boom"] if outcome == "failed" else [])


async def test_in_a_coroutine() -> None:
    """`wait_async` leaves the event loop free; giving up does not end the run."""
    release = asyncio.Event()

    async def act() -> None:
        await release.wait()

    jobs = cold().add_background_job(act, cron=NIGHTLY)
    async with jobs:
        run_id = jobs.run_now("act")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await jobs.wait_async(run_id)
        with pytest.raises(LifecycleError, match=r"use `await jobs.wait_async"):
            jobs.wait(run_id)
        release.set()
        assert (await jobs.wait_async(run_id)).outcome == "succeeded"


def test_a_wait_that_takes_too_long() -> None:
    """It raises what a timeout raises, and names the run."""
    release = threading.Event()
    jobs = cold().add_background_job(lambda: release.wait(LIMIT), key="k", cron=NIGHTLY)
    with jobs:
        run_id = jobs.run_now("k")
        with pytest.raises(TimeoutError, match=rf"run {run_id} was not over within 0\.01 s"):
            jobs.wait(run_id, 0.01)
        release.set()
        assert jobs.wait(run_id, LIMIT).outcome == "succeeded"


def test_a_run_that_is_skipped() -> None:
    """The report says why nothing ran."""
    release = threading.Event()
    jobs = cold().add_background_job(lambda: release.wait(LIMIT), key="k", cron=NIGHTLY)
    with jobs:
        first = jobs.run_now("k")
        until(lambda: row(jobs, "k").running)
        report = jobs.wait(jobs.run_now("k"), LIMIT)
        release.set()
        assert jobs.wait(first, LIMIT).outcome == "succeeded"
    assert (report.outcome, report.run_id) == ("overlapped", None)
    assert report.reason is not None


@pytest.mark.parametrize("way", ["pause", "remove", "close"])
def test_a_run_that_is_taken_back(way: str) -> None:
    """Whoever waits for it hears that it will not be made."""
    scheduler = BackgroundScheduler()
    jobs = cold(scheduler)
    scheduler.add_executor("threadpool", "one", max_workers=1)
    release = threading.Event()
    jobs.add_background_job(lambda: release.wait(LIMIT), key="holder", cron=NIGHTLY, executor="one")
    jobs.add_background_job(nothing, key="k", cron=NIGHTLY, executor="one")
    with jobs:
        jobs.run_now("holder")
        until(lambda: row(jobs, "holder").running)
        run_id = jobs.run_now("k")
        if way == "close":
            threading.Timer(0.05, release.set).start()
        else:
            scheduler.wakeup()
            getattr(jobs, way)("k")
            release.set()
            assert jobs.wait(run_id, LIMIT).outcome in ("paused", "refused")
    assert jobs.wait(run_id, LIMIT).run_id is None
    assert jobs.wait(run_id, LIMIT).outcome == {"pause": "paused", "remove": "refused", "close": "closing"}[way]


@pytest.mark.parametrize("is_given", [True, False])
def test_a_close_that_comes_first(is_given: bool) -> None:
    """A run that is asked for while another thread closes the jobs leaves nothing behind, and is told."""

    class Closing(UserDict[str, object]):
        def __iter__(self) -> Iterator[str]:  # as by another thread, after `run_now` has seen that the jobs are warm
            jobs.close()
            return super().__iter__()

    scheduler = BackgroundScheduler()
    jobs = cold(scheduler if is_given else None).add_background_job(nothing, key="k", cron=NIGHTLY)
    scheduler.start()
    jobs.warm_up()
    report = jobs.wait(jobs.run_now("k", kwargs=Closing()), LIMIT)
    assert (report.outcome, counts(jobs, "k")) == ("closing", {"closing": 1})
    assert scheduler.get_jobs() == []
    scheduler.shutdown()


def test_a_run_that_a_store_refuses(tmp_path: Path) -> None:
    """It has no id to wait for, and is not remembered."""
    scheduler = BackgroundScheduler(jobstores={"default": stored(tmp_path)})
    jobs = cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY)
    with jobs:
        scheduler._jobstores["default"].jobs_t.drop(scheduler._jobstores["default"].engine)
        with pytest.raises(Exception, match="no such table"):
            jobs.run_now("k")
        scheduler._jobstores["default"].jobs_t.create(scheduler._jobstores["default"].engine)


def test_an_unknown_run() -> None:
    """The error names the id; the latest thousand runs that have ended are remembered."""
    jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)
    with pytest.raises(UnknownRunError, match="no run with the id 'nope' is known") as caught:
        jobs.wait("nope")
    assert caught.value.run_id == "nope"
    with pytest.raises(UnknownJobError):
        jobs.run_now("nope")
    with warm("background", jobs):
        ids = []
        for _ in range(1_002):
            ids.append(jobs.run_now("k"))
            jobs.wait(ids[-1], LIMIT)
    assert jobs.wait(ids[-1000]).outcome == "succeeded"
    with pytest.raises(UnknownRunError):
        jobs.wait(ids[0])


def test_arguments_die_with_the_process_that_gave_them(tmp_path: Path, records: Any) -> None:
    """A job store keeps no arguments, so another process skips the run instead of making it with others."""

    def facade() -> tuple[BackgroundScheduler, BackgroundJobs]:
        scheduler = BackgroundScheduler(jobstores={"default": stored(tmp_path)})
        return scheduler, cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY)

    scheduler, jobs = facade()
    jobs.warm_up()
    scheduler.pause()
    run_id = jobs.run_now("k", kwargs={})
    jobs.close()
    assert jobs.wait(run_id, LIMIT).outcome == "closing"
    scheduler, jobs = facade()
    with jobs:
        until(lambda: counts(jobs, "k"))
    assert counts(jobs, "k") == {"refused": 1}
    assert any("the process that has asked for it, with its kwargs, is gone" in text for text in records.texts())


def test_a_run_while_a_schedule_is_busy() -> None:
    """An id is that of one run: scheduled ones beside it do not answer for it."""
    jobs = cold().add_background_job(nothing, key="k", trigger=often(), max_instances=5)
    with jobs:
        run_id = jobs.run_now("k")
        assert jobs.wait(run_id, LIMIT).run_id == run_id
