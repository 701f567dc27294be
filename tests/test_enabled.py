"""A process whose settings say ``enabled = false``: it schedules nothing, and says so."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

from bgjobs import BackgroundJobs, BackgroundJobsSettings, Health, LifecycleError
from bgjobs.__main__ import main
from bgjobs._logging import unconfigure_logging  # undoes a set-up that lasts for the process
from bgjobs.testing import run_job
from stage import CLASSES, KINDS, LIMIT, NIGHTLY, PEEKING, Peeking, Records, cold, fail, nothing, stored

SAID = (
    "the jobs are switched off in this process by enabled = false in its settings (BGJOBS__ENABLED); "
    "nothing is scheduled"
)


def off(scheduler: Any = None, **settings: Any) -> BackgroundJobs:
    """Jobs that are switched off, one of them immediate."""
    jobs = cold(scheduler, enabled=False, **settings)
    return jobs.add_background_job(fail, key="k", cron="* * * * * *", run_immediately=True)


def test_warm_up_says_so_and_schedules_nothing(records: Records) -> None:
    """One record; no scheduler is made, no thread is started, and the close has nothing to do."""
    Peeking.scheduler, threads = None, threading.active_count()
    with off(**PEEKING) as jobs:
        assert (jobs.is_warm, threading.active_count(), Peeking.scheduler) == (False, threads, None)
    assert records.texts() == [SAID]


async def test_in_an_event_loop(records: Records) -> None:
    """So it is with `async with` and with `lifespan`, again and again."""
    jobs = off()
    async with jobs:
        assert not jobs.is_warm
    async with jobs.lifespan():
        assert not jobs.is_warm
    assert records.texts() == [SAID, SAID]


@pytest.mark.parametrize("kind", KINDS)
def test_a_variable_is_enough(kind: str, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """``BGJOBS__ENABLED=false``, whatever scheduler the other settings ask for; `run` returns at once."""
    monkeypatch.setenv("BGJOBS__ENABLED", "false")
    monkeypatch.setenv("BGJOBS__SCHEDULER", kind)
    jobs = BackgroundJobs(settings=BackgroundJobsSettings(env_file=None)).add_background_job(nothing, cron=NIGHTLY)
    thread = threading.Thread(target=jobs.run, daemon=True)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert records.texts() == [SAID]


def test_what_can_be_asked(tmp_path: Path) -> None:
    """Health is ok, since nothing is wanted, and no next run is shown; the claim store is not even looked at."""
    settings = BackgroundJobsSettings(env_file=None, claims={"url": f"sqlite:///{tmp_path}/claims.db"})
    with off(claims=settings.claims) as jobs:
        assert jobs.health() == Health(True, ())
        assert jobs.status()[0].next_run_time is None
        jobs.pause("k")
        assert jobs.status()[0].paused
    assert jobs.health()
    assert not list(tmp_path.iterdir())


def test_an_extra_run_is_refused() -> None:
    """The error names the setting."""
    with off() as jobs, pytest.raises(LifecycleError, match=r"scheduler that is running; .* \(BGJOBS__ENABLED\)$"):
        jobs.run_now("k")


@pytest.mark.parametrize("kind", KINDS)
def test_a_given_scheduler_is_left_alone(kind: str, records: Records) -> None:
    """It gets no job and is not started; its owner's start is no reason for a warning."""
    scheduler = CLASSES[kind](timezone="UTC")
    off(scheduler).warm_up().close()
    assert not scheduler.running
    assert not scheduler.get_jobs()
    assert records.texts("WARNING") == []


def test_the_start_of_a_given_scheduler_is_no_mistake(records: Records) -> None:
    """Nobody has forgotten a warm-up."""
    scheduler = BackgroundScheduler(timezone="UTC")
    off(scheduler)
    scheduler.start()
    scheduler.shutdown()
    assert records.texts("WARNING") == []


def test_stored_rows_stay_as_they_are(tmp_path: Path) -> None:
    """Rows that a warm-up would remove or replace wait for a process that runs jobs."""

    def rows() -> list[tuple[Any, ...]]:
        store = stored(tmp_path)
        store.start(BackgroundScheduler(timezone="UTC"), "default")
        try:
            return [(job.id, str(job.trigger), job.next_run_time) for job in store.get_all_jobs()]
        finally:
            store.shutdown()

    def jobs(**settings: Any) -> BackgroundJobs:
        return cold(BackgroundScheduler(timezone="UTC", jobstores={"default": stored(tmp_path)}), **settings)

    with jobs().add_background_job(nothing, key="old", cron=NIGHTLY).add_background_job(nothing, cron=NIGHTLY):
        pass
    before = rows()
    assert len(before) == 2
    with jobs(enabled=False).add_background_job(nothing, cron="@hourly"):
        pass
    assert rows() == before


def test_several_workers_are_no_reason_for_a_warning(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """The warning asks for this very setting."""
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    with off():
        pass
    assert records.texts("WARNING") == []


def test_the_test_kit_works() -> None:
    """Tests run single jobs in a process that schedules none."""
    assert run_job(off().add_background_job(nothing, cron=NIGHTLY), "nothing").outcome == "succeeded"


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`bgjobs run` says so and ends with status 0; `--once` is another question."""
    file = tmp_path / "shop.toml"
    file.write_text('enabled = false\n[jobs.work]\njob = "stage:nothing"\ncron = "@daily"\n', encoding="utf-8")
    monkeypatch.setenv("BGJOBS__CONFIG_FILE", str(file))
    try:
        assert main(["run"]) == 0
        assert SAID in capsys.readouterr().err
        assert main(["run", "--once", "work"]) == 0
        assert "job 'work' succeeded" in capsys.readouterr().err
    finally:
        unconfigure_logging()
