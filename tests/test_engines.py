"""The recipes of docs/replicas.md that hand the work to Celery and to taskiq, with real workers and a real broker."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import pytest
from redis import Redis

from bgjobs.testing import run_job
from stage import until

PAGE = (Path(__file__).parent.parent / "docs" / "replicas.md").read_text(encoding="utf-8")
BROKER = '"redis://cache.example:6379/0"'
BEGIN = """from bgjobs import BackgroundJobs, BackgroundJobsSettings, current_run
jobs = BackgroundJobs(settings=BackgroundJobsSettings.defaults())
"""
CELERY = ("worker", "--pool=solo", "--loglevel=info")


class Engine:
    """A module with blocks of the page, which the test and a worker process import."""

    def __init__(self, redis: str, folder: Path, *words: str) -> None:
        self.name = f"engine_{secrets.token_hex(4)}"
        self._redis, self._folder = redis, folder
        blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        source = "\n".join(block for block in blocks if any(word in block for word in words))
        assert BROKER in source
        queue = "queue_name" if "taskiq" in source else "task_default_queue"
        source = source.replace(BROKER, f"{redis!r}, {queue}={self.name!r}")
        (folder / f"{self.name}.py").write_text(BEGIN + source, encoding="utf-8")
        self.module: ModuleType = importlib.import_module(self.name)

    @contextmanager
    def worker(self, *arguments: str) -> Generator[Callable[[str], object]]:
        """Run a worker process. Yields what waits until it has printed some words."""
        log = self._folder / "log"
        environment = {**os.environ, "PYTHONPATH": str(self._folder), "PYTHONUNBUFFERED": "1"}
        with log.open("w") as output:
            command = [sys.executable, "-m", *arguments]
            process = subprocess.Popen(command, cwd=self._folder, env=environment, stdout=output, stderr=output)
            try:
                yield lambda words: until(lambda: words in log.read_text())
            finally:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                process.kill()
                process.wait()
                print(log.read_text())
                with Redis.from_url(self._redis) as client:
                    client.delete(self.name, f"_kombu.binding.{self.name}")


@pytest.fixture(name="engine")
def _engine(redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    """Makes an engine out of the blocks with some words."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda *words: Engine(redis, tmp_path, *words)


def test_a_job_hands_its_work_to_celery(engine: Callable[..., Engine]) -> None:
    """The method `delay` of a task is a job: a worker of Celery does the task."""
    celery = engine("celery import")
    with celery.worker("celery", "-A", celery.name, *CELERY) as wait_for:
        assert run_job(celery.module.jobs, "report").outcome == "succeeded"
        wait_for("the daily report")
    celery.module.app.close()


def test_a_task_of_celery_can_know_its_occurrence(engine: Callable[..., Engine]) -> None:
    """A job that calls `apply_async` passes its fire time on, and makes it the id of the task."""
    celery = engine("celery import", "apply_async")
    with celery.worker("celery", "-A", celery.name, *CELERY) as wait_for:
        assert run_job(celery.module.jobs, "close-books").outcome == "succeeded"
        wait_for("[close-books@")
        wait_for("the books of 2")
    celery.module.app.close()


def test_a_job_hands_its_work_to_taskiq(engine: Callable[..., Engine]) -> None:
    """The method `kiq` of a task is a job: a worker of taskiq does the task."""
    taskiq = engine("taskiq_redis import")

    async def main() -> None:
        await taskiq.module.broker.startup()
        async with taskiq.module.jobs as jobs:
            jobs.run_now("invoices")
            await asyncio.to_thread(wait_for, "the daily invoices")
        await taskiq.module.broker.shutdown()

    with taskiq.worker("taskiq", "worker", f"{taskiq.name}:broker", "--workers=1") as wait_for:
        asyncio.run(main())
