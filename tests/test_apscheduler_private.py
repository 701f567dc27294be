"""What bgjobs uses of APScheduler beyond its public API: a release that changes it fails here, by name."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any

import apscheduler.events
import pytest
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.executors.base import BaseExecutor, run_coroutine_job, run_job
from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.blocking import BlockingScheduler

from bgjobs import CronExpression
from stage import nothing


async def used() -> dict[str, Any]:
    """The objects on which bgjobs uses something private: those of a scheduler that is running."""
    scheduler = AsyncIOScheduler(timezone="UTC", executors={"threads": ThreadPoolExecutor(3)})
    job = scheduler.add_job(nothing, CronExpression("0 0 3 * * *").trigger("UTC"))
    scheduler.start()
    try:
        executor, threads = scheduler._executors["default"], scheduler._executors["threads"]
        return {
            "scheduler": scheduler,
            "asyncio executor": executor,
            "thread pool": threads,
            "pool": threads._pool,
            "job": job,
            "background": BackgroundScheduler(),
            "blocking": BlockingScheduler(),
        }
    finally:
        scheduler.shutdown()


@pytest.mark.parametrize(
    ("where", "name", "kind"),
    [
        ("scheduler", "_executors", dict),
        ("scheduler", "_jobstores", dict),
        ("scheduler", "_eventloop", asyncio.AbstractEventLoop),
        ("scheduler", "_dispatch_event", object),
        ("scheduler", "_jobstores_lock", type(threading.RLock())),
        ("scheduler", "_process_jobs", object),
        ("background", "_process_jobs", object),
        ("blocking", "_process_jobs", object),
        ("asyncio executor", "_eventloop", asyncio.AbstractEventLoop),
        ("asyncio executor", "_pending_futures", set),
        ("asyncio executor", "_do_submit_job", object),
        ("asyncio executor", "_run_job_success", object),
        ("asyncio executor", "_logger", object),
        ("asyncio executor", "_scheduler", AsyncIOScheduler),
        ("thread pool", "_pool", object),
        ("thread pool", "_do_submit_job", object),
        ("thread pool", "_run_job_success", object),
        ("thread pool", "_logger", object),
        ("thread pool", "_scheduler", AsyncIOScheduler),
        ("pool", "_shutdown", bool),
        ("pool", "_max_workers", int),
        ("job", "_jobstore_alias", str),
    ],
)
async def test_it_is_there(where: str, name: str, kind: type[Any]) -> None:
    """The attribute is on the object that bgjobs asks for it, and is what it takes it for."""
    assert isinstance(getattr((await used())[where], name), kind)


class TestHowItIsUsed:
    def test_a_job_is_submitted_and_reported_by_these_methods(self) -> None:
        """Their arguments are those that bgjobs takes and gives."""
        for executor in (BaseExecutor, AsyncIOExecutor, ThreadPoolExecutor, ProcessPoolExecutor):
            assert list(inspect.signature(executor._do_submit_job).parameters) == ["self", "job", "run_times"]
        assert list(inspect.signature(BaseExecutor._run_job_success).parameters) == ["self", "job_id", "events"]
        for function in (run_job, run_coroutine_job):
            names = ["job", "jobstore_alias", "run_times", "logger_name"]
            assert list(inspect.signature(function).parameters) == names

    def test_the_submission_is_looked_up_on_the_executor(self) -> None:
        """That is how something else can stand there: on the object, not on the class."""
        assert "self._do_submit_job(job, run_times)" in inspect.getsource(BaseExecutor.submit_job)

    def test_a_pool_knows_that_it_was_shut_down(self) -> None:
        """That is how a scheduler that is started again gets fresh pools, as large as before."""
        executor = ThreadPoolExecutor(3)
        assert (executor._pool._shutdown, executor._pool._max_workers) == (False, 3)
        executor.shutdown()
        assert executor._pool._shutdown

    async def test_an_asyncio_scheduler_and_its_executor_know_their_loop(self) -> None:
        """It is the loop that the scheduler was started in."""
        objects, loop = await used(), asyncio.get_running_loop()
        assert objects["scheduler"]._eventloop is loop
        assert objects["asyncio executor"]._eventloop is loop

    @pytest.mark.parametrize("name", ["_process_jobs", "add_job", "remove_job", "get_jobs"])
    def test_one_lock_is_held_for_each_pass_and_each_change(self, name: str) -> None:
        """So that who holds it makes a change of several steps, and who has had it knows that no pass is going."""
        assert "with self._jobstores_lock" in inspect.getsource(getattr(BackgroundScheduler, name))

    @pytest.mark.parametrize(
        ("kind", "name"),
        [(AsyncIOScheduler, "wakeup"), (BackgroundScheduler, "_main_loop")],
        ids=["asyncio", "threads"],
    )
    def test_a_pass_is_looked_up_on_the_scheduler(self, kind: type[Any], name: str) -> None:
        """That is how something else can stand there: on the object, not on the class."""
        assert "wait_seconds = self._process_jobs()" in inspect.getsource(getattr(kind, name))

    def test_no_event_is_unknown(self) -> None:
        """A new kind of event in APScheduler fails here, so that somebody decides whether bgjobs should listen."""
        known = {
            "EVENT_SCHEDULER_STARTED", "EVENT_SCHEDULER_START", "EVENT_SCHEDULER_SHUTDOWN", "EVENT_SCHEDULER_PAUSED",
            "EVENT_SCHEDULER_RESUMED", "EVENT_EXECUTOR_ADDED", "EVENT_EXECUTOR_REMOVED", "EVENT_JOBSTORE_ADDED",
            "EVENT_JOBSTORE_REMOVED", "EVENT_ALL_JOBS_REMOVED", "EVENT_JOB_ADDED", "EVENT_JOB_REMOVED",
            "EVENT_JOB_MODIFIED", "EVENT_JOB_EXECUTED", "EVENT_JOB_ERROR", "EVENT_JOB_MISSED", "EVENT_JOB_SUBMITTED",
            "EVENT_JOB_MAX_INSTANCES", "EVENT_ALL",
        }  # fmt: skip
        assert {name for name in vars(apscheduler.events) if name.startswith("EVENT_")} == known
