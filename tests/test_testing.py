"""The test kit."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bgjobs import InvalidJobError, LifecycleError, UnknownJobError
from bgjobs.testing import RunResult, Step, arun_job, collect, run_job, walk
from stage import NIGHTLY, Waiter, cold, nothing

START = datetime(2026, 1, 1, tzinfo=UTC)


class Job:
    async def action_to_do(self) -> str:
        return "done"


class Failing:
    seen: list[Any]

    def action_to_do(self) -> None:
        raise ValueError("boom")

    def on_exception(self, exception: Exception) -> None:
        self.seen.append(exception)


class TestRunJob:
    @pytest.mark.parametrize("is_warm", [False, True])
    def test_it_goes_the_whole_path(self, is_warm: bool) -> None:
        """Scope, action, handler and closing, in this order, with the jobs cold or warm."""
        seen: list[Any] = []

        @contextmanager
        def scope(job_type: type[Any]) -> Generator[Any]:
            seen.append("open")
            try:
                instance = job_type()
                instance.seen = seen
                yield instance
            finally:
                seen.append("close")

        jobs = cold(resolver=scope).add_background_job(Failing, cron=NIGHTLY)
        if is_warm:
            jobs.warm_up()
        result = run_job(jobs, "Failing")
        jobs.close()
        assert (result.key, result.outcome, repr(result.error)) == ("Failing", "failed", "ValueError('boom')")
        assert [str(item) for item in seen] == ["open", "boom", "close"]

    def test_an_async_job_returns_its_value(self) -> None:
        """Async code runs in the facade's loop, which is gone afterwards."""
        result = run_job(cold().add_background_job(Job, cron=NIGHTLY), "Job")
        assert (result.outcome, result.value, result.error) == ("succeeded", "done", None)
        assert not any(thread.name == "bgjobs-loop" for thread in threading.enumerate())

    async def test_in_an_event_loop_there_is_a_twin(self) -> None:
        """`run_job` would block the loop and says so; `arun_job` runs in it."""
        jobs = cold().add_background_job(Job, cron=NIGHTLY).add_background_job(Failing, cron=NIGHTLY)
        Failing.seen = []
        with pytest.raises(LifecycleError, match="use `await arun_job"):
            run_job(jobs, "Job")
        assert (await arun_job(jobs, "Job")).value == "done"
        assert (await arun_job(jobs, "Failing")).outcome == "failed"

    def test_closed_jobs_can_be_run(self) -> None:
        """After a close the kit works as before the warm-up."""
        jobs = cold().add_background_job(Job, cron=NIGHTLY)
        jobs.warm_up().close()
        assert run_job(jobs, "Job").outcome == "succeeded"

    def test_the_overlap_guard_counts(self) -> None:
        """A run that is going makes the next one be skipped, with the reason as value; the other goes on untouched."""
        started, release, results = threading.Event(), threading.Event(), Waiter()

        def slow() -> None:
            started.set()
            release.wait()

        jobs = cold().add_background_job(slow, cron=NIGHTLY)
        thread = threading.Thread(target=lambda: results(run_job(jobs, "slow")))
        thread.start()
        started.wait()
        skipped = run_job(jobs, "slow")
        release.set()
        thread.join()
        assert (skipped.run_id, skipped.outcome) == (None, "skipped")
        assert str(skipped.value).startswith("still running since")
        assert results.seen[0].outcome == "succeeded"

    def test_it_waits_for_its_own_run(self) -> None:
        """The result of another run that ends meanwhile is not taken for it."""
        jobs = cold().add_background_job(Job, key="inner", cron=NIGHTLY)
        jobs.add_background_job(lambda: run_job(jobs, "inner").run_id, key="outer", cron=NIGHTLY)
        outer = run_job(jobs, "outer")
        assert outer.outcome == "succeeded"
        assert outer.value not in (None, outer.run_id)

    def test_mistakes_are_the_usual_errors(self) -> None:
        """An unknown key and a constructor that nothing fills."""

        class Needs:
            def __init__(self, users: object) -> None: ...
            def action_to_do(self) -> None: ...

        jobs = cold().add_background_job(Needs, cron=NIGHTLY)
        with pytest.raises(UnknownJobError, match="did you mean 'Needs'"):
            run_job(jobs, "neds")
        with pytest.raises(InvalidJobError, match="constructor of Needs needs 'users'"):
            run_job(jobs, "Needs")


def test_outcomes_are_collected() -> None:
    """Everything that ends within the block is there, in order; nothing after it."""
    jobs = cold().add_background_job(Job, cron=NIGHTLY).add_background_job(lambda: 7, key="seven", cron=NIGHTLY)
    with collect(jobs) as results:
        run_job(jobs, "Job")
        run_job(jobs, "seven")
    run_job(jobs, "Job")
    assert [(result.key, result.value) for result in results] == [("Job", "done"), ("seven", 7)]
    assert repr(RunResult("k", None, "skipped")).startswith("RunResult(key='k'")


