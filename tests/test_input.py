"""What users and their settings give: what is refused, where it is refused, and in what words."""

from __future__ import annotations

import copy
import math
import pickle
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypedDict, TypeVar

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from pydantic import BaseModel, EmailStr, Field

from bgjobs import (
    BackgroundJobs,
    BackgroundJobsSettings,
    CancellationToken,
    ConfigurationError,
    CronExpression,
    DuplicateJobError,
    InvalidJobError,
    UnknownJobError,
)
from bgjobs.testing import run_job, walk
from stage import NIGHTLY, Waiter, cold, counts, fail, nothing, row

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

#: Numbers with which threads and dates cannot count.
ABSURD = [math.inf, math.nan, 1e300, float(2 * threading.TIMEOUT_MAX), 10**5000]

absurd = pytest.mark.parametrize("number", ABSURD, ids=["inf", "nan", "1e300", "beyond threads", "5000 digits"])


class TestNumbers:
    @absurd
    @pytest.mark.parametrize("option", ["timeout", "jitter", "misfire_grace_time", "max_instances"])
    def test_options(self, option: str, number: float) -> None:
        """An option that would overflow in a thread or a date is refused at registration."""
        with pytest.raises(ConfigurationError, match=f"job 'nothing': {option}: "):
            cold().add_background_job(nothing, cron=NIGHTLY, **{option: number})  # type: ignore[arg-type]

    @absurd
    def test_the_shutdown_timeout(self, number: float) -> None:
        """It is refused when the settings are read, not when the jobs are closed."""
        with pytest.raises(ConfigurationError, match="argument shutdown_timeout: "):
            BackgroundJobsSettings(shutdown_timeout=number)

    @absurd
    def test_the_jitter_of_a_trigger(self, number: float) -> None:
        """A trigger that is used without options refuses it, too."""
        with pytest.raises(ConfigurationError, match="jitter: a number of seconds from 0 to"):
            CronExpression(NIGHTLY).trigger("UTC", jitter=number)

    @absurd
    def test_the_run_time_in_a_walk(self, number: float) -> None:
        """So does the walk through virtual time."""
        jobs = cold().add_background_job(nothing, cron=NIGHTLY)
        with pytest.raises(ConfigurationError, match="takes: a number of seconds from 0 to"):
            walk(jobs, BEGIN, BEGIN + timedelta(days=2), takes=number)

    def test_long_ones_that_are_meant(self) -> None:
        """A year is no mistake."""
        year: Any = 366 * 86_400
        cold().add_background_job(nothing, cron=NIGHTLY, timeout=year, jitter=year, misfire_grace_time=year)

    @pytest.mark.parametrize("timeout", [math.inf, 1e300])
    def test_a_token_waits_without_limit(self, timeout: float) -> None:
        """Infinity, as a computation of deadlines may give it, is no mistake there: it waits for the request."""
        token = CancellationToken()
        threading.Timer(0.05, token.request_cancellation).start()
        assert token.wait(timeout)


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("s.toml", r"not 's.toml'; a .* settings=BackgroundJobsSettings\(config_file=\"s.toml\"\)"),
        (Path("conf/s.toml"), r"settings=BackgroundJobsSettings\(config_file=\"conf/s.toml\"\)"),
        ({"timezone": "UTC"}, "settings must be a BackgroundJobsSettings, not an object of type dict"),
        (BackgroundJobsSettings, "not BackgroundJobsSettings; a settings file is read with"),
    ],
)
def test_settings_that_are_none(settings: Any, message: str) -> None:
    """What people try instead of a model gets an error that shows the model."""
    with pytest.raises(ConfigurationError, match=message):
        BackgroundJobs(settings=settings)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: BackgroundJobsSettings(timezone="Rome"),
        lambda: BackgroundJobsSettings(jobs={"a": {"timezone": "Rome"}}),
        lambda: cold().add_background_job(nothing, cron=NIGHTLY, timezone="Rome"),
        lambda: cold(timezone="Rome"),
        lambda: CronExpression(NIGHTLY).trigger("Rome"),
    ],
    ids=["setting", "setting of a job", "option", "default", "trigger"],
)
def test_the_name_of_what_is_wrong_is_said_once(mistake: Callable[[], object]) -> None:
    """However deep the mistake was found, its name stands before it once."""
    with pytest.raises(ConfigurationError, match="timezone: there is no time zone 'Rome'") as caught:
        mistake()
    assert str(caught.value).count("timezone:") == 1


