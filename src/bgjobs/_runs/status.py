"""What has become of a job's runs: bgjobs' own bookkeeping, which never waits for the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

#: How a run can end.
SUCCEEDED, FAILED, TIMED_OUT, CANCELLED = "succeeded", "failed", "timed_out", "cancelled"
OUTCOMES = (SUCCEEDED, FAILED, TIMED_OUT, CANCELLED)

#: Why a run that was due was not made.
OVERLAPPED, MISSED, COALESCED, PAUSED = "overlapped", "missed", "coalesced", "paused"
CLOSING, OVERTAKEN, REPEATED = "closing", "overtaken", "repeated"
REASONS = (OVERLAPPED, MISSED, COALESCED, PAUSED, CLOSING, OVERTAKEN, REPEATED)

#: Seconds by which a run may be late before `Health` calls its job overdue.
OVERDUE = 10.0

#: Fire times that are counted one by one, at most, where many were left out.
MANY = 10_000


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job, and what has become of its runs since the process started; a row of ``jobs.status()``.

    Attributes:
        key: The key of the job.
        cron: Its cron text; ``None`` where it has a trigger of another kind, or none.
        timezone: The zone of its schedule, as text; ``None`` where the trigger keeps that to itself.
        next_run_time: The next fire time (aware); ``None`` while there is none.
        paused: Whether it was paused.
        finished: Whether no fire time is left.
        running: How many runs are going now.
        last_started_at: When the latest run began (aware); ``None`` before the first.
        last_finished_at: When the latest run to end has ended (aware); ``None`` before the first.
        last_outcome: How that one ended: ``"succeeded"``, ``"failed"``, ``"timed_out"`` or ``"cancelled"``.
        last_error: The error of the latest failed run, as ``"ValueError: text"``; ``None`` for none.
        outcomes: How many runs ended in each of the four ways.
        not_run: How many due runs were not made, by reason: ``"overlapped"`` (earlier ones were going), ``"missed"``
            (later than its grace time), ``"coalesced"`` (made as one with a later one), ``"paused"``, ``"closing"``,
            ``"overtaken"`` (an immediate run, by a scheduled one), ``"repeated"`` (this occurrence was made already).
    """

    key: str
    cron: str | None
    timezone: str | None
    next_run_time: datetime | None
    paused: bool
    finished: bool
    running: int
    last_started_at: datetime | None
    last_finished_at: datetime | None
    last_outcome: str | None
    last_error: str | None
    outcomes: Mapping[str, int]
    not_run: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the jobs are doing what they should; true when they are.

    Attributes:
        ok: Whether there is no problem.
        problems: What is wrong, in words: one sentence a problem.
    """

    ok: bool
    problems: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.ok


class Tally:
    """What is counted of one job's runs.

    Attributes:
        started_at: When the latest run began; seconds since the epoch.
        finished_at: When the latest run ended; seconds since the epoch.
        outcome: How it ended.
        error: The error of the latest failed run.
        counts: How often each outcome and each reason came.
    """

    started_at: float | None = None
    finished_at: float | None = None
    outcome: str | None = None
    error: str | None = None

    def __init__(self) -> None:
        self.counts = dict.fromkeys((*OUTCOMES, *REASONS), 0)

    def of(self, names: tuple[str, ...]) -> Mapping[str, int]:
        """A copy of the counts with these names."""
        return {name: self.counts[name] for name in names}


class Schedule:
    """When a job is due, as far as bgjobs has seen it.

    Attributes:
        trigger: The APScheduler trigger.
        following: Tells the fire time after one; ``None`` where that cannot be told.
        entry: The APScheduler job, where the scheduler keeps this very object (in memory); else ``None``.
        expected: The next fire time (UTC); ``None`` where it is not known or there is none.
        ticked_at: The latest fire time that APScheduler came with (UTC).
        paused_at: Since when the job is paused; ``None`` where it is not.
    """

    entry: Any = None
    expected: datetime | None = None
    ticked_at: datetime | None = None
    paused_at: datetime | None = None

    def __init__(self, trigger: Any, following: Callable[[datetime], datetime | None] | None = None) -> None:
        self.trigger = trigger
        self.following = following

    def begin(self) -> None:
        """Expect the first fire time from now on."""
        self.ticked_at = None
        self.expected = self.after(None, datetime.now(UTC))

    def tick(self, fire_time: datetime) -> int:
        """Take note of a fire time that APScheduler came with. Returns how many before it were left out.

        Nothing changes for one that comes after a later one: a run that waited for its executor.
        """
        if self.ticked_at is not None and fire_time <= self.ticked_at:
            return 0
        expected, self.ticked_at, self.expected = self.expected, fire_time, None
        if self.following is None:
            return 0
        found = self.following(fire_time)
        self.expected = None if found is None else found.astimezone(UTC)
        return 0 if expected is None or expected >= fire_time else self.count(expected, fire_time)

    def count(self, begin: datetime | None, end: datetime) -> int:
        """How many fire times there are from the fire time `begin` until before `end`, `MANY` at most."""
        counted = 0
        while self.following and begin is not None and begin < end and counted < MANY:
            counted += 1
            begin = self.after(begin, begin)
        return counted

    def after(self, fire_time: datetime | None, now: datetime) -> datetime | None:
        """The fire time after one, in UTC; for ``None``, the first from `now` on."""
        if self.following is not None and fire_time is not None:
            found = self.following(fire_time)
        else:
            found = self.trigger.get_next_fire_time(fire_time, now)
        return None if found is None else found.astimezone(UTC)

    @property
    def is_paused(self) -> bool:
        """Whether it was paused, by us or through APScheduler itself."""
        return self.paused_at is not None or (hasattr(self.entry, "next_run_time") and self.entry.next_run_time is None)

    def next_run_time(self, now: datetime) -> datetime | None:
        """The next fire time; ``None`` while paused, and when none is left."""
        if self.is_paused:
            return None
        held: datetime | None = getattr(self.entry, "next_run_time", None)
        if held is not None and held.astimezone(UTC) != self.ticked_at:  # changed through APScheduler itself, maybe
            return held
        due = self.expected or self.after(self.ticked_at, now)
        zone = getattr(self.trigger, "timezone", None)
        return due.astimezone(zone) if due is not None and zone is not None else due

    def overdue(self, now: datetime) -> float | None:
        """The seconds by which a run is overdue; ``None`` where none is, or not by much."""
        due = self.next_run_time(now)
        late = (now - due).total_seconds() - (getattr(self.trigger, "jitter", None) or 0) if due else 0
        return late if late > OVERDUE else None


def row(key: str, cron: str | None, running: int, schedule: Schedule | None, tally: Tally) -> JobStatus:
    """A picture of one job as it is now."""
    due = schedule.next_run_time(datetime.now(UTC)) if schedule else None
    paused = schedule is not None and schedule.is_paused
    timezone = getattr(schedule.trigger, "timezone", None) if schedule else None
    return JobStatus(
        key=key,
        cron=cron,
        timezone=None if timezone is None else str(timezone),
        next_run_time=due,
        paused=paused,
        finished=schedule is not None and due is None and not paused,
        running=running,
        last_started_at=_moment(tally.started_at),
        last_finished_at=_moment(tally.finished_at),
        last_outcome=tally.outcome,
        last_error=tally.error,
        outcomes=tally.of(OUTCOMES),
        not_run=tally.of(REASONS),
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
