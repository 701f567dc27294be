"""What importing bgjobs costs, against importing what it uses of its three dependencies, in wall time.

Each import is made in a fresh process, in turn; what is printed are the medians and the least times of all rounds.
Python must be allowed to keep byte code.

    python benchmarks/imports.py [rounds]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

APSCHEDULER = [
    "apscheduler.executors.asyncio",
    "apscheduler.executors.pool",
    "apscheduler.schedulers.asyncio",
    "apscheduler.schedulers.background",
    "apscheduler.schedulers.blocking",
    "apscheduler.triggers.cron",
]
CONTESTANTS = {
    "the three dependencies": f"import {', '.join(APSCHEDULER)}, loguru, pydantic_settings",
    "bgjobs": "import bgjobs",
    "bgjobs and its settings": "from bgjobs import BackgroundJobsSettings",
}


def milliseconds(code: str) -> float:
    """The time of one fresh process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.perf_counter() - begin) * 1e3


def main() -> None:
    """Measure and print everything."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    table = [[milliseconds(code) for code in CONTESTANTS.values()] for _ in range(rounds + 1)][1:]
    columns = dict(zip(CONTESTANTS, zip(*table, strict=True), strict=True))
    base = columns["the three dependencies"]
    print(f"{'':26}median ms   ratio   least ms   ratio")
    for name, times in columns.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(times, base, strict=True))
        print(f"{name:26}{statistics.median(times):9.1f}{ratio:8.2f}{min(times):11.1f}{min(times) / min(base):8.2f}")


if __name__ == "__main__":
    main()
