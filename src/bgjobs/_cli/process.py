"""What ``bgjobs status`` shows of one process, from its status file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .._check import aligned
from .._runs.log import printable

#: The columns of the table, by attribute of `JobStatus`; a text of any length comes last.
_TITLES = {
    "key": "JOB",
    "cron": "SCHEDULE",
    "next_run_time": "NEXT RUN",
    "running": "RUNNING",
    "last_outcome": "OUTCOME",
    "last_succeeded_at": "LAST SUCCESS",
    "consecutive_failures": "FAILURES",
    "last_error": "ERROR",
}
_FRACTION = re.compile(r"(?<=:\d\d)\.\d+")


def as_text(found: Mapping[str, Any]) -> str:
    """Return what a status file says: the problems, then a table of the jobs."""
    table = [tuple(_TITLES.values()), *(tuple(_cell(row, name) for name in _TITLES) for row in found["jobs"])]
    return "\n".join([*(f"problem: {printable(text)}" for text in found["health"]["problems"]), aligned(table)])


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name) or "-"
    if name == "next_run_time" and row.get("paused"):
        value = "paused"
    elif name.endswith(("_at", "_time")):
        value = _FRACTION.sub("", str(value))
    return printable(str(value))  # whatever has been written into the file, it does nothing to a terminal
