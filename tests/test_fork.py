"""Forked children: their jobs are cold, and nothing of their parent's is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stage import LIMIT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")

#: What each script begins with. A forked child of it writes to the same output.
BEGIN = """
import asyncio, multiprocessing, os, signal, sys, threading, time, warnings
from concurrent.futures import ProcessPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from bgjobs import BackgroundJobs, BackgroundJobsSettings, LifecycleError

warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
fork = multiprocessing.get_context("fork")

def cold(scheduler=None, **settings):
    return BackgroundJobs(scheduler, settings=BackgroundJobsSettings.defaults().model_copy(update=settings))

def say(*words):
    print(*words, flush=True)

def child(body):
    "Run it in a forked child that ends as a script does, and return the seconds that it took."
    begun, pid = time.monotonic(), os.fork()
    if pid == 0:
        body()
        sys.exit()
    os.waitpid(pid, 0)
    return time.monotonic() - begun

def nothing():
    pass
"""


def script(tmp_path: Path, body: str) -> list[str]:
    """The lines that a script prints, the children's included."""
    path = tmp_path / "script.py"
    path.write_text(BEGIN + textwrap.dedent(body))
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=2 * LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def test_the_jobs_of_a_child_are_cold(tmp_path: Path) -> None:
    """It says so, and why; its parent's go on."""
    said = script(
        tmp_path,
        """
        def look():
            say(jobs.is_warm, bool(jobs.health()), *jobs.health().problems)
            say([row.key for row in jobs.status()])

        with cold().add_background_job(nothing, cron="0 0 3 * * *") as jobs:
            child(look)
            say(jobs.is_warm, bool(jobs.health()))
        """,
    )
    assert said == [
        "False False this process was forked from one in which the jobs are warm; here they are not",
        "['nothing']",
        "True True",
    ]


@pytest.mark.parametrize(
    "fork",
    ["child(nothing)", "child(jobs.close)", "child(lambda: asyncio.run(jobs.aclose()))"],
)
def test_the_end_of_a_child_closes_nothing(tmp_path: Path, fork: str) -> None:
    """However it ends, it takes no time, and the run in progress in the parent is not asked to end."""
    said = script(
        tmp_path,
        f"""
        begun = threading.Event()

        def patient(cancellation_token):
            begun.set()
            cancellation_token.wait()

        with cold().add_background_job(patient, cron="0 0 3 * * *", run_immediately=True) as jobs:
            begun.wait()
            seconds = {fork}
            say(seconds < 10, jobs.status()[0].running)
        """,
    )
    assert said == ["True 1"]


@pytest.mark.parametrize(
    "work",
    [
        "with ProcessPoolExecutor(1, mp_context=fork) as pool: pool.submit(os.getpid).result()",
        "process = fork.Process(target=os.getpid); process.start(); process.join()",
        "os.waitpid(os.fork() or os._exit(0), 0)",
    ],
)
def test_a_job_may_fork(tmp_path: Path, work: str) -> None:
    """The children of its process pool end at once, and it goes on."""
    said = script(
        tmp_path,
        f"""
        done = threading.Event()

        def job():
            begun = time.monotonic()
            {work}
            say(time.monotonic() - begun < 10)
            done.set()

        with cold().add_background_job(job, cron="0 0 3 * * *", run_immediately=True) as jobs:
            done.wait()
        say(jobs.status()[0].outcomes["succeeded"])
        """,
    )
    assert said == ["True", "1"]


def test_a_child_can_warm_up_for_itself(tmp_path: Path) -> None:
    """With a scheduler that bgjobs makes, its jobs run in it as well; their runs have ids of their own."""
    said = script(
        tmp_path,
        """
        from bgjobs import current_run
        ran = threading.Event()

        def job():
            say(os.getpid() == parent, current_run().run_id)
            ran.set()

        def again():
            ran.clear()
            with jobs:
                ran.wait()

        parent = os.getpid()
        jobs = cold().add_background_job(job, cron="0 0 3 * * *", run_immediately=True)
        with jobs:
            ran.wait()
            child(again)
            ran.clear()
            jobs.run_now("job")
            ran.wait()
        """,
    )
    assert [line.split()[0] for line in said] == ["True", "False", "True"]
    assert len({line.split()[1] for line in said}) == 3


@pytest.mark.parametrize("start", ["jobs.warm_up()", "scheduler.start()"])
def test_a_scheduler_that_was_started_before_the_fork_is_refused(tmp_path: Path, start: str) -> None:
    """It says that it runs, but its thread is in the parent; the error says what to do."""
    said = script(
        tmp_path,
        f"""
        def again():
            try:
                jobs.warm_up()
            except LifecycleError as error:
                say(error)

        scheduler = BackgroundScheduler(timezone="UTC")
        jobs = cold(scheduler)
        {start}
        child(again)
        """,
    )
    assert said == [
        "the scheduler was started in the process that this one was forked from, and its thread or event loop is "
        "there: give BackgroundJobs a new scheduler in this process"
    ]


def test_a_scheduler_that_was_not_started_before_the_fork_serves(tmp_path: Path) -> None:
    """As with servers that load the application before they fork their workers."""
    said = script(
        tmp_path,
        """
        ran = threading.Event()

        def work():
            with jobs:
                ran.wait()
            say("ran")

        jobs = cold(BackgroundScheduler(timezone="UTC"))
        jobs.add_background_job(ran.set, key="k", cron="0 0 3 * * *", run_immediately=True)
        child(work)
        """,
    )
    assert said == ["ran"]


def test_locks_that_another_thread_held_are_free_in_a_child(tmp_path: Path) -> None:
    """Fork while other threads start, end, warm up and close without a pause: no child hangs."""
    said = script(
        tmp_path,
        """
        def turn():
            while not over.is_set():
                other.warm_up().run_now("nothing")
                other.close()

        def again():
            for each in (other, jobs):
                with each:
                    each.run_now("nothing")
                each.status(), each.health()

        over = threading.Event()
        other = cold().add_background_job(nothing, cron="* * * * * *")
        with cold().add_background_job(nothing, cron="* * * * * *") as jobs:
            thread = threading.Thread(target=turn)
            thread.start()
            for n in range(30):
                child(again)
            over.set()
            thread.join()
        say("ended")
        """,
    )
    assert said == ["ended"]


def test_a_connection_of_the_parent_survives(tmp_path: Path, postgresql: str) -> None:
    """The normal exit of a child ends no session of the parent's job store on its server."""
    said = script(
        tmp_path,
        f"""
        from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
        from sqlalchemy import text

        def session():
            with store.engine.connect() as connection:
                return connection.execute(text("SELECT pg_backend_pid()")).scalar()

        store = SQLAlchemyJobStore(url={postgresql!r}, engine_options={{"pool_size": 1, "max_overflow": 0}})
        scheduler = BackgroundScheduler(timezone="UTC", jobstores={{"default": store}})
        with cold(scheduler).add_background_job(nothing, key="k", cron="0 0 3 * * *"):
            scheduler.pause()
            scheduler.get_jobs(jobstore="none")  # its pass over the due jobs has ended
            before = session()
            child(nothing)
            say(session() == before, [job.name for job in store.get_all_jobs()])
        """,
    )
    assert said == ["True ['k']"]
