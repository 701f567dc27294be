"""A test kit: run one job through the whole path, collect outcomes, walk a schedule through virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from ._control import refuse_running_loop
from ._cron.expression import seconds
from ._jobs import BackgroundJobs
from ._lifecycle import Lifecycle
from ._runs.calls import InThread, drive, in_task
from ._runs.run import Run
from ._runs.schedule import RegisteredJob, Schedule
from ._runs.status import Outcome, RunReport, Skipped
from ._runs.threads import wait_in_thread, waits

__all__ = ["RunResult", "Step", "arun_job", "collect", "run_job", "walk"]


@dataclass(frozen=True, slots=True)
class RunResult:
    """How one run ended.

    Attributes:
        key: The key of the job.
        run_id: The id of the run; ``None`` where it was skipped.
        outcome: ``"succeeded"``, ``"failed"``, ``"timed_out"``, ``"cancelled"`` or ``"skipped"``.
        value: What the action returned; for a skipped run, why it was skipped.
        error: The live exception of a failed run; ``None`` for others.
    """

    key: str
    run_id: str | None
    outcome: str
    value: object = None
    error: BaseException | None = None


@contextmanager
def collect(jobs: BackgroundJobs) -> Generator[list[RunResult]]:
    """Collect how runs end, for the time of a ``with`` block: each is there when it is over, its scope closed.

    Args:
        jobs: The jobs, cold or warm.
    """
    results: list[RunResult] = []

    def observe(report: RunReport) -> None:
        if report.run_id is not None:
            results.append(RunResult(report.key, report.run_id, report.outcome, report.value, report.error))

    observers = _lifecycle(jobs).registry.reports.observers
    observers.append(observe)
    try:
        yield results
    finally:
        observers.remove(observe)


def run_job(jobs: BackgroundJobs, key: str) -> RunResult:
    """Run a job once through the whole path: overlap guard, scope, action, ``on_exception``, closing.

    No scheduler takes part: the jobs may be cold or warm. Returns when the run is over.

    Raises:
        UnknownJobError: No job has this key.
        InvalidJobError: The constructor needs arguments, and there is no resolver.
        LifecycleError: An event loop is running here; use `arun_job`.
    """
    refuse_running_loop("run_job() would block the event loop that is running here; use `await arun_job(...)`")
    get_loop, registry = _lifecycle(jobs).loop, _lifecycle(jobs).registry
    with _one_run(jobs, key) as run:
        if run.target.is_coroutine:
            wait_in_thread(registry.run_alone(run, in_task), get_loop())
        else:
            copy_context().run(drive, registry.run_alone(run, InThread(get_loop)))
        registry.reports.flush(waits.handler + waits.close)
    return _result(run)


async def arun_job(jobs: BackgroundJobs, key: str) -> RunResult:
    """Same as `run_job`, in the event loop that is running here."""
    loop, registry = asyncio.get_running_loop(), _lifecycle(jobs).registry
    with _one_run(jobs, key) as run:
        if run.target.is_coroutine:
            await loop.create_task(registry.run_alone(run, in_task))  # which has its own context, as in a scheduler
        else:
            await asyncio.to_thread(drive, registry.run_alone(run, InThread(lambda: loop)))
        await asyncio.to_thread(registry.reports.flush, waits.handler + waits.close)
    return _result(run)


@contextmanager
def _one_run(jobs: BackgroundJobs, key: str) -> Generator[Run]:
    lifecycle = _lifecycle(jobs)
    registry, job = lifecycle.registry, lifecycle.registry.job(key)
    lifecycle.checks.instance(job)
    if not lifecycle.is_warm:
        registry.reopen()
    try:
        yield registry.new_run(job, registry.new_run_id(), datetime.now(UTC))
    finally:
        lifecycle.rest()


def _result(run: Run) -> RunResult:
    if isinstance(run.value, Skipped) and run.outcome is None:
        return RunResult(run.key, None, "skipped", run.value.reason)
    value = run.value if run.outcome == Outcome.SUCCEEDED else None
    return RunResult(run.key, run.run_id, run.outcome or "", value, run.error)


def _lifecycle(jobs: BackgroundJobs) -> Lifecycle:
    return jobs._lifecycle  # noqa: SLF001 - the test kit is part of the house


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """What becomes of one due run in virtual time.

    Attributes:
        at: When that is decided: the fire time, or when the machine woke up (UTC).
        key: The key of the job.
        scheduled_at: The fire time (UTC); for an immediate run, the beginning of the walk.
        outcome: ``"succeeded"``, or why there is no run: ``"overlapped"``, ``"missed"`` or ``"coalesced"``.
    """

    at: datetime
    key: str
    scheduled_at: datetime
    outcome: str


def walk(
    jobs: BackgroundJobs,
    start: datetime,
    end: datetime,
    *,
    takes: float | Mapping[str, float] = 0.0,
    asleep: Iterable[tuple[datetime, datetime]] = (),
) -> list[Step]:
    """Walk the schedules through virtual time, and tell what becomes of every due run. Runs nothing, waits for nothing.

    The fire times are those of the jobs' own triggers, clock changes included; lateness, coalescing and overlap are
    decided as in a real run: `misfire_grace_time`, `coalesce`, `max_instances`, `run_immediately`. Jitter is left out.

    Args:
        jobs: The jobs, cold or warm; paused ones and those that are switched off have no steps.
        start: The moment of the warm-up (aware).
        end: The walk ends before this moment (aware).
        takes: Seconds that a run takes: for every job, or by key.
        asleep: Spans (aware, from and until) in which the machine is suspended, so that nothing is decided.

    Returns:
        The steps in the order of time.

    Raises:
        ConfigurationError: `takes` is negative, not finite or absurdly long.
    """
    start, end = start.astimezone(UTC), end.astimezone(UTC)  # two times of one zone compare without their offsets
    naps = sorted((since.astimezone(UTC), until.astimezone(UTC)) for since, until in asleep)
    steps: list[Step] = []
    for job in _lifecycle(jobs).registry.jobs.values():
        run_time = seconds(takes.get(job.key, 0.0) if isinstance(takes, Mapping) else takes, "takes")
        steps += _walk(job, start, end, timedelta(seconds=run_time), naps)
    return sorted(steps)


def _walk(
    job: RegisteredJob, start: datetime, end: datetime, takes: timedelta, naps: list[tuple[datetime, datetime]]
) -> Iterator[Step]:
    if job.schedule is None or job.schedule.paused_at is not None:
        return
    options = job.options
    grace = timedelta.max if options.misfire_grace_time is None else timedelta(seconds=options.misfire_grace_time)
    running: list[datetime] = []  # when the runs in progress will end
    if options.run_immediately:
        running.append(start + takes)
        yield Step(start, job.key, start, Outcome.SUCCEEDED)
    for at, due in groupby(_fire_times(job.schedule, start, end), key=lambda time: _awake(time, naps)):
        times = list(due)
        if options.coalesce:
            yield from (Step(at, job.key, scheduled_at, Outcome.COALESCED) for scheduled_at in times[:-1])
            times = times[-1:]
        for scheduled_at in times:
            running = [moment for moment in running if moment > at]
            if len(running) >= options.max_instances:
                outcome = Outcome.OVERLAPPED
            elif at - scheduled_at > grace:
                outcome = Outcome.MISSED
            else:
                outcome = Outcome.SUCCEEDED
                running.append(at + takes)
            yield Step(at, job.key, scheduled_at, outcome)


def _fire_times(schedule: Schedule, start: datetime, end: datetime) -> Iterator[datetime]:
    fire_time = schedule.after(None, start)
    while fire_time is not None and fire_time < end:
        yield fire_time
        fire_time = schedule.after(fire_time, fire_time)


def _awake(fire_time: datetime, naps: list[tuple[datetime, datetime]]) -> datetime:
    """The moment at which the scheduler looks at a fire time."""
    return next((until for since, until in naps if since <= fire_time < until), fire_time)
