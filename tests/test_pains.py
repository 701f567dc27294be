"""What APScheduler alone does to its users, and bgjobs beside it: the pains that no other test file shows.

The others: a job store that raises ends the scheduler (`test_status`), a restart forgets a pause and a late run is lost
(`test_scheduler`), an ``async def`` on threads never runs (`test_run`), weekdays and clock changes (`test_trigger`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from apscheduler.events import EVENT_JOB_MAX_INSTANCES
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from bgjobs import CancellationToken, cron_trigger_arguments
from stage import LIMIT, Waiter, cold, nothing, now, often, until


def test_overlap_is_a_riddle(apscheduler_records: list[logging.LogRecord], records: Any) -> None:
    """A skipped run names a number of instances; ours says which run is going, and since when."""
    release, skipped = threading.Event(), Waiter()
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_listener(lambda _: skipped(), EVENT_JOB_MAX_INSTANCES)
    scheduler.add_job(release.wait, often(), args=(LIMIT,), name="alone")
    jobs = cold(scheduler).add_background_job(lambda: release.wait(LIMIT), key="ours", trigger=often())
    with jobs:
        skipped.wait()
        until(lambda: any("'ours'" in text for text in records.texts("WARNING")))
        release.set()
    told = next(
        r.getMessage() for r in apscheduler_records if "alone" in r.getMessage() and "skipped" in r.getMessage()
    )
    assert told.endswith("skipped: maximum number of running instances reached (1)")
    (ours,) = [text for text in records.texts("WARNING") if "was skipped: " in text]
    assert "was skipped: still running since 20" in ours
    assert "(run " in ours


def test_runs_share_what_the_run_before_left() -> None:
    """One instance serves all runs, and a context variable stays set in the worker thread; ours begin afresh."""
    user: ContextVar[str] = ContextVar("user", default="nobody")
    told = {"alone": Waiter(), "ours": Waiter()}

    class Job:
        def __init__(self, name: str = "ours") -> None:
            self.name = name
            self.calls = 0

        def action_to_do(self) -> None:
            self.calls += 1
            told[self.name]((self.calls, user.get()))
            user.set("root")

    executors = {"default": ThreadPoolExecutor(1), "other": ThreadPoolExecutor(1)}
    scheduler = BackgroundScheduler(timezone="UTC", executors=executors)
    scheduler.add_job(Job("alone").action_to_do, often())
    with cold(scheduler).add_background_job(Job, trigger=often(), executor="other"):
        assert told["alone"].wait(2)[:2] == [(1, "nobody"), (2, "root")]
        assert told["ours"].wait(2)[:2] == [(1, "nobody"), (1, "nobody")]


async def test_shutdown_returns_before_the_jobs_have_stopped() -> None:
    """``shutdown(wait=True)`` cancels a coroutine and does not wait; ours asks it to end, and waits."""

    async def close(*, ours: bool) -> list[str]:
        seen: list[str] = []
        started = asyncio.Event()

        async def work(cancellation_token: CancellationToken | None = None) -> None:
            started.set()
            try:
                await (cancellation_token.wait_async() if cancellation_token else asyncio.sleep(LIMIT))
                seen.append("asked")
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise
            finally:
                await asyncio.sleep(0)
                seen.append("put away")

        scheduler = AsyncIOScheduler(timezone="UTC")
        jobs = cold(scheduler)
        if ours:
            jobs.add_background_job(work, trigger=now())
        else:
            scheduler.add_job(work, now())
        jobs.warm_up()
        await started.wait()
        if ours:
            await jobs.aclose()
        else:
            scheduler.shutdown(wait=True)
        at_return = list(seen)
        await jobs.aclose()
        await asyncio.sleep(0.01)
        return at_return

    assert await close(ours=False) == []
    assert await close(ours=True) == ["asked", "put away"]


def test_a_hung_job_is_never_run_again() -> None:
    """Nothing ends a run that hangs, and so every later one is skipped; ours has a timeout."""
    hung, overlaps, again = threading.Event(), Waiter(), Waiter()

    def hang(cancellation_token: CancellationToken) -> None:
        again()
        cancellation_token.wait(LIMIT)

    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_listener(lambda event: overlaps(event.job_id), EVENT_JOB_MAX_INSTANCES)
    scheduler.add_job(hung.wait, often(), args=(LIMIT,), id="alone")
    with cold(scheduler).add_background_job(hang, trigger=often(), timeout=0.01):
        again.wait(3)
        until(lambda: overlaps.seen.count("alone") >= 3)
        hung.set()


def test_an_error_hook_per_job_is_missing() -> None:
    """A listener hears of all jobs, by id; ours calls the handler of the job that failed, with its instance."""
    seen = Waiter()

    class Job:
        def action_to_do(self) -> None:
            self.step = 3
            raise ValueError("no")

        def on_exception(self, exception: Exception) -> None:
            seen((self.step, exception))

    scheduler = BackgroundScheduler(timezone="UTC")
    with cold(scheduler).add_background_job(Job, trigger=now()):
        ((step, exception),) = seen.wait()
    assert (step, str(exception)) == (3, "no")
    plain = scheduler.add_job(nothing, "date")
    assert not [name for name in dir(plain) if "error" in name or "exception" in name]


def test_nobody_knows_of_the_last_run() -> None:
    """A job of APScheduler knows its next run alone; ours tells the last one, too."""
    scheduler = BackgroundScheduler(timezone="UTC")
    plain = scheduler.add_job(nothing, often())
    with cold(scheduler).add_background_job(nothing, trigger=often()) as jobs:
        until(lambda: jobs.status()[0].last_outcome)
        (row,) = jobs.status()
    assert not [name for name in dir(plain) if "last" in name or "outcome" in name]
    assert (row.last_outcome, row.last_finished_at is not None) == ("succeeded", True)


def test_a_start_date_of_now_runs_nothing_now() -> None:
    """What looks like "now, and then on schedule" waits for the schedule; ``run_immediately`` does not."""
    seen = Waiter()
    scheduler = BackgroundScheduler(timezone="UTC")
    yearly = CronTrigger(**cron_trigger_arguments("0 0 0 1 1 *"), start_date=datetime.now(UTC), timezone="UTC")
    scheduler.add_job(seen, yearly, args=("alone",))
    with cold(scheduler).add_background_job(lambda: seen("ours"), key="ours", cron="0 0 0 1 1 *", run_immediately=True):
        assert seen.wait() == ["ours"]
