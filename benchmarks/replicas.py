"""What four replicas make of the same jobs: with claims, and beside it with a shared job store, and with a lock.

Everything real: four processes whose clocks are off by -2, -0.7, +0.7 and +2 seconds, and PostgreSQL, Redis and SQLite
as claim stores. Two jobs are due every second, of 10 ms and of 0.2 s; a third runs once at the start. In one trial a
replica is killed (SIGKILL) every five seconds and started again, in another one the store is stopped for ten seconds
(SIGSTOP; SQLite's file is locked). Then one clock is 8 s ahead, three are true; and a job is due every ten seconds, so
that the clocks differ by less than its period. Prints a Markdown table, and below it what was wrong.

    python benchmarks/replicas.py [--seconds 60] [--store postgresql] [--only claims]

Exit status 1 when, with claims, an occurrence ran twice, was lost without a reason, or ran earlier than the clocks
allow, two runs of a job were in progress at the same time, a fence did not rise, or there was another number of
start-up runs than one; and in the last two trials, when an occurrence was lost at all. The rows of the others are for
comparison, and never wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import re
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import processes
import time_machine
from apscheduler.events import EVENT_JOB_EXECUTED
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from loguru import logger
from processes import Life, Store
from redis import Redis
from sqlalchemy import create_engine, make_url, text
from trials import Result, cold

from bgjobs import current_run
from bgjobs._runs import status
from bgjobs._settings.model import ClaimSettings
from servers import redis_server, redis_url

CLOCKS = (-2.0, -0.7, 0.7, 2.0)  # seconds by which the clocks of the replicas are off
AHEAD = 5.0  # how far ahead a clock may be before its runs wait for that of the store
LEASE = 5.0
KILLS = 5.0  # seconds from one kill to the next
AWAY = 10.0  # seconds for which the store is stopped
EDGE = 3.0  # seconds at the start and at the end in which nothing counts: the clocks differ, and replicas come and go
JOBS = {"short": 0.01, "long": 0.2}  # how long a run takes, by key

#: One clock for all processes of a machine, which nobody sets.
clock = time.monotonic


def ticks() -> Callable[[], float]:
    """What the true time is, even where the clock of this process is off."""
    start = time.time() - clock()
    return lambda: start + clock()


# -- a replica --------------------------------------------------------------------------------------------------------


def note(file: str, what: str, key: str, fire: datetime, **more: Any) -> None:
    """One line about an occurrence, whatever becomes of the process."""
    line = {"what": what, "key": key, "fire": round(fire.timestamp()), "pid": os.getpid(), "at": clock(), **more}
    with open(file, "a") as lines:  # noqa: PTH123
        lines.write(json.dumps(line) + "\n")


def run(file: str, seconds: float) -> None:
    """A job of bgjobs."""
    this = current_run()
    note(file, "begun", this.key, this.scheduled_at, fence=this.fence)
    time.sleep(seconds)
    note(file, "ended", this.key, this.scheduled_at)


def with_claims(file: str, url: str, application: str, jobs: dict[str, float], period: int) -> Callable[[], object]:
    """A replica with bgjobs. Returns what closes it."""
    claims = ClaimSettings(url=url, lease=LEASE)
    facade = cold(scheduler="background", application=application, claims=claims)

    def skipped(report: status.RunReport) -> None:
        if report.run_id is None:
            note(file, report.outcome, report.key, report.scheduled_at, reason=report.reason)

    facade._registry.reports.observers.append(skipped)  # noqa: SLF001 - as bgjobs.testing does
    for key, seconds in jobs.items():
        facade.add_background_job(partial(run, file, seconds), cron=f"*/{period} * * * * *", key=key)
    facade.add_background_job(partial(run, file, 0.01), cron="0 0 3 1 1 *", key="start", run_immediately=True)
    facade.warm_up()
    return facade.close


def work(seconds: float) -> tuple[float, float]:
    """A job of APScheduler."""
    begun = clock()
    time.sleep(seconds)
    return begun, clock()


def locked_work(key: str, seconds: float, url: str) -> tuple[float, float] | None:
    """A job of APScheduler that does its work only if it gets the lock."""
    lock = Redis.from_url(url).lock(f"lock-{key}", timeout=LEASE, blocking=False)
    if not lock.acquire():
        return None
    try:
        return work(seconds)
    finally:
        lock.release()


def without_claims(file: str, url: str, application: str, jobs: dict[str, float], period: int) -> Callable[[], object]:
    """A replica with APScheduler alone: with a shared job store, or on Redis with a lock around each job."""
    is_locked = url.startswith("redis")
    stores = {} if is_locked else {"default": SQLAlchemyJobStore(url=url, tablename=application)}
    scheduler = BackgroundScheduler(jobstores=stores, timezone="UTC")

    def executed(event: Any) -> None:
        if event.retval is not None:
            begun, ended = event.retval
            note(file, "begun", event.job_id, event.scheduled_run_time, at=begun)
            note(file, "ended", event.job_id, event.scheduled_run_time, at=ended)

    scheduler.add_listener(executed, EVENT_JOB_EXECUTED)
    for key, seconds in jobs.items():
        action, arguments = (locked_work, [key, seconds, url]) if is_locked else (work, [seconds])
        trigger = CronTrigger(second=f"*/{period}", timezone="UTC")
        scheduler.add_job(action, trigger, arguments, id=key, replace_existing=True)
    scheduler.start()
    return partial(scheduler.shutdown)


def live(offset: float, *, claims: bool, **about: Any) -> None:
    """One replica, until its input ends."""
    logging.getLogger("apscheduler").addHandler(logging.NullHandler())
    logging.getLogger("apscheduler").propagate = False
    moment = datetime.now(UTC) + timedelta(seconds=offset)
    with time_machine.travel(moment, tick=True) if offset else nullcontext():
        close = (with_claims if claims else without_claims)(**about)
        print(json.dumps("warm"), flush=True)
        sys.stdin.read()
        close()


# -- stores -----------------------------------------------------------------------------------------------------------


@contextmanager
def redis() -> Generator[Callable[[ExitStack], Store]]:
    with redis_server() as server:
        yield lambda _: {"url": redis_url(server)}


STORES = {"sqlite": processes.sqlite, "postgresql": processes.postgresql, "redis": redis}


def family(pid: int) -> list[int]:
    """A process and its children, the eldest first."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def server_processes(url: str) -> list[int]:
    """The processes of the server behind a URL."""
    if url.startswith("redis"):
        return family(Redis.from_url(url).info("server")["process_id"])
    folder = make_url(url).query["host"]
    return family(int(Path(f"{folder}/data/postmaster.pid").read_text().split()[0]))


