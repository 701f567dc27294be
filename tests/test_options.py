"""One job's options."""

from __future__ import annotations

import typing
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from bgjobs import (
    BackgroundJobOptions,
    BackgroundJobs,
    BgjobsError,
    ConfigurationError,
    CronFormatError,
    DuplicateJobError,
    NeverFiresError,
)
from bgjobs._options import JobOptions, Registration  # the types of keywords, held against the model
from stage import NIGHTLY, cold


def job() -> None: ...


def test_the_keywords_for_type_checkers_are_the_options() -> None:
    """The typed keywords and the named parameters of ``add_background_job`` are the fields of the model, together."""
    named = {"cron", "trigger", "run_immediately", "key", "kwargs"}
    assert JobOptions.__annotations__.keys() | named == BackgroundJobOptions.model_fields.keys()
    hints = typing.get_type_hints(BackgroundJobs.add_background_job)
    own = {"job", "more", "return"}
    assert hints.keys() - own == typing.get_type_hints(Registration).keys() - JobOptions.__annotations__.keys()
    assert named | {"on_exception", "options"} == hints.keys() - own


def test_the_defaults_are_those_of_the_original() -> None:
    """Late runs happen, once; nothing overlaps; everything else is as plain as can be."""
    options = BackgroundJobOptions()
    assert (options.misfire_grace_time, options.coalesce, options.max_instances) == (None, True, 1)
    assert (options.enabled, options.run_immediately, options.kwargs) == (True, False, {})
    assert (options.executor, options.jobstore) == ("default", "default")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param(
            {"cron": "0 0 25 * * *"}, CronFormatError, 'hour: 25 is outside 0-23 in "0 0 25 * * *"', id="cron"
        ),
        pytest.param({"cron": "0 0 0 30 2 *"}, NeverFiresError, "0 0 0 30 2 *", id="never"),
        pytest.param(
            {"cron": NIGHTLY, "key": " "},
            ConfigurationError,
            "the key is empty; give a name that is unique among the jobs",
            id="empty-key",
        ),
        pytest.param(
            {"cron": NIGHTLY, "key": "a:startup"},
            ConfigurationError,
            "the key 'a:startup' ends in ':startup', which marks immediate runs",
            id="reserved-key",
        ),
        pytest.param(
            {"cron": NIGHTLY, "key": "a:late"},
            ConfigurationError,
            "the key 'a:late' ends in ':late', which marks late runs",
            id="reserved-key-of-late-runs",
        ),
        pytest.param(
            {"cron": NIGHTLY, "run_imediately": True},
            ConfigurationError,
            "job 'job': run_imediately: there is no such option; did you mean 'run_immediately'?",
            id="unknown",
        ),
        pytest.param(
            {"cron": NIGHTLY, "timezone": "Europe/Roma"},
            ConfigurationError,
            "job 'job': timezone: there is no time zone 'Europe/Roma'; did you mean Europe/Rome",
            id="zone",
        ),
        pytest.param(
            {"cron": NIGHTLY, "max_instances": 0, "timeout": -1},
            ConfigurationError,
            "job 'job': max_instances: Input should be greater than 0; timeout: Input should be greater than 0",
            id="two-mistakes",
        ),
        pytest.param(
            {"cron": NIGHTLY, "trigger": IntervalTrigger(seconds=90)},
            ConfigurationError,
            "job 'job': cron and trigger are both given; a trigger is the whole schedule",
            id="two-schedules",
        ),
        pytest.param(
            {"trigger": IntervalTrigger(seconds=90), "jitter": 3},
            ConfigurationError,
            "job 'job': jitter and trigger are both given; a trigger is the whole schedule",
            id="jitter-beside-trigger",
        ),
        pytest.param(
            {"trigger": "interval"},
            ConfigurationError,
            "job 'job': trigger must be an APScheduler trigger, not 'interval'",
            id="no-trigger",
        ),
        pytest.param(
            {},
            ConfigurationError,
            "job 'job' has no schedule; give cron or trigger, or set its cron in the settings",
            id="no-schedule",
        ),
    ],
)
def test_bad_options_are_one_clear_error(options: dict[str, Any], error: type[BgjobsError], message: str) -> None:
    """Each mistake is reported at registration, by its own error."""
    with pytest.raises(error) as caught:
        cold().add_background_job(job, **options)
    assert message in str(caught.value)


