"""What `bgjobs check` and `bgjobs next` show, at a fixed time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from types import ModuleType
from typing import Any

import pytest
from apscheduler.triggers.interval import IntervalTrigger

from bgjobs import BackgroundJobs, BackgroundJobsSettings, CronExpression
from bgjobs.__main__ import main

TWICE = "the clock shows this time twice: "

#: Returns what `bgjobs check` prints about a facade.
Check = Callable[..., str]
#: Returns what `bgjobs check` prints about the job `work`, read from JSON.
RowOf = Callable[..., dict[str, Any]]


def work(retention_days: int = 1) -> None:
    """A job."""


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is always noon of the same day."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 11, 23, 12, 0, 0, 500_000, tzinfo=tz)

    monkeypatch.setattr("bgjobs.__main__.datetime", Clock)


@pytest.fixture(name="check")
def _check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Returns what `bgjobs check` prints about a facade."""

    def check(jobs: BackgroundJobs, *arguments: str) -> str:
        app = ModuleType("shop_checked")
        app.jobs = jobs  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "shop_checked", app)
        assert main(["check", "--app", "shop_checked:jobs", *arguments]) == 0
        return capsys.readouterr().out

    return check


@pytest.fixture(name="row")
def _row(check: Check) -> RowOf:
    """Returns what `bgjobs check` prints about the job `work`, read from JSON."""

    def row(settings: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        jobs = BackgroundJobs(settings=BackgroundJobsSettings(**(settings or {})))
        jobs.add_background_job(work, **options)
        (found,) = json.loads(check(jobs, "--format", "json"))["jobs"]
        return dict(found)

    return row


class TestRows:
    def test_the_next_runs(self, row: RowOf) -> None:
        """Three of them, with seconds and offset, in the zone of the job."""
        found = row(cron="0 0 9 * * *", timezone="Europe/Rome")
        assert found["next_runs"] == [f"2026-11-{day}T09:00:00+01:00" for day in (24, 25, 26)]
        assert found["timezone"] == "Europe/Rome"

    def test_jitter_is_left_out(self, row: RowOf) -> None:
        """The nominal times are shown, the same at each call."""
        found = row(cron="0 0 9 * * *", jitter=600)
        assert found["next_runs"] == [f"2026-11-{day}T09:00:00+00:00" for day in (24, 25, 26)]

    def test_the_start_date_counts(self, row: RowOf) -> None:
        """No run is shown before it."""
        found = row(cron="0 0 9 * * *", start_date="2027-01-01")
        assert found["next_runs"][0] == "2027-01-01T09:00:00+00:00"

    def test_another_trigger(self, row: RowOf) -> None:
        """A trigger that is not a cron expression is asked itself."""
        trigger = IntervalTrigger(hours=1, start_date=datetime(2026, 11, 23, 11, 30, tzinfo=UTC), timezone=UTC)
        found = row(trigger=trigger)
        assert found["next_runs"][:2] == ["2026-11-23T12:30:00+00:00", "2026-11-23T13:30:00+00:00"]
        assert found["cron"] == "interval[1:00:00]"
        assert found["clock_changes"] == []

    def test_a_job_that_is_switched_off(self, row: RowOf) -> None:
        """It is listed, without runs."""
        found = row(cron="-")
        assert (found["enabled"], found["timezone"], found["next_runs"]) == (False, None, [])

    def test_a_job_past_its_end(self, row: RowOf) -> None:
        """No run is left, which is a warning."""
        found = row(cron="@daily", end_date="2026-01-01")
        assert found["next_runs"] == []
        assert found["warnings"] == ["no fire time is left before its end_date"]

    def test_nothing_to_warn_of(self, row: RowOf) -> None:
        """A job with runs left has no warning."""
        assert row(cron="0 * * * * *", timeout=90)["warnings"] == []


class TestPlaces:
    def test_each_value_has_its_place(self, row: RowOf, monkeypatch: pytest.MonkeyPatch) -> None:
        """The variable, the argument, the code, or the default of the settings."""
        monkeypatch.setenv("BGJOBS__JOBS__WORK__CRON", "@daily")
        monkeypatch.setenv("BGJOBS__JOBS__WORK__KWARGS__RETENTION_DAYS", "1234")
        settings = {"timezone": "Europe/Rome", "job_defaults": {"coalesce": False}}
        found = row(settings, cron="@hourly", max_instances=3)
        assert found["values"] == {
            "cron": {"value": "@daily", "from": "BGJOBS__JOBS__WORK__CRON"},
            "max_instances": {"value": "3", "from": "code"},
            "coalesce": {"value": "False", "from": "argument job_defaults.coalesce"},
            "timezone": {"value": "Europe/Rome", "from": "argument timezone"},
            "kwargs.retention_days": {
                "value": "(not shown)",
                "from": "BGJOBS__JOBS__WORK__KWARGS__RETENTION_DAYS",
            },
        }

    def test_code_goes_before_job_defaults(self, row: RowOf) -> None:
        """A value of the code does not get their place."""
        found = row({"job_defaults": {"coalesce": False}}, cron="@hourly", coalesce=True)
        assert found["values"]["coalesce"] == {"value": "True", "from": "code"}

    def test_a_job_by_reference(self, check: Check) -> None:
        """Where the class or function comes from is shown first."""
        table = {"work": {"job": f"{__name__}:work", "cron": "@daily"}}
        text = check(BackgroundJobs(settings=BackgroundJobsSettings(jobs=table)), "--format", "json")
        assert next(iter(json.loads(text)["jobs"][0]["values"].items())) == (
            "job",
            {"value": f"{__name__}:work", "from": "argument jobs.work.job"},
        )

    def test_values_of_kwargs_are_not_shown(self, row: RowOf) -> None:
        """They may be passwords, wherever they come from."""
        found = row(cron="@daily", kwargs={"retention_days": 4321})
        assert found["values"]["kwargs.retention_days"] == {"value": "(not shown)", "from": "code"}
        assert "4321" not in str(found)


class TestClockChanges:
    def test_a_run_that_is_moved_and_one_that_is_doubled(self, row: RowOf) -> None:
        """Both days of the coming year are shown, with what happens."""
        found = row(cron="0 30 2 * * *", timezone="Europe/Rome")["clock_changes"]
        assert [change["at"] for change in found] == ["2027-03-28T03:00:00+02:00", "2027-10-31T02:30:00+02:00"]
        assert "jumps over" in found[0]["note"]
        assert "twice" in found[1]["note"]

    @pytest.mark.parametrize(
        ("cron", "days"),
        [
            pytest.param("0 0 12 * * *", [], id="at-noon"),
            pytest.param("0 0 3 * * *", [], id="at-the-end-of-the-jump"),
            pytest.param("0 30 1,3 * * *", [], id="just-before-and-after"),
            pytest.param("* * * * * *", ["2027-10-31T02:00:00+02:00"], id="each-second"),
            pytest.param("59 59 2 * * *", ["2027-03-28T03:00:00+02:00", "2027-10-31T02:59:59+02:00"], id="at-the-last"),
            pytest.param("0 30 2 29 2 *", [], id="in-a-few-years"),
            pytest.param("0 30 2 26 3 *", [], id="at-a-change-in-a-later-year"),
            pytest.param("0 30 2 31 10 *", ["2027-10-31T02:30:00+02:00"], id="once-a-year"),
        ],
    )
    def test_only_runs_that_are_affected(self, row: RowOf, cron: str, days: list[str]) -> None:
        """Of each change the first run that it moves or repeats is shown, if there is one."""
        found = row(cron=cron, timezone="Europe/Rome")["clock_changes"]
        assert [change["at"] for change in found] == days

    def test_half_an_hour(self, row: RowOf) -> None:
        """On Lord Howe Island the clock moves by half an hour."""
        found = row(cron="0 45 1 * * *", timezone="Australia/Lord_Howe")["clock_changes"]
        assert [change["at"] for change in found] == ["2027-04-04T01:45:00+11:00"]

    def test_a_ready_trigger(self, row: RowOf) -> None:
        """A trigger that was made from a cron expression is looked at, too."""
        found = row(trigger=CronExpression("0 30 2 * * *").trigger("Europe/Rome"))
        assert (found["cron"], len(found["clock_changes"])) == ("cron[0 30 2 * * *]", 2)

    def test_a_zone_that_cannot_be_hashed(self, row: RowOf) -> None:
        """Some zones of other packages are such."""

        class Zone(tzinfo):
            __hash__ = None  # type: ignore[assignment]

            def utcoffset(self, when: datetime | None) -> timedelta:
                return timedelta(hours=1)

            def dst(self, when: datetime | None) -> timedelta:
                return timedelta(0)

            def tzname(self, when: datetime | None) -> str:
                return "CET"

        found = row(cron="0 30 2 * * *", timezone=Zone())
        assert (found["next_runs"][0], found["clock_changes"]) == ("2026-11-24T02:30:00+01:00", [])


class TestText:
    def test_tables_are_aligned(self, check: Check) -> None:
        """Columns begin at the same place in each line; further runs stand below the first."""
        jobs = BackgroundJobs(settings=BackgroundJobsSettings.defaults())
        text = check(jobs.add_background_job(work, cron="0 0 9 * * *"))
        assert text.splitlines()[:3] == [
            "JOB   CRON         ZONE  NEXT RUNS",
            "work  0 0 9 * * *  UTC   2026-11-24T09:00:00+00:00",
            "                         2026-11-25T09:00:00+00:00",
        ]
        assert "Changes of the clock" not in text
        assert "Warnings" not in text

    def test_clock_changes_and_warnings_have_lists(self, check: Check) -> None:
        """Each line of them names the job."""
        jobs = BackgroundJobs(settings=BackgroundJobsSettings.defaults())
        jobs.add_background_job(work, cron="0 30 2 * * *", timezone="Europe/Rome")
        jobs.add_background_job(work, key="past", cron="@daily", end_date="2026-01-01")
        text = check(jobs)
        assert "Changes of the clock within a year:\n  work: 2027-03-28T03:00:00+02:00: moved" in text
        assert text.endswith("\n\nWarnings:\n  past: no fire time is left before its end_date\n")

    @pytest.mark.parametrize(
        ("options", "word"), [({"cron": "-"}, "switched off"), ({"cron": "@daily", "end_date": "2026-01-01"}, "none")]
    )
    def test_jobs_without_runs(self, check: Check, options: dict[str, Any], word: str) -> None:
        """A word stands in place of the next run."""
        jobs = BackgroundJobs(settings=BackgroundJobsSettings.defaults()).add_background_job(work, **options)
        assert check(jobs).splitlines()[1].endswith(word)


def test_a_year_is_searched_once_for_a_zone(check: Check) -> None:
    """Not once for each job: a second one asks the zone a few questions more, not a thousand."""
    asked = []

    class Counting(tzinfo):
        def utcoffset(self, moment: datetime | None) -> timedelta:
            asked.append(moment)
            return timedelta(hours=1)

        def dst(self, moment: datetime | None) -> timedelta:
            return timedelta(0)

        def tzname(self, moment: datetime | None) -> str:
            return "counting"

    jobs = BackgroundJobs(settings=BackgroundJobsSettings(timezone=Counting()))
    check(jobs.add_background_job(work, cron="@daily"))
    first = len(asked)
    assert first > 366
    check(jobs.add_background_job(work, cron="@hourly", key="more"))
    assert len(asked) - first < 366


class TestNext:
    def test_a_line_for_each_fire_time(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Each has the time in the zone and in UTC, and what the clock change did."""
        after = ["--timezone", "America/New_York", "--after", "2026-03-07T12:00:00+00:00", "--count", "2"]
        assert main(["next", "0 30 2 * * *", *after]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "2026-03-08T03:00:00-04:00  2026-03-08T07:00:00+00:00  "
            "moved from 2026-03-08T02:30:00, which the clock jumps over",
            "2026-03-09T02:30:00-04:00  2026-03-09T06:30:00+00:00",
        ]

    @pytest.mark.parametrize(
        ("cron", "after", "notes"),
        [
            ("0 30 1 * * *", "2026-10-31T12:00:00Z", [TWICE + "fires in the first passage only", ""]),
            ("0 0 1-2 * * *", "2026-11-01T00:00:00Z", [f"{TWICE}passage {n}, fires in both" for n in (1, 2)] + [""]),
            ("0 0 * * * *", "2026-03-08T06:30:00Z", [""]),
        ],
    )
    def test_clock_changes(self, cron: str, after: str, notes: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """A fire time that comes twice says how often it fires, and one that matches by itself is not called moved."""
        given = ["--timezone", "America/New_York", "--after", after, "--count", str(len(notes))]
        assert main(["next", cron, *given]) == 0
        assert [line[54:] for line in capsys.readouterr().out.splitlines()] == notes