def test_a_failure_of_run_job_has_no_strange_context() -> None:
    """What a run in a thread raises does not tell of a missing event loop."""
    result = run_job(cold().add_background_job(fail, cron=NIGHTLY), "fail")
    assert result.error is not None
    assert result.error.__context__ is None
    with pytest.raises(UnknownJobError) as caught:
        run_job(cold(), "nobody")
    assert caught.value.__context__ is None


# -- the names of jobs -----------------------------------------------------------------------------------------------


def sync() -> None: ...


class TestKeys:
    @pytest.mark.parametrize("key", ["data-sync", "DataSync", "DATA_SYNC", "data sync"])
    def test_two_spellings_of_one_key(self, key: str) -> None:
        """They are one name in settings, and so they are in code; the error names both."""
        jobs = cold().add_background_job(sync, cron=NIGHTLY, key="data_sync")
        with pytest.raises(DuplicateJobError, match=f"'data_sync', which is the same name as '{key}',"):
            jobs.add_background_job(sync, cron=NIGHTLY, key=key)

    def test_numbers_stay_apart(self) -> None:
        """A separator between two digits counts: these are two tenants."""
        jobs = cold().add_background_job(sync, cron=NIGHTLY, key="tenant-1-11")
        jobs.add_background_job(sync, cron=NIGHTLY, key="tenant-11-1")
        assert run_job(jobs, "Tenant_11_1").key == "tenant-11-1"

    def test_one_of_the_settings_and_one_of_the_code(self) -> None:
        """A job that the settings name by reference has its key already."""
        settings = BackgroundJobsSettings(jobs={"do-nothing": {"job": "stage:nothing", "cron": NIGHTLY}})
        with pytest.raises(DuplicateJobError, match="'do-nothing', which is the same name as 'doNothing',"):
            BackgroundJobs(settings=settings).add_background_job(nothing, cron=NIGHTLY, key="doNothing")

    def test_a_key_is_free_after_its_job_was_removed(self) -> None:
        """In any spelling."""
        jobs = cold().add_background_job(sync, cron=NIGHTLY, key="data-sync")
        jobs.remove("DATA_SYNC")
        assert [status.key for status in jobs.add_background_job(sync, cron=NIGHTLY, key="DataSync").status()] == [
            "DataSync"
        ]

    def test_every_method_takes_any_spelling(self) -> None:
        """As the settings do; what is shown is the spelling of the registration."""
        ran = Waiter()

        def data_sync() -> None:
            ran()

        jobs = cold(BackgroundScheduler(timezone="UTC")).add_background_job(data_sync, cron=NIGHTLY)
        assert run_job(jobs, "DataSync").key == "data_sync"
        with jobs:
            jobs.pause("DATA-SYNC")
            assert row(jobs, "data_sync").paused
            jobs.resume("DATA-SYNC")
            assert not row(jobs, "data_sync").paused
            jobs.run_now("data-sync")
            ran.wait(2)
        assert counts(jobs, "data_sync")["succeeded"] == 2

    @pytest.mark.parametrize("again", [copy.deepcopy, lambda settings: pickle.loads(pickle.dumps(settings))])
    def test_a_copy_of_the_settings(self, again: Callable[[Any], BackgroundJobsSettings]) -> None:
        """It finds its jobs in any spelling, too."""
        settings = again(BackgroundJobsSettings(jobs={"data-sync": {"cron": "@hourly"}}))
        found = settings.job("DataSync")
        assert found is not None
        assert found.cron == "@hourly"
        assert settings.model_copy(update={"jobs": {"other-job": found}}).job("OtherJob") is found


