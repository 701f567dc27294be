"""The fleet from the command line, and what tells a user of several processes, or of a task queue, how to go on."""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bgjobs import BackgroundJobs, BackgroundJobsSettings, CancellationToken, InvalidJobError
from bgjobs.__main__ import main
from bgjobs._claims import Answer, Ask, open_store  # users have `[claims] url` alone
from stage import CLASSES, KINDS, LIMIT, NIGHTLY, Records, cold, nothing, until


class Task:
    """A task object as queues make it: it can be called, and it has methods that enqueue it."""

    def __init__(self, *methods: str) -> None:
        vars(self).update(dict.fromkeys(methods, nothing))

    def __call__(self) -> None:
        """Do the work here and now."""


TASKS = [
    pytest.param("delay", "apply_async", id="celery"),
    pytest.param("kiq", "kicker", id="taskiq"),
    pytest.param("send", "send_with_options", id="dramatiq"),
]


@pytest.mark.parametrize(("method", "other"), TASKS)
def test_a_task_is_no_job_but_its_method_is(method: str, other: str) -> None:
    """The error for a task, or a partial of one, names the method that enqueues it, which is a job."""
    task: Any = Task(method, other)
    for given in (task, functools.partial(task)):
        with pytest.raises(InvalidJobError, match=rf"is no job; give its method \.{method}, which enqueues it, and a"):
            cold().add_background_job(given, cron=NIGHTLY, key="enqueue")
    assert cold().add_background_job(getattr(task, method), cron=NIGHTLY, key="enqueue").status()


def test_a_real_task_of_celery() -> None:
    """So it is with a real one, where Celery is installed."""
    celery = pytest.importorskip("celery")

    def report() -> None:
        """Not a shared function, which a library may change."""

    task = celery.Celery("shop", broker="memory://").task(report)
    with pytest.raises(InvalidJobError, match=r"give its method \.delay,"):
        cold().add_background_job(task, cron=NIGHTLY)


def test_a_real_task_of_taskiq() -> None:
    """So it is with a real one, where taskiq is installed."""
    taskiq = pytest.importorskip("taskiq")

    def report() -> None:
        """Not a shared function, which a library may change."""

    with pytest.raises(InvalidJobError, match=r"give its method \.kiq,"):
        cold().add_background_job(taskiq.InMemoryBroker().task(report), cron=NIGHTLY)


# -- several workers without a claim store -----------------------------------------------------------------------------

APP = """
from contextlib import asynccontextmanager
from bgjobs import BackgroundJobs

def work(): ...

@asynccontextmanager
async def lifespan(app):
    async with BackgroundJobs().add_background_job(work, cron="0 0 3 * * *"):
        print("warm", flush=True)
        yield {}

from fastapi import FastAPI
app = FastAPI(lifespan=lifespan)
"""
SEVERAL = "and there is no claim store: each worker runs every job. Set claims.url"


@contextmanager
def served(folder: Path, *options: str, by: str = "uvicorn") -> Generator[Path]:
    """An application under a web server; what it prints and logs."""
    (folder / "shop_app.py").write_text(APP, encoding="utf-8")
    output = folder / "output.txt"
    where = ["--port", "0", "--lifespan", "on"] if by == "uvicorn" else ["--bind", "127.0.0.1:0"]
    command = [sys.executable, "-m", by, "shop_app:app", *where, *options]
    with output.open("w") as file, subprocess.Popen(command, cwd=folder, stdout=file, stderr=file) as server:
        try:
            yield output
        finally:
            server.terminate()
            server.wait(LIMIT)


def warnings(records: Records) -> list[str]:
    """What was warned of, of several workers."""
    return [text for text in records.texts("WARNING") if SEVERAL in text]


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_each_of_two_workers_warns(tmp_path: Path, server: str) -> None:
    """Both workers of a real server say at warm-up that each job runs in each."""
    with served(tmp_path, "--workers", "2", by=server) as output:
        until(lambda: output.read_text().count("warm\n") == 2)
        assert output.read_text().count(f"this is one of several workers of {server}, {SEVERAL}") == 2


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
@pytest.mark.parametrize("options", [(), ("--reload",)], ids=["plain", "reload"])
def test_a_single_worker_does_not_warn(tmp_path: Path, options: tuple[str, ...], server: str) -> None:
    """One worker is alone, also the child of a process that reloads it."""
    with served(tmp_path, *options, by=server) as output:
        until(lambda: output.read_text().count("warm\n") == 1)
        assert SEVERAL not in output.read_text()


