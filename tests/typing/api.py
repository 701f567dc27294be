"""The public API as a type checker sees it. Never executed: checked by mypy and pyright, both strict.

An ignore comment marks what must be refused; both checkers report one that is not needed.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import TypeVar, assert_type
from zoneinfo import ZoneInfo

from bgjobs import (
    BackgroundJob,
    BackgroundJobOptions,
    BackgroundJobs,
    BackgroundJobsSettings,
    CancellationToken,
    CronExpression,
    CurrentRun,
    Job,
    Resolver,
    RunReport,
    cron_trigger_arguments,
    current_run,
)

T = TypeVar("T")


class AsyncJob:
    """All that a job can have."""

    def __init__(self, database: str) -> None:
        self.database = database

    async def action_to_do(self, cancellation_token: CancellationToken, retention_days: int = 90) -> None:
        assert_type(cancellation_token.is_cancellation_requested, bool)
        assert_type(cancellation_token.wait(1.5), bool)
        await cancellation_token.wait_async()

    async def on_exception(self, exception: Exception) -> None: ...


class SyncJob(BackgroundJob):
    """Inherits, and has the least that a job can have."""

    def action_to_do(self) -> None: ...


def function(retention_days: int) -> int:
    """A sync function with a return value."""
    return retention_days


async def coroutine_function() -> None:
    """An async function."""


def on_failure(exception: Exception) -> None:
    """The hook of a function."""


async def on_failure_async(exception: Exception) -> None:
    """The async hook of a function."""


@contextmanager
def sync_resolver(job_type: type[T]) -> Generator[T]:
    """A resolver by hand."""
    yield job_type()


@asynccontextmanager
async def async_resolver(job_type: type[T]) -> AsyncGenerator[T]:
    """An async resolver by hand."""
    yield job_type()


def register() -> None:
    """Every kind of job and of option."""
    resolver: Resolver = sync_resolver
    jobs = BackgroundJobs(resolver=resolver)
    jobs = BackgroundJobs(resolver=async_resolver, settings=BackgroundJobsSettings.defaults())
    chained = (
        jobs.add_background_job(AsyncJob, cron="0 0 */6 * * *", run_immediately=True)
        .add_background_job(SyncJob, cron="@daily", key="sync", timezone="Europe/Rome", timeout=30)
        .add_background_job(function, cron="@daily", kwargs={"retention_days": 90}, on_exception=on_failure)
        .add_background_job(coroutine_function, cron="@daily", on_exception=on_failure_async)
        .add_background_job(functools.partial(function, 90), cron="@daily", timezone=ZoneInfo("Europe/Rome"))
        .add_background_job(functools.partial(AsyncJob, "shop.db"), cron="@daily", key="partial")
        .add_background_job(SyncJob, key="model", options=BackgroundJobOptions(cron="@daily"))
    )
    assert_type(chained, BackgroundJobs)
    any_job: Job = AsyncJob
    jobs.add_background_job(any_job, cron="@daily", key="any")


def refused() -> None:
    """What is no job, no resolver, no option."""
    jobs = BackgroundJobs()
    jobs.add_background_job("shop.jobs:Sync", cron="@daily")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    jobs.add_background_job(SyncJob(), cron="@daily")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    jobs.add_background_job(SyncJob, cron=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    jobs.add_background_job(SyncJob, max_instances="2")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    jobs.add_background_job(SyncJob, time_zone="UTC")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    BackgroundJobs(resolver=function)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def decorate(jobs: BackgroundJobs) -> None:
    """The decorator returns what it decorates, typed as it was."""

    @jobs.background_job(cron="@hourly")
    def tick(name: str = "") -> int:
        return len(name)

    assert_type(tick("x"), int)

    @jobs.background_job(cron="@hourly", key="decorated")
    class Decorated:
        def action_to_do(self) -> None: ...

    assert_type(Decorated(), Decorated)


async def live() -> None:
    """Warming up and closing."""
    jobs = BackgroundJobs()
    assert_type(jobs.warm_up(), BackgroundJobs)
    await jobs.aclose()
    async with jobs as warm:
        assert_type(warm, BackgroundJobs)
    with jobs as warm:
        assert_type(warm, BackgroundJobs)
    async with jobs.lifespan(object()):
        assert_type(jobs.is_warm, bool)
    jobs.close()
    jobs.run()


def look() -> None:
    """What can be asked."""
    run = current_run()
    assert_type(run, CurrentRun)
    assert_type(run.scheduled_at, datetime)
    expression = CronExpression("0 0 9 * * MON-FRI")
    assert_type(expression.occurrences(datetime.now(UTC), "Europe/Rome", 3), list[datetime])
    assert_type(cron_trigger_arguments("@daily"), dict[str, str])
    assert_type(BackgroundJobOptions(cron="@daily").timeout, float | None)


def observe(jobs: BackgroundJobs) -> None:
    """Hooks, conditions and extra runs."""

    @jobs.around_run
    @contextmanager
    def span(run: CurrentRun) -> Generator[None]:
        yield

    @jobs.around_run
    @asynccontextmanager
    async def span_async(run: CurrentRun) -> AsyncGenerator[None]:
        yield

    @jobs.around_run
    def perhaps(run: CurrentRun) -> AbstractContextManager[None] | None:
        return span(run)

    @jobs.on_run_end
    async def end(report: RunReport) -> None: ...

    seen: list[RunReport] = []
    jobs.on_run_end(seen.append)
    jobs.around_run(lambda: None)  # type: ignore[type-var] # pyright: ignore[reportArgumentType]
    jobs.add_background_job(print, cron="@daily", only_if=lambda run: run.key == "print")
    assert_type(jobs.wait(jobs.run_now("print", kwargs={"end": ""}), timeout=1), RunReport)
