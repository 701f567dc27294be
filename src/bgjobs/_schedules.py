"""Builds schedules: of a job that is registered, of one that is rescheduled; and the arguments of an extra run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import tzinfo
from typing import Any

from ._apscheduler.scheduler import SchedulerBridge, is_trigger
from ._apscheduler.trigger import CronExpression, following
from ._cron.expression import zone
from ._errors import ConfigurationError, fold, named, nearest
from ._options import OFF, BackgroundJobOptions, build
from ._runs import log
from ._runs.schedule import RegisteredJob, Schedule

_A_CRON = '; give cron="0 0 9 * * *" instead'
#: What to write instead of the names that APScheduler's ``add_job`` takes as a trigger.
_TRIGGERS = {
    name.lower(): f"; give {name}Trigger(...) of apscheduler.triggers.{name.lower()}"
    for name in ("Interval", "Date", "CalendarInterval")
}


def default_timezone(chosen: tzinfo | str | None, given: SchedulerBridge | None) -> tzinfo:
    """Return the zone of jobs that name none: that of the settings, of the scheduler of the user, else UTC."""
    if chosen is not None or given is None:
        return zone(chosen or "UTC")
    log.info(f"jobs without a time zone of their own run in the scheduler's: {given.timezone}")
    return given.timezone


def schedule_of(options: BackgroundJobOptions, where: str, timezone: tzinfo, known: Iterable[str] = ()) -> Schedule:
    """Return the schedule of a job that is switched on.

    Args:
        options: Its options.
        where: What they belong to, for the error.
        timezone: The time zone of jobs that name none.
        known: The jobs of the settings: one of them may be meant for this one.

    Raises:
        BgjobsError: It has none, or a wrong one.
    """
    trigger = options.trigger
    if trigger is None:
        if options.cron is None:
            key = options.key or ""
            near = nearest(key, (name for name in known if fold(name) != fold(key)))
            hint = f", which have a job {near!r}" if near else ""
            message = f"{where} has no schedule; give cron or trigger, or set its cron in the settings{hint}"
            raise ConfigurationError(message, "cron")
        trigger = CronExpression(options.cron).trigger(
            options.timezone or timezone,
            start_date=options.start_date,
            end_date=options.end_date,
            jitter=options.jitter,
        )
    elif not is_trigger(trigger):
        instead = _TRIGGERS.get(trigger, _A_CRON) if isinstance(trigger, str) else ""
        message = f"{where}: trigger must be an APScheduler trigger, not {named(trigger)}{instead}"
        raise ConfigurationError(message, "trigger")
    return Schedule(trigger, following(trigger))


def run_kwargs(job: RegisteredJob, given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return all arguments of an extra run that is given some of its own; ``None`` for those of the job.

    Raises:
        InvalidJobError: The job has no such argument, or it is of the wrong type.
    """
    if given is None:
        return None
    kwargs = {**job.options.kwargs, **given}
    job.target.check_types(given, job.key)
    job.target.check_kwargs(kwargs, job.key)
    return kwargs


def rescheduled(
    job: RegisteredJob, values: Mapping[str, Any], timezone: tzinfo
) -> tuple[BackgroundJobOptions, Schedule | None]:
    """Return the options and the schedule of a job that gets another schedule; no schedule for one that is off.

    Args:
        job: The job.
        values: What is new of ``cron``, ``trigger`` and ``timezone``; ``None`` for what stays.
        timezone: The time zone of jobs that name none.

    Raises:
        BgjobsError: Whatever is wrong with the new schedule.
    """
    where = f"job {job.key!r}"
    new = {name: value for name, value in values.items() if value is not None}
    if not new:
        raise ConfigurationError(f"{where}: give cron, trigger or timezone to reschedule it", "cron")
    if new.get("cron") == OFF:
        raise ConfigurationError(
            f"{where}: {OFF!r} switches a job off for good; pause() or remove() it instead", "cron"
        )
    if new.keys() == {"timezone"} and job.options.trigger is not None:
        message = f"{where} has a trigger, which has a time zone already; give cron or trigger to reschedule it"
        raise ConfigurationError(message, "timezone")
    before = {name: getattr(job.options, name) for name in job.options.model_fields_set}
    other = ("cron", "timezone", "jitter", "start_date", "end_date") if "trigger" in new else ("trigger",)
    kept = {name: value for name, value in before.items() if name not in other}
    options = build({**kept, **new}, where)
    return options, schedule_of(options, where, timezone) if options.is_on else None
