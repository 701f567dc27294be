"""What becomes of a job that code and settings describe together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from bgjobs import (
    BackgroundJobs,
    BackgroundJobsSettings,
    ConfigurationError,
    DuplicateJobError,
    InvalidJobError,
)
from bgjobs._runs.run import RegisteredJob


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of the machine reaches a test."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(name="module")
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a module that can be imported in this test."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")

    return write


def cleanup(retention_days: int = 30, table: str = "mail") -> None: ...


def registered(jobs: BackgroundJobs, key: str) -> RegisteredJob:
    """A job as the facade keeps it."""
    return jobs._lifecycle.ledger.jobs[key]


def merged(code: dict[str, Any], settings: dict[str, Any]) -> RegisteredJob:
    """The job `cleanup`, described by code and settings."""
    jobs = BackgroundJobs(settings=BackgroundJobsSettings(**settings))
    return registered(jobs.add_background_job(cleanup, **code), code.get("key", "cleanup"))


class TestMerging:
    """Settings win over code, option by option."""

    def test_options(self) -> None:
        """What the settings do not say stays as in code."""
        job = merged({"cron": "@daily", "timeout": 3}, {"jobs": {"cleanup": {"cron": "@hourly"}}})
        assert (job.options.cron, job.options.timeout) == ("@hourly", 3)

    def test_none_is_said_too(self) -> None:
        """Settings take a limit of the code away."""
        job = merged({"cron": "@daily", "timeout": 3}, {"jobs": {"cleanup": {"timeout": None}}})
        assert job.options.timeout is None

    def test_arguments(self) -> None:
        """One by one; those of the settings are converted, in any spelling."""
        code = {"cron": "@daily", "kwargs": {"retention_days": 90, "table": "users"}}
        job = merged(code, {"jobs": {"cleanup": {"kwargs": {"RETENTION-DAYS": "7"}}}})
        assert job.options.kwargs == {"retention_days": 7, "table": "users"}

    def test_the_key_of_the_code_is_kept(self) -> None:
        """However the settings spell it."""
        job = merged({"cron": "@daily", "key": "nightly-cleanup"}, {"jobs": {"NIGHTLY_CLEANUP": {"timeout": 3}}})
        assert (job.key, job.options.key, job.options.timeout) == ("nightly-cleanup", "nightly-cleanup", 3)

    def test_the_schedule_alone_may_come_from_the_settings(self) -> None:
        """Then code gives none."""
        assert merged({}, {"jobs": {"cleanup": {"cron": "@daily"}}}).schedule is not None

    def test_a_cron_text_takes_the_place_of_a_trigger(self) -> None:
        """Deployment changes a schedule of any kind."""
        job = merged({"trigger": IntervalTrigger(seconds=90)}, {"jobs": {"cleanup": {"cron": "@daily"}}})
        assert (job.options.cron, job.options.trigger) == ("@daily", None)

    def test_a_trigger_stays_where_the_settings_say_something_else(self) -> None:
        """Its job may be changed all the same."""
        trigger = IntervalTrigger(seconds=90)
        job = merged({"trigger": trigger}, {"jobs": {"cleanup": {"timeout": 3}}})
        assert (job.options.trigger, job.options.timeout) == (trigger, 3)

    @pytest.mark.parametrize("said", [{"enabled": False}, {"cron": "-"}])
    @pytest.mark.parametrize("code", [{"cron": "@daily"}, {"trigger": IntervalTrigger(seconds=90)}])
    def test_switched_off(self, said: dict[str, Any], code: dict[str, Any]) -> None:
        """Whatever the schedule in code is."""
        assert merged(code, {"jobs": {"cleanup": said}}).schedule is None

    def test_job_defaults(self) -> None:
        """They count where neither the job's settings nor code say something."""
        defaults = {"coalesce": False, "max_instances": 3, "misfire_grace_time": 60}
        job = merged(
            {"cron": "@daily", "max_instances": 2},
            {"job_defaults": defaults, "jobs": {"cleanup": {"misfire_grace_time": None}}},
        )
        assert (job.options.coalesce, job.options.max_instances, job.options.misfire_grace_time) == (False, 2, None)