def warmed_up_once() -> None:
    with cold().add_background_job(nothing, cron=NIGHTLY):
        pass


#: What stands for the arbiter of gunicorn: its workers have its method on their stacks, and it knows their number.
ARBITER = """
class Arbiter:
    def __init__(self, number):
        self.num_workers = number

    def preload(self, work):
        work()

    def spawn_worker(self, work):
        work()
"""


@pytest.mark.parametrize(("number", "expected"), [(1, 0), (2, 1)])
def test_workers_of_gunicorn_warn(number: int, expected: int, records: Records) -> None:
    """Whatever a worker of gunicorn calls warns where there are several; its arbiter runs no job twice."""
    module: dict[str, Any] = {"__name__": "gunicorn.arbiter"}
    exec(ARBITER, module)
    module["Arbiter"](number).preload(warmed_up_once)
    module["Arbiter"](number).spawn_worker(warmed_up_once)
    assert [text.startswith("this is one of several workers of gunicorn, ") for text in warnings(records)] == (
        [True] * expected
    )


@pytest.mark.parametrize("number", ["2", "16"])
def test_the_number_of_workers_in_the_environment_warns(
    number: str, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WEB_CONCURRENCY tells of several workers; the warning names both remedies."""
    monkeypatch.setenv("WEB_CONCURRENCY", number)
    warmed_up_once()
    (warning,) = warnings(records)
    assert warning.startswith(f"WEB_CONCURRENCY is {number}, ")
    assert "see docs/replicas.md" in warning
    assert "or BGJOBS__ENABLED=false in all processes but one" in warning


@pytest.mark.parametrize("number", ["", "1", "01", "0", "many"])
def test_one_worker_in_the_environment_does_not_warn(
    number: str, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker, or what is no number, tells nothing."""
    monkeypatch.setenv("WEB_CONCURRENCY", number)
    warmed_up_once()
    assert not warnings(records)


def test_workers_with_a_claim_store_do_not_warn(
    records: Records, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They share their jobs."""
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    settings = BackgroundJobsSettings(env_file=None, claims={"url": f"sqlite:///{tmp_path}/claims.db"})
    with cold(claims=settings.claims).add_background_job(nothing, cron=NIGHTLY):
        pass
    assert not warnings(records)


@pytest.mark.parametrize("scheduler", KINDS)
def test_a_process_for_jobs_alone_does_not_warn(
    scheduler: str, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform may set WEB_CONCURRENCY for all processes, the one of `run()` included."""
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    jobs = cold(CLASSES[scheduler](timezone="UTC")).add_background_job(nothing, cron=NIGHTLY)
    thread = threading.Thread(target=jobs.run)
    thread.start()
    until(lambda: jobs.is_warm)
    jobs.close()
    thread.join(LIMIT)
    assert not warnings(records)


# -- the command line --------------------------------------------------------------------------------------------------

HERE = f"{socket.gethostname()}:{os.getpid()}"


@pytest.fixture(name="url", params=["postgresql", "redis", "sqlite"])
def _url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each kind of store in turn."""
    return f"sqlite:///{tmp_path}/claims.db" if request.param == "sqlite" else request.getfixturevalue(request.param)


class Shell:
    """The command line of an operator, whose settings file names a store, and an application that nobody else has."""

    def __init__(self, folder: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self.application = secrets.token_hex(4)
        self.file = folder / "fleet.json"
        self._capsys = capsys
        self.write(url)

    def write(self, url: str) -> None:
        """The settings."""
        found = {"application": self.application, "claims": {"url": url}}
        self.file.write_text(json.dumps(found), encoding="utf-8")

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """The status of a command, what it prints, and its errors."""
        self._capsys.readouterr()
        return (main([*arguments, "--config", str(self.file)]), *self._capsys.readouterr())

    def printed(self, *arguments: str) -> str:
        """What a command prints that succeeds."""
        status, out, err = self(*arguments)
        assert (status, err) == (0, "")
        return out

    def jobs(self) -> dict[str, dict[str, Any]]:
        """The jobs, for machines."""
        return {job["key"]: job for job in json.loads(self.printed("status", "--json"))["jobs"]}

    def replica(self) -> BackgroundJobs:
        """A process of the application, in this one."""
        return BackgroundJobs(settings=BackgroundJobsSettings(config_file=self.file, env_file=None))

    def claim(self, key: str, **more: Any) -> Answer:
        """Claim an extra run for a process elsewhere."""
        ask = Ask(f"{self.application}/{key}", "extra", 0, "a", "", "elsewhere:1", NIGHTLY, 60_000, 5000, 600_000)
        with closing(open_store(self.url)) as store:
            return store.claim(ask._replace(**more))

    def release(self, key: str, outcome: str, error: str | None = None) -> None:
        """End that run."""
        with closing(open_store(self.url)) as store:
            store.release(f"{self.application}/{key}", "a", 0, outcome, error)


@pytest.fixture(name="shell")
def _shell(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("BGJOBS__CONFIG_FILE", "")  # so that what a command sets is taken back
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, url, capsys)


@pytest.fixture(name="sqlite_shell")
def _sqlite_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("BGJOBS__CONFIG_FILE", "")
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, f"sqlite:///{tmp_path}/claims.db", capsys)


def test_a_run_is_shown_while_it_lasts_and_after_it(shell: Shell) -> None:
    """Who runs a job, and since when; then how it ended, and when, but nobody who runs it."""
    begun = threading.Event()

    def work(cancellation_token: CancellationToken) -> None:
        begun.set()
        cancellation_token.wait(LIMIT)
        raise ValueError("no luck")

    with shell.replica().add_background_job(work, cron=NIGHTLY, key="nightly-work") as jobs:
        jobs.run_now("nightly-work")
        assert begun.wait(LIMIT)
        during = shell.jobs()["nightly-work"]
    after = shell.jobs()["nightly-work"]
    assert (during["holder"], during["outcome"], during["ended"], during["paused"]) == (HERE, None, None, False)
    assert "0 0 3 * * *" in during["schedule"]
    assert (after["holder"], after["since"], after["outcome"]) == (None, None, "failed")
    assert "no luck" in after["error"]
    since, ended = (datetime.fromisoformat(moment) for moment in (during["since"], after["ended"]))
    assert since.utcoffset() == ended.utcoffset() == timedelta(0)
    assert since <= ended


def test_the_last_occurrence_is_shown(shell: Shell) -> None:
    """It is the nominal fire time, with its offset."""
    now = shell.claim("clock").now
    fire = now - now % 60_000
    shell.claim("work", kind="occurrence", fire=fire)
    shown = datetime.fromisoformat(shell.jobs()["work"]["last_occurrence"])
    assert shown.timestamp() * 1000 == fire
    assert shell.jobs()["clock"]["last_occurrence"] is None


def test_a_run_whose_process_died_is_shown(shell: Shell) -> None:
    """At once when its lease is over, with the time of that; and after other processes have taken over, and ended."""
    over = datetime.fromtimestamp(shell.claim("work", lease=1).now / 1000, UTC) + timedelta(milliseconds=1)
    lost = {"lost": "elsewhere:1", "lost_at": over.isoformat(timespec="milliseconds")}
    until(lambda: shell.jobs()["work"]["lost"] == "elsewhere:1")
    job = shell.jobs()["work"]
    assert {**job, "holder": None, **lost} == job
    for holder in "elsewhere:2", "elsewhere:3":
        shell.claim("work", holder=holder, token=holder, done="" if holder == "elsewhere:2" else "elsewhere:2")
        job = shell.jobs()["work"]
        assert {**job, "holder": holder, **lost} == job
    assert f"elsewhere:1  {over.isoformat(timespec='seconds')}" in shell.printed("status")


def test_people_get_a_table(shell: Shell) -> None:
    """A line a job, by key; what is unknown is a dash, and nothing in it reaches the terminal as a command."""
    shell.claim("second")
    shell.claim("first")
    shell.release("first", "failed", "ValueError: \x1b[2Jgone")
    shell.printed("pause", "second")
    titles, first, second = shell.printed("status").splitlines()
    columns = [
        "JOB",
        "SCHEDULE",
        "LAST OCCURRENCE",
        "RUNS ON",
        "SINCE",
        "OUTCOME",
        "ENDED",
        "PAUSED",
        "LOST ON",
        "LOST AT",
        "ERROR",
    ]
    assert re.split("  +", titles) == columns
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
    gone = re.escape("ValueError: \\u001b[2Jgone")
    assert re.fullmatch(rf"first +{re.escape(NIGHTLY)} +- +- +- +failed +{time} +- +- +- +{gone}", first)
    assert re.fullmatch(rf"second +{re.escape(NIGHTLY)} +- +elsewhere:1 +{time} +- +- +yes +- +- +-", second)


def test_other_applications_are_not_shown(shell: Shell) -> None:
    """Neither one that begins with the same letters; an application without jobs has the titles alone."""
    with closing(open_store(shell.url)) as store:
        store.pause(f"{shell.application}-other/work", paused=True)
    assert shell.jobs() == {}
    assert shell.printed("status").startswith("JOB  SCHEDULE")


def test_pause_and_resume_act_on_the_replicas(shell: Shell) -> None:
    """In any spelling; the answer has the key as it is, and a replica refuses the run until the resume."""
    now = shell.claim("NightlyWork").now
    shell.release("NightlyWork", "succeeded")
    assert shell.printed("pause", "nightly-work") == "job 'NightlyWork' is paused in all replicas\n"
    assert shell.jobs()["NightlyWork"]["paused"] is True
    assert shell.claim("NightlyWork", kind="occurrence", fire=now).reason == "paused"
    assert shell.printed("resume", "nightly_work") == "job 'NightlyWork' is resumed in all replicas\n"
    assert shell.jobs()["NightlyWork"]["paused"] is False
    assert shell.claim("NightlyWork", kind="occurrence", fire=now + 1).reason is None


def test_a_key_as_it_is_spelled_comes_first(sqlite_shell: Shell) -> None:
    """A row of an older spelling may have stayed in the store."""
    sqlite_shell.claim("nightly_work")
    sqlite_shell.claim("nightly-work")
    sqlite_shell.printed("pause", "nightly-work")
    sqlite_shell.printed("pause", "nightly_work")
    assert [job["paused"] for job in sqlite_shell.jobs().values()] == [True, True]


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_an_unknown_key_is_refused(command: str, shell: Shell) -> None:
    """With the nearest of the store; nothing is written."""
    shell.claim("nightly-work")
    status, out, err = shell(command, "nightly-wrok")
    assert (status, out) == (2, "")
    assert err == (
        f"bgjobs: error: the claim store has no job 'nightly-wrok' of the application '{shell.application}'; did you "
        "mean 'nightly-work'?\n"
    )
    assert [*shell.jobs()] == ["nightly-work"]


@pytest.mark.parametrize("command", [["pause", "work"], ["resume", "work"]], ids=lambda words: words[0])
def test_settings_without_a_claim_store_are_an_error(command: list[str], sqlite_shell: Shell) -> None:
    """It says what to set."""
    sqlite_shell.file.write_text("{}", encoding="utf-8")
    status, out, err = sqlite_shell(*command)
    assert (status, out) == (2, "")
    assert err == (
        "bgjobs: error: the settings name no claim store; give claims.url in a settings file, or BGJOBS__CLAIMS__URL, "
        "or with --app an application whose code gives it\n"
    )


@pytest.mark.parametrize("kind", ["postgresql", "redis"])
def test_a_store_that_does_not_answer_is_an_error(kind: str, sqlite_shell: Shell) -> None:
    """In one line, without the password; for machines in JSON, too."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    sqlite_shell.write(f"{kind}://eve:hunter-2@127.0.0.1:{port}/0")
    status, out, err = sqlite_shell("status", "--json")
    assert status == 2
    assert err.startswith("bgjobs: error: the claim store does not answer: ")
    assert len(err.splitlines()) == len(json.loads(out)["mistakes"]) == 1
    assert "hunter-2" not in out + err


def test_a_store_that_says_nothing_is_an_error(sqlite_shell: Shell, waits: Any) -> None:
    """Nobody waits longer than a run does."""
    waits.claim = 0.2
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sqlite_shell.write(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        status, _, err = sqlite_shell("status")
    assert (status, err) == (2, "bgjobs: error: the claim store does not answer within 0.2 s\n")


def test_the_settings_of_an_application_are_its_own(
    sqlite_shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --app they may be made in code; a setting `app` alone imports nothing."""
    sqlite_shell.claim("work")
    path = tmp_path / "fleet_app.py"
    settings = f"application={sqlite_shell.application!r}, claims={{'url': {sqlite_shell.url!r}}}"
    path.write_text(f"from bgjobs import *\njobs = BackgroundJobs(settings=BackgroundJobsSettings({settings}))\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sqlite_shell.file.write_text('{"app": "fleet_app:jobs"}', encoding="utf-8")
    assert sqlite_shell("status")[0] == 2
    assert "fleet_app" not in sys.modules
    assert "\nwork " in sqlite_shell.printed("status", "--app", "fleet_app:jobs")
    del sys.modules["fleet_app"]
