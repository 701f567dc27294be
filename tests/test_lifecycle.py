"""From cold to warm and back, on every scheduler, made here or given."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED, EVENT_JOB_REMOVED, EVENT_SCHEDULER_STARTED
from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.date import DateTrigger

from bgjobs import (
    BackgroundJobs,
    BackgroundJobsSettings,
    CancellationToken,
    ConfigurationError,
    DuplicateJobError,
    LifecycleError,
)
from stage import (
    CLASSES,
    LIMIT,
    NIGHTLY,
    PEEKING,
    Peeking,
    Waiter,
    cold,
    event_loop_in_a_thread,
    nothing,
    now,
    often,
    stage,
    until,
)


class TestWarmUp:
    def test_nothing_runs_before_it(self) -> None:
        """A job that is due and immediate waits for warm-up, even when its scheduler is started before."""
        seen = Waiter()
        scheduler = BackgroundScheduler(timezone="UTC")
        jobs = cold(scheduler).add_background_job(lambda: seen("ours"), key="k", cron=NIGHTLY, run_immediately=True)
        scheduler.add_job(lambda: seen("theirs"), now())
        scheduler.start()
        assert seen.wait() == ["theirs"]
        with jobs:
            assert seen.wait(2) == ["theirs", "ours"]
        scheduler.shutdown()

    def test_a_start_without_warm_up_is_warned_of(self, records: Any) -> None:
        """Whoever starts the scheduler and forgets `warm_up` finds that in the log."""
        scheduler = BackgroundScheduler(timezone="UTC")
        cold(scheduler)
        jobs = cold(scheduler).add_background_job(nothing, cron=NIGHTLY)
        scheduler.start()
        scheduler.shutdown()
        assert records.texts("WARNING") == [
            "the scheduler was started, but its 1 background jobs run only after jobs.warm_up()"
        ]
        assert not jobs.is_warm

    async def test_in_an_event_loop_the_scheduler_is_an_asyncio_one(self) -> None:
        """Without a scheduler, warm-up in a coroutine makes an `AsyncIOScheduler`."""
        async with cold(None, **PEEKING).add_background_job(nothing, cron=NIGHTLY):
            assert isinstance(Peeking.scheduler, AsyncIOScheduler)

    def test_elsewhere_it_is_a_background_one(self) -> None:
        """Without a scheduler, warm-up in plain code makes a `BackgroundScheduler`."""
        with cold(None, **PEEKING).add_background_job(nothing, cron=NIGHTLY) as jobs:
            assert isinstance(Peeking.scheduler, BackgroundScheduler)
            assert repr(jobs) == "<BackgroundJobs warm, 1 jobs>"

    async def test_the_settings_may_name_the_kind(self) -> None:
        """``scheduler = "background"`` holds in an event loop, too."""
        settings = BackgroundJobsSettings.defaults().model_copy(update={"scheduler": "background", **PEEKING})
        async with BackgroundJobs(settings=settings):
            assert isinstance(Peeking.scheduler, BackgroundScheduler)

    def test_twice_is_an_error(self) -> None:
        """Jobs are warmed up once."""
        with cold() as jobs, pytest.raises(LifecycleError, match="already warmed up"):
            jobs.warm_up()

    def test_while_closing_it_is_refused(self) -> None:
        """The two exclude each other; the error says to wait."""
        started, refused = threading.Event(), Waiter()
        jobs = cold()

        def slow(cancellation_token: CancellationToken) -> None:
            started.set()
            cancellation_token.wait(LIMIT)
            try:
                jobs.warm_up()
            except LifecycleError as exc:
                refused(str(exc))

        with jobs.add_background_job(slow, trigger=now()):
            assert started.wait(LIMIT)
        assert refused.seen == ["the jobs are being warmed up or closed already; wait for that to end"]

    def test_a_job_may_add_jobs_meanwhile(self) -> None:
        """On a running scheduler the first immediate run comes before the last job is scheduled."""
        scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(2)})
        scheduler.start()
        jobs, added = cold(scheduler), Waiter()

        def add() -> None:
            for n in range(20):
                jobs.add_background_job(nothing, key=f"added-{n}", cron=NIGHTLY)
            added()

        jobs.add_background_job(add, cron=NIGHTLY, run_immediately=True)
        for n in range(200):
            jobs.add_background_job(nothing, key=f"job-{n}", cron=NIGHTLY)
        with jobs:
            added.wait()
            assert len(scheduler.get_jobs()) == 221
        scheduler.shutdown()

    def test_an_asyncio_scheduler_needs_a_running_loop(self) -> None:
        """The error says what to call instead; nothing is half done."""
        jobs = cold(AsyncIOScheduler()).add_background_job(nothing, cron=NIGHTLY)
        with pytest.raises(LifecycleError, match="none is running here: call warm_up\\(\\) in a coroutine"):
            jobs.warm_up()
        assert not jobs.is_warm

    def test_an_asyncio_scheduler_may_bring_its_loop(self) -> None:
        """One that was made with ``event_loop=`` is warmed up from anywhere."""
        seen = Waiter()
        with event_loop_in_a_thread() as loop:
            jobs = cold(AsyncIOScheduler(event_loop=loop, timezone="UTC"))
            jobs.add_background_job(lambda: seen(), key="k", trigger=now()).warm_up()
            seen.wait()
            jobs.close()
            assert not jobs.is_warm

    @pytest.mark.parametrize(
        "scheduler", [type("Other", (BaseScheduler,), {"shutdown": None, "wakeup": None})(), "background", object()]
    )
    def test_other_schedulers_are_refused(self, scheduler: Any) -> None:
        """The error names the three that serve."""
        with pytest.raises(ConfigurationError, match="give an AsyncIOScheduler, a BackgroundScheduler or a Blocking"):
            cold(scheduler)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"executor": "thread"}, "has no executor 'thread', only 'default', 'processes', 'threads'; did you mean"),
            ({"jobstore": "redis"}, "job 'nothing': the scheduler has no jobstore 'redis', only 'default'"),
            ({"executor": "processes"}, "the executor 'processes' is a process pool, which the instance"),
        ],
    )
    def test_executors_and_job_stores_are_checked(self, options: dict[str, Any], message: str) -> None:
        """An unknown alias or a process pool is told at warm-up, when APScheduler would delete the job at its tick."""
        scheduler = BackgroundScheduler()
        scheduler.add_executor(ThreadPoolExecutor(1), "threads")
        scheduler.add_executor(ProcessPoolExecutor(1), "processes")
        jobs = cold(scheduler).add_background_job(nothing, cron=NIGHTLY, **options)
        with pytest.raises(ConfigurationError, match=message):
            jobs.warm_up()
        assert not scheduler.running
        assert scheduler.get_jobs() == []

    def test_a_start_that_fails_leaves_nothing_behind(self) -> None:
        """When the scheduler cannot start, its error comes through, and our jobs are off it again."""

        class Broken(MemoryJobStore):  # type: ignore[misc]
            def start(self, scheduler: Any, alias: str) -> None:
                raise OSError("store is down")

        scheduler = BackgroundScheduler(timezone="UTC")
        scheduler.add_jobstore(Broken(), "broken")
        jobs = cold(scheduler).add_background_job(nothing, cron=NIGHTLY)
        with pytest.raises(OSError, match="store is down"):
            jobs.warm_up()
        assert scheduler.get_jobs() == []
        scheduler.remove_jobstore("broken", shutdown=False)
        with jobs:
            assert [job.id for job in scheduler.get_jobs()] == ["bgjobs:nothing"]

    def test_a_job_added_later_is_scheduled_at_once(self, kind: str) -> None:
        """After warm-up, `add_background_job` schedules, its immediate run included."""
        seen = Waiter()
        with stage(kind, lambda _: None) as jobs:
            jobs.add_background_job(lambda: seen(), key="late", cron=NIGHTLY, run_immediately=True)
            seen.wait()

    def test_a_job_added_later_is_checked_at_once(self) -> None:
        """What warm-up would find is found at registration then, and the job is not kept."""

        class Needs:
            def __init__(self, users: object) -> None: ...
            def action_to_do(self) -> None: ...

        with cold() as jobs:
            with pytest.raises(TypeError, match="constructor of Needs needs 'users'"):
                jobs.add_background_job(Needs, cron=NIGHTLY)
            with pytest.raises(ConfigurationError, match="no executor 'x'"):
                jobs.add_background_job(nothing, cron=NIGHTLY, executor="x")
            jobs.add_background_job(nothing, cron=NIGHTLY)

    def test_a_job_that_its_store_refuses_later_is_not_kept(self) -> None:
        """When the job store raises, so does the registration; the key stays free."""

        class Full(MemoryJobStore):  # type: ignore[misc]
            def add_job(self, job: Any) -> None:
                raise OSError("disk full")

        scheduler = BackgroundScheduler(timezone="UTC")
        scheduler.add_jobstore(Full(), "full")
        with cold(scheduler) as jobs:
            with pytest.raises(OSError, match="disk full"):
                jobs.add_background_job(nothing, cron=NIGHTLY, jobstore="full")
            jobs.add_background_job(nothing, cron=NIGHTLY)

    def test_settings_that_match_no_job_are_refused(self) -> None:
        """An entry that names no job and matches none is a mistake, told with the nearest key."""
        settings = BackgroundJobsSettings(jobs={"data-sink": {"enabled": False}})
        jobs = BackgroundJobs(settings=settings).add_background_job(nothing, key="data-sync", cron=NIGHTLY)
        with pytest.raises(
            ConfigurationError, match="a job 'data-sink', which is not registered; did you mean 'data-sync'"
        ):
            jobs.warm_up()


class TestRunImmediately:
    def test_it_runs_once_at_warm_up_and_then_on_schedule(self, kind: str) -> None:
        """The immediate run is one more run, before the first scheduled one."""
        seen = Waiter()
        with stage(kind, lambda j: j.add_background_job(lambda: seen(), key="k", cron=NIGHTLY, run_immediately=True)):
            seen.wait()
        assert len(seen.seen) == 1

    def test_it_survives_a_start_that_is_so_slow_that_apscheduler_alone_drops_it(self) -> None:
        """With a second between adding and start, APScheduler's default grace loses a one-shot; ours is made."""
        seen, missed = Waiter(), Waiter()
        scheduler = SlowStart(timezone="UTC")
        scheduler.add_listener(missed, 1 << 14)  # EVENT_JOB_MISSED
        scheduler.add_job(nothing, DateTrigger(timezone="UTC"), id="alone")
        jobs = cold(scheduler).add_background_job(lambda: seen(), key="k", cron=NIGHTLY, run_immediately=True)
        with jobs:
            seen.wait()
            assert [event.job_id for event in missed.wait()] == ["alone"]

    def test_a_scheduled_run_overtakes_it(self, kind: str, records: Any) -> None:
        """While a scheduled run is going, the immediate one is done with; never are two at once."""
        seen, release = Waiter(), threading.Event()

        def slow() -> None:
            seen()
            release.wait(LIMIT)

        def register(jobs: BackgroundJobs) -> None:
            jobs.add_background_job(slow, trigger=DateTrigger(datetime(2020, 1, 1, tzinfo=UTC)), run_immediately=True)

        with stage(kind, register):
            try:
                until(
                    lambda: any(
                        "was skipped: a run in progress counts as the immediate one" in text
                        for text in records.texts("INFO")
                    )
                )
            except AssertionError:  # the immediate run came first: then it is the scheduled one that is skipped
                assert any("still running since" in text for text in records.texts("WARNING"))
            finally:
                release.set()
        assert len(seen.seen) == 1

    def test_a_scheduled_second_during_it_is_skipped(self, kind: str, records: Any) -> None:
        """A slow immediate run at a scheduled second keeps the scheduled run from overlapping, and the log says so."""
        going, most, seen = [0], [0], Waiter()

        def slow() -> None:
            going[0] += 1
            most[0] = max(most[0], going[0])
            until(lambda: records.texts("WARNING") or len(seen.seen) > 0)
            going[0] -= 1
            seen()

        with stage(kind, lambda j: j.add_background_job(slow, cron="* * * * * *", run_immediately=True)):
            seen.wait(2)
        assert most == [1]
        assert "was skipped: still running since" in records.texts("WARNING")[0]


