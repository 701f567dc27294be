"""What ``bgjobs check`` and ``bgjobs next`` read and show: the merged jobs, where values came from, the next runs."""

from __future__ import annotations

import argparse
from bisect import bisect_left
from collections.abc import Hashable, Iterator
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any

from ._cron.explain import shown
from ._cron.expression import Expression
from ._runs.schedule import RegisteredJob
from ._settings.model import BackgroundJobsSettings

#: How many fire times can be listed.
MOST = 1_000_000

_NEXT = 3  # runs shown of a job
_YEAR = 366  # days
_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Row:
    """One job, for people and for machines.

    Attributes:
        key: Its key.
        cron: Its cron expression, or its trigger as text.
        timezone: The time zone of its schedule; ``None`` where it has none, or is switched off.
        enabled: Whether `warm_up` schedules it.
        next_runs: The next three fire times, ISO 8601.
        values: Each option that was set: its value as text (hidden for ``kwargs``, which may hold passwords) and where
            it was set.
        clock_changes: Each clock change within a year that moves or repeats a run: the first fire time, and how.
        warnings: What may surprise.
    """

    key: str
    cron: str
    timezone: str | None
    enabled: bool
    next_runs: list[str]
    values: dict[str, dict[str, str]]
    clock_changes: list[dict[str, str]]
    warnings: list[str]


def as_text(found: list[Row]) -> str:
    """Return the rows as aligned tables, followed by the clock changes and the warnings."""
    jobs: list[tuple[str, ...]] = [("JOB", "CRON", "ZONE", "NEXT RUNS")]
    values: list[tuple[str, ...]] = [("JOB", "SETTING", "VALUE", "FROM")]
    for row in found:
        first, *more = row.next_runs or ["none" if row.enabled else "switched off"]
        jobs.append((row.key, row.cron, row.timezone or "-", first))
        jobs += [("", "", "", moment) for moment in more]
        values += [(row.key, name, value["value"], value["from"]) for name, value in row.values.items()]
    changes = [f"{row.key}: {change['at']}: {change['note']}" for row in found for change in row.clock_changes]
    warnings = [f"{row.key}: {warning}" for row in found for warning in row.warnings]
    parts = [aligned(jobs), aligned(values)]
    for title, lines in (("Changes of the clock within a year:", changes), ("Warnings:", warnings)):
        if lines:
            parts.append("\n  ".join((title, *lines)))
    return "\n\n".join(parts)


def number_of(text: str) -> int:
    """Read how many fire times are wanted, for argparse."""
    if not (text.isdecimal() and len(text) <= len(str(MOST)) and 0 < int(text) <= MOST):
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number from 1 to {MOST}")
    return int(text)


def time_of(text: str) -> datetime:
    """Read a time, for argparse."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is no ISO 8601 time, as in 2026-12-31T23:59:00+01:00"
        ) from None


def preview(expression: str, timezone: tzinfo, after: datetime, count: int) -> list[str]:
    """Return a line for each of the next fire times: in the time zone, in UTC, and what a clock change does to it.

    Args:
        expression: A cron expression.
        timezone: The time zone in which the hours are meant.
        after: An aware time in any time zone; only later fire times are listed.
        count: How many fire times are listed.

    Raises:
        CronFormatError: The expression does not follow the grammar.
        NeverFiresError: No date can ever match.
    """
    cron = Expression(expression)
    return [
        f"{moment.isoformat()}  {moment.astimezone(UTC).isoformat()}  {_dst_note(cron, moment)}".rstrip()
        for moment in cron.occurrences(after, timezone, count)
    ]


def aligned(table: list[tuple[str, ...]]) -> str:
    """Return lines of cells as text, in columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in table)


def row_of(job: RegisteredJob, settings: BackgroundJobsSettings, now: datetime) -> Row:
    """Return the row of a job, as seen at `now`."""
    trigger = job.schedule.trigger if job.schedule else None
    expression: Expression | None = getattr(trigger, "expression", None)
    zone: tzinfo | None = getattr(trigger, "timezone", None)
    runs = _next_runs(trigger, now) if trigger else []
    return Row(
        key=job.key,
        cron=job.options.cron or str(trigger or "-"),
        timezone=None if zone is None else str(zone),
        enabled=trigger is not None,
        next_runs=[moment.isoformat(timespec="seconds") for moment in runs],
        values={name: {"value": value, "from": place} for name, value, place in _values(job, settings)},
        clock_changes=list(_clock_changes(expression, zone, now)) if expression and zone else [],
        warnings=["no fire time is left before its end_date"] if trigger and not runs else [],
    )


