"""When a job is due, and what has become of its runs: what bgjobs knows of one job without asking its scheduler.

bgjobs keeps these books itself, so that ``jobs.status()`` and ``jobs.health()`` never wait for APScheduler's locks,
which a slow job store can hold for seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from .status import OUTCOMES, REASONS, JobStatus, Outcome
from .threads import waits

#: The kinds of run: at its fire time, the one at warm-up, and the one that makes up for a fire time that all replicas
#: have missed. Any other kind is the id of one extra run.
SCHEDULED, STARTUP, LATE = "scheduled", "startup", "late"

#: Gives the fire time after one, or the first from a moment on.
Following = Callable[[datetime | None, datetime], datetime | None]

#: Skipped fire times are counted one by one, up to this many.
MANY = 10_000

#: So many one-shots of a job are remembered, the latest: none runs again because its job store did not delete it.
REMEMBERED = 1_000


class Tally:
    """What is counted of one job's runs.

    Attributes:
        started_at: When the latest run started; seconds since the epoch.
        finished_at: When the latest run ended; seconds since the epoch.
        outcome: How it ended.
        seconds: How long it took.
        succeeded_at: When the latest run that succeeded ended; seconds since the epoch.
        failures: How many runs have failed or timed out since then.
        error: The error of the latest failed run.
        refused_since: When an executor first took no more work since the latest run started (`time.monotonic`).
        counts: How often each outcome and each reason occurred.
    """

    started_at: float | None = None
    finished_at: float | None = None
    outcome: str | None = None
    seconds: float | None = None
    succeeded_at: float | None = None
    failures = 0
    error: str | None = None
    refused_since: float | None = None

    def __init__(self) -> None:
        self.counts = dict.fromkeys(map(str, Outcome), 0)

    def ended(self, outcome: Outcome, seconds: float, error: str | None) -> None:
        """Count a run."""
        self.finished_at, self.outcome, self.seconds = time.time(), outcome, seconds
        self.counts[outcome] += 1
        self.error = error or self.error
        if outcome == Outcome.SUCCEEDED:
            self.succeeded_at, self.failures = self.finished_at, 0
        elif outcome != Outcome.CANCELLED:
            self.failures += 1


class Schedule:
    """When a job is due, as far as bgjobs has seen it.

    Attributes:
        trigger: The APScheduler trigger.
        following: Gives the fire time after one, or the first from now on, without jitter; ``None`` where that cannot
            be known.
        entry: The APScheduler job as it was last added, submitted or resumed; in memory, the one that is kept.
        expected: The next fire time (UTC); ``None`` where it is not known or there is none.
        ticked_at: The latest fire time that APScheduler came with (UTC); its run may still wait for a thread.
        paused_at: Since when the job is paused; ``None`` where it is not.
        resumed: Whether it was resumed while cold, so that a pause in a job store is over.
        is_held: Whether it is paused in all replicas, as far as this one has heard.
    """

    entry: Any = None
    expected: datetime | None = None
    ticked_at: datetime | None = None
    paused_at: datetime | None = None
    resumed = False
    is_held = False

    def __init__(self, trigger: Any, following: Following | None = None) -> None:
        self.trigger = trigger
        self.following = following

    def share(self, key: str) -> None:
        """Compute the same fire times as in other replicas, jitter included."""
        if hasattr(self.trigger, "seed"):
            self.trigger.seed = key

    def take_over(self, former: Schedule) -> None:
        """Keep the pause of the schedule that this one replaces."""
        self.paused_at, self.is_held, self.resumed = former.paused_at, former.is_held, former.resumed

    def begin(self) -> None:
        """Expect the first fire time from now on."""
        self.ticked_at = None
        self.expected = self.after(None, datetime.now(UTC))

    def was_ticked(self, fire_time: datetime) -> bool:
        """Whether APScheduler came with this fire time, or a later one: it comes with them in order."""
        return self.ticked_at is not None and fire_time <= self.ticked_at

    def tick(self, fire_time: datetime, earliest: datetime | None = None) -> datetime | None:
        """Note the last fire time (UTC) that APScheduler came with. Returns the first one that was expected.

        The `earliest` is when APScheduler had the job due; at first, it has another idea of when that was than we had.
        """
        expected = earliest if self.ticked_at is None and earliest is not None else self.expected
        self.ticked_at = fire_time
        self.expected = self.after(fire_time, fire_time) if self.following is not None else None
        return expected

    def left_out(self, expected: datetime | None, fire_time: datetime) -> int:
        """How many fire times were left out between the one that was expected and the one that came."""
        own = bool(getattr(self.trigger, "jitter", None))  # lies before the one that came, which is later by the jitter
        return max(0, self.count(expected, fire_time) - own)

    def count(self, begin: datetime | None, end: datetime) -> int:
        """How many fire times there are from the fire time `begin` until before `end`, `MANY` at most."""
        counted = 0
        while self.following and begin is not None and begin < end and counted < MANY:
            counted += 1
            begin = self.after(begin, begin)
        return counted

    def after(self, fire_time: datetime | None, now: datetime) -> datetime | None:
        """The fire time after one, in UTC; for ``None``, the first from `now` on."""
        found = (self.following or self.trigger.get_next_fire_time)(fire_time, now)
        return None if found is None else found.astimezone(UTC)

    @property
    def is_paused(self) -> bool:
        """Whether it was paused, by us or through APScheduler itself."""
        if self.paused_at is not None or self.is_held:
            return True
        return hasattr(self.entry, "next_run_time") and self.entry.next_run_time is None

    @cached_property
    def text(self) -> str:
        """What it is in words, without jitter: replicas with the same text have the same fire times."""
        plain = copy(self.trigger)
        if getattr(plain, "jitter", None):
            plain.jitter = None
        return repr(plain)

    def next_run_time(self, now: datetime) -> datetime | None:
        """The next fire time; ``None`` while paused, and when none is left."""
        if self.is_paused:
            return None
        held: datetime | None = getattr(self.entry, "next_run_time", None)
        if held is not None and held.astimezone(UTC) != self.ticked_at:  # else the pass that moves it is under way
            return held
        due = self.expected or self.after(self.ticked_at, now)
        zone = getattr(self.trigger, "timezone", None)
        return due.astimezone(zone) if due is not None and zone is not None else due

    def pause(self) -> bool:
        """Note that the job is paused. Returns False where it was before."""
        before, self.paused_at, self.resumed = self.paused_at, self.paused_at or datetime.now(UTC), False
        return before is None

    def lost(self) -> int:
        """How many runs the pause has cost since the last call; the next one is expected from now on."""
        now = datetime.now(UTC)
        expected, self.expected = self.expected, self.after(None, now)
        return self.count(expected, now)

    def resume(self) -> None:
        """Note that the job is resumed."""
        self.paused_at = None
        self.begin()

    def overdue(self) -> float | None:
        """The seconds by which a run is overdue; ``None`` where none is, or not by much."""
        now = datetime.now(UTC)
        due = self.next_run_time(now)
        late = (now - due).total_seconds() - (getattr(self.trigger, "jitter", None) or 0) if due else 0
        return late if late > waits.overdue else None


@dataclass(slots=True, eq=False, weakref_slot=True)
class RegisteredJob:
    """A job under its key: what it calls, when and how, its runs in progress, and what became of the others.

    Attributes:
        key: The unique name of the job.
        target: What a run calls (`_job.Target`).
        options: A `BackgroundJobOptions`, with those of the settings merged in; this wing knows no pydantic.
        schedule: When it is due; ``None`` for a job that is switched off.
        running: The runs (`run.Run`) whose action is in progress, oldest first.
        tally: What is counted of its runs.
        one_shots: The kinds of the latest one-shots that an executor was asked to run.
        lock: Held for every change of the three before, and for nothing else; one a job, since one for all jobs would
            be contended.
    """

    key: str
    target: Any
    options: Any
    schedule: Schedule | None = None
    running: list[Any] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    one_shots: dict[str, None] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def submit(
        self, kind: str, run_times: Sequence[datetime], earliest: datetime
    ) -> tuple[list[datetime], datetime | None]:
        """Note that an executor is asked to run the job at these fire times (UTC). Called under APScheduler's locks.

        Returns:
            Those that it was asked for before, since a scheduler comes with a run again where its job store did not
            take note of the first time; and the fire time that was expected, where that is known.
        """
        schedule = self.schedule
        if kind == SCHEDULED and schedule is not None:
            again = [moment for moment in run_times if schedule.was_ticked(moment)]
            return again, schedule.tick(run_times[-1], earliest) if len(again) < len(run_times) else None
        again = list(run_times) if kind in self.one_shots else []
        self.one_shots[kind] = None
        if len(self.one_shots) > REMEMBERED:
            del self.one_shots[next(iter(self.one_shots))]
        return again, None


def row(job: RegisteredJob, *, is_warm: bool) -> JobStatus:
    """A picture of one job as it is now; one that is not warm has no next run."""
    schedule, tally = job.schedule, job.tally
    due = schedule.next_run_time(datetime.now(UTC)) if schedule else None
    paused = schedule is not None and schedule.is_paused
    timezone = getattr(schedule.trigger, "timezone", None) if schedule else None
    return JobStatus(
        key=job.key,
        cron=job.options.cron,
        timezone=None if timezone is None else str(timezone),
        next_run_time=due if is_warm else None,
        paused=paused,
        finished=schedule is not None and due is None and not paused,
        running=len(job.running),
        last_started_at=_moment(tally.started_at),
        last_finished_at=_moment(tally.finished_at),
        last_succeeded_at=_moment(tally.succeeded_at),
        last_seconds=tally.seconds,
        last_outcome=tally.outcome,
        last_error=tally.error,
        consecutive_failures=tally.failures,
        outcomes={name: tally.counts[name] for name in OUTCOMES},
        not_run={name: tally.counts[name] for name in REASONS},
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