class SlowStart(BackgroundScheduler):  # type: ignore[misc]
    """A scheduler that takes more than a second to start, as one with a remote job store may."""

    def start(self, *args: Any, **kwargs: Any) -> None:
        threading.Event().wait(1.2)
        super().start(*args, **kwargs)


class TestSomebodyElsesScheduler:
    @pytest.mark.parametrize("kind", ["asyncio", "background"])
    def test_its_jobs_and_listeners_are_left_alone(self, kind: str) -> None:
        """On a running scheduler our jobs come and go, and everything else stays as it was."""
        seen, events = Waiter(), Waiter()
        scheduler = CLASSES[kind](timezone="UTC")
        scheduler.add_job(lambda: seen("theirs"), often(), id="theirs")
        scheduler.add_listener(events, EVENT_JOB_EXECUTED)

        def body() -> None:
            listeners = list(scheduler._listeners)
            jobs = cold(scheduler).add_background_job(lambda: seen("ours"), key="ours", trigger=often())
            jobs.warm_up()
            until(lambda: "ours" in seen.seen)
            jobs.close()
            assert scheduler.running
            assert [job.id for job in scheduler.get_jobs()] == ["theirs"]
            assert scheduler._listeners == listeners
            before = len(seen.seen)
            assert "ours" not in seen.wait(before + 2)[before + 1 :]

        if kind == "background":
            scheduler.start()
            body()
            scheduler.shutdown()
            return
        with event_loop_in_a_thread() as loop:
            asyncio.run_coroutine_threadsafe(in_loop(scheduler.start), loop).result(LIMIT)
            body()
            asyncio.run_coroutine_threadsafe(in_loop(scheduler.shutdown), loop).result(LIMIT)
        assert events.seen

    def test_a_running_blocking_scheduler(self) -> None:
        """On one that runs in a thread of its owner, `warm_up` does not block, and `close` leaves it running."""
        seen = Waiter()
        scheduler = BlockingScheduler(timezone="UTC")
        thread = threading.Thread(target=scheduler.start)
        thread.start()
        until(lambda: scheduler.running)
        jobs = cold(scheduler).add_background_job(lambda: seen(), key="k", trigger=now()).warm_up()
        seen.wait()
        jobs.close()
        assert scheduler.running
        scheduler.shutdown()
        thread.join(LIMIT)

    def test_our_defaults_hold_in_spite_of_its_job_defaults(self) -> None:
        """The scheduler's own `job_defaults` are for its owner's jobs."""
        scheduler = BackgroundScheduler(job_defaults={"misfire_grace_time": 7, "coalesce": False, "max_instances": 9})
        with cold(scheduler).add_background_job(nothing, cron=NIGHTLY):
            (job,) = scheduler.get_jobs()
            assert (job.misfire_grace_time, job.coalesce, job.max_instances) == (None, True, 1)

    def test_its_time_zone_is_taken_and_told_once(self, records: Any) -> None:
        """Jobs that name no zone run in the scheduler's."""
        jobs = cold(BackgroundScheduler(timezone="Asia/Tokyo")).add_background_job(nothing, cron=NIGHTLY)
        assert jobs.status()[0].timezone == "Asia/Tokyo"
        assert records.texts("INFO") == ["jobs without a time zone of their own run in the scheduler's: Asia/Tokyo"]

    def test_the_settings_zone_goes_before_it(self) -> None:
        """A zone in the settings is for jobs on any scheduler."""
        settings = BackgroundJobsSettings(timezone="Europe/Rome")
        jobs = BackgroundJobs(BackgroundScheduler(timezone="Asia/Tokyo"), settings=settings)
        jobs.add_background_job(nothing, cron=NIGHTLY)
        assert jobs.status()[0].timezone == "Europe/Rome"

    def test_two_facades_share_a_scheduler(self) -> None:
        """Each has its own jobs; closing one leaves the other's."""
        scheduler = BackgroundScheduler(timezone="UTC")
        scheduler.start()
        first = cold(scheduler).add_background_job(nothing, key="first", cron=NIGHTLY).warm_up()
        second = cold(scheduler).add_background_job(nothing, key="second", cron=NIGHTLY).warm_up()
        first.close()
        assert [job.id for job in scheduler.get_jobs()] == ["bgjobs:second"]
        second.close()
        scheduler.shutdown()

    def test_one_key_in_two_facades_of_a_scheduler_is_refused(self) -> None:
        """The second would take the first one's place in the job store."""
        scheduler = BackgroundScheduler(timezone="UTC")
        with cold(scheduler).add_background_job(nothing, cron=NIGHTLY):
            other = cold(scheduler).add_background_job(nothing, cron=NIGHTLY)
            with pytest.raises(DuplicateJobError, match="another BackgroundJobs on this scheduler has a job 'nothing'"):
                other.warm_up()

    def test_its_tools_name_our_jobs_by_their_keys(self, apscheduler_records: Any) -> None:
        """``print_jobs``, events and APScheduler's own log lines show keys."""
        seen, text = Waiter(), io.StringIO()
        scheduler = BackgroundScheduler(timezone="UTC")
        scheduler.add_listener(lambda event: seen(event.job_id), EVENT_JOB_REMOVED)
        jobs = cold(scheduler).add_background_job(nothing, key="data-sync", cron=NIGHTLY, run_immediately=True)
        with jobs:
            assert seen.wait() == ["bgjobs:data-sync:startup"]
            scheduler.print_jobs(out=text)
        assert "    data-sync (trigger: cron[" in text.getvalue()
        assert any('Added job "data-sync" to job store' in record.getMessage() for record in apscheduler_records)
        assert any('Running job "data-sync (trigger: date[' in record.getMessage() for record in apscheduler_records)