def _values(job: RegisteredJob, settings: BackgroundJobsSettings) -> Iterator[tuple[str, str, str]]:
    """Yield each option that was set: its name, its value, and where it was set.

    The settings are asked only for the places of what they set: with many jobs, a search in vain takes long.
    """
    entry = settings.job(job.key)
    overrides = {} if entry is None else entry.overrides()
    defaults = settings.job_defaults.model_dump(exclude_unset=True)
    if entry is not None and entry.job is not None:
        yield "job", entry.job, settings.place("jobs", job.key, "job") or "settings"
    for name in type(job.options).model_fields:
        if name not in job.options.model_fields_set or name in ("key", "kwargs"):
            continue
        value, place = getattr(job.options, name), None
        if name in overrides:
            place = settings.place("jobs", job.key, name)
        elif (name, value) in defaults.items():  # else code has another value, which has won
            place = settings.place("job_defaults", name)
        yield name, str(value), place or "code"
    if job.options.timezone is None and job.schedule is not None:
        place = settings.place("timezone") if settings.timezone else None
        yield "timezone", str(getattr(job.schedule.trigger, "timezone", "-")), place or "default"
    for name in job.options.kwargs:
        place = settings.place("jobs", job.key, "kwargs", name) if "kwargs" in overrides else None
        yield f"kwargs.{name}", "(not shown)", place or "code"


# -- fire times ------------------------------------------------------------------------------------------------------


def _next_runs(trigger: Any, now: datetime) -> list[datetime]:
    """Return the next fire times without jitter, so that each call returns the same ones."""
    if getattr(trigger, "jitter", None):
        trigger = copy(trigger)
        trigger.jitter = None
    found: list[datetime] = []
    moment: datetime | None = None
    while len(found) < _NEXT and (moment := trigger.get_next_fire_time(moment, moment or now)):
        found.append(moment)
    return found


def _clock_changes(cron: Expression, zone: tzinfo, now: datetime) -> Iterator[dict[str, str]]:
    """Yield the first run that each clock change within a year moves or repeats."""
    changes = _changes if isinstance(zone, Hashable) else _changes.__wrapped__
    for change in changes(zone, now):
        # A clock that goes forward moves runs to the very moment of the change. One that goes back repeats what it
        # showed just before the change, and the first passage has the first run.
        repeated = max(_offset(change - _MINUTE, zone) - _offset(change, zone), timedelta(0))
        first = next(iter(cron.occurrences(change - repeated - _SECOND, zone, 1)), None)
        if first and first.astimezone(UTC) <= change and (note := _dst_note(cron, first)):
            yield {"at": first.isoformat(timespec="seconds"), "note": note}


@lru_cache(maxsize=64)  # thousands of jobs are in few zones
def _changes(zone: tzinfo, now: datetime) -> list[datetime]:
    """Return the minutes (UTC) within a year at which a time zone changes its offset."""
    changes = []
    begin = now.astimezone(UTC).replace(second=0, microsecond=0)
    for day in (begin + n * _DAY for n in range(_YEAR)):
        before = _offset(day, zone)
        if _offset(day + _DAY, zone) != before:
            changed = bisect_left(range(24 * 60), True, key=lambda n: _offset(day + n * _MINUTE, zone) != before)
            changes.append(day + changed * _MINUTE)
    return changes


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _dst_note(cron: Expression, moment: datetime) -> str:
    """Say what a clock change does to a fire time of an expression; empty where it does nothing."""
    wall = moment.replace(tzinfo=None, fold=0)
    if cron.calendar.next_wall(wall) != wall:
        before = (moment.astimezone(UTC) - _SECOND).astimezone(moment.tzinfo)
        skipped = cron.calendar.next_wall(before.replace(tzinfo=None, fold=0) + _SECOND)
        return f"moved from {skipped:%Y-%m-%dT%H:%M:%S}, which the clock jumps over"
    if moment.utcoffset() == moment.replace(fold=1 - moment.fold).utcoffset():
        return ""
    if cron.fields.interval:
        return f"the clock shows this time twice: passage {moment.fold + 1}, fires in both"
    return "the clock shows this time twice: fires in the first passage only"
