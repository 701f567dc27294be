"""How late a thousand every-second jobs start, and what a run costs: bgjobs, plain APScheduler and aiocron.

Every job is due at every second of the real clock, on asyncio. Each contestant runs in a process by itself, one after
the other, in an order that changes from round to round. A process starts its jobs, lets two seconds pass, and then
measures from the middle of one second to the middle of another.

    python benchmarks/punctuality.py [--jobs 1000] [--seconds 20] [--rounds 6]
    python benchmarks/punctuality.py --one bgjobs          # one process, its figures as JSON

What the columns show, as the median of the rounds with the quartiles in parentheses:

- CPU: microseconds of CPU time of the whole process (all threads) per run.
- ratio: CPU divided by that of plain APScheduler in the same round. Two processes that do identical work on a shared
  machine give anything from 0.8 to 1.3, so that it takes several rounds to tell 0.9 from 1.
- p50, p99: milliseconds from the second at which a run was due to the first statement of its action. They grow with
  the number of jobs: the last of a thousand jobs starts after the 999 others have been started.
- lost: runs that were due and did not take place, in all rounds.

A figure of these jobs does not hold for others. bgjobs takes half the CPU of plain APScheduler for a mix of
expressions (`benchmarks/firing.py`), because its search for the next fire time is cheaper. For every second that search
is cheap in APScheduler, too, and a run costs 0.8 to 0.9 of what it costs there.

aiocron is optional (``pip install aiocron``).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import itertools
import json
import logging
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from loguru import logger

from bgjobs import BackgroundJobs, BackgroundJobsSettings

#: When each action started, in seconds since the epoch.
starts: list[float] = []


class Job:
    async def action_to_do(self) -> None:
        starts.append(time.time())


async def action() -> None:
    starts.append(time.time())


@asynccontextmanager
async def bgjobs(count: int) -> AsyncGenerator[None]:
    jobs = BackgroundJobs(AsyncIOScheduler(timezone="UTC"), settings=BackgroundJobsSettings.defaults())
    for n in range(count):
        jobs.add_background_job(Job, cron="* * * * * *", key=f"job-{n}")
    async with jobs:
        yield


@asynccontextmanager
async def plain(count: int) -> AsyncGenerator[None]:
    scheduler = AsyncIOScheduler(timezone="UTC")
    for n in range(count):
        trigger = CronTrigger(second="*", timezone="UTC")
        scheduler.add_job(action, trigger, id=f"job-{n}", misfire_grace_time=None, coalesce=True)
    scheduler.start()
    yield
    scheduler.shutdown()


@asynccontextmanager
async def aiocron(count: int) -> AsyncGenerator[None]:
    from aiocron import crontab

    crons = [crontab("* * * * * *", action, tz=UTC) for _ in range(count)]
    yield
    for cron in crons:
        cron.stop()


CONTESTANTS: dict[str, Callable[[int], AbstractAsyncContextManager[None]]] = {
    "plain": plain,
    "bgjobs": bgjobs,
    "aiocron": aiocron,
}


async def measured(name: str, count: int, seconds: int) -> dict[str, float]:
    """The figures of one contestant in this process."""
    async with CONTESTANTS[name](count):
        gc.collect()
        await asyncio.sleep(2 + (0.5 - time.time()) % 1)
        starts.clear()
        begin = time.process_time()
        await asyncio.sleep(seconds)
        cpu, runs = time.process_time() - begin, len(starts)
        # A timer may go off a little early, which is a small negative lateness, not one of almost a second.
        late = sorted((start + 0.1) % 1 - 0.1 for start in starts)
    percentiles = statistics.quantiles(late, n=100)
    return {
        "cpu": cpu / runs * 1e6,
        "p50": percentiles[49] * 1e3,
        "p99": percentiles[98] * 1e3,
        "lost": count * seconds - runs,
    }


def in_own_process(name: str, count: int, seconds: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", name, "--jobs", str(count), "--seconds", str(seconds)]
    figures: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return figures


def spread(values: list[float], digits: int) -> str:
    """The median with the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.{digits}f} ({low:.{digits}f}..{high:.{digits}f})"


def compare(names: list[str], count: int, seconds: int, rounds: int) -> None:
    """Run all contestants in turn, and print the table."""
    orders = itertools.islice(itertools.cycle(itertools.permutations(names)), rounds)
    results = [{name: in_own_process(name, count, seconds) for name in order} for order in orders]
    print(f"Python {platform.python_version()}, {platform.platform()}, {datetime.now(UTC):%Y-%m-%d}")
    print(f"{count:,} jobs every second, {seconds} s, {rounds} rounds")
    print(f"\n{'':8} {'CPU us':20} {'ratio':20} {'p50 ms':20} {'p99 ms':20} lost")
    for name in names:
        figures = [result[name] for result in results]
        ratios = [result[name]["cpu"] / result["plain"]["cpu"] for result in results]
        columns = [spread([figure["cpu"] for figure in figures], 1), spread(ratios, 2)]
        columns += [spread([figure[key] for figure in figures], 0) for key in ("p50", "p99")]
        lost = sum(figure["lost"] for figure in figures)
        print(f"{name:8} {' '.join(f'{column:20}' for column in columns)} {lost:,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=6, help="2 or more; 6 for every order of three")
    parser.add_argument("--one", choices=list(CONTESTANTS), help="measure one contestant, in this process")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("--rounds: quartiles need 2 rounds or more")
    if arguments.one:
        logging.basicConfig(level=logging.WARNING)
        logger.remove()
        logger.add(sys.stderr, level="WARNING")
        print(json.dumps(asyncio.run(measured(arguments.one, arguments.jobs, arguments.seconds))))
        return
    names = list(CONTESTANTS)
    if importlib.util.find_spec("aiocron") is None:
        names.remove("aiocron")
        print("aiocron is not installed and is left out")
    compare(names, arguments.jobs, arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    main()