class TestWalk:
    def test_a_year_of_daily_runs_takes_no_time(self) -> None:
        """Three hundred and sixty-five steps, made without waiting; the clock changes are in them."""
        jobs = cold().add_background_job(lambda: None, key="k", cron="0 30 2 * * *", timezone="Europe/Rome")
        begin = time.process_time()
        steps = walk(jobs, START, START + timedelta(days=365))
        assert time.process_time() - begin < 30  # a sleeping walk would take a year
        assert len(steps) == 365
        assert {step.outcome for step in steps} == {"succeeded"}
        spring = [step.at.astimezone(ZoneInfo("Europe/Rome")).isoformat() for step in steps if step.at.month == 3][28]
        assert spring == "2026-03-29T03:00:00+02:00"

    def test_the_hour_that_comes_twice_is_walked_twice(self) -> None:
        """Each fire time between has a step, whatever the clock on the wall says."""
        jobs = cold().add_background_job(Job, cron="0 0 * * * *", timezone="Europe/Rome")
        start = datetime(2026, 10, 24, 22, 30, tzinfo=UTC)
        steps = walk(jobs, start, start + timedelta(hours=4))
        assert [(step.at.hour, step.outcome) for step in steps] == [(h, "succeeded") for h in (23, 0, 1, 2)]

    def test_without_a_fire_time_it_is_empty(self) -> None:
        """An hour in which nothing is due has no steps."""
        jobs = cold().add_background_job(Job, cron=NIGHTLY)
        assert walk(jobs, START, START + timedelta(hours=1)) == []

    def test_runs_that_take_long_overlap(self) -> None:
        """Of the runs each ten minutes, those during a run of 25 minutes are skipped."""
        jobs = cold().add_background_job(lambda: None, key="k", cron="0 */10 * * * *")
        steps = walk(jobs, START, START + timedelta(hours=1), takes={"k": 25 * 60})
        assert [step.outcome for step in steps] == ["succeeded", "overlapped", "overlapped"] * 2

    def test_a_suspended_machine_runs_once_afterwards(self) -> None:
        """What came due during a nap is coalesced into one late run, at the end of the nap."""
        jobs = cold().add_background_job(lambda: None, key="k", cron="0 0 * * * *", run_immediately=True)
        nap = (START + timedelta(minutes=30), START + timedelta(hours=3, minutes=30))
        steps = walk(jobs, START + timedelta(minutes=1), START + timedelta(hours=5), asleep=[nap])
        assert [(step.at - START, step.scheduled_at - START, step.outcome) for step in steps] == [
            (timedelta(minutes=1), timedelta(minutes=1), "succeeded"),
            (timedelta(hours=3, minutes=30), timedelta(hours=1), "coalesced"),
            (timedelta(hours=3, minutes=30), timedelta(hours=2), "coalesced"),
            (timedelta(hours=3, minutes=30), timedelta(hours=3), "succeeded"),
            (timedelta(hours=4), timedelta(hours=4), "succeeded"),
        ]

    def test_with_a_grace_time_late_runs_are_missed(self) -> None:
        """The nap's last occurrence is half an hour late, which is more than its minute of grace."""
        jobs = cold().add_background_job(
            lambda: None, key="k", cron="0 0 * * * *", misfire_grace_time=60, coalesce=False
        )
        nap = (START + timedelta(minutes=30), START + timedelta(hours=2, minutes=30))
        steps = walk(jobs, START + timedelta(minutes=1), START + timedelta(hours=3), asleep=[nap])
        assert [step.outcome for step in steps] == ["missed", "missed"]
        assert steps[0] == Step(nap[1], "k", START + timedelta(hours=1), "missed")

    def test_paused_and_switched_off_jobs_have_no_steps(self) -> None:
        """Neither would run."""
        jobs = cold().add_background_job(lambda: None, key="off", cron=NIGHTLY, enabled=False)
        jobs.add_background_job(lambda: None, key="paused", cron=NIGHTLY).pause("paused")
        assert walk(jobs, START, START + timedelta(days=9)) == []

    def test_jitter_is_left_out(self) -> None:
        """Each walk has the same steps: the fire times themselves."""
        jobs = cold().add_background_job(nothing, key="k", cron="0 0 * * * *", jitter=1800)
        start = datetime(2026, 1, 1, tzinfo=UTC)
        steps = walk(jobs, start, start + timedelta(hours=9))
        assert [step.scheduled_at for step in steps] == [start + timedelta(hours=n) for n in range(9)]

    def test_other_triggers_walk_too(self) -> None:
        """Any APScheduler trigger tells its fire times."""
        from apscheduler.triggers.interval import IntervalTrigger

        jobs = cold().add_background_job(
            lambda: None, key="k", trigger=IntervalTrigger(seconds=90, start_date=START, timezone="UTC")
        )
        assert len(walk(jobs, START, START + timedelta(minutes=3), takes=1.0)) == 2


async def test_the_kit_leaves_no_task_behind() -> None:
    """After a run in the loop there is nothing but the test itself."""
    await arun_job(cold().add_background_job(Job, cron=NIGHTLY), "Job")
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
