"""The fleet from the command line, and what tells a user of several processes, or of a task queue, how to go on."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bgjobs import BackgroundJobsSettings, InvalidJobError
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
    task = celery.Celery("shop", broker="memory://").task(nothing)
    with pytest.raises(InvalidJobError, match=r"give its method \.delay,"):
        cold().add_background_job(task, cron=NIGHTLY)


def test_a_real_task_of_taskiq() -> None:
    """So it is with a real one, where taskiq is installed."""
    taskiq = pytest.importorskip("taskiq")
    with pytest.raises(InvalidJobError, match=r"give its method \.kiq,"):
        cold().add_background_job(taskiq.InMemoryBroker().task(nothing), cron=NIGHTLY)


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
def served(folder: Path, *options: str) -> Generator[Path]:
    """An application under uvicorn; what it prints and logs."""
    (folder / "shop_app.py").write_text(APP, encoding="utf-8")
    output = folder / "output.txt"
    command = [sys.executable, "-m", "uvicorn", "shop_app:app", "--port", "0", "--lifespan", "on", *options]
    with output.open("w") as file, subprocess.Popen(command, cwd=folder, stdout=file, stderr=file) as server:
        try:
            yield output
        finally:
            server.terminate()
            server.wait(LIMIT)


def warnings(records: Records) -> list[str]:
    """What was warned of, of several workers."""
    return [text for text in records.texts("WARNING") if SEVERAL in text]


def test_each_of_two_workers_warns(tmp_path: Path) -> None:
    """Both workers of a real uvicorn say at warm-up that each job runs in each."""
    with served(tmp_path, "--workers", "2") as output:
        until(lambda: output.read_text().count("warm\n") == 2)
        assert output.read_text().count(f"this is one of several workers of uvicorn, {SEVERAL}") == 2


@pytest.mark.parametrize("options", [(), ("--reload",)], ids=["plain", "reload"])
def test_a_single_worker_does_not_warn(tmp_path: Path, options: tuple[str, ...]) -> None:
    """One worker is alone, also the child of a process that reloads it."""
    with served(tmp_path, *options) as output:
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
    assert "`bgjobs run`" in warning


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
