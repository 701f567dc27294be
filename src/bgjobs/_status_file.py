"""The status file: how the jobs of one process are, for `bgjobs status`, probes and people.

A thread writes it: every ten seconds, at each change of health, and a last time when the jobs are closed. A process
that hangs or has died is known by the age of its file.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ._errors import ConfigurationError
from ._runs import log
from ._runs.status import Health, JobStatus
from ._runs.threads import start_thread, waits


class StatusFile:
    """Keeps one file up to date, from `start` to `stop`.

    Args:
        path: The file, in a directory that exists; ``None`` for none.
        application: The name of the application.
        health: Tells how the jobs are.
        status: Gives a row for each of them.
    """

    _closed: threading.Event
    _thread: threading.Thread | None = None
    _is_told = False

    def __init__(
        self,
        path: Path | None,
        application: str,
        health: Callable[[], Health],
        status: Callable[[], list[JobStatus]],
    ) -> None:
        self._path = path
        self._application = application
        self._health = health
        self._status = status

    def start(self) -> None:
        """Start the thread that writes the file."""
        if self._path is not None:
            self._closed = threading.Event()
            path = self._path.absolute()  # a later change of directory does not move it
            self._thread = start_thread(partial(self._keep, path, self._closed), "bgjobs-status")

    def stop(self) -> None:
        """Have the file written a last time, and wait for that."""
        if self._thread is not None:
            self._closed.set()
            self._thread.join()

    def _keep(self, path: Path, closed: threading.Event) -> None:
        problems, due = 0, 0.0
        while True:
            is_last = closed.is_set()
            health = self._health()
            if is_last or len(health.problems) != problems or time.monotonic() >= due:
                self._write(path, health)
                problems, due = len(health.problems), time.monotonic() + waits.status
            if is_last:
                return
            closed.wait(waits.look)

    def _write(self, path: Path, health: Health) -> None:
        """Replace the file, so that nobody reads half of it. Raises nothing; one warning until it works again."""
        new = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            found = {
                "application": self._application,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "time": datetime.now(UTC).isoformat(),
                "health": health.as_dict(),
                "jobs": [row.as_dict() for row in self._status()],
            }
            new.unlink(missing_ok=True)
            with new.open("x", encoding="ascii") as file:  # not through a link that somebody has put there
                json.dump(found, file, indent=2)
            new.replace(path)
            self._is_told = False
        except Exception as error:  # noqa: BLE001 - nothing that happens here costs a run
            if not self._is_told:
                log.warning(f"the status file {str(path)!r} cannot be written: {log.described(error)}")
            self._is_told = True


def read(path: Path) -> dict[str, Any]:
    """Return what a status file says; one that is too old has a problem more.

    Raises:
        ConfigurationError: It is not there, cannot be read, or is no status file.
    """
    try:
        found = json.loads(path.read_bytes())
        age = (datetime.now(UTC) - datetime.fromisoformat(found["time"])).total_seconds()
        problems = list(map(str, found["health"]["problems"]))
        jobs = [dict(row) for row in found["jobs"]]
    except OSError as exc:
        problem = f"cannot be read: {exc.strerror}"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        problem = "is damaged, or no status file"
    else:
        if abs(age) > waits.stale:
            problems.append(f"the status file was written {age:.0f} s ago: its process hangs, or has ended")
        return {**found, "health": Health(not problems, tuple(problems)).as_dict(), "jobs": jobs}
    raise ConfigurationError(f"the status file {str(path)!r} {problem}", "status_file")
