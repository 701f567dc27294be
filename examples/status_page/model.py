"""What the page is about, as plain data: the jobs by trouble, the sentence on top, and the runs of the coming day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

from bgjobs import BgjobsError, CronExpression, Health, JobStatus, Outcome

DAY = timedelta(days=1)
SLOT = timedelta(minutes=15)
MOMENT = timedelta(microseconds=1)

#: How a run that began can end. Every other outcome says why an occurrence did not run.
RAN = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CANCELLED)

#: The reasons for not running that somebody should know of, and what the page says about them. The others are meant.
SURPRISES = {
    Outcome.OVERLAPPED: "skipped a run {ago}, while the one before was still in progress",
    Outcome.MISSED: "missed a run {ago}",
    Outcome.REFUSED: "could not start a run {ago}",
    Outcome.EARLY: "skipped a run {ago}: the clock of this machine is ahead",
    Outcome.UNCLAIMED: "skipped a run {ago}: the claim store did not answer",
}


class Level(IntEnum):
    """How much a job needs somebody; the name is a CSS class."""

    WELL = 0
    RESTING = 1  #: paused, or without any more runs
    ATTENTION = 2
    TROUBLE = 3


class Run(NamedTuple):
    """One mark of the strip: a run, or occurrences in a row that did not run for one reason.

    Attributes:
        at: When it started; where nothing ran, when it was due.
        seconds: How long it took; 0 where nothing ran.
        outcome: How it ended, or why nothing ran.
        reason: The error or the reason, in words; ``None`` where there is no more to say.
        times: How many occurrences the mark stands for.
    """

    at: datetime
    seconds: float
    outcome: Outcome
    reason: str | None = None
    times: int = 1


class Phrase(NamedTuple):
    """A part of the sentence on top: what is wrong, and with which job (``None`` for all)."""

    key: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.key} {self.text}" if self.key is not None else self.text


@dataclass(frozen=True, slots=True)
class Job:
    """One job on the page: its row of `jobs.status()`, its latest runs (oldest first), and what is wrong with it."""

    row: JobStatus
    runs: Sequence[Run]
    level: Level
    problem: Phrase | None


@dataclass(frozen=True, slots=True)
class Picture:
    """All jobs at one moment, those in most trouble first; `problems` is empty when all is well."""

    now: datetime
    health: Health
    jobs: Sequence[Job]
    problems: Sequence[Phrase]

    @property
    def level(self) -> Level:
        """The worst of all."""
        if not self.health:
            return Level.TROUBLE
        return max([job.level for job in self.jobs if job.problem], default=Level.WELL)

    @property
    def sentence(self) -> list[Phrase | str]:
        """What is wrong, in one sentence, or that all is well: texts, and phrases that name a job."""
        if not self.problems:
            return ["All is well." if self.jobs else "No jobs are registered."]
        first, *others = self.problems
        if first.key is None:
            first = Phrase(None, first.text[:1].upper() + first.text[1:])
        if not others:
            return [first, "."]
        if len(others) == 1:
            return [first, ", and ", others[0], "."]
        return [first, ", ", others[0], f", and {counted(len(others) - 1, 'more problem')}."]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "at": self.now.isoformat(),
            "ok": not self.problems,
            "sentence": "".join(map(str, self.sentence)),
            "health": self.health.as_dict(),
            "jobs": [
                {
                    **job.row.as_dict(),
                    "level": job.level.name.lower(),
                    "problem": job.problem and str(job.problem),
                    "latest": [{**run._asdict(), "at": run.at.isoformat()} for run in job.runs],
                    "coming": [moment.isoformat() for moment in coming(job.row, self.now)],
                }
                for job in self.jobs
            ],
        }


def picture(rows: Sequence[JobStatus], health: Health, history: Mapping[str, Sequence[Run]], now: datetime) -> Picture:
    """Sort the jobs by trouble, and find what to say about them.

    Args:
        rows: What `jobs.status()` returns.
        health: What `jobs.health()` returns.
        history: The latest runs by key, oldest first.
        now: The present (aware).
    """
    jobs = [judged(row, tuple(history.get(row.key, ())), health, now) for row in rows]
    jobs.sort(key=lambda job: (-job.level, -job.row.consecutive_failures))
    about = tuple(f"job {row.key!r} " for row in rows)
    general = [Phrase(None, text) for text in health.problems if not text.startswith(about)]
    return Picture(now, health, jobs, [*general, *(job.problem for job in jobs if job.problem)])


def judged(row: JobStatus, runs: Sequence[Run], health: Health, now: datetime) -> Job:
    """One job, and how much it needs somebody."""
    unwell = [text for text in health.problems if text.startswith(f"job {row.key!r} ")]
    if unwell:
        return Job(row, runs, Level.TROUBLE, Phrase(row.key, unwell[0].removeprefix(f"job {row.key!r} ")))
    if row.consecutive_failures:
        verb = "timed out" if row.last_outcome == Outcome.TIMED_OUT else "failed"
        times = f"has failed {row.consecutive_failures} times in a row"
        text = times if row.consecutive_failures > 1 else f"{verb} in its latest run"
        return Job(row, runs, Level.TROUBLE, Phrase(row.key, text))
    surprise = next((run for run in reversed(runs[-3:]) if run.outcome in SURPRISES), None)
    if surprise is not None and not row.paused:
        text = SURPRISES[surprise.outcome].format(ago=ago(surprise.at, now))
        return Job(row, runs, Level.ATTENTION, Phrase(row.key, text))
    return Job(row, runs, Level.RESTING if row.paused or row.finished else Level.WELL, None)


# -- the coming day -------------------------------------------------------------------------------------------------


def coming(row: JobStatus, now: datetime) -> list[datetime]:
    """The runs of a job within a day from now, in UTC: the first of each quarter of an hour.

    They follow the cron expression; of a job with a trigger of another kind, the next run alone is known.
    """
    due = row.next_run_time
    if due is None or due.astimezone(UTC) >= now + DAY:
        return []
    found = {due.astimezone(UTC)}
    if row.cron and row.timezone:
        start = now.astimezone(UTC).replace(minute=now.minute // 15 * 15, second=0, microsecond=0)
        found |= {each for each in _slots(row.cron, row.timezone, start) if due < each < now + DAY}
    return sorted(found)


@lru_cache(maxsize=1024)
def _slots(cron: str, timezone: str, start: datetime) -> tuple[datetime, ...]:
    """The first fire time of each slot from `start` on: a search a slot at most, however often the job runs."""
    found: list[datetime] = []
    try:
        expression, after, end = CronExpression(cron), start - MOMENT, start + DAY + SLOT
        while (times := expression.occurrences(after, timezone, 1)) and times[0] < end:
            found.append(times[0].astimezone(UTC))
            after = start + ((found[-1] - start) // SLOT + 1) * SLOT - MOMENT
    except BgjobsError:  # a zone that has no name, such as a fixed offset
        return ()
    return tuple(found)


def bands(moments: Sequence[datetime]) -> list[tuple[datetime, datetime]]:
    """Runs that follow each other within a slot, as stretches of time; a run of its own begins and ends at once."""
    found: list[tuple[datetime, datetime]] = []
    for moment in moments:
        if found and moment - found[-1][1] <= SLOT:
            found[-1] = (found[-1][0], moment)
        else:
            found.append((moment, moment))
    return found


# -- words ----------------------------------------------------------------------------------------------------------


def span(seconds: float) -> str:
    """A length of time for people: one unit, or two where the second matters."""
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if hours < 1:
        return f"{minutes} min"
    if days < 2:
        return f"{hours} h" + (f" {minutes % 60} min" if minutes % 60 and hours < 10 else "")
    return f"{days} days"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago it was."""
    seconds = (now - moment).total_seconds()
    return f"{span(seconds)} ago" if seconds >= 1 else "just now"


def took(seconds: float) -> str:
    """The duration of a run for people."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {seconds % 60:.0f} s"


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
