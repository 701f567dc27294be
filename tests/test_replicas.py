"""Replicas: real processes that share a claim store, and what becomes of each occurrence among them."""

from __future__ import annotations

import json
import secrets
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stage import LIMIT, until

#: What each replica begins with: its claim store and application are arguments; what happens goes to its output.
BEGIN = """
import asyncio, datetime, json, signal, sys, threading, time
from loguru import logger
from apscheduler.triggers.interval import IntervalTrigger
from bgjobs import BackgroundJobs, BackgroundJobsSettings, current_run

lock = threading.Lock()

def say(what, **more):
    with lock:
        print(json.dumps({"what": what, **more}), flush=True)

def note(what="begin"):
    run = current_run()
    say(what, job=run.key, at=run.scheduled_at.timestamp(), fence=run.fence, id=run.run_id, now=time.time())

logger.remove()
logger.add(lambda m: say("log", level=m.record["level"].name, text=m.record["message"]), level="INFO")
URL, APPLICATION, MORE = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
SETTINGS = {"claims": {"url": URL, "lease": 3}, "application": APPLICATION, "env_file": None}
jobs = BackgroundJobs(settings=BackgroundJobsSettings(**SETTINGS))
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())

def serve():
    with jobs:
        say("warm")
        stop.wait()
    for status in jobs.status():
        say("status", job=status.key, not_run={k: n for k, n in status.not_run.items() if n})
"""


class Replica:
    """One process, and everything that it has said."""

    def __init__(self, name: str, path: Path, url: str, application: str, more: dict[str, Any]) -> None:
        self.name = name
        self.said: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        command = [sys.executable, str(path), url, application, json.dumps(more)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._changed:
                    self.said.append(json.loads(line))
                    self._changed.notify_all()

    def all(self, what: str, **like: Any) -> list[dict[str, Any]]:
        """What it has said of that kind."""
        with self._changed:
            return [said for said in self.said if {"what": what, **like}.items() <= said.items()]

    def wait(self, what: str, times: int = 1, text: str = "", **like: Any) -> list[dict[str, Any]]:
        """What it says of that kind, when it has said so often that; its text contains `text`."""

        def found() -> list[dict[str, Any]]:
            return [said for said in self.all(what, **like) if text in said.get("text", "")]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= times, LIMIT), f"{self.name} only said {self.said}"
        return found()

    def gone(self) -> None:
        """Have the process be gone, in whatever state it is."""
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def end(self) -> None:
        """Have it close its jobs, and wait for that."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(LIMIT) == 0
        self._reader.join(LIMIT)


@contextmanager
def replicas(tmp_path: Path, body: str) -> Generator[Callable[..., Replica]]:
    """Starts replicas that run this script: given a name, the URL of a claim store, and what is in `MORE`."""
    path = tmp_path / "replica.py"
    path.write_text(BEGIN + textwrap.dedent(body), encoding="utf-8")
    application = secrets.token_hex(4)
    with ExitStack() as stack:

        def start(name: str, url: str, **more: Any) -> Replica:
            replica = Replica(name, path, url, application, more)
            stack.callback(replica.gone)
            return replica

        yield start


@pytest.fixture(name="url", params=["postgresql", "redis", "sqlite"])
def _url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each kind of store in turn."""
    return f"sqlite:///{tmp_path}/claims.db" if request.param == "sqlite" else request.getfixturevalue(request.param)


@pytest.fixture(name="sqlite")
def _sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/claims.db"


EVERY_SECOND = """
    @jobs.background_job(cron="* * * * * *", key="sync")
    def sync():
        note()

    @jobs.background_job(cron="0 0 3 1 1 *", key="start", run_immediately=True)
    def start():
        note()

    @jobs.background_job(cron="* * * * * *", key="async", jitter=0.3)
    async def async_():
        note()

    serve()
"""


def runs(members: list[Replica], job: str) -> list[dict[str, Any]]:
    """All runs of a job, in the order of their claims."""
    return sorted((run for member in members for run in member.all("begin", job=job)), key=lambda run: run["fence"])