def test_a_second_job_with_the_same_key_is_refused() -> None:
    """The error says to set `key`."""
    jobs = cold().add_background_job(job, cron=NIGHTLY)
    with pytest.raises(DuplicateJobError, match="'job' is registered already; set key") as caught:
        jobs.add_background_job(job, cron=NIGHTLY)
    assert caught.value.key == "job"


def test_a_ready_model_gives_options_and_keywords_win() -> None:
    """`options` and keywords go together; where both set an option, the keyword counts."""
    scheduler = BackgroundScheduler()
    ready = BackgroundJobOptions(cron=NIGHTLY, key="ready", misfire_grace_time=3, coalesce=False)
    with cold(scheduler).add_background_job(job, options=ready, misfire_grace_time=2) as jobs:
        row = scheduler.get_job("bgjobs:ready")
        assert (row.misfire_grace_time, row.coalesce) == (2, False)
        assert jobs.status()[0].cron == NIGHTLY


def test_the_decorator_returns_the_job_unchanged() -> None:
    """A decorated class or function is still itself, and registered."""
    jobs = cold()

    @jobs.background_job(cron=NIGHTLY, key="nightly")
    def decorated() -> int:
        return 1

    assert decorated() == 1
    assert [(row.key, row.cron) for row in jobs.status()] == [("nightly", NIGHTLY)]


def test_a_decorator_serves_more_than_one_job() -> None:
    """A stored decorator keeps nothing of the first job that it registered."""
    jobs = cold()
    nightly = jobs.background_job(cron=NIGHTLY)

    @nightly
    def one() -> None: ...

    @nightly
    def two() -> None: ...

    assert [row.key for row in jobs.status()] == ["one", "two"]


def test_the_limits_of_the_schedule_reach_the_trigger() -> None:
    """`start_date`, `end_date`, `jitter` and `timezone` are the trigger's own."""
    start, end = datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    scheduler = BackgroundScheduler()
    limits: JobOptions = {"timezone": "Europe/Rome", "start_date": start, "end_date": end, "jitter": 2}
    with cold(scheduler).add_background_job(job, cron=NIGHTLY, **limits):
        trigger = scheduler.get_job("bgjobs:job").trigger
    assert (trigger.start_date, trigger.end_date, trigger.jitter) == (start, end, 2)
    assert trigger.timezone == ZoneInfo("Europe/Rome")


def test_a_job_that_has_ended_is_finished_with_a_warning(records: Any) -> None:
    """An `end_date` in the past is no error; the job is not scheduled, not even at once."""
    scheduler = BackgroundScheduler()
    jobs = cold(scheduler).add_background_job(
        job, cron=NIGHTLY, end_date=datetime.now(UTC) - timedelta(days=1), run_immediately=True
    )
    with jobs:
        assert scheduler.get_jobs() == []
    assert records.texts("WARNING") == ["job 'job' is finished: no fire time is left before its end"]


@pytest.mark.parametrize("off", [{"enabled": False}, {"cron": "-"}, {"enabled": False, "cron": None}])
def test_a_job_can_be_switched_off(off: dict[str, Any], records: Any) -> None:
    """``enabled=False`` and ``cron="-"`` keep the job registered, and never run it."""
    scheduler = BackgroundScheduler()
    jobs = cold(scheduler).add_background_job(job, **{"cron": NIGHTLY, **off}, run_immediately=True)
    with jobs:
        assert scheduler.get_jobs() == []
    assert "job 'job' is switched off" in records.texts("INFO")
