"""A thousand jobs for a minute, with failures, slow runs, time-outs, pauses, removals and runs by hand.

Every occurrence of a list that is made here, second by second and without bgjobs, must be found again in
``jobs.status()``: as a run with an outcome, or with a reason for not running. Afterwards no run, task, thread or open
scope may be left, and the second half of the time may not have cost memory that the first did not.

    python benchmarks/soak.py [--kind asyncio|background] [--jobs 1000] [--seconds 60] [--seed 1]

Exit status 1 when something is missing or left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import random
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from loguru import logger

from bgjobs import BackgroundJobs, BackgroundJobsSettings, CancellationToken
from bgjobs._runs.run import Run

#: Bytes that an occurrence may leave on the average; the runs that are going at the two measurements differ a little.
LEAK = 50

chance = random.Random(1)
scopes = Counter[str]()


class Erratic:
    """Fails, dawdles, or is done at once, sync or async."""

    async def action_to_do(self, cancellation_token: CancellationToken) -> None:
        throw = chance.random()
        if throw < 0.1:
            raise ValueError("now and then")
        if throw < 0.15:
            await asyncio.sleep(1.5)
        if throw < 0.16:
            raise asyncio.CancelledError

    async def on_exception(self, exception: Exception) -> None:
        if chance.random() < 0.2:
            raise RuntimeError("and the handler, too")


class SyncErratic:
    def action_to_do(self, cancellation_token: CancellationToken) -> None:
        throw = chance.random()
        if throw < 0.1:
            raise ValueError("now and then")
        if throw < 0.12:
            cancellation_token.wait(1.5)


@contextmanager
def resolver(job_type: type[Any]) -> Generator[Any]:
    scopes["opened"] += 1
    try:
        yield job_type()
    finally:
        scopes["closed"] += 1


class Soak:
    """The jobs, and the list of what is due, kept by plain arithmetic."""

    def __init__(self, kind: str, count: int) -> None:
        pool = {"default": ThreadPoolExecutor(60)} if kind == "background" else {}
        scheduler = (AsyncIOScheduler if kind == "asyncio" else BackgroundScheduler)(timezone="UTC", executors=pool)
        self.jobs = BackgroundJobs(scheduler, settings=BackgroundJobsSettings.defaults(), resolver=resolver)
        self.periods = {f"job-{n}": chance.choice([1, 2, 3, 5, 10]) for n in range(count)}
        self.due: Counter[str] = Counter()
        self.counted: Counter[str] = Counter()
        self.paused: set[str] = set()
        self.removed: set[str] = set()
        self.memory: list[tuple[int, int]] = []  # how many were due, and the bytes in use, at half-time and at the end
        for key in self.periods:
            self.add(key)

    def add(self, key: str) -> None:
        job = Erratic if int(key[4:]) % 4 else SyncErratic
        timeout = 0.7 if int(key[4:]) % 7 == 0 else None
        self.jobs.add_background_job(job, key=key, cron=f"*/{self.periods[key]} * * * * *", timeout=timeout)

    def second(self, moment: int) -> None:
        """Note what is due in this second, in its middle; then change something, before the next."""
        for key, period in self.periods.items():
            if moment % 60 % period == 0 and key not in self.removed:
                self.due[key] += 1
        for key in chance.sample([*self.periods], max(1, len(self.periods) // 100)):
            self.change(key)

    def weigh(self) -> None:
        gc.collect()
        self.memory.append((self.due.total(), tracemalloc.get_traced_memory()[0]))

    def change(self, key: str) -> None:
        if key in self.removed:
            self.removed.remove(key)
            self.add(key)
        elif key in self.paused:
            self.paused.remove(key)
            self.jobs.resume(key)
        elif (throw := chance.random()) < 0.3:
            self.paused.add(key)
            self.jobs.pause(key)
        elif throw < 0.6:
            self.jobs.run_now(key)
            self.due[key] += 1
        elif self.counted[key] + counted(row := self.row(key)) == self.due[key]:  # else one is under way
            self.counted[key] += counted(row)
            self.removed.add(key)
            self.jobs.remove(key)

    def row(self, key: str) -> Any:
        return next(row for row in self.jobs.status() if row.key == key)

    def end(self) -> None:
        """Take the account of the pauses, before the close."""
        for key in self.paused:
            self.jobs.resume(key)

    def verdict(self) -> list[str]:
        """What is missing or too much, by key."""
        for row in self.jobs.status():
            self.counted[row.key] += counted(row)
        return [
            f"{key}: {self.due[key]} were due, {self.counted[key]} are accounted for"
            for key in self.periods
            if self.due[key] != self.counted[key]
        ]


def counted(row: Any) -> int:
    return sum(row.outcomes.values()) + sum(row.not_run.values()) - row.not_run["repeated"]


def until_half() -> float:
    """Seconds until the middle of the next second."""
    return 1 - (time.time() - 0.5) % 1


async def asyncio_soak(arguments: argparse.Namespace) -> tuple[Soak, list[str], float]:
    soak = Soak("asyncio", arguments.jobs)
    await asyncio.sleep(until_half())
    begin = time.process_time()
    async with soak.jobs:
        for n in range(arguments.seconds):
            await asyncio.sleep(until_half())
            soak.second(int(time.time()))
            if n in (arguments.seconds // 2, arguments.seconds - 1):
                soak.weigh()
        soak.end()
    spent = time.process_time() - begin
    await asyncio.sleep(0)
    left = [f"task {task}" for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    return soak, left, spent


def background_soak(arguments: argparse.Namespace) -> tuple[Soak, list[str], float]:
    soak = Soak("background", arguments.jobs)
    time.sleep(until_half())
    begin = time.process_time()
    with soak.jobs:
        for n in range(arguments.seconds):
            time.sleep(until_half())
            soak.second(int(time.time()))
            if n in (arguments.seconds // 2, arguments.seconds - 1):
                soak.weigh()
        soak.end()
    return soak, [], time.process_time() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["asyncio", "background"], default="asyncio")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance.seed(arguments.seed)
    tracemalloc.start()
    logger.remove()
    logging.getLogger("apscheduler").addHandler(logging.NullHandler())
    logging.getLogger("apscheduler").propagate = False
    if arguments.kind == "asyncio":
        soak, left, spent = asyncio.run(asyncio_soak(arguments))
    else:
        soak, left, spent = background_soak(arguments)
    wrong = soak.verdict()
    totals: Counter[str] = Counter()
    for row in soak.jobs.status():
        totals += Counter(row.outcomes) + Counter(row.not_run)
    gc.collect()
    left += [f"run {run.run_id}" for run in gc.get_objects() if isinstance(run, Run)]
    threads = {thread.name for thread in threading.enumerate()} - {"bgjobs-alarms"}  # it waits for all time limits
    left += [f"thread {name}" for name in threads if name.startswith(("bgjobs", "APScheduler"))]
    if scopes["opened"] != scopes["closed"]:
        left.append(f"{scopes['opened'] - scopes['closed']} open scopes")
    (due, before), (due_now, now) = soak.memory
    grown = (now - before) / (due_now - due)
    if grown > LEAK:
        left.append(f"{grown:.0f} bytes for each occurrence of the second half")
    print(f"memory: {before / 1e6:.2f} MB at half-time, {now / 1e6:.2f} MB at the end, {grown:.0f} bytes an occurrence")
    print(f"{sum(soak.due.values()):,} due, {len(wrong)} keys wrong, {len(left)} left behind, {spent:.1f} s of CPU")
    print(", ".join(f"{name} {number:,}" for name, number in totals.items()))
    print(*wrong[:10], *left[:10], sep="\n")
    return 1 if wrong or left else 0


if __name__ == "__main__":
    sys.exit(main())
