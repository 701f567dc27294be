"""What the tests of running jobs share: a facade warm on each kind of scheduler, jobs, scopes, and ways to wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from sqlalchemy.pool import NullPool

from bgjobs import BackgroundJobs, BackgroundJobsSettings, CancellationToken, JobStatus, Resolver

KINDS = ["asyncio", "background", "blocking"]
CLASSES = {"asyncio": AsyncIOScheduler, "background": BackgroundScheduler, "blocking": BlockingScheduler}

NIGHTLY = "0 0 3 * * *"

#: Seconds until a test that waits for something gives up; never how long it takes.
LIMIT = 20.0


def nothing() -> None:
    """A job that does nothing."""


def fail(*_: object) -> None:
    """A job, or an action, that fails."""
    raise ValueError("boom")


async def fail_async() -> None:
    """A job that fails in its event loop."""
    raise ValueError("boom")


def method(colour: str, body: Callable[..., Any]) -> Callable[..., Any]:
    """A sync or async method that does the same, with the signature (self, cancellation_token)."""
    if colour == "sync":
        return lambda self, cancellation_token: body(self, cancellation_token)

    async def coroutine(self: Any, cancellation_token: CancellationToken) -> Any:
        return body(self, cancellation_token)

    return coroutine


def handler(colour: str, body: Callable[..., Any]) -> Callable[..., Any]:
    """A sync or async ``on_exception`` that does the same."""
    if colour == "sync":
        return lambda self, exception: body(self, exception)

    async def coroutine(self: Any, exception: Exception) -> Any:
        return body(self, exception)

    return coroutine


def job_class(colour: str, act: Callable[..., Any], handle: Callable[..., Any] | None = None) -> type[Any]:
    """A class of sync or async methods that calls `act` with its instance and token, and `handle` with the error."""
    members = {"action_to_do": method(colour, act)}
    if handle is not None:
        members["on_exception"] = handler(colour, handle)
    return type("SomeJob", (), members)


def owner() -> object:
    """The task or thread that this code runs in."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return threading.current_thread()


@contextmanager
def sync_scope(job_type: type[Any]) -> Generator[Any]:
    """A scope that a thread can enter, too."""
    yield job_type()


@asynccontextmanager
async def async_scope(job_type: type[Any]) -> AsyncGenerator[Any]:
    """A scope that only a task can enter."""
    yield job_type()


class Scope:
    """A scope for threads and tasks that notes the error which goes through it."""

    def __init__(self, instance: object, note: Callable[[object], None]) -> None:
        self.instance = instance
        self.note = note

    def __enter__(self) -> object:
        return self.instance

    def __exit__(self, _: object, error: object, __: object) -> None:
        self.note(error)


def flavoured(flavour: str, scope: Callable[[type[Any]], Any]) -> Resolver:
    """The scope as it is (``"sync"``), or its twin that only a task can enter (``"async"``)."""

    @asynccontextmanager
    async def twin(job_type: type[Any]) -> AsyncGenerator[Any]:
        with scope(job_type) as instance:
            yield instance

    return scope if flavour == "sync" else twin


def recording_resolver(log: Callable[[Any], object], flavour: str) -> Resolver:
    """A resolver, sync or async, that tells when its scope opens and closes, and what went through it."""

    @contextmanager
    def scope(job_type: type[Any]) -> Generator[Any]:
        log(("open", owner()))
        try:
            yield job_type()
        except BaseException as exc:
            log(("close", owner(), exc))
            raise
        log(("close", owner(), None))

    return flavoured(flavour, scope)


def now() -> DateTrigger:
    """Due at once."""
    return DateTrigger(timezone="UTC")


def often() -> IntervalTrigger:
    """Due twenty times a second."""
    return IntervalTrigger(seconds=0.05, timezone="UTC")


class Times(BaseTrigger):  # type: ignore[misc]
    """Due at these moments, past ones included; two that differ in their offset only are two."""

    def __init__(self, *moments: datetime) -> None:
        self.moments = moments

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first of them after the previous one."""
        before = None if previous_fire_time is None else previous_fire_time.astimezone(UTC)
        return next((m for m in self.moments if before is None or m.astimezone(UTC) > before), None)


def row(jobs: BackgroundJobs, key: str) -> JobStatus:
    """The status of one job."""
    (found,) = [status for status in jobs.status() if status.key == key]
    return found


def counts(jobs: BackgroundJobs, key: str) -> dict[str, int]:
    """What became of the runs of one job, where anything did."""
    status = row(jobs, key)
    return {name: n for name, n in {**status.outcomes, **status.not_run}.items() if n}


def stored(path: Path) -> SQLAlchemyJobStore:
    """A persistent job store in a folder, which keeps no connection open."""
    return SQLAlchemyJobStore(url=f"sqlite:///{path / 'jobs.db'}", engine_options={"poolclass": NullPool})


def set_due(path: Path, key: str, due: datetime) -> None:
    """Have the row of a job in the job store of that folder say that it is due then, as if time had passed."""
    store = stored(path)
    store.start(BackgroundScheduler(timezone="UTC"), "default")
    job = store.lookup_job(f"bgjobs:{key}")
    job._modify(next_run_time=due)
    store.update_job(job)
    store.shutdown()


class Peeking(MemoryJobStore):  # type: ignore[misc]
    """A job store that is asked for by `PEEKING`, and knows the scheduler that it serves."""

    scheduler: Any = None

    def start(self, scheduler: Any, alias: str) -> None:
        """Keep the scheduler."""
        Peeking.scheduler = scheduler
        super().start(scheduler, alias)


#: Settings with which a scheduler that bgjobs makes is found in `Peeking.scheduler`.
PEEKING: dict[str, Any] = {"jobstores": {"default": {"class": "stage:Peeking"}}}


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


async def eventually(condition: Callable[[], object]) -> None:
    """Same as `until`, in a coroutine, whose event loop goes on meanwhile."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


def left_behind(jobs: BackgroundJobs, started: Callable[[], object]) -> set[asyncio.Task[Any]]:
    """Warm jobs of an asyncio scheduler up in a loop that is closed by force when they have started; its tasks."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # asyncio complains of tasks that are destroyed

    async def start() -> None:
        jobs.warm_up()
        await eventually(started)

    loop.run_until_complete(start())
    tasks = asyncio.all_tasks(loop)
    loop.close()
    return tasks


class Records(list[dict[str, Any]]):
    """The loguru records of a test."""

    def texts(self, level: str | None = None) -> list[str]:
        """The messages, of one level or of all."""
        return [r["message"] for r in self if level is None or r["level"].name == level]
