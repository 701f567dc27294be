"""What came due while its application was not warm: what is remembered of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from apscheduler.events import EVENT_JOB_EXECUTED
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.util import ref_to_obj

from stage import NIGHTLY, Waiter, cold, nothing, stored


def test_the_memory_is_bounded(records: Any) -> None:
    """What another application leaves in a job store cannot fill it; a job that was forgotten is told of anew."""
    fire = ref_to_obj("bgjobs._apscheduler.executor:fire")
    for kind in ("1", "2"):
        fire("bounded", "first", kind)
    for number in range(10_000):
        fire("bounded", "other", str(number))
    fire("bounded", "first", "3")
    assert [text.split(" was")[0] for text in records.texts("WARNING")] == ["job 'first'", "job 'other'", "job 'first'"]


def test_a_run_that_is_overdue_stands_for_it(tmp_path: Path) -> None:
    """What came due before the warm-up does not move a run of the job that is due already."""
    heard, now = Waiter(), datetime.now(UTC)
    scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": stored(tmp_path)})
    scheduler.start()
    with cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY):
        pass
    scheduler.add_listener(lambda _: heard(), EVENT_JOB_EXECUTED)
    scheduler.modify_job("bgjobs:k", next_run_time=now, kwargs={})
    heard.wait()
    scheduler.pause()
    overdue = scheduler.modify_job("bgjobs:k", next_run_time=now - timedelta(days=3)).next_run_time
    with cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY):
        assert scheduler.get_job("bgjobs:k").next_run_time == overdue
    scheduler.shutdown()
