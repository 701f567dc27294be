"""What `reliability.py` tries inside of one process: closes, faults, clock changes, and very many firings.

Each trial returns what was tried and what was wrong. What was due is known without bgjobs: the job store notes the
first fire time of each job, the executor the last one that it was given, and between them is one every `PERIOD`.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor as Threads
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.triggers.interval import IntervalTrigger
from soak import counted

from bgjobs import BackgroundJobs, BackgroundJobsSettings, CancellationToken, current_run
from bgjobs._runs.run import Run
from bgjobs.testing import walk
from oracle import Oracle
from stage import CLASSES, until

chance = random.Random(1)


@dataclass
class Result:
    """How often something was tried, what was wrong, and what else is to be said."""

    tried: int = 0
    wrong: list[str] = field(default_factory=list)
    figures: str = ""

    def check(self, *problems: str) -> None:
        """One more trial, which has found these problems."""
        self.wrong += [f"trial {self.tried}: {problem}" for problem in problems]
        self.tried += 1


# -- what is due, and what has happened -------------------------------------------------------------------------------


PERIOD = timedelta(milliseconds=30)


def often() -> IntervalTrigger:
    return IntervalTrigger(seconds=PERIOD.total_seconds(), timezone="UTC")


class Book:
    """What has happened since the beginning of a trial, as told by others than bgjobs."""

    def __init__(self) -> None:
        self.first: dict[str, datetime] = {}  # the first fire time of each job
        self.last: dict[str, datetime] = {}  # the last one that an executor was given
        self.begun: list[tuple[str, str, datetime]] = []  # key, run id, fire time of each action
        self.handled: list[str] = []  # the keys of the errors that an `on_exception` got
        self.scopes: list[str] = []  # what became of scopes; lists, since any thread may append
        self.scheduler: Any = None

    def due(self, key: str) -> int:
        """How many fire times of a job an executor was given, or should have been."""
        return round((self.last[key] - self.first[key]) / PERIOD) + 1 if key in self.last else 0

    def runs(self, key: str) -> int:
        return sum(begun[0] == key for begun in list(self.begun))


book = Book()


class Faults:
    """Raises now and then, while it is armed."""

    armed = False
    injected: ClassVar[Counter[str]] = Counter()

    @classmethod
    def strike(cls, name: str, odds: float) -> None:
        if cls.armed and chance.random() < odds:
            cls.injected[name] += 1
            raise chance.choice([RuntimeError, OSError, sqlite3.OperationalError, KeyError])(f"injected into {name}")


class Refusing(Threads):
    """A thread pool that now and then takes no more work."""

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        Faults.strike("submit", 0.2)
        return super().submit(*args, **kwargs)


class Recording:
    """Notes what an executor is given."""

    def submit_job(self, job: Any, run_times: list[datetime]) -> None:
        if job.id.count(":") == 1:  # no one-shot
            book.last[job.name] = run_times[-1].astimezone(UTC)
        super().submit_job(job, run_times)  # type: ignore[misc]


class Pool(Recording, BasePoolExecutor):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(Refusing(10))


class Loop(Recording, AsyncIOExecutor):  # type: ignore[misc]
    """The executor of an asyncio scheduler."""


class FaultyStore:
    """A job store whose methods raise now and then, some before they have done their work, others after it."""

    def start(self, scheduler: Any, alias: str) -> None:
        """Have the scheduler try again soon, and keep it."""
        scheduler.jobstore_retry_interval = 0.05
        book.scheduler = scheduler
        super().start(scheduler, alias)  # type: ignore[misc]


def faulty(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any) -> Any:
        if name == "add_job" and args[0].id.count(":") == 1:  # no one-shot
            book.first[args[0].name] = args[0].next_run_time.astimezone(UTC)
        Faults.strike(name, 0.1)
        result = getattr(super(FaultyStore, self), name)(*args)
        Faults.strike(name, 0.05)
        return result

    return method


for name in ("get_due_jobs", "get_next_run_time", "get_all_jobs", "lookup_job", "add_job", "update_job", "remove_job"):
    setattr(FaultyStore, name, faulty(name))


class FaultyMemory(FaultyStore, MemoryJobStore):  # type: ignore[misc]
    pass


class FaultySQLite(FaultyStore, SQLAlchemyJobStore):  # type: ignore[misc]
    pass


# -- the jobs ---------------------------------------------------------------------------------------------------------


def begin() -> float:
    run = current_run()
    book.begun.append((run.key, run.run_id, run.scheduled_at))
    return chance.random()


class Async:
    """Fails, takes a while, waits for its token or for its cancellation, cleans up, or is done at once."""

    async def action_to_do(self, cancellation_token: CancellationToken) -> None:
        throw = begin()
        if throw < 0.2:
            raise ValueError("now and then")
        if throw < 0.4:
            await asyncio.sleep(0.05)
        elif throw < 0.45:
            await cancellation_token.wait_async()
        elif throw < 0.47:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.01)

    async def on_exception(self, exception: Exception) -> None:
        book.handled.append(current_run().key)
        await asyncio.sleep(0.01)


class Sync:
    """The same in a thread, which nobody can cancel."""

    def action_to_do(self, cancellation_token: CancellationToken) -> None:
        throw = begin()
        if throw < 0.2:
            raise ValueError("now and then")
        if throw < 0.4:
            time.sleep(0.05)
        elif throw < 0.45:
            cancellation_token.wait()

    def on_exception(self, exception: Exception) -> None:
        book.handled.append(current_run().key)


class Brief:
    """Does nothing but note its run."""

    def action_to_do(self) -> None:
        begin()


class BriefAsync:
    async def action_to_do(self) -> None:
        begin()


@contextmanager
def scope(job_type: type[Any]) -> Generator[Any]:
    book.scopes.append("opened")
    try:
        yield job_type()
    finally:
        book.scopes.append("closed")


def cold(given: Any = None, **settings: Any) -> BackgroundJobs:
    """Jobs whose settings come from nowhere else."""
    return BackgroundJobs(given, settings=BackgroundJobsSettings.defaults().model_copy(update=settings))


def made(kind: str, owner: str, store: dict[str, Any]) -> BackgroundJobs:
    """Jobs on a scheduler of that kind, which bgjobs makes, or which it is given."""
    executor = Loop if kind == "asyncio" else Pool
    if owner == "made":
        executors = {"default": {"class": f"trials:{executor.__name__}"}}
        return cold(scheduler=kind, executors=executors, jobstores={"default": store}, shutdown_timeout=0.5)
    options = {name: value for name, value in store.items() if name != "class"}
    stores = {"default": globals()[store["class"].partition(":")[2]](**options)}
    scheduler = CLASSES[kind](timezone="UTC", executors={"default": executor()}, jobstores=stores)
    jobs = cold(scheduler, shutdown_timeout=0.5)
    if owner == "running":
        start_blocking(scheduler.start) if kind == "blocking" else scheduler.start()
        until(lambda: scheduler.running)
    return jobs


def start_blocking(call: Callable[[], object]) -> None:
    threading.Thread(target=call, name="trial-blocking", daemon=True).start()


#: Threads that may stay: those of an event loop's default executor, and the one that waits for all time limits.
STAYING = ("asyncio_", "bgjobs-alarms")


def left_alive(before: set[threading.Thread]) -> list[str]:
    """The threads that a trial has left."""

    def new() -> list[str]:
        now = [thread for thread in threading.enumerate() if thread not in before]
        return [f"thread {thread.name} is left" for thread in now if not thread.name.startswith(STAYING)]

    with suppress(AssertionError):
        until(lambda: not new())
    return new()


def warm_up(kind: str, jobs: BackgroundJobs) -> None:
    """Warm jobs of a background or blocking scheduler up."""
    if kind == "blocking":
        start_blocking(jobs.warm_up)
        until(lambda: jobs.is_warm)
    else:
        jobs.warm_up()


# -- closes at random moments -----------------------------------------------------------------------------------------


def closes(kind: str, count: int) -> Result:
    """Close warm jobs at a random moment, and look whether every occurrence is accounted for, and nothing is left."""
    result, longest, occurrences = Result(), 0.0, Counter[str]()
    for _ in range(count):
        owner = chance.choice(["made", "given", "running"])
        if kind == "asyncio":
            seconds, problems, counts = asyncio.run(close_in_loop(owner))
        else:
            seconds, problems, counts = close_in_thread(kind, owner)
        result.check(*(f"{owner} scheduler: {problem}" for problem in problems))
        longest = max(longest, seconds)
        occurrences += counts
    gc.collect()
    runs = [found for found in gc.get_objects() if isinstance(found, Run)]
    result.wrong += [f"{len(runs)} runs are still in memory"] if runs else []
    told = ", ".join(f"{number:,} {name}" for name, number in occurrences.most_common(6))
    result.figures = f"{occurrences.total():,} occurrences ({told}); longest close {longest:.2f} s"
    return result


def registered(kind: str, owner: str) -> tuple[BackgroundJobs, Counter[str]]:
    """Jobs, and how many one-shots each has."""
    global book
    book = Book()
    jobs = made(kind, owner, {"class": "trials:FaultyMemory"})
    jobs.resolver = scope
    extra = Counter[str]()
    for number, job in enumerate([Async, Sync] * 3):
        key = f"{job.__name__}-{number}"
        extra[key] = int(chance.random() < 0.3)
        coalesce = chance.random() < 0.8
        jobs.add_background_job(job, trigger=often(), key=key, run_immediately=bool(extra[key]), coalesce=coalesce)
    return jobs, extra


def extras(jobs: BackgroundJobs, extra: Counter[str]) -> None:
    for key in chance.sample([*extra], chance.randrange(3)):
        jobs.run_now(key)
        extra[key] += 1


async def close_in_loop(owner: str) -> tuple[float, list[str], Counter[str]]:
    jobs, extra = registered("asyncio", owner)
    before = set(threading.enumerate())
    async with AsyncExitStack() as stack:
        jobs.warm_up()
        if owner == "running":
            stack.callback(book.scheduler.shutdown)
        await asyncio.sleep(chance.uniform(0, 0.1))
        extras(jobs, extra)
        await asyncio.sleep(chance.uniform(0, 0.05))
        begin = time.monotonic()
        await jobs.aclose()
        seconds = time.monotonic() - begin
        tasks = [f"task {task.get_name()}" for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        problems = [*verdict(jobs, extra, seconds), *tasks]
        started = len(book.begun)
        await asyncio.sleep(0.04)
        problems += ["a run began after the close"] if len(book.begun) > started else []
    await asyncio.sleep(0)  # the scheduler's shutdown is a callback of the loop
    return seconds, problems + left_alive(before), totals(jobs)


def close_in_thread(kind: str, owner: str) -> tuple[float, list[str], Counter[str]]:
    before = set(threading.enumerate())
    jobs, extra = registered(kind, owner)
    with ExitStack() as stack:
        if owner == "running":
            stack.callback(book.scheduler.shutdown)
        warm_up("background" if owner == "running" else kind, jobs)
        time.sleep(chance.uniform(0, 0.1))
        extras(jobs, extra)
        time.sleep(chance.uniform(0, 0.05))
        begin = time.monotonic()
        jobs.close()
        seconds = time.monotonic() - begin
        problems = verdict(jobs, extra, seconds)
        started = len(book.begun)
        time.sleep(0.04)
        problems += ["a run began after the close"] if len(book.begun) > started else []
    return seconds, problems + left_alive(before), totals(jobs)


def totals(jobs: BackgroundJobs) -> Counter[str]:
    found = Counter[str]()
    for row in jobs.status():
        found += Counter({**row.outcomes, **row.not_run})
    return found


def verdict(jobs: BackgroundJobs, extra: Counter[str], seconds: float) -> list[str]:
    """What is missing, too much, or left behind after a close."""
    problems = unaccounted(jobs, extra)
    for row in jobs.status():
        runs, begun = sum(row.outcomes.values()), book.runs(row.key)
        if not begun <= runs <= begun + row.outcomes["cancelled"]:  # some are cancelled before their first statement
            problems.append(f"{row.key}: {begun} runs began, {runs} have an outcome")
        if book.handled.count(row.key) != row.outcomes["failed"]:
            problems.append(f"{row.key}: {row.outcomes['failed']} failed, {book.handled.count(row.key)} on_exception")
        if row.running:
            problems.append(f"{row.key}: {row.running} runs go on")
    if book.scopes.count("opened") != book.scopes.count("closed"):
        problems.append(f"scopes: {Counter(book.scopes)}")
    if seconds > 0.5 + 5:
        problems.append(f"the close took {seconds:.1f} s")
    return problems


def unaccounted(jobs: BackgroundJobs, extra: Counter[str]) -> list[str]:
    """The jobs with occurrences that have neither an outcome nor a reason, or both, and those that ran twice."""
    problems = []
    for row in jobs.status():
        due = extra[row.key] + book.due(row.key)
        if (found := counted(row)) != due:
            told = {name: number for name, number in {**row.outcomes, **row.not_run}.items() if number}
            problems.append(f"{row.key}: {due} were due, {found} are accounted for: {told}")
    runs = Counter((key, moment) for key, _, moment in book.begun if not extra[key])
    ids = Counter(run_id for _, run_id, _ in book.begun)
    problems += [f"{key} ran {number} times for {moment}" for (key, moment), number in runs.items() if number > 1]
    return problems + [f"run {run_id} began {number} times" for run_id, number in ids.items() if number > 1]


# -- faults of job stores and executors -------------------------------------------------------------------------------


def faults(kind: str, owner: str, count: int) -> Result:
    """Let job stores and executors raise for a while, and look whether all goes on, and nothing is lost or doubled.

    On a scheduler of the owner's an error may end what looks at the jobs, until somebody wakes it up.
    """
    result, injected, occurrences = Result(), Counter[str](), 0
    for number in range(count):
        store = ["FaultyMemory", "FaultySQLite"][number % 2]
        Faults.injected.clear()
        with tempfile.TemporaryDirectory() as folder:
            given: dict[str, Any] = {"class": f"trials:{store}"}
            if store == "FaultySQLite":
                given["url"] = f"sqlite:///{folder}/jobs.db"
            if kind == "asyncio":
                problems, seen = asyncio.run(faults_in_loop(owner, given))
            else:
                problems, seen = faults_in_thread(kind, owner, given)
        result.check(*(f"{store}: {problem}" for problem in problems))
        injected += Faults.injected
        occurrences += seen
    result.figures = f"{injected.total():,} faults in {occurrences:,} occurrences"
    return result


class Struck:
    """Jobs whose job store and executor raise, and what they are asked for meanwhile."""

    def __init__(self, kind: str, owner: str, store: dict[str, Any]) -> None:
        global book
        book = Book()
        self.jobs = made(kind, owner, store)
        self.confirmed: set[str] = set()
        self.since = Counter[str]()
        self.problems: list[str] = []
        self.patience = 5 if owner == "made" else 75
        for job in (Brief, BriefAsync):
            for number in range(2):
                key = f"{job.__name__}-{number}"
                self.jobs.add_background_job(job, trigger=often(), key=key, coalesce=bool(number))
        self.jobs.add_background_job(Brief, cron="@yearly", key="extra")

    def run_now(self) -> None:
        with suppress(Exception):  # the store has raised: whether the run comes is open, and nobody was promised one
            self.confirmed.add(self.jobs.run_now("extra"))

    def started(self) -> Counter[str]:
        return Counter(key for key, _, _ in list(book.begun))

    def lost(self) -> int:
        """How many of the extra runs that were confirmed have neither begun nor have a reason."""
        row = next(row for row in self.jobs.status() if row.key == "extra")
        return len(self.confirmed - {run_id for _, run_id, _ in list(book.begun)}) - sum(row.not_run.values())

    def has_recovered(self) -> bool:
        """Whether each job has run again since the faults ended; whoever asks looks at the health, too."""
        self.jobs.health()
        now = self.started()
        return self.lost() <= 0 and all(now[row.key] > self.since[row.key] for row in self.jobs.status()[:-1])

    def hopes(self) -> Generator[None]:
        """Strike for a second, then wait until the jobs have recovered; a step is 25 ms."""
        Faults.armed = True
        for step in range(40):
            yield
            if step % 5 == 0:
                self.run_now()
        Faults.armed = False
        self.since = self.started()
        for _ in range(40 * self.patience):
            if self.has_recovered():
                return
            yield
        stuck = [row.key for row in self.jobs.status()[:-1] if self.started()[row.key] == self.since[row.key]]
        self.problems.append(f"after {self.patience} s {stuck} have not run, {self.lost()} extra runs are lost")

    def verdict(self) -> tuple[list[str], int]:
        extra = Counter(extra=counted(self.jobs.status()[-1]))
        return self.problems + unaccounted(self.jobs, extra), totals(self.jobs).total()


async def faults_in_loop(owner: str, store: dict[str, Any]) -> tuple[list[str], int]:
    asyncio.get_running_loop().set_default_executor(Refusing(10))
    struck = Struck("asyncio", owner, store)
    async with struck.jobs:
        for _ in struck.hopes():
            await asyncio.sleep(0.025)
    return struck.verdict()


def faults_in_thread(kind: str, owner: str, store: dict[str, Any]) -> tuple[list[str], int]:
    struck = Struck(kind, owner, store)
    warm_up(kind, struck.jobs)
    until(lambda: len(book.last) == len(struck.jobs.status()) - 1)  # the warm-up is over; "extra" is not due
    for _ in struck.hopes():
        time.sleep(0.025)
    struck.jobs.close()
    return struck.verdict()


# -- virtual time over clock changes ----------------------------------------------------------------------------------

ZONES = """
    Europe/Rome Europe/London America/New_York America/Santiago America/Havana Australia/Lord_Howe Australia/Sydney
    Africa/Cairo Asia/Beirut Pacific/Chatham
