"""What a row of `status()` says of the latest runs, and rows and health as plain JSON values."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

from bgjobs import Outcome
from bgjobs.testing import run_job
from stage import NIGHTLY, cold, nothing, often, row, until, warm


def test_seconds_and_the_last_success() -> None:
    """A row tells when the job last succeeded, and how long the latest run took."""
    answers = iter([0, 0, 1])
    jobs = cold().add_background_job(lambda: 1 / next(answers), key="k", cron=NIGHTLY)
    before = row(jobs, "k")
    assert (before.last_succeeded_at, before.last_seconds, before.consecutive_failures) == (None, None, 0)
    run_job(jobs, "k")
    run_job(jobs, "k")
    failed = row(jobs, "k")
    assert (failed.last_succeeded_at, failed.consecutive_failures) == (None, 2)
    assert failed.last_seconds is not None
    assert 0 < failed.last_seconds < 60
    run_job(jobs, "k")
    succeeded = row(jobs, "k")
    assert succeeded.last_succeeded_at is not None
    assert datetime.now(UTC) - succeeded.last_succeeded_at < timedelta(minutes=1)
    assert succeeded.consecutive_failures == 0
    assert (succeeded.last_error, succeeded.last_outcome) == ("ZeroDivisionError: division by zero", "succeeded")
    run_job(jobs, "k")
    assert row(jobs, "k").last_succeeded_at == succeeded.last_succeeded_at


def test_a_timeout_is_a_failure_in_a_row_and_a_cancellation_none() -> None:
    """Runs that time out count among the consecutive failures; a run that a close has cancelled says nothing."""

    async def too_long() -> None:
        await asyncio.sleep(60)

    jobs = cold().add_background_job(too_long, key="late", cron=NIGHTLY, timeout=0.001)
    run_job(jobs, "late")
    assert row(jobs, "late").consecutive_failures == 1

    jobs = cold(shutdown_timeout=0.01).add_background_job(too_long, key="cut", cron=NIGHTLY, run_immediately=True)
    with jobs:
        until(lambda: row(jobs, "cut").running)
    assert row(jobs, "cut").outcomes["cancelled"] == 1
    assert row(jobs, "cut").consecutive_failures == 0


def test_cold_jobs_have_no_next_run() -> None:
    """A next run is shown only while the jobs are warm."""
    jobs = cold().add_background_job(nothing, cron=NIGHTLY)
    assert row(jobs, "nothing").next_run_time is None
    with warm("background", jobs):
        assert row(jobs, "nothing").next_run_time is not None
    assert row(jobs, "nothing").next_run_time is None
    assert not row(jobs, "nothing").finished


def test_a_row_is_plain_json() -> None:
    """A row becomes a dictionary that JSON can take, times as ISO 8601 texts."""
    jobs = cold().add_background_job(nothing, key="k", trigger=often(), run_immediately=True)
    with jobs:
        until(lambda: row(jobs, "k").outcomes["succeeded"])
        status = row(jobs, "k")
        plain = status.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert type(plain["last_outcome"]) is str
    assert datetime.fromisoformat(plain["next_run_time"]) == status.next_run_time
    assert plain["outcomes"] == {"succeeded": status.outcomes["succeeded"], "failed": 0, "timed_out": 0, "cancelled": 0}
    assert plain["not_run"]["overlapped"] == 0
    assert (plain["key"], plain["cron"], plain["paused"]) == ("k", None, False)


def test_health_is_plain_json() -> None:
    """Health becomes a dictionary, too, its problems a list."""
    health = cold().health()
    assert health.as_dict() == {"ok": False, "problems": ["the jobs are not warmed up"]}


def test_outcomes_are_texts() -> None:
    """Each outcome and each reason is a text, and reads like one."""
    assert (repr(Outcome.FAILED), str(Outcome.FAILED), f"{Outcome.FAILED}") == ("'failed'", "failed", "failed")
    jobs = cold().add_background_job(nothing, cron=NIGHTLY)
    status = row(jobs, "nothing")
    assert [*status.outcomes, *status.not_run] == [outcome.value for outcome in Outcome]
