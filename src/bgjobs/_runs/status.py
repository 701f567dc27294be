"""How runs end, why occurrences are skipped, and what users see of a job: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple


class Outcome(StrEnum):
    """How a run ended, or why an occurrence did not run: plain texts, the same in reports, counts and the log."""

    __repr__ = str.__repr__

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"  #: the run took longer than its timeout
    CANCELLED = "cancelled"  #: at a close, or when its lease was lost

    OVERLAPPED = "overlapped"  #: an earlier run was in progress
    MISSED = "missed"  #: later than its ``misfire_grace_time``
    COALESCED = "coalesced"  #: one later run stands for it
    PAUSED = "paused"  #: the job was
    CONDITION = "condition"  #: ``only_if`` said no, or raised
    CLOSING = "closing"  #: the jobs were being closed
    OVERTAKEN = "overtaken"  #: an immediate run, by a scheduled one
    REPEATED = "repeated"  #: its job store came with it again
    REFUSED = "refused"  #: its executor took no more work, or its job was removed

    CLAIMED = "claimed"  #: another replica makes it
    BUSY = "busy"  #: the previous run is in progress in another replica
    PASSED = "passed"  #: a later occurrence was claimed first
    EARLY = "early"  #: this machine's clock is ahead of the claim store's
    RECENT = "recent"  #: an immediate run, by that of another replica
    UNCLAIMED = "unclaimed"  #: the claim store does not answer


#: How a run can end, and why an occurrence that was due did not run.
OUTCOMES = tuple(Outcome)[:4]
REASONS = tuple(Outcome)[4:]


class _Plain:
    """A dataclass that can be given to JSON."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """The attributes by name, as plain JSON values: times as ISO 8601 texts."""
        names: tuple[str, ...] = self.__slots__
        return {name: _plain(getattr(self, name)) for name in names}


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case Mapping():
            return {str(name): _plain(each) for name, each in value.items()}
        case tuple():
            return list(map(_plain, value))
        case str():
            return str(value)
    return value


@dataclass(frozen=True, slots=True)
class Skipped:
    """The value of an occurrence that did not run, as other listeners of the scheduler see it (``event.retval``).

    Attributes:
        reason: Why, in words.
    """

    reason: str


class Refused(NamedTuple):
    """A claim that was not granted.

    Attributes:
        outcome: Why, as a code.
        reason: Why, in words.
        is_told: Whether the log has said it, or is not to.
    """

    outcome: Outcome
    reason: str
    is_told: bool = True


@dataclass(frozen=True, slots=True)
class CurrentRun:
    """The run that the calling code belongs to.

    Attributes:
        key: The key of the job.
        run_id: Unique per run.
        scheduled_at: The fire time that APScheduler computed (in UTC); for an immediate run, when it was added.
        fence: Greater than that of each earlier run of the job in any replica; ``None`` without a claim.
    """

    key: str
    run_id: str
    scheduled_at: datetime
    fence: int | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The value of a run that was cancelled, as other listeners of the scheduler see it (``event.retval``)."""


class RunReport(NamedTuple):
    """How a run ended, or why an occurrence did not run.

    Attributes:
        key: The key of the job.
        run_id: The id of the run; ``None`` where nothing ran.
        scheduled_at: The fire time (UTC).
        started_at: When the run started (UTC); ``None`` where nothing ran.
        seconds: How long the run took until its outcome was known; 0 where nothing ran.
        outcome: How the run ended, or why nothing ran: a text, such as ``"succeeded"`` or ``"overlapped"``.
        reason: A sentence about the outcome, where there is more to say.
        error: The live exception of a failed run.
        value: What the action returned.
    """

    key: str
    run_id: str | None
    scheduled_at: datetime
    started_at: datetime | None
    seconds: float
    outcome: Outcome
    reason: str | None = None
    error: BaseException | None = None
    value: object = None


@dataclass(frozen=True, slots=True)
class JobStatus(_Plain):
    """One job, and what has become of its runs since the process started; a row of ``jobs.status()``.

    Attributes:
        key: The key of the job.
        cron: Its cron expression; ``None`` where it has a trigger of another kind, or none.
        timezone: The zone of its schedule, as text; ``None`` where the trigger does not have one.
        next_run_time: The next fire time (aware); ``None`` while there is none, and where the jobs are not warm.
        paused: Whether it was paused.
        finished: Whether no fire time is left.
        running: How many runs are in progress.
        last_started_at: When the latest run started (aware); ``None`` before the first.
        last_finished_at: When the latest run to end has ended (aware); ``None`` before the first.
        last_succeeded_at: When the latest run that succeeded ended (aware); ``None`` before the first.
        last_seconds: How long the latest run to end took; ``None`` before the first.
        last_outcome: How that one ended: ``"succeeded"``, ``"failed"``, ``"timed_out"`` or ``"cancelled"``.
        last_error: The error of the latest failed run, as ``"ValueError: text"``; ``None`` for none.
        consecutive_failures: How many runs have failed or timed out since the latest one that succeeded.
        outcomes: How many runs ended in each of the four ways.
        not_run: How many occurrences were skipped, by reason: each name of `Outcome` but the first four.
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
    last_succeeded_at: datetime | None
    last_seconds: float | None
    last_outcome: str | None
    last_error: str | None
    consecutive_failures: int
    outcomes: Mapping[str, int]
    not_run: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Health(_Plain):
    """Whether the jobs are doing what they should; true when they are.

    Attributes:
        ok: Whether there is no problem.
        problems: What is wrong: one sentence a problem.
    """

    ok: bool
    problems: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.ok
