"""`reschedule`: another schedule, while counts, pauses and runs in progress stay."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger

from bgjobs import (
    BackgroundJobs,
    BackgroundJobsSettings,
    BgjobsError,
    ConfigurationError,
    CronFormatError,
    NeverFiresError,
    UnknownJobError,
)
from bgjobs.testing import run_job
from stage import LIMIT, NIGHTLY, Waiter, cold, counts, nothing, now, often, row, stage, stored, until


class Local(DateTrigger):  # type: ignore[misc]
    """It cannot be pickled."""

    def __getstate__(self) -> Any:
        raise TypeError("cannot pickle this")


def at(jobs: BackgroundJobs, key: str = "k") -> str:
    """The time of day of the next run, and its offset."""
    due = row(jobs, key).next_run_time
    return due.strftime("%H:%M:%S %z") if due else "-"


def test_a_warm_job_runs_by_its_new_schedule(kind: str) -> None:
    """From that moment on, with its counts."""
    ran = Waiter()

    def register(jobs: BackgroundJobs) -> None:
        jobs.add_background_job(lambda: ran(), key="k", cron=NIGHTLY)

    with stage(kind, register) as jobs:
        run_job(jobs, "k")
        jobs.reschedule("k", trigger=now())
        ran.wait(2)
        until(lambda: counts(jobs, "k") == {"succeeded": 2})
        assert row(jobs, "k").cron is None
        jobs.reschedule("k", cron="0 30 6 * * *", timezone="Europe/Rome")
        assert row(jobs, "k").cron == "0 30 6 * * *"
        assert at(jobs)[:8] == "06:30:00"
        assert row(jobs, "k").timezone == "Europe/Rome"
        jobs.reschedule("k", timezone="UTC")
        assert at(jobs) == "06:30:00 +0000"
        assert counts(jobs, "k") == {"succeeded": 2}


def test_a_cold_job() -> None:
    """It is scheduled by the new schedule at the warm-up."""
    jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)
    jobs.reschedule("k", cron="0 0 5 * * *")
    assert row(jobs, "k").cron == "0 0 5 * * *"
    with jobs:
        assert at(jobs)[:8] == "05:00:00"


def test_a_run_in_progress_stays() -> None:
    """It goes on, counts for the overlap guard of the new schedule, and ends as ever."""
    begun, release = Waiter(), threading.Event()

    def act() -> None:
        begun()
        assert release.wait(LIMIT)

    jobs = cold().add_background_job(act, key="k", trigger=now())
    with jobs:
        begun.wait()
        jobs.reschedule("k", trigger=often())
        until(lambda: counts(jobs, "k").get("overlapped"))
        jobs.reschedule("k", cron=NIGHTLY)
        release.set()
        until(lambda: counts(jobs, "k").get("succeeded") == 1)
    assert len(begun.seen) == 1


@pytest.mark.parametrize("persistent", [False, True])
def test_a_pause_stays(persistent: bool, tmp_path: Path) -> None:
    """A paused job stays paused until it is resumed, and then has its new schedule."""
    scheduler = BackgroundScheduler(jobstores={"default": stored(tmp_path)} if persistent else {})
    jobs = cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY)
    with jobs:
        jobs.pause("k")
        jobs.reschedule("k", cron="0 0 5 * * *")
        assert (row(jobs, "k").paused, at(jobs)) == (True, "-")
        assert scheduler.get_job("bgjobs:k").next_run_time is None
        jobs.resume("k")
        assert (row(jobs, "k").paused, at(jobs)[:8]) == (False, "05:00:00")


def test_one_that_was_paused_through_apscheduler_stays_paused() -> None:
    """The pause of another owner counts, too."""
    scheduler = BackgroundScheduler()
    jobs = cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY)
    with jobs:
        scheduler.pause_job("bgjobs:k")
        jobs.reschedule("k", cron="0 0 5 * * *")
        assert row(jobs, "k").paused


def test_what_a_pause_has_cost_is_counted() -> None:
    """The runs that were skipped by the old schedule are counted before the new one begins."""
    jobs = cold().add_background_job(nothing, key="k", trigger=often())
    with jobs:
        jobs.pause("k")
        begin = datetime.now(UTC)
        until(lambda: datetime.now(UTC) - begin > timedelta(seconds=0.2))
        jobs.reschedule("k", cron=NIGHTLY)
        jobs.resume("k")
    assert counts(jobs, "k")["paused"] > 0


def test_it_makes_no_immediate_run() -> None:
    """`run_immediately` is for the warm-up."""
    ran = Waiter()
    jobs = cold().add_background_job(lambda: ran(), key="k", cron=NIGHTLY, run_immediately=True)
    with jobs:
        ran.wait()
        jobs.reschedule("k", cron="0 0 5 * * *")
    assert len(ran.seen) == 1


def test_it_holds_until_the_process_ends(tmp_path: Path) -> None:
    """A stored row has the new schedule; a new process goes on with that of the code."""

    def facade() -> BackgroundJobs:
        jobs = cold(BackgroundScheduler(jobstores={"default": stored(tmp_path)}))
        return jobs.add_background_job(nothing, key="k", cron=NIGHTLY)

    jobs = facade()
    with jobs:
        jobs.reschedule("k", cron="0 0 5 * * *")
    with jobs:
        assert at(jobs)[:8] == "05:00:00"
    with facade() as jobs:
        assert at(jobs)[:8] == "03:00:00"


def test_a_job_that_was_switched_off_is_switched_on() -> None:
    """One that the settings have no schedule for gets one; one that is disabled stays so."""
    jobs = cold().add_background_job(nothing, key="k", cron="-")
    jobs.add_background_job(nothing, key="off", cron=NIGHTLY, enabled=False)
    with jobs:
        jobs.reschedule("k", cron="0 0 5 * * *")
        jobs.reschedule("off", cron="0 0 5 * * *")
        assert (at(jobs), at(jobs, "off")) == ("05:00:00 +0000", "-")


def test_a_schedule_that_is_over(records: Any) -> None:
    """The job is finished, with a warning, and its old schedule is gone."""
    scheduler = BackgroundScheduler(timezone="UTC")
    jobs = cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY)
    with jobs:
        jobs.reschedule("k", trigger=CronTrigger(hour=3, end_date=datetime(2020, 1, 1, tzinfo=UTC)))
        assert row(jobs, "k").finished
        assert scheduler.get_job("bgjobs:k") is None
    assert any("is finished" in text for text in records.texts("WARNING"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({}, ConfigurationError, "job 'k': give cron, trigger or timezone", id="nothing"),
        pytest.param({"cron": "-"}, ConfigurationError, r"'-' switches .*; pause\(\) or remove\(\) it instead", id="-"),
        pytest.param({"cron": "0 0 25 * * *"}, CronFormatError, "hour: 25 is outside 0-23", id="cron"),
        pytest.param({"cron": "0 0 0 30 2 *"}, NeverFiresError, "0 0 0 30 2", id="never"),
        pytest.param({"trigger": "interval"}, ConfigurationError, "trigger", id="trigger"),
        pytest.param({"cron": NIGHTLY, "trigger": now()}, ConfigurationError, "both given", id="both"),
        pytest.param({"timezone": "Europe/Rom"}, BgjobsError, "Europe/Rom", id="timezone"),
    ],
)
def test_what_is_wrong_changes_nothing(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    """It is refused, with what would be right; the job keeps its schedule."""
    jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)
    with jobs:
        with pytest.raises(error, match=message):
            jobs.reschedule("k", **arguments)
        assert at(jobs)[:8] == "03:00:00"
    with pytest.raises(UnknownJobError):
        jobs.reschedule("other", cron=NIGHTLY)


def test_a_store_that_refuses_keeps_the_old_schedule(tmp_path: Path) -> None:
    """A trigger that cannot be stored raises what the store raises; the job goes on as it was."""
    jobs = cold(BackgroundScheduler(jobstores={"default": stored(tmp_path)}))
    jobs.add_background_job(nothing, key="k", cron=NIGHTLY)

    with jobs:
        with pytest.raises(Exception, match="cannot pickle this"):
            jobs.reschedule("k", trigger=Local(datetime.now(UTC) + timedelta(days=1)))
        assert (row(jobs, "k").cron, at(jobs)[:8]) == (NIGHTLY, "03:00:00")
        assert jobs.health()


@pytest.mark.parametrize("way", ["over", "refused"])
def test_an_extra_run_stays(way: str, tmp_path: Path) -> None:
    """One that has been asked for is made, also where the new schedule is over, or refused by the job store."""
    scheduler = BackgroundScheduler(jobstores={"default": stored(tmp_path)})
    jobs = cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY)
    with jobs:
        scheduler.pause()
        run_id = jobs.run_now("k")
        if way == "over":
            jobs.reschedule("k", trigger=CronTrigger(hour=3, end_date=datetime(2020, 1, 1, tzinfo=UTC)))
        else:
            with pytest.raises(Exception, match="pickle"):
                jobs.reschedule("k", trigger=Local(datetime.now(UTC) + timedelta(days=1)))
        scheduler.resume()
        assert jobs.wait(run_id, LIMIT).outcome == "succeeded"


def test_with_a_claim_store_replicas_must_agree_on_it(tmp_path: Path) -> None:
    """A schedule that would not be the same in all replicas is refused, as at the warm-up."""
    settings = BackgroundJobsSettings(claims={"url": f"sqlite:///{tmp_path}/claims.db"}, env_file=None)
    jobs = BackgroundJobs(settings=settings).add_background_job(nothing, key="k", cron=NIGHTLY)
    with jobs:
        with pytest.raises(ConfigurationError, match="an IntervalTrigger counts from the start of each process"):
            jobs.reschedule("k", trigger=often())
        jobs.reschedule("k", cron="0 0 5 * * *")
        assert at(jobs)[:8] == "05:00:00"


def test_a_trigger_has_its_own_time_zone() -> None:
    """Another time zone alone is refused for a job whose schedule is a trigger."""
    jobs = cold().add_background_job(nothing, key="k", trigger=often())
    with pytest.raises(ConfigurationError, match="job 'k' has a trigger, which has a time zone already"):
        jobs.reschedule("k", timezone="Europe/Rome")