def stop_for(seconds: float, url: str) -> None:
    """Have the store answer nobody for so long."""
    if url.startswith("sqlite"):
        with create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text("BEGIN EXCLUSIVE"))
            time.sleep(seconds)
            connection.execute(text("ROLLBACK"))
        return
    stopped = []
    try:
        for pid in server_processes(url):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
        time.sleep(seconds)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


# -- a trial ----------------------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """Some replicas, from the first start to the last end, and what they have noted.

    Attributes:
        file: What the replicas have noted.
        jobs: How long a run takes of each job that counts, in seconds.
        period: Seconds from one fire time to the next.
        is_whole: Whether an occurrence is wrong that has not run, even for a reason.
        killed: When each process was killed, by its id.
    """

    file: Path
    url: str
    application: str
    clocks: tuple[float, ...] = CLOCKS
    jobs: dict[str, float] = field(default_factory=lambda: JOBS)
    period: int = 1
    is_whole: bool = False
    claims: bool = True
    killed: dict[int, float] = field(default_factory=dict)
    replicas: list[Life] = field(default_factory=list)
    span: tuple[float, float] = (0.0, 0.0)  # what counts: fire times between these, in true time

    def start(self, offset: float) -> Life:
        about = {"file": str(self.file), "url": self.url, "application": self.application}
        return Life(__file__, **about, jobs=self.jobs, period=self.period, offset=offset, claims=self.claims)

    def go_on(self, seconds: float, disturb: str) -> None:
        """Run the replicas for so long, and disturb them."""
        self.replicas = list(map(self.start, self.clocks))
        now = ticks()
        begin = now()
        end = begin + seconds
        if disturb == "store":
            time.sleep(max(EDGE, (seconds - AWAY) / 2))
            stop_for(AWAY, self.url)
        number = 0
        while disturb == "kills" and now() + KILLS < end:
            time.sleep(max(0.0, begin + KILLS * (number + 1) - now()))
            which = number % len(self.replicas)
            victim = self.replicas[which]
            victim.kill()
            self.killed[victim.process.pid] = clock()
            self.replicas[which] = self.start(self.clocks[which])
            number += 1
        time.sleep(max(0.0, end - now()))
        self.span = (begin + EDGE, end - EDGE)
        for life in self.replicas:
            life.process.communicate()

    def judge(self) -> Judgement:
        """What the notes say."""
        lines = [json.loads(line) for line in self.file.read_text().splitlines()]
        return Judgement(self, lines, ticks()() - clock())


class Judgement:
    """What is wrong with the runs of a trial, and what is to be said of them."""

    def __init__(self, trial: Trial, lines: list[dict[str, Any]], epoch: float) -> None:
        self.trial, self.killed, self.epoch = trial, trial.killed, epoch
        self.begun: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.ended: dict[tuple[str, int, int], float] = {}
        self.refused: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
        for line in lines:
            if line["what"] == "begun":
                self.begun[line["key"]].append(line)
            elif line["what"] == "ended":
                self.ended[line["key"], line["fire"], line["pid"]] = line["at"]
            else:
                stands_for = re.match(r"coalesced (\d+)", line["reason"] or "")
                for earlier in range(int(stands_for[1]) + 1 if stands_for else 1):
                    self.refused[line["key"], line["fire"] - earlier * trial.period].append(line)
        for runs in self.begun.values():
            runs.sort(key=lambda line: float(line["at"]))

    def due(self) -> range:
        """The fire times that count."""
        period = self.trial.period
        first, last = (int(end // period + 1) * period for end in self.trial.span)
        return range(first, last, period)

    def missing(self, key: str) -> list[int]:
        """Those of them that have not run."""
        return sorted(set(self.due()) - {line["fire"] for line in self.begun[key]})

    def doubled(self, key: str) -> dict[int, int]:
        """The occurrences that have run more than once, at the edges as well, and how often."""
        counts = Counter(line["fire"] for line in self.begun[key])
        return {fire: count for fire, count in counts.items() if count > 1}

    def lost(self, key: str) -> list[int]:
        """The occurrences that have not run, without a reason."""
        return [fire for fire in self.missing(key) if not self.why(key, fire)]

    def why(self, key: str, fire: int) -> set[str]:
        """Why an occurrence has not run."""
        reasons = {line["what"] for line in self.refused[key, fire]} - {status.Outcome.CLAIMED}
        for line in self.refused[key, fire]:
            killed = self.killed.get(int((re.search(r":(\d+)$", line["reason"] or "") or [0, 0])[1]))
            if line["what"] == status.Outcome.CLAIMED and killed and abs(killed + self.epoch - fire) < EDGE:
                reasons.add("killed after its claim")
        return reasons

    def reasons(self) -> str:
        """Why occurrences have not run, with numbers; replicas can have had several reasons."""
        counts: Counter[str] = Counter()
        for key in self.trial.jobs:
            counts.update("/".join(sorted(self.why(key, fire))) or "none" for fire in self.missing(key))
        return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())

    def together(self, key: str) -> list[str]:
        """The runs that began while another one was in progress."""
        found, until = [], 0.0
        for line in self.begun[key]:
            if line["at"] < until:
                found.append(f"{key} at {line['fire']} began while another run was in progress")
            own = self.ended.get((key, line["fire"], line["pid"]), self.killed.get(line["pid"], line["at"]))
            until = max(until, own)
        return found

    def fences(self, key: str) -> list[str]:
        """The fences that do not rise."""
        fences = [line["fence"] for line in self.begun[key]]
        return [f"{key}: fence {one} is followed by {two}" for one, two in pairwise(fences) if two <= one]

    def early(self, key: str) -> list[str]:
        """The runs that began earlier than the clock does that is furthest ahead of those that wait for no other."""
        ahead = max(0.0, *(offset for offset in self.trial.clocks if offset <= AHEAD)) + 0.1
        waits = ((line["fire"], line["fire"] - line["at"] - self.epoch) for line in self.begun[key])
        return [f"{key} at {fire} began {wait:.1f} s early" for fire, wait in waits if wait > ahead]

    def problems(self) -> Iterable[str]:
        """What is wrong, with claims."""
        for key in self.trial.jobs:
            yield from (f"{key} at {fire} ran {count} times" for fire, count in self.doubled(key).items())
            lost = self.missing(key) if self.trial.is_whole else self.lost(key)
            yield from (f"{key} at {fire} was lost: {self.why(key, fire) or 'no reason'}" for fire in lost)
            yield from self.together(key) + self.fences(key) + self.early(key)
            if len(self.missing(key)) == len(self.due()):
                yield f"{key} never ran"
        if len(self.begun["start"]) != 1:
            yield f"{len(self.begun['start'])} start-up runs"


#: How each is disturbed, and what is different from other trials.
TRIALS: dict[str, tuple[str, dict[str, Any]]] = {
    "clocks off by -2, -0.7, +0.7, +2 s": ("", {}),
    "the same, one replica killed every 5 s": ("kills", {}),
    "the same, the store away for 10 s": ("store", {}),
    "one clock 8 s ahead, three true": ("", {"clocks": (8.0, 0.0, 0.0, 0.0), "is_whole": True}),
    "a job every 10 s, clocks off": ("", {"jobs": {"short": 0.01}, "period": 10, "is_whole": True}),
}


def tried(store: str, seconds: float, only: str) -> list[str]:
    """The trials on one kind of store. Prints their rows, and returns what is wrong."""
    wrong: list[str] = []
    todo: list[tuple[str, str, dict[str, Any]]] = [(f"claims, {name}", *how) for name, how in TRIALS.items()]
    other = "lock of redis-py" if store == "redis" else "shared job store"
    for name, clocks in {"true clocks": (0.0,) * 4, "clocks off": CLOCKS}.items():
        todo.append((f"APScheduler alone, {other}, {name}", "", {"claims": False, "clocks": clocks}))
    todo = [trial for trial in todo if only in trial[0]]
    with STORES[store]() as make:
        for number, (name, disturb, options) in enumerate(todo):
            with ExitStack() as stack:
                url = make(stack)["url"]
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                trial = Trial(Path(folder, "notes"), url, f"trial_{number}", **options)
                trial.go_on(seconds, disturb)
                judged = trial.judge()
            result = Result()
            result.check(*judged.problems() if trial.claims else ())
            print(row(store, name, judged), flush=True)
            wrong += [f"{store}, {name}: {problem}" for problem in result.wrong]
    return wrong


def row(store: str, name: str, judged: Judgement) -> str:
    """A row of the table."""
    due = judged.due()
    counts: tuple[Callable[[str], int], ...] = (
        lambda key: len(due) - len(judged.missing(key)),
        lambda key: len(judged.doubled(key).keys() & set(due)),
        lambda key: len(judged.lost(key)),
        lambda key: len(judged.together(key)),
    )
    cells = [" / ".join(str(count(key)) for key in judged.trial.jobs) for count in counts]
    return f"| {store} | {name} | {len(due)} | {' | '.join(cells)} | {judged.reasons()} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each trial takes, at least 10")
    parser.add_argument("--store", choices=STORES, action="append", help="instead of all; can be repeated")
    parser.add_argument("--only", default="", help="the trials whose names contain this")
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores, ", end="")
    print(f"{datetime.now(UTC):%Y-%m-%d}, {arguments.seconds:g} s a trial; 10 ms job / 0.2 s job\n")
    columns = ["store", "trial", "due", "made", "doubled", "lost without a reason", "at the same time", "reasons"]
    print("|", " | ".join(columns), "|\n| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |", flush=True)
    wrong = []
    for store in arguments.store or STORES:
        wrong += tried(store, arguments.seconds, arguments.only)
    if wrong:
        print("\nWrong:", *wrong[:50], sep="\n- ")
    return 1 if wrong else 0


if __name__ == "__main__":
    logger.remove()
    if sys.argv[1:2] == ["live"]:
        live(**json.loads(sys.argv[2]))
    else:
        sys.exit(main())
