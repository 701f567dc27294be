"""How runs end, why occurrences are skipped, and what users see of a job: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

#: How a run can end.
SUCCEEDED, FAILED, TIMED_OUT, CANCELLED = "succeeded", "failed", "timed_out", "cancelled"
OUTCOMES = (SUCCEEDED, FAILED, TIMED_OUT, CANCELLED)

#: Why an occurrence that was due did not run.
OVERLAPPED, MISSED, COALESCED, PAUSED = "overlapped", "missed", "coalesced", "paused"
CLOSING, OVERTAKEN, REPEATED, REFUSED = "closing", "overtaken", "repeated", "refused"
CLAIMED, BUSY, PASSED, EARLY = "claimed", "busy", "passed", "early"
RECENT, UNCLAIMED = "recent", "unclaimed"
#: Without replicas, and among them.
_ALONE = (OVERLAPPED, MISSED, COALESCED, PAUSED, CLOSING, OVERTAKEN, REPEATED, REFUSED)
REASONS = (*_ALONE, CLAIMED, BUSY, PASSED, EARLY, RECENT, UNCLAIMED)


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
        outcome: One of `REASONS`.
        reason: Why, in words.
        is_told: Whether the log has said it, or is not to.
    """

    outcome: str
    reason: str
    is_told: bool = True


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The value of a run that was cancelled, as other listeners of the scheduler see it (``event.retval``)."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """How a run ended, or why an occurrence did not run.

    Attributes:
        key: The key of the job.
        run_id: The id of the run; ``None`` where nothing ran.
        scheduled_at: The fire time (UTC).
        started_at: When the run started (UTC); ``None`` where nothing ran.
        seconds: How long the run took until its outcome was known; 0 where nothing ran.
        outcome: One of `OUTCOMES`, or one of `REASONS` where nothing ran.
        reason: A sentence about the outcome, where there is more to say.
        error: The live exception of a failed run.
        value: What the action returned.
    """

    key: str
    run_id: str | None
    scheduled_at: datetime
    started_at: datetime | None
    seconds: float
    outcome: str
    reason: str | None = None
    error: BaseException | None = None
    value: object = None


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job, and what has become of its runs since the process started; a row of ``jobs.status()``.

    Attributes:
        key: The key of the job.
        cron: Its cron expression; ``None`` where it has a trigger of another kind, or none.
        timezone: The zone of its schedule, as text; ``None`` where the trigger does not have one.
        next_run_time: The next fire time (aware); ``None`` while there is none.
        paused: Whether it was paused.
        finished: Whether no fire time is left.
        running: How many runs are in progress.
        last_started_at: When the latest run started (aware); ``None`` before the first.
        last_finished_at: When the latest run to end has ended (aware); ``None`` before the first.
        last_outcome: How that one ended: ``"succeeded"``, ``"failed"``, ``"timed_out"`` or ``"cancelled"``.
        last_error: The error of the latest failed run, as ``"ValueError: text"``; ``None`` for none.
        outcomes: How many runs ended in each of the four ways.
        not_run: How many occurrences were skipped, by reason: ``"overlapped"`` (an earlier run was in progress),
            ``"missed"`` (later than its grace time), ``"coalesced"`` (one later run stands for it), ``"paused"``,
            ``"closing"``, ``"overtaken"`` (an immediate run, by a scheduled one), ``"repeated"`` (its job store came
            with it again), ``"refused"`` (its executor took no more work). With a claim store also ``"claimed"``
            (another replica makes it), ``"busy"`` (its previous run is in progress in another one), ``"passed"`` (a
            later one was claimed first), ``"early"`` (this machine's clock is ahead), ``"recent"`` (an immediate run,
            by that of another replica), ``"unclaimed"`` (the claim store does not answer).
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
        problems: What is wrong: one sentence a problem.
    """

    ok: bool
    problems: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.ok
