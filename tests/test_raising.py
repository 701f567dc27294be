"""Calls that raise in the wrong place: none of them costs a run, a scope, a slot or a lock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from bgjobs import BackgroundJobs
from stage import (
    CLASSES,
    Scope,
    Waiter,
    cold,
    counts,
    fail,
    job_class,
    now,
    often,
    row,
    set_due,
    stage,
    stored,
    until,
    warm,
)


class NoTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class InterruptingError(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class NoTracebackError(Exception):
    def with_traceback(self, tb: object) -> Any:
        raise RuntimeError("no traceback")


class NoAttributesError(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no attributes")


class FalsyError(Exception):
    def __bool__(self) -> bool:
        return False


@pytest.mark.parametrize(
    "error_type", [NoTextError, InterruptingError, NoTracebackError, NoAttributesError, FalsyError]
)
def test_an_odd_exception_is_handled_like_others(kind: str, colour: str, error_type: type[Exception]) -> None:
    """``on_exception`` gets it, the scope sees it, and the run has failed, whatever its own methods raise."""
    error, handled, closed = error_type(), Waiter(), Waiter()

    def act(*_: object) -> None:
        raise error

    job = job_class(colour, act, lambda _, exc: handled(exc is error))

    def resolver(job_type: type[Any]) -> Any:
        return Scope(job_type(), lambda found: closed(found is error))

    with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=now()), resolver=resolver) as jobs:
        assert (handled.wait(), closed.wait()) == ([True], [True])
        until(lambda: row(jobs, "k").running == 0)
    assert counts(jobs, "k") == {"failed": 1}


@pytest.mark.parametrize("error", [OSError("disk full"), SystemExit(3)], ids=repr)
def test_a_log_sink_that_raises_costs_nothing(kind: str, colour: str, error: BaseException) -> None:
    """Runs, handlers and the close go on though every record raises, whatever it is."""
    seen = Waiter()

    def sink(_: object) -> None:
        raise error

    number = logger.add(sink, catch=False, level=0)
    try:
        job = job_class(colour, fail, lambda *_: seen())
        with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=often()), log_runs=True) as jobs:
            seen.wait(3)
    finally:
        logger.remove(number)
    assert not jobs.is_warm
    assert counts(jobs, "k")["failed"] == len(seen.seen)


def test_a_log_sink_that_raises_once_stops_no_job(kind: str, tmp_path: Path) -> None:
    """Not even where it raises while a skipped occurrence is logged, before the run begins."""
    seen, raised = Waiter(), Waiter()

    def sink(message: Any) -> None:
        if "coalesced" in message and not raised.seen:
            raised()
            raise OSError("disk full")

    def jobs(kind: str) -> BackgroundJobs:
        scheduler = CLASSES[kind](timezone="UTC", jobstores={"default": stored(tmp_path)})
        return cold(scheduler).add_background_job(lambda: seen(), key="k", cron="* * * * * *")

    with jobs("background"):
        pass
    set_due(tmp_path, "k", datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=9))
    number = logger.add(sink, catch=False, level=0)
    try:
        with warm(kind, jobs(kind)):
            raised.wait()
            seen.wait(2)
    finally:
        logger.remove(number)


def test_a_log_sink_that_raises_leaves_no_scope_open(kind: str, colour: str) -> None:
    """Not even where it raises while a failed handler is logged."""
    closed = Waiter()

    def sink(_: object) -> None:
        raise OSError("disk full")

    def resolver(job_type: type[Any]) -> Any:
        return Scope(job_type(), closed)

    number = logger.add(sink, catch=False, level=0)
    try:
        job = job_class(colour, fail, fail)
        with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=often()), resolver=resolver):
            assert all(isinstance(error, ValueError) for error in closed.wait(2))
    finally:
        logger.remove(number)


@pytest.mark.parametrize("error", [KeyError, SystemExit])
def test_a_class_whose_attributes_raise_runs_all_the_same(kind: str, colour: str, error: type[BaseException]) -> None:
    """It has no ``on_exception`` then, and fails like any other job."""

    class Odd(job_class(colour, fail)):  # type: ignore[misc]
        def __getattr__(self, name: str) -> Any:
            raise error(name)

    with stage(kind, lambda jobs: jobs.add_background_job(Odd, key="k", trigger=often())) as jobs:
        until(lambda: counts(jobs, "k").get("failed", 0) >= 2)


def test_a_sync_scope_with_an_async_end_is_closed(kind: str, colour: str) -> None:
    """What its ``__exit__`` returns is awaited, and the run is over after that."""
    closed = Waiter()

    class AsyncEnd(Scope):
        def __exit__(self, _: object, error: object, __: object) -> Any:
            async def end() -> None:
                closed(error)

            return end()

    job = job_class(colour, lambda *_: None)

    def resolver(job_type: type[Any]) -> Any:
        return AsyncEnd(job_type(), closed)

    with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=often()), resolver=resolver) as jobs:
        assert closed.wait(2)[:2] == [None, None]
        until(lambda: counts(jobs, "k")["succeeded"] >= 2)
