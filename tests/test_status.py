"""Status, health and the commands for one job: every run accounted for."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import FrozenInstanceError, asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from apscheduler.events import EVENT_JOB_MAX_INSTANCES
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from pydantic import TypeAdapter
from sqlalchemy.pool import NullPool

from bgjobs import (
    BackgroundJobs,
    CancellationToken,
    CronExpression,
    Health,
    JobStatus,
    LifecycleError,
    UnknownJobError,
    current_run,
)
from stage import (
    CLASSES,
    LIMIT,
    NIGHTLY,
    Times,
    Waiter,
    cold,
    counts,
    fail,
    fail_async,
    nothing,
    now,
    often,
    row,
    set_due,
    stage,
    stored,
    until,
    warm,
)

OUTCOMES = ("succeeded", "failed", "timed_out", "cancelled")


@contextmanager
def after_a_sleep(
    kind: str, path: Path, since: datetime, job: Callable[[], object], **registration: Any
) -> Generator[BackgroundJobs]:
    """The jobs of a process that comes up when its job ``k``, kept in a job store, has been due since then."""

    def facade(job: Callable[[], object]) -> tuple[Any, BackgroundJobs]:
        scheduler = CLASSES[kind](timezone="UTC", jobstores={"default": stored(path)})
        return scheduler, cold(scheduler).add_background_job(job, key="k", **registration)

    scheduler, jobs = facade(nothing)
    with warm(kind, jobs):
        until(scheduler.get_jobs)
    set_due(path, "k", since)
    scheduler, jobs = facade(job)
    if kind == "background":  # its thread must not look at the row before the jobs are warm
        scheduler.start(paused=True)
    with warm(kind, jobs):
        if kind == "background":
            scheduler.resume()
        yield jobs
    if kind == "background":
        scheduler.shutdown()


class TestStatus:
    def test_a_job_that_never_ran(self) -> None:
        """Before its first run a job has its schedule and nothing else."""
        jobs = cold().add_background_job(nothing, cron=NIGHTLY, timezone="Europe/Rome")
        with jobs:
            status = row(jobs, "nothing")
        assert (status.cron, status.timezone) == (NIGHTLY, "Europe/Rome")
        assert status.next_run_time is not None
        assert status.next_run_time.strftime("%H:%M:%S") == "03:00:00"
        assert (status.paused, status.finished, status.running) == (False, False, 0)
        assert (status.last_started_at, status.last_finished_at) == (None, None)
        assert (status.last_outcome, status.last_error) == (None, None)
        assert set(status.outcomes.values()) | set(status.not_run.values()) == {0}

    def test_it_cannot_be_changed(self) -> None:
        """A row is a picture, not a handle."""
        jobs = cold().add_background_job(nothing, cron=NIGHTLY)
        status: Any = jobs.status()[0]
        with pytest.raises(FrozenInstanceError):
            status.key = "other"
        status.outcomes["succeeded"] = 7
        assert jobs.status()[0].outcomes["succeeded"] == 0

    def test_it_becomes_json(self) -> None:
        """For a status page: as pydantic does it, and by the standard library."""
        jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)
        by_pydantic = TypeAdapter(list[JobStatus]).dump_python(jobs.status(), mode="json")
        by_hand = json.loads(json.dumps([asdict(row) for row in jobs.status()], default=datetime.isoformat))
        assert by_pydantic[0].keys() == by_hand[0].keys()
        assert by_pydantic[0]["outcomes"] == by_hand[0]["outcomes"] == dict.fromkeys(OUTCOMES, 0)
        assert asdict(jobs.health()) == {"ok": False, "problems": ("the jobs are not warmed up",)}

    def test_each_outcome_is_counted(self, kind: str) -> None:
        """Successes, failures, time-outs and cancellations, each with its moment and its error."""
        waiting = Waiter()

        async def linger() -> None:
            await asyncio.Event().wait()

        async def wait(cancellation_token: CancellationToken) -> None:
            waiting()
            await cancellation_token.wait_async()
            cancellation_token.raise_if_cancellation_requested()

        def register(jobs: BackgroundJobs) -> None:
            for job in (nothing, fail_async, wait):
                jobs.add_background_job(job, trigger=now())
            jobs.add_background_job(linger, trigger=now(), timeout=0.02)

        begin = datetime.now(UTC)
        with stage(kind, register) as jobs:
            waiting.wait()
            until(lambda: row(jobs, "linger").last_outcome and row(jobs, "fail_async").last_outcome)
            until(lambda: row(jobs, "nothing").last_outcome)
            assert row(jobs, "wait").running == 1
        outcomes = {status.key: status for status in jobs.status()}
        assert {key: status.last_outcome for key, status in outcomes.items()} == {
            "nothing": "succeeded",
            "fail_async": "failed",
            "wait": "cancelled",
            "linger": "timed_out",
        }
        for status in outcomes.values():
            assert status.outcomes[status.last_outcome or ""] == 1
            assert status.last_started_at is not None
            assert status.last_finished_at is not None
            assert begin <= status.last_started_at <= status.last_finished_at <= datetime.now(UTC)
            assert (status.running, status.finished) == (0, True)
        assert outcomes["fail_async"].last_error == "ValueError: boom"
        assert outcomes["linger"].last_error == "TimeoutError: the run took longer than its timeout of 0.02 s"
        assert outcomes["nothing"].last_error is None

    def test_each_reason_for_not_running_is_counted(self) -> None:
        """Missed, overlapped, overtaken and queued ones that came too late are told apart."""
        started, release = threading.Event(), threading.Event()

        def slow() -> None:
            started.set()
            release.wait(LIMIT)

        jobs = cold().add_background_job(slow, trigger=often())
        late = DateTrigger(datetime.now(UTC) - timedelta(seconds=60))
        jobs.add_background_job(nothing, key="late", trigger=late, misfire_grace_time=1)
        with jobs:
            assert started.wait(LIMIT)
            until(lambda: row(jobs, "slow").not_run["overlapped"] >= 2)
            until(lambda: row(jobs, "late").not_run["missed"] == 1)
            release.set()

    @pytest.mark.parametrize(
        "when",
        [
            pytest.param({"cron": "* * * * * *"}, id="cron"),
            pytest.param({"trigger": CronTrigger(second="*", timezone="UTC")}, id="CronTrigger"),
            pytest.param({"trigger": IntervalTrigger(seconds=1, timezone="UTC")}, id="IntervalTrigger"),
        ],
    )
    def test_coalesced_occurrences_are_counted_and_told(
        self, kind: str, when: Any, tmp_path: Path, records: Any
    ) -> None:
        """Every second for which no process was up is counted, and the one run made for all of them says how many."""
        seen, since = Waiter(), datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=20)
        with after_a_sleep(kind, tmp_path, since, lambda: seen(current_run().scheduled_at), **when) as jobs:
            made = seen.wait()[0]
            until(lambda: row(jobs, "k").not_run["coalesced"])
        missing = round((made - since).total_seconds())
        assert missing >= 19
        assert row(jobs, "k").not_run["coalesced"] >= missing  # more where the machine is slow
        assert any(f"{missing} earlier due runs into this one" in text for text in records.texts("WARNING"))

    def test_those_of_async_jobs_are_counted_too(self, kind: str, tmp_path: Path) -> None:
        """By the task that makes the one run."""
        since = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=20)

        async def job() -> None: ...

        with after_a_sleep(kind, tmp_path, since, job, cron="* * * * * *") as jobs:
            until(lambda: row(jobs, "k").outcomes["succeeded"])
        assert row(jobs, "k").not_run["coalesced"] >= 19

    def test_a_long_sleep_is_counted_up_to_a_limit(self, tmp_path: Path) -> None:
        """Of the occurrences of three hours, each second, ten thousand are counted one by one."""
        seen, since = Waiter(), datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
        with after_a_sleep("background", tmp_path, since, lambda: seen(), cron="* * * * * *") as jobs:
            seen.wait()
        assert row(jobs, "k").not_run["coalesced"] == 10_000

    def test_what_is_changed_through_apscheduler_shows(self) -> None:
        """A job that its owner paused or moved by APScheduler's own methods has that next run time."""
        scheduler = BackgroundScheduler(timezone="UTC")
        moment = datetime(2040, 1, 1, tzinfo=UTC)
        with cold(scheduler).add_background_job(nothing, cron=NIGHTLY) as jobs:
            scheduler.modify_job("bgjobs:nothing", next_run_time=moment)
            assert row(jobs, "nothing").next_run_time == moment
            scheduler.pause_job("bgjobs:nothing")
            assert row(jobs, "nothing").next_run_time is None
            assert jobs.health()

    def test_a_persistent_store_changes_nothing_in_it(self, tmp_path: Path) -> None:
        """Where the scheduler keeps no object of ours, the next run time comes from the trigger."""
        url = f"sqlite:///{tmp_path / 'jobs.db'}"
        scheduler = BackgroundScheduler(
            timezone="UTC", jobstores={"default": SQLAlchemyJobStore(url=url, engine_options={"poolclass": NullPool})}
        )
        with cold(scheduler).add_background_job(nothing, cron=NIGHTLY) as jobs:
            assert row(jobs, "nothing").next_run_time == scheduler.get_job("bgjobs:nothing").next_run_time