async def in_loop(call: Any) -> None:
    call()


SCRIPT = """
    import asyncio, os, signal, sys, threading
    from apscheduler.schedulers.asyncio import AsyncIOScheduler
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.schedulers.blocking import BlockingScheduler
    from bgjobs import BackgroundJobs, BackgroundJobsSettings

    def work(cancellation_token):
        print("working", flush=True)
        cancellation_token.wait()
        print("put away", flush=True)

    async def awork(cancellation_token):
        print("working", flush=True)
        await cancellation_token.wait_async()
        print("put away", flush=True)

    jobs = BackgroundJobs({scheduler}, settings=BackgroundJobsSettings.defaults())
    jobs.add_background_job({job}, cron="0 0 3 * * *", run_immediately=True)
    {start}
    print("ended", flush=True)
"""


class TestPlainScripts:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("job", ["work", "awork"])
    @pytest.mark.parametrize(
        ("scheduler", "start"),
        [
            ("None", "jobs.run()"),
            ("AsyncIOScheduler()", "jobs.run()"),
            ("BackgroundScheduler()", "jobs.run()"),
            ("BlockingScheduler()", "jobs.run()"),
            ("BlockingScheduler()", "jobs.warm_up()"),
        ],
    )
    def test_a_signal_ends_them_cleanly(
        self, tmp_path: Path, scheduler: str, start: str, job: str, number: signal.Signals
    ) -> None:
        """Ctrl-C or SIGTERM asks the running job to end, waits for it, and leaves with status 0."""
        process = run_script(tmp_path, scheduler=scheduler, job=job, start=start)
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=LIMIT)
        assert (out, process.returncode) == ("put away\nended\n", 0), err

    def test_a_signal_that_comes_while_they_warm_up_ends_them(self, kind: str) -> None:
        """It is not forgotten when the jobs turn warm."""
        scheduler = CLASSES[kind](timezone="UTC")
        scheduler.add_listener(lambda _: signal.raise_signal(signal.SIGTERM), EVENT_SCHEDULER_STARTED)
        jobs = cold(scheduler).add_background_job(nothing, cron=NIGHTLY)
        jobs.run()
        assert not jobs.is_warm

    def test_interpreter_exit_closes_what_was_forgotten(self, tmp_path: Path) -> None:
        """A script that warms up and ends has its running job asked and awaited."""
        script = "jobs.warm_up(); wait_for_it()"
        process = run_script(tmp_path, scheduler="None", job="awork", start=script)
        out, err = process.communicate(timeout=LIMIT)
        assert out == "working\nended\nput away\n", err

    def test_run_in_an_event_loop_is_refused(self) -> None:
        """`run` starts a loop of its own."""

        async def main() -> None:
            cold().run()

        with pytest.raises(LifecycleError, match="use `async with jobs:`"):
            asyncio.run(main())


def run_script(tmp_path: Path, **parts: str) -> subprocess.Popen[str]:
    text = textwrap.dedent(SCRIPT.format(**parts))
    waiting = textwrap.dedent("""
        import builtins
        shown = threading.Event()
        def print(*args, _print=builtins.print, **kwargs):
            _print(*args, **kwargs)
            shown.set()
        def wait_for_it():
            shown.wait()
    """)
    path = tmp_path / "script.py"
    path.write_text(text.replace("\ndef work", waiting + "\ndef work", 1))
    return subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