"""
EXPRESSIONS = """
    0 */15 * * * *
    0 30 2 * * *
    0 0 0 * * *
    */40 * 1-3 * * *
    0 30 0,1,2 * * *
    0 0 3 * * SUN
    0 5-55/10 2 * * *
    0 15 23-3 * * *
    30 59 1 * * *
    0 0 */2 * * *
    0 0 1 L * *
    0 45 2 * MAR,OCT SUN
"""


def clock_changes(zone: ZoneInfo) -> Generator[int]:
    """The seconds of UTC at which the clocks of a zone change, in three years."""
    first = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
    for hour in range(first, first + 3 * 366 * 86400, 1800):
        if datetime.fromtimestamp(hour - 1, zone).utcoffset() != datetime.fromtimestamp(hour, zone).utcoffset():
            yield hour


def virtual(hours: int) -> Result:
    """Walk schedules over clock changes, asleep now and then, and compare with a list made second by second."""
    result, steps, changes = Result(), 0, 0
    todo = [(ZoneInfo(name), change) for name in ZONES.split() for change in clock_changes(ZoneInfo(name))]
    chance.shuffle(todo)
    while result.tried * 10 < hours:
        zone, change = todo[changes % len(todo)]
        changes += 1
        since = change - chance.randrange(3600, 9 * 3600)
        nap = since + chance.randrange(36000)
        asleep = (nap, nap + chance.randrange(7200))
        for expression in chance.sample(EXPRESSIONS.strip().splitlines(), 4):
            oracle = Oracle(expression)
            expected = [second for second in range(since + 1, since + 36001) if oracle.fires(second, zone)]
            found = ten_hours(expression, zone, since, asleep)
            slept = [outcome for second, outcome in found if asleep[0] < second <= asleep[1]]
            problems = []
            if [second for second, _ in found] != expected:
                problems.append(f"{expression} in {zone} from {since}: {len(found)} steps, {len(expected)} expected")
            if slept != ["coalesced"] * (len(slept) - 1) + ["succeeded"] * bool(slept):
                problems.append(f"{expression} in {zone}: asleep {asleep}, {slept}")
            steps += len(found)
            result.check(*problems)
    told = f"{changes} of the {len(todo)} clock changes of three years in {len(ZONES.split())} zones"
    result.figures = f"{result.tried * 10:,} hours, {told}; {steps:,} fire times"
    return result


def ten_hours(expression: str, zone: ZoneInfo, since: int, asleep: tuple[int, int]) -> list[tuple[int, str]]:
    """The second of each fire time in ten hours, and what becomes of it."""
    begin, end, *nap = (datetime.fromtimestamp(second + 0.5, UTC) for second in (since, since + 36000, *asleep))
    jobs = cold().add_background_job(Brief, cron=expression, timezone=zone.key)
    return [
        (int(step.scheduled_at.timestamp()), step.outcome) for step in walk(jobs, begin, end, asleep=[(nap[0], nap[1])])
    ]


# -- very many firings ------------------------------------------------------------------------------------------------


def resident() -> float:
    """The memory of this process, in MB."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096 / 1e6


def firings(count: int) -> Result:
    """Fire on an asyncio scheduler, as fast as it goes, and weigh the process after a tenth and at the end."""
    result = Result(count)
    memory, seconds, accounted = asyncio.run(fire(count))
    grown = memory[1] - memory[0]
    result.figures = (
        f"{memory[0]:.1f} MB after {count // 10:,}, {memory[1]:.1f} MB after {count:,}; "
        f"{count / seconds:,.0f} a second; {accounted:,} occurrences accounted for"
    )
    if grown > 2:
        result.wrong.append(f"the process has grown by {grown:.1f} MB")
    return result


async def fire(count: int) -> tuple[list[float], float, int]:
    fired, memory = 0, list[float]()

    async def job() -> None:
        nonlocal fired
        fired += 1

    jobs = cold(scheduler="asyncio")
    for number in range(100):
        jobs.add_background_job(job, key=f"job-{number}", trigger=IntervalTrigger(seconds=0.01, timezone="UTC"))
    begin = time.monotonic()
    async with jobs:
        for goal in (count // 10, count):
            while fired < goal:
                await asyncio.sleep(0.05)
            gc.collect()
            memory.append(resident())
        seconds = time.monotonic() - begin
    return memory, seconds, sum(counted(row) for row in jobs.status())
