"""Claims inside one process, where several facades on schedulers of their own stand for the replicas."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import time_machine
from apscheduler.events import EVENT_JOB_SUBMITTED
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from loguru import logger
from redis import Redis
from sqlalchemy import create_engine, make_url, text

from bgjobs import (
    BackgroundJobs,
    BackgroundJobsSettings,
    CancellationToken,
    ClaimStoreError,
    ConfigurationError,
    CronExpression,
    current_run,
)
from bgjobs._claims import open_store  # users have the command line
from scripts import said
from servers import REDIS_URL
from stage import LIMIT, NIGHTLY, Times, Waiter, counts, eventually, job_class, nothing, row, stored, until

EVERY_SECOND = "* * * * * *"


@pytest.fixture(name="url")
def _url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/claims.db"


def replica(url: str, scheduler: Any = None, **settings: Any) -> BackgroundJobs:
    """A facade whose runs are claimed there."""
    claims = {"url": url, "lease": 3}
    return BackgroundJobs(scheduler, settings=BackgroundJobsSettings(claims=claims, env_file=None, **settings))


@contextmanager
def away(url: str) -> Generator[None]:
    """The store does not answer."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


def claimed(url: str, key: str = "k") -> dict[str, Any]:
    """The row of a job."""
    with closing(open_store(url)) as store:
        return next(iter(store.rows(f"bgjobs/{key}")), {})


def is_counted(jobs: BackgroundJobs, **numbers: int) -> bool:
    """Whether that is what became of the runs."""
    return counts(jobs, "k") == numbers


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name in ("bgjobs-claims", "bgjobs-heartbeat")}


# -- what is refused, and what it costs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cron": EVERY_SECOND, "max_instances": 2}, "a job has one run at a time, so max_instances must be 1"),
        (
            {"trigger": Times(datetime.now(UTC))},
            "give cron, a CronTrigger without jitter, or an IntervalTrigger with a",
        ),
        ({"trigger": CronTrigger(hour=3, jitter=5)}, "a CronTrigger without jitter"),
        (
            {"trigger": IntervalTrigger(seconds=5)},
            "without a start_date an IntervalTrigger counts from the start of each",
        ),
    ],
)
def test_what_replicas_would_not_agree_on_is_refused(url: str, options: dict[str, Any], message: str) -> None:
    """At the warm-up, with what would be right."""
    jobs = replica(url).add_background_job(nothing, key="k", **options)
    with pytest.raises(ConfigurationError, match=f"job 'k': .*{message}"):
        jobs.warm_up()
    assert not threads()


def test_a_persistent_job_store_is_refused(url: str, tmp_path: Path) -> None:
    """The claim store remembers what ran."""
    scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": stored(tmp_path)})
    jobs = replica(url, scheduler).add_background_job(nothing, key="k", cron=NIGHTLY)
    with pytest.raises(ConfigurationError, match="the job store must be in memory"):
        jobs.warm_up()


@pytest.mark.parametrize("options", [{"trigger": CronTrigger(hour=3)}, {"cron": NIGHTLY, "jitter": 5}])
def test_what_they_agree_on_is_accepted(url: str, options: dict[str, Any]) -> None:
    """Jitter of a cron expression is the same in each replica."""
    trigger = IntervalTrigger(hours=1, start_date="2026-01-01")
    jobs = replica(url).add_background_job(nothing, key="k", **options)
    with jobs.add_background_job(nothing, key="l", trigger=trigger).add_background_job(nothing, key="m", cron="-"):
        assert jobs.health()
        jobs.run_now("m")
        until(lambda: counts(jobs, "m") == {"succeeded": 1})
    assert not threads()


