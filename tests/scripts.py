"""Scripts of jobs in a process of their own: for forks, real signals, and the exit of the interpreter."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from stage import LIMIT

#: What each script begins with.
BEGIN = """
import asyncio, atexit, multiprocessing, os, signal, sys, threading, time, warnings
from concurrent.futures import ProcessPoolExecutor
from bgjobs import LifecycleError, current_run
from stage import CLASSES, LIMIT, NIGHTLY, cold, nothing

warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
fork = multiprocessing.get_context("fork")
for_ever = threading.Event()

def say(*words):
    print(*words, flush=True)

def child(body):
    "Run it in a forked child that ends as a script does, and return the seconds that it took."
    begun, pid = time.monotonic(), os.fork()
    if pid == 0:
        body()
        sys.exit()
    os.waitpid(pid, 0)
    return time.monotonic() - begun
"""


def start(tmp_path: Path, body: str) -> subprocess.Popen[str]:
    """Start a script."""
    path = tmp_path / "script.py"
    path.write_text(BEGIN + textwrap.dedent(body), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, path], stdout=pipe, stderr=pipe, text=True, env=environment)


def finished(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    """The status of a script that ends by itself, the lines that it printed, and its errors."""
    try:
        out, err = process.communicate(timeout=2 * LIMIT)
    finally:
        process.kill()
    return process.returncode, out.splitlines(), err


def said(tmp_path: Path, body: str) -> list[str]:
    """The lines that a script prints, its children's included; it ends well."""
    status, lines, err = finished(start(tmp_path, body))
    assert status == 0, err
    assert "Traceback" not in err
    return lines


def signalled(process: subprocess.Popen[str], number: signal.Signals, line: str = "begun") -> None:
    """Send a script a signal, after it has printed that line."""
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"
    process.send_signal(number)


def hammered(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a script a signal again and again until it prints something or ends: some are echoes of the first."""
    assert process.stdout is not None
    for _ in range(int(LIMIT / 0.05)):
        process.send_signal(number)
        if select.select([process.stdout], [], [], 0.05)[0]:
            return
