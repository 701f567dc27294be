"""Forked children: their jobs are cold, and nothing of their parent's is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts import said

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")


def test_the_jobs_of_a_child_are_cold(tmp_path: Path) -> None:
    """It says so, and why; its parent's go on."""
    lines = said(
        tmp_path,
        """
        def look():
            say(jobs.is_warm, bool(jobs.health()), *jobs.health().problems)
            say([row.key for row in jobs.status()])

        with cold().add_background_job(nothing, cron=NIGHTLY) as jobs:
            child(look)
            say(jobs.is_warm, bool(jobs.health()))
        """,
    )
    assert lines == [
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
    lines = said(
        tmp_path,
        f"""
        begun = threading.Event()

        def patient(cancellation_token):
            begun.set()
            cancellation_token.wait()

        with cold().add_background_job(patient, cron=NIGHTLY, run_immediately=True) as jobs:
            begun.wait()
            seconds = {fork}
            say(seconds < 10, jobs.status()[0].running)
        """,
    )
    assert lines == ["True 1"]


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
    lines = said(
        tmp_path,
        f"""
        done = threading.Event()

        def job():
            begun = time.monotonic()
            {work}
            say(time.monotonic() - begun < 10)
            done.set()

        with cold().add_background_job(job, cron=NIGHTLY, run_immediately=True) as jobs:
            done.wait()
        say(jobs.status()[0].outcomes["succeeded"])
        """,
    )
    assert lines == ["True", "1"]


def test_a_child_can_warm_up_for_itself(tmp_path: Path) -> None:
    """With a scheduler that bgjobs makes, its jobs run in it as well; their runs have ids of their own."""
    lines = said(
        tmp_path,
        """
        ran = threading.Event()

        def job():
            say(os.getpid() == parent, current_run().run_id)
            ran.set()

        def again():
            ran.clear()
            with jobs:
                ran.wait()

        parent = os.getpid()
        jobs = cold().add_background_job(job, cron=NIGHTLY, run_immediately=True)
        with jobs:
            ran.wait()
            child(again)
            ran.clear()
            jobs.run_now("job")
            ran.wait()
        """,
    )
    assert [line.split()[0] for line in lines] == ["True", "False", "True"]
    assert len({line.split()[1] for line in lines}) == 3


@pytest.mark.parametrize("start", ["jobs.warm_up()", "scheduler.start()"])
@pytest.mark.parametrize("facade", ["jobs", "cold(scheduler)"], ids=["same", "new"])
def test_a_scheduler_that_was_started_before_the_fork_is_refused(tmp_path: Path, start: str, facade: str) -> None:
    """It says that it runs, but its thread is in the parent; the error says what to do."""
    lines = said(
        tmp_path,
        f"""
        def again():
            try:
                {facade}.warm_up()
            except LifecycleError as error:
                say(error)

        scheduler = CLASSES["background"](timezone="UTC")
        jobs = cold(scheduler)
        {start}
        child(again)
        """,
    )
    assert lines == [
        "the scheduler was started in the process that this one was forked from, and its thread or event loop is "
        "there: give BackgroundJobs a new scheduler in this process"
    ]


def test_a_scheduler_that_was_not_started_before_the_fork_serves(tmp_path: Path) -> None:
    """As with servers that load the application before they fork their workers."""
    lines = said(
        tmp_path,
        """
        ran = threading.Event()

        def work():
            with jobs:
                ran.wait()
            say("ran")

        jobs = cold(CLASSES["background"](timezone="UTC"))
        jobs.add_background_job(ran.set, key="k", cron=NIGHTLY, run_immediately=True)
        child(work)
        """,
    )
    assert lines == ["ran"]


def test_locks_that_another_thread_held_are_free_in_a_child(tmp_path: Path) -> None:
    """Fork while other threads start, end, warm up and close without a pause: no child hangs."""
    lines = said(
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
            for n in range(10):
                child(again)
            over.set()
            thread.join()
        say("ended")
        """,
    )
    assert lines == ["ended"]


def test_a_connection_of_the_parent_survives(tmp_path: Path, postgresql: str) -> None:
    """The normal exit of a child ends no session of the parent's job store on its server."""
    lines = said(
        tmp_path,
        f"""
        from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
        from sqlalchemy import text

        def session():
            with store.engine.connect() as connection:
                return connection.execute(text("SELECT pg_backend_pid()")).scalar()

        store = SQLAlchemyJobStore(url={postgresql!r}, engine_options={{"pool_size": 1, "max_overflow": 0}})
        scheduler = CLASSES["background"](timezone="UTC", jobstores={{"default": store}})
        with cold(scheduler).add_background_job(nothing, key="k", cron=NIGHTLY):
            scheduler.pause()
            scheduler.get_jobs(jobstore="none")  # its pass over the due jobs has ended
            before = session()
            child(nothing)
            say(session() == before, [job.name for job in store.get_all_jobs()])
        """,
    )
    assert lines == ["True ['k']"]


@pytest.mark.parametrize("job", ["def", "async def"])
@pytest.mark.parametrize("kind", ["asyncio", "background", "blocking"])
def test_a_signal_to_a_child_is_none_to_its_parent(tmp_path: Path, job: str, kind: str) -> None:
    """A child that a job forks has the signal handlers from before `run`: SIGTERM ends it, and it alone."""
    lines = said(
        tmp_path,
        f"""
        {job} work(cancellation_token):
            process = fork.Process(target=time.sleep, args=(60,))
            process.start()
            process.terminate()
            process.join()
            say(-process.exitcode == signal.SIGTERM, cancellation_token.is_cancellation_requested)
            os.kill(os.getpid(), signal.SIGTERM)

        jobs = cold(CLASSES[{kind!r}]()).add_background_job(work, cron=NIGHTLY, run_immediately=True)
        jobs.run()
        say("ended")
        """,
    )
    assert lines == ["True False", "ended"]


def test_a_child_that_leaves_run_lets_its_parent_serve(tmp_path: Path) -> None:
    """Its own way out of `run`, and out of the event loop, touches nothing that the two share."""
    lines = said(
        tmp_path,
        """
        def fork_and_leave():
            if (pid := os.fork()) == 0:
                sys.exit()
            os.waitpid(pid, 0)

        async def work(cancellation_token):
            asyncio.get_running_loop().call_soon(fork_and_leave)
            await asyncio.sleep(0.01)
            say(cancellation_token.is_cancellation_requested)
            await asyncio.to_thread(nothing)
            os.kill(os.getpid(), signal.SIGTERM)
            await cancellation_token.wait_async()

        parent = os.getpid()
        try:
            cold(CLASSES["asyncio"]()).add_background_job(work, cron=NIGHTLY, run_immediately=True).run()
        finally:
            say("ended" if os.getpid() == parent else "left")
        """,
    )
    assert lines == ["left", "False", "ended"]
