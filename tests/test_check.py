"""What `bgjobs check` tells of the merged jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from apscheduler.triggers.interval import IntervalTrigger

from bgjobs import BackgroundJobs, BackgroundJobsSettings
from bgjobs._check import Row, as_json, as_text, rows

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def work(retention_days: int = 1) -> None:
    """A job."""


def row(settings: dict[str, Any] | None = None, *, count: int = 2, **options: Any) -> Row:
    """The row of one job."""
    read = BackgroundJobsSettings(**(settings or {}))
    jobs = BackgroundJobs(settings=read).add_background_job(work, **options)
    return rows(list(jobs._lifecycle.ledger.jobs.values()), read, NOW, count)[0]


class TestRows:
    def test_the_next_runs(self) -> None:
        """As many as asked for, with seconds and offset, in the zone of the job."""
        found = row(cron="0 0 9 * * *", timezone="Europe/Rome")
        assert found.next_runs == ["2026-11-24T09:00:00+01:00", "2026-11-25T09:00:00+01:00"]
        assert found.timezone == "Europe/Rome"

    def test_jitter_is_left_out(self) -> None:
        """The nominal times are told, the same at each call."""
        assert row(cron="0 0 9 * * *", jitter=600, count=1).next_runs == ["2026-11-24T09:00:00+00:00"]

    def test_another_trigger(self) -> None:
        """A trigger that is no cron text is asked itself."""
        trigger = IntervalTrigger(hours=1, start_date=datetime(2026, 11, 23, 11, 30, tzinfo=UTC), timezone=UTC)
        found = row(trigger=trigger)
        assert found.next_runs == ["2026-11-23T12:30:00+00:00", "2026-11-23T13:30:00+00:00"]
        assert found.cron == "interval[1:00:00]"
        assert found.clock_changes == []

    def test_a_job_that_is_switched_off(self) -> None:
        """It is listed, without runs."""
        found = row(cron="-")
        assert (found.enabled, found.next_runs) == (False, [])

    def test_a_job_past_its_end(self) -> None:
        """No run is left, which is a warning."""
        found = row(cron="@daily", end_date="2026-01-01")
        assert found.next_runs == []
        assert found.warnings == ["no fire time is left before its end_date"]


class TestPlaces:
    def test_each_value_has_its_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The variable, the argument, the code, or the default of the settings."""
        monkeypatch.setenv("BGJOBS__JOBS__WORK__CRON", "@daily")
        monkeypatch.setenv("BGJOBS__JOBS__WORK__KWARGS__RETENTION_DAYS", "1234")
        settings = {"timezone": "Europe/Rome", "job_defaults": {"coalesce": False}}
        found = row(settings, cron="@hourly", max_instances=3)
        assert found.values == {
            "cron": {"value": "@daily", "from": "BGJOBS__JOBS__WORK__CRON"},
            "max_instances": {"value": "3", "from": "code"},
            "coalesce": {"value": "False", "from": "argument job_defaults.coalesce"},
            "timezone": {"value": "Europe/Rome", "from": "argument timezone"},
            "kwargs.retention_days": {
                "value": "(not shown)",
                "from": "BGJOBS__JOBS__WORK__KWARGS__RETENTION_DAYS",
            },
        }

    def test_code_goes_before_job_defaults(self) -> None:
        """What code gives is not said to come from them."""
        found = row({"job_defaults": {"coalesce": False}}, cron="@hourly", coalesce=True)
        assert found.values["coalesce"] == {"value": "True", "from": "code"}

    def test_a_job_by_reference(self) -> None:
        """Where the class or function comes from is told first."""
        settings = BackgroundJobsSettings(jobs={"work": {"job": f"{__name__}:work", "cron": "@daily"}})
        jobs = BackgroundJobs(settings=settings)
        found = rows(list(jobs._lifecycle.ledger.jobs.values()), settings, NOW)[0]
        assert next(iter(found.values.items())) == (
            "job",
            {"value": f"{__name__}:work", "from": "argument jobs.work.job"},
        )

    def test_values_of_kwargs_are_not_shown(self) -> None:
        """They may be passwords, wherever they come from."""
        found = row(cron="@daily", kwargs={"retention_days": 4321})
        assert found.values["kwargs.retention_days"] == {"value": "(not shown)", "from": "code"}
        assert "4321" not in str(as_json([found]))


