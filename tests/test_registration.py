"""What becomes of a job that code and settings describe together."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from bgjobs import (
    BackgroundJobs,
    BackgroundJobsSettings,
    ConfigurationError,
    DuplicateJobError,
    InvalidJobError,
)
from bgjobs.__main__ import main
from bgjobs.testing import run_job
from stage import until


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


Options = Callable[[dict[str, Any], dict[str, Any]], dict[str, str]]


class Store(MemoryJobStore):  # type: ignore[misc] # APScheduler has no types
    """A job store that a test can look into."""

    made: ClassVar[list[Store]] = []

    def __init__(self) -> None:
        super().__init__()
        self.made.append(self)


def cleanup(retention_days: int = 30, table: str = "mail") -> None: ...


def facade(code: dict[str, Any], settings: dict[str, Any]) -> BackgroundJobs:
    """The job `cleanup`, described by code and settings."""
    jobs = BackgroundJobs(settings=BackgroundJobsSettings(**settings))
    return jobs.add_background_job(cleanup, **code)


class TestMerging:
    """Settings win over code, option by option."""

    @pytest.fixture(name="options")
    def _options(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Options:
        """The options of `cleanup` that are set, as `bgjobs check` shows them."""

        def options(code: dict[str, Any], settings: dict[str, Any]) -> dict[str, str]:
            app = ModuleType("refs_app")
            app.jobs = facade(code, settings)  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, "refs_app", app)
            assert main(["check", "--app", "refs_app:jobs", "--format", "json"]) == 0
            (job,) = json.loads(capsys.readouterr().out)["jobs"]
            return {"key": job["key"]} | {name: value["value"] for name, value in job["values"].items()}

        return options

    def test_options(self, options: Options) -> None:
        """What the settings do not set stays as in code."""
        found = options({"cron": "@daily", "timeout": 3}, {"jobs": {"cleanup": {"cron": "@hourly"}}})
        assert (found["cron"], found["timeout"]) == ("@hourly", "3.0")

    def test_none_is_a_value(self, options: Options) -> None:
        """Settings remove a limit of the code."""
        found = options({"cron": "@daily", "timeout": 3}, {"jobs": {"cleanup": {"timeout": None}}})
        assert found["timeout"] == "None"

    def test_arguments(self) -> None:
        """One by one; those of the settings are converted, in any spelling."""
        seen = []

        def report(retention_days: int = 30, table: str = "mail") -> None:
            seen.append((retention_days, table))

        settings = BackgroundJobsSettings(jobs={"report": {"kwargs": {"RETENTION-DAYS": "7"}}})
        jobs = BackgroundJobs(settings=settings)
        jobs.add_background_job(report, cron="@daily", kwargs={"retention_days": 90, "table": "users"})
        assert run_job(jobs, "report").outcome == "succeeded"
        assert seen == [(7, "users")]

    def test_the_key_of_the_code_is_kept(self, options: Options) -> None:
        """However the settings spell it."""
        code = {"cron": "@daily", "key": "nightly-cleanup"}
        found = options(code, {"jobs": {"NIGHTLY_CLEANUP": {"timeout": 3}}})
        assert (found["key"], found["timeout"]) == ("nightly-cleanup", "3.0")

    def test_the_schedule_alone_may_come_from_the_settings(self) -> None:
        """Then code gives none."""
        assert facade({}, {"jobs": {"cleanup": {"cron": "@daily"}}}).status()[0].cron == "@daily"

    def test_a_cron_expression_replaces_a_trigger(self, options: Options) -> None:
        """Deployment changes a schedule of any kind."""
        found = options({"trigger": IntervalTrigger(seconds=90)}, {"jobs": {"cleanup": {"cron": "@daily"}}})
        assert found["cron"] == "@daily"
        assert "trigger" not in found

    def test_a_trigger_stays_where_the_settings_set_something_else(self, options: Options) -> None:
        """The other options of its job can be set all the same."""
        found = options({"trigger": IntervalTrigger(seconds=90)}, {"jobs": {"cleanup": {"timeout": 3}}})
        assert (found["trigger"], found["timeout"]) == ("interval[0:01:30]", "3.0")

    @pytest.mark.parametrize("off", [{"enabled": False}, {"cron": "-"}])
    @pytest.mark.parametrize("code", [{"cron": "@daily"}, {"trigger": IntervalTrigger(seconds=90)}])
    def test_switched_off(self, off: dict[str, Any], code: dict[str, Any]) -> None:
        """Whatever the schedule in code is."""
        scheduler = BackgroundScheduler()
        settings = BackgroundJobsSettings(jobs={"cleanup": off})
        with BackgroundJobs(scheduler, settings=settings).add_background_job(cleanup, **code):
            assert scheduler.get_jobs() == []

    def test_job_defaults(self, options: Options) -> None:
        """They count where neither the job's settings nor code set a value."""
        defaults = {"coalesce": False, "max_instances": 3, "misfire_grace_time": 60}
        found = options(
            {"cron": "@daily", "max_instances": 2},
            {"job_defaults": defaults, "jobs": {"cleanup": {"misfire_grace_time": None}}},
        )
        assert (found["coalesce"], found["max_instances"], found["misfire_grace_time"]) == ("False", "2", "None")