@pytest.mark.parametrize("number", range(5))
def test_a_warm_up_for_which_no_thread_can_be_had_leaves_nothing(
    url: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever thread of the claims it is that cannot be started; the next warm-up is as good as any."""
    real, ours = threading.Thread.start, list[str]()

    def start(thread: threading.Thread) -> None:
        if thread.name in ("bgjobs-claims", "bgjobs-heartbeat"):
            ours.append(thread.name)
            if len(ours) == number + 1:
                raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    jobs = replica(url).add_background_job(nothing, key="k", cron=NIGHTLY)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        jobs.warm_up()
    assert not threads()
    assert not jobs.is_warm
    with jobs:
        jobs.run_now("k")
        until(partial(is_counted, jobs, succeeded=1))


def test_a_url_that_names_no_store_is_a_mistake_without_it(url: str) -> None:
    """Beside those of the jobs; no secret is shown anywhere."""
    jobs = replica("mysql://me:hush@host/db").add_background_job(nothing, key="k", trigger=IntervalTrigger(seconds=5))
    with pytest.raises(ConfigurationError, match="2 mistakes") as caught:
        jobs.warm_up()
    settings = BackgroundJobsSettings(claims={"url": "postgresql://me:hush@host/db"}, env_file=None)
    assert "hush" not in f"{caught.value} {settings!r} {settings}"
    with pytest.raises(ConfigurationError, match=r"argument claims\.lease") as caught:
        BackgroundJobsSettings(claims={"url": "postgresql://me:hush@host/db", "lease": 2}, env_file=None)
    assert "hush" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="did you mean 'lease'"):
        BackgroundJobsSettings(claims={"url": url, "leas": 2}, env_file=None)


def test_without_a_store_there_is_no_thread_and_no_fence() -> None:
    """Nothing is different."""
    fences = Waiter()
    jobs = BackgroundJobs(settings=BackgroundJobsSettings(env_file=None))
    with jobs.add_background_job(lambda: fences(current_run().fence), key="k", cron=EVERY_SECOND):
        assert fences.wait() == [None]
        assert not threads()


def test_without_a_store_nothing_is_imported() -> None:
    """Neither the claims nor the driver of any database."""
    script = """
    import sys
    from bgjobs import BackgroundJobs
    with BackgroundJobs():
        found = {name for name in sys.modules if name.startswith(("bgjobs._claims", "sqlalchemy", "redis", "psycopg"))}
    print(sorted(found))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_forked_child_claims_nothing(url: str, tmp_path: Path) -> None:
    """Its parent's threads are not there; what it runs itself needs no claim until it warms up, and then claims."""
    script = """
    import sqlite3
    from bgjobs import BackgroundJobs, BackgroundJobsSettings
    from bgjobs.testing import run_job

    settings = BackgroundJobsSettings(claims={"url": URL}, env_file=None)

    def job():
        say(current_run().fence)

    def new():
        return BackgroundJobs(settings=settings).add_background_job(job, key="k", cron=NIGHTLY)

    jobs = new()

    def body():
        say(run_job(jobs, "k").outcome)
        with new() as own:
            own.run_now("k")
            while not own.status()[0].outcomes["succeeded"]:
                time.sleep(0.01)

    with jobs:
        jobs.wait(jobs.run_now("k"))
        with sqlite3.connect(FILE) as store:  # no thread is in SQLite any more: a child would inherit its locks
            while store.execute("SELECT token FROM bgjobs_claims").fetchone()[0]:
                time.sleep(0.01)
        store.close()
        child(body)
    """
    script = script.replace("URL", repr(url)).replace("FILE", repr(url.removeprefix("sqlite:///")))
    assert said(tmp_path, script) == ["1", "None", "succeeded", "2"]


# -- runs --------------------------------------------------------------------------------------------------------------


def test_jitter_is_the_same_for_the_same_key() -> None:
    """And no other one: the identity of an occurrence is its delayed time."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    found: dict[str, list[datetime | None]] = {}
    for key in ("a", "b", "a"):
        trigger = CronExpression("0 0 * * * *").trigger("UTC", jitter=600)
        trigger.seed = key
        found.setdefault(key, []).append(trigger.get_next_fire_time(None, now + timedelta(seconds=1)))
    assert found["a"][0] == found["a"][1] != found["b"][0]


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_each_run_has_the_next_fence_and_leaves_its_outcome(url: str, colour: str) -> None:
    """What the row keeps is what an operator sees."""
    fences = Waiter()

    def sync() -> None:
        fences(current_run().fence)
        raise ValueError("boom")

    async def async_() -> None:
        sync()

    jobs = replica(url).add_background_job(sync if colour == "sync" else async_, key="k", cron=NIGHTLY)
    with jobs:
        for n in (1, 2, 3):
            jobs.run_now("k")
            until(partial(is_counted, jobs, failed=n))
    assert fences.seen == [1, 2, 3]
    found = claimed(url)
    assert (found["outcome"], found["error"], found["token"]) == ("failed", "ValueError: boom", None)


def test_a_lease_ends_with_the_outcome_of_its_run(url: str) -> None:
    """Neither a log that is slow nor an `on_exception` holds other replicas up."""
    freed = Waiter()

    def wait_for_it(who: str) -> None:
        until(lambda: not claimed(url)["token"])
        freed(who)

    def fail() -> None:
        raise ValueError("boom")

    jobs = replica(url).add_background_job(
        fail, key="k", cron=NIGHTLY, on_exception=lambda exception: wait_for_it(str(exception))
    )
    with jobs:
        sink = logger.add(lambda _: wait_for_it("log"), filter=lambda record: "boom" in record["message"])
        try:
            jobs.run_now("k")
            assert freed.wait(2)[:2] == ["log", "boom"]
        finally:
            logger.remove(sink)


def test_an_immediate_run_is_made_once(url: str, records: Any) -> None:
    """For all replicas that start within ten minutes of one another."""
    ran = Waiter()
    first, second = (
        replica(url).add_background_job(ran.__call__, key="k", cron=NIGHTLY, run_immediately=True) for _ in range(2)
    )
    with first:
        ran.wait()
        with second:
            until(lambda: counts(second, "k") == {"recent": 1})
    assert len(ran.seen) == 1
    assert len([text for text in records.texts("INFO") if ": made at the start of another replica" in text]) == 1


def test_a_run_in_another_replica_refuses_an_extra_one(url: str, records: Any) -> None:
    """While it has the lease; one warning during that run."""
    started, go = Waiter(), threading.Event()

    def wait() -> None:
        started()
        go.wait(LIMIT)

    first = replica(url).add_background_job(wait, key="k", cron=NIGHTLY)
    second = replica(url).add_background_job(nothing, key="k", cron=NIGHTLY)
    with first, second:
        first.run_now("k")
        started.wait()
        for n in (1, 2):
            second.run_now("k")
            until(partial(is_counted, second, busy=n))
        go.set()
        until(lambda: counts(first, "k"))
        until(lambda: not claimed(url)["token"])
        second.run_now("k")
        until(lambda: counts(second, "k") == {"busy": 2, "succeeded": 1})
    assert len([text for text in records.texts("WARNING") if "still running on" in text]) == 1


def test_a_pause_holds_in_all_replicas(url: str, records: Any) -> None:
    """So does its end, whoever asks; an extra run is made all the same. Nothing is made up for after it."""
    first, second = (replica(url).add_background_job(nothing, key="k", cron=EVERY_SECOND) for _ in range(2))
    with first, second:
        first.pause("k")
        assert row(first, "k").paused
        until(lambda: counts(second, "k").get("paused", 0) + counts(second, "k").get("claimed", 0) >= 2)
        ran = counts(first, "k").get("succeeded", 0) + counts(second, "k").get("succeeded", 0)
        second.run_now("k")
        until(lambda: counts(second, "k").get("succeeded", 0) + counts(first, "k").get("succeeded", 0) == ran + 1)
        with replica(url).add_background_job(nothing, key="k", cron=EVERY_SECOND) as third:
            until(lambda: row(third, "k").paused)
        second.resume("k")
        until(lambda: counts(first, "k").get("succeeded", 0) + counts(second, "k").get("succeeded", 0) > ran + 1)
        until(lambda: not row(first, "k").paused or not row(second, "k").paused)
    told = records.texts("INFO")
    assert "job 'k' is paused in all replicas" in told
    assert "job 'k' is resumed in all replicas" in told
    assert not [text for text in records.texts("WARNING") if "paused" in text]


def test_a_job_that_was_paused_while_cold_is_resumed(url: str) -> None:
    """The pause of this replica alone, too; a job that is switched off can be paused and resumed as well."""
    jobs = replica(url).add_background_job(nothing, key="k", cron=EVERY_SECOND)
    jobs.add_background_job(nothing, key="off", cron="-").pause("k")
    with jobs:
        jobs.pause("off")
        jobs.resume("off")
        jobs.resume("k")
        until(lambda: counts(jobs, "k").get("succeeded"))


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_ahead_waits_for_that_of_the_store(url: str, colour: str, records: Any) -> None:
    """Up to a minute; it is told once, and shows in `health()`."""
    at = Waiter()
    job = job_class(colour, lambda *_: at(current_run().scheduled_at))
    real = datetime.now(UTC)
    with time_machine.travel(real + timedelta(seconds=7), tick=True):
        jobs = replica(url).add_background_job(job, key="k", cron=EVERY_SECOND)
        with jobs:
            until(lambda: len(records.texts("WARNING")))
            assert "ms ahead of the claim store's" in records.texts("WARNING")[0]
            assert not jobs.health()
            (scheduled,) = at.wait()[:1]
            assert "s ahead of the claim store's" in jobs.health().problems[0]
    assert 7 <= (scheduled - real).total_seconds() < 30
    assert claimed(url)["last_fire"] <= (scheduled + timedelta(seconds=1)).timestamp() * 1000


def test_a_clock_that_is_absurdly_ahead_runs_nothing(url: str, records: Any) -> None:
    """It is told once, and counted."""
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=90), tick=True):
        jobs = replica(url).add_background_job(nothing, key="k", cron=EVERY_SECOND)
        with jobs:
            until(lambda: counts(jobs, "k").get("early", 0) >= 2)
    assert not counts(jobs, "k").get("succeeded")
    assert len([text for text in records.texts("WARNING") if "ahead" in text]) == 1


# -- a store that does not answer --------------------------------------------------------------------------------------


def asking(url: str, colour: str, waits: Any, **options: Any) -> tuple[BackgroundJobs, Waiter]:
    """A replica whose store has half a second to answer, and what runs there."""
    waits.claim = 0.5
    ran = Waiter()

    async def coroutine() -> None:
        ran(current_run().fence)

    job: Callable[..., Any] = coroutine if colour == "async" else lambda: ran(current_run().fence)
    return replica(url).add_background_job(job, key="k", cron=NIGHTLY, **options), ran


def test_a_claim_that_is_granted_too_late_is_given_back(url: str, colour: str, waits: Any, records: Any) -> None:
    """The run is skipped, and the next one is not held up by it."""
    jobs, ran = asking(url, colour, waits)
    with jobs:
        jobs.run_now("k")
        ran.wait()
        with away(url):
            jobs.run_now("k")
            until(lambda: counts(jobs, "k").get("unclaimed"))
            assert not jobs.health()
            with pytest.raises(ClaimStoreError, match="does not answer"):
                jobs.pause("k")
            for n in range(2, 7):  # more than there are threads to ask
                jobs.run_now("k")
                until(partial(is_counted, jobs, succeeded=1, unclaimed=n))
            until(lambda: "locked" in jobs.health().problems[0])
        until(jobs.health)
        until(lambda: not claimed(url)["token"])
        jobs.run_now("k")
        assert ran.wait(2)[1] > 1
    assert len([text for text in records.texts("WARNING") if "does not answer" in text]) >= 1


@pytest.mark.parametrize("patience", [0.2, 5.0], ids=["we-give-up", "the-driver-gives-up"])
@pytest.mark.parametrize("grace", [None, 1])
def test_an_occurrence_that_is_granted_too_late_runs_late(
    redis: str, colour: str, waits: Any, grace: int | None, patience: float
) -> None:
    """A server that hangs takes the claim when it wakes up: nobody else can make that run any more."""
    if REDIS_URL is not None:
        pytest.skip("the server is not ours to freeze")
    at, application = Waiter(), secrets.token_hex(4)
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    settings = BackgroundJobsSettings(claims={"url": redis}, application=application, env_file=None)
    jobs = BackgroundJobs(settings=settings)

    async def coroutine() -> None:
        at(current_run())

    job: Callable[..., Any] = coroutine if colour == "async" else lambda: at(current_run())
    cron = f"{moment.second} {moment.minute} {moment.hour} * * *"
    jobs.add_background_job(job, key="k", cron=cron, misfire_grace_time=grace)
    with Redis.from_url(redis) as client, jobs:
        server = client.info()["process_id"]
        jobs.run_now("k")
        at.wait()
        waits.claim = patience
        until(lambda: datetime.now(UTC) > moment - timedelta(seconds=0.5))
        os.kill(server, signal.SIGSTOP)
        try:
            until(partial(is_counted, jobs, succeeded=1, unclaimed=1))
            until(lambda: datetime.now(UTC) > moment + timedelta(seconds=1.5))
        finally:
            os.kill(server, signal.SIGCONT)
        until(jobs.health)
        if grace is None:
            late = at.wait(2)[1]
            assert (late.scheduled_at, late.fence) == (moment, 2)
        with closing(open_store(redis)) as store:
            until(lambda: not store.rows(f"{application}/k")[0]["token"])
    assert len(at.seen) == (2 if grace is None else 1)


def test_a_grant_that_came_unheard_holds_nothing_up(redis: str, waits: Any) -> None:
    """A server that hangs takes several claims when it wakes up: the lease of the first is free long before its end."""
    if REDIS_URL is not None:
        pytest.skip("the server is not ours to freeze")
    ran, waits.claim = Waiter(), 0.3
    claims = {"url": redis, "lease": 10 * LIMIT}
    settings = BackgroundJobsSettings(claims=claims, application=secrets.token_hex(4), env_file=None)
    jobs = BackgroundJobs(settings=settings).add_background_job(ran.__call__, key="k", cron=EVERY_SECOND)
    with Redis.from_url(redis) as client, jobs:
        server = client.info()["process_id"]
        ran.wait()
        os.kill(server, signal.SIGSTOP)
        try:
            until(lambda: counts(jobs, "k").get("unclaimed", 0) >= 4)
            before = len(ran.seen)
        finally:
            os.kill(server, signal.SIGCONT)
        ran.wait(before + 2)


def test_a_store_that_refuses_is_noted_once(url: str, colour: str, records: Any, tmp_path: Path) -> None:
    """Whatever it raises; the runs are counted."""
    jobs = replica(url.replace("/claims.db", "/none/claims.db"))

    async def coroutine() -> None:
        """Does nothing."""

    ran = Waiter()
    jobs.add_background_job(ran.__call__, key="free", cron=NIGHTLY, on_claim_error="run")
    with jobs.add_background_job(coroutine if colour == "async" else nothing, key="k", cron=NIGHTLY):
        jobs.run_now("free")
        ran.wait()
        for n in (1, 2):
            jobs.run_now("k")
            until(partial(is_counted, jobs, unclaimed=n))
        assert "the claim store does not answer" in jobs.health().problems[0]
    first, second = records.texts("WARNING")
    assert first.startswith("the claim store does not answer")
    assert second == "job 'free': runs without a claim, in each replica"


def change(url: str, what: str) -> None:
    """Change the row of the job, as another replica would."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute(f"UPDATE bgjobs_claims SET {what}")
        connection.commit()


def test_a_lease_is_kept_until_another_replica_has_it(url: str, records: Any) -> None:
    """The heartbeat extends it; a run that has lost it is cancelled, and says so."""
    started = Waiter()

    def wait(cancellation_token: CancellationToken) -> None:
        started()
        assert cancellation_token.wait(LIMIT)
        cancellation_token.raise_if_cancellation_requested()

    jobs = replica(url).add_background_job(wait, key="k", cron=NIGHTLY)
    with jobs:
        jobs.run_now("k")
        started.wait()
        until_then = claimed(url)["lease_until"]
        until(lambda: claimed(url)["lease_until"] > until_then)
        change(url, "token = 'other', holder = 'there:1'")
        until(partial(is_counted, jobs, cancelled=1))
        assert "has lost its lease and is cancelled" in records.texts("WARNING")[0]
        assert claimed(url)["token"] == "other"


def test_a_lost_run_is_told_by_who_takes_over(url: str, records: Any) -> None:
    """And kept in the row."""
    jobs = replica(url).add_background_job(nothing, key="k", cron=NIGHTLY)
    with jobs:
        jobs.run_now("k")
        until(partial(is_counted, jobs, succeeded=1))
        until(lambda: not claimed(url)["token"])
        change(url, "token = 'other', holder = 'there:1', lease_until = 1")
        jobs.run_now("k")
        until(partial(is_counted, jobs, succeeded=2))
    assert records.texts("WARNING") == ["job 'k': its previous run, on there:1, was lost: it never ended"]
    assert claimed(url)["lost"] == "there:1"


def read_only(url: str, *, is_so: bool) -> None:
    """Let a database of PostgreSQL refuse changes, or take them again, as after a failover."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        switch = f"SET default_transaction_read_only = {'on' if is_so else 'off'}"
        connection.execute(text("SET default_transaction_read_only = off"))
        connection.execute(text(f"ALTER DATABASE {make_url(url).database} {switch}"))
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
    engine.dispose()


def test_a_release_that_the_store_refuses_is_sent_again(postgresql: str, records: Any) -> None:
    """When it takes changes again: the lease is free, and the row has the outcome. The log has not said it often."""
    started, go = Waiter(), threading.Event()

    def wait() -> None:
        started()
        go.wait(LIMIT)

    jobs = replica(postgresql).add_background_job(wait, key="k", cron=NIGHTLY, on_claim_error="run")
    with jobs:
        jobs.run_now("k")
        started.wait()
        read_only(postgresql, is_so=True)
        go.set()
        until(partial(is_counted, jobs, succeeded=1))
        for _ in range(9):  # the release is asked before these
            with pytest.raises(ClaimStoreError, match="read-only"):
                jobs.pause("k")
        assert claimed(postgresql)["token"]
        told = len(records.texts("WARNING"))
        read_only(postgresql, is_so=False)
        until(lambda: not claimed(postgresql)["token"])
        assert claimed(postgresql)["outcome"] == "succeeded"
        assert len(records.texts("WARNING")) < told + 9


def test_a_run_without_a_claim_outlives_an_outage(url: str, waits: Any, records: Any) -> None:
    """One that has a claim and may run without goes on; one that needs its claim is cancelled before its lease ends."""
    waits.claim = 0.5
    started, ended = Waiter(), Waiter()

    def wait(cancellation_token: CancellationToken) -> None:
        started()
        ended((current_run().key, cancellation_token.wait(LIMIT)))

    jobs = replica(url).add_background_job(wait, key="needs", cron=NIGHTLY)
    jobs.add_background_job(wait, key="may", cron=NIGHTLY, on_claim_error="run")
    with jobs:
        jobs.run_now("needs")
        jobs.run_now("may")
        started.wait(2)
        with away(url):
            assert ended.wait() == [("needs", True)]
            until(lambda: counts(jobs, "needs") == {"cancelled": 1} or counts(jobs, "needs") == {"succeeded": 1})
        assert row(jobs, "may").running
    assert [text for text in records.texts("WARNING") if "has lost its lease and is cancelled" in text]


async def test_a_claim_that_is_asked_for_at_the_close_is_given_back(url: str) -> None:
    """The task that waits for it is cancelled; nothing runs, and no lease is left."""
    ran, scheduler = Waiter(), AsyncIOScheduler(timezone="UTC")

    async def coroutine() -> None:
        ran()

    jobs = replica(url, scheduler, shutdown_timeout=0).add_background_job(coroutine, key="k", cron=NIGHTLY)
    submitted = Waiter()
    scheduler.add_listener(submitted, EVENT_JOB_SUBMITTED)
    async with jobs:
        jobs.run_now("k")
        await eventually(lambda: counts(jobs, "k"))
        with away(url):
            jobs.run_now("k")
            await eventually(lambda: len(submitted.seen) == 2)
            close = asyncio.ensure_future(jobs.aclose())
            await eventually(lambda: counts(jobs, "k").get("closing"))
        await close
    assert len(ran.seen) == 1
    assert not claimed(url)["token"]


# -- what all replicas have missed -------------------------------------------------------------------------------------


def ran_once(url: str, **options: Any) -> None:
    """Let a job run and be closed, and its row look as if that was long ago."""
    jobs = replica(url).add_background_job(nothing, key="k", **options)
    with jobs:
        until(lambda: counts(jobs, "k").get("succeeded"))
    change(url, "last_fire = last_fire - 86400000")


LATE: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "the same schedule": ({}, {}, True),
    "in time for it": ({}, {"misfire_grace_time": 86400}, True),
    "too late for it": ({}, {"misfire_grace_time": 1}, False),
    "another time zone": ({}, {"timezone": "Asia/Tokyo"}, False),
    "with jitter": ({"jitter": 1.0}, {"jitter": 2.0}, True),
    "without claims if need be": ({}, {"on_claim_error": "run"}, True),
}


@pytest.mark.parametrize(("before", "after", "late"), LATE.values(), ids=LATE)
def test_what_was_missed_by_all_runs_late(url: str, before: dict[str, Any], after: dict[str, Any], late: bool) -> None:
    """The latest fire time, under its own time, once; the schedule is the same."""
    soon = datetime.now(UTC) + timedelta(seconds=2)
    cron = f"{soon.second} {soon.minute} {soon.hour} * * *"
    ran_once(url, cron=cron, **before)
    at = Waiter()
    until(lambda: datetime.now(UTC) > soon + timedelta(seconds=3))
    jobs = replica(url).add_background_job(
        lambda: at(current_run().scheduled_at), key="k", **{"cron": cron, **before, **after}
    )
    with jobs:
        until(lambda: claimed(url)["last_fire"] > soon.timestamp() * 1000 - 1000 or not late)
        if late:
            (moment,) = at.wait()
            assert 0 <= (moment - soon.replace(microsecond=0)).total_seconds() <= 2
    assert len(at.seen) == late


def test_what_is_still_to_come_is_not_late(url: str) -> None:
    """A fire time that jitter has put off runs at its time; the one before it is late."""
    soon = datetime.now(UTC) + timedelta(seconds=2)
    cron = f"{soon.second} {soon.minute} {soon.hour} * * *"
    ran_once(url, cron=cron)
    at = Waiter()
    jobs = replica(url).add_background_job(lambda: at(current_run().scheduled_at), key="k", cron=cron, jitter=80_000)
    with jobs:
        (moment,) = at.wait()
    assert timedelta(0) < moment - (soon.replace(microsecond=0) - timedelta(days=1)) < timedelta(seconds=80_000)


def test_what_ran_without_a_claim_is_not_made_up_for(url: str, waits: Any) -> None:
    """It ran in each replica; when the store answers again, the schedule goes on."""
    ran, waits.claim = Waiter(), 0.3
    jobs = replica(url).add_background_job(lambda: ran(current_run()), key="k", cron=EVERY_SECOND, on_claim_error="run")
    with jobs:
        ran.wait()
        with away(url):
            until(lambda: ran.seen[-1].fence is None)
        until(lambda: ran.seen[-1].fence is not None)
    moments = [run.scheduled_at for run in ran.seen]
    assert moments == sorted({*moments})


def test_a_late_run_that_cannot_be_made_is_told(url: str, records: Any) -> None:
    """Whatever the scheduler raises; the others are made."""
    soon = datetime.now(UTC) + timedelta(seconds=2)
    cron = f"{soon.second} {soon.minute} {soon.hour} * * *"
    ran_once(url, cron=cron)

    class Refusing(MemoryJobStore):  # type: ignore[misc]
        def add_job(self, job: Any) -> None:
            if job.id.endswith(":late"):
                raise OSError("the job store is full")
            super().add_job(job)

    scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": Refusing()})
    until(lambda: datetime.now(UTC) > soon + timedelta(seconds=1))
    with replica(url, scheduler).add_background_job(nothing, key="k", cron=cron):
        until(lambda: [text for text in records.texts("ERROR") if "cannot be made up for: OSError" in text])


def test_a_row_of_a_job_that_is_gone_is_left_alone(url: str) -> None:
    """So is one of a job that is switched off, and one that has never run by its schedule."""
    with replica(url).add_background_job(nothing, key="gone", cron=NIGHTLY) as jobs:
        jobs.add_background_job(nothing, key="off", cron=NIGHTLY).add_background_job(nothing, key="k", cron=NIGHTLY)
        for key in ("gone", "off", "k"):
            jobs.run_now(key)
        until(lambda: all(status.outcomes["succeeded"] for status in jobs.status()))
    second = replica(url).add_background_job(nothing, key="k", cron=NIGHTLY)
    with second.add_background_job(nothing, key="off", cron="-"):
        second.run_now("k")
        until(partial(is_counted, second, succeeded=1))