class TestMistakes:
    """What code and settings say together can be wrong, too."""

    def test_arguments_that_do_not_fit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The variable is named."""
        monkeypatch.setenv("BGJOBS__JOBS__CLEANUP__KWARGS__RETENTION_DAYS", "many")
        with pytest.raises(ConfigurationError, match=r"^BGJOBS__JOBS__CLEANUP__KWARGS__RETENTION_DAYS: Input should"):
            merged({"cron": "@daily"}, {})

    def test_an_argument_that_is_a_table(self) -> None:
        """The place of what is in it is named."""
        with pytest.raises(ConfigurationError, match=r"^argument jobs.cleanup.kwargs.retention_days.x: Input should"):
            merged({"cron": "@daily"}, {"jobs": {"cleanup": {"kwargs": {"retention_days": {"x": 1}}}}})

    def test_nobody_gives_a_schedule(self) -> None:
        """Both places for one are named."""
        with pytest.raises(ConfigurationError, match="job 'cleanup' has no schedule; give cron or trigger, or set its"):
            merged({}, {"jobs": {"cleanup": {"timeout": 3}}})

    def test_a_trigger_that_is_none(self) -> None:
        """A text is no trigger."""
        with pytest.raises(ConfigurationError, match="job 'cleanup': trigger must be an APScheduler trigger, not 'x'"):
            merged({"trigger": "x"}, {})

    def test_a_zone_of_the_settings_for_a_trigger_of_the_code(self) -> None:
        """A trigger has its own."""
        with pytest.raises(ConfigurationError, match="timezone goes into the trigger itself"):
            merged({"trigger": IntervalTrigger(seconds=90)}, {"jobs": {"cleanup": {"timezone": "UTC"}}})

    def test_lambdas_have_no_key(self) -> None:
        """Settings could not find them."""
        with pytest.raises(InvalidJobError, match="a lambda has no name; set key"):
            BackgroundJobs(settings=BackgroundJobsSettings.defaults()).add_background_job(lambda: None, cron="@daily")


class TestReferences:
    """Jobs that the settings name."""

    def test_functions_and_classes(self, module: Callable[[str, str], None]) -> None:
        """Under the keys of the settings, names inside of others included."""
        module("refs_good", "def clean(): ...\nclass Outer:\n    class Job:\n        def action_to_do(self): ...\n")
        table = {
            "a-b": {"job": "refs_good:clean", "cron": "@daily"},
            "B": {"job": "refs_good:Outer.Job", "cron": "@daily"},
        }
        jobs = BackgroundJobs(settings=BackgroundJobsSettings(jobs=table))
        assert [registered(jobs, key).target.name for key in ("a-b", "B")] == ["clean", "Job"]

    @pytest.mark.parametrize(
        ("reference", "told"),
        [
            ("refs_none:Job", "there is no module 'refs_none'"),
            ("refs_bad:Job", "there is no module 'refs_none'"),
            ("refs_raises:Job", "ZeroDivisionError: division by zero ({directory}/refs_raises.py, line 2)"),
            ("refs_syntax:Job", "SyntaxError: invalid syntax (refs_syntax.py, line 1)"),
            ("refs_ok:cleanupp", "refs_ok has no 'cleanupp'; did you mean 'cleanup'?"),
            ("refs_ok:cleanup.x", "refs_ok has no 'x'"),
        ],
    )
    def test_what_cannot_be_imported(
        self, reference: str, told: str, module: Callable[[str, str], None], tmp_path: Path
    ) -> None:
        """The place, the reference, and why."""
        module("refs_bad", "import refs_none\n")
        module("refs_raises", "x = 1\n1 / 0\n")
        module("refs_syntax", "def def\n")
        module("refs_ok", "def cleanup(): ...\n")
        with pytest.raises(ConfigurationError) as caught:
            BackgroundJobs(settings=BackgroundJobsSettings(jobs={"a": {"job": reference, "cron": "@daily"}}))
        why = told.replace("{directory}", str(tmp_path))
        assert str(caught.value) == f"argument jobs.a.job: {reference!r} cannot be imported: {why}"

    def test_what_is_no_job(self, module: Callable[[str, str], None]) -> None:
        """The place is named before what is wrong with it."""
        module("refs_no_job", "class Job:\n    def action(self): ...\n")
        with pytest.raises(InvalidJobError, match=r"^argument jobs.a.job: Job has no method action_to_do"):
            BackgroundJobs(settings=BackgroundJobsSettings(jobs={"a": {"job": "refs_no_job:Job", "cron": "@daily"}}))

    def test_all_mistakes_at_once(self, module: Callable[[str, str], None]) -> None:
        """One error for several jobs."""
        module("refs_many", "def clean(days: int): ...\n")
        table = {
            "a": {"job": "refs_none:Job", "cron": "@daily"},
            "b": {"job": "refs_many:clean", "cron": "@daily", "kwargs": {"days": "x"}},
            "c": {"job": "refs_many:clean", "kwargs": {"days": 1}},
            "d": {"job": "refs_many:clean", "cron": "@daily"},
        }
        with pytest.raises(ConfigurationError) as caught:
            BackgroundJobs(settings=BackgroundJobsSettings(jobs=table))
        assert [problem.split(":")[0] for problem in caught.value.problems] == [
            "argument jobs.a.job",
            "argument jobs.b.kwargs.days",
            "job 'c' has no schedule; give cron or trigger, or set its cron in the settings",
            "argument jobs.d.job",
        ]

    def test_code_may_not_take_the_key_again(self, module: Callable[[str, str], None]) -> None:
        """A job that the settings name is registered."""
        module("refs_twice", "def cleanup(): ...\n")
        table = {"cleanup": {"job": "refs_twice:cleanup", "cron": "@daily"}}
        jobs = BackgroundJobs(settings=BackgroundJobsSettings(jobs=table))
        with pytest.raises(DuplicateJobError):
            jobs.add_background_job(cleanup, cron="@daily")


class TestScheduler:
    """What the settings say of the scheduler."""

    def test_executors_and_job_stores(self) -> None:
        """APScheduler makes them; jobs name them by alias."""
        settings = BackgroundJobsSettings(
            scheduler="background",
            executors={"slow": {"type": "threadpool", "max_workers": 1}},
            jobstores={"other": {"class": "apscheduler.jobstores.memory:MemoryJobStore"}},
            jobs={"cleanup": {"executor": "slow", "jobstore": "other"}},
        )
        with BackgroundJobs(settings=settings).add_background_job(cleanup, cron="@daily") as jobs:
            bridge = jobs._lifecycle._bridge
            assert bridge is not None
            assert [job.id for job in bridge.scheduler.get_jobs("other")] == ["bgjobs:cleanup"]

    @pytest.mark.parametrize(
        "said",
        [
            {"jobstores": {"default": {"type": "sqlalchemi", "url": "s3cr3t"}}},
            {"jobstores": {"default": {"type": "sqlalchemy", "url": "s3cr3t"}}},
            {"executors": {"default": {"max_workers": 5}}},
            {"executors": {"default": {"type": "threadpool", "max_worker": "s3cr3t"}}},
        ],
    )
    def test_what_apscheduler_cannot_make(self, said: dict[str, Any]) -> None:
        """One clear error, without the values."""
        settings = BackgroundJobsSettings(scheduler="background", **said)
        with pytest.raises(ConfigurationError, match="APScheduler cannot make") as caught:
            BackgroundJobs(settings=settings).warm_up()
        assert "s3cr3t" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None

    def test_the_zone_of_the_settings_goes_before_that_of_a_scheduler(self) -> None:
        """Deployment beats code."""
        settings = BackgroundJobsSettings(timezone="Europe/Rome")
        jobs = BackgroundJobs(BackgroundScheduler(timezone="UTC"), settings=settings)
        job = registered(jobs.add_background_job(cleanup, cron="@daily"), "cleanup")
        assert job.schedule is not None
        assert str(job.schedule.trigger.timezone) == "Europe/Rome"
