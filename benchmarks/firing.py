"""What a firing, a failing firing and a registration cost: bgjobs against plain APScheduler, in CPU time.

Both contestants run in this one process, their rounds in turn, who goes first changing from pair to pair, and are
compared pair by pair; each round begins after a garbage collection, so that none pays for what another one left. What
is printed is the median of the ratios with its quartiles. Everything is driven by public API: jobs on expressions that
are not due; `pause()`, `modify_job(next_run_time=now)` for all of them, `resume()`, until a listener has seen them all.

So many jobs are due together in a round. A thousand on threads measure something else, too: who is quicker to submit
gets in the way of his own workers more often, at the lock of APScheduler's executor.

    python benchmarks/firing.py [--rounds 300] [--jobs 100]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import statistics
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from loguru import logger

from bgjobs import BackgroundJobs, BackgroundJobsSettings, RunReport, cron_trigger_arguments

#: Typical expressions; none is due while the benchmark runs but for the every-second and every-minute ones, which are
#: due only now and then and count for both.
EXPRESSIONS = [
    "0 */5 * * * *",
    "0 0 * * * *",
    "0 0 3 * * *",
    "0 30 9-17 * * 1-5",
    "0 0 0 * * 1",
    "0 0 9 1 * *",
    "0 15 4 * * SUN",
    "0 0,30 8-18 * * *",
    "0 0 0 1 1 *",
    "0 0 12 * * MON-FRI",
    "30 */10 * * * *",
    "0 0 2 1,15 * *",
]


T = TypeVar("T")


class Job:
    async def action_to_do(self) -> None: ...


class SyncJob:
    def action_to_do(self) -> None: ...


class FailingJob:
    async def action_to_do(self) -> None:
        raise ValueError("no")


class FailingSyncJob:
    def action_to_do(self) -> None:
        raise ValueError("no")


async def bare() -> None: ...
def sync_bare() -> None: ...
async def failing_bare() -> None:
    raise ValueError("no")


def failing_sync_bare() -> None:
    raise ValueError("no")


class Contestant:
    """A running scheduler with `count` jobs, and a way to fire them all."""

    def __init__(self, kind: str, count: int, job: Any, *, ours: bool, observed: bool = False) -> None:
        self.scheduler = (AsyncIOScheduler if kind == "asyncio" else BackgroundScheduler)(timezone="UTC")
        self.count, self.seen, self.done = count, 0, threading.Event()
        self.observed = self.to_observe = count if observed else 0
        self.scheduler.add_listener(self.see, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)
        texts = [EXPRESSIONS[n % len(EXPRESSIONS)] for n in range(count)]
        if ours:
            self.jobs = BackgroundJobs(self.scheduler, settings=BackgroundJobsSettings.defaults())
            if observed:
                self.jobs.on_run_end(self.observe)
            for n, text in enumerate(texts):
                self.jobs.add_background_job(job, cron=text, key=f"job-{n}")
            self.jobs.warm_up()
            self.ids = [f"bgjobs:job-{n}" for n in range(count)]
        else:
            for n, text in enumerate(texts):
                trigger = CronTrigger(**cron_trigger_arguments(text), timezone="UTC")
                self.scheduler.add_job(job, trigger, id=f"job-{n}", misfire_grace_time=None)
            self.scheduler.start()
            self.ids = [f"job-{n}" for n in range(count)]

    def see(self, event: Any) -> None:
        self.seen += 1
        self.look()

    def observe(self, report: RunReport) -> None:
        self.observed += 1
        self.look()

    def look(self) -> None:
        if self.seen >= self.count and self.observed >= self.to_observe:
            self.done.set()

    def arm(self) -> None:
        self.scheduler.pause()
        now = datetime.now(UTC)
        for id_ in self.ids:
            self.scheduler.modify_job(id_, next_run_time=now)
        self.seen = self.observed = 0
        self.done.clear()
        gc.collect()


def measured(contestant: Contestant) -> float:
    """CPU seconds of firing all jobs of a threaded contestant once."""
    contestant.arm()
    begin = time.process_time()
    contestant.scheduler.resume()
    contestant.done.wait()
    return time.process_time() - begin


async def measured_async(contestant: Contestant) -> float:
    contestant.arm()
    begin = time.process_time()
    contestant.scheduler.resume()
    while not contestant.done.is_set():
        await asyncio.sleep(0.001)
    return time.process_time() - begin


def in_turn(ours: T, theirs: T, n: int) -> tuple[T, T]:
    """The order of the pair number `n`."""
    return (ours, theirs) if n % 2 else (theirs, ours)


def told(name: str, ours: list[float], theirs: list[float], count: int) -> None:
    low, middle, high = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
    per = 1e6 / count
    print(
        f"{name:34} {middle:5.2f}  ({low:.2f}..{high:.2f})   bgjobs {statistics.median(ours) * per:6.1f} us   "
        f"plain {statistics.median(theirs) * per:6.1f} us"
    )


async def on_asyncio(name: str, job: Any, plain: Any, rounds: int, count: int, *, observed: bool = False) -> None:
    ours = Contestant("asyncio", count, job, ours=True, observed=observed)
    theirs = Contestant("asyncio", count, plain, ours=False)
    times: dict[Contestant, list[float]] = {ours: [], theirs: []}
    for n in range(rounds + 1):
        for contestant in in_turn(ours, theirs, n):
            times[contestant].append(await measured_async(contestant))
    told(name, times[ours][1:], times[theirs][1:], count)
    await ours.jobs.aclose()
    theirs.scheduler.shutdown()
    await asyncio.sleep(0)


def on_threads(name: str, job: Any, plain: Any, rounds: int, count: int, *, observed: bool = False) -> None:
    ours = Contestant("background", count, job, ours=True, observed=observed)
    theirs = Contestant("background", count, plain, ours=False)
    times: dict[Contestant, list[float]] = {ours: [], theirs: []}
    for n in range(rounds + 1):
        for contestant in in_turn(ours, theirs, n):
            times[contestant].append(measured(contestant))
    told(name, times[ours][1:], times[theirs][1:], count)
    ours.jobs.close()
    theirs.scheduler.shutdown()


def register_ours(count: int) -> Callable[[], object]:
    jobs = BackgroundJobs(BackgroundScheduler(timezone="UTC"), settings=BackgroundJobsSettings.defaults())
    for n in range(count):
        jobs.add_background_job(Job, cron=EXPRESSIONS[n % len(EXPRESSIONS)], key=f"job-{n}")
    jobs.warm_up()
    return jobs.close


def register_plain(count: int) -> Callable[[], object]:
    scheduler = BackgroundScheduler(timezone="UTC")
    for n in range(count):
        arguments = cron_trigger_arguments(EXPRESSIONS[n % len(EXPRESSIONS)])
        scheduler.add_job(bare, CronTrigger(**arguments, timezone="UTC"), id=f"job-{n}", name=f"job-{n}")
    scheduler.start()
    return scheduler.shutdown


def registration(rounds: int, count: int) -> None:
    times: dict[Any, list[float]] = {register_ours: [], register_plain: []}
    for n in range(rounds + 1):
        for register in in_turn(register_ours, register_plain, n):
            gc.collect()
            begin = time.process_time()
            close = register(count)
            times[register].append(time.process_time() - begin)
            close()
    told(f"register and warm up {count:,}", times[register_ours][1:], times[register_plain][1:], count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--registrations", type=int, default=10_000)
    arguments = parser.parse_args()
    logger.remove()
    logging.getLogger("apscheduler").addHandler(logging.NullHandler())
    logging.getLogger("apscheduler").propagate = False
    rounds, count = arguments.rounds, arguments.jobs
    print(f"{'':34} ratio  (quartiles)    CPU time a firing")
    asyncio.run(on_asyncio("asyncio, async job", Job, bare, rounds, count))
    on_threads("threads, sync job", SyncJob, sync_bare, rounds, count)
    asyncio.run(on_asyncio("asyncio, async job, one observer", Job, bare, rounds, count, observed=True))
    on_threads("threads, sync job, one observer", SyncJob, sync_bare, rounds, count, observed=True)
    asyncio.run(on_asyncio("asyncio, failing async job", FailingJob, failing_bare, max(3, rounds // 3), count))
    on_threads("threads, failing sync job", FailingSyncJob, failing_sync_bare, max(3, rounds // 3), count)
    registration(max(3, rounds // 40), arguments.registrations)


if __name__ == "__main__":
    main()
