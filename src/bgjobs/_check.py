"""What ``bgjobs check`` tells: the merged jobs, where each value came from, what comes next, what may surprise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Any

from ._cron.expression import Expression as CronExpression
from ._preview import dst_note
from ._runs.run import RegisteredJob
from ._settings.model import BackgroundJobsSettings

#: How far ahead changes of the clock are looked for.
YEAR = timedelta(days=366)
DAY = timedelta(days=1)
#: How many fire times around a change of the clock are looked at.
MOST = 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """One job, for people and for machines.

    Attributes:
        key: Its key.
        cron: Its cron text, or its trigger as text.
        timezone: The zone of its schedule; ``None`` where it has none, or is off.
        enabled: Whether it is to be scheduled.
        next_runs: The next fire times, ISO 8601.
        values: Each option that was set: its value as text (none for ``kwargs``, which may hold passwords), its place.
        clock_changes: The days within a year on which the clock moves or doubles a run: the first fire time, and how.
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


def rows(jobs: list[RegisteredJob], settings: BackgroundJobsSettings, now: datetime, count: int = 3) -> list[Row]:
    """A row for each job, as seen at `now`."""
    return [_row(job, settings, now, count) for job in jobs]


def as_json(found: list[Row]) -> dict[str, Any]:
    """The rows as plain data."""
    return {"jobs": [asdict(row) for row in found]}


def as_text(found: list[Row]) -> str:
    """The rows as aligned tables, then what is to be noticed."""
    jobs: list[tuple[str, ...]] = [("JOB", "CRON", "ZONE", "NEXT RUNS")]
    values: list[tuple[str, ...]] = [("JOB", "SETTING", "VALUE", "FROM")]
    for row in found:
        first, *more = row.next_runs or ["none" if row.enabled else "switched off"]
        jobs.append((row.key, row.cron, row.timezone or "-", first))
        jobs += [("", "", "", moment) for moment in more]
        values += [(row.key, name, value["value"], value["from"]) for name, value in row.values.items()]
    notes = [f"{row.key}: {change['at']}: {change['note']}" for row in found for change in row.clock_changes]
    warnings = [f"{row.key}: {warning}" for row in found for warning in row.warnings]
    parts = [_aligned(jobs), _aligned(values)]
    parts += [
        "\n".join((title, *(f"  {line}" for line in lines)))
        for title, lines in (("Changes of the clock within a year:", notes), ("Warnings:", warnings))
        if lines
    ]
    return "\n\n".join(parts)


def _aligned(table: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in table)


def _row(job: RegisteredJob, settings: BackgroundJobsSettings, now: datetime, count: int) -> Row:
    options = job.options
    values = {name: dict(zip(("value", "from"), pair, strict=True)) for name, *pair in _values(job, settings)}
    if job.schedule is None:
        return Row(
            job.key,
            options.cron or "-",
            None,
            enabled=False,
            next_runs=[],
            values=values,
            clock_changes=[],
            warnings=[],
        )
    trigger = job.schedule.trigger
    runs = _next(trigger, now, count)
    zone = getattr(trigger, "timezone", None)
    changes = list(_clock_changes(CronExpression(options.cron), zone, now)) if options.cron and zone else []
    return Row(
        job.key,
        options.cron or str(trigger),
        None if zone is None else str(zone),
        enabled=True,
        next_runs=[moment.isoformat(timespec="seconds") for moment in runs],
        values=values,
        clock_changes=changes,
        warnings=list(_warnings(job, runs)),
    )


def _next(trigger: Any, now: datetime, count: int) -> list[datetime]:
    """The next fire times; those of a cron text without their jitter."""
    following = getattr(trigger, "following", None)
    found: list[datetime] = []
    previous = None
    while len(found) < count:
        after = previous or now
        moment = following(after) if following else trigger.get_next_fire_time(previous, after)
        if moment is None:
            break
        found.append(moment)
        previous = moment
    return found


def _values(job: RegisteredJob, settings: BackgroundJobsSettings) -> Iterator[tuple[str, str, str]]:
    """Each option that somebody has set: its name, its value, and where it was given."""
    entry = settings.job(job.key)
    if entry is not None and entry.job is not None:
        yield "job", entry.job, settings.place("jobs", job.key, "job") or "settings"
    for name in type(job.options).model_fields:
        if name not in job.options.model_fields_set or name in ("key", "kwargs"):
            continue
        value = getattr(job.options, name)
        by_default = getattr(settings.job_defaults, name, None) == value  # else code has the last word
        defaults = settings.place("job_defaults", name) if by_default else None
        yield name, str(value), settings.place("jobs", job.key, name) or defaults or "code"
    if job.options.timezone is None and job.schedule is not None:
        yield "timezone", str(getattr(job.schedule.trigger, "timezone", "-")), settings.place("timezone") or "default"
    for name in job.options.kwargs:
        yield f"kwargs.{name}", "(not shown)", settings.place("jobs", job.key, "kwargs", name) or "code"


def _clock_changes(cron: CronExpression, zone: tzinfo, now: datetime) -> Iterator[dict[str, str]]:
    """The first run of each day on which the clock moves or doubles runs."""
    hours = [now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + n * DAY for n in range(YEAR.days + 1)]
    for before, after in pairwise(hours):
        change = _offset(after, zone) - _offset(before, zone)
        if not change:
            continue
        width = abs(change)
        moment = _change(before, after, zone) - width - timedelta(seconds=1)
        for _ in range(MOST):
            found = cron.occurrences(moment, zone, 1)
            if not found or found[0].astimezone(UTC) > moment.astimezone(UTC) + 3 * width:
                break
            moment = found[0]
            if note := dst_note(cron, moment):
                yield {"at": moment.isoformat(timespec="seconds"), "note": note}
                break


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _change(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """The minute at which the offset changes between two moments."""
    while after - before > timedelta(minutes=1):
        middle = before + (after - before) / 2
        if _offset(middle, zone) == _offset(before, zone):
            before = middle
        else:
            after = middle
    return after.replace(second=0, microsecond=0)


def _warnings(job: RegisteredJob, runs: list[datetime]) -> Iterator[str]:
    moments = [moment.astimezone(UTC) for moment in runs]  # two times of one zone are compared without their offsets
    gap = min((later - earlier for earlier, later in pairwise(moments)), default=None)
    timeout = job.options.timeout
    if gap is not None and timeout is not None and job.options.max_instances == 1 and timeout > gap.total_seconds():
        yield (
            f"a run may take {timeout:g} s (timeout), but the next is due after {gap.total_seconds():g} s, and is "
            "skipped while one is going"
        )
    if not runs:
        yield "no fire time is left before its end_date"
