"""The recipes of docs/replicas.md that hand the work to Celery and to taskiq, with real workers and a real broker."""

from __future__ import annotations

import asyncio
import importlib
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from redis import Redis

from bgjobs import current_run
from bgjobs.testing import run_job
from stage import NIGHTLY, cold

#: Seconds that a worker has to start and to do a task, by far.
PATIENCE = 60

CELERY = """
from celery import Celery
from redis import Redis

app = Celery({name!r}, broker={url!r})
app.conf.task_default_queue = {name!r}
app.conf.broker_connection_retry_on_startup = True

@app.task(name="report")
def report(kind):
    Redis.from_url({url!r}).rpush("done-" + {name!r}, kind)
"""

TASKIQ = """
from redis import Redis
from taskiq_redis import ListQueueBroker

broker = ListQueueBroker({url!r}, queue_name={name!r})

@broker.task(task_name="report")
async def report(kind: str) -> None:
    Redis.from_url({url!r}).rpush("done-" + {name!r}, kind)
"""


class Engine:
    """A module of tasks, which the test and a worker process import."""

    def __init__(self, redis: str, folder: Path, source: str) -> None:
        self.name = f"engine_{secrets.token_hex(4)}"
        self.folder = folder
        self._redis = redis
        (folder / f"{self.name}.py").write_text(source.format(url=redis, name=self.name), encoding="utf-8")

    def tasks(self) -> ModuleType:
        """The module, imported here."""
        return importlib.import_module(self.name)

    @contextmanager
    def worker(self, *arguments: str) -> Generator[Callable[[], str]]:
        """Run a worker process. Yields what waits for the kind of the next report that it has made."""
        log = self.folder / "log"
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        with log.open("w") as output, Redis.from_url(self._redis, decode_responses=True) as client:
            command = [sys.executable, "-m", *arguments]
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=output, stderr=output)

            def done() -> str:
                found = client.blpop([f"done-{self.name}"], timeout=PATIENCE)
                assert found, log.read_text()
                return str(found[1])

            try:
                yield done
            finally:
                process.terminate()
                try:
                    process.wait(PATIENCE)
                finally:
                    process.kill()
                for key in client.keys(f"*{self.name}*"):
                    client.delete(key)


@pytest.fixture(name="engine")
def _engine(redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Engine]:
    """Makes an engine out of the source of its module."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda source: Engine(redis, tmp_path, source)


def test_a_job_hands_its_work_to_celery(engine: Callable[[str], Engine]) -> None:
    """The method `delay` of a task is a job: a worker of Celery does the task."""
    celery = engine(CELERY)
    tasks = celery.tasks()
    jobs = cold()
    jobs.add_background_job(tasks.report.delay, cron=NIGHTLY, key="report", kwargs={"kind": "daily"})
    with celery.worker("celery", "-A", celery.name, "worker", "--pool=solo", "--loglevel=info") as done:
        result = run_job(jobs, "report")
        assert result.outcome == "succeeded", result
        assert done() == "daily"
    tasks.app.close()


def test_a_task_of_celery_can_know_its_occurrence(engine: Callable[[str], Engine]) -> None:
    """A job that calls `apply_async` passes its fire time on, and makes it the id of the task."""
    celery = engine(CELERY)
    tasks = celery.tasks()
    jobs = cold()

    def enqueue_report() -> str:
        at = current_run().scheduled_at.isoformat()
        return str(tasks.report.apply_async((at,), task_id=f"report@{at}", expires=3600).id)

    jobs.add_background_job(enqueue_report, cron=NIGHTLY, key="report")
    with celery.worker("celery", "-A", celery.name, "worker", "--pool=solo", "--loglevel=info") as done:
        result = run_job(jobs, "report")
        assert result.value == f"report@{done()}"
    tasks.app.close()


def test_a_job_hands_its_work_to_taskiq(engine: Callable[[str], Engine]) -> None:
    """The method `kiq` of a task is a job: a worker of taskiq does the task."""
    taskiq = engine(TASKIQ)
    tasks = taskiq.tasks()

    async def main() -> None:
        await tasks.broker.startup()
        jobs = cold()
        jobs.add_background_job(tasks.report.kiq, cron=NIGHTLY, key="report", kwargs={"kind": "daily"})
        async with jobs:
            jobs.run_now("report")
            assert await asyncio.to_thread(done) == "daily"
        await tasks.broker.shutdown()

    with taskiq.worker("taskiq", "worker", f"{taskiq.name}:broker", "--workers=1") as done:
        asyncio.run(main())