def test_four_processes_run_each_occurrence_once(url: str, tmp_path: Path) -> None:
    """None twice, none of those between the first and the last left out; one immediate run; rising fences."""
    with replicas(tmp_path, EVERY_SECOND) as start:
        members = [start(str(n), url) for n in range(4)]
        for member in members:
            member.wait("warm")
        until(lambda: len({int(run["at"]) for run in runs(members, "sync")}) > 6)
        for member in members:
            member.end()
        for job in ("sync", "async"):
            made = runs(members, job)
            times = [run["at"] for run in made]
            assert len({*times}) == len(times)
            refused = [said["not_run"] for member in members for said in member.all("status", job=job)]
            # A machine that is late coalesces, and what was claimed by a replica that then closed is told of.
            reasons = sum(n for not_run in refused for reason, n in not_run.items() if reason != "claimed")
            assert int(max(times)) - int(min(times)) + 1 - len(times) <= reasons
            fences = [run["fence"] for run in made]
            assert fences == sorted({*fences})
            assert [run["now"] for run in made] == sorted(run["now"] for run in made)
        assert len(runs(members, "start")) == 1
        refused = [said["not_run"] for member in members for said in member.all("status", job="start")]
        assert sum(sum(not_run.values()) for not_run in refused) == 3


LONG = """
    @jobs.background_job(cron="* * * * * *", key="long")
    async def long():
        note()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note("cancelled")
            raise

    serve()
"""


def test_a_killed_holder_is_taken_over_from(url: str, tmp_path: Path) -> None:
    """Its lease runs out; the next one has the next fence, and says who was lost. Until then, it is told of once."""
    with replicas(tmp_path, LONG) as start:
        first = start("first", url)
        (held,) = first.wait("begin")
        second = start("second", url)
        second.wait("log", level="WARNING", text="still running on")
        first.process.kill()
        (taken,) = second.wait("begin")
        (lost,) = second.wait("log", text="was lost")
        assert taken["fence"] == held["fence"] + 1
        assert taken["now"] - held["now"] > 2.5
        assert lost["level"] == "WARNING"
        assert f":{first.process.pid}, was lost" in lost["text"]
        assert len(second.wait("log", text="still running on")) == 1


def test_a_frozen_holder_loses_its_lease(url: str, tmp_path: Path) -> None:
    """Another one takes over; on waking, the old run is cancelled."""
    with replicas(tmp_path, LONG) as start:
        first = start("first", url)
        (held,) = first.wait("begin")
        first.process.send_signal(signal.SIGSTOP)
        second = start("second", url)
        (taken,) = second.wait("begin")
        assert taken["fence"] == held["fence"] + 1
        first.process.send_signal(signal.SIGCONT)
        (cancelled,) = first.wait("cancelled")
        assert cancelled["id"] == held["id"]
        first.wait("log", level="WARNING", text="has lost its lease and is cancelled")


def test_a_heartbeat_keeps_a_run_alone(sqlite: str, tmp_path: Path) -> None:
    """It may take longer than its lease, even where it blocks its event loop."""
    body = """
    async def long():
        note()
        if MORE["blocks"]:
            time.sleep(5)
            note("end")

    jobs.add_background_job(long, cron="* * * * * *", key="long")

    async def main():
        async with jobs:
            say("warm")
            while not stop.is_set():
                await asyncio.sleep(0.05)

    asyncio.run(main())
    """
    with replicas(tmp_path, body) as start:
        first = start("first", sqlite, blocks=True)
        (held,) = first.wait("begin")
        second = start("second", sqlite, blocks=False)
        (ended,) = first.wait("end")
        assert ended["now"] - held["now"] >= 5
        second.wait("log", level="WARNING", text="still running on")
        others = [run["now"] for run in runs([first, second], "long") if run["id"] != held["id"]]
        assert all(now >= ended["now"] for now in others)


@contextmanager
def away(url: str) -> Generator[None]:
    """The store does not answer."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


TWICE = """
    @jobs.background_job(cron=MORE["cron"], key="k", **MORE.get("options", {}))
    def k():
        note()

    serve()