class TestAccounting:
    """Every occurrence is counted once, whatever its clock, its executor and its job store do."""

    def test_both_passages_of_a_repeated_hour_are_made(self, kind: str) -> None:
        """Two fire times with one wall time and two offsets are two occurrences."""
        seen = Waiter()
        moments = CronExpression("0 0 * * * *").occurrences(
            datetime(2025, 10, 25, 22, 30, tzinfo=UTC), "Europe/Rome", 4
        )
        assert [moment.hour for moment in moments] == [1, 2, 2, 3]
        jobs = cold(CLASSES[kind](timezone="UTC"))
        jobs.add_background_job(
            lambda: seen(current_run().scheduled_at), key="k", trigger=Times(*moments), coalesce=False
        )
        with warm(kind, jobs):
            assert seen.wait(4) == [moment.astimezone(UTC) for moment in moments]
        assert counts(jobs, "k") == {"succeeded": 4}

    @pytest.mark.parametrize("due", ["cron", "interval"])
    def test_none_of_them_is_called_repeated(self, due: str) -> None:
        """Where the scheduler comes with them one after the other, each runs, though the clock shows it twice."""
        seen, rome = Waiter(), ZoneInfo("Europe/Rome")
        scheduler = BackgroundScheduler(timezone=rome)
        jobs = cold(scheduler)
        begin = datetime(2026, 10, 24, 23, 30, tzinfo=UTC)  # the clock goes back at 1:00 UTC
        if due == "cron":
            jobs.add_background_job(lambda: seen(), key="k", cron="0 */20 * * * *", max_instances=9)
        else:
            trigger = IntervalTrigger(minutes=20, timezone=rome, start_date=begin + timedelta(minutes=10))
            jobs.add_background_job(lambda: seen(), key="k", trigger=trigger, max_instances=9)
        with time_machine.travel(begin, tick=False) as clock, jobs:
            for n in range(1, 9):
                clock.move_to(begin + timedelta(minutes=20 * n, seconds=1))
                scheduler.wakeup()
                seen.wait(n)
        assert counts(jobs, "k").get("repeated", 0) == 0

    def test_fire_times_out_of_order_are_counted_once(self) -> None:
        """A run that waited for its executor comes after the skips that it caused, and sets nothing back."""
        seen, release, started, skipped = Waiter(), threading.Event(), threading.Event(), Waiter()
        scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})
        jobs = cold(scheduler)

        def hog() -> None:
            started.set()
            release.wait(LIMIT)

        def skip(event: Any) -> None:
            for moment in event.scheduled_run_times:
                skipped(moment.astimezone(UTC))

        with jobs.add_background_job(hog, trigger=now()):
            assert started.wait(LIMIT)
            scheduler.add_listener(skip, EVENT_JOB_MAX_INSTANCES)
            jobs.add_background_job(lambda: seen(current_run().scheduled_at), key="k", trigger=often())
            skipped.wait(2)
            release.set()
            waited, after = seen.wait(2)[:2]
        assert waited < min(skipped.seen) < after
        assert row(jobs, "k").not_run["overlapped"] == len({*skipped.seen})
        assert row(jobs, "k").not_run["coalesced"] <= 1  # none that ran or overlapped is counted again

    def test_without_coalescing_nothing_is_called_coalesced(self, tmp_path: Path) -> None:
        """A job that makes all late runs has none made as one."""
        seen, since = Waiter(), datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=5)
        options: dict[str, Any] = {"cron": "* * * * * *", "coalesce": False, "max_instances": 9}
        with after_a_sleep("background", tmp_path, since, lambda: seen(current_run().scheduled_at), **options) as jobs:
            made = seen.wait(6)[:6]
        assert made == [since + timedelta(seconds=n) for n in range(6)]
        assert counts(jobs, "k").keys() == {"succeeded"}