# -- the arguments of actions ----------------------------------------------------------------------------------------


class Mode(Enum):
    FAST = "fast"


class Server(BaseModel):
    host: str


class Table(TypedDict):
    host: str


class Closable(Protocol):
    def close(self) -> None: ...


class Fake:
    """Stands in for any type, as in tests of users."""


T = TypeVar("T")


def taking(annotation: Any) -> Callable[..., None]:
    """An action with one parameter `x`."""

    def action(x: Any) -> None: ...

    action.__annotations__["x"] = annotation
    return action


def add(annotation: Any, value: object) -> BackgroundJobs:
    return cold().add_background_job(taking(annotation), cron=NIGHTLY, kwargs={"x": value})


class TestArguments:
    @pytest.mark.parametrize(
        ("annotation", "value", "message"),
        [
            (int, "5", "x must be int, not str"),
            (float, "hunter2", "x must be float, not str"),
            (str, 5, "x must be str, not int"),
            (timedelta, 90, "x must be datetime.timedelta, not int"),
            (datetime, "2026-01-01", "x must be datetime.datetime, not str"),
            (Mode, "fast", "x must be .*Mode, not str"),
            (Server, {"host": "a"}, "x must be .*Server, not dict"),
            (int, None, "x must be int, not NoneType"),
            (int | None, "5", "not str"),
            (list[str], "abc", "x must be list.*, not str"),
            (dict[str, int], ["a"], "not list"),
            (None, 5, "not int"),
            (Literal["a", "b"], "c", "not str"),
            (Annotated[int, Field(gt=3)], "5", "not str"),
            ("int | None", "5", "not str"),
        ],
    )
    def test_of_plainly_another_type(self, annotation: Any, value: object, message: str) -> None:
        """They are refused at registration, as those of the settings are; the error does not show the value."""
        with pytest.raises(InvalidJobError, match=f"job 'action': kwargs: .*{message}") as caught:
            add(annotation, value)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("annotation", "value"),
        [
            (int, True),
            (bool, 1),
            (float, 5),
            (float, Decimal(5)),
            (str | None, None),
            (Path, "data"),
            (tuple[str, ...], ["a", "b"]),
            (list[int], ["not looked at"]),
            (Server, Fake()),
            (int, Fake()),
            (Closable, "any"),
            (EmailStr, "any@example.com"),
            (Table, {"host": "a"}),
            (T, "any"),
            (Any, {"a": 1}),
            (object, "any"),
            (Literal["a", "b"], "a"),
            (Callable[[], None], nothing),
            ("Elsewhere", "5"),
            ("no type at all", "5"),
            (3, "5"),
        ],
    )
    def test_what_may_be_right(self, annotation: Any, value: object) -> None:
        """Everything else is accepted, and passed on as the very same object."""
        got = []

        def action(x: Any) -> None:
            got.append(x)

        action.__annotations__["x"] = annotation
        jobs = cold().add_background_job(action, cron=NIGHTLY, kwargs={"x": value})
        run_job(jobs, "action")
        assert got[0] is value

    def test_a_default_that_does_not_fit_its_own_annotation(self) -> None:
        """Old code says ``limit: int = None``, and may pass that."""

        def action(limit: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

        cold().add_background_job(action, cron=NIGHTLY, kwargs={"limit": None})

    def test_kwargs_that_are_no_table(self) -> None:
        """They are refused as an option."""
        with pytest.raises(ConfigurationError, match="job 'nothing': kwargs: a table is needed"):
            cold().add_background_job(nothing, cron=NIGHTLY, kwargs=["x"])  # type: ignore[arg-type]
