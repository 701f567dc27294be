"""Every file of examples/ at work, in real processes; judged by what is in the database or on the wire."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parent.parent
LIMIT = 60  # seconds until a test gives up; never how long it takes


@contextmanager
def running(directory: Path, *arguments: str, **env: str) -> Generator[subprocess.Popen[str]]:
    """A Python process in a directory of its own, with the repository on its path."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], stop: signal.Signals | None = None) -> tuple[str, str]:
    """What a process has printed when it is over, by itself or by a signal; it must have ended well."""
    if stop is not None:
        process.send_signal(stop)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    return out, err


def rows(database: Path, query: str) -> int:
    """The first value of a query; 0 while the database is not there yet."""
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database)) as connection:
        try:
            return int(connection.execute(query).fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for what a process does; it must not end before."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def everything_has_happened(database: Path) -> bool:
    """Whether every job of the quickstart has done its work."""
    return (
        rows(database, "SELECT count(*) FROM users") > 2  # the first run of the synchronisation inserts two
        and rows(database, "SELECT max(updates) FROM users") > 0
        and rows(database, "SELECT count(*) FROM emails WHERE subject LIKE 'newsletter%'") == 0
        and rows(database, "SELECT count(*) FROM emails WHERE subject = 'Good morning'") > 0
        and rows(database, "SELECT count(*) FROM emails WHERE subject = 'Good evening'") > 0
        and rows(database, "SELECT count(*) FROM failures WHERE error LIKE '%503%'") > 0
    )


def test_the_quickstart_does_all_its_work_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    """It synchronises, notifies, cleans up, and handles failures; on SIGINT it sums up and ends with status 0."""
    database = tmp_path / "quickstart.db"
    with running(tmp_path, "-m", "examples.quickstart", "--seconds", str(LIMIT)) as process:
        until(lambda: everything_has_happened(database), process)
        out, err = ended(process, signal.SIGINT)
    assert "2 users read, 2 inserted, 0 updated" in out
    assert "failed, and handled: HTTP Error 503" in out
    assert f"{rows(database, 'SELECT count(*) FROM users')} users" in out.splitlines()[-3]
    assert "Traceback" not in err


def test_the_quickstart_ends_by_itself(tmp_path: Path) -> None:
    """After --seconds it waits for its runs, sums up, and ends with status 0."""
    database = tmp_path / "another.db"
    arguments = ["--seconds", "0.5", "--database", str(database)]
    with running(tmp_path, "-m", "examples.quickstart", *arguments) as process:
        out, _ = ended(process)
    assert "The jobs run for 0.5 seconds" in out
    assert f"In {database} there are now:" in out


def test_the_environment_changes_a_schedule_of_the_quickstart(tmp_path: Path) -> None:
    """A mistake in the variable that its README shows is named, so the variable is read."""
    variable = {"BGJOBS__JOBS__DATA_SYNC_JOB__CRON": "* * * * * 8"}
    with running(tmp_path, "-m", "examples.quickstart", **variable) as process:
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert '"* * * * * 8"' in err


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_quickstart_runs_from_its_settings_file(tmp_path: Path, stop: signal.Signals) -> None:
    """`bgjobs run --config` does the same work, and ends cleanly on either signal."""
    settings = ROOT / "examples" / "quickstart" / "settings.toml"
    database = tmp_path / "quickstart.db"
    with running(tmp_path, "-m", "bgjobs", "run", "--config", str(settings)) as process:
        until(lambda: everything_has_happened(database), process)
        ended(process, stop)


def test_an_existing_scheduler_keeps_its_own_job(tmp_path: Path) -> None:
    """Both jobs run; after closing, the scheduler has only its own."""
    database = tmp_path / "existing_scheduler.db"
    with running(tmp_path, "-m", "examples.existing_scheduler", "--seconds", str(LIMIT)) as process:
        for who in ("the job of bgjobs", "the job of the application"):
            until(lambda who=who: rows(database, f"SELECT count(*) FROM runs WHERE who = '{who}'") > 1, process)  # type: ignore[misc]
        out, _ = ended(process, signal.SIGINT)
    listed = out.partition("goes on with its own:")[2]
    assert "note" in listed
    assert "ReportJob" not in listed


def test_a_fastapi_application_runs_its_job(tmp_path: Path) -> None:
    """Served by uvicorn, the application has what its immediate run has fetched, and ends on SIGINT."""
    arguments = ["-m", "uvicorn", "examples.fastapi_app.app:app", "--port", "0"]
    with running(tmp_path, *arguments) as process:
        assert process.stderr is not None
        address = next(
            found[1] for line in process.stderr if (found := re.search(r"running on (http://[\w.:]+)", line))
        )

        def fetch(path: str) -> Any:
            with urlopen(address + path, timeout=LIMIT) as response:
                return json.load(response)

        until(lambda: fetch("/rates") != {}, process)
        assert fetch("/last-run")["key"] == "refresh_rates"
        until(lambda: fetch("/jobs")[0]["outcomes"]["succeeded"], process)
        assert fetch("/ready") == {"ok": True, "problems": []}
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
    assert "Application shutdown complete" in err