class TestClockChanges:
    def test_a_run_that_is_moved_and_one_that_is_doubled(self) -> None:
        """Both days of the coming year are told, with what happens."""
        found = row(cron="0 30 2 * * *", timezone="Europe/Rome").clock_changes
        assert [change["at"] for change in found] == ["2027-03-28T03:00:00+02:00", "2027-10-31T02:30:00+02:00"]
        assert "jumps over" in found[0]["note"]
        assert "twice" in found[1]["note"]

    def test_a_run_at_another_hour(self) -> None:
        """A job at noon has nothing to fear."""
        assert row(cron="0 0 12 * * *", timezone="Europe/Rome").clock_changes == []

    def test_a_run_each_second(self) -> None:
        """Of many doubled runs the first is told."""
        found = row(cron="* * * * * *", timezone="Europe/Rome").clock_changes
        assert [change["at"] for change in found] == ["2027-10-31T02:00:00+02:00"]

    def test_a_run_in_a_few_years(self) -> None:
        """What does not run around a change is not searched for."""
        assert row(cron="0 30 2 29 2 *", timezone="Europe/Rome").clock_changes == []


class TestWarnings:
    def test_a_timeout_longer_than_the_gap(self) -> None:
        """Runs would be skipped."""
        assert "a run may take 90 s" in row(cron="0 * * * * *", timeout=90).warnings[0]

    def test_a_gap_that_the_clock_makes_shorter(self) -> None:
        """Between 1:30 and 3:30 is one hour on the night in which the clock goes forward."""
        settings = BackgroundJobsSettings.defaults()
        jobs = BackgroundJobs(settings=settings)
        jobs.add_background_job(work, cron="0 30 1,3 * * *", timezone="Europe/Rome", timeout=5400)
        night = datetime(2027, 3, 28, tzinfo=UTC)
        (found,) = rows(list(jobs._lifecycle.ledger.jobs.values()), settings, night, 2)
        assert "the next is due after 3600 s" in found.warnings[0]

    @pytest.mark.parametrize("options", [{"timeout": 30}, {"timeout": 90, "max_instances": 2}, {}])
    def test_none_where_runs_cannot_meet(self, options: dict[str, Any]) -> None:
        """A shorter timeout, several instances, or no timeout: nothing to warn of."""
        assert row(cron="0 * * * * *", **options).warnings == []


class TestText:
    def test_tables_are_aligned(self) -> None:
        """Columns begin at the same place in each line; further runs stand below the first."""
        text = as_text([row(cron="0 0 9 * * *")])
        assert text.splitlines()[:3] == [
            "JOB   CRON         ZONE  NEXT RUNS",
            "work  0 0 9 * * *  UTC   2026-11-24T09:00:00+00:00",
            "                         2026-11-25T09:00:00+00:00",
        ]
        assert "Changes of the clock" not in text
        assert "Warnings" not in text

    def test_what_is_to_be_noticed(self) -> None:
        """Changes of the clock and warnings have lists of their own."""
        text = as_text([row(cron="0 30 2 * * *", timezone="Europe/Rome", timeout=100_000)])
        assert "Changes of the clock within a year:\n  work: 2027-03-28T03:00:00+02:00: moved" in text
        assert "Warnings:\n  work: a run may take" in text

    @pytest.mark.parametrize(
        ("options", "word"), [({"cron": "-"}, "switched off"), ({"cron": "@daily", "end_date": "2026-01-01"}, "none")]
    )
    def test_jobs_without_runs(self, options: dict[str, Any], word: str) -> None:
        """A word stands in place of the next run."""
        assert as_text([row(**options)]).splitlines()[1].endswith(word)