class TestHealth:
    def test_warm_jobs_are_healthy_and_cold_ones_are_not(self) -> None:
        """A probe before warm-up and after the close is told so."""
        jobs = cold().add_background_job(nothing, cron=NIGHTLY)
        assert jobs.health() == Health(False, ("the jobs are not warmed up",))
        with jobs:
            assert jobs.health() == Health(True, ())
            assert jobs.health()
        assert not jobs.health()

    def test_a_scheduler_that_was_shut_down_is_a_problem(self) -> None:
        """Its owner may do that; the probe says so."""
        scheduler = BackgroundScheduler(timezone="UTC")
        with cold(scheduler) as jobs:
            scheduler.shutdown()
            assert jobs.health().problems == ("the scheduler is not running",)

    @pytest.mark.parametrize("kind", ["asyncio", "background"])
    def test_what_a_failed_pass_left_is_overdue(self, kind: str) -> None:
        """An exception from a job store ends a pass; until the next one, health sees what is overdue."""
        died, scheduler = Waiter(), CLASSES[kind](timezone="UTC")
        scheduler.add_jobstore(Breaking(died), "default")
        jobs, moment = cold(scheduler), datetime.now(UTC)
        for key, late in (("first", 20), ("second", 11)):
            due = Times(moment - timedelta(seconds=late), moment + timedelta(days=9))
            jobs.add_background_job(nothing, key=key, trigger=due)
        with warm(kind, jobs):
            died.wait()
            assert scheduler.running
            until(lambda: not row(jobs, "first").running)
            assert any(text.startswith("job 'second' is overdue by 1") for text in jobs.health().problems)

    @pytest.mark.parametrize("kind", ["asyncio", "background"])
    def test_a_scheduler_of_our_own_goes_on(self, kind: str, records: Any) -> None:
        """A job store that raises does not end a scheduler that bgjobs made: it logs the error and tries again."""
        seen, died = Waiter(), Waiter()
        jobs = cold(jobstores={"default": {"class": "test_status:BreakingOnce"}})
        jobs.add_background_job(lambda: seen(current_run().scheduled_at), key="k", trigger=often())
        BreakingOnce.died = died
        with warm(kind, jobs):
            died.wait()
            made = seen.wait(len(seen.seen) + 3)
        assert "tries again in 0.05 s: OSError: connection lost" in records.texts("ERROR")[0]
        assert len(made) == len({*made}), "an occurrence was made twice"

    def test_an_occurrence_is_made_once_though_its_store_forgot_that(self, tmp_path: Path, records: Any) -> None:
        """A store that could not take off what has run comes with the same fire time again; that run is skipped."""
        seen = Waiter()

        class Forgetful(SQLAlchemyJobStore):  # type: ignore[misc]
            forgets = 1

            def remove_job(self, job_id: str) -> None:
                if self.forgets:
                    self.forgets -= 1
                else:
                    super().remove_job(job_id)

        store = Forgetful(url=f"sqlite:///{tmp_path / 'jobs.db'}", engine_options={"poolclass": NullPool})
        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": store})
        jobs = cold(scheduler).add_background_job(lambda: seen(), key="k", trigger=now(), max_instances=2)
        with jobs:
            until(lambda: row(jobs, "k").not_run["repeated"] == 1)
        assert len(seen.seen) == 1
        assert "this occurrence was submitted already" in records.texts("WARNING")[0]

    def test_it_does_not_wait_for_a_job_store_that_hangs(self) -> None:
        """While the scheduler is stuck in a store, with its locks held, status and health answer."""
        stuck, release = threading.Event(), threading.Event()

        class Hanging(MemoryJobStore):  # type: ignore[misc]
            def get_due_jobs(self, moment: datetime) -> Any:
                stuck.set()
                release.wait(LIMIT)
                return super().get_due_jobs(moment)

        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": Hanging()})
        with cold(scheduler).add_background_job(nothing, cron=NIGHTLY) as jobs:
            try:
                assert stuck.wait(LIMIT)
                answers: list[Any] = []
                probe = threading.Thread(target=lambda: answers.extend([jobs.health(), jobs.status()]))
                probe.start()
                probe.join(LIMIT)
                assert len(answers) == 2
            finally:
                release.set()


