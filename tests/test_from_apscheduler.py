"""What meets people who come from APScheduler, beside what their page of the documentation runs itself."""

from __future__ import annotations

from typing import Any

import pytest
from flask_apscheduler import APScheduler

from bgjobs import BackgroundJobs, ConfigurationError
from stage import NIGHTLY, cold, nothing


@pytest.mark.parametrize(
    ("argument", "instead"),
    [
        ({"args": ["Rome"]}, "give kwargs={'name': value}, or functools.partial(job, value) as the job"),
        ({"func": nothing}, "give the function first, without a name"),
        ({"id": "report"}, "give key"),
        ({"name": "Report"}, "give key, which names the job everywhere"),
        ({"next_run_time": None}, "give run_immediately=True to run at once, or start_date for the earliest run"),
        ({"replace_existing": True}, "leave it out, since a job takes over its row in a job store"),
        ({"run_date": "2027-01-01"}, "give trigger=DateTrigger(run_date=...) of apscheduler.triggers.date"),
        ({"minutes": 5}, "give trigger=IntervalTrigger(minutes=...) of apscheduler.triggers.interval"),
        ({"day_of_week": "mon"}, "give cron; on the command line, `bgjobs convert day_of_week=...` prints it"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_an_argument_of_add_job_is_refused_with_what_stands_for_it(argument: dict[str, Any], instead: str) -> None:
    """People who write what they know from APScheduler are told what to write here."""
    (name,) = argument
    with pytest.raises(ConfigurationError) as caught:
        cold().add_background_job(nothing, cron=NIGHTLY, **argument)
    assert str(caught.value) == f"job 'nothing': {name}: there is no such option; {instead}"
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("trigger", "instead"),
    [
        ("interval", "IntervalTrigger(...) of apscheduler.triggers.interval"),
        ("date", "DateTrigger(...) of apscheduler.triggers.date"),
        ("calendarinterval", "CalendarIntervalTrigger(...) of apscheduler.triggers.calendarinterval"),
        ("cron", 'cron="0 0 9 * * *" instead'),
        (NIGHTLY, 'cron="0 0 9 * * *" instead'),
    ],
)
def test_a_trigger_by_name_is_refused_with_the_object_to_give(trigger: str, instead: str) -> None:
    """The names that ``add_job`` takes are told apart from an expression that was meant for *cron*."""
    with pytest.raises(ConfigurationError) as caught:
        cold().add_background_job(nothing, trigger=trigger)
    problem = f"job 'nothing': trigger must be an APScheduler trigger, not {trigger!r}"
    assert str(caught.value) == f"{problem}; give {instead}"


def test_the_scheduler_inside_flask_apscheduler_is_named() -> None:
    """Its extension object is no scheduler, but has one, which can run jobs."""
    extension = APScheduler()
    with pytest.raises(ConfigurationError) as caught:
        BackgroundJobs(extension)
    assert str(caught.value) == "an object of type APScheduler cannot run jobs; give its .scheduler"
    assert "BackgroundJobs" in repr(BackgroundJobs(extension.scheduler))