class TestMistakes:
    """What code and settings say together can be wrong, too."""

    def test_arguments_that_do_not_fit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The variable is named."""
        monkeypatch.setenv("BGJOBS__JOBS__CLEANUP__KWARGS__RETENTION_DAYS", "many")
        with pytest.raises(ConfigurationError, match=r"^BGJOBS__JOBS__CLEANUP__KWARGS__RETENTION_DAYS: Input should"):
            facade({"cron": "@daily"}, {})

    def test_an_argument_that_is_a_table(self) -> None:
        """The place of what is in it is named."""
        with pytest.raises(ConfigurationError, match=r"^argument jobs.cleanup.kwargs.retention_days.x: Input should"):
            facade({"cron": "@daily"}, {"jobs": {"cleanup": {"kwargs": {"retention_days": {"x": 1}}}}})

    def test_the_settings_have_a_similar_name(self) -> None:
        """A table whose name is misspelt gives no schedule, and is named."""
        with pytest.raises(ConfigurationError, match="or set its cron in the settings, which have a job 'cleenup'"):
            facade({}, {"jobs": {"cleenup": {"cron": "@daily"}}})

    def test_nobody_gives_a_schedule(self) -> None:
        """Both places for one are named."""
        with pytest.raises(ConfigurationError, match="job 'cleanup' has no schedule; give cron or trigger, or set its"):
            facade({}, {"jobs": {"cleanup": {"timeout": 3}}})

    def test_a_trigger_that_is_none(self) -> None:
        """A text is no trigger."""
        with pytest.raises(ConfigurationError, match="job 'cleanup': trigger must be an APScheduler trigger, not 'x'"):
            facade({"trigger": "x"}, {})

    def test_a_zone_of_the_settings_for_a_trigger_of_the_code(self) -> None:
        """A trigger has its own."""
        with pytest.raises(ConfigurationError, match="timezone and trigger are both given"):
            facade({"trigger": IntervalTrigger(seconds=90)}, {"jobs": {"cleanup": {"timezone": "UTC"}}})

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
        assert [run_job(jobs, key).outcome for key in ("a-b", "B")] == ["succeeded", "succeeded"]
        assert [job.key for job in jobs.status()] == ["a-b", "B"]

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
        threads = []

        def where() -> None:
            threads.append(threading.current_thread().name)

        settings = BackgroundJobsSettings(
            scheduler="background",
            executors={"slow": {"type": "threadpool", "max_workers": 1, "pool_kwargs": {"thread_name_prefix": "slow"}}},
            jobstores={"other": {"class": f"{__name__}:Store"}},
            jobs={"where": {"executor": "slow", "jobstore": "other"}},
        )
        with BackgroundJobs(settings=settings).add_background_job(where, cron="@daily") as jobs:
            assert [job.id for job in Store.made[-1].get_all_jobs()] == ["bgjobs:where"]
            jobs.run_now("where")
            until(lambda: threads)
        assert threads == ["slow_0"]

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
        assert jobs.add_background_job(cleanup, cron="@daily").status()[0].timezone == "Europe/Rome"