class Breaking(MemoryJobStore):  # type: ignore[misc]
    """A job store whose first update raises, as one does that lost its connection."""

    def __init__(self, died: Callable[[], object]) -> None:
        super().__init__()
        self._died = died

    def update_job(self, job: Any) -> None:
        self._died()
        raise OSError("connection lost")


class BreakingOnce(MemoryJobStore):  # type: ignore[misc]
    """A job store of a scheduler that bgjobs makes, whose first update raises; it has the scheduler try again soon."""

    died: Callable[[], object] | None = None

    def start(self, scheduler: Any, alias: str) -> None:
        scheduler.jobstore_retry_interval = 0.05
        super().start(scheduler, alias)

    def update_job(self, job: Any) -> None:
        died, BreakingOnce.died = BreakingOnce.died, None
        if died is not None:
            died()
            raise OSError("connection lost")
        super().update_job(job)


class TestRunNow:
    def test_it_makes_one_extra_run_and_tells_its_id(self, kind: str) -> None:
        """The run has the id that was returned, and the schedule is as before."""
        seen = Waiter()
        with stage(
            kind, lambda j: j.add_background_job(lambda: seen(current_run().run_id), key="k", cron=NIGHTLY)
        ) as jobs:
            due = row(jobs, "k").next_run_time
            run_id = jobs.run_now("k")
            assert seen.wait() == [run_id]
            assert row(jobs, "k").next_run_time == due
            assert jobs.run_now("k") != run_id
            seen.wait(2)

    def test_it_is_under_the_same_overlap_guard(self, kind: str) -> None:
        """While a run of the key is going, the extra one is skipped with the reason."""
        seen, release = Waiter(), threading.Event()

        def slow() -> None:
            seen()
            release.wait(LIMIT)

        with stage(kind, lambda jobs: jobs.add_background_job(slow, cron=NIGHTLY)) as jobs:
            jobs.run_now("slow")
            seen.wait()
            jobs.run_now("slow")
            until(lambda: row(jobs, "slow").not_run["overlapped"] == 1)
            release.set()

    def test_a_paused_job_and_one_that_is_off_run_too(self) -> None:
        """A run by hand needs no schedule."""
        seen = Waiter()
        jobs = cold().add_background_job(lambda: seen("paused"), key="paused", cron=NIGHTLY)
        jobs.add_background_job(lambda: seen("off"), key="off", cron=NIGHTLY, enabled=False)
        jobs.pause("paused")
        with jobs:
            jobs.run_now("paused")
            jobs.run_now("off")
            assert sorted(seen.wait(2)) == ["off", "paused"]

    def test_its_failure_is_handled(self, kind: str) -> None:
        """An extra run goes the whole way of a run."""
        seen = Waiter()

        with stage(kind, lambda jobs: jobs.add_background_job(fail, cron=NIGHTLY, on_exception=seen)) as jobs:
            jobs.run_now("fail")
            assert repr(seen.wait()) == "[ValueError('boom')]"

    def test_it_needs_warm_jobs(self) -> None:
        """The error says what to call."""
        with pytest.raises(LifecycleError, match="call warm_up"):
            cold().add_background_job(nothing, cron=NIGHTLY).run_now("nothing")