"""


def soon(*seconds: int) -> tuple[list[float], str]:
    """Moments so many seconds from now, and the cron expression of them."""
    moments = [datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=s) for s in seconds]
    return [moment.timestamp() for moment in moments], f"{','.join(str(m.second) for m in moments)} * * * * *"


def test_what_came_due_while_the_store_was_away_runs_once_late(sqlite: str, tmp_path: Path) -> None:
    """All replicas skip it, with one warning; when the store answers again, one of them makes it."""
    with replicas(tmp_path, TWICE) as start:
        (first, second), cron = soon(4, 8)
        members = [start(str(n), sqlite, cron=cron) for n in range(2)]
        until(lambda: runs(members, "k"))
        with away(sqlite):
            for member in members:
                member.wait("log", level="WARNING", text="does not answer")
            until(lambda: time.time() > second + 4)
        for member in members:
            member.wait("log", level="INFO", text="the claim store answers again")
        until(lambda: len(runs(members, "k")) == 2)
        for member in members:
            member.end()
            assert len(member.all("log", level="WARNING")) == 1
        assert [run["at"] for run in runs(members, "k")] == [first, second]
        assert sum(m.all("status")[0]["not_run"]["unclaimed"] for m in members) == 2


def test_a_job_that_is_to_run_without_claims_does(sqlite: str, tmp_path: Path) -> None:
    """In each replica while the store is away, without a fence, and not once more when it is back."""
    with replicas(tmp_path, TWICE) as start:
        (first, second), cron = soon(4, 8)
        members = [start(str(n), sqlite, cron=cron, options={"on_claim_error": "run"}) for n in range(2)]
        until(lambda: runs(members, "k"))
        with away(sqlite):
            for member in members:
                (run,) = member.wait("begin", at=second)
                assert run["fence"] is None
                member.wait("log", level="WARNING", text="runs without a claim")
        for member in members:
            member.wait("log", level="INFO", text="the claim store answers again")
            member.end()
        made = [run["at"] for member in members for run in member.all("begin")]
        # The store may have been away for one of them when the other one had begun to make the first.
        assert {*made} == {first, second}
        assert made.count(second) == 2


def test_what_came_due_while_nothing_was_up_runs_once_late(sqlite: str, tmp_path: Path) -> None:
    """At the next start, with its own fire time; not where the schedule is another one, or it is too late for it."""
    with replicas(tmp_path, TWICE) as start:
        (first, second), cron = soon(6, 10)
        before = start("before", sqlite, cron=cron)
        before.wait("begin")
        before.end()
        until(lambda: time.time() > second + 1.5)
        for more in ({"cron": cron.replace(" * * * * *", " * * * * 0-6")}, {"options": {"misfire_grace_time": 1}}):
            other = start("other", sqlite, **{"cron": cron, **more})
            other.wait("warm")
            other.end()
            assert not other.all("begin")
        members = [start(str(n), sqlite, cron=cron) for n in range(2)]
        until(lambda: runs(members, "k"))
        for member in members:
            member.wait("warm")
            member.end()
        assert [run["at"] for run in runs(members, "k")] == [second]
        assert runs(members, "k")[0]["fence"] == 2
        assert first < second


UVICORN = """
import os
from contextlib import asynccontextmanager

from bgjobs import BackgroundJobs, BackgroundJobsSettings, current_run
from fastapi import FastAPI

def note():
    run = current_run()
    print("run", run.key, run.scheduled_at.timestamp(), os.getpid(), flush=True)

@asynccontextmanager
async def lifespan(app):
    jobs = BackgroundJobs(settings=BackgroundJobsSettings(claims={"url": "sqlite:///claims.db"}, env_file=None))
    jobs.add_background_job(note, key="often", cron="* * * * * *")
    jobs.add_background_job(note, key="start", cron="0 0 3 1 1 *", run_immediately=True)
    async with jobs:
        print("warm", flush=True)
        yield

app = FastAPI(lifespan=lifespan)
"""


def test_four_workers_of_uvicorn_run_each_occurrence_once(tmp_path: Path) -> None:
    """On one machine a file is enough for them; one of them makes the immediate run."""
    (tmp_path / "shop_app.py").write_text(UVICORN, encoding="utf-8")
    command = [sys.executable, "-m", "uvicorn", "shop_app:app", "--port", "0", "--workers", "4"]
    output = tmp_path / "output.txt"

    def runs_of(key: str) -> list[str]:
        lines = [line.split() for line in output.read_text().splitlines()]
        return [line[2] for line in lines if line[:2] == ["run", key]]

    with output.open("w") as file, subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=file) as server:
        try:
            until(lambda: output.read_text().count("warm\n") == 4)
            before = len(runs_of("often"))
            until(lambda: len(runs_of("often")) >= before + 4)
        finally:
            server.terminate()
            server.wait(LIMIT)
    assert len(runs_of("often")) == len({*runs_of("often")})
    assert len(runs_of("start")) == 1
