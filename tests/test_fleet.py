"""The fleet from the command line, and what tells a user of several processes, or of a task queue, how to go on."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from bgjobs import InvalidJobError
from stage import NIGHTLY, cold, nothing


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