@pytest.mark.parametrize("command", ["run_now", "pause", "resume", "remove"])
def test_an_unknown_key_is_told_with_the_nearest(command: str) -> None:
    """Each command for one job names the key, and what may have been meant."""
    jobs = cold().add_background_job(nothing, key="data-sync", cron=NIGHTLY)
    with pytest.raises(UnknownJobError, match="no job has the key 'data-sink'; did you mean 'data-sync'") as caught:
        getattr(jobs, command)("data-sink")
    assert caught.value.key == "data-sink"


class TestPausing:
    def test_a_paused_job_makes_no_run_until_it_is_resumed(self, kind: str, records: Any) -> None:
        """The pause is one record, and what it cost is told and counted at its end."""
        seen, beside = Waiter(), Waiter()

        def register(jobs: BackgroundJobs) -> None:
            jobs.add_background_job(lambda: seen(), key="k", trigger=often())
            jobs.add_background_job(lambda: beside(), key="beside", trigger=often())

        with stage(kind, register) as jobs:
            seen.wait()
            jobs.pause("k")
            jobs.pause("k")
            status = row(jobs, "k")
            assert (status.paused, status.finished, status.next_run_time) == (True, False, None)
            assert jobs.health()
            until(lambda: not row(jobs, "k").running)
            made = len(seen.seen)
            beside.wait(len(beside.seen) + 4)
            assert len(seen.seen) == made
            jobs.resume("k")
            jobs.resume("k")
            seen.wait(made + 1)
        lost = row(jobs, "k").not_run["paused"]
        assert lost >= 3
        told = [text for text in records.texts("INFO") if text.startswith("job 'k'")]
        assert told[0] == "job 'k' is paused"
        assert told[1].startswith(f"job 'k' is resumed; {lost} of its runs")
        assert len(told) == 2

    def test_a_pause_before_warm_up_holds(self) -> None:
        """A job that was paused while cold is not scheduled until it is resumed."""
        seen = Waiter()
        jobs = cold().add_background_job(lambda: seen(), key="k", trigger=often())
        jobs.pause("k")
        with jobs:
            assert row(jobs, "k").paused
            assert seen.seen == []
            jobs.resume("k")
            seen.wait()

    def test_a_paused_job_makes_no_immediate_run(self, records: Any) -> None:
        """Paused means paused at warm-up, too; the run that is not made is told and counted."""
        jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY, run_immediately=True)
        jobs.pause("k")
        with jobs:
            assert counts(jobs, "k") == {"paused": 1}
        assert "was skipped: the job is paused" in records.texts("WARNING")[0]

    def test_a_job_that_was_paused_through_apscheduler_is_paused(self) -> None:
        """It is not called finished."""
        scheduler = BackgroundScheduler(timezone="UTC")
        with cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY) as jobs:
            scheduler.pause_job("bgjobs:k")
            status = row(jobs, "k")
        assert (status.paused, status.finished) == (True, False)

    def test_it_takes_one_shots_along(self, records: Any) -> None:
        """An extra run that waits for its executor is gone with the pause; others' entries stay."""
        scheduler = BackgroundScheduler(timezone="UTC")
        scheduler.start(paused=True)
        jobs = cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY, run_immediately=True)
        jobs.add_background_job(nothing, key="other", cron=NIGHTLY, run_immediately=True).warm_up()
        scheduler.add_job(nothing, now(), id="theirs")
        jobs.run_now("k")
        jobs.pause("k")
        assert {job.id for job in scheduler.get_jobs()} == {
            "bgjobs:k",
            "bgjobs:other",
            "bgjobs:other:startup",
            "theirs",
        }
        assert row(jobs, "k").not_run["paused"] == 2
        assert "was skipped: the job was paused first" in records.texts("WARNING")[0]
        jobs.close()
        assert row(jobs, "other").not_run["closing"] == 1
        scheduler.shutdown()

    def test_jobs_that_somebody_took_off_are_no_error(self) -> None:
        """Pausing and resuming what is no longer in the scheduler changes the bookkeeping only."""
        scheduler = BackgroundScheduler(timezone="UTC")
        with cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY) as jobs:
            scheduler.remove_job("bgjobs:k")
            jobs.pause("k")
            jobs.resume("k")
            jobs.remove("k")

    @pytest.mark.parametrize("is_warm", [True, False])
    def test_a_job_that_is_off_has_nothing_to_pause(self, *, is_warm: bool) -> None:
        """It stays as it is."""
        jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY, enabled=False)
        if is_warm:
            jobs.warm_up()
        jobs.pause("k")
        jobs.resume("k")
        assert not row(jobs, "k").paused
        jobs.close()


