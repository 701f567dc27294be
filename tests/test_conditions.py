"""`only_if`: a function that decides, before each scheduled run, whether it is made."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from bgjobs import BackgroundJobs, BackgroundJobsSettings, ConfigurationError, CurrentRun, InvalidJobError
from bgjobs.testing import run_job
from stage import LIMIT, NIGHTLY, Waiter, cold, counts, job_class, nothing, now, stage, until, warm


def condition(colour: str, answer: Any, seen: Any) -> Any:
    """A function of either kind with that answer."""

    def only_if(run: CurrentRun) -> object:
        seen(run)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def only_if_async(run: CurrentRun) -> object:
        await asyncio.sleep(0)
        return only_if(run)

    return only_if if colour == "sync" else only_if_async


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_where_it_says_no_nothing_runs(kind: str, colour: str, flavour: str, records: Any) -> None:
    """The occurrence is skipped with a reason, for jobs and conditions of both kinds on every scheduler."""
    asked, ran = Waiter(), Waiter()

    def register(jobs: BackgroundJobs) -> None:
        no = condition(flavour, False, asked)
        jobs.add_background_job(job_class(colour, lambda *_: ran()), key="k", trigger=now(), only_if=no)

    with stage(kind, register) as jobs:
        (run,) = asked.wait()
        until(lambda: counts(jobs, "k"))
    assert counts(jobs, "k") == {"condition": 1}
    assert (run.key, ran.seen) == ("k", [])
    (record,) = [record for record in records if record["extra"].get("outcome") == "condition"]
    assert record["level"].name == "INFO"
    assert record["extra"]["reason"] == "only_if returned False"
    assert record["message"].endswith("was skipped: only_if returned False")


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_where_it_says_yes_the_job_runs(kind: str, colour: str, flavour: str) -> None:
    """Any answer that is true counts."""
    asked, ran = Waiter(), Waiter()

    def register(jobs: BackgroundJobs) -> None:
        yes = condition(flavour, "yes", asked)
        jobs.add_background_job(
            job_class(colour, lambda *_: ran()), key="k", cron=NIGHTLY, run_immediately=True, only_if=yes
        )

    with stage(kind, register):
        ran.wait()
    assert len(asked.seen) == 1


def test_one_that_raises(colour: str, records: Any) -> None:
    """It is logged with its traceback, and the occurrence is skipped: a condition that is broken allows nothing."""
    jobs = cold()
    broken = condition(colour, ZeroDivisionError("no flags"), Waiter())
    jobs.add_background_job(nothing, key="k", trigger=now(), only_if=broken)
    with jobs:
        until(lambda: counts(jobs, "k"))
    assert counts(jobs, "k") == {"condition": 1}
    assert records.texts("ERROR") == ["only_if of job 'k' raised ZeroDivisionError: no flags"]
    (skipped,) = [text for text in records.texts("INFO") if "was skipped" in text]
    assert skipped.endswith("was skipped: only_if raised ZeroDivisionError: no flags")


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_one_that_raises_a_cancellation(colour: str, flavour: str) -> None:
    """Where nobody has asked for it, it is an error of the condition like any other."""
    jobs = cold()
    act = job_class(colour, nothing)
    broken = condition(flavour, asyncio.CancelledError(), Waiter())
    jobs.add_background_job(act, key="k", trigger=now(), only_if=broken)
    with jobs:
        until(lambda: counts(jobs, "k"))
    assert counts(jobs, "k") == {"condition": 1}


def test_one_that_hangs_is_given_up(waits: Any) -> None:
    """Async code of a condition gets a minute; the next occurrences are not overlapped by it."""
    waits.handler = 0.01

    async def hangs(_: CurrentRun) -> bool:
        await asyncio.sleep(LIMIT)
        return True

    jobs = cold().add_background_job(nothing, key="k", trigger=now(), only_if=hangs)
    with jobs:
        until(lambda: counts(jobs, "k"))
    assert counts(jobs, "k") == {"condition": 1}


def test_a_close_while_it_is_asked() -> None:
    """The run is not made, whatever the answer would have been."""
    asked, release = threading.Event(), threading.Event()

    def slow(_: CurrentRun) -> bool:
        asked.set()
        return release.wait(LIMIT)

    jobs = cold().add_background_job(nothing, key="k", trigger=now(), only_if=slow)
    with jobs:
        assert asked.wait(LIMIT)
        threading.Timer(0.05, release.set).start()
    assert counts(jobs, "k") == {"closing": 1}


def test_a_cancelled_task_while_it_is_asked() -> None:
    """A close that does not wait any longer cancels the condition, too."""
    asked = threading.Event()

    async def slow(_: CurrentRun) -> bool:
        asked.set()
        await asyncio.sleep(LIMIT)
        return True

    async def act() -> None: ...

    jobs = cold(shutdown_timeout=0.01).add_background_job(act, key="k", trigger=now(), only_if=slow)
    with warm("asyncio", jobs):
        assert asked.wait(LIMIT)
    assert counts(jobs, "k") == {"closing": 1}


def test_runs_by_hand_are_made_all_the_same() -> None:
    """`run_now` and the test kit ask nobody: somebody wants this run."""
    asked = Waiter()
    jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY, only_if=condition("sync", False, asked))
    with jobs:
        assert jobs.wait(jobs.run_now("k"), LIMIT).outcome == "succeeded"
    assert run_job(jobs, "k").outcome == "succeeded"
    assert asked.seen == []


def test_with_a_claim_store_it_is_asked_before_the_claim(tmp_path: Path) -> None:
    """A replica whose condition says no leaves the occurrence to another one."""
    settings = BackgroundJobsSettings(claims={"url": f"sqlite:///{tmp_path}/claims.db"}, env_file=None)
    ran = Waiter()
    no = condition("sync", False, Waiter())
    first = BackgroundJobs(settings=settings).add_background_job(nothing, key="k", cron="* * * * * *", only_if=no)
    second = BackgroundJobs(settings=settings).add_background_job(lambda: ran(), key="k", cron="* * * * * *")
    with first, second:
        ran.wait(2)
        until(lambda: counts(first, "k").get("condition", 0) >= 2)
    assert counts(first, "k").keys() == {"condition"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        pytest.param(
            "text", "job 'nothing': only_if must be a function that takes the CurrentRun, not 'text'", id="text"
        ),
        pytest.param(lambda: True, "only_if must take exactly one argument, the CurrentRun", id="argument"),
    ],
)
def test_what_is_no_condition_is_refused(wrong: Any, message: str) -> None:
    """Where the job is registered, with what would be right."""
    with pytest.raises(InvalidJobError, match=message):
        cold().add_background_job(nothing, cron=NIGHTLY, only_if=wrong)


def test_settings_cannot_give_one(tmp_path: Path) -> None:
    """A settings file has no functions, and says so."""
    file = tmp_path / "settings.toml"
    file.write_text('[jobs.k]\nonly_if = "shop:is_open"\n')
    with pytest.raises(ConfigurationError, match=r"only_if.*can be given in code only; a function cannot be written"):
        BackgroundJobsSettings(config_file=file)
