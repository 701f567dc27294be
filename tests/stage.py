"""A facade made warm on each kind of scheduler, so that one test body in the main thread serves all of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from bgjobs import BackgroundJobs, BackgroundJobsSettings, Resolver

KINDS = ["asyncio", "background", "blocking"]
CLASSES = {"asyncio": AsyncIOScheduler, "background": BackgroundScheduler, "blocking": BlockingScheduler}

NIGHTLY = "0 0 3 * * *"

#: Seconds until a test that waits for something gives up; never how long it takes.
LIMIT = 20.0


def nothing() -> None:
    """A job that does nothing."""


def now() -> DateTrigger:
    """Due at once."""
    return DateTrigger(timezone="UTC")


def often() -> IntervalTrigger:
    """Due twenty times a second."""
    return IntervalTrigger(seconds=0.05, timezone="UTC")


def cold(scheduler: Any = None, *, resolver: Resolver | None = None, **settings: Any) -> BackgroundJobs:
    """A facade whose settings come from nowhere else."""
    chosen = BackgroundJobsSettings.defaults().model_copy(update=settings)
    return BackgroundJobs(scheduler, settings=chosen, resolver=resolver)


@contextmanager
def event_loop_in_a_thread() -> Generator[asyncio.AbstractEventLoop]:
    """An event loop that runs beside the test."""
    started = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    stop: list[asyncio.Event] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        stop.append(asyncio.Event())
        started.set()
        await stop[0].wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="test-loop")
    thread.start()
    assert started.wait(LIMIT)
    try:
        yield loops[0]
    finally:
        loops[0].call_soon_threadsafe(stop[0].set)
        thread.join(LIMIT)


@contextmanager
def warm(kind: str, jobs: BackgroundJobs) -> Generator[BackgroundJobs]:
    """Warm the jobs up as that kind of scheduler wants it, and close them at the end."""
    if kind == "asyncio":
        with event_loop_in_a_thread() as loop:

            async def warm_up() -> None:
                jobs.warm_up()

            asyncio.run_coroutine_threadsafe(warm_up(), loop).result(LIMIT)
            try:
                yield jobs
            finally:
                asyncio.run_coroutine_threadsafe(jobs.aclose(), loop).result(LIMIT)
    elif kind == "background":
        with jobs:
            yield jobs
    else:
        thread = threading.Thread(target=jobs.warm_up, name="test-blocking")
        thread.start()
        try:
            yield jobs
        finally:
            until(lambda: jobs.is_warm or not thread.is_alive())
            jobs.close()
            thread.join(LIMIT)


@contextmanager
def stage(
    kind: str, register: Callable[[BackgroundJobs], object], *, resolver: Resolver | None = None, **settings: Any
) -> Generator[BackgroundJobs]:
    """A warm facade on a scheduler of that kind that it was given unstarted, its jobs registered by `register`."""
    jobs = cold(CLASSES[kind](timezone="UTC"), resolver=resolver, **settings)
    register(jobs)
    with warm(kind, jobs):
        yield jobs


class Waiter:
    """Counts what happens, from any thread, and waits for it."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._changed = threading.Condition()

    def __call__(self, value: Any = None) -> None:
        with self._changed:
            self.seen.append(value)
            self._changed.notify_all()

    def wait(self, times: int = 1) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) >= times, LIMIT), f"only saw {self.seen}"
            return list(self.seen)


def until(condition: Callable[[], object]) -> None:
    """Wait for something that has no event of its own, without a fixed delay."""
    gate = threading.Event()
    for _ in range(int(LIMIT / 0.01)):
        if condition():
            return
        gate.wait(0.01)
    raise AssertionError("it never came true")


class Records(list[dict[str, Any]]):
    """The loguru records of a test."""

    def texts(self, level: str | None = None) -> list[str]:
        """The messages, of one level or of all."""
        return [r["message"] for r in self if level is None or r["level"].name == level]