class TestRemoving:
    def test_a_removed_job_is_gone_and_its_run_is_left_to_finish(self, kind: str) -> None:
        """The run that is going ends with its handler; the key is free for another job."""
        seen, started, release = Waiter(), threading.Event(), threading.Event()

        def slow() -> None:
            started.set()
            release.wait(LIMIT)
            raise ValueError("in the end")

        def register(jobs: BackgroundJobs) -> None:
            jobs.add_background_job(slow, key="k", trigger=often(), on_exception=lambda exc: seen(str(exc)))

        with stage(kind, register) as jobs:
            assert started.wait(LIMIT)
            jobs.remove("k")
            assert jobs.status() == []
            release.set()
            assert seen.wait() == ["in the end"]
            jobs.add_background_job(lambda: seen("new"), key="k", trigger=now())
            seen.wait(2)

    def test_a_cold_job_can_be_removed(self) -> None:
        """It is never scheduled."""
        jobs = cold().add_background_job(nothing, cron=NIGHTLY)
        jobs.remove("nothing")
        with jobs:
            assert jobs.status() == []


class TestPlainApscheduler:
    """What bgjobs mends: alone, a scheduler dies of one exception from its job store."""

    def test_its_thread_ends_while_it_says_that_it_is_running(self) -> None:
        """The thread is dead, `running` is true, nothing will ever run again."""
        died = Waiter()
        scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": Breaking(died)})
        scheduler.add_job(nothing, often())
        threading.excepthook, before = lambda *_: None, threading.excepthook
        try:
            scheduler.start()
            died.wait()
            scheduler._thread.join(LIMIT)
        finally:
            threading.excepthook = before
        assert not scheduler._thread.is_alive()
        assert scheduler.running
        scheduler.shutdown()

    async def test_its_timer_is_never_set_again(self) -> None:
        """On asyncio the same exception leaves it without a next wake-up."""
        died = Waiter()
        scheduler = AsyncIOScheduler(timezone="UTC", jobstores={"default": Breaking(died)})
        scheduler.add_job(nothing, often())
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        scheduler.start()
        await asyncio.to_thread(died.wait)
        await asyncio.sleep(0.01)
        assert scheduler.running
        assert scheduler._timeout is None
        scheduler.shutdown()
